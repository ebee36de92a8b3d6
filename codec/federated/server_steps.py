"""What a server does with the mean pseudo-gradient: plain averaging, and two kinds of heavy ball.

d is the mean of what clients say, w the server's weights, m its momentum:

averaging              w = w - eta d
heavy ball             m = beta m + d,               w = w - eta m
generalised            m = beta m + (1 - beta) d,    w = w - eta ((1 - nu) d + nu m)

With nu = 0 the last is the first; with nu = 1 it is the second at 1 / (1 - beta) of its rate.

References:
    McMahan et al. 2016, Communication-efficient learning of deep networks from decentralized data, arXiv:1602.05629.
    Hsu, Qi and Brown 2019, Measuring the effects of non-identical data distribution for federated visual
    classification, arXiv:1909.06335: momentum at the server (FedAvgM), and splits of labels by a Dirichlet law.
    Ma and Yarats 2018, Quasi-hyperbolic momentum and Adam for deep learning, arXiv:1810.06801: the generalised form.
"""

import abc
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor
from typing_extensions import override

from ..errors import ConfigError


class ServerState(NamedTuple):
    """What a server remembers between rounds.

    Attributes:
        momentum: `[param]`; zeros where none is kept.
    """

    momentum: Tensor


@dataclass(frozen=True)
class ServerStep(abc.ABC):
    """A rule that turns mean pseudo-gradients into steps. Pure; the state is handed in and out.

    Attributes:
        learning_rate: eta, above 0; 1 takes the clients' mean where nothing else is added.

    Raises:
        ConfigError: if a number is out of range.
    """

    name: ClassVar[str]
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1e6:
            raise ConfigError(f"`learning_rate` of a server's step must be above 0, got {self.learning_rate!r}.")

    def initial(self, like: Tensor) -> ServerState:
        """The state before the first round; `like` is a vector of weights."""
        return ServerState(torch.zeros_like(like))

    @abc.abstractmethod
    def advanced(self, state: ServerState, mean: Tensor) -> tuple[ServerState, Tensor]:
        """The next state, and what the weights go down by, `[param]`.

        Args:
            state: of the last round.
            mean: of the clients' pseudo-gradients, `[param]`.
        """


@final
@dataclass(frozen=True)
class Averaging(ServerStep):
    """The mean is the step: federated averaging."""

    name: ClassVar[str] = "averaging"

    @override
    def advanced(self, state: ServerState, mean: Tensor) -> tuple[ServerState, Tensor]:
        return state, self.learning_rate * mean


@final
@dataclass(frozen=True)
class HeavyBall(ServerStep):
    """Momentum at the server.

    Attributes:
        momentum: beta, at least 0 and below 1. A step grows to 1 / (1 - beta) of the mean's, so lower the rate with it.
    """

    name: ClassVar[str] = "heavy_ball"
    momentum: float = 0.9

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        _require_share("momentum", self.momentum)

    @override
    def advanced(self, state: ServerState, mean: Tensor) -> tuple[ServerState, Tensor]:
        momentum = self.momentum * state.momentum + mean
        return ServerState(momentum), self.learning_rate * momentum


@final
@dataclass(frozen=True)
class GeneralisedHeavyBall(ServerStep):
    """The mean and its running mean, mixed: quasi-hyperbolic momentum.

    Attributes:
        momentum: beta, at least 0 and below 1.
        share: nu, of the momentum in the step, from 0 to 1. 0.7 is the authors' start.
    """

    name: ClassVar[str] = "generalised_heavy_ball"
    momentum: float = 0.9
    share: float = 0.7

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        _require_share("momentum", self.momentum)
        if not 0 <= self.share <= 1:
            raise ConfigError(f"`share` must be from 0 to 1, got {self.share!r}.")

    @override
    def advanced(self, state: ServerState, mean: Tensor) -> tuple[ServerState, Tensor]:
        momentum = self.momentum * state.momentum + (1 - self.momentum) * mean
        step = (1 - self.share) * mean + self.share * momentum
        return ServerState(momentum), self.learning_rate * step


def _require_share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"`{name}` of a server's step must be at least 0 and below 1, got {value!r}.")

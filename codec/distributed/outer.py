"""Local steps with a rare exchange: ranks train by themselves, and every so often step together by how far they came.

d_r = w - w_r               the pseudo-gradient of rank r: the common weights less its own
d = mean of C(d_r)          through the codec
b = mu b + d,   w = w - eta (mu b + d)       Nesterov's outer step, the same on all ranks
w_r = w                     and on
"""

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ...models.inverted_optimizer import InvertibleOptimizer, OptimizerState
from ..errors import ConfigError, StateError
from .aggregation import Aggregation

PSEUDO_GRADIENTS = "pseudo_gradients"


@final
@dataclass(frozen=True)
class OuterNesterov(InvertibleOptimizer):
    """b = momentum b + d, update = learning_rate (momentum b + d); and back.

    It is an `InvertibleOptimizer`, so that a forecaster of weights can predict pseudo-gradients:
    `InvertedOptimizer(member, OuterNesterov(...), stream="pseudo_gradients")` as the codec's predictor.

    Attributes:
        learning_rate: eta, above 0. With momentum 0 and 1 here, ranks simply average their weights.
        momentum: mu, at least 0 and below 1. 0.7 and 0.9 are DiLoCo's choice for language models and 50 to 500 local
            steps. Short runs want less momentum: after k rounds only 1 - mu^k of its effect is there.

    Raises:
        ConfigError: if one is out of range.

    References:
        Douillard et al. 2023, DiLoCo, arXiv:2311.08105, algorithm 1.
    """

    name: ClassVar[str] = "outer_nesterov"
    learning_rate: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1e6:
            raise ConfigError(f"The outer `learning_rate` must be above 0, got {self.learning_rate!r}.")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"The outer `momentum` must be at least 0 and below 1, got {self.momentum!r}.")

    @override
    def initial(self, like: Tensor) -> OptimizerState:
        return OptimizerState(0, torch.zeros_like(like), like.new_zeros(0))

    @override
    def advanced(self, state: OptimizerState, gradient: Tensor) -> tuple[OptimizerState, Tensor]:
        first = self.momentum * state.first + gradient
        update = self.learning_rate * (self.momentum * first + gradient)
        return OptimizerState(state.num_updates + 1, first, state.second), update

    @override
    def gradient(self, state: OptimizerState, update: Tensor) -> Tensor:
        return (update / self.learning_rate - self.momentum**2 * state.first) / (1 + self.momentum)

    @override
    def gain(self, state: OptimizerState) -> Tensor:
        return state.first.new_tensor(1 / (self.learning_rate * (1 + self.momentum)))


@final
class LocalRounds:
    """The common weights, and the exchange at the end of each round.

    Args:
        aggregation: of the stream `pseudo_gradients`, which few exchanges make worth predicting.
        outer: the outer step.
        weights: `[param]`, float32, equal on all ranks.

    Attributes:
        weights: the common ones, of the last round, `[param]`.
        num_rounds: so far.
    """

    def __init__(self, aggregation: Aggregation, outer: OuterNesterov, weights: Tensor) -> None:
        self.aggregation = aggregation
        self.outer = outer
        self.weights = weights.detach().to("cpu", torch.float32, copy=True)
        self.num_rounds = 0
        self._state = outer.initial(self.weights)

    @torch.no_grad()
    def finish(self, local: Tensor) -> Tensor:
        """End a round; the new common weights, equal bit for bit on all ranks, `[param]`. Every rank must call it.

        If any rank's weights are not finite, all go back to the last round's, and momentum stays.

        Args:
            local: this rank's weights, `[param]`.

        Raises:
            CodecError: as `Aggregation.average` does.
        """
        mean = self.aggregation.average(self.weights - local.detach().to("cpu", torch.float32))
        if bool(mean.isfinite().all()):
            self._state, update = self.outer.advanced(self._state, mean)
            self.weights = self.weights - update
        self.num_rounds += 1
        return self.weights.clone()

    def common_state(self) -> dict[str, Any]:
        """What is equal on all ranks."""
        return {
            "weights": self.weights.clone(),
            "momentum": self._state.first.clone(),
            "num_updates": self._state.num_updates,
            "num_rounds": self.num_rounds,
        }

    def load_common_state(self, saved: dict[str, Any]) -> None:
        """Take over what `common_state` gave.

        Raises:
            StateError: if it does not fit.
        """
        if set(saved) != set(self.common_state()):
            raise StateError(f"The saved rounds are damaged: they have the entries {sorted(saved)}.")
        for name in ("weights", "momentum"):
            value = saved[name]
            if not isinstance(value, Tensor) or value.shape != self.weights.shape or value.dtype != torch.float32:
                raise StateError(f"`{name}` of saved rounds must be float32 of shape {tuple(self.weights.shape)}.")
        self.weights = saved["weights"].clone()
        first = saved["momentum"].clone()
        self._state = OptimizerState(int(saved["num_updates"]), first, self._state.second)
        self.num_rounds = int(saved["num_rounds"])

"""Gradients from a forecaster of weights: the optimiser, run forwards over the window and backwards from there."""

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, LearnedForecaster, Window, WindowError
from ..forecast.errors import NotFittedError
from .errors import ModelError
from .motion import working_dtype
from .options import require_integer, require_not_negative, require_positive
from .saved_options import describe
from .wrapper import Member


class OptimizerState(NamedTuple):
    """What an optimiser knows.

    Attributes:
        num_updates: made so far.
        first: its running sum or mean of gradients, `[param]`.
        second: its running mean of their squares, `[param]`; `[0]` where it keeps none.
    """

    num_updates: int
    first: Tensor
    second: Tensor


class InvertibleOptimizer(abc.ABC):
    """An optimiser's update as a function of the gradient, and the way back. An update is what weights go down by."""

    name: ClassVar[str]

    @abc.abstractmethod
    def initial(self, like: Tensor) -> OptimizerState:
        """The state before the first update, for gradients of this type and shape."""

    @abc.abstractmethod
    def advanced(self, state: OptimizerState, gradient: Tensor) -> tuple[OptimizerState, Tensor]:
        """The state after one more gradient, and the update."""

    @abc.abstractmethod
    def gradient(self, state: OptimizerState, update: Tensor) -> Tensor:
        """The gradient that would cause an update."""

    @abc.abstractmethod
    def gain(self, state: OptimizerState) -> Tensor:
        """How much `gradient` changes with the update, `[param]` or 0-d, at least 0."""


@final
@dataclass(frozen=True)
class SGD(InvertibleOptimizer):
    """b = momentum b + g, update = learning_rate b; and back, g = update / learning_rate - momentum b.

    Attributes:
        learning_rate: above 0.
        momentum: at least 0 and below 1.

    Raises:
        ModelError: if one is out of range.
    """

    name: ClassVar[str] = "sgd"
    learning_rate: float = 1e-3
    momentum: float = 0.0

    def __post_init__(self) -> None:
        require_positive("learning_rate", self.learning_rate)
        _require_decay("momentum", self.momentum)

    @override
    def initial(self, like: Tensor) -> OptimizerState:
        return OptimizerState(0, torch.zeros_like(like), like.new_zeros(0))

    @override
    def advanced(self, state: OptimizerState, gradient: Tensor) -> tuple[OptimizerState, Tensor]:
        first = self.momentum * state.first + gradient
        return OptimizerState(state.num_updates + 1, first, state.second), self.learning_rate * first

    @override
    def gradient(self, state: OptimizerState, update: Tensor) -> Tensor:
        return update / self.learning_rate - self.momentum * state.first

    @override
    def gain(self, state: OptimizerState) -> Tensor:
        return state.first.new_tensor(1 / self.learning_rate)


@final
@dataclass(frozen=True)
class Adam(InvertibleOptimizer):
    """Adam (Kingma and Ba 2014, arXiv 1412.6980, algorithm 1), and back with its second moment as it stands.

    With m, v the moments before the update, t its number, r = sqrt(v / (1 - beta2^(t-1))) + eps,

        g = ((1 - beta1^t) r update / learning_rate - beta1 m) / (1 - beta1).

    An error of the update is multiplied by r (1 - beta1^t) / (learning_rate (1 - beta1)): at beta1 = 0.9, ten times
    what it is in units of the gradient. For SGD that factor is 1.

    The update proper divides by a v that holds g itself. That inverse is a quadratic equation without a root for
    updates beyond what any gradient can cause; at t = 2 it multiplies errors by 40, and at t = 1 by infinity, because
    the first update of Adam is the gradient's sign. Here v is the one before, which a gradient like those before
    changes by the share 1 - beta2. The first update has no v before it; r is eps then, and the result meaningless.

    Attributes:
        learning_rate: above 0.
        beta1: decay of the first moment, at least 0 and below 1.
        beta2: decay of the second.
        eps: added to the root, at least 0.

    Raises:
        ModelError: if one is out of range.
    """

    name: ClassVar[str] = "adam"
    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        require_positive("learning_rate", self.learning_rate)
        _require_decay("beta1", self.beta1)
        _require_decay("beta2", self.beta2)
        require_not_negative("eps", self.eps)

    @override
    def initial(self, like: Tensor) -> OptimizerState:
        return OptimizerState(0, torch.zeros_like(like), torch.zeros_like(like))

    @override
    def advanced(self, state: OptimizerState, gradient: Tensor) -> tuple[OptimizerState, Tensor]:
        after = OptimizerState(
            state.num_updates + 1,
            torch.lerp(gradient, state.first, self.beta1),
            torch.lerp(gradient.square(), state.second, self.beta2),
        )
        mean = after.first / (1 - self.beta1**after.num_updates)
        root = self._root(after)
        return after, self.learning_rate * torch.where(root > 0, mean / root, 0.0)

    @override
    def gradient(self, state: OptimizerState, update: Tensor) -> Tensor:
        return self.gain(state) * update - self.beta1 / (1 - self.beta1) * state.first

    @override
    def gain(self, state: OptimizerState) -> Tensor:
        share = (1 - self.beta1 ** (state.num_updates + 1)) / (1 - self.beta1)
        return share / self.learning_rate * self._root(state)

    def _root(self, state: OptimizerState) -> Tensor:
        corrected = state.second / (1 - self.beta2**state.num_updates) if state.num_updates else state.second
        return corrected.sqrt() + self.eps


def _require_decay(name: str, value: object) -> None:
    if type(value) not in (int, float) or not 0 <= value < 1:  # type: ignore[operator]
        raise ModelError(f"`{name}` must be a number of at least 0 and below 1, got {value!r}.")


@final
class InvertedOptimizer(LearnedForecaster):
    """A forecaster of gradients made of one of weights: where the weights would go, and which gradient leads there.

    The adapter that lets a forecaster of weights sit in front of a codec of gradients. The optimiser is run over the
    window's gradients, from weights and moments of zero. The member forecasts the weights one row further, and the
    optimiser, run backwards, tells the gradient that leads there. With w the last weights,

        mean = gradient(w - member's mean),    scale = gain times the member's scale.

    Further rows follow one from another; their scale is that of two forecasts of weights, taken as independent.

    What it costs. The window is all there is: the moments begin at zero, so that the path is the one of an optimiser
    that starts at the window's first row, not of the one that trained. A first moment of beta1 = 0.9 made from five
    rows holds 41 % of the weights of a full one (bias correction scales them up), a second of 0.999 half a percent.
    A longer `history` mends that, at a row of memory each. Weights count from zero: weight decay, and members that look
    at where weights are rather than how they move, see something else than in training. The learning rate is taken as
    constant; if the member is homogeneous (twice the motion, twice the step), the result does not depend on it.

    When not to use it: behind Adam the error of the weights' forecast comes out ten times as large (`Adam`). A
    forecast that is right to 10 % of an update is no better than no prediction of the gradient.

    One row is one update, so rows must be evenly spaced and horizons multiples of their distance. It is not in
    `make_forecaster`: the forecasters there continue constants exactly, but constant gradients are a line of weights,
    which few members continue, and rounding is left over where they do.

    Args:
        member: of `weights`; fit it before.
        optimizer: how gradients become updates.
        history: gradients to start from; as few as the member can do with, at least 2, if `None`.
        stream: the stream it forecasts.

    Raises:
        ModelError: if the member is of another stream or needs the optimiser's moments, or `history` is too short.

    Examples:
        >>> from deadreckon.models import Linear
        >>> forecaster = InvertedOptimizer(Linear(history=2), SGD(learning_rate=0.1))
        >>> forecaster.stream, forecaster.history
        ('gradients', 2)
    """

    name: ClassVar[str] = "inverted_optimizer"

    def __init__(
        self,
        member: Member,
        optimizer: InvertibleOptimizer,
        history: int | None = None,
        stream: str = "gradients",
    ) -> None:
        super().__init__(stream)
        if member.stream != "weights":
            raise ModelError(f"{self.name!r} needs a forecaster of 'weights', got one of {member.stream!r}.")
        if member.needs_moments:
            raise ModelError(f"{member.name!r} needs the optimiser's moments, which a window of gradients lacks.")
        self.member = member
        self.needs_graph = member.needs_graph
        self.optimizer = optimizer
        needed = max(2, member.history - 1)  # the weights before the first gradient are one more row; spacing takes two
        self.history = needed if history is None else require_integer("history", history, needed)

    @property
    @override
    def fitted(self) -> bool:
        return self.member.fitted

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "member": describe(self.member),
            "optimizer": {"name": self.optimizer.name, **vars(self.optimizer)},
            "history": self.history,
            "stream": self.stream,
        }

    @override
    def state_dict(self) -> dict[str, Tensor]:
        return self.member.state_dict() if isinstance(self.member, LearnedForecaster) else {}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if isinstance(self.member, LearnedForecaster):
            self.member.load_state_dict(state)
        elif state:
            raise NotFittedError(f"{self.member.name!r} learns nothing, got {sorted(state)}.")

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        spacing = window.spacing
        state, weights = self._path(window, spacing)
        for horizon in horizons:
            if horizon % spacing:
                raise WindowError(
                    f"{self.name!r} makes one update a row: with rows {spacing} steps apart the horizon must be a "
                    f"multiple of that, got {horizon}."
                )
            mean, scale = self._inverted(state, weights, horizon, spacing)
            yield Forecast(horizon, mean.to(window.values.dtype), scale.to(window.values.dtype))

    def _path(self, window: Window, spacing: int) -> tuple[OptimizerState, Window]:
        """The optimiser's state after the window's gradients, and the weights before, between and after them."""
        gradients = window.values.to(working_dtype(window.values.dtype))
        state = self.optimizer.initial(gradients[0])
        rows = [torch.zeros_like(gradients[0])]
        for gradient in gradients:
            state, update = self.optimizer.advanced(state, gradient)
            rows.append(rows[-1] - update)
        steps = torch.cat([window.steps[:1] - spacing, window.steps])
        return state, Window(torch.stack(rows), steps, window.layout, graph=window.graph)

    def _inverted(self, state: OptimizerState, weights: Window, horizon: int, spacing: int) -> tuple[Tensor, Tensor]:
        """Mean and scale of one horizon: the optimiser backwards along the forecast weights, row after row."""
        last, last_scale = weights.last, torch.zeros_like(weights.last)
        gradient = scale = last_scale
        for forecast in self.member.forecast(weights, range(spacing, horizon + 1, spacing)):
            gradient = self.optimizer.gradient(state, last - forecast.mean)
            scale = self.optimizer.gain(state) * forecast.scale.hypot(last_scale)
            state, _ = self.optimizer.advanced(state, gradient)
            last, last_scale = forecast.mean, forecast.scale
        return gradient, scale

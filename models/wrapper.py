"""The contract of forecasters that change or combine what others say."""

import abc
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecaster, LearnedForecaster, Window
from ..forecast.errors import NotFittedError
from .closed_form import ClosedForm
from .errors import ModelError
from .fitting import Budget, Examples, FitResult, FittableForecaster, relative_error
from .motion import working_dtype

Member = ClosedForm | FittableForecaster
Members = Sequence[Member]


class Wrapper(FittableForecaster):
    """A forecaster made of others, its members.

    It needs the history of the member that needs most, and moments if one of them does. Fitting it fits those members
    that have to be fitted, each to the same examples cut to its own history, and then what it learns itself, if
    anything. All of it is saved and loaded as one; a member's tensors have its position as a prefix.

    Args:
        members: at least one, all of the same stream. They are the wrapper's own from now on: fitting it changes them.
        stream: the stream they forecast.

    Raises:
        ModelError: if a member is no forecaster, or of another stream.
    """

    def __init__(self, members: Members, stream: str) -> None:
        super().__init__(stream)
        if not members:
            raise ModelError(f"{self.name!r} needs at least one forecaster.")
        for member in members:
            if not isinstance(member, ClosedForm | FittableForecaster):
                raise ModelError(f"{self.name!r} is made of forecasters, got {member!r}.")
            if member.stream != stream:
                raise ModelError(
                    f"{self.name!r} forecasts {stream!r}, but {member.name!r} forecasts {member.stream!r}."
                )
        self.members: tuple[Member, ...] = tuple(members)
        self.history = max(member.history for member in members)
        self.needs_moments = any(member.needs_moments for member in members)
        self.needs_graph = any(member.needs_graph for member in members)

    @property
    @override
    def fitted(self) -> bool:
        return all(member.fitted for member in self.members)

    @override
    def state_dict(self) -> dict[str, Tensor]:
        if not self.fitted:
            return {}
        found: dict[str, Tensor] = {}
        for position, member in enumerate(self.members):
            if isinstance(member, LearnedForecaster):
                found |= {f"{position}.{key}": value for key, value in member.state_dict().items()}
        return found | {f"own.{key}": value for key, value in self._own_state().items()}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            prefix, _, rest = key.partition(".")
            parts.setdefault(prefix, {})[rest] = value
        known = {str(position) for position, item in enumerate(self.members) if isinstance(item, LearnedForecaster)}
        if strange := sorted(parts.keys() - known - {"own"}):
            raise NotFittedError(f"{self.name!r} has no learned member {strange[0]!r}.")
        before = self._states()
        try:
            for position, member in enumerate(self.members):
                if isinstance(member, LearnedForecaster):
                    member.load_state_dict(parts.get(str(position), {}))
            self._load_own(parts.get("own", {}))
        except Exception:
            self._put_back(before)
            raise
        if state and not self.fitted:
            self._put_back(before)
            raise NotFittedError(f"The state of {self.name!r} lacks that of one of its members.")

    def _states(self) -> list[dict[str, Tensor]]:
        """What all members and the wrapper itself have learned."""
        states = [member.state_dict() if isinstance(member, LearnedForecaster) else {} for member in self.members]
        return [*states, self._own_state()]

    def _put_back(self, states: list[dict[str, Tensor]]) -> None:
        for member, state in zip(self.members, states[:-1], strict=True):
            if isinstance(member, LearnedForecaster):
                member.load_state_dict(state)
        self._load_own(states[-1])

    def _own_state(self) -> dict[str, Tensor]:
        """What the wrapper itself has learned, as tensors by name; nothing where it learns nothing."""
        return {}

    def _load_own(self, state: dict[str, Tensor]) -> None:
        """Take over what `_own_state` gave; called after the members' state has been loaded.

        Raises:
            NotFittedError: if the entries are not those of this wrapper.
        """
        if state:
            raise NotFittedError(f"{self.name!r} learns nothing of its own, got {sorted(state)}.")

    @override
    def fit_to(self, examples: Examples, budget: Budget, generator: torch.Generator) -> FitResult:
        before = self._states()
        iterations = 0
        try:
            for member in self.members:
                if isinstance(member, FittableForecaster):
                    own = self._examples_of(member, examples)
                    iterations += member.fit_to(own, budget, generator).iterations
            self._fit_own(examples)
        except Exception:
            self._put_back(before)
            raise
        errors = [self._error(examples, part) for part in (examples.training, examples.validation)]
        return FitResult(max(1, iterations), errors[0], errors[1], "solved")

    def _examples_of(self, member: Member, examples: Examples) -> Examples:
        """The examples that one member is fitted to."""
        return Examples.of(examples.cases[examples.training], member, examples.cases[examples.validation])

    @abc.abstractmethod
    def _fit_own(self, examples: Examples) -> None:
        """Learn what the wrapper itself learns, from members that are fitted already."""

    def _error(self, examples: Examples, part: slice) -> float:
        """Squared error of the forecasts over that of persistence on a part of the examples."""
        wrong = torch.zeros(len(examples.horizons), dtype=torch.float64)
        moved = torch.zeros(len(examples.horizons), dtype=torch.float64)
        for case, weight in zip(examples.cases[part], examples.weights[part].tolist(), strict=True):
            last = case.window.last
            for index, forecast in enumerate(self.forecast(case.window, examples.horizons)):
                truth = case.targets[forecast.horizon]
                wrong[index] += weight * squared_distance(forecast.mean, truth)
                moved[index] += weight * squared_distance(last, truth)
        return float(relative_error(wrong, moved))


def squared_distance(first: Tensor, second: Tensor) -> float:
    """|first - second|^2 of two vectors, summed in float64."""
    dtype = working_dtype(first.dtype)
    return float((first.to(dtype) - second.to(dtype)).double().square().sum())


def step_of(forecaster: Forecaster, window: Window, horizon: int) -> tuple[Tensor, Tensor, Tensor]:
    """A forecaster's step from the newest row and its scale, and that row, `[param]` each, float32 or wider."""
    forecast = next(iter(forecaster.forecast(window, [horizon])))
    dtype = working_dtype(window.values.dtype)
    last = window.last.to(dtype)
    return forecast.mean.to(dtype) - last, forecast.scale.to(dtype), last

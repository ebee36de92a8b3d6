"""Of several forecasters the one that did best."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Window
from ..forecast.errors import NotFittedError
from .errors import FittingError
from .fitting import Examples
from .hold import Hold
from .learned_linear import LearnedLinear
from .linear import Linear
from .saved_options import describe
from .stored_state import require_horizons, require_tensors
from .wrapper import Member, Members, Wrapper, squared_distance


@final
class BestOf(Wrapper):
    """For each horizon the member with the least squared error on the validation cases; mean and scale are its own.

    A horizon between trained ones takes the member of the next longer one, a horizon beyond all that of the longest.
    The error it reports is that of a winner, so it is optimistic, the more so the more members there are and the fewer
    validation cases; where members hardly differ, `blended` is steadier.

    Args:
        members: what is chosen from; `hold`, `linear` and `learned_linear` if not given.
        stream: the stream it forecasts.

    Raises:
        ModelError: if there is none, or one is of another stream.
    """

    name: ClassVar[str] = "best_of"

    def __init__(self, members: Members | None = None, stream: str = "weights") -> None:
        default: tuple[Member, ...] = (Hold(stream=stream), Linear(stream=stream), LearnedLinear(stream=stream))
        super().__init__(default if members is None else members, stream)
        self._horizons: Tensor | None = None
        self._choices = torch.zeros(0, dtype=torch.int64)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"members": [describe(member) for member in self.members], "stream": self.stream}

    @property
    @override
    def fitted(self) -> bool:
        return self._horizons is not None and super().fitted

    def choice(self, horizon: int) -> Member:
        """The member that forecasts a horizon.

        Raises:
            NotFittedError: if it has not been fitted.
        """
        if self._horizons is None:
            raise NotFittedError(f"{self.name!r} has not been fitted. Call `fit_forecaster` first, or load it.")
        index = min(int(torch.searchsorted(self._horizons, horizon)), len(self._horizons) - 1)
        return self.members[int(self._choices[index])]

    @override
    def _own_state(self) -> dict[str, Tensor]:
        if self._horizons is None:
            return {}
        return {"horizons": self._horizons.clone(), "choices": self._choices.clone()}

    @override
    def _load_own(self, state: dict[str, Tensor]) -> None:
        if not state:
            self._horizons = None
            return
        num_horizons = state["horizons"].numel() if "horizons" in state else 0
        shape = (torch.int64, (num_horizons,))
        require_tensors(self.name, state, {"horizons": shape, "choices": shape})
        require_horizons(state["horizons"])
        choices = state["choices"]
        if not bool(((choices >= 0) & (choices < len(self.members))).all()):
            raise NotFittedError(f"'choices' of {self.name!r} must name one of its {len(self.members)} members.")
        self._horizons, self._choices = state["horizons"].clone(), choices.clone()

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            yield from self.choice(horizon).forecast(window, [horizon])

    @override
    def _fit_own(self, examples: Examples) -> None:
        errors = torch.zeros(len(examples.horizons), len(self.members), dtype=torch.float64)
        part = examples.validation
        for case, weight in zip(examples.cases[part], examples.weights[part].tolist(), strict=True):
            for position, member in enumerate(self.members):
                for index, forecast in enumerate(member.forecast(case.window, examples.horizons)):
                    truth = case.targets[forecast.horizon]
                    errors[index, position] += weight * squared_distance(forecast.mean, truth)
        if not bool(torch.isfinite(errors).any(dim=1).all()):
            raise FittingError("No member's forecast is finite up to some horizon.")
        self._choices = errors.nan_to_num(nan=float("inf")).argmin(dim=1)
        self._horizons = torch.tensor(examples.horizons)

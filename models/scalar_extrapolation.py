"""One number for each horizon: how much of the window's displacement comes again."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple, cast, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Window
from ..forecast.errors import NotFittedError
from .fitting import Budget, Examples, FitResult, FittableForecaster
from .horizons import between, require_known
from .line_sums import LineSums
from .options import require_integer
from .rows import combine
from .scales import LearnedScale
from .stored_state import require_tensors


@final
class ScalarExtrapolation(FittableForecaster):
    """mean = last + s(horizon) (last - first), one fitted number s for each horizon, the same for all coordinates.

    The control for every method that learns more than that: LFD-2 (Shou et al. 2025, arXiv 2505.02714) with one
    predicted step is this plus a constant, and a line through two rows has s = horizon / span. Solved by weighted least
    squares over all training cases. A negative s pulls back towards the first row, as averaging and Lookahead do; that
    is what fits where the rows are noisy.

    Between trained horizons s is linear in the horizon, zero at horizon 0.

    scale: see `LearnedScale`.

    Args:
        history: rows in the window, at least 2: how far back `first` lies. Longer reaches back over more noise.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        WindowError: (on forecasting) if the window's rows are not spaced as those it was fitted to, or a horizon lies
            beyond the largest trained one.
    """

    name: ClassVar[str] = "scalar_extrapolation"

    def __init__(self, history: int = 5, stream: str = "weights") -> None:
        super().__init__(stream)
        self.history = require_integer("history", history, 2)
        self._learned: _Learned | None = None

    @property
    @override
    def fitted(self) -> bool:
        return self._learned is not None

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"history": self.history, "stream": self.stream}

    @override
    def state_dict(self) -> dict[str, Tensor]:
        if self._learned is None:
            return {}
        shares, spacing, scale = self._learned
        return {"shares": shares.clone(), "spacing": torch.tensor(spacing), **scale.state_dict()}

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if not state:
            self._learned = None
            return
        scale = LearnedScale.read(self.name, state)
        own = {key: value for key, value in state.items() if not key.startswith("scale.")}
        expected = {"shares": (torch.float64, tuple(scale.horizons.shape)), "spacing": (torch.int64, ())}
        require_tensors(self.name, own, expected)
        if int(own["spacing"]) < 1:
            raise NotFittedError(f"'spacing' of {self.name!r} must be at least 1, got {int(own['spacing'])}.")
        self._learned = _Learned(own["shares"].clone(), int(own["spacing"]), scale)

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        learned = cast(_Learned, self._learned)  # `forecast` refuses to go on without
        require_known(window, horizons, learned.spacing, int(learned.scale.horizons[-1]))
        return self._each(learned, window, horizons)

    def _each(self, learned: "_Learned", window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            share = between(learned.scale.horizons, learned.shares, horizon)
            yield Forecast(horizon, combine(window, self._weights(share)), learned.scale.at(window, horizon))

    def _weights(self, share: Tensor) -> Tensor:
        """What each row counts for, `[time - 1]`: minus s for the first, nothing for the others."""
        weights = torch.zeros(self.history - 1, dtype=torch.float64)
        weights[0] = -share
        return weights

    @override
    def fit_to(self, examples: Examples, budget: Budget, generator: torch.Generator) -> FitResult:
        spacing = examples.spacing
        ones = torch.ones((), dtype=torch.float64)
        directions = self._weights(ones).expand(len(examples.cases), -1)
        train = LineSums.of(examples, examples.training, directions[examples.training])
        valid = LineSums.of(examples, examples.validation, directions[examples.validation])
        shares = train.cross / train.square.where(train.square > 0, 1.0)

        def means(window: Window, horizons: Sequence[int]) -> list[Tensor]:
            return [combine(window, self._weights(share)) for share in shares]

        scale = LearnedScale.of(examples, means)
        self._learned = _Learned(shares, spacing, scale)
        return FitResult(1, train.relative_error(shares), valid.relative_error(shares), "solved")


class _Learned(NamedTuple):
    """What a fit leaves behind.

    Attributes:
        shares: s, `[horizon]`, float64.
        spacing: optimiser steps between rows.
        scale: with the trained horizons.
    """

    shares: Tensor
    spacing: int
    scale: LearnedScale

"""The contract of everything that forecasts."""

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor
from typing_extensions import override

from .errors import NotFittedError, WindowError
from .window import Window


@dataclass(frozen=True)
class Forecast:
    """Where a stream is expected to be `horizon` optimiser steps after the window's last row.

    Attributes:
        horizon: optimiser steps ahead, at least 1.
        mean: the expected values, `[param]`, in the window's type.
        scale: the standard error that the forecaster expects of `mean`, `[param]`, at least 0. Not a guarantee: how
            often the truth lies within it is measured by `score`.
    """

    horizon: int
    mean: Tensor
    scale: Tensor


class Forecaster(abc.ABC):
    """History in, forecast out. Keeps no hidden history: the same window gives the same forecast.

    A subclass sets the class attributes, calls `super().__init__(stream)` and defines `_forecast`. Instances are cheap
    and may be shared. What every forecaster guarantees, tested for each: right shapes and type, determinism, an
    untouched window, a constant trajectory that stays constant, exact save and load.

    Args:
        stream: the stream it forecasts; a window of another stream is refused.

    Attributes:
        name: the name in `make_forecaster`.
        stream: the stream it forecasts.
        history: rows it needs; a longer window is cut to its newest rows.
        order: degree of the polynomials in time that it continues exactly, `None` where it makes no such claim.
        needs_moments: whether the window must carry the optimiser's moments.
    """

    name: ClassVar[str]
    order: ClassVar[int | None] = None
    needs_moments: ClassVar[bool] = False
    history: int = 1

    def __init__(self, stream: str = "weights") -> None:
        self.stream = stream

    @final
    def forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        """Forecasts for each asked horizon, made one by one as they are taken.

        Args:
            window: at least `history` rows of `stream`.
            horizons: optimiser steps ahead, each at least 1.

        Returns:
            One `Forecast` a horizon, in the order asked.

        Raises:
            WindowError: if the window is of another stream, too short, or lacks the moments; or a horizon is below 1.
            NotFittedError: if a learned forecaster has not been fitted.
        """
        if window.stream != self.stream:
            raise WindowError(f"{self.name!r} forecasts {self.stream!r}, got a window of {window.stream!r}.")
        if len(window) < self.history:
            raise WindowError(f"{self.name!r} needs {self.history} rows of history, got {len(window)}.")
        if self.needs_moments and window.moments is None:
            raise WindowError(f"{self.name!r} needs the optimiser's moments; the window carries none.")
        for horizon in horizons:
            if horizon < 1:
                raise WindowError(f"Horizons must be at least 1, got {horizon}.")
        if not self.fitted:
            raise NotFittedError(f"{self.name!r} has not been fitted. Call `fit_forecaster` first, or load it.")
        return self._forecast(window.tail(self.history), horizons)

    @property
    def fitted(self) -> bool:
        """Whether it can forecast: always for closed forms, once fitted or loaded for learned ones."""
        return True

    @abc.abstractmethod
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        """The method itself; the window has exactly `history` rows and everything has been checked."""


class LearnedForecaster(Forecaster):
    """A forecaster with parameters that are fitted to recorded windows.

    All that was learned is in `state`, tensors by name; it is what checkpoints and files hold. `options` are the
    constructor's arguments, plain values, enough to rebuild the object before loading `state`.
    """

    @property
    @override
    @abc.abstractmethod
    def fitted(self) -> bool: ...

    @property
    @abc.abstractmethod
    def options(self) -> dict[str, object]:
        """The constructor's arguments, as plain JSON values."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Everything learned, as tensors by name; empty before the first fit."""

    @abc.abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            NotFittedError: if the entries are not those of this forecaster.
        """

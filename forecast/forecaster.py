"""The contract of everything that forecasts."""

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
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
        needs_graph: whether the window must carry the network's neural graph.
    """

    name: ClassVar[str]
    order: int | None = None
    needs_moments: bool = False
    needs_graph: bool = False
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
            One `Forecast` a horizon, in the order asked. A coordinate that is NaN or infinite in one of the rows used
            is held at its last value with an infinite scale, and has no effect on any other.

        Raises:
            WindowError: if the window is of another stream, too short, or lacks moments or graph; or a horizon is
                below 1.
            NotFittedError: if a learned forecaster has not been fitted.
        """
        if window.stream != self.stream:
            raise WindowError(f"{self.name!r} forecasts {self.stream!r}, got a window of {window.stream!r}.")
        if len(window) < self.history:
            raise WindowError(f"{self.name!r} needs {self.history} rows of history, got {len(window)}.")
        if self.needs_moments and window.moments is None:
            raise WindowError(f"{self.name!r} needs the optimiser's moments; the window carries none.")
        if self.needs_graph and window.graph is None:
            raise WindowError(
                f"{self.name!r} needs the network's neural graph; the window carries none. Make one with "
                "`trace_graph(module, example_inputs)` and set it as the window's `graph`."
            )
        for horizon in horizons:
            if horizon < 1:
                raise WindowError(f"Horizons must be at least 1, got {horizon}.")
        if not self.fitted:
            raise NotFittedError(f"{self.name!r} has not been fitted. Call `fit_forecaster` first, or load it.")
        window = window.tail(self.history)
        broken = _not_finite(window)
        if broken is None:
            return self._forecast(window, horizons)
        return _held(self._forecast(_without(window, broken), horizons), window.last, broken)

    @property
    def fitted(self) -> bool:
        """Whether it can forecast: always for closed forms, once fitted or loaded for learned ones."""
        return True

    @abc.abstractmethod
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        """The method itself; the window has exactly `history` rows and everything has been checked."""


def _not_finite(window: Window) -> Tensor | None:
    """Which coordinates are NaN or infinite in some row or moment, `[param]`, bool; `None` where none is."""
    parts = [*window.values] if window.moments is None else [*window.values, *window.moments.vectors]
    # One sum a row costs a tenth of a mask. It may overflow where all is well; the mask then tells.
    if all(bool(torch.isfinite(part.sum())) for part in parts):
        return None
    broken = torch.zeros_like(window.last, dtype=torch.bool)
    for part in parts:
        broken |= ~torch.isfinite(part)
    return broken if bool(broken.any()) else None


def _without(window: Window, broken: Tensor) -> Window:
    """The window with some coordinates standing still at zero."""
    moments = window.moments
    if moments is not None:
        first, second = (part.masked_fill(broken, 0.0) for part in moments.vectors)
        moments = replace(moments, exp_avg=first, exp_avg_sq=second)
    return replace(window, values=window.values.masked_fill(broken, 0.0), moments=moments)


def _held(forecasts: Iterator[Forecast], last: Tensor, broken: Tensor) -> Iterator[Forecast]:
    """The forecasts with some coordinates held, at an infinite scale."""
    for forecast in forecasts:
        mean = torch.where(broken, last, forecast.mean)
        yield Forecast(forecast.horizon, mean, forecast.scale.masked_fill(broken, float("inf")))


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

"""Forecasts that are a weighted sum of the window's rows."""

import abc
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Window
from .closed_form import ClosedForm
from .motion import walk_factor, walked
from .rows import combine


class RowCombination(ClosedForm):
    """mean = last + sum_i c_i (row_i - last), with coefficients for the whole network or for each tensor.

    A subclass says what c is; since only differences of rows enter, a constant trajectory is continued bit for bit
    whatever it says.

    scale = sigma sqrt(horizon + c' K c), with sigma the window's motion per step (`random_walk`) and K_ij = min(t -
    t_i, t - t_j): the error that this very sum would have on a random walk (`walk_factor`). Where a drift makes up much
    of sigma, it is too large.
    """

    @abc.abstractmethod
    def _rule(self, window: Window) -> Callable[[int], Tensor]:
        """From a horizon to the coefficients c, float64, `[time - 1]`, or `[tensor, time - 1]`, oldest row first."""

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        rule = self._rule(window)
        for horizon in horizons:
            yield _one(window, rule(horizon), horizon)


def _one(window: Window, coefficients: Tensor, horizon: int) -> Forecast:
    factors = walk_factor(window.steps, coefficients, horizon).expand(len(window.layout))
    return Forecast(horizon, combine(window, coefficients), walked(window, factors))

"""What forecasts got wrong, case by case and kind by kind: the sums that every score is made of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .case import Case
from .errors import WindowError
from .forecaster import Forecast, Forecaster

PIECE = 1 << 20  # coordinates looked at together, so that a large network needs no copies of itself


class Sums(NamedTuple):
    """Sums over coordinates; those of different cases and kinds of tensors add up by `plus`.

    Attributes:
        squared_error: of the forecast's mean; NaN or infinite where the mean is.
        persistence: squared error of the window's last row, for standing still.
        within_one: coordinates whose truth lies within one scale of the mean.
        within_two: the same within two scales.
        moving: coordinates that moved or were forecast to move, or with a scale above 0; the others are in neither
            count.
    """

    squared_error: float
    persistence: float
    within_one: int
    within_two: int
    moving: int

    def plus(self, other: "Sums") -> "Sums":
        """The sums over both."""
        return Sums(
            self.squared_error + other.squared_error,
            self.persistence + other.persistence,
            self.within_one + other.within_one,
            self.within_two + other.within_two,
            self.moving + other.moving,
        )


NOTHING = Sums(0.0, 0.0, 0, 0, 0)


class CaseTally(NamedTuple):
    """What one forecast got wrong.

    Attributes:
        last_step: optimiser step of the window's last row.
        horizon: optimiser steps ahead.
        kinds: the sums for each kind of tensor in the layout, by its name.
    """

    last_step: int
    horizon: int
    kinds: dict[str, Sums]


def tally(forecaster: Forecaster, cases: Sequence[Case]) -> list[CaseTally]:
    """The sums for each case and horizon, from which skill in any grouping follows without forecasting again.

    Args:
        forecaster: fitted, of the cases' stream.
        cases: any number; horizons and layouts may differ.

    Returns:
        One entry for each horizon of each case, in the order of the cases, horizons ascending.

    Raises:
        WindowError: if a case has no target, or a window is not one that the forecaster takes.
    """
    found: list[CaseTally] = []
    for case in cases:
        horizons = sorted(case.targets)
        if not horizons:
            raise WindowError("Every case needs at least one target.")
        found += [
            CaseTally(case.window.last_step, forecast.horizon, sums_by_group(kinds_of(case), forecast, case))
            for forecast in forecaster.forecast(case.window, horizons)
        ]
    return found


def kinds_of(case: Case) -> list[str]:
    """The kind of each tensor in a case's layout."""
    return [spec.kind for spec in case.window.layout]


def sums_by_group(groups: Sequence[str], forecast: Forecast, case: Case) -> dict[str, Sums]:
    """What one forecast got wrong, for each group of tensors.

    Args:
        groups: the group of each tensor in the case's layout.
        forecast: of one of the case's horizons.
        case: with the truth.
    """
    layout = case.window.layout
    names = list(dict.fromkeys(groups))
    position = {name: index for index, name in enumerate(names)}
    group_of = np.repeat([position[name] for name in groups], [spec.numel for spec in layout])
    totals = np.zeros((5, len(names)))
    vectors = (forecast.mean, forecast.scale, case.window.last, case.targets[forecast.horizon])
    for start in range(0, layout.size, PIECE):
        piece = slice(start, start + PIECE)
        # In float64: what is left of float32 after a subtraction may square to zero or infinity. NumPy, because ten
        # operations on a few thousand numbers cost it a fifth of what they cost torch (1.4 ms a forecast).
        mean, scale, last, target = (vector[piece].detach().cpu().double().numpy() for vector in vectors)
        with np.errstate(invalid="ignore", over="ignore"):
            error, moved = np.abs(mean - target), np.abs(last - target)
            moving = (moved > 0) | (error > 0) | (scale > 0)
            within = [(error <= width * scale) & moving for width in (1, 2)]
            for row, values in enumerate((error**2, moved**2, *within, moving)):
                totals[row] += np.bincount(group_of[piece], values, len(names))
    return {
        name: Sums(float(error), float(moved), int(one), int(two), int(count))
        for name, (error, moved, one, two, count) in zip(names, totals.T, strict=True)
    }

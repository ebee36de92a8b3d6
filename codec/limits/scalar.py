"""What ideal entropy-coded Z takes: one cell width for all, a table for each component that costs nothing to tell.

Cells are those of the codec: a dead zone that follows from what a 1 takes more than a 0, centroids, no prediction. The
difference to the bound is what the lattice Z costs; more than that is tables, headers, or a model that does not fit.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError
from .marginals import GeneralisedGaussian
from .rate_distortion import Floats
from .water_filling import Component

_NUM_POINTS = 2**15
_SMALLEST_MASS = 1e-12
_WIDTHS_PER_OCTAVE = 8
_FINEST_WIDTH, _WIDEST_WIDTH = 2.0**-7, 2.0**7  # in standard deviations
_FINEST = 1e-5  # distance of grid points about 0
_ZONE_PER_BIT, _LEAST_ZONE, _WIDEST_ZONE = 0.043, 0.02, 0.8  # as `scale_classes` has them
_MOST_CELLS = 4000


class Quantised(NamedTuple):
    """Entropy in bits and mean squared error of a source of variance 1, `[width]`, at widths of cells, increasing."""

    widths: Floats
    rates: Floats
    distortions: Floats


@cache
def quantised(marginal: GeneralisedGaussian) -> Quantised:
    """Entropy and error of a marginal in cells of Z."""
    reach = marginal.scale * (-math.log(_SMALLEST_MASS)) ** (1 / marginal.shape)
    grid = np.concatenate([[0.0], np.geomspace(_FINEST, reach, _NUM_POINTS)])
    middles, steps = (grid[1:] + grid[:-1]) / 2, np.diff(grid)
    masses = 2 * marginal.density(middles) * steps
    masses /= masses.sum()
    sums = [np.concatenate([[0.0], np.cumsum(masses * middles**power)]) for power in range(3)]
    octaves = math.log2(_WIDEST_WIDTH / _FINEST_WIDTH)
    widths = _FINEST_WIDTH * 2 ** np.linspace(0, octaves, round(octaves * _WIDTHS_PER_OCTAVE) + 1)
    found = [_at(grid, sums, float(width)) for width in widths]
    return Quantised(widths, *np.array(found).T)


def _at(grid: Floats, sums: Sequence[Floats], width: float) -> tuple[float, float]:
    """Entropy and error at one width, with the dead zone that the shares of 0 and 1 without one ask for."""
    number = min(int(grid[-1] / width) + 2, _MOST_CELLS)

    def cells(zone: float) -> list[Floats]:
        edges = np.concatenate([[0.0], (np.arange(1, number) - 0.5 + zone) * width, [max(grid[-1], number * width)]])
        return [np.diff(np.interp(edges, grid, part)) for part in sums]

    plain = cells(0.0)[0]
    zone = _ZONE_PER_BIT * math.log2(plain[0] / max(plain[1] / 2, 1e-30)) + _LEAST_ZONE if number > 1 else 0.0
    mass, first, second = cells(min(max(zone, 0.0), _WIDEST_ZONE))
    here = mass > 0
    entropy = -float(mass[here] @ np.log2(mass[here])) + float(mass[1:].sum())  # and a sign for what is not 0
    error = float(second.sum()) - float((first[1:] ** 2 / np.maximum(mass[1:], 1e-300)).sum())
    return max(entropy, 0.0), max(error, 0.0)


def scalar_rate(components: Sequence[Component], nmse: float) -> float:
    """Bits a coordinate that ideal entropy-coded Z takes at an error, with one cell width for all components.

    Args:
        components: what there is to code.
        nmse: sum of squared errors over sum of squares, 0 to 1 exclusive.

    Raises:
        ConfigError: if there is no energy, or the error is out of range.
    """
    energy = sum(item.number * item.variance for item in components)
    if not (energy > 0 and 0 < nmse < 1):
        raise ConfigError(f"Quantising needs energy and an error between 0 and 1, got {energy} and {nmse}.")
    tables = [quantised(item.marginal) for item in components if item.variance]
    kept = [item for item in components if item.variance]

    def at(log_width: float) -> tuple[float, float]:
        rate = error = 0.0
        for item, table in zip(kept, tables, strict=True):
            place = log_width - 0.5 * math.log(item.variance)
            logs = np.log(table.widths)
            below = min(place - logs[0], 0.0)  # finer than the table: six decibels for each bit
            rate += item.number * (float(np.interp(place, logs, table.rates)) - below / math.log(2))
            left = float(np.interp(place, logs, table.distortions)) * math.exp(2 * below)
            error += item.number * item.variance * left
        return rate, error / energy

    total = sum(item.number for item in components)
    middle = 0.5 * math.log(energy / total)
    low, high = middle - 40, middle + 40
    for _ in range(40):
        half = (low + high) / 2
        low, high = (half, high) if at(half)[1] < nmse else (low, half)
    return at(low)[0] / total

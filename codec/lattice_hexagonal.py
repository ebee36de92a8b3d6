"""The hexagonal lattice A2: nearest points.

Points are (column + (row mod 2) / 2, row sqrt(3) / 2), for all whole rows and columns: two rectangular lattices, the
even rows and the odd ones (Conway and Sloane 1982). The codec has them as *doubled* pairs, the first coordinate in
steps of 1 and the second in steps of `AXIS_RATIO`, about sqrt(3): both even or both odd. The ratio is a fraction, so
that what points stand for is exact on every machine; the cell's second moment is that of sqrt(3) within a millionth.
Over Z the lattice saves 0.028 bit a coordinate at most, a quarter of what E8 saves.
"""

import math

import numpy as np
import numpy.typing as npt

from .errors import EncodeError
from .lattice_points import LARGEST_COORDINATE

ROW_HEIGHT = math.sqrt(3) / 2
VOLUME = ROW_HEIGHT  # of a cell
AXIS_RATIO = 476 / 275


def nearest(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Rows and columns of the nearest points.

    Ties: coordinates are rounded half to even within a rectangular lattice, and even rows come before odd ones.

    Args:
        vectors: `[vector, 2]`.

    Returns:
        `[vector, 2]`: row and column.
    """
    x, y = vectors[:, 0], vectors[:, 1] / (2 * ROW_HEIGHT)
    even, odd = np.rint(y), np.rint(y - 0.5)
    column, shifted = np.rint(x), np.rint(x - 0.5)
    scale = (2 * ROW_HEIGHT) ** 2
    distance = (x - column) ** 2 + scale * (y - even) ** 2
    other = (x - shifted - 0.5) ** 2 + scale * (y - odd - 0.5) ** 2
    is_odd = other < distance
    rows = np.where(is_odd, 2 * odd + 1, 2 * even)
    return np.stack([rows, np.where(is_odd, shifted, column)], axis=1).astype(np.int64)


def points_of(integers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The points of rows and columns, `[vector, 2]`."""
    row, column = integers.T
    return np.stack([column + (row & 1) * 0.5, row * ROW_HEIGHT], axis=1)


def nearest_pairs(steps: npt.NDArray[np.floating], bias: npt.ArrayLike = 0.0) -> npt.NDArray[np.int32]:
    """The points that minimise the sum over both axes of squared length times ((x - p)^2 + 2 `bias` |p|).

    Within a rectangular lattice each coordinate is rounded by itself, late by its bias; the cheaper one is taken.

    Ties: a coordinate is rounded away from zero, and whole numbers come before halves.

    Args:
        steps: x, `[vector, 2]`, each coordinate in its own steps, magnitudes at most 2^29.
        bias: pull towards zero, 0 to 0.5, for all coordinates or for each, `[vector, 2]`.

    Returns:
        `[vector, 2]`, doubled.

    Raises:
        EncodeError: if a magnitude is too large or not a number.
    """
    magnitude = np.abs(steps)
    if not magnitude.max(initial=0.0) <= LARGEST_COORDINATE:
        raise EncodeError(
            f"Coordinates must be at most {LARGEST_COORDINATE} steps, got {magnitude.max()}. Take wider cells."
        )
    pull = np.broadcast_to(np.asarray(bias, steps.dtype), steps.shape)
    whole = np.floor(magnitude + (steps.dtype.type(0.5) - pull))
    half = np.maximum(np.floor(magnitude - pull), 0) + steps.dtype.type(0.5)
    lengths = np.array([1.0, AXIS_RATIO**2], steps.dtype)
    prices = [((magnitude - tried) ** 2 + 2 * pull * tried) @ lengths for tried in (whole, half)]
    doubled = (2 * np.where((prices[1] < prices[0])[:, None], half, whole)).astype(np.int32)
    return np.where(steps < 0, -doubled, doubled)

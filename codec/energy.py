"""Sums of squares in float64, without float64 copies of whole vectors."""

import numpy as np
import numpy.typing as npt

_AT_ONCE = 2**16


def energy(values: npt.NDArray[np.float32]) -> float:
    """The sum of squares."""
    total = 0.0
    for start in range(0, len(values), _AT_ONCE):
        total += _sum_of_squares(values[start : start + _AT_ONCE].astype(np.float64))
    return total


def squared_error(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """The sum of squared differences; infinite or NaN where a value is."""
    total = 0.0
    for start in range(0, len(first), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        total += _sum_of_squares(first[some].astype(np.float64) - second[some])
    return total


def _sum_of_squares(values: npt.NDArray[np.float64]) -> float:
    """Without BLAS, whose threads cost more than they save on pieces that fit the cache (2 ms on a busy machine)."""
    return float(np.einsum("i,i->", values, values))

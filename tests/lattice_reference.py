"""A slow nearest-point search in D4 and E8, by trying every point around a vector."""

from functools import reduce

import numpy as np
import numpy.typing as npt

REACH = 2  # how many whole steps from the rounded coordinate are tried, either way


def nearest_by_trying(
    name: str, vector: npt.NDArray[np.float64], bias: float | npt.NDArray[np.float64] = 0.0
) -> npt.NDArray[np.int64]:
    """A lattice point p that minimises |x - p|^2 + 2 `bias` |p|_1 among all within about `REACH` steps of x.

    The cost is a sum over coordinates, so that of every point tried is an outer sum of costs of single coordinates,
    and its parity an outer sum of digits.

    Args:
        name: "D4" or "E8".
        vector: x, `[dimension]`.
        bias: as in `deadreckon.codec.lattice_points.nearest`.

    Returns:
        `[dimension]`, doubled.
    """
    best, least = np.zeros(len(vector), np.int64), np.inf
    for shift in (0.0, 0.5) if name == "E8" else (0.0,):
        digits = np.rint(vector - shift)[:, None] + np.arange(-REACH, REACH + 1)
        tried = digits + shift
        costs = (vector[:, None] - tried) ** 2 + 2 * bias * np.abs(tried)
        # In D8 the coordinates' sum is even; in its shift by halves it is that of the digits plus 4.
        sums = reduce(np.add.outer, digits.astype(np.int32) & 1)
        total = np.where(sums % 2 == 0, reduce(np.add.outer, costs), np.inf)
        place = np.unravel_index(int(total.argmin()), total.shape)
        if total[place] < least:
            least = float(total[place])
            best = (2 * tried[np.arange(len(vector)), place]).astype(np.int64)
    return best


def cost(
    vector: npt.NDArray[np.float64], doubled: npt.NDArray, bias: float | npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """|x - p|^2 + 2 `bias` |p|_1, over the last axis."""
    point = doubled / 2
    return ((vector - point) ** 2 + 2 * bias * np.abs(point)).sum(axis=-1)

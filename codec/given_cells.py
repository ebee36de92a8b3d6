"""What a vector rounds to in cells that are given: the quantiser of the fast path, which searches nothing.

`Quantiser` prepares for a search: it looks at every coordinate that some width of the next half octave would keep, and
at the largest of all. Where the rate control has said how wide cells are, only what this width keeps is looked at, in
one pass over the vector. The result is the same, but for the rounding of the error's last bits.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .energy import energy
from .lattice import LARGEST_VALUE, NUM_OFFSETS, Trial, best_offsets, cell_width

_AT_ONCE = 2**22  # coordinates; what is needed beside the vector is 5 bytes for each of these


class Rounded(NamedTuple):
    """Integers in cells of one width.

    Attributes:
        trial: width, squared error and offsets.
        places: of what is not zero, `[value]`, increasing.
        values: int32 `[value]`.
    """

    trial: Trial
    places: npt.NDArray[np.intp]
    values: npt.NDArray[np.int32]


def round_to_cells(
    residual: npt.NDArray[np.float32], dead_zone: float, residual_energy: float, cell_index: int
) -> Rounded | None:
    """What a residual rounds to, or `None` where the cells are too fine for 32 bits.

    Args:
        residual: `[param]`, finite.
        dead_zone: of all coordinates.
        residual_energy: its squared norm.
        cell_index: of the cells.
    """
    width = cell_width(cell_index)
    places = _at_least(residual, lowest_kept(dead_zone, width))
    kept = residual.take(places)
    scaled = np.abs(kept).astype(np.float64)
    scaled /= width
    if scaled.max(initial=0.0) > LARGEST_VALUE:
        return None
    rounded = np.floor(scaled + lift(dead_zone))
    outside = rounded > 0
    if not outside.all():
        places, kept, scaled, rounded = places[outside], kept[outside], scaled[outside], rounded[outside]
    scaled -= rounded
    kind = np.minimum(rounded, NUM_OFFSETS).astype(np.intp)
    total = np.bincount(kind, scaled, NUM_OFFSETS + 1).astype(np.float64, copy=False)
    number = np.bincount(kind, minlength=NUM_OFFSETS + 1)
    values = rounded.astype(np.int32)
    np.negative(values, out=values, where=kept < 0)
    sums = Sums(number, total, float(scaled @ scaled), energy(kept))
    return finished(places, values, sums, residual_energy, cell_index)


def lowest_kept(dead_zone: float, width: float) -> np.float32:
    """The magnitude below which all is zero, lowered by more than float32's rounding, so that none is missed."""
    return (np.float32(dead_zone) + np.float32(0.5)) * np.float32(min(width * (1 - 1e-6), 2e38))


def lift(dead_zone: float) -> float:
    """What is added to a magnitude in cells before it is rounded down."""
    return 1 - float(np.float32(dead_zone) + np.float32(0.5))


class Sums(NamedTuple):
    """Of the coordinates that are not zero.

    Attributes:
        number: of each kind, magnitude 0, 1, 2 and above, `[kind]`.
        total: of what they are above their magnitude, in cells, `[kind]`.
        square: of that, over all.
        energy: of the coordinates themselves.
    """

    number: npt.NDArray[np.integer]
    total: npt.NDArray[np.float64]
    square: float
    energy: float


def finished(
    places: npt.NDArray[np.intp], values: npt.NDArray[np.int32], sums: Sums, residual_energy: float, cell_index: int
) -> Rounded:
    """Integers with their centroids and the error that they leave; none where they win nothing."""
    offsets, shift = best_offsets(sums.number, sums.total)
    inside = sums.square + float((sums.number * shift * shift - 2 * shift * sums.total).sum())
    error = max(residual_energy - sums.energy, 0.0) + max(inside, 0.0) * cell_width(cell_index) ** 2
    if not error < residual_energy:
        places, values = places[:0], values[:0]
    return Rounded(Trial(cell_index, error, offsets), places, values)


def _at_least(values: npt.NDArray[np.float32], edge: np.float32) -> npt.NDArray[np.intp]:
    """Places whose magnitude is at least `edge`, increasing."""
    found: list[npt.NDArray[np.intp]] = []
    for start in range(0, max(len(values), 1), _AT_ONCE):
        some = np.flatnonzero(np.abs(values[start : start + _AT_ONCE]) >= edge)
        found.append(some + start if start else some)
    return np.concatenate(found) if len(found) != 1 else found[0]

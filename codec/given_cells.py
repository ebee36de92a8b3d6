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
    edge = np.float32(dead_zone) + np.float32(0.5)
    # Lowered by more than float32's rounding, so that no coordinate is missed.
    places = _at_least(residual, edge * np.float32(min(width * (1 - 1e-6), 2e38)))
    kept = residual.take(places)
    scaled = np.abs(kept).astype(np.float64)
    scaled /= width
    if scaled.max(initial=0.0) > LARGEST_VALUE:
        return None
    rounded = np.floor(scaled + (1 - float(edge)))
    outside = rounded > 0
    if not outside.all():
        places, kept, scaled, rounded = places[outside], kept[outside], scaled[outside], rounded[outside]
    scaled -= rounded
    kind = np.minimum(rounded, NUM_OFFSETS).astype(np.intp)
    total, number = np.bincount(kind, scaled, NUM_OFFSETS + 1), np.bincount(kind, minlength=NUM_OFFSETS + 1)
    offsets, shift = best_offsets(number, total)
    inside = float(scaled @ scaled) + float((number * shift * shift - 2 * shift * total).sum())
    error = max(residual_energy - energy(kept), 0.0) + max(inside, 0.0) * width * width
    if not error < residual_energy:  # values that win nothing are not worth sending
        places, kept, rounded = places[:0], kept[:0], rounded[:0]
    values = rounded.astype(np.int32)
    np.negative(values, out=values, where=kept < 0)
    return Rounded(Trial(cell_index, error, offsets), places, values)


def _at_least(values: npt.NDArray[np.float32], edge: np.float32) -> npt.NDArray[np.intp]:
    """Places whose magnitude is at least `edge`, increasing."""
    found: list[npt.NDArray[np.intp]] = []
    for start in range(0, max(len(values), 1), _AT_ONCE):
        some = np.flatnonzero(np.abs(values[start : start + _AT_ONCE]) >= edge)
        found.append(some + start if start else some)
    return np.concatenate(found) if len(found) != 1 else found[0]

"""How large each coordinate's residual will be, in whole numbers: what both ends know without a word being sent.

*Activity* is a running mean of quantised magnitudes, kept for each coordinate. Many coordinates are quantised to zero
in most packets, so their own past says little; but the gradient of a weight matrix is a sum of few outer products, and
the product of a row's and a column's mean says how large an entry is where its own past does not. Both are mixed.

Everything is integer, or an IEEE 754 operation on single elements whose operands are exact, which rounds equally on
every machine; sums are of integers. Logarithms are read off the bits of a float32: exponent and four bits of mantissa,
a piecewise linear log2 in sixteenths of an octave. (A relative error of 1e-12 in a float scale decodes 12 % of a
million symbols wrong, silently.)
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..forecast import Layout
from .lattice import WIDTHS_PER_OCTAVE
from .symbols import MAX_DIRECT, NUM_BUCKETS, NUM_DIRECT

LOG_UNIT = 16  # of an octave
UNIT = 32  # activity of one cell is this many times the mantissa of the cell width, 128 to 255
MAX_MAGNITUDE = 2**12  # in cells; larger ones count as this
MAX_ACTIVITY = 2**26
SLOWEST = 4  # activity follows with a rate of 2^-4 at last; on four nets 2^-3 to 2^-5 differ by less than 1 %
OWN_SHARE = 5  # eighths of the mix that are the coordinate's own activity; 3 to 6 differ by 2 %
_ROWS_AT_ONCE = 2**18

_BUCKETS = MAX_DIRECT + 3 * 2 ** np.arange(NUM_BUCKETS, dtype=np.int64) // 2
MAGNITUDES = np.minimum(
    np.concatenate([np.abs(np.arange(NUM_DIRECT) - MAX_DIRECT), _BUCKETS]), MAX_MAGNITUDE
)  # of each symbol, about: an escape counts as the middle of its bucket

Activity = npt.NDArray[np.int32]
Logs = npt.NDArray[np.int32]


class Matrix(NamedTuple):
    """A tensor as a matrix: the first dimension against all others; one of at most one dimension is a single row."""

    span: slice
    num_rows: int
    num_columns: int


def matrices(layout: Layout) -> tuple[Matrix, ...]:
    """The tensors that are not empty, in order."""
    found = []
    for spec in layout:
        if spec.numel:
            num_rows = spec.shape[0] if len(spec.shape) > 1 else 1
            found.append(Matrix(spec.span, num_rows, spec.numel // num_rows))
    return tuple(found)


def of_coordinates(of_matrices: npt.NDArray[np.uint8], parts: tuple[Matrix, ...]) -> npt.NDArray[np.uint8] | None:
    """What each coordinate's tensor has, `[param]`; `None` where all have 0."""
    if not of_matrices.any():
        return None
    return np.repeat(of_matrices, [part.num_rows * part.num_columns for part in parts])


def log2(values: npt.NDArray) -> Logs:
    """log2 of positive numbers in sixteenths of an octave, piecewise linear, exactly the same on every machine."""
    return values.astype(np.float32).view(np.int32) >> 19


def log_of_cell(index: int) -> int:
    """`log2` of the activity that one cell of this width stands for."""
    return int(log2(np.array([(WIDTHS_PER_OCTAVE + index % WIDTHS_PER_OCTAVE) * UNIT]))[0])


def rescaled(activity: Activity, before: int, after: int) -> Activity:
    """Activity in the units of another cell width's octave.

    Args:
        activity: `[param]`.
        before: index of the cell width in whose octave it is.
        after: index of the one to come.
    """
    octaves = after // WIDTHS_PER_OCTAVE - before // WIDTHS_PER_OCTAVE
    if octaves >= 0:
        return activity >> min(octaves, 31)
    return np.minimum(activity, MAX_ACTIVITY >> min(-octaves, 26)) << min(-octaves, 26)


def updated(
    activity: Activity, symbols: npt.NDArray[np.integer], num_updates: int, index: int, level: int = 0
) -> Activity:
    """Activity after one more packet.

    Args:
        activity: `[param]`, in the octave of this packet's cell width.
        symbols: the packet's, `[param]`.
        num_updates: packets that it has seen before.
        index: of this packet's cell width.
        level: the cells are 2^level times as wide.
    """
    cell = UNIT * (WIDTHS_PER_OCTAVE + index % WIDTHS_PER_OCTAVE) << level
    return approached(activity, np.minimum(MAGNITUDES * cell, MAX_ACTIVITY).astype(np.int32)[symbols], num_updates)


def approached(activity: Activity, seen: Activity, num_updates: int) -> Activity:
    """Activity moved towards what a packet has shown; `seen` is overwritten."""
    seen -= activity
    seen >>= min((num_updates + 1).bit_length() - 1, SLOWEST)
    seen += activity
    return seen


def expected_logs(activity: Activity, num_updates: int, parts: tuple[Matrix, ...]) -> Logs:
    """`log2` of the activity that is expected next, `[param]`: own past mixed with row times column.

    Args:
        activity: `[param]`.
        num_updates: packets that it has seen; a short past counts less.
        parts: the tensors.
    """
    own_share = min(num_updates, OWN_SHARE) / 8
    logs = np.empty(len(activity), np.int32)
    for part in parts:
        own = activity[part.span].reshape(part.num_rows, part.num_columns)
        rows, columns = own.sum(1, dtype=np.int64), own.sum(0, dtype=np.int64)
        total = max(int(rows.sum()), 1)
        out = logs[part.span].reshape(own.shape)
        share = columns * ((1 - own_share) / total)
        at_once = max(_ROWS_AT_ONCE // part.num_columns, 1)
        for first in range(0, part.num_rows, at_once):
            some = slice(first, first + at_once)
            mixed = rows[some, None] * share
            mixed += own[some] * own_share
            mixed += 1
            out[some] = log2(mixed)
    return logs

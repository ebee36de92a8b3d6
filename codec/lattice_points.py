"""The lattices D4 and E8: nearest points, and what points stand for.

D4 is the integer vectors of even sum; E8 is D8 and D8 shifted by (1/2, ..., 1/2). Points are kept *doubled*, as int32,
so that both are integers: all coordinates even in D4, all even or all odd in E8, their sum a multiple of 4.

A point lies in units of the *step*, cell width times `cell_scale`, so that one index of a cell width means cells of the
same volume a coordinate in Z, D4 and E8. At high rate D4 then saves 0.061 and E8 0.109 bit a coordinate against Z at
equal error: half the logarithm of the ratio of their normalised second moments, 1/12, 0.0766 and 0.0717.

Nested pairs are those of factor 2, which every lattice has: twice a point is a point. D4 and E8 also contain their
images under a turn by sqrt 2, (1, 1; 1, -1) on pairs of coordinates. It is left out: it mixes coordinates whose scales
the coder predicts separately.

References:
    J. H. Conway, N. J. A. Sloane. Fast quantizing and decoding algorithms for lattice quantizers and codes. IEEE
    Transactions on Information Theory 28(2), 1982. J. H. Conway, N. J. A. Sloane. Sphere Packings, Lattices and
    Groups, chapters 4 and 21.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import EncodeError
from .lattice import OFFSET_UNIT, cell_width

_DIMENSIONS = {"D4": 4, "E8": 8}
# D4's cell has volume 2, so its step is 2^(-1/4) of a width; Leech's 2^36 in half steps, so its step is 2^(-1/2). Eight
# bits of that keep products with a width exact.
_CELL_SCALES = {"D4": 215 / 256, "A2": 275 / 256, "Leech": 181 / 256}
# The class of a doubled magnitude 0 to 7, for one offset each: 0 for zero, then 1, 2, 3; then 1/2, 3/2, 5/2.
_CLASSES = np.array([0, 4, 1, 5, 2, 6, 3, 6])
_CHUNK = 4096  # vectors at a time, so that arrays stay in the cache: 1.2 (D4) and 1.8 (E8) times as fast as all at once

LARGEST_COORDINATE = 2**29


def vector_lattice_names() -> tuple[str, ...]:
    """Names of the lattices in more than one dimension."""
    return tuple(_DIMENSIONS)


def dimension(name: str) -> int:
    """Coordinates of a vector: 4 for D4, 8 for E8."""
    return _DIMENSIONS[name]


def cell_scale(name: str) -> float:
    """The step of a lattice, in cell widths: such that its cell's volume is one width a coordinate, within 0.5 %.

    For a trellis it is 1: a coordinate takes as many bits as in a cell of Z.
    """
    return _CELL_SCALES.get(name, 1.0)


def num_offsets(name: str) -> int:
    """How many offsets `reconstruct` takes: 3 for D4, 6 where coordinates may be halves: in all others."""
    return 3 if name == "D4" else 6


# --- nearest points


def nearest(name: str, vectors: npt.NDArray[np.floating], bias: npt.ArrayLike = 0.0) -> npt.NDArray[np.int32]:
    """The lattice points p that minimise |x - p|^2 + 2 `bias` |p|_1, the Euclidean nearest ones without a bias.

    In Z the same cost is a dead zone of width `bias`: floor(|x| + 1/2 - bias). Each coordinate is rounded by itself; if
    the sum's parity is wrong, the coordinate where that costs least moves to its next value, which is exact because the
    cost is a sum of convex ones. E8 takes the cheaper of its two halves.

    Ties: a coordinate is rounded away from zero, the first of several equal coordinates moves, away from zero if it
    may, and E8 takes whole numbers before halves. Two points whose costs differ by less than rounding in the vectors'
    dtype may be taken for each other.

    Args:
        name: of the lattice.
        vectors: x, `[vector, dimension]`, in steps, float32 or float64, magnitudes at most 2^29.
        bias: pull towards zero, 0 to 0.5, for all coordinates or for each, `[vector, dimension]`. Of 2^20 coordinates
            at NMSE 0.5, 0.1 and 0.01 a bias of 0.1 saves E8 3.5, 0.5 and -0.1 % of the bits if they are Laplacian, 5.4,
            3.3 and 0.5 % if generalised Gaussian (0.5), and costs 1.7, 0.9 and 0.2 % if Gaussian. Leaving out whole
            vectors that save little error was never better.

    Returns:
        `[vector, dimension]`, doubled.

    Raises:
        EncodeError: if a magnitude is too large or not a number.
    """
    number, size = vectors.shape
    points = np.empty((number, size), np.int32)
    pull = np.broadcast_to(np.asarray(bias, vectors.dtype), vectors.shape)
    for start in range(0, number, _CHUNK):
        chunk = np.ascontiguousarray(vectors[start : start + _CHUNK].T)
        magnitude = np.abs(chunk)
        if not magnitude.max(initial=0.0) <= LARGEST_COORDINATE:
            raise EncodeError(
                f"Coordinates must be at most {LARGEST_COORDINATE} steps, got {magnitude.max()}. Take wider cells."
            )
        here = np.ascontiguousarray(pull[start : start + _CHUNK].T)
        doubled = _nearest_magnitudes(magnitude, chunk < 0, here, halves=name == "E8")
        points[start : start + _CHUNK] = np.where(chunk < 0, -doubled, doubled).T
    return points


class _Side(NamedTuple):
    """One coset's answer, all `[dimension, vector]` but `cost` and `odd`.

    Attributes:
        gain: half of what is left of 1 once a coordinate has moved to its next value: moving costs 1 - 2 gain.
        away: whether it moves away from zero.
        cost: of each vector, its least move included, `[vector]`, less what both cosets have in common.
        odd: whether a coordinate has to move, `[vector]`.
    """

    gain: npt.NDArray[np.floating]
    away: npt.NDArray[np.bool_]
    cost: npt.NDArray[np.floating]
    odd: npt.NDArray[np.bool_]


def _nearest_magnitudes(
    magnitude: npt.NDArray[np.floating], negative: npt.NDArray[np.bool_], bias: npt.NDArray[np.floating], halves: bool
) -> npt.NDArray[np.int32]:
    """Doubled coordinates times the signs of x, `[dimension, vector]`."""
    whole = np.floor(magnitude)
    part = magnitude - whole
    lower = whole.astype(np.int32)
    parity = np.bitwise_xor.reduce(lower, axis=0) & 1

    up = part >= 0.5 + bias
    moved = np.logical_xor.reduce(up, axis=0)
    side = _side(part - up, up, bias, (lower + up) == 0, 1.0, parity ^ moved)
    doubled = 2 * (lower + up)
    if halves:
        down = (part < bias) & (lower > 0)
        moved = np.logical_xor.reduce(down ^ negative, axis=0)
        excess = part - (part.dtype.type(0.5) - down)
        other = _side(excess, -down.astype(np.int8), bias, lower == down, bias, parity ^ moved)
        # Sum of 2 bias |p|: 1/2 more in each coordinate.
        take = other.cost + bias.sum(axis=0) < side.cost
        doubled = np.where(take, 2 * (lower - down) + 1, doubled)
        side = _Side(*(np.where(take, theirs, ours) for ours, theirs in zip(side, other, strict=True)))

    best = side.gain == side.gain.max(axis=0)
    todo = side.odd.copy()
    for place in range(len(part)):
        here = best[place] & todo
        doubled[place] += 2 * here * np.where(side.away[place], 1, -1).astype(np.int32)
        todo &= ~here
    return doubled


def _side(
    excess: npt.NDArray[np.floating],
    rounded: npt.NDArray,
    bias: npt.NDArray[np.floating],
    lowest: npt.NDArray[np.bool_],
    barrier: float | npt.NDArray[np.floating],
    odd: npt.NDArray,
) -> _Side:
    """Costs of one coset.

    Args:
        excess: |x| less the rounded magnitude.
        rounded: by how much rounding went beyond floor(|x|), in whole steps.
        bias: as in `nearest`.
        lowest: where the magnitude cannot become smaller.
        barrier: twice that is what moving towards zero costs there beyond elsewhere: from 1/2 to -1/2 saves nothing,
            and from 0 to -1 is never best.
        odd: whether the parity is wrong.
    """
    cost = np.einsum("dv,dv->v", excess, excess)
    cost += 2 * np.einsum("dv,dv->v", bias, rounded, dtype=excess.dtype)
    outward = excess - bias
    inward = -outward - barrier * lowest
    away = outward >= inward
    gain = np.maximum(outward, inward)
    odd = odd.astype(np.bool_)
    cost += odd * (1 - 2 * gain.max(axis=0))
    return _Side(gain, away, cost, odd)


# --- what points stand for


class Fit(NamedTuple):
    """The best offsets, int8 `[offset]`, in 1/128 step, and the squared error that they leave, in squared steps."""

    offsets: npt.NDArray[np.int8]
    error: float


def fit_offsets(name: str, vectors: npt.NDArray[np.floating], points: npt.NDArray[np.int32]) -> Fit:
    """The offsets with which `reconstruct` comes closest to `vectors`, rounded to 1/128, and the error left.

    One offset for each magnitude of a coordinate, not one factor for each length of a point: on 2^20 Gaussian
    coordinates the two are equal, on generalised Gaussian (0.5) ones at 1.2 bits three factors leave E8 an NMSE of
    0.121, eight 0.120, the six offsets 0.116, one factor 0.126, and plain points 0.139.

    Args:
        name: of the lattice.
        vectors: `[vector, dimension]`, in steps.
        points: `[vector, dimension]`, doubled, of `nearest`.
    """
    flat, doubled = vectors.reshape(-1), points.reshape(-1)
    places = np.flatnonzero(doubled)
    active, doubled = flat[places].astype(np.float64), doubled[places]
    magnitude = np.abs(doubled)
    excess = np.where(doubled < 0, -active, active) - magnitude / 2
    kinds = _CLASSES[np.minimum(magnitude, 6 + (magnitude & 1))] - 1
    size = num_offsets(name)
    number = np.bincount(kinds, minlength=size)
    total = np.bincount(kinds, excess, size)
    mean = total / np.maximum(number, 1)
    offsets = np.clip(np.rint(mean * OFFSET_UNIT), -OFFSET_UNIT, OFFSET_UNIT - 1)
    shift = offsets / OFFSET_UNIT
    error = float(excess @ excess) + float((number * shift * shift - 2 * shift * total).sum())
    idle = float(np.einsum("i,i->", flat, flat, dtype=np.float64)) - float(active @ active)
    return Fit(offsets.astype(np.int8), max(idle, 0.0) + max(error, 0.0))


def reconstruct(
    name: str, points: npt.NDArray[np.int32], offsets: npt.NDArray[np.int8], index: int, scale: float | None = None
) -> npt.NDArray[np.float32]:
    """Vectors that points stand for: sign(p) (|p| + o) times the step in each coordinate.

    o is the offset of the magnitude's class: 1, 2, 3 and above; in E8 also 1/2, 3/2, 5/2 and above. Each is a product
    rounded once to float64 and once to float32: equal on every machine.

    Args:
        name: of the lattice.
        points: `[vector, dimension]`, doubled.
        offsets: in 1/128 step, int8 `[offset]`.
        index: of the cell width.
        scale: the step, in cell widths; that of the lattice if not given.

    Returns:
        `[vector, dimension]`; infinite where float32 cannot hold the value, for the caller to refuse.
    """
    shifts = np.concatenate([[0], offsets.astype(np.int64)])
    unit = cell_width(index) * (cell_scale(name) if scale is None else scale) / OFFSET_UNIT
    largest = max(int(points.max(initial=0)), -int(points.min(initial=0)))
    with np.errstate(over="ignore"):
        if largest <= 64:
            levels = _level(np.arange(-largest, largest + 1), shifts, unit)
            return levels[points + largest]
        return _level(points.astype(np.int64), shifts, unit)


def _level(doubled: npt.NDArray[np.int64], shifts: npt.NDArray[np.int64], unit: float) -> npt.NDArray[np.float32]:
    magnitude = np.abs(doubled)
    shift = shifts[np.minimum(_CLASSES[np.minimum(magnitude, 6 + (magnitude & 1))], len(shifts) - 1)]
    return (np.sign(doubled) * (magnitude * (OFFSET_UNIT // 2) + shift) * unit).astype(np.float32)

"""The Leech lattice: the Golay code it is made of, and nearest points.

In whole coordinates, of density one point in 2^36, x is a point if for m = 0 or 1

    x_i = m + 2 c_i + 4 z_i,    c a word of the Golay code,    the sum of z even for m = 0, odd for m = 1.

The Golay code is Curtis's: 24 bits are six columns of four. All columns have one parity, which is also that of the top
row; and the columns' *characters*, the exclusive or of 1, 2, 3 for the set bits below the top one, are one of the 64
words of the hexacode over GF(4). A column's parity, character and top bit say which of its 16 patterns it is.

So the nearest point takes, for either m and either parity: what each pattern of a column costs with z of even or odd
sum; for each hexacode word the least sum over columns of what its characters cost, with the sums of top bits and of z
as they have to be. These are least sums over four states, which pairs of columns share. It is exact for any cost that
is a sum over coordinates, and takes 16,000 additions and comparisons a vector instead of the 200,000 of trying all 8192
cosets, besides their parities.

References:
    J. H. Conway, N. J. A. Sloane. Sphere Packings, Lattices and Groups, chapters 4, 11 and 20. A. Vardy, Y. Be'ery.
    Maximum likelihood decoding of the Leech lattice. IEEE Transactions on Information Theory 39(4), 1993: the hexacode
    as the key to it; theirs takes 3,600 operations.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import EncodeError

DIMENSION = 24
LARGEST_COORDINATE = 2**30 - 1
_COLUMNS, _ROWS = 6, 4
_CHUNK = 512  # vectors at a time, so that the sums of all hexacode words stay in the cache
_TIMES_W = (0, 2, 3, 1)  # multiplication by w in GF(4) = {0, 1, w, w + 1}, written as 0 to 3

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]


class _Code(NamedTuple):
    """The tables that the search walks through.

    Attributes:
        hexacode: `[word, column]`, characters 0 to 3.
        patterns: of a column, by parity, character and top bit, `[parity, character, top]`; bit i is row i.
    """

    hexacode: Indices
    patterns: Indices


def _times(one: int, other: int) -> int:
    """A product in GF(4)."""
    product = 0
    for bit in (1, 0):
        product = _TIMES_W[product] if bit == 0 else product
        if other >> bit & 1:
            product ^= one
    return product


@cache
def _code() -> _Code:
    words = []
    for a in range(4):
        for b in range(4):
            for c in range(4):
                values = [_times(_times(a, x), x) ^ _times(b, x) ^ c for x in (1, 2, 3)]
                words.append([a, b, c, *values])
    patterns = np.zeros((2, 4, 2), np.intp)
    for pattern in range(16):
        bits = [pattern >> row & 1 for row in range(_ROWS)]
        character = bits[1] * 1 ^ bits[2] * 2 ^ bits[3] * 3
        patterns[sum(bits) % 2, character, bits[0]] = pattern
    return _Code(np.array(words, np.intp), patterns)


@cache
def golay_words() -> npt.NDArray[np.uint8]:
    """All 4096 words of the Golay code, `[word, 24]`, column by column."""
    code = _code()
    found = []
    for word in code.hexacode:
        for parity in (0, 1):
            for tops in range(2**_COLUMNS):
                top = [tops >> column & 1 for column in range(_COLUMNS)]
                if sum(top) % 2 == parity:
                    columns = [code.patterns[parity, word[column], top[column]] for column in range(_COLUMNS)]
                    found.append([pattern >> row & 1 for pattern in columns for row in range(_ROWS)])
    return np.array(found, np.uint8)


def nearest(vectors: Floats, bias: npt.ArrayLike = 0.0) -> npt.NDArray[np.int32]:
    """The points x that minimise |v - x|^2 + 2 `bias` |x|_1, exact up to rounding in the vectors' dtype.

    Ties: m = 0 before 1, even columns before odd, then the first hexacode word, and zeros before other states. Each
    coordinate of a residue modulo 8 takes the lower one of two values that cost the same.

    Args:
        vectors: v, `[vector, 24]`, float32 or float64, magnitudes below 2^30.
        bias: pull towards zero, at least 0, for all coordinates or for each, `[vector, 24]`; 0 for the nearest points.

    Returns:
        `[vector, 24]`.

    Raises:
        EncodeError: if a magnitude is too large or not a number.
    """
    largest = np.abs(vectors).max(initial=0.0)
    if not largest <= LARGEST_COORDINATE:
        raise EncodeError(f"Coordinates must be at most {LARGEST_COORDINATE}, got {largest}. Take wider cells.")
    points = np.empty(vectors.shape, np.int32)
    pull = np.broadcast_to(np.asarray(bias, vectors.dtype), vectors.shape)
    for start in range(0, len(vectors), _CHUNK):
        here = slice(start, start + _CHUNK)
        points[here] = _nearest(np.ascontiguousarray(vectors[here].T), np.ascontiguousarray(pull[here].T)).T
    return points


def _classes(vectors: Floats, pull: Floats) -> tuple[Floats, Floats]:
    """The best integer of each residue modulo 8, as residue + 8 times this, and its cost, `[residue, 24, vector]`.

    The cost is convex, and least at v moved towards 0 by its pull, so that it is one of the two integers around that.
    """
    residues = np.arange(8, dtype=vectors.dtype)[:, None, None]
    least = np.sign(vectors) * np.maximum(np.abs(vectors) - pull, 0)
    lower = np.floor((least - residues) / 8)
    values = 8 * lower + residues
    costs = _cost(vectors, values, pull)
    values += 8
    upper = _cost(vectors, values, pull)
    lower += upper < costs
    return lower, np.minimum(costs, upper, out=costs)


def _cost(vectors: Floats, values: Floats, pull: Floats) -> Floats:
    left = values - vectors
    left *= left
    if pull.any():
        left += 2 * pull * np.abs(values)
    return left


def _least(one: Floats, other: Floats) -> Floats:
    """The least sum of two costs for each sum modulo 2 of what they are for, `[..., 2, vector]`."""
    same = np.minimum(one[..., 0, :] + other[..., 0, :], one[..., 1, :] + other[..., 1, :])
    unlike = np.minimum(one[..., 0, :] + other[..., 1, :], one[..., 1, :] + other[..., 0, :])
    return np.stack([same, unlike], axis=-2)


def _least_of_four(one: Floats, other: Floats) -> Floats:
    """The same for states of two bits, `[..., 4, vector]`."""
    split = other.reshape(*other.shape[:-2], 2, 2, other.shape[-1])
    ways = split, split[..., ::-1, :], split[..., ::-1, :, :], split[..., ::-1, ::-1, :]  # for each state of `one`
    found = one[..., 0, None, None, :] + ways[0]
    sums = np.empty_like(found)
    for state in (1, 2, 3):
        np.add(one[..., state, None, None, :], ways[state], out=sums)
        np.minimum(found, sums, out=found)
    return found.reshape(*found.shape[:-3], 4, found.shape[-1])


def _nearest(vectors: Floats, pull: Floats) -> npt.NDArray[np.int32]:
    """`[24, vector]` to points of the same shape."""
    code = _code()
    number = vectors.shape[1]
    rounds, flat = _classes(vectors, pull)
    # [m, c, z modulo 2, column, row, vector], from residue m + 2 c + 4 z.
    costs = flat.reshape(2, 2, 2, _COLUMNS, _ROWS, number).transpose(2, 1, 0, 3, 4, 5)

    best = np.full(number, np.inf, vectors.dtype)
    choice = np.zeros((3, number), np.intp)  # m, parity, word
    columns_of: list[Floats] = []
    for m in (0, 1):
        columns = _columns(costs[m])
        columns_of.append(columns)
        for parity in (0, 1):
            states = columns[code.patterns[parity]]  # [character, top, z, column, vector]
            states = states.reshape(4, 4, _COLUMNS, number)
            pairs = [
                _least_of_four(states[:, None, :, place], states[None, :, :, place + 1]).reshape(16, 4, number)
                for place in (0, 2, 4)
            ]
            words = 4 * code.hexacode[:, 0::2] + code.hexacode[:, 1::2]
            head = _least_of_four(pairs[0][words[:, 0]], pairs[1][words[:, 1]])
            target = 2 * parity + m
            order = [target, target ^ 1, target ^ 2, target ^ 3]
            head += pairs[2][words[:, 2]][:, order]
            totals = head.min(axis=1)
            word = totals.argmin(axis=0)
            least = totals[word, np.arange(number)]
            better = least < best
            best = np.where(better, least, best)
            choice = np.where(better, np.array([np.full(number, m), np.full(number, parity), word]), choice)
    return _trace(rounds, costs, np.stack(columns_of), choice)


def _columns(costs: Floats) -> Floats:
    """What each pattern of a column costs, for z of even and of odd sum, `[pattern, z, column, vector]`."""
    flat = np.moveaxis(costs, 1, -2)  # [c, column, row, z, vector]
    halves = [
        _least(flat[:, None, :, low], flat[None, :, :, low + 1]) for low in (0, 2)
    ]  # [c of row low, c of row low + 1, column, z, vector]
    whole = _least(halves[0][:, :, None, None], halves[1][None, None])
    # Bit i of a pattern is row i: the axes are rows 0, 1, 2, 3.
    whole = whole.transpose(3, 2, 1, 0, 5, 4, 6)
    return np.ascontiguousarray(whole.reshape(16, 2, *whole.shape[5:]))


def _trace(rounds: Floats, costs: Floats, columns: Floats, choice: Indices) -> npt.NDArray[np.int32]:
    """The point behind the best m, parity and word of each vector, `[24, vector]`."""
    code = _code()
    m, parity, word = choice
    number = len(m)
    every = np.arange(number)
    characters = code.hexacode[word].T  # [column, vector]
    patterns = code.patterns[parity, characters]  # [column, vector, top]
    states = np.stack(
        [columns[m, patterns[:, :, top], z, np.arange(_COLUMNS)[:, None], every] for top in (0, 1) for z in (0, 1)],
        axis=1,
    )  # [column, state, vector]
    # Least sums over the columns from each on, by the state that they have to add up to.
    wanted = 2 * parity + m
    rest = [np.full((4, number), np.inf, rounds.dtype)]
    rest[0][0] = 0
    for column in reversed(range(_COLUMNS)):
        rest.append(_least_of_four(states[column], rest[-1]))
    points = np.empty((DIMENSION, number), np.int64)
    for column in range(_COLUMNS):
        after = rest[_COLUMNS - 1 - column]
        taken = np.stack([states[column, state] + after[wanted ^ state, every] for state in range(4)]).argmin(axis=0)
        wanted = wanted ^ taken
        pattern = patterns[column, every, taken >> 1]
        _trace_column(rounds, costs, column, m, pattern, taken & 1, points)
    return points.astype(np.int32)


def _trace_column(
    rounds: Floats,
    costs: Floats,
    column: int,
    m: Indices,
    pattern: Indices,
    wanted: Indices,
    points: npt.NDArray[np.int64],
) -> None:
    """Four coordinates of known pattern and sum of z."""
    every = np.arange(len(m))
    bits = [pattern >> row & 1 for row in range(_ROWS)]
    own = [np.stack([costs[m, bits[row], z, column, row, every] for z in (0, 1)]) for row in range(_ROWS)]
    rest = [np.stack([np.zeros(len(m), rounds.dtype), np.full(len(m), np.inf, rounds.dtype)])]
    for row in reversed(range(_ROWS)):
        rest.append(_least(own[row], rest[-1]))
    for row in range(_ROWS):
        after = rest[_ROWS - 1 - row]
        odd = own[row][1] + after[1 - wanted, every] < own[row][0] + after[wanted, every]
        z = odd.astype(np.intp)
        wanted = wanted ^ z
        residue = m + 2 * bits[row] + 4 * z
        place = _ROWS * column + row
        points[place] = residue + 8 * rounds[residue, place, every].astype(np.int64)

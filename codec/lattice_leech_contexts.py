"""Which table each integer of a point of the Leech lattice is coded with, and which order its coordinates are in.

A point is m, 0 or 1, and 24 digits floor(p), p being half of the lattice's whole coordinates: a digit is c + 2 z, so
that its parity is a bit of the word of the Golay code. In a systematic order the first twelve bits are any, and say the
other twelve. So the first twelve digits are coded whole, the word being told by their parities; of the next eleven half
is coded, (digit - c) / 2; and of the last one a quarter, because the parity of its z is known as well. No bit is spent
on points that do not exist. As in `lattice_contexts` each digit has a class, corrected by what the vector has shown,
and is turned round where the vector leans to the negative side. Beyond that the table depends

* for m = 0 and a digit of the word, on how many bits of it were set before (none, one, more), and while the vector is
  all zeros on how many digits that has lasted: most vectors then have the word of zeros;
* for m = 0 and half a digit, on its bit, on whether a later bit is set, and if not on the parity that the z to come
  need: each set bit leaves a sign open, and the last one's is known by parity;
* for m = 1 on the sum of magnitudes before in a digit of the word, and in half a digit on its bit and on whether the
  vector needs an odd number of coordinates beyond 1/2, 7/2 and so on: one at least, as parity would have it;
* for the last digit on its residue modulo 4.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from .activity import MAX_MAGNITUDE
from .errors import PacketError
from .lattice_contexts import (
    CONFIDENCE,
    DIGIT_CONTEXTS,
    LARGEST_DIGIT,
    SUMS,
    Integers,
    Port,
    corrected,
    divided,
    folded,
    next_lean,
)
from .lattice_leech import DIMENSION, golay_words
from .scale_classes import MEAN_UNIT
from .symbols import MAX_DIRECT, NUM_DIRECT, NUM_SYMBOLS
from .tables import TOTAL

INFORMATION = 12  # bits of a word that are any
_STAGE = 4  # digits of zeros before the context changes
# Contexts of m = 0: of the word, of halves, and of halves while all is zero; then those of m = 1; of both; of m.
WORD, HALF, HALF_OF_ZEROS, ODD_WORD, ODD_HALF, LAST, COSET = 0, 6, 12, 13, 16, 20, 28
NUM_CONTEXTS = COSET + 1

# Of 256 for each class, and only where a packet finds no counts: how many vectors have m = 1, and how many of the first
# four digits of m = 0 are odd while all before are 0.
ODD_VECTORS = (
    *(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 4, 5, 9, 18),
    *(27, 45, 63, 76, 90, 100, 109, 115, 120, 124, 127, 128, 128, 128, 128, 128, 128),
)
ODD_DIGITS = (
    *(3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 7, 13, 22, 31, 44, 62),
    *(77, 91, 105, 110, 115, 120, 122, 124, 126, 128, 128, 128, 128, 128, 128, 128, 128),
)
ODD_AFTER_ODD = 96  # the least of 256, once a digit was odd


@cache
def systematic() -> npt.NDArray[np.intp]:
    """The place in `lattice_leech` of each coordinate of a vector, `[24]`: first twelve whose bits are independent."""
    words = golay_words()
    first: list[int] = []
    for place in range(DIMENSION):
        if len(first) < INFORMATION and len(np.unique(words[:, [*first, place]], axis=0)) == 2 ** (len(first) + 1):
            first.append(place)
    return np.array(first + [place for place in range(DIMENSION) if place not in first], np.intp)


@cache
def checks() -> npt.NDArray[np.int64]:
    """Which of the last twelve bits each of the first ones turns over, `[information, check]`."""
    words = golay_words()[:, systematic()].astype(np.int64)
    words = words[words[:, :INFORMATION].sum(axis=1) == 1]
    return words[words[:, :INFORMATION].argmax(axis=1).argsort(), INFORMATION:]


def folded_to_words(census: Integers) -> Integers:
    """What a class's distribution of single integers says of each context.

    Args:
        census: tables, `[class, symbol]`.

    Returns:
        `[class, context, symbol]`, weights of no particular sum.
    """
    of_e8 = folded(census, 8)
    contexts = np.zeros((len(census), NUM_CONTEXTS, NUM_SYMBOLS), np.int64)
    of_zeros = np.array(ODD_DIGITS, np.int64)
    after_odd = np.maximum(of_zeros, ODD_AFTER_ODD)
    shares = (of_zeros, of_zeros // 2, of_zeros // 4, of_zeros // 2, after_odd, after_odd)
    for context, share in enumerate(shares):
        contexts[:, WORD + context] = _with_odd(of_e8[:, 0], share)
    contexts[:, ODD_WORD : ODD_WORD + SUMS] = of_e8[:, DIGIT_CONTEXTS, None]
    for c in (0, 1):
        first = 3 * SUMS + SUMS * c  # E8's context of half a digit
        contexts[:, HALF + 3 * c : HALF + 3 * c + 3] = of_e8[:, first, None]
        contexts[:, ODD_HALF + 2 * c : ODD_HALF + 2 * c + 2] = of_e8[:, DIGIT_CONTEXTS + first, None]
    contexts[:, HALF_OF_ZEROS] = contexts[:, HALF]
    for m in (0, 1):
        for residue in range(4):
            contexts[:, LAST + 4 * m + residue] = divided(of_e8[:, DIGIT_CONTEXTS * m], residue, 2)
    odd = np.array(ODD_VECTORS, np.int64)
    contexts[:, COSET, MAX_DIRECT] = (256 - odd) * (TOTAL // 256)
    contexts[:, COSET, MAX_DIRECT + 1] = odd * (TOTAL // 256)
    return contexts


def _with_odd(digits: Integers, share: Integers) -> Integers:
    """Digits of which a share of 256 is odd, but for escapes, which stay as they are; `share` is one of each class."""
    is_odd = np.arange(-MAX_DIRECT, MAX_DIRECT + 1) % 2 == 1
    weights = digits.copy()
    for which, wanted in ((is_odd, share), (~is_odd, 256 - share)):
        own = digits[:, :NUM_DIRECT][:, which]
        weights[:, :NUM_DIRECT][:, which] = own * (wanted * (TOTAL // 256))[:, None] // own.sum(axis=1)[:, None]
    return weights


def exchange_words(
    port: Port, points: npt.NDArray[np.int32], classes: Integers, of_vectors: Integers
) -> npt.NDArray[np.int32]:
    """Points through a port: those given when writing, those of the packet when reading.

    Args:
        port: which end this is.
        points: `[vector, 24]`, doubled; any when reading.
        classes: of the coordinates, `[vector, 24]`.
        of_vectors: classes of the vectors, for m, `[vector]`.

    Returns:
        `[vector, 24]`, doubled; points of the lattice, whatever was read.

    Raises:
        PacketError: if m is neither 0 nor 1, or a coordinate is too large.
    """
    m = port.exchange(of_vectors * NUM_CONTEXTS + COSET, points[:, 0].astype(np.int64) & 1)
    if ((m != 0) & (m != 1)).any():
        raise PacketError(f"The packet is damaged: Leech has cosets 0 and 1, got {m.min()} to {m.max()}.")
    means = np.maximum(port.tables.census.means[classes], m[:, None] * (MEAN_UNIT // 2))
    digits = (points >> 1).T.astype(np.int64)
    walk = _Walk(m)
    expected = CONFIDENCE + means.sum(axis=1) // DIMENSION
    shown = expected.copy()
    for place in range(DIMENSION):
        # Turned round, p is -p and floor(p) is -floor(p) - m.
        turned = walk.lean < 0
        digit = np.where(turned, -digits[place] - m, digits[place])
        context, factor, residue = walk.context(place, turned)
        which = corrected(classes[:, place], shown, expected) * NUM_CONTEXTS + context
        digit = factor * port.exchange(which, (digit - residue) // factor) + residue
        magnitude = np.where(digit < 0, -digit - m, digit)
        digits[place] = np.where(turned, -digit - m, digit)
        walk.take(place, digits[place], magnitude)
        expected += means[:, place]
        shown += np.minimum(magnitude, MAX_MAGNITUDE) * MEAN_UNIT + m * (MEAN_UNIT // 2)
    if np.abs(digits).max(initial=0) > LARGEST_DIGIT:
        raise PacketError(f"The packet is damaged: a lattice coordinate beyond {LARGEST_DIGIT} steps.")
    return (2 * digits + m).T.astype(np.int32)


class _Walk:
    """What vectors have shown, place by place, `[vector]` each.

    Args:
        m: of the vectors.

    Attributes:
        lean: to which side, as `next_lean` says.
    """

    def __init__(self, m: Integers) -> None:
        self._m = m
        self._bits = np.zeros((DIMENSION, len(m)), np.int64)
        self._later = np.zeros((DIMENSION, len(m)), np.bool_)  # whether a bit after this one is set
        self._set = np.zeros(len(m), np.int64)  # bits of the word so far
        self._total = np.zeros(len(m), np.int64)
        self._needed = m.copy()  # parity of what is to come: the sum of z is even for m = 0 and odd for m = 1
        self._beyond = m.copy()  # the same for m = 1, of coordinates beyond 1/2, 7/2 and so on
        self.lean = np.zeros(len(m), np.int64)

    def context(self, place: int, turned: npt.NDArray[np.bool_]) -> tuple[Integers, int, Integers]:
        """Context of the next digit; what it is divided by, and its residue modulo that, both once it is turned."""
        m = self._m
        if place < INFORMATION:
            of_zeros = np.where(self._total > 0, 3, place // _STAGE)
            of_even = np.where(self._set > 0, np.minimum(3 + self._set, 5), of_zeros)
            return np.where(m == 1, ODD_WORD + self._total, WORD + of_even), 1, np.zeros_like(m)
        bit = self._bits[place]
        if place == DIMENSION - 1:
            residue = bit + 2 * self._needed
            residue = np.where(turned, -residue - m, residue) & 3
            return LAST + 4 * m + residue, 4, residue
        needed = self._needed ^ (bit & turned)
        residue = bit ^ (turned & (m == 1))
        of_even = HALF + 3 * residue + np.where(self._later[place], 0, 1 + needed)
        of_even = np.where(self._total > 0, of_even, HALF_OF_ZEROS)
        return np.where(m == 1, ODD_HALF + 2 * residue + self._beyond, of_even), 2, residue

    def take(self, place: int, digit: Integers, magnitude: Integers) -> None:
        """One more digit, and floor(|p|)."""
        if place < INFORMATION:
            self._bits[place] = digit & 1
            self._set += digit & 1
            if place == INFORMATION - 1:
                self._bits[INFORMATION:] = checks().T @ self._bits[:INFORMATION] & 1
                self._later[:-1] = self._bits[::-1].cumsum(axis=0)[::-1][1:] > 0
        self._total = np.minimum(self._total + magnitude, SUMS - 1)
        self._needed ^= digit >> 1 & 1
        self._beyond ^= self._m & (magnitude + 1) >> 1
        self.lean = next_lean(self.lean, 2 * digit + self._m)

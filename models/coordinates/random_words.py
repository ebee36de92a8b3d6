"""Pseudo-random integers by position: any stretch of any stream, the same on every machine, nothing stored.

Word i of a key is output i of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
OOPSLA) begun at that key: a bijective hash of key + (i + 1) 0x9E3779B97F4A7C15. So it is a counter-based generator in
the sense of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3"). Only 64-bit integer operations.

Not for cryptography: whoever knows a few words knows them all.
"""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
MASK = 2**64 - 1
GAMMA = 0x9E3779B97F4A7C15
ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST_SHIFT = 31


def stream_key(seed: int, stream: int) -> int:
    """The key of one of the streams of a seed: word `stream` of the key that the seed hashes to."""
    return _mixed(_mixed(seed & MASK) + (stream + 1) * GAMMA)


def _mixed(value: int) -> int:
    value &= MASK
    for shift, factor in ROUNDS:
        value = ((value ^ (value >> shift)) * factor) & MASK
    return value ^ (value >> LAST_SHIFT)


def random_words(key: int, first: int, count: int) -> Words:
    """Words `first` to `first + count` of a key, `[word]`, all 64 bits random.

    Examples:
        >>> [int(word) for word in random_words(1234567, 0, 2)]
        [6457827717110365317, 3203168211198807973]
    """
    words = np.arange(count, dtype=np.uint64)
    words *= np.uint64(GAMMA)
    words += np.uint64((key + (first + 1) * GAMMA) & MASK)
    shifted = np.empty_like(words)
    for shift, factor in ROUNDS:
        np.right_shift(words, np.uint64(shift), out=shifted)
        words ^= shifted
        words *= np.uint64(factor)
    np.right_shift(words, np.uint64(LAST_SHIFT), out=shifted)
    words ^= shifted
    return words


def random_bytes(key: int, first: int, count: int) -> npt.NDArray[np.uint8]:
    """Bytes `first` to `first + count` of a key's words, lowest byte of each word first; `first` a multiple of 8."""
    return random_words(key, first // 8, -(-count // 8)).astype("<u8", copy=False).view(np.uint8)[:count]


def random_halves(key: int, first: int, count: int) -> npt.NDArray[np.uint16]:
    """16-bit numbers `first` to `first + count` of a key's words, lowest first; `first` a multiple of 4."""
    return random_words(key, first // 4, -(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]


def random_signs(key: int, first: int, count: int) -> npt.NDArray[np.float64]:
    """Signs +1 and -1 by the bits `first` to `first + count` of a key's words; `first` a multiple of 64."""
    bits = np.unpackbits(random_bytes(key, first // 8, -(-count // 8)), count=count, bitorder="little")
    return np.where(bits, -1.0, 1.0)

"""Random rotations of long vectors: a Hadamard matrix, chunk by chunk."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .base import require_choice, require_whole

SMALLEST_CHUNK = 128


def hadamard(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The orthonormal Walsh-Hadamard transform of `2^k` values, its own inverse.

    Each pass adds and subtracts neighbours and moves the results to the two halves; after k passes every index bit has
    been both transformed and moved back in place. Only sums: the same bits on every machine, up to the last factor,
    which is rounded once.
    """
    size = len(values)
    for _ in range(size.bit_length() - 1):
        even, odd = values[0::2], values[1::2]
        values = np.concatenate([even + odd, even - odd])
    return values / math.sqrt(size)


class Chunk(NamedTuple):
    """`size` coordinates from `start` on, rotated as `padded` that begin at `place` of the padded vector."""

    start: int
    size: int
    place: int
    padded: int


def require_chunk(chunk: int) -> None:
    """Refuse a largest chunk that no rotation has.

    Raises:
        ConfigError: if it is no power of two from 128 to 2^30.
    """
    require_whole("chunk", chunk, SMALLEST_CHUNK, 2**30)
    if chunk & (chunk - 1):
        require_choice("chunk", chunk, ("a power of two",))


def chunks_of(size: int, largest: int) -> tuple[Chunk, ...]:
    """Chunks of powers of two, largest first, at most `largest`; only the last, below 128 coordinates, is padded."""
    chunks: list[Chunk] = []
    start = 0
    while start < size:
        left = size - start
        padded = min(1 << left.bit_length() - 1, largest)
        if padded < SMALLEST_CHUNK:
            padded = 1 << (left - 1).bit_length()
        taken = min(left, padded)
        chunks.append(Chunk(start, taken, start, padded))
        start += taken
    return tuple(chunks)

"""A basis of randomised Hadamard blocks: signs, fast transform, signs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
from typing_extensions import override

from .basis import BLOCK, Basis, Values
from .random_words import random_signs, stream_key


@final
@dataclass(frozen=True)
class HadamardBasis(Basis):
    """Block m of the parameters is D'_m H D_m c, with H the Hadamard matrix and D', D diagonals of random signs.

    Blocks have n parameters, n the first power of two from k and 64 up; c is padded with zeros. All entries are +1 and
    -1, the b_j are orthogonal up to the last, incomplete block, and one combination takes log2(n) additions a parameter
    instead of k. After the subsampled randomised Hadamard transform (Ailon and Chazelle 2009); Fastfood (Le et al.
    2013) adds a permutation and normal scales, which serve kernels.

    Signs D' are stream 0 at the parameters' own places, D stream 1 at n m + j.
    """

    @property
    @override
    def entry_size(self) -> float:
        return 1.0

    @property
    @override
    def largest_entry(self) -> float:
        return 1.0

    @property
    def block_size(self) -> int:
        """n."""
        return max(64, 1 << (self.num_coefficients - 1).bit_length())

    @override
    def combine(self, coefficients: Values) -> Values:
        result = np.empty(self.num_parameters)
        padded = np.zeros(self.block_size)
        padded[: self.num_coefficients] = coefficients
        for part, inner, outer in self._signs():
            values = walsh_hadamard(inner * padded).reshape(-1)
            values *= outer
            result[part] = values[: part.stop - part.start]
        return result

    @override
    def project(self, vector: Values) -> Values:
        result = np.zeros(self.block_size)
        for part, inner, outer in self._signs():
            values = np.zeros(inner.size)
            values[: part.stop - part.start] = vector[part]
            values *= outer
            result += (inner * walsh_hadamard(values.reshape(inner.shape))).sum(axis=0)
        return result[: self.num_coefficients]

    def _signs(self) -> Iterator[tuple[slice, Values, Values]]:
        """Some blocks at a time: their parameters, D as `[block, place]`, and D' end to end."""
        size = self.block_size
        step = max(BLOCK, size)
        for first in range(0, self.num_parameters, step):
            count = min(step, -(-(self.num_parameters - first) // size) * size)
            outer = random_signs(stream_key(self.seed, 0), first, count)
            inner = random_signs(stream_key(self.seed, 1), first, count).reshape(-1, size)
            yield slice(first, min(first + count, self.num_parameters)), inner, outer


def walsh_hadamard(rows: Values) -> Values:
    """Each row times the Hadamard matrix in natural order, without a factor; `[row, place]`, places a power of two.

    Examples:
        >>> walsh_hadamard(np.array([[1.0, 0.0, 0.0, 2.0]]))
        array([[ 3., -1., -1.,  3.]])
    """
    num_rows, size = rows.shape
    values, half = rows, 1
    while half < size:
        pairs = values.reshape(num_rows, size // (2 * half), 2, half)
        values = np.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), axis=2)
        half *= 2
    return values.reshape(num_rows, size)

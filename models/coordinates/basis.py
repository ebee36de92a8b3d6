"""The contract of a seeded basis: many vectors of whole numbers, made block by block and never stored."""

import abc
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
BLOCK = 65536  # parameters made at a time: what is needed of them stays in a core's own cache


@dataclass(frozen=True)
class Basis(abc.ABC):
    """Vectors b_1 ... b_k of whole numbers, `[param]` each, that a seed defines.

    Args:
        num_coefficients: k.
        num_parameters: length of each.
        seed: which vectors; any whole number, of which the lowest 64 bits count.
    """

    num_coefficients: int
    num_parameters: int
    seed: int = 0

    @property
    @abc.abstractmethod
    def entry_size(self) -> float:
        """Root mean square of the entries."""

    @property
    @abc.abstractmethod
    def largest_entry(self) -> float:
        """A bound on the entries' absolute values."""

    @abc.abstractmethod
    def combine(self, coefficients: Values) -> Values:
        """sum_j c_j b_j, `[param]`; exact where the c_j, `[coefficient]`, are whole numbers and not too large."""

    @abc.abstractmethod
    def project(self, vector: Values) -> Values:
        """The inner products of a vector, `[param]`, with each b_j, `[coefficient]`: the transpose of `combine`."""

    def blocks(self) -> list[slice]:
        """The parameters, so many at a time as are made together."""
        return [slice(first, min(first + BLOCK, self.num_parameters)) for first in range(0, self.num_parameters, BLOCK)]

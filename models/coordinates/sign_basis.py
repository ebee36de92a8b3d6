"""A basis of independent signs."""

from dataclasses import dataclass
from typing import final

import numpy as np
from typing_extensions import override

from .basis import Basis, Values
from .random_words import random_bytes, stream_key

BITS = 8  # coefficients that share a byte for each parameter


@final
@dataclass(frozen=True)
class SignBasis(Basis):
    """Entries +1 and -1, each a bit of its own.

    Eight coefficients share a byte for each parameter, and what they add depends on that byte alone: so 256 sums are
    made once and looked up ("four Russians", Arlazarov et al. 1970), and `project` adds up the vector by byte. An
    eighth of the work of multiplying.

    Byte of parameter i in the group of coefficients 8 g to 8 g + 7: byte i of stream g; bit j is 1 for -1 in b_(8g+j).
    """

    @property
    @override
    def entry_size(self) -> float:
        return 1.0

    @property
    @override
    def largest_entry(self) -> float:
        return 1.0

    @override
    def combine(self, coefficients: Values) -> Values:
        padded = np.zeros(-(-self.num_coefficients // BITS) * BITS)
        padded[: self.num_coefficients] = coefficients
        tables = [_sums(group) for group in padded.reshape(-1, BITS)]
        result = np.zeros(self.num_parameters)
        for block in self.blocks():
            part = result[block]
            found = np.empty(len(part))
            for group, table in enumerate(tables):
                bytes_ = random_bytes(stream_key(self.seed, group), block.start, len(part))
                part += np.take(table, bytes_, out=found, mode="wrap")
        return result

    @override
    def project(self, vector: Values) -> Values:
        num_groups = -(-self.num_coefficients // BITS)
        totals = np.zeros((num_groups, 2**BITS))
        for block in self.blocks():
            part = vector[block]
            for group in range(num_groups):
                bytes_ = random_bytes(stream_key(self.seed, group), block.start, len(part))
                totals[group] += np.bincount(bytes_, weights=part, minlength=2**BITS)
        return (totals @ _signs().T).reshape(-1)[: self.num_coefficients]


def _signs() -> Values:
    """The eight signs that each byte stands for, `[bit, byte]`."""
    return np.array([[1.0 - 2.0 * (byte >> bit & 1) for byte in range(2**BITS)] for bit in range(BITS)])


def _sums(coefficients: Values) -> Values:
    """What eight coefficients add under each byte, `[byte]`."""
    sums = np.zeros(1)
    for coefficient in coefficients:
        sums = np.concatenate((sums + coefficient, sums - coefficient))
    return sums

"""A basis of independent normal entries, in steps of 1/256."""

from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import final

import numpy as np
from typing_extensions import override

from .basis import Basis, Values
from .random_words import random_halves, stream_key

STEPS = 256  # whole numbers to one standard deviation
LEVELS = 65536


@cache
def quantiles() -> Values:
    """256 times the normal quantiles at (i + 1/2) / 65536, rounded, `[level]`: whole numbers of up to 1107.

    No level lies within 1e-6 of a half, and the quantile function is good to 1e-13 on any machine: so all machines
    round alike. The entries' variance is 0.99998 of a standard normal's, their kurtosis 2.9992.
    """
    normal = NormalDist()
    upper = np.array([normal.inv_cdf((level + 0.5) / LEVELS) for level in range(LEVELS // 2, LEVELS)])
    rounded = np.rint(upper * STEPS)
    table = np.concatenate((-rounded[::-1], rounded))
    table.setflags(write=False)
    return table


@final
@dataclass(frozen=True)
class GaussianBasis(Basis):
    """Normal entries, each from 16 bits of its own by the table `quantiles`.

    Entry of b_j at parameter i: the level that 16-bit number i of stream j names. Ten times the time of signs at 1000
    coefficients (benchmarks/coordinates_speed.txt), and no more accurate (docs/coordinates.md): for comparison.
    """

    @property
    @override
    def entry_size(self) -> float:
        return float(STEPS)

    @property
    @override
    def largest_entry(self) -> float:
        return float(quantiles()[-1])

    @override
    def combine(self, coefficients: Values) -> Values:
        result = np.zeros(self.num_parameters)
        table = quantiles()
        for block in self.blocks():
            part = result[block]
            entries = np.empty(len(part))
            for index, coefficient in enumerate(coefficients):
                levels = random_halves(stream_key(self.seed, index), block.start, len(part))
                np.take(table, levels, out=entries, mode="wrap")
                entries *= coefficient
                part += entries
        return result

    @override
    def project(self, vector: Values) -> Values:
        result = np.zeros(self.num_coefficients)
        table = quantiles()
        for block in self.blocks():
            part = vector[block]
            entries = np.empty(len(part))
            for index in range(self.num_coefficients):
                levels = random_halves(stream_key(self.seed, index), block.start, len(part))
                result[index] += np.dot(np.take(table, levels, out=entries, mode="wrap"), part)
        return result

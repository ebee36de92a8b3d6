"""Unbiased quantisation: rounding up or down at random, so that the mean of what is decoded is what was coded.

A residual r becomes floor(r / w + u), u uniform in [0, 1), and comes back as that many w. Its expectation is r,
whatever r is, and its variance f (1 - f) w^2, f the fractional part of r / w. There is no dead zone and there are no
centroids: both are biases. At equal error it takes far more bits than rounding to the nearest; it pays where many
decoded vectors are averaged, because independent errors average out. (QSGD, Alistarh et al. 2017, arXiv:1610.02132,
with one width for the whole vector and an entropy coder that expects each coordinate's scale.)
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .lattice import LARGEST_VALUE, NUM_OFFSETS, Trial, cell_index, cell_width, widest


class RoundingKey(NamedTuple):
    """What makes the random numbers of one packet: equal keys give equal ones.

    Attributes:
        seed: the encoder's; workers whose vectors are averaged need different ones.
        step: the packet's.
    """

    seed: int
    step: int


class StochasticQuantiser:
    """Finds the coarsest cells whose expected squared error keeps a bound, and rounds at random.

    Args:
        residual: `[param]`, finite float32.
        key: of the random numbers.
    """

    def __init__(self, residual: npt.NDArray[np.float32], key: RoundingKey) -> None:
        self._residual = residual.astype(np.float64)
        self._key = key
        self._largest = float(np.abs(self._residual).max(initial=0.0))

    @property
    def finest(self) -> int:
        """The finest cells whose integers 32 bits hold."""
        return cell_index(max(self._largest / LARGEST_VALUE, 5e-324)) + 1

    def trial(self, index: int) -> Trial:
        """The expected error at one cell width."""
        width = cell_width(index)
        scaled = self._residual / width
        fraction = scaled - np.floor(scaled)
        error = float((fraction * (1 - fraction)).sum()) * width * width
        return Trial(index, error, np.zeros(NUM_OFFSETS, np.int8))

    def coarsest(self, bound: float, start: int) -> Trial | None:
        """The coarsest width whose expected error is at most `bound`, or `None` if there is none."""
        if not self._largest:
            return self.trial(start)
        if bound <= 0:
            return None
        # Beyond this a cell is wider than the largest coordinate, and the error grows in proportion to the width.
        coarsest = max(cell_index(1e30 * self._largest), self.finest)
        found = widest(lambda index: self.trial(index).error, bound, start, self.finest, coarsest)
        return None if found is None else self.trial(found)

    def values(self, trial: Trial) -> npt.NDArray[np.int32]:
        """The integers at a trial's width, `[param]`."""
        generator = np.random.Generator(np.random.Philox(key=np.array(self._key, np.uint64)))
        scaled = self._residual / cell_width(trial.cell_index)
        return np.floor(scaled + generator.random(len(scaled))).astype(np.int32)

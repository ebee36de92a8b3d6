"""The lattices D4 and E8 as a `Coding`: vectors of consecutive coordinates, entropy-coded by predicted scale.

A vector is four or eight consecutive coordinates; `lattice_contexts` makes tables of the scales that `vector_coding`
predicts. In D4 the unit of points is 0.84 cell widths.
"""

from collections.abc import Callable
from functools import partial
from typing import final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ..forecast import Layout
from .coding import Quantised, Search
from .lattice_contexts import Port, Tables, exchange_points, folded, num_contexts
from .lattice_points import dimension, nearest
from .symbol_coder import CoderState
from .vector_coding import Exchanger, PassByPass, Points, PointTrial, VectorCoding, VectorQuantiser

# Of Z's dead zone, which is best for single coordinates. On gradients of seven nets 0.35 and 0.5 are equal; one bias of
# 0.1 for all costs 2.5 % at NMSE 0.5, 1 % at 0.1 and nothing at 0.01, one for each vector 1.5, 0.3 and 0.1 %.
BIAS_SHARE = 0.4
LEAST_BIAS, WIDEST_BIAS = 0.02, 0.5


def shared_bias(zones: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The pull towards zero where Z would have some dead zones."""
    return np.minimum(BIAS_SHARE * zones + np.float32(LEAST_BIAS), np.float32(WIDEST_BIAS))


@final
class LatticeCoding(VectorCoding):
    """The lattice D4 or E8.

    Args:
        layout: of the coded vector.
        name: of the lattice.
        dead_zone: the bias of `lattice_points.nearest`; `None` leaves it to the tables.
    """

    def __init__(self, layout: Layout, name: str, dead_zone: float | None) -> None:
        super().__init__(layout, name, dimension(name), num_contexts(dimension(name)), dead_zone)

    @override
    def _quantiser(
        self, vectors: npt.NDArray[np.float32], levels: npt.NDArray[np.int32] | None, search: Search
    ) -> VectorQuantiser:
        return NearestPoints(self.name, partial(nearest, self.name), vectors, levels, self._bias(search))

    def _bias(self, search: Search) -> npt.NDArray[np.float32]:
        """Of each coordinate, `[vector, dimension]`."""
        if self._dead_zone is not None:
            return np.full((self._num_vectors, self._size), self._dead_zone, np.float32)
        return shared_bias(self._to_vectors(self._scalar.dead_zone(search.state, search.cell_index, search.levels)))

    @override
    def _tables(self, state: CoderState) -> Tables:
        return Tables(state.counts, partial(folded, size=self._size))

    @override
    def _exchanger(self, port: Port) -> Exchanger:
        return PassByPass(port, exchange_points)


@final
class NearestPoints(VectorQuantiser):
    """Of the vectors that are not zero.

    Args:
        name: of the lattice.
        nearest: its search, of vectors in steps and their bias.
        vectors: `[vector, dimension]`.
        levels: of the vectors, `[vector]`; `None` where all are 0.
        bias: of the coordinates, `[vector, dimension]`.
    """

    def __init__(
        self,
        name: str,
        nearest: Callable[[npt.NDArray[np.floating], npt.NDArray[np.float32]], Points],
        vectors: npt.NDArray[np.float32],
        levels: npt.NDArray[np.int32] | None,
        bias: npt.NDArray[np.float32],
    ) -> None:
        self._shape = vectors.shape
        self._places = np.flatnonzero(vectors.any(axis=1))
        super().__init__(name, vectors[self._places], None if levels is None else levels[self._places])
        self._nearest = nearest
        self._bias = bias[self._places]

    @override
    def _points(self, scaled: npt.NDArray[np.floating], index: int) -> Points:
        return self._nearest(scaled, self._bias)

    @override
    def _quantised(self, index: int, trial: PointTrial) -> Quantised[Points]:
        points = np.zeros(self._shape, np.int32)
        points[self._places] = trial.points
        return Quantised(index, trial.offsets, points)

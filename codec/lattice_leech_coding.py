"""The Leech lattice as a `Coding`: vectors of 24 consecutive coordinates, coded as `lattice_leech_contexts` says.

Points are doubled, as those of E8 are, and so the lattice's whole coordinates; the unit of points, the step, is 0.707
cell widths. At high rate it takes 0.06 bit a coordinate less than E8 at equal error, and four to six times as long to
encode (`benchmarks/limits_sources.txt`, `benchmarks/lattice_speed.txt`).
"""

from typing import final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ..forecast import Layout
from .coding import Search
from .lattice_coding import NearestPoints, shared_bias
from .lattice_contexts import Port, Tables
from .lattice_leech import DIMENSION, nearest
from .lattice_leech_contexts import NUM_CONTEXTS, exchange_words, folded_to_words, systematic
from .symbol_coder import CoderState
from .vector_coding import Exchanger, PassByPass, Points, VectorCoding, VectorQuantiser

NAME = "Leech"


def nearest_points(steps: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]) -> Points:
    """The points p that minimise |x - p|^2 + 2 `bias` |p|_1, in the order in which they are coded.

    Args:
        steps: x, `[vector, 24]`, magnitudes below 2^29.
        bias: pull towards zero, `[vector, 24]`.

    Returns:
        `[vector, 24]`, doubled.

    Raises:
        EncodeError: if a magnitude is too large or not a number.
    """
    places = systematic()
    back = np.argsort(places)
    return nearest(2 * steps[:, back], 2 * bias[:, back])[:, places]


@final
class LeechCoding(VectorCoding):
    """The Leech lattice.

    Args:
        layout: of the coded vector.
        dead_zone: the bias of `nearest_points`; `None` leaves it to the tables.
    """

    def __init__(self, layout: Layout, dead_zone: float | None) -> None:
        super().__init__(layout, NAME, DIMENSION, NUM_CONTEXTS, dead_zone)

    @override
    def _quantiser(
        self, vectors: npt.NDArray[np.float32], levels: npt.NDArray[np.int32] | None, search: Search
    ) -> VectorQuantiser:
        return NearestPoints(NAME, nearest_points, vectors, levels, self._bias(search))

    def _bias(self, search: Search) -> npt.NDArray[np.float32]:
        """Of each coordinate, `[vector, 24]`."""
        if self._dead_zone is not None:
            return np.full((self._num_vectors, DIMENSION), self._dead_zone, np.float32)
        return shared_bias(self._to_vectors(self._scalar.dead_zone(search.state, search.cell_index, search.levels)))

    @override
    def _tables(self, state: CoderState) -> Tables:
        return Tables(state.counts, folded_to_words)

    @override
    def _exchanger(self, port: Port) -> Exchanger:
        return PassByPass(port, exchange_words)

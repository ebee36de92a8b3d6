"""Trellis-coded quantisation as a `Coding`: the path of least squared error plus bits, coded by predicted scale.

What a bit is worth is one number for all rates, `RATE_WEIGHT`. The bits are those of the tables that both ends begin
the packet with, by the class that is expected of each coordinate; what vectors will show is not foreseen.
"""

from functools import cached_property
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ..forecast import Layout
from . import activity as activities
from .coding import Search
from .lattice import cell_width
from .lattice_contexts import PRIOR_SHIFT, Integers, Port, Tables
from .scale_classes import LOWEST_OCTAVE, NUM_CLASSES, ClassModel, class_of
from .symbol_coder import NO_VECTOR, CoderState
from .symbols import MAX_DIRECT, NUM_DIRECT, NUM_SYMBOLS
from .tables import TOTAL, as_tables
from .trellis import EVEN, HOME, NEVER, NUM_KINDS, ODD, Costs, best_path, make_trellis
from .trellis_contexts import (
    DIMENSION,
    NUM_CONTEXTS,
    SUMS,
    Part,
    Paths,
    folded_to_quantisers,
    num_paths,
    rounds,
)
from .vector_coding import Exchanger, Points, VectorCoding, VectorQuantiser

# Squared cell widths that a bit is worth. On 2^17 Gaussian coordinates 0.06 to 0.08 are within 0.004 bit of the best at
# every rate from 0.4 to 3 bits, and 0.1 costs 0.02 bit at one bit.
RATE_WEIGHT = 0.065
_BIT_UNIT = 256
_AT_ONCE = 2**14  # coordinates, so that what is made of them stays in the cache
_NUM_MAGNITUDES = MAX_DIRECT + 2  # of k with bits of their own; the last one stands for all above

Bits = npt.NDArray[np.float32]  # [3 class + kind, magnitude of k], times their weight


@final
class TrellisCoding(VectorCoding):
    """A trellis of `trellis_names()`.

    Args:
        layout: of the coded vector.
        name: of the trellis.
        dead_zone: what each step of magnitude costs, as the bias of D4 and E8; `None` for what the tables say.
    """

    def __init__(self, layout: Layout, name: str, dead_zone: float | None) -> None:
        super().__init__(layout, name, DIMENSION, NUM_CONTEXTS, dead_zone)
        self.trellis = make_trellis(name)

    @override
    def _quantiser(
        self, vectors: npt.NDArray[np.float32], levels: npt.NDArray[np.int32] | None, search: Search
    ) -> VectorQuantiser:
        return _CheapestPath(self, vectors, levels, search)

    @override
    def _tables(self, state: CoderState) -> Tables:
        return Tables(state.counts, folded_to_quantisers)

    @override
    def _exchanger(self, port: Port) -> Exchanger:
        return _PathExchanger(port, Paths(self.trellis, self._num_vectors))

    def schedule(self, search: Search) -> "Schedule":
        """The order in which the paths of a packet go through its coordinates."""
        if (search.levels == NO_VECTOR).any():
            return self._schedule(search)
        return self._whole_schedule

    @cached_property
    def _whole_schedule(self) -> "Schedule":
        return self._schedule(None)

    def _schedule(self, search: Search | None) -> "Schedule":
        paths = num_paths(self._num_vectors)
        levels = np.zeros(len(self._numbers), np.uint8) if search is None else search.levels
        slots, filled, widths = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)], []
        places = np.arange(DIMENSION)[:, None]
        for _, members in self._coded_members(levels):
            for here in rounds(len(members.vectors), paths):
                slots.append((members.vectors[here] * DIMENSION + places).reshape(-1))
                filled.append((members.numbers[here] <= places).reshape(-1))
                widths += [here.stop - here.start] * DIMENSION
        return Schedule(np.concatenate(slots), np.flatnonzero(np.concatenate(filled)), widths)

    def weighted_bits(self, state: CoderState) -> Bits:
        """What k costs in each class and kind of state, before the vector has shown anything."""
        if self._dead_zone is not None:
            magnitudes = np.arange(_NUM_MAGNITUDES) - np.array([[0.0], [0.0], [0.5]])
            return np.tile(2 * self._dead_zone * np.maximum(magnitudes, 0), (NUM_CLASSES, 1)).astype(np.float32)
        census = ClassModel(state.counts[:NUM_CLASSES]).tables
        prior = folded_to_quantisers(census)[:, ::SUMS]
        seen = state.counts[NUM_CLASSES:].reshape(NUM_CLASSES, NUM_KINDS, SUMS, NUM_SYMBOLS).sum(axis=2)
        tables = as_tables(((seen << PRIOR_SHIFT) + prior).reshape(-1, NUM_SYMBOLS))
        mirrored = tables[:, :MAX_DIRECT][:, ::-1]
        shares = np.concatenate(
            [
                tables[:, MAX_DIRECT, None],
                (tables[:, MAX_DIRECT + 1 : NUM_DIRECT] + mirrored) / 2,
                tables[:, NUM_DIRECT, None] / 2,
            ],
            axis=1,
        )
        units = np.rint((np.log2(TOTAL) - np.log2(shares)) * _BIT_UNIT)  # so that logarithms need not agree everywhere
        return (units * (RATE_WEIGHT / _BIT_UNIT)).astype(np.float32)

    def expected_classes(self, search: Search, index: int) -> npt.NDArray[np.uint8]:
        """Of the vectors' coordinates, in cells of an index, `[vector, dimension]`."""
        if search.state.num_updates:
            return class_of(self._to_vectors(self._scalar.expected(search.state, index, search.levels)))
        logs = np.zeros(self._num_vectors * DIMENSION, np.int32)
        one = activities.log2(np.ones(1))
        for part, span, level in zip(self._geometry.parts, self._spans, search.levels, strict=True):
            mean = float(np.abs(search.residual[part.span]).mean()) / (cell_width(index) * 2.0**level)
            logs[span] = activities.log2(np.array([max(mean, 2.0**LOWEST_OCTAVE)])) - one
        return class_of(logs).reshape(-1, DIMENSION)


class Schedule(NamedTuple):
    """The coordinates of vectors in the order in which paths step.

    Attributes:
        slots: places among the vectors' coordinates, `[coordinate]`.
        filled: which of them fill up a vector, `[filling]`.
        widths: how many paths step at each step.
    """

    slots: npt.NDArray[np.int64]
    filled: npt.NDArray[np.intp]
    widths: list[int]


@final
class _PathExchanger(Exchanger):
    def __init__(self, port: Port, paths: Paths) -> None:
        self._port = port
        self._paths = paths

    @override
    def exchange(
        self, points: Points, classes: Integers, of_vectors: Integers, numbers: npt.NDArray[np.integer]
    ) -> Points:
        return self._paths.exchange(self._port, Part(points, classes, numbers))


@final
class _CheapestPath(VectorQuantiser):
    """The paths of least cost.

    Args:
        coding: whose paths they are.
        vectors: `[vector, dimension]`.
        levels: of the vectors, `[vector]`; `None` where all are 0.
        search: what is asked for.
    """

    def __init__(
        self,
        coding: TrellisCoding,
        vectors: npt.NDArray[np.float32],
        levels: npt.NDArray[np.int32] | None,
        search: Search,
    ) -> None:
        super().__init__(coding.name, vectors, levels)
        self._coding = coding
        self._search = search
        self._schedule = coding.schedule(search)
        self._bits = coding.weighted_bits(search.state)

    @override
    def _points(self, scaled: npt.NDArray[np.floating], index: int) -> Points:
        slots = self._schedule.slots
        ordered = scaled.reshape(-1)[slots]
        classes = self._coding.expected_classes(self._search, index).reshape(-1)[slots]
        candidates = branches(ordered, classes, self._bits)
        candidates.costs[0::2, self._schedule.filled] = 0
        candidates.costs[1::2, self._schedule.filled] = NEVER
        taken = best_path(self._coding.trellis, candidates.costs, self._schedule.widths)
        magnitudes = np.take_along_axis(candidates.magnitudes, taken[None].astype(np.intp), 0)[0]
        doubled = 2 * magnitudes - (taken >= 2 * ODD) * (magnitudes > 0)
        doubled[self._schedule.filled] = 0
        points = np.zeros(scaled.shape, np.int32)
        points.reshape(-1)[slots] = np.where(ordered < 0, -doubled, doubled)
        return points


class Candidates(NamedTuple):
    """The best k in each kind of state and of each parity, `[2 kind + parity, coordinate]`: its cost and magnitude."""

    costs: Costs
    magnitudes: npt.NDArray[np.int32]


def branches(scaled: npt.NDArray[np.floating], classes: npt.NDArray[np.uint8], bits: Bits) -> Candidates:
    """What each coordinate may take: of a quantiser's values of one parity the nearest, or the next one towards zero.

    Args:
        scaled: coordinates in cells, `[coordinate]`.
        classes: that are expected of them, `[coordinate]`.
        bits: of each class and kind of state, in squared cells.
    """
    costs = np.empty((2 * NUM_KINDS, len(scaled)), np.float32)
    magnitudes = np.empty((2 * NUM_KINDS, len(scaled)), np.int32)
    for start in range(0, len(scaled), _AT_ONCE):
        here = slice(start, start + _AT_ONCE)
        size = np.abs(scaled[here])
        own = classes[here].astype(np.intp) * (NUM_KINDS * _NUM_MAGNITUDES)
        for kinds, shift in (((HOME, EVEN), 0.0), ((ODD,), 0.5)):
            half = size.dtype.type(shift)
            for parity in (0, 1):
                near = 2 * np.rint((size + (half - parity)) / 2).astype(np.int32) + parity
                lower = np.maximum(near - 2, parity)
                errors, places = [], []
                for tried in (near, lower):
                    left = size - np.where(tried > 0, tried - half, 0)
                    errors.append(left * left)
                    places.append(own + np.minimum(tried, _NUM_MAGNITUDES - 1))
                for kind in kinds:
                    price, other = (
                        error + bits.reshape(-1)[place + kind * _NUM_MAGNITUDES]
                        for error, place in zip(errors, places, strict=True)
                    )
                    costs[2 * kind + parity, here] = np.minimum(price, other)
                    magnitudes[2 * kind + parity, here] = np.where(other < price, lower, near)
    return Candidates(costs, magnitudes)

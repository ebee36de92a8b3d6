"""The hexagonal lattice A2 as a `Coding`: pairs of coordinates, coded as those of E8 are, without a parity.

A pair is a *coset* (0: whole numbers, 1: halves) and two digits floor(p), the first in steps of 1.074 cell widths, the
second in steps of 1.859, so that a cell has the volume of one width a coordinate. What is expected of a second
coordinate is in its own steps, `LOG_RATIO` lower than its activity says; activity is in steps of the first. Each axis
has offsets of its own, because at equal rate the longer step rounds more to zero.
"""

from functools import cached_property
from typing import final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ..forecast import Layout
from . import activity as activities
from .activity import MAX_MAGNITUDE
from .coding import Search
from .errors import PacketError
from .lattice import cell_index, cell_width
from .lattice_contexts import (
    CONFIDENCE,
    DIGIT_CONTEXTS,
    LARGEST_DIGIT,
    SUMS,
    Integers,
    Port,
    Tables,
    corrected,
    folded,
    next_lean,
)
from .lattice_hexagonal import nearest_pairs
from .lattice_points import fit_offsets, num_offsets, reconstruct
from .scale_classes import MEAN_UNIT
from .symbol_coder import CoderState, Levels
from .symbols import MAX_DIRECT
from .tables import TOTAL
from .vector_coding import EXACT, Exchanger, PassByPass, Points, PointTrial, VectorCoding, VectorQuantiser

NAME = "A2"
SCALES = (275 / 256, 476 / 256)  # the steps, in cell widths
DIMENSION = 2
COSET = 2 * SUMS  # the context of a pair's coset
NUM_CONTEXTS = COSET + 1
LOG_RATIO = 13  # sixteenths of an octave: log2(1.731) is 12.7 of them
STEP_RATIO = 222  # of 128, the same as a fraction that integers hold
# Of Z's dead zone, in the pull of each axis.
BIAS_SHARES = (0.8, 0.27)
LEAST_BIAS, WIDEST_BIAS = 0.0, 0.45
# Of 256 pairs how many lie among the halves, for each class: only where a packet finds no counts.
HALVES = (
    *(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 6, 19, 38),
    *(60, 79, 94, 104, 112, 117, 120, 122, 124, 125, 126, 127, 127, 127, 127, 128, 128),
)


@final
class HexagonalCoding(VectorCoding):
    """The lattice A2.

    Args:
        layout: of the coded vector.
        dead_zone: the bias of `lattice_hexagonal.nearest_pairs`; `None` leaves it to the tables.
    """

    def __init__(self, layout: Layout, dead_zone: float | None) -> None:
        super().__init__(layout, NAME, DIMENSION, NUM_CONTEXTS, dead_zone)
        self.num_offsets = DIMENSION * num_offsets(NAME)

    @override
    def _quantiser(
        self, vectors: npt.NDArray[np.float32], levels: npt.NDArray[np.int32] | None, search: Search
    ) -> VectorQuantiser:
        return _NearestPairs(vectors, levels, self._bias(search))

    def _bias(self, search: Search) -> npt.NDArray[np.float32]:
        """Of each coordinate, `[vector, 2]`."""
        if self._dead_zone is not None:
            return np.full((self._num_vectors, DIMENSION), self._dead_zone, np.float32)
        zones = self._to_vectors(self._scalar.dead_zone(search.state, search.cell_index, search.levels))
        bias = zones * np.array(BIAS_SHARES, np.float32) + np.float32(LEAST_BIAS)
        return np.minimum(bias, np.float32(WIDEST_BIAS))

    @override
    def _tables(self, state: CoderState) -> Tables:
        return Tables(state.counts, folded_to_pairs)

    @override
    def _exchanger(self, port: Port) -> Exchanger:
        return PassByPass(port, exchange_pairs)

    @override
    def _expected(
        self, state: CoderState, cell_index: int, levels: Levels, first: npt.NDArray[np.int32] | None
    ) -> activities.Logs:
        logs = super()._expected(state, cell_index, levels, first)
        logs[self._seconds] -= LOG_RATIO
        return logs

    @cached_property
    def _seconds(self) -> npt.NDArray[np.intp]:
        """Places of the second coordinates of pairs."""
        places = [np.arange(part.span.start + 1, part.span.stop, DIMENSION) for part in self._geometry.parts]
        return np.concatenate(places) if places else np.zeros(0, np.intp)

    @override
    def _in_first_steps(self, magnitudes: Integers) -> Integers:
        magnitudes = magnitudes.copy()
        magnitudes[1::DIMENSION] = magnitudes[1::DIMENSION] * STEP_RATIO >> 7
        return magnitudes

    @override
    def _stand_for(self, points: Points, offsets: npt.NDArray[np.int8], cell_index: int) -> npt.NDArray[np.float32]:
        each = num_offsets(NAME)
        axes = [
            reconstruct(NAME, points[:, axis], offsets[each * axis : each * (axis + 1)], cell_index, SCALES[axis])
            for axis in range(DIMENSION)
        ]
        return np.stack(axes, axis=1)


def folded_to_pairs(census: Integers) -> Integers:
    """What a class's distribution of single integers says of each context.

    Args:
        census: tables, `[class, symbol]`.

    Returns:
        `[class, context, symbol]`, weights of no particular sum.
    """
    of_e8 = folded(census, 8)
    whole, halves = of_e8[:, :SUMS], of_e8[:, DIGIT_CONTEXTS : DIGIT_CONTEXTS + SUMS]
    cosets = np.zeros_like(of_e8[:, :1])
    shares = np.array(HALVES, np.int64)
    cosets[:, 0, MAX_DIRECT] = (256 - shares) * (TOTAL // 256)
    cosets[:, 0, MAX_DIRECT + 1] = shares * (TOTAL // 256)
    return np.concatenate([whole, halves, cosets], axis=1)


def exchange_pairs(port: Port, points: Points, classes: Integers, of_vectors: Integers) -> Points:
    """Pairs through a port: those given when writing, those of the packet when reading.

    Args:
        port: which end this is.
        points: `[pair, 2]`, doubled; any when reading.
        classes: of the coordinates, `[pair, 2]`.
        of_vectors: classes of the pairs, for the coset, `[pair]`.

    Returns:
        `[pair, 2]`, doubled.

    Raises:
        PacketError: if a coset is neither 0 nor 1, or a coordinate is too large.
    """
    coset = port.exchange(of_vectors * NUM_CONTEXTS + COSET, points[:, 0].astype(np.int64) & 1)
    if ((coset != 0) & (coset != 1)).any():
        raise PacketError(f"The packet is damaged: A2 has cosets 0 and 1, got {coset.min()} to {coset.max()}.")
    means = np.maximum(port.tables.census.means[classes], coset[:, None] * (MEAN_UNIT // 2))
    expected = CONFIDENCE + means.sum(axis=1) // DIMENSION
    found, shown = [], expected.copy()
    total, lean = np.zeros_like(coset), np.zeros_like(coset)
    for place in range(DIMENSION):
        turned = lean < 0  # then p is -p and floor(p) is -floor(p) - coset
        which = corrected(classes[:, place], shown, expected) * NUM_CONTEXTS + SUMS * coset + total
        digit = points[:, place].astype(np.int64) >> 1
        digit = port.exchange(which, np.where(turned, -digit - coset, digit))
        magnitude = np.where(digit < 0, -digit - coset, digit)
        digit = np.where(turned, -digit - coset, digit)
        if np.abs(digit).max(initial=0) > LARGEST_DIGIT:
            raise PacketError(f"The packet is damaged: a lattice coordinate beyond {LARGEST_DIGIT} steps.")
        found.append(2 * digit + coset)
        total = np.minimum(total + magnitude, SUMS - 1)
        lean = next_lean(lean, found[-1])
        expected = expected + means[:, place]
        shown += np.minimum(magnitude, MAX_MAGNITUDE) * MEAN_UNIT + coset * (MEAN_UNIT // 2)
    return np.stack(found, axis=1).astype(np.int32)


@final
class _NearestPairs(VectorQuantiser):
    """Args:
    vectors: `[vector, 2]`.
    levels: of the vectors, `[vector]`; `None` where all are 0.
    bias: of the coordinates, `[vector, 2]`.
    """

    def __init__(
        self, vectors: npt.NDArray[np.float32], levels: npt.NDArray[np.int32] | None, bias: npt.NDArray[np.float32]
    ) -> None:
        super().__init__(NAME, vectors, levels)
        self._bias = bias

    @override
    def _points(self, scaled: npt.NDArray[np.floating], index: int) -> Points:
        return nearest_pairs(scaled, self._bias)

    @override
    def _trial(self, index: int) -> PointTrial:
        width = cell_width(index)
        scaled = self._vectors / (width * np.array(SCALES))
        if self.largest < EXACT * width:
            scaled = scaled.astype(np.float32)
        points = self._points(scaled, index)
        offsets, error = [], 0.0
        for axis, scale in enumerate(SCALES):
            fit = fit_offsets(NAME, scaled[:, axis], points[:, axis])
            left = fit.error
            if self._levels is not None:
                steps = reconstruct(NAME, points[:, axis], fit.offsets, cell_index(1.0), 1.0)
                left = float(np.square(scaled[:, axis] - steps, dtype=np.float64) @ np.exp2(2.0 * self._levels))
            offsets.append(fit.offsets)
            error += left * (width * scale) ** 2
        return PointTrial(points, np.concatenate(offsets), error)

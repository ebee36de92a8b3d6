"""Entropy coding by predicted scale: each coordinate's table is chosen by how large its residual is expected to be.

A coordinate's class is the expected magnitude in cells, in half octaves. It is made from `activity` (what was decoded
before) and from what has already been decoded of *this* packet: symbols are sent in five passes over coordinates spread
evenly over all rows and columns, 1/16, 1/16, 1/8, 1/4 and 1/2 of them, and after each pass every tensor, row and column
has shown how much larger or smaller it is than expected. A batch whose examples leave a unit idle shows so in the
first pass over its row. Nothing is sent for any of this.

No table is per tensor: what tells tensors apart is their scale. Tables are a committed prior for each class, plus
decayed counts of what was decoded.

The idea of a table chosen by a class of decoded neighbours is that of context-based image coding (Wu and Memon 1997,
IEEE Trans. Communications 45:437); that the neighbours are the rows and columns of a weight matrix is ours.
"""

from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ..forecast import Layout
from . import activity as activities
from .activity import LOG_UNIT, MAGNITUDES
from .coefficients import Cost
from .lattice import WIDTHS_PER_OCTAVE, cell_width
from .passes import Geometry, Pass
from .symbol_coder import NO_VECTOR, CoderState, Levels, SymbolCoder, categorical, rounded, uniform
from .symbols import MAX_DIRECT, NUM_SYMBOLS, RAW_BITS
from .tables import COUNT_UNIT, TOTAL, as_tables

LOWEST_OCTAVE = -10  # of the mean magnitude, in cells, of the lowest class
NUM_CLASSES = 34
CLASSES_PER_OCTAVE = 2
FIRST_LOG = -3 * LOG_UNIT  # before anything was decoded, the encoder's choices expect an eighth of a cell
MEAN_UNIT = 1024  # of mean magnitudes, in cells
TENSOR_CONFIDENCE = 4 * MEAN_UNIT  # cells that must be expected of a tensor before it is trusted as much as all others
LINE_CONFIDENCE = MEAN_UNIT  # the same for a row or column against its tensor
PRIOR_SHIFT = 10  # a table's prior weighs as much as 2^22 / 2^10 / 16 = 256 symbols of the last packet
DECAY_SHIFT = 3  # counts decay by an eighth
COST_SHIFTS = (-6, -4, -2, -1, 0, 1, 2)  # classes
DEAD_ZONE_PER_BIT, LEAST_DEAD_ZONE, WIDEST_DEAD_ZONE = 0.043, 0.02, 0.8


@cache
def class_priors() -> npt.NDArray[np.int64]:
    """The committed tables, `[class, symbol]`, each summing to `TOTAL`."""
    tables = np.loadtxt(Path(__file__).with_name("class_tables.txt"), dtype=np.int64)
    tables.setflags(write=False)
    return tables


class ClassModel:
    """Tables of a packet and what they say a class's mean magnitude is."""

    def __init__(self, counts: npt.NDArray[np.int64]) -> None:
        self.tables = as_tables((counts << PRIOR_SHIFT) + class_priors())
        self.means = self.tables @ MAGNITUDES // (TOTAL // MEAN_UNIT)
        self._coding: dict[int, Any] = {}

    @cached_property
    def bits(self) -> npt.NDArray[np.float64]:
        """What each symbol takes, raw bits of an escape included, `[class, symbol]`."""
        return np.log2(float(TOTAL)) - np.log2(self.tables) + RAW_BITS

    def coding(self, which: int) -> Any:
        """constriction's model of one class."""
        if which not in self._coding:
            self._coding[which] = categorical(self.tables[which])
        return self._coding[which]


class Progress:
    """What the packet in hand has shown so far, pass by pass."""

    def __init__(self, geometry: Geometry, model: ClassModel, logs: npt.NDArray[np.int32]) -> None:
        self._geometry = geometry
        self._model = model
        self._logs = logs
        rows, columns = len(geometry.matrix_of_row), len(geometry.matrix_of_column)
        self._rows = np.zeros((2, rows), np.int64)  # what was expected, what was seen
        self._columns = np.zeros((2, columns), np.int64)

    def classes(self, places: Pass) -> npt.NDArray[np.uint8]:
        """The classes of a pass, `[place]`."""
        row_logs, column_logs = self._corrections()
        logs = self._logs[places.places]
        self._plain = class_of(logs)
        logs += row_logs[places.rows]
        logs += column_logs[places.columns]
        return class_of(logs)

    def see(self, places: Pass, seen: npt.NDArray[np.int64]) -> None:
        """Take in the magnitudes of the pass whose classes were asked last, in units of a cell's 1024th."""
        expected = self._model.means[self._plain]
        for sums, lines in ((self._rows, places.rows), (self._columns, places.columns)):
            # Sums of integers below 2^53, so that float64 holds them exactly in any order.
            sums[0] += np.bincount(lines, expected, sums.shape[1]).astype(np.int64)
            sums[1] += np.bincount(lines, seen, sums.shape[1]).astype(np.int64)

    def _corrections(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Logs to be added for each row, its tensor's included, and for each column."""
        matrix_of_row, matrix_of_column = self._geometry.matrix_of_row, self._geometry.matrix_of_column
        of_tensors = np.zeros((2, len(self._geometry.parts)), np.int64)
        np.add.at(of_tensors[0], matrix_of_row, self._rows[0])
        np.add.at(of_tensors[1], matrix_of_row, self._rows[1])
        expected, seen = of_tensors.sum(1) + TENSOR_CONFIDENCE
        tensors = (of_tensors[1] + TENSOR_CONFIDENCE * (seen / expected)) / (of_tensors[0] + TENSOR_CONFIDENCE)
        one = activities.log2(np.ones(1))[0]
        rows = _line_logs(self._rows, tensors[matrix_of_row]) + (activities.log2(tensors) - one)[matrix_of_row]
        return rows, _line_logs(self._columns, tensors[matrix_of_column])


def _line_logs(sums: npt.NDArray[np.int64], tensors: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """How much larger than its tensor's correction says each row or column is, as a log."""
    return activities.log2(sums[1] + LINE_CONFIDENCE) - activities.log2(sums[0] * tensors + LINE_CONFIDENCE)


def _dead_zones(tables: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """`[class]`, in cells."""
    ones = (tables[:, MAX_DIRECT + 1] + tables[:, MAX_DIRECT - 1]) / 2
    zones = DEAD_ZONE_PER_BIT * np.log2(tables[:, MAX_DIRECT] / ones) + LEAST_DEAD_ZONE
    return np.clip(zones, 0, WIDEST_DEAD_ZONE).astype(np.float32)


def class_of(logs: npt.NDArray[np.int32]) -> npt.NDArray[np.uint8]:
    """Classes of expected magnitudes, which are logs in cells."""
    shifted = (logs - LOWEST_OCTAVE * LOG_UNIT) // (LOG_UNIT // CLASSES_PER_OCTAVE)
    return np.clip(shifted, 0, NUM_CLASSES - 1).astype(np.uint8)


def log_of_class(which: int) -> int:
    """The middle of a class."""
    width = LOG_UNIT // CLASSES_PER_OCTAVE
    return LOWEST_OCTAVE * LOG_UNIT + int(which) * width + width // 2


@final
class ScaleClasses(SymbolCoder):
    """One table for each class of expected magnitude.

    A state may have more tables than that: these are the first ones, the others stay as they are.

    Args:
        layout: of the coded vector.
    """

    num_tables = NUM_CLASSES
    keeps_activity = True

    def __init__(self, layout: Layout) -> None:
        self._geometry = Geometry(layout)
        self._last_model: tuple[npt.NDArray[np.int64], ClassModel] | None = None
        self._last_logs: tuple[npt.NDArray[np.int32], int, npt.NDArray[np.int32]] | None = None

    @override
    def push(
        self, stack: Any, symbols: npt.NDArray[np.int32], state: CoderState, cell_index: int, levels: Levels
    ) -> CoderState:
        model = self._model(state)
        first = None if state.num_updates else self._first_classes(symbols)
        parts = [
            (members[np.argsort(classes, kind="stable")], np.bincount(classes, minlength=NUM_CLASSES))
            for _, members, classes in self._known_passes(symbols, state, cell_index, levels, first)
        ]
        seen = np.zeros((NUM_CLASSES, NUM_SYMBOLS), np.int64)
        for members, numbers in reversed(parts):
            stops = np.cumsum(numbers)
            for which in np.flatnonzero(numbers)[::-1]:
                some = members[stops[which] - numbers[which] : stops[which]]
                stack.encode_reverse(some, model.coding(int(which)))
                seen[which] += np.bincount(some, minlength=NUM_SYMBOLS)
        if first is not None and len(first):
            stack.encode_reverse(first, uniform(NUM_CLASSES))
        return self._after(state, symbols, seen, cell_index, levels)

    @override
    def pop(
        self, stack: Any, state: CoderState, cell_index: int, levels: Levels
    ) -> tuple[npt.NDArray[np.int32], CoderState]:
        model = self._model(state)
        first = None
        if not state.num_updates and len(self._geometry.parts):
            first = stack.decode(uniform(NUM_CLASSES), len(self._geometry.parts))
        progress = Progress(self._geometry, model, self.expected(state, cell_index, levels, first))
        symbols = np.full(self._geometry.size, MAX_DIRECT, np.int32)
        seen = np.zeros((NUM_CLASSES, NUM_SYMBOLS), np.int64)
        for places in self._geometry.coded_passes(levels):
            classes = progress.classes(places)
            order, numbers = np.argsort(classes, kind="stable"), np.bincount(classes, minlength=NUM_CLASSES)
            stops = np.cumsum(numbers)
            members = np.empty(len(classes), np.int32)
            for which in np.flatnonzero(numbers):
                some = stack.decode(model.coding(int(which)), int(numbers[which]))
                seen[which] += np.bincount(some, minlength=NUM_SYMBOLS)
                members[order[stops[which] - numbers[which] : stops[which]]] = some
            symbols[places.places] = members
            progress.see(places, MAGNITUDES[members] * MEAN_UNIT)
        return symbols, self._after(state, symbols, seen, cell_index, levels)

    def classes(
        self, symbols: npt.NDArray[np.int32], state: CoderState, cell_index: int, levels: Levels
    ) -> tuple[npt.NDArray[np.uint8], ClassModel]:
        """The class that each symbol is coded in, `[param]`, 0 where none is sent, and the classes' tables."""
        found = np.zeros(self._geometry.size, np.uint8)
        first = None if state.num_updates else self._first_classes(symbols)
        for places, _, classes in self._known_passes(symbols, state, cell_index, levels, first):
            found[places.places] = classes
        return found, self._model(state)

    @override
    def symbol_bits(
        self, symbols: npt.NDArray[np.int32], state: CoderState, cell_index: int, levels: Levels
    ) -> npt.NDArray[np.float64]:
        classes, model = self.classes(symbols, state, cell_index, levels)
        bits = model.bits[classes, symbols]
        for level, part in zip(levels, self._geometry.parts, strict=True):
            if level == NO_VECTOR:
                bits[part.span] = 0
        return bits

    @override
    def dead_zone(self, state: CoderState, cell_index: int, levels: Levels) -> npt.NDArray[np.float32]:
        """A magnitude of 1 is worth what it saves in error only if it takes few bits more than a 0 does.

        At the slope of a uniform quantiser at high rate (Gersho and Gray 1992, section 9.9) the threshold between them
        is 1/2 + ln 2 / 12 (bits of 1 - bits of 0); measured on four nets, three quarters of that is better at every
        NMSE from 0.5 to 0.01 and saves 3 to 5 % of the bits at 0.1 against one dead zone of 0.2 for all.
        """
        return _dead_zones(self._model(state).tables)[class_of(self.expected(state, cell_index, levels))]

    @override
    def cost(self, state: CoderState, cell_index: int, error_weight: float = 1.0) -> Cost:
        """By the tables of the expected classes, all shifted alike: how much a prediction leaves shows soon enough."""
        model = self._model(state)
        bits, zones = model.bits, _dead_zones(model.tables).astype(np.float64)
        classes = class_of(self.expected(state, cell_index)).astype(np.intp)
        width = cell_width(cell_index)
        shifted = [bits[np.clip(np.arange(NUM_CLASSES) + shift, 0, NUM_CLASSES - 1)] for shift in COST_SHIFTS]

        def price(places: npt.NDArray[np.intp], residual: npt.NDArray[np.float64]) -> float:
            own = classes[places]
            symbols, error = rounded(residual, width, zones[own])
            number = np.bincount(own * NUM_SYMBOLS + symbols, minlength=NUM_CLASSES * NUM_SYMBOLS)
            number = number.reshape(NUM_CLASSES, NUM_SYMBOLS)
            return min(float((number * table).sum()) for table in shifted) + error_weight * error

        return price

    def _known_passes(
        self,
        symbols: npt.NDArray[np.int32],
        state: CoderState,
        cell_index: int,
        levels: Levels,
        first: npt.NDArray[np.int32] | None,
    ) -> Iterator[tuple[Pass, npt.NDArray[np.int32], npt.NDArray[np.uint8]]]:
        """The passes of symbols that are known, each with its symbols and their classes."""
        progress = Progress(self._geometry, self._model(state), self.expected(state, cell_index, levels, first))
        for places in self._geometry.coded_passes(levels):
            members = symbols[places.places]
            classes = progress.classes(places)
            progress.see(places, MAGNITUDES[members] * MEAN_UNIT)
            yield places, members, classes

    def _first_classes(self, symbols: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """The class of each tensor's mean magnitude, which the first packet after a key frame tells, `[matrix]`."""
        means = [MAGNITUDES[symbols[part.span]].mean() for part in self._geometry.parts]
        logs = activities.log2(np.maximum(means, 2.0**LOWEST_OCTAVE)) - activities.log2(np.ones(1))
        return class_of(logs).astype(np.int32)

    def expected(
        self,
        state: CoderState,
        cell_index: int,
        levels: Levels | None = None,
        first: npt.NDArray[np.int32] | None = None,
    ) -> npt.NDArray[np.int32]:
        """Logs of the magnitudes that are expected before anything of a packet is known, in cells, `[param]`.

        Args:
            state: what both ends know.
            cell_index: of the packet's cell width.
            levels: of the matrices; all 0 if not given.
            first: classes of the matrices, where nothing else is known.
        """
        if state.num_updates:
            logs = self._activity_logs(state, cell_index) - activities.log_of_cell(cell_index)
            for part, level in zip(self._geometry.parts, () if levels is None else levels, strict=levels is not None):
                logs[part.span] -= LOG_UNIT * np.int32(level)
            return logs
        logs = np.full(self._geometry.size, FIRST_LOG, np.int32)
        if first is not None:
            for part, which in zip(self._geometry.parts, first, strict=True):
                logs[part.span] = log_of_class(which)
        return logs

    # An encoder asks three times for the same model and logs; arrays of a state are replaced, never written to.

    def _model(self, state: CoderState) -> ClassModel:
        if self._last_model is None or self._last_model[0] is not state.counts:
            self._last_model = state.counts, ClassModel(state.counts[:NUM_CLASSES])
        return self._last_model[1]

    def _activity_logs(self, state: CoderState, cell_index: int) -> npt.NDArray[np.int32]:
        octave = cell_index // WIDTHS_PER_OCTAVE
        if self._last_logs is None or self._last_logs[0] is not state.activity or self._last_logs[1] != octave:
            activity = activities.rescaled(state.activity, state.cell_index, cell_index)
            logs = activities.expected_logs(activity, state.num_updates, self._geometry.parts)
            self._last_logs = state.activity, octave, logs
        return self._last_logs[2]

    def _after(
        self,
        state: CoderState,
        symbols: npt.NDArray[np.int32],
        seen: npt.NDArray[np.int64],
        cell_index: int,
        levels: Levels,
    ) -> CoderState:
        """The state once a packet's symbols are known. Nothing is learned of a matrix that was left out."""
        before = activities.rescaled(state.activity, state.cell_index, cell_index)
        activity = np.empty_like(before)
        for level, part in zip(levels, self._geometry.parts, strict=True):
            own = before[part.span]
            activity[part.span] = (
                own
                if level == NO_VECTOR
                else activities.updated(own, symbols[part.span], state.num_updates, cell_index, int(level))
            )
        own = state.counts[:NUM_CLASSES]
        own = own - (own >> DECAY_SHIFT) + COUNT_UNIT * seen
        counts = np.concatenate([own, state.counts[NUM_CLASSES:]])
        return CoderState(counts, activity, state.num_updates + 1, cell_index)

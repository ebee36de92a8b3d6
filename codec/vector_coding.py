"""What codings of vectors have in common: several consecutive coordinates at a time, coded by predicted scale.

A vector is a few consecutive coordinates of a tensor, its last one filled up with zeros. Points are kept *doubled*, so
that halves are whole numbers. What a coordinate's magnitude is expected to be comes from activity and from five passes,
as in `ScaleClasses`, here over vectors instead of coordinates.

Activity is in steps, the unit of points.
"""

import abc
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ..forecast import Layout
from . import activity as activities
from .activity import MAX_ACTIVITY, MAX_MAGNITUDE, UNIT
from .coding import Quantised, Search, StackCoding
from .coefficients import Cost
from .lattice import WIDTHS_PER_OCTAVE, cell_index, cell_width, widest
from .lattice_contexts import Integers, Port, Reader, Tables, Writer
from .lattice_points import LARGEST_COORDINATE, cell_scale, fit_offsets, num_offsets, reconstruct
from .passes import Geometry, Pass
from .scale_classes import (
    DECAY_SHIFT,
    LOWEST_OCTAVE,
    MEAN_UNIT,
    NUM_CLASSES,
    Progress,
    ScaleClasses,
    class_of,
)
from .symbol_coder import NO_VECTOR, CoderState, Levels, uniform

EXACT = 4096  # steps up to which float32 does for the search

Points = npt.NDArray[np.int32]  # [vector, dimension], doubled


class Members(NamedTuple):
    """A pass as vectors.

    Attributes:
        vectors: their numbers, `[vector]`.
        begins: where among the pass's coordinates each begins, `[vector]`.
        numbers: of coordinates that it has there, the others fill it up, `[vector]`.
        slots: place of each of the pass's coordinates among those of its vectors, `[place]`.
    """

    vectors: npt.NDArray[np.int64]
    begins: npt.NDArray[np.intp]
    numbers: npt.NDArray[np.intp]
    slots: npt.NDArray[np.int64]


class VectorQuantiser(abc.ABC):
    """Points and errors at any width. The encoder's side only: its result is sent.

    Args:
        name: of the lattice.
        vectors: `[vector, dimension]`, divided by 2^level.
        levels: of the vectors, `[vector]`; `None` where all are 0.
    """

    def __init__(self, name: str, vectors: npt.NDArray[np.float32], levels: npt.NDArray[np.int32] | None) -> None:
        self._name = name
        self._vectors = vectors
        self._levels = levels
        self.largest = float(np.abs(vectors).max(initial=0.0))

    @abc.abstractmethod
    def _points(self, scaled: npt.NDArray[np.floating], index: int) -> Points:
        """Points for vectors in steps of a cell index."""

    def at(self, index: int) -> Quantised[Points]:
        """The points at a cell width."""
        return self._quantised(index, self._trial(index))

    def widest(self, bound: float, start: int, finest: int, coarsest: int) -> Quantised[Points] | None:
        """The points at the widest cells that keep a squared error, as `lattice.widest` finds them."""
        best: PointTrial | None = None

        def error_at(index: int) -> float:
            nonlocal best
            trial = self._trial(index)
            if trial.error <= bound:  # wider than the one before it, or it would not have been tried
                best = trial
            return trial.error

        found = widest(error_at, bound, start, finest, coarsest)
        return None if found is None or best is None else self._quantised(found, best)

    def _quantised(self, index: int, trial: "PointTrial") -> Quantised[Points]:
        return Quantised(index, trial.offsets, trial.points)

    def _trial(self, index: int) -> "PointTrial":
        step = cell_width(index) * cell_scale(self._name)
        scaled = self._vectors.astype(np.float64) / step
        if self.largest < EXACT * step:
            scaled = scaled.astype(np.float32)
        points = self._points(scaled, index)
        offsets, error = fit_offsets(self._name, scaled, points)
        if self._levels is not None:
            steps = reconstruct(self._name, points, offsets, cell_index(1.0)) / np.float32(cell_scale(self._name))
            left = (scaled - steps).astype(np.float64)
            error = float(np.einsum("vd,vd,v->", left, left, np.exp2(2 * self._levels)))
        return PointTrial(points, offsets, error * step * step)


class PointTrial(NamedTuple):
    """What one cell width gives."""

    points: Points
    offsets: npt.NDArray[np.int8]
    error: float


class VectorCoding(StackCoding[Points]):
    """A coding of vectors of consecutive coordinates.

    Args:
        layout: of the coded vector.
        name: of the lattice.
        dimension: coordinates of a vector.
        num_contexts: tables of each class, beside its census.
        dead_zone: the pull towards zero that the configuration names; `None` leaves it to the tables.
    """

    keeps_activity = True

    def __init__(self, layout: Layout, name: str, dimension: int, num_contexts: int, dead_zone: float | None) -> None:
        self.name = name
        self._size = dimension
        self._dead_zone = dead_zone
        self._geometry = Geometry(layout, dimension)
        self._scalar = ScaleClasses(layout)
        self.num_offsets = num_offsets(name)
        self.num_tables = NUM_CLASSES * (1 + num_contexts)  # a census and contexts for each class
        parts = self._geometry.parts
        lengths = [part.num_rows * part.num_columns for part in parts]
        self._numbers = np.array([-(-length // dimension) for length in lengths], np.int64)  # vectors of each matrix
        firsts = np.cumsum(self._numbers) - self._numbers
        starts = np.array([part.span.start for part in parts], np.int64)
        self._shifts = firsts * dimension - starts  # from a coordinate's place in the layout to that among vectors
        self._spans = [
            slice(start, start + length) for start, length in zip((firsts * dimension).tolist(), lengths, strict=True)
        ]  # of the matrices among the vectors' coordinates
        self._num_vectors = int(self._numbers.sum())

    @abc.abstractmethod
    def _quantiser(
        self, vectors: npt.NDArray[np.float32], levels: npt.NDArray[np.int32] | None, search: Search
    ) -> VectorQuantiser:
        """The quantiser of vectors that are divided by 2^level."""

    @abc.abstractmethod
    def _tables(self, state: CoderState) -> Tables:
        """The tables of a packet."""

    @abc.abstractmethod
    def _exchanger(self, port: Port) -> "Exchanger":
        """What carries the points of one packet through a port."""

    # What a lattice overrides whose steps are not equally long in all coordinates of a vector.

    def _expected(
        self, state: CoderState, cell_index: int, levels: Levels, first: npt.NDArray[np.int32] | None
    ) -> activities.Logs:
        """Logs of the magnitudes that are expected, in each coordinate's own steps, `[param]`."""
        return self._scalar.expected(state, cell_index, levels, first)

    def _in_first_steps(self, magnitudes: Integers) -> Integers:
        """Magnitudes in own steps, of a matrix or of all vectors, as magnitudes in steps of the first coordinates."""
        return magnitudes

    def _stand_for(self, points: Points, offsets: npt.NDArray[np.int8], cell_index: int) -> npt.NDArray[np.float32]:
        """Vectors that points stand for, `[vector, dimension]`."""
        return reconstruct(self.name, points, offsets, cell_index)

    def _to_vectors(self, values: npt.NDArray) -> npt.NDArray:
        """`[param]` as `[vector, dimension]`, zeros where a tensor ends."""
        flat = np.zeros(self._num_vectors * self._size, values.dtype)
        for part, span in zip(self._geometry.parts, self._spans, strict=True):
            flat[span] = values[part.span]
        return flat.reshape(-1, self._size)

    def _of_vectors(self, levels: Levels) -> npt.NDArray[np.int32]:
        """Levels of the vectors, `[vector]`."""
        return np.repeat(levels, self._numbers).astype(np.int32)

    # --- quantising

    @override
    def quantise(self, search: Search) -> Quantised[Points] | None:
        vectors = self._to_vectors(search.residual)
        if not search.fixed and search.energy <= search.bound:
            points = np.zeros(vectors.shape, np.int32)
            return Quantised(search.cell_index, np.zeros(self.num_offsets, np.int8), points)
        levels = self._of_vectors(search.levels) if search.levels.any() else None
        if levels is not None:
            vectors = np.ldexp(vectors, -levels[:, None])
        quantiser = self._quantiser(vectors, levels, search)
        finest = cell_index(max(quantiser.largest / (LARGEST_COORDINATE * cell_scale(self.name)), 5e-324)) + 1
        if search.fixed:
            return quantiser.at(search.cell_index) if search.cell_index >= finest else None
        if search.bound <= 0:
            return None
        coarsest = cell_index(max(quantiser.largest * 8, 5e-324))
        return quantiser.widest(search.bound, search.cell_index, finest, coarsest)

    @override
    def cost(self, state: CoderState, cell_index: int, error_weight: float = 1.0) -> Cost:
        """That of Z with the census for tables: what differs is nearly the same for every prediction."""
        return self._scalar.cost(state, cell_index, error_weight)

    @override
    def reconstruct(
        self, points: Points, offsets: npt.NDArray[np.int8], cell_index: int, levels: Levels
    ) -> npt.NDArray[np.float32]:
        vectors = self._stand_for(points, offsets, cell_index)
        if levels.any():
            with np.errstate(over="ignore"):
                vectors = np.ldexp(vectors, self._of_vectors(levels)[:, None])
        flat = vectors.reshape(-1)
        residual = np.empty(self._geometry.size, np.float32)
        for part, span in zip(self._geometry.parts, self._spans, strict=True):
            residual[part.span] = flat[span]
        return residual

    # --- coding

    @override
    def push(self, stack: Any, points: Points, state: CoderState, cell_index: int, levels: Levels) -> CoderState:
        first = None if state.num_updates else self._first_classes(points)
        writer = Writer(self._tables(state))
        self._walk(writer, points, self._expected(state, cell_index, levels, first), levels)
        writer.flush(stack)
        if first is not None and len(first):
            stack.encode_reverse(first, uniform(NUM_CLASSES))
        return self._after(state, points, writer.tables.seen(), cell_index, levels)

    @override
    def pop(self, stack: Any, state: CoderState, cell_index: int, levels: Levels) -> tuple[Points, CoderState]:
        first = None
        if not state.num_updates and len(self._numbers):
            first = stack.decode(uniform(NUM_CLASSES), len(self._numbers))
        reader = Reader(self._tables(state), stack)
        points = np.zeros((self._num_vectors, self._size), np.int32)
        points = self._walk(reader, points, self._expected(state, cell_index, levels, first), levels)
        return points, self._after(state, points, reader.tables.seen(), cell_index, levels)

    def _walk(self, port: Port, points: Points, logs: activities.Logs, levels: Levels) -> Points:
        """All points through a port, pass by pass."""
        points = points.copy()
        progress = Progress(self._geometry, port.tables.census, logs)
        exchanger = self._exchanger(port)
        for part, members in self._coded_members(levels):
            own = progress.classes(part)
            classes = np.zeros(len(members.vectors) * self._size, np.int64)  # of what fills up a vector: the lowest
            classes[members.slots] = own
            of_vectors = np.add.reduceat(own.astype(np.int64), members.begins) // members.numbers
            found = exchanger.exchange(
                points[members.vectors], classes.reshape(-1, self._size), of_vectors, members.numbers
            )
            points[members.vectors] = found
            doubled = found.reshape(-1)[members.slots].astype(np.int64)
            port.tables.see_points(own, doubled)
            progress.see(part, np.minimum(np.abs(doubled), 2 * MAX_MAGNITUDE) * (MEAN_UNIT // 2))
        return points

    def _coded_members(self, levels: Levels) -> Iterator[tuple[Pass, Members]]:
        """The passes that are not empty, as coordinates and as vectors."""
        for part in self._geometry.coded_passes(levels):
            if len(part.places):
                yield part, self._members(part)

    def _members(self, part: Pass) -> Members:
        places = part.places + self._shifts[self._geometry.matrix_of_row[part.rows]]
        vectors = places // self._size
        begins = np.flatnonzero(np.diff(vectors, prepend=-1))
        numbers = np.diff(begins, append=len(vectors))
        slots = np.repeat(np.arange(len(begins)), numbers) * self._size + places % self._size
        return Members(vectors[begins], begins, numbers, slots)

    def _first_classes(self, points: Points) -> npt.NDArray[np.int32]:
        """The class of each tensor's mean magnitude, which the first packet after a key frame tells, `[matrix]`."""
        magnitudes = np.minimum(np.abs(points.reshape(-1)), 2 * MAX_MAGNITUDE).astype(np.int64)
        magnitudes = self._in_first_steps(UNIT * magnitudes)
        means = [magnitudes[span].mean() / (2 * UNIT) for span in self._spans]
        logs = activities.log2(np.maximum(means, 2.0**LOWEST_OCTAVE)) - activities.log2(np.ones(1))
        return class_of(logs).astype(np.int32)

    def _after(
        self,
        state: CoderState,
        points: Points,
        seen: npt.NDArray[np.int64],
        cell_index: int,
        levels: Levels,
    ) -> CoderState:
        """The state once a packet's points are known. Nothing is learned of a matrix that was left out."""
        activity = activities.rescaled(state.activity, state.cell_index, cell_index).copy()
        flat = points.reshape(-1)
        half = UNIT // 2 * (WIDTHS_PER_OCTAVE + cell_index % WIDTHS_PER_OCTAVE)  # activity of half a step
        for level, part, span in zip(levels, self._geometry.parts, self._spans, strict=True):
            if level != NO_VECTOR:
                doubled = np.minimum(np.abs(flat[span]), 2 * MAX_MAGNITUDE).astype(np.int64)
                shown = self._in_first_steps(doubled * (half << int(level)))
                shown = np.minimum(shown, MAX_ACTIVITY).astype(np.int32)
                activity[part.span] = activities.approached(activity[part.span], shown, state.num_updates)
        counts = state.counts - (state.counts >> DECAY_SHIFT) + seen
        return CoderState(counts, activity, state.num_updates + 1, cell_index)


class Exchanger(abc.ABC):
    """Carries the points of one packet through a port, pass by pass."""

    @abc.abstractmethod
    def exchange(
        self, points: Points, classes: Integers, of_vectors: Integers, numbers: npt.NDArray[np.integer]
    ) -> Points:
        """The points of a pass: those given when writing, those of the packet when reading.

        Args:
            points: `[vector, dimension]`, doubled; any when reading.
            classes: of the coordinates, `[vector, dimension]`.
            of_vectors: classes of the vectors, `[vector]`.
            numbers: how many coordinates of each vector stand for something, `[vector]`.

        Raises:
            PacketError: if no point could have been meant.
        """


@final
class PassByPass(Exchanger):
    """Carries points whose coding remembers nothing from pass to pass.

    Args:
        port: which end this is.
        exchange: carries points of classes of coordinates and of vectors through the port.
    """

    def __init__(self, port: Port, exchange: Callable[[Port, Points, Integers, Integers], Points]) -> None:
        self._port = port
        self._exchange = exchange

    @override
    def exchange(
        self, points: Points, classes: Integers, of_vectors: Integers, numbers: npt.NDArray[np.integer]
    ) -> Points:
        return self._exchange(self._port, points, classes, of_vectors)

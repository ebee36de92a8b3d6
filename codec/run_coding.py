"""The fast coding: values that are not zero, and how many zeros lie between them.

At half a bit a coordinate about one coordinate in fourteen is not zero. Its distance from the last one and its value
are two symbols, so that the entropy coder has a seventh of the work, and what is zero is not touched again once it has
been compared with the edge of its cell. With a table of distances for each tensor this takes about as many bits as
coding every coordinate with a table for each tensor: runs of independent zeros are geometric. It knows nothing of the
scales within a tensor, which `scale_classes` lives on.

A distance below 8 is a symbol by itself; a larger one is its octave and the bit below its leading one, and the bits
that are left as they are.
"""

from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ..forecast import Layout
from .activity import matrices, of_coordinates
from .coding import Quantised, Search, StackCoding
from .coefficients import Cost
from .decoded import Sparse, dense
from .errors import PacketError
from .given_cells import round_to_cells
from .groups import Groups
from .lattice import NUM_OFFSETS, Quantiser, point
from .symbol_coder import CoderState, Levels, categorical, pop_bytes, push_bytes, uniform
from .symbols import (
    MAX_DIRECT,
    NUM_DIRECT,
    NUM_SYMBOLS,
    RAW_BITS,
    escape_bits,
    num_escape_bits,
    read_escapes,
    to_symbols,
)
from .tables import TOTAL, as_table, updated_counts
from .tensor_tables import DEAD_ZONE, entropy_cost

_NUM_SHORT = 8
_OCTAVES = np.repeat(np.arange(3, 28), 2)
_HALVES = np.tile([0, 1], 25)
# The least distance of each symbol, and how many bits tell the rest. The last two are whole octaves.
BASES = np.concatenate([np.arange(_NUM_SHORT), (2 + _HALVES) << (_OCTAVES - 1), 1 << np.array([28, 29])])
EXTRA_BITS = np.concatenate([np.zeros(_NUM_SHORT, np.intp), _OCTAVES - 1, [28, 29]])
_NUM_LOOKED_UP = 256
_WORD = 16  # bits that go onto the stack at once, as they are
TOO_MANY = "The packet is damaged: it has more values than coordinates."
HAS_ZERO = "The packet is damaged: it has a value of 0."
BEYOND = "The packet is damaged: a value lies beyond its tensor."

# What counts begin with: distances as if one coordinate in eight were not zero, values halved at each step.
_DISTANCE_PRIOR = 1 + (2.0**EXTRA_BITS * 2**12 / (BASES + 8) ** 2).astype(np.int64)
_MAGNITUDES = np.concatenate([np.abs(np.arange(NUM_DIRECT) - MAX_DIRECT), np.arange(8, 8 + NUM_SYMBOLS - NUM_DIRECT)])
_VALUE_PRIOR = 1 + (2**8 >> np.minimum(_MAGNITUDES, 8))
_VALUE_PRIOR[MAX_DIRECT] = 0  # a value of 0 is never sent
PRIORS = np.stack([_DISTANCE_PRIOR, _VALUE_PRIOR])


class Runs(NamedTuple):
    """What is not zero.

    Attributes:
        places: `[value]`, increasing as the quantiser finds them; group by group as `pop` gives them.
        values: int32 `[value]`, none of them 0.
    """

    places: npt.NDArray[np.intp]
    values: npt.NDArray[np.int32]


@final
class RunCoding(StackCoding[Runs]):
    """Z, with a table of distances and one of values for each large tensor; see `Groups`.

    Args:
        layout: of the coded vector.
        dead_zone: of the quantiser; `None` for 0.2.

    Attributes:
        dead_zone: of the quantiser.
    """

    num_offsets = NUM_OFFSETS
    keeps_activity = False

    def __init__(self, layout: Layout, dead_zone: float | None) -> None:
        self._size = layout.size
        self._parts = matrices(layout)
        self._groups = Groups(layout)
        self.dead_zone = DEAD_ZONE if dead_zone is None else dead_zone
        self.num_tables = 2 * len(self._groups)

    @override
    def quantise(self, search: Search) -> Quantised[Runs] | None:
        levels = of_coordinates(search.levels, self._parts)
        if search.fixed and levels is None:
            found = round_to_cells(search.residual, self.dead_zone, search.energy, search.cell_index)
            if found is None:
                return None
            return Quantised(
                search.cell_index, found.trial.offsets, Runs(found.places, found.values), found.trial.error
            )
        quantiser = Quantiser(search.residual, self.dead_zone, levels, search.energy)
        trial = search.trial(quantiser)
        if trial is None:
            return None
        return Quantised(trial.cell_index, trial.offsets, Runs(*quantiser.nonzero(trial)), trial.error)

    @override
    def cost(self, state: CoderState, cell_index: int, error_weight: float = 1.0) -> Cost:
        return entropy_cost(cell_index, error_weight)

    @override
    def push(self, stack: Any, points: Runs, state: CoderState, cell_index: int, levels: Levels) -> CoderState:
        members = [self._in_group(points, group) for group in range(len(self._groups))]
        numbers = np.array([len(places) for places, _ in members], np.int64)
        distances = [np.diff(places, prepend=-1) - 1 for places, _ in members]
        distance_symbols = [_symbols_of(found) for found in distances]
        coded = [to_symbols(values) for _, values in members]
        push_bytes(stack, np.packbits(escape_bits(np.concatenate([np.zeros(0, np.int64), *(far for _, far in coded)]))))
        seen = np.zeros((self.num_tables, NUM_SYMBOLS), np.int64)
        for group in reversed(range(len(members))):
            self._push_symbols(stack, coded[group][0], 2 * group + 1, state, seen)
        every = np.concatenate([np.zeros(0, np.int32), *distance_symbols])
        every_distance = np.concatenate([np.zeros(0, np.int64), *distances])
        for width, here in reversed(_by_width(every)):
            _push_numbers(stack, every_distance[here] - BASES[every[here]], width)
        for group in reversed(range(len(members))):
            self._push_symbols(stack, distance_symbols[group], 2 * group, state, seen)
        _push_numbers(stack, numbers, 2 * _WORD)
        return CoderState(updated_counts(state.counts, seen), state.activity, state.num_updates + 1, cell_index)

    @override
    def pop(self, stack: Any, state: CoderState, cell_index: int, levels: Levels) -> tuple[Runs, CoderState]:
        numbers = _pop_numbers(stack, len(self._groups), 2 * _WORD)
        if (numbers > np.array(self._groups.sizes, np.int64)).any():
            raise PacketError(TOO_MANY)
        seen = np.zeros((self.num_tables, NUM_SYMBOLS), np.int64)
        symbols = [
            self._pop_symbols(stack, int(number), 2 * group, state, seen) for group, number in enumerate(numbers)
        ]
        every = np.concatenate([np.zeros(0, np.int32), *symbols])
        distances = BASES[every].astype(np.int64)
        for width, here in _by_width(every):
            distances[here] += _pop_numbers(stack, len(here), width)
        coded = [
            self._pop_symbols(stack, int(number), 2 * group + 1, state, seen) for group, number in enumerate(numbers)
        ]
        values = np.concatenate([np.zeros(0, np.int32), *coded]) - np.int32(MAX_DIRECT)
        far = values > MAX_DIRECT
        escapes = values[far] + np.int32(MAX_DIRECT)
        values[far] = read_escapes(escapes, pop_bytes(stack, (num_escape_bits(escapes) + 7) // 8))
        if (values == 0).any():
            raise PacketError(HAS_ZERO)
        points = self._from_groups(np.split(distances, np.cumsum(numbers)[:-1]), values)
        return points, CoderState(updated_counts(state.counts, seen), state.activity, state.num_updates + 1, cell_index)

    @override
    def reconstruct(
        self, points: Runs, offsets: npt.NDArray[np.int8], cell_index: int, levels: Levels
    ) -> npt.NDArray[np.float32]:
        return dense(self.nonzero(points, offsets, cell_index, levels))

    @override
    def nonzero(self, points: Runs, offsets: npt.NDArray[np.int8], cell_index: int, levels: Levels) -> Sparse:
        with np.errstate(over="ignore"):
            values = _points_of(points.values, offsets, cell_index)
            wider = of_coordinates(levels, self._parts)
            if wider is not None:
                values = np.ldexp(values, wider[points.places].astype(np.int32))
        return Sparse(points.places, values, self._size)

    @override
    def ideal_bits(self, points: Runs, state: CoderState, cell_index: int, levels: Levels) -> npt.NDArray[np.float64]:
        bits = np.zeros(len(points.values))
        for group, spans in enumerate(self._groups.spans):
            places, values = self._in_group(points, group)
            distances = _symbols_of(np.diff(places, prepend=-1) - 1)
            symbols = to_symbols(values)[0]
            found = self._costs(state, 2 * group)[distances] + EXTRA_BITS[distances]
            found += self._costs(state, 2 * group + 1)[symbols] + RAW_BITS[symbols]
            inside = [np.searchsorted(points.places, [span.start, span.stop]) for span in spans]
            bits[np.concatenate([np.arange(*ends) for ends in inside])] = found
        starts = np.searchsorted(points.places, [part.span.start for part in self._parts])
        sums = np.concatenate([[0.0], np.cumsum(bits)])
        return np.diff(sums[np.append(starts, len(bits))])

    def _costs(self, state: CoderState, table: int) -> npt.NDArray[np.float64]:
        """Bits of each symbol."""
        return np.log2(float(TOTAL)) - np.log2(self._table(state, table))

    def _in_group(self, points: Runs, group: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
        """Places within a group, and values."""
        places, values, before = [], [], 0
        for span in self._groups.spans[group]:
            low, high = np.searchsorted(points.places, [span.start, span.stop])
            places.append(points.places[low:high] - (span.start - before))
            values.append(points.values[low:high])
            before += span.stop - span.start
        return (places[0], values[0]) if len(places) == 1 else (np.concatenate(places), np.concatenate(values))

    def _from_groups(self, distances: list[npt.NDArray[np.int64]], values: npt.NDArray[np.int32]) -> Runs:
        """The inverse of `_in_group`, of all groups."""
        found = []
        for group, some in enumerate(distances if len(self._groups) else []):
            inside = np.cumsum(some + 1) - 1
            if len(inside) and not 0 <= inside[-1] < self._groups.sizes[group]:
                raise PacketError(BEYOND)
            places = np.empty_like(inside)
            before = 0
            for span in self._groups.spans[group]:
                after = before + span.stop - span.start
                low, high = np.searchsorted(inside, [before, after])
                places[low:high] = inside[low:high] + (span.start - before)
                before = after
            found.append(places)
        return Runs(np.concatenate([np.zeros(0, np.int64), *found]), values)

    def _table(self, state: CoderState, table: int) -> npt.NDArray[np.int64]:
        return as_table(state.counts[table] + PRIORS[table % 2])

    def _model(self, state: CoderState, table: int) -> Any:
        return categorical(self._table(state, table))

    def _push_symbols(
        self, stack: Any, symbols: npt.NDArray[np.int32], table: int, state: CoderState, seen: npt.NDArray[np.int64]
    ) -> None:
        if len(symbols):
            stack.encode_reverse(symbols, self._model(state, table))
            seen[table] = np.bincount(symbols, minlength=NUM_SYMBOLS)

    def _pop_symbols(
        self, stack: Any, number: int, table: int, state: CoderState, seen: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int32]:
        if not number:
            return np.zeros(0, np.int32)
        symbols = stack.decode(self._model(state, table), number)
        seen[table] = np.bincount(symbols, minlength=NUM_SYMBOLS)
        return symbols


def _points_of(
    values: npt.NDArray[np.int32], offsets: npt.NDArray[np.int8], cell_index: int
) -> npt.NDArray[np.float32]:
    """What integers stand for, looked up where they are small."""
    if values.min(initial=0) < -_NUM_LOOKED_UP or values.max(initial=0) > _NUM_LOOKED_UP:
        return point(values.astype(np.int64), offsets, cell_index)
    return point(np.arange(-_NUM_LOOKED_UP, _NUM_LOOKED_UP + 1), offsets, cell_index).take(values + _NUM_LOOKED_UP)


def _by_width(symbols: npt.NDArray[np.int32]) -> list[tuple[int, npt.NDArray[np.intp]]]:
    """The places of symbols with extra bits, for each number of bits that occurs, ascending."""
    far = np.flatnonzero(symbols >= _NUM_SHORT)
    widths = EXTRA_BITS[symbols[far]]
    occurring = np.flatnonzero(np.bincount(widths))
    return [(width, far[widths == width]) for width in occurring.tolist()]


def _symbols_of(distances: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """The symbol of each distance, below 2^30."""
    symbols = distances.astype(np.int32)
    far = np.flatnonzero(symbols >= _NUM_SHORT)
    symbols[far] = np.searchsorted(BASES, symbols[far], side="right") - 1
    return symbols


def _push_numbers(stack: Any, numbers: npt.NDArray[np.int64], width: int) -> None:
    """Numbers of `width` bits as they are."""
    if len(numbers):
        low = min(width, _WORD)
        if width > low:
            stack.encode_reverse((numbers >> low).astype(np.int32), uniform(1 << width - low))
        stack.encode_reverse((numbers & (1 << low) - 1).astype(np.int32), uniform(1 << low))


def _pop_numbers(stack: Any, number: int, width: int) -> npt.NDArray[np.int64]:
    """The inverse of `_push_numbers`."""
    if not number:
        return np.zeros(0, np.int64)
    low = min(width, _WORD)
    numbers = stack.decode(uniform(1 << low), number).astype(np.int64)
    if width > low:
        numbers |= stack.decode(uniform(1 << width - low), number).astype(np.int64) << low
    return numbers

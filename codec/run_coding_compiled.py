"""The fast coding, compiled: the packets of `run_coding`, byte for byte, in a fraction of the time."""

from typing import final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ..forecast import Layout
from . import run_kernels as kernels
from .coding import TOO_LONG, Coding, Quantised, Search
from .coefficients import Cost
from .decoded import Sparse
from .errors import PacketError
from .given_cells import Sums, finished, lift, lowest_kept
from .groups import Groups
from .lattice import LARGEST_VALUE, NUM_OFFSETS, cell_width
from .run_coding import BASES, BEYOND, EXTRA_BITS, HAS_ZERO, PRIORS, TOO_MANY, RunCoding, Runs
from .symbol_coder import CoderState, Levels, words_from_bytes, words_to_bytes
from .symbols import MAX_DIRECT, NUM_DIRECT, NUM_SYMBOLS, escape_bits, num_escape_bits, read_escapes
from .tables import TOTAL, as_tables, updated_counts

_PRECISION = 2**24  # of the fractions that counts become
_WORDS_A_VALUE = 3  # at most: two symbols of 24 bits and 29 bits of a distance are 77

_NEAR = (np.searchsorted(BASES, np.arange(1024), side="right") - 1).astype(np.uint8)  # symbols of short distances


@final
class CompiledRunCoding(Coding[Runs]):
    """`RunCoding` with its loops as machine code.

    Args:
        layout: of the coded vector.
        dead_zone: of the quantiser; `None` for 0.2.
    """

    num_offsets = NUM_OFFSETS
    keeps_activity = False

    def __init__(self, layout: Layout, dead_zone: float | None) -> None:
        self._plain = RunCoding(layout, dead_zone)
        self.num_tables = self._plain.num_tables
        groups = Groups(layout)
        self._sizes = np.array(groups.sizes, np.int64)
        found = []
        for group, spans in enumerate(groups.spans):
            before = 0
            for span in spans:
                found.append((span.start, span.stop, group, before))
                before += span.stop - span.start
        self._pieces = np.array(sorted(found), np.int64).reshape(-1, 4)

    @override
    def quantise(self, search: Search) -> Quantised[Runs] | None:
        if not search.fixed or search.levels.any():
            return self._plain.quantise(search)
        dead_zone, width = self._plain.dead_zone, cell_width(search.cell_index)
        lowest = lowest_kept(dead_zone, width)
        found = kernels.rounded(search.residual, lowest, width, lift(dead_zone), LARGEST_VALUE)
        places, values, number, total, square, energy, fits = found
        if not fits:
            return None
        sums = Sums(number, total, square, energy)
        trial, places, values = finished(places, values, sums, search.energy, search.cell_index)
        return Quantised(trial.cell_index, trial.offsets, Runs(places, values), trial.error)

    @override
    def write(self, points: Runs, state: CoderState, cell_index: int, levels: Levels) -> tuple[bytes, CoderState]:
        seen = np.zeros((self.num_tables, NUM_SYMBOLS), np.int64)
        numbers = np.zeros(len(self._sizes), np.int64)
        symbols, left, coded, escaped = kernels.arranged(
            points.places, points.values, self._pieces, _NEAR, BASES, numbers, seen
        )
        escapes = np.packbits(escape_bits(escaped))
        room = np.empty(_WORDS_A_VALUE * len(coded) + len(escapes) // 4 + len(numbers) + 4, np.uint32)
        length = kernels.pushed(room, escapes, numbers, symbols, left, coded, self._starts(state), EXTRA_BITS)
        return words_to_bytes(room[:length]), self._after(state, seen, cell_index)

    @override
    def read(self, data: bytes, state: CoderState, cell_index: int, levels: Levels) -> tuple[Runs, CoderState]:
        words = words_from_bytes(data)
        head = kernels.opened(words)
        numbers = kernels.popped_numbers(words, head, len(self._sizes), 32)
        if (numbers > self._sizes).any():
            raise PacketError(TOO_MANY)
        seen = np.zeros((self.num_tables, NUM_SYMBOLS), np.int64)
        distances, coded = kernels.popped(words, head, numbers, self._starts(state), EXTRA_BITS, BASES, seen)
        values = coded.astype(np.int32) - np.int32(MAX_DIRECT)
        far = np.flatnonzero(coded >= NUM_DIRECT)
        escapes = coded[far].astype(np.int32)
        behind = kernels.popped_numbers(words, head, (num_escape_bits(escapes) + 7) // 8, 8)
        values[far] = read_escapes(escapes, behind.astype(np.uint8))
        if (coded == MAX_DIRECT).any():
            raise PacketError(HAS_ZERO)
        places, inside = kernels.placed(distances, numbers, self._pieces, self._sizes)
        if not inside:
            raise PacketError(BEYOND)
        if head.any():
            raise PacketError(TOO_LONG)
        return Runs(places, values), self._after(state, seen, cell_index)

    def _starts(self, state: CoderState) -> npt.NDArray[np.uint32]:
        """Cumulative shares of 2^24, `[table, symbol + 1]`, as constriction makes them of the tables."""
        before = np.zeros((self.num_tables, NUM_SYMBOLS + 1), np.int64)
        if self.num_tables:
            tables = as_tables(state.counts[: self.num_tables] + np.tile(PRIORS, (len(self._sizes), 1)))
            np.cumsum(tables, axis=1, out=before[:, 1:])
        starts = before * (_PRECISION - NUM_SYMBOLS) // TOTAL + np.arange(NUM_SYMBOLS + 1)
        starts[:, -1] = _PRECISION
        return starts.astype(np.uint32)

    @staticmethod
    def _after(state: CoderState, seen: npt.NDArray[np.int64], cell_index: int) -> CoderState:
        return CoderState(updated_counts(state.counts, seen), state.activity, state.num_updates + 1, cell_index)

    @override
    def cost(self, state: CoderState, cell_index: int, error_weight: float = 1.0) -> Cost:
        return self._plain.cost(state, cell_index, error_weight)

    @override
    def reconstruct(
        self, points: Runs, offsets: npt.NDArray[np.int8], cell_index: int, levels: Levels
    ) -> npt.NDArray[np.float32]:
        return self._plain.reconstruct(points, offsets, cell_index, levels)

    @override
    def nonzero(self, points: Runs, offsets: npt.NDArray[np.int8], cell_index: int, levels: Levels) -> Sparse:
        return self._plain.nonzero(points, offsets, cell_index, levels)

    @override
    def ideal_bits(self, points: Runs, state: CoderState, cell_index: int, levels: Levels) -> npt.NDArray[np.float64]:
        return self._plain.ideal_bits(points, state, cell_index, levels)

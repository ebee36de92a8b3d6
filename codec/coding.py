"""Between a residual and what goes on the stack: one class for each family of lattices."""

import abc
from typing import Any, Generic, NamedTuple, TypeVar, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from .activity import Matrix, of_coordinates
from .coefficients import Cost
from .decoded import Sparse
from .errors import PacketError
from .lattice import NUM_OFFSETS, Quantiser, Trial, reconstruct
from .stochastic import RoundingKey, StochasticQuantiser
from .symbol_coder import (
    CoderState,
    Levels,
    SymbolCoder,
    empty_stack,
    pop_bytes,
    push_bytes,
    stack_from_bytes,
    stack_to_bytes,
)
from .symbols import NUM_DIRECT, escape_bits, num_escape_bits, read_escapes, to_symbols

_Points = TypeVar("_Points")
TOO_LONG = "The packet is damaged: its entropy-coded part holds more than its symbols."


class Search(NamedTuple):
    """What a quantiser is asked for.

    Attributes:
        residual: what is left after prediction, `[param]`, finite float32.
        energy: its squared norm.
        bound: largest squared error.
        cell_index: where the search for the coarsest cells starts; or the cells themselves, if `fixed`.
        fixed: whether the cells are given and the bound does not count.
        levels: of the matrices.
        state: what both ends know, for the encoder to tell what symbols will cost.
        rounding: of random numbers, where rounding is stochastic; the bound then is one of the expected error.
    """

    residual: npt.NDArray[np.float32]
    energy: float
    bound: float
    cell_index: int
    fixed: bool
    levels: Levels
    state: CoderState
    rounding: RoundingKey | None = None

    def trial(self, quantiser: Quantiser | StochasticQuantiser) -> Trial | None:
        """What a quantiser of Z finds; `None` where nothing keeps the bound, or given cells are too fine."""
        if not self.fixed:
            return quantiser.coarsest(self.bound, self.cell_index)
        return quantiser.trial(self.cell_index) if self.cell_index >= quantiser.finest else None


class Quantised(NamedTuple, Generic[_Points]):
    """A residual as lattice points.

    Attributes:
        cell_index: of the cell width.
        offsets: of the centroids, int8 `[offset]`.
        points: whatever the coding makes of it.
        error: squared, before rounding to float32; `None` where it is not known.
    """

    cell_index: int
    offsets: npt.NDArray[np.int8]
    points: _Points
    error: float | None = None


class Coding(abc.ABC, Generic[_Points]):
    """Quantises residuals, writes the points by asymmetric numeral systems, reads them and says what they stand for.

    Attributes:
        num_offsets: centroids that a packet tells.
        num_tables: rows of the coder's counts.
        keeps_activity: whether its state holds an activity for each coordinate.
    """

    num_offsets: int
    num_tables: int
    keeps_activity: bool

    @abc.abstractmethod
    def quantise(self, search: Search) -> Quantised[_Points] | None:
        """The coarsest points that keep the bound, or `None` where there are none. Called by the encoder only."""

    @abc.abstractmethod
    def cost(self, state: CoderState, cell_index: int, error_weight: float = 1.0) -> Cost:
        """About how many bits residuals take, from what is known before the packet; for the encoder's choices.

        Args:
            state: what both ends know.
            cell_index: of the cells.
            error_weight: what the squared error counts; 4^l for cells of level l, to be compared with those of level 0.
        """

    @abc.abstractmethod
    def write(self, points: _Points, state: CoderState, cell_index: int, levels: Levels) -> tuple[bytes, CoderState]:
        """Points as bytes; and the state after them."""

    @abc.abstractmethod
    def read(self, data: bytes, state: CoderState, cell_index: int, levels: Levels) -> tuple[_Points, CoderState]:
        """The inverse of `write`, for any bytes: memory is bounded by the layout, never by the data.

        Raises:
            PacketError: if they are not what some encoder made.
        """

    @abc.abstractmethod
    def reconstruct(
        self, points: _Points, offsets: npt.NDArray[np.int8], cell_index: int, levels: Levels
    ) -> npt.NDArray[np.float32]:
        """The residual that points stand for, `[param]`; infinite where float32 cannot hold it."""

    def nonzero(self, points: _Points, offsets: npt.NDArray[np.int8], cell_index: int, levels: Levels) -> Sparse | None:
        """`reconstruct` without the zeros; `None` where most coordinates are none."""
        return None

    def ideal_bits(
        self, points: _Points, state: CoderState, cell_index: int, levels: Levels
    ) -> npt.NDArray[np.float64] | None:
        """What the points of each tensor cost in the tables that `push` takes, `[matrix]`; `None` if it cannot tell."""
        return None


class StackCoding(Coding[_Points]):
    """A coding by constriction's stack."""

    @abc.abstractmethod
    def push(self, stack: Any, points: _Points, state: CoderState, cell_index: int, levels: Levels) -> CoderState:
        """Points onto the stack; the state after them."""

    @abc.abstractmethod
    def pop(self, stack: Any, state: CoderState, cell_index: int, levels: Levels) -> tuple[_Points, CoderState]:
        """The inverse of `push`, for any words.

        Raises:
            PacketError: if they are not what some encoder made.
        """

    @override
    def write(self, points: _Points, state: CoderState, cell_index: int, levels: Levels) -> tuple[bytes, CoderState]:
        stack = empty_stack()
        after = self.push(stack, points, state, cell_index, levels)
        return stack_to_bytes(stack), after

    @override
    def read(self, data: bytes, state: CoderState, cell_index: int, levels: Levels) -> tuple[_Points, CoderState]:
        stack = stack_from_bytes(data)
        points, after = self.pop(stack, state, cell_index, levels)
        if not stack.is_empty():
            raise PacketError(TOO_LONG)
        return points, after


class Integers(NamedTuple):
    """Quantised integers.

    Attributes:
        symbols: int32 `[param]`.
        escaped: the values behind the escape symbols, int64 `[escape]`, in order.
    """

    symbols: npt.NDArray[np.int32]
    escaped: npt.NDArray[np.int64]


@final
class ScalarCoding(StackCoding[Integers]):
    """The integer lattice Z, coordinate by coordinate.

    Args:
        coder: of the symbols.
        parts: the tensors.
        dead_zone: of the quantiser; `None` leaves it to the coder.
    """

    num_offsets = NUM_OFFSETS

    def __init__(self, coder: SymbolCoder, parts: tuple[Matrix, ...], dead_zone: float | None) -> None:
        self._coder = coder
        self._parts = parts
        self._dead_zone = dead_zone
        self.num_tables = coder.num_tables
        self.keeps_activity = coder.keeps_activity

    @override
    def quantise(self, search: Search) -> Quantised[Integers] | None:
        if search.rounding is not None:
            stochastic = StochasticQuantiser(search.residual, search.rounding)
            trial = search.trial(stochastic)
            if trial is None:
                return None
            return Quantised(trial.cell_index, trial.offsets, Integers(*to_symbols(stochastic.values(trial))))
        dead_zone = self._dead_zone
        if dead_zone is None:
            dead_zone = self._coder.dead_zone(search.state, search.cell_index, search.levels)
        quantiser = Quantiser(search.residual, dead_zone, of_coordinates(search.levels, self._parts), search.energy)
        trial = search.trial(quantiser)
        if trial is None:
            return None
        points = Integers(*to_symbols(quantiser.values(trial)))
        return Quantised(trial.cell_index, trial.offsets, points, trial.error)

    @override
    def cost(self, state: CoderState, cell_index: int, error_weight: float = 1.0) -> Cost:
        return self._coder.cost(state, cell_index, error_weight)

    @override
    def ideal_bits(
        self, points: Integers, state: CoderState, cell_index: int, levels: Levels
    ) -> npt.NDArray[np.float64] | None:
        bits = self._coder.symbol_bits(points.symbols, state, cell_index, levels)
        return None if bits is None else np.array([bits[part.span].sum() for part in self._parts])

    @override
    def push(self, stack: Any, points: Integers, state: CoderState, cell_index: int, levels: Levels) -> CoderState:
        push_bytes(stack, np.packbits(escape_bits(points.escaped)))
        return self._coder.push(stack, points.symbols, state, cell_index, levels)

    @override
    def pop(self, stack: Any, state: CoderState, cell_index: int, levels: Levels) -> tuple[Integers, CoderState]:
        symbols, after = self._coder.pop(stack, state, cell_index, levels)
        escapes = symbols[symbols >= NUM_DIRECT]
        data = pop_bytes(stack, (num_escape_bits(escapes) + 7) // 8)
        return Integers(symbols, read_escapes(escapes, data)), after

    @override
    def reconstruct(
        self, points: Integers, offsets: npt.NDArray[np.int8], cell_index: int, levels: Levels
    ) -> npt.NDArray[np.float32]:
        return reconstruct(points.symbols, points.escaped, offsets, cell_index, of_coordinates(levels, self._parts))

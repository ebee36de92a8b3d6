"""The entropy coder of a packet's symbols: what every kind of it has in common.

Coder: asymmetric numeral systems (Duda et al. 2015, Picture Coding Symposium), as `constriction` 0.5 implements it. A
table becomes the exact dyadic fractions count / 2^22 in float64, which constriction turns into 24-bit fixed point by
sums and products, without a call to libm, so both ends get the same model. The stream is a stack: last in, first out.
"""

import abc
from typing import Any, ClassVar, NamedTuple

import constriction
import numpy as np
import numpy.typing as npt

from .coefficients import Cost
from .errors import PacketError
from .symbols import to_symbols
from .tables import TOTAL

Levels = npt.NDArray[np.uint8]  # [matrix]
NO_VECTOR = 3  # the level of a matrix of which no symbol is sent

_stream = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]  # a submodule without a stub


class CoderState(NamedTuple):
    """What was decoded before, in integers.

    Attributes:
        counts: decayed counts of decoded symbols, `[table, symbol]`.
        activity: running mean of decoded magnitudes, int32 `[param]`, or `[0]` where the coder keeps none.
        num_updates: coded packets since the last key frame.
        cell_index: of the last coded packet; 0 before.
    """

    counts: npt.NDArray[np.int64]
    activity: npt.NDArray[np.int32]
    num_updates: int
    cell_index: int


class SymbolCoder(abc.ABC):
    """Puts symbols on an ANS stack and takes them off again; both ends hold equal ones and equal states.

    Attributes:
        num_tables: rows of the state's counts.
        keeps_activity: whether the state holds an activity for each coordinate.
    """

    num_tables: int
    keeps_activity: ClassVar[bool] = False

    @abc.abstractmethod
    def push(
        self, stack: Any, symbols: npt.NDArray[np.int32], state: CoderState, cell_index: int, levels: Levels
    ) -> CoderState:
        """Symbols onto the stack.

        Args:
            stack: constriction's `AnsCoder`.
            symbols: `[param]`, each below `NUM_SYMBOLS`.
            state: what both ends know.
            cell_index: of the packet's cell width.
            levels: of the matrices; symbols of those without a vector are zeros and take no bits.

        Returns:
            The state after these symbols.
        """

    @abc.abstractmethod
    def pop(
        self, stack: Any, state: CoderState, cell_index: int, levels: Levels
    ) -> tuple[npt.NDArray[np.int32], CoderState]:
        """The inverse of `push`, for any words: memory is bounded by the layout, never by the data.

        Returns:
            Symbols, `[param]`, and the state after them.
        """

    @abc.abstractmethod
    def cost(self, state: CoderState, cell_index: int, error_weight: float = 1.0) -> Cost:
        """About how many bits residuals take, from what is known before the packet; for the encoder's choices.

        Args:
            state: what both ends know.
            cell_index: of the cells.
            error_weight: what the squared error counts; 4^l for cells of level l, to be compared with those of level 0.
        """

    @abc.abstractmethod
    def dead_zone(self, state: CoderState, cell_index: int, levels: Levels) -> float | npt.NDArray[np.float32]:
        """The dead zone that makes each symbol worth its bits, in cells; for all coordinates or for each, `[param]`."""

    def symbol_bits(
        self, symbols: npt.NDArray[np.int32], state: CoderState, cell_index: int, levels: Levels
    ) -> npt.NDArray[np.float64] | None:
        """What each symbol takes in the tables that `push` takes, `[param]`, raw bits of escapes included.

        `None` if the coder cannot tell.
        """
        return None


ERROR_BITS = 11.6  # what a squared error of one cell is worth: 4/3 of 6 / ln 2, the slope of a uniform quantiser


def rounded(
    residual: npt.NDArray[np.float64], width: float, dead_zone: float | npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int32], float]:
    """Symbols that residuals round to, roughly, and the squared error they leave, in bits at the slope."""
    scaled = np.minimum(np.abs(residual) / width, 2.0**30)
    values = np.maximum(np.floor(scaled + (0.5 - dead_zone)), 0)
    excess = scaled - values
    signed = np.where(residual < 0, -values, values).astype(np.int32)
    return to_symbols(signed)[0], float(excess @ excess) * ERROR_BITS


def categorical(table: npt.NDArray[np.int64]) -> Any:
    """constriction's model of an integer table that sums to `TOTAL`."""
    return _stream.model.Categorical(table / TOTAL, perfect=False)


def uniform(size: int) -> Any:
    """constriction's model of equally likely numbers below `size`."""
    return _stream.model.Uniform(size)


def empty_stack() -> Any:
    """An ANS stack with nothing on it."""
    return _stream.stack.AnsCoder()


def words_to_bytes(words: npt.NDArray[np.uint32]) -> bytes:
    """The words of a stack, little-endian, without the zero bytes at the end."""
    return words.astype("<u4", copy=False).tobytes().rstrip(b"\0")


def words_from_bytes(data: bytes) -> npt.NDArray[np.uint32]:
    """The inverse of `words_to_bytes`.

    Raises:
        PacketError: if the data end with a zero byte.
    """
    if data.endswith(b"\0"):
        raise PacketError("The packet is damaged: its entropy-coded part ends with an empty byte.")
    return np.frombuffer(data + bytes(-len(data) % 4), "<u4").astype(np.uint32)


def stack_to_bytes(stack: Any) -> bytes:
    """A stack's words as bytes."""
    return words_to_bytes(stack.get_compressed())


def stack_from_bytes(data: bytes) -> Any:
    """The inverse of `stack_to_bytes`.

    Raises:
        PacketError: if the data end with a zero byte.
    """
    return _stream.stack.AnsCoder(words_from_bytes(data))


def push_bytes(stack: Any, data: npt.NDArray[np.uint8]) -> None:
    """Bytes as they are, eight bits each."""
    if len(data):
        stack.encode_reverse(data.astype(np.int32), uniform(256))


def pop_bytes(stack: Any, number: int) -> npt.NDArray[np.uint8]:
    """The inverse of `push_bytes`."""
    return stack.decode(uniform(256), number).astype(np.uint8) if number else np.zeros(0, np.uint8)

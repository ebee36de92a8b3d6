"""The coded form of one vector: what a packet's body holds when it is not raw."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import coefficients
from .bits import BitReader, BitWriter
from .coding import Coding, Quantised
from .errors import PacketError
from .lattice import NUM_WIDTHS
from .metric import HIGHEST_FLOOR, LOWEST_FLOOR
from .symbol_coder import CoderState, Levels

_CELL_ORDER = 5  # of the Golomb codes: the width of a cell moves by an eighth of an octave between packets,
_OFFSET_ORDER = 2  # centroids by a few 128ths of a cell
_FLOOR_ORDER = 5
_LEVEL_BITS = 2
FIRST_CELL = 19200  # what the first cell index is told apart from: a width of 2^-10


class Body(NamedTuple):
    """Everything the decoder needs beside the shared state.

    Attributes:
        levels: of the tensors that are not empty, uint8 `[matrix]`.
        coefficients: of the prediction, in 1/256, int16 `[block, basis]`.
        quantised: the residual.
        floor: exponent of the metric's floor; 0 where the metric has none.
        lattice: which of the codings it is in.
    """

    levels: Levels
    coefficients: npt.NDArray[np.int16]
    quantised: Quantised
    floor: int
    lattice: int = 0


class BodyBits(NamedTuple):
    """How many bits each part of a body takes; the sum is the body's length."""

    quantiser: int
    levels: int
    coefficients: int
    symbols: int


class Context(NamedTuple):
    """What both ends hold when a body is written or read.

    Attributes:
        codings: that the residual may be in; the body tells which where there are several.
        state: the coding's, which all share.
        offsets: the last ones, int8 `[offset]`, as many as the lattice with most has; zeros before any.
        num_matrices: tensors that are not empty.
        weighted: whether the body tells the floor of the metric.
    """

    codings: tuple[Coding, ...]
    state: CoderState
    offsets: npt.NDArray[np.int8]
    num_matrices: int
    weighted: bool

    @property
    def expected_cell(self) -> int:
        """The cell index that the packet's is told apart from."""
        return self.state.cell_index if self.state.num_updates else FIRST_CELL


def write_body(body: Body, context: Context) -> tuple[bytes, BodyBits, CoderState]:
    """A body's bytes, what its parts take, and the coding's state after it."""
    cell_index, offsets, points, _ = body.quantised
    coding = context.codings[body.lattice]
    bits = BitWriter()
    if len(context.codings) > 1:
        bits.write(body.lattice, 1)
    bits.write_number(cell_index - context.expected_cell, _CELL_ORDER)
    for offset, before in zip(offsets.tolist(), context.offsets[: coding.num_offsets].tolist(), strict=True):
        bits.write_number(offset - before, _OFFSET_ORDER)
    if context.weighted:
        bits.write_number(body.floor, _FLOOR_ORDER)
    quantiser_bits = len(bits)
    bits.write(int(body.levels.any()), 1)
    if body.levels.any():
        for level in body.levels.tolist():
            bits.write(level, _LEVEL_BITS)
    level_bits = len(bits) - quantiser_bits
    coefficients.write(body.coefficients, bits)
    parameters = bits.to_bytes()
    words, state = coding.write(points, context.state, cell_index, body.levels)
    coefficient_bits = 8 * len(parameters) - level_bits - quantiser_bits
    return parameters + words, BodyBits(quantiser_bits, level_bits, coefficient_bits, 8 * len(words)), state


def read_body(data: bytes, context: Context, shape: tuple[int, int]) -> tuple[Body, CoderState]:
    """The inverse of `write_body`.

    Args:
        data: exactly a body.
        context: as the encoder had it.
        shape: (blocks, basis vectors) of the prediction.

    Raises:
        PacketError: if a part is missing, out of range or too long.
    """
    bits = BitReader(data)
    lattice = bits.read(1) if len(context.codings) > 1 else 0
    coding = context.codings[lattice]
    cell_index = context.expected_cell + bits.read_number(_CELL_ORDER)
    if not 0 <= cell_index < NUM_WIDTHS:
        raise PacketError(f"The packet is damaged: cell width {cell_index} of {NUM_WIDTHS}.")
    offsets = [before + bits.read_number(_OFFSET_ORDER) for before in context.offsets[: coding.num_offsets].tolist()]
    if not all(-128 <= offset < 128 for offset in offsets):
        raise PacketError(f"The packet is damaged: centroids at {offsets} of 128.")
    floor = bits.read_number(_FLOOR_ORDER) if context.weighted else 0
    if not LOWEST_FLOOR <= floor <= HIGHEST_FLOOR:
        raise PacketError(f"The packet is damaged: a floor of 2^{floor}.")
    levels = np.zeros(context.num_matrices, np.uint8)
    if bits.read(1):
        levels[:] = [bits.read(_LEVEL_BITS) for _ in range(context.num_matrices)]
        if not levels.any():
            raise PacketError("The packet is damaged: it has levels that are all 0.")
    read = coefficients.read(bits, shape)
    points, state = coding.read(bits.finish(), context.state, cell_index, levels)
    return Body(levels, read, Quantised(cell_index, np.array(offsets, np.int8), points), floor, lattice), state

"""The coded form of one vector: what a packet's body holds when it is not raw."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import coefficients
from .entropy import decode_symbols, encode_symbols
from .errors import PacketError
from .groups import Groups
from .lattice import NUM_OFFSETS, NUM_WIDTHS
from .symbols import NUM_DIRECT, escape_bits, read_escapes
from .varint import read_varint, write_varint

_QUANTISER_BYTES = 2 + NUM_OFFSETS


class Body(NamedTuple):
    """Everything the decoder needs beside the shared state.

    Attributes:
        cell_index: index of the cell width.
        offsets: of the centroids, in 1/128 cell, int8 `[3]`.
        coefficients: of the prediction, in 1/256, int16 `[block, basis]`.
        symbols: quantised residuals, int32 `[param]`.
        escaped: the values behind the escape symbols, int64 `[escape]`, in order.
    """

    cell_index: int
    offsets: npt.NDArray[np.int8]
    coefficients: npt.NDArray[np.int16]
    symbols: npt.NDArray[np.int32]
    escaped: npt.NDArray[np.int64]


class BodyBits(NamedTuple):
    """How many bits each part of a body takes; the sum is the body's length."""

    quantiser: int
    coefficients: int
    tables: int
    symbols: int
    escapes: int


def write_body(
    body: Body, groups: Groups, counts: npt.NDArray[np.int64]
) -> tuple[bytes, BodyBits, npt.NDArray[np.int64]]:
    """A body's bytes, what its parts take, and the occurrences of each symbol, `[group, symbol]`."""
    coded = encode_symbols(body.symbols, groups, counts)
    quantiser = body.cell_index.to_bytes(2, "little") + body.offsets.tobytes()
    written = coefficients.write(body.coefficients)
    num_words = write_varint(len(coded.words) // 4)
    escapes = np.packbits(escape_bits(body.escaped)).tobytes()
    symbol_bits = 8 * (len(num_words) + len(coded.words)) - coded.num_choice_bits
    bits = BodyBits(8 * len(quantiser), 8 * len(written), coded.num_choice_bits, symbol_bits, 8 * len(escapes))
    return quantiser + written + num_words + coded.words + escapes, bits, coded.seen


def read_body(
    data: bytes, groups: Groups, counts: npt.NDArray[np.int64], shape: tuple[int, int]
) -> tuple[Body, npt.NDArray[np.int64]]:
    """The inverse of `write_body`.

    Args:
        data: exactly a body.
        groups: the partition of the coordinates.
        counts: `[group, symbol]`, as the encoder had them.
        shape: (blocks, basis vectors) of the prediction.

    Raises:
        PacketError: if a part is missing, out of range or too long.
    """
    if len(data) < _QUANTISER_BYTES:
        raise PacketError("The packet is damaged: it ends within its quantiser.")
    cell_index = int.from_bytes(data[:2], "little")
    if cell_index >= NUM_WIDTHS:
        raise PacketError(f"The packet is damaged: cell width {cell_index} of {NUM_WIDTHS}.")
    offsets = np.frombuffer(data[2:_QUANTISER_BYTES], np.int8)
    read, place = coefficients.read(data, _QUANTISER_BYTES, shape)
    num_words, place = read_varint(data, place)
    stop = place + 4 * num_words
    if stop > len(data):
        raise PacketError("The packet is damaged: it ends within its symbols.")
    symbols, seen = decode_symbols(data[place:stop], groups, counts)
    escaped = read_escapes(symbols[symbols >= NUM_DIRECT], data[stop:])
    return Body(cell_index, offsets, read, symbols, escaped), seen

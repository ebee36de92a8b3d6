"""The idx format of MNIST and its relatives, read as untrusted input."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ..errors import DataError

UNSIGNED_BYTE = 0x08
MAX_ELEMENTS = 2**28  # a quarter of a gigabyte; the largest file of the family has 47 million


def read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The bytes of a gzip-packed idx file.

    The format (http://yann.lecun.com/exdb/mnist, "file format"): two zero bytes, a type byte, the number of
    dimensions, each extent as a big-endian 32-bit number, then the values in row-major order.

    Args:
        path: the file.
        shape: what it must hold. The header is compared with it before anything is unpacked, so that a damaged or
            hostile file costs no memory.

    Returns:
        uint8, of `shape`.

    Raises:
        DataError: if the file cannot be unpacked, or is of another type, shape or length.
    """
    size = math.prod(shape)
    if size > MAX_ELEMENTS:
        raise DataError(f"At most {MAX_ELEMENTS} values are read, got shape {shape}.")
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(4 + 4 * len(shape))
            _check_header(header, path, shape)
            values = file.read(size + 1)  # one more, to notice a file that is too long
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}. Delete it and fetch it again.") from error
    if len(values) != size:
        found = "more" if len(values) > size else str(len(values))
        raise DataError(f"{path} must hold {size} values, got {found}. Delete it and fetch it again.")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape).copy()


def _check_header(header: bytes, path: Path, shape: tuple[int, ...]) -> None:
    expected = bytes([0, 0, UNSIGNED_BYTE, len(shape)])
    if header[:4] != expected:
        raise DataError(f"{path} must start with {expected.hex()} (idx, bytes), got {header[:4].hex()}.")
    if len(header) != 4 + 4 * len(shape):
        raise DataError(f"{path} ends within its header.")
    found = struct.unpack(f">{len(shape)}I", header[4:])
    if found != shape:
        raise DataError(f"{path} must have shape {shape}, got {found}.")

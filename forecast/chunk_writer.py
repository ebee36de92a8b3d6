"""Write files of many blocks past the page cache, where the system can, so that no processor copies them."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .commit_log import write_all

ALIGNMENT = 4096  # bytes; addresses and lengths that every disk in use takes
MIN_DIRECT = 2**20  # bytes; below, one trip to the disk takes longer than a copy into the page cache
_DIRECT: int = getattr(os, "O_DIRECT", 0)  # Linux has it
_REFUSED = (errno.EINVAL, errno.EOPNOTSUPP)


def aligned_zeros(size: int, dtype: Any) -> NDArray[Any]:
    """Zeros, `[size]`, written now, at an address from which disks read without a copy."""
    num_bytes = size * np.dtype(dtype).itemsize
    memory = np.full(num_bytes + ALIGNMENT, 0, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + num_bytes].view(dtype)


class ChunkWriter:
    """Writes new files of one length.

    Files of a megabyte and more whose length is a multiple of 4096 bytes go past the page cache, if the file system
    takes that (O_DIRECT): no copy, no memory taken from what else the machine caches, and a fraction of the processor
    time. What lies at another address is copied first, into one buffer of a file's length that is kept.

    Args:
        num_bytes: of every file.

    Attributes:
        is_direct: whether files go past the page cache, as far as is known.
    """

    def __init__(self, num_bytes: int) -> None:
        self.is_direct = bool(_DIRECT) and num_bytes >= MIN_DIRECT and num_bytes % ALIGNMENT == 0
        self._num_bytes = num_bytes
        self._staging: NDArray[np.uint8] | None = None

    def write(self, path: Path, data: NDArray[np.uint8], do_sync: bool) -> None:
        """Write one file that does not exist, padded with zero bytes.

        Args:
            path: of the file.
            data: at most `num_bytes`.
            do_sync: whether it must reach the disk before this returns.

        Raises:
            OSError: if the disk refuses; what was written stays, for the caller to remove.
        """
        if self.is_direct:
            whole = self._whole(data)
            self.is_direct = _create(path, _DIRECT, lambda file: _write_direct(file, whole), do_sync)
            if self.is_direct:
                return
            path.unlink(missing_ok=True)  # some systems make the file before they refuse

        def plain(descriptor: int) -> bool:
            with open(descriptor, "wb", buffering=0, closefd=False) as file:
                write_all(file, data.data)
                if len(data) < self._num_bytes:
                    write_all(file, memoryview(bytes(self._num_bytes - len(data))))
            return True

        _create(path, 0, plain, do_sync)

    def _whole(self, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if len(data) == self._num_bytes and data.ctypes.data % ALIGNMENT == 0:
            return data
        if self._staging is None:
            self._staging = aligned_zeros(self._num_bytes, np.uint8)
        self._staging[: len(data)] = data
        self._staging[len(data) :] = 0
        return self._staging


def _create(path: Path, flags: int, write: Callable[[int], bool], do_sync: bool) -> bool:
    """Make a file, have it written, and tell whether the system took the flags."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | flags, 0o666)
    except OSError as error:
        if flags and error.errno in _REFUSED:
            return False
        raise
    try:
        if not write(descriptor):
            return False
        if do_sync:
            os.fsync(descriptor)
        return True
    finally:
        os.close(descriptor)


def _write_direct(descriptor: int, data: NDArray[np.uint8]) -> bool:
    rest = data.data
    while len(rest):
        try:
            written = os.write(descriptor, rest)
        except OSError as error:
            if error.errno in _REFUSED and len(rest) == len(data):
                return False
            raise
        rest = rest[written:]
    return True

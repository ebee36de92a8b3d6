"""The rows of one stream on disk: a Zarr v3 array whose chunk files are written directly, row by row.

Zarr-python writes an array's new shape before its data, so a run that is killed leaves a row of fill values that looks
real, and it takes several times as long. Here a row's files are written into a hidden folder that becomes `c/<row>` by
one rename. What zarr-python is used for is the metadata, so that `zarr.open_group` reads the store.
"""

import math
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunk_writer import ChunkWriter
from .errors import TrajectoryError
from .tiers import MAX_OVERHEAD, Coding
from .zarr_metadata import read_chunks, sync, write_num_rows

_ADVISED = 2**18  # bytes
_OURS = re.compile(r"(0|[1-9][0-9]*)|\.[0-9]+\.tmp")


class RowFiles:
    """The chunk files of one stream. Which of them count is for the commit log to say.

    Chunks hold one row each, or, after `compact`, a block of many rows and few coordinates, by coordinate.

    Args:
        folder: the array's folder.
        size: coordinates of a row, from the layout.
        coding: how numbers are stored.

    Raises:
        TrajectoryError: if the array is of another shape or type than this library makes.
    """

    def __init__(self, folder: Path, size: int, coding: Coding) -> None:
        self._folder = folder
        self._rows = folder / "c"
        self._size = size
        self._coding = coding
        for path in (folder, self._rows):
            if path.is_symlink() or not path.is_dir():  # sweeping must never reach another place
                raise TrajectoryError(f"{path} must be a folder. It is missing or a link; restore it from a copy.")
        self._block, self._chunk, self._by_coordinate = read_chunks(folder, size, coding)
        self._writer = ChunkWriter(0 if coding.compressed else self._chunk * coding.dtype.itemsize)

    @property
    def num_row_bytes(self) -> int:
        """Bytes that one row takes on disk, padding included; before compression, where there is any."""
        return math.ceil(self._size / self._chunk) * self._chunk * self._coding.dtype.itemsize

    @property
    def is_compact(self) -> bool:
        """Whether chunks hold more than one row, so that nothing can be appended."""
        return self._block > 1

    def write(self, row: int, vector: NDArray[np.float32], do_sync: bool) -> int:
        """Write one row and publish it by one rename. Nothing must be at its place: `sweep` sees to that.

        Args:
            row: its number.
            vector: `[param]`, little-endian float32, contiguous.
            do_sync: whether it must reach the disk before this returns.

        Returns:
            The CRC-32 of the bytes of the stored numbers.

        Raises:
            OSError: if the disk refuses.
        """
        temporary = self._temporary(row)
        temporary.mkdir()
        crc = 0
        for index, start in enumerate(range(0, self._size, self._chunk)):
            piece = self._coding.to_stored(vector[start : start + self._chunk])
            # A chunk at a time, so that it is still in the cache when it is written.
            crc = zlib.crc32(piece.view(np.uint8).data, crc)
            if self._coding.compressed:
                piece = np.pad(piece, (0, self._chunk - len(piece)))
            data = np.frombuffer(self._coding.compress(piece), np.uint8)
            self._writer.write(temporary / str(index), data, do_sync)
        if do_sync:
            sync(temporary)
        temporary.rename(self._rows / str(row))
        if do_sync:
            sync(self._rows)
        return crc

    def discard(self, row: int) -> None:
        """Remove what there is of one row."""
        _remove(self._temporary(row))
        _remove(self._rows / str(row))

    def sweep(self, num_rows: int) -> int:
        """Remove every row, and every piece of one, from number `num_rows` on. Foreign files stay.

        Returns:
            How many were removed.
        """
        count = 0
        for entry in list(self._rows.iterdir()):
            ours = _OURS.fullmatch(entry.name)
            if ours and not (ours[1] and int(ours[1]) < num_rows):
                _remove(entry)
                count += 1
        return count

    def set_num_rows(self, num_rows: int) -> None:
        """Tell other readers of Zarr how many rows there are."""
        write_num_rows(self._folder, num_rows, self._size)

    def read(self, rows: Sequence[int], start: int, stop: int) -> NDArray[np.float32]:
        """The coordinates `start` to `stop` of some rows, `[time, param]`.

        Raises:
            TrajectoryError: if a chunk file is missing, of the wrong length, or damaged so far that it cannot be
                unpacked. Where lengths are wrong, nothing has been allocated.
        """
        pieces = list(self._pieces(start, stop))
        blocks: dict[int, list[int]] = {}  # by block, which of `rows` lie in it
        for position, row in enumerate(rows):
            blocks.setdefault(row // self._block, []).append(position)
        for block, positions in blocks.items():
            for index, _, _ in pieces:
                self._require_length(block, index, rows[positions[0]])
        values = self._empty(len(rows), stop - start)
        for block, positions in blocks.items():
            inside = [rows[position] % self._block for position in positions]
            for index, first, span in pieces:
                self._read_piece(block, index, first, inside, values[:, span], positions)
        return self._coding.from_stored(values)

    def crcs(self, num_rows: int) -> Iterator[int]:
        """The CRC-32 of the stored numbers of each row as they are on disk, read a chunk at a time.

        Raises:
            TrajectoryError: as `read`.
        """
        for first_row in range(0, num_rows, self._block):
            inside = list(range(min(self._block, num_rows - first_row)))
            found = [0] * len(inside)
            for index, first, span in self._pieces(0, self._size):
                self._require_length(first_row // self._block, index, first_row)
                values = self._empty(len(inside), span.stop - span.start)
                self._read_piece(first_row // self._block, index, first, inside, values, inside)
                contiguous = np.ascontiguousarray(values).view(np.uint8)
                found = [zlib.crc32(row.data, crc) for row, crc in zip(contiguous, found, strict=True)]
            yield from found

    def _temporary(self, row: int) -> Path:
        return self._rows / f".{row}.tmp"

    def _file(self, block: int, index: int) -> Path:
        return self._rows / str(block) / str(index)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, slice]]:
        """For each chunk that a coordinate range touches: its number, where to begin in it, and what it fills."""
        at = start
        while at < stop:
            index, first = divmod(at, self._chunk)
            end = min(stop, (index + 1) * self._chunk)
            yield index, first, slice(at - start, end - start)
            at = end

    def _require_length(self, block: int, index: int, row: int) -> None:
        path = self._file(block, index)
        found = path.stat().st_size if path.is_file() else None
        full = self._block * self._chunk * self._coding.dtype.itemsize
        if self._coding.compressed:
            fits, told = found is not None and 0 < found <= full + MAX_OVERHEAD, f"1 to {full + MAX_OVERHEAD}"
        else:
            fits, told = found == full, f"{full}"
        if not fits:
            raise TrajectoryError(
                f"Row {row} of stream {self._folder.name!r} is damaged: {path} must have {told} bytes, "
                f"got {'no file' if found is None else found}. Restore it from a copy, or cut the run before it "
                "with `Trajectory.resume`."
            )

    def _read_piece(
        self, block: int, index: int, first: int, inside: list[int], target: NDArray[Any], positions: list[int]
    ) -> None:
        """Fill `target[positions]`, `[time, piece]`, with rows `inside` of a block, from coordinate `first` of it."""
        width, itemsize = target.shape[1], target.itemsize
        with open(self._file(block, index), "rb", buffering=0) as file:
            if self._coding.compressed:
                values = self._empty(self._block, self._chunk)
                try:
                    self._coding.decompress(file.read(), values.T if self._by_coordinate else values)
                except TrajectoryError as error:
                    raise TrajectoryError(
                        f"Row {block * self._block + inside[0]} of stream {self._folder.name!r} is damaged: "
                        f"{file.name}: {error}. Restore it from a copy."
                    ) from error
                target[_span(positions)] = values[_span(inside), first : first + width]
            elif self._by_coordinate:
                file.seek(first * self._block * itemsize)
                if inside == positions == list(range(self._block)) and len(target) == self._block:
                    _read_all(file, target.T)
                else:
                    values = self._empty(self._block, width)
                    _read_all(file, values.T)
                    target[_span(positions)] = values[_span(inside)]
            else:
                for row, position in zip(inside, positions, strict=True):
                    file.seek((row * self._chunk + first) * itemsize)
                    _read_all(file, target[position])

    def _empty(self, num_rows: int, width: int) -> NDArray[Any]:
        """Room for numbers, `[time, param]`, that lie in memory as they do in files."""
        if self._by_coordinate:
            return np.empty((width, num_rows), self._coding.dtype).T
        return np.empty((num_rows, width), self._coding.dtype)


def _span(numbers: list[int]) -> "slice | list[int]":
    """The same elements as a slice where they are neighbours, which NumPy copies faster."""
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return slice(numbers[0], numbers[-1] + 1)
    return numbers


def _read_all(file: FileIO, target: NDArray[Any]) -> None:
    wanted = target.view(np.uint8).reshape(-1).data
    if len(wanted) >= _ADVISED and hasattr(os, "posix_fadvise"):  # all of it at once, not as the kernel reads ahead
        os.posix_fadvise(file.fileno(), file.tell(), len(wanted), os.POSIX_FADV_WILLNEED)
    while len(wanted):
        num_bytes = file.readinto(wanted)
        if not num_bytes:
            raise TrajectoryError(f"{file.name} became shorter while it was read. Is somebody cutting the run?")
        wanted = wanted[num_bytes:]


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)

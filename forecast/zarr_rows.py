"""The rows of one stream on disk: a Zarr v3 array whose chunk files are written directly, row by row.

Zarr-python writes an array's new shape before its data, so a run that is killed leaves a row of fill values that looks
real, and it takes about twice the CPU time. Here a row's files are written into a hidden folder that becomes
`c/<row>` by one rename. What `zarr-python` is used for is the metadata, so that `zarr.open_group` reads the store.
"""

import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .commit_log import write_all
from .errors import TrajectoryError

MAX_CHUNK = 2**20  # coordinates: 4 MiB a file, few enough files for large nets and cheap reads by coordinate range
MAX_ROWS = 2**40
MAX_JSON = 2**26  # bytes of metadata; the layout of a net with 100 000 tensors takes a sixth of it
_OURS = re.compile(r"(0|[1-9][0-9]*)|\.[0-9]+\.tmp")
_METADATA = "zarr.json"


def create_zarr(folder: Path, streams: Sequence[str], size: int, attributes: Mapping[str, Any]) -> None:
    """Make a Zarr v3 group with an empty float32 array `[time, param]` for each stream."""
    import zarr  # half a second, and readers do without

    # As many chunks as the limit asks for, of equal size: zarr pads the last one, so this wastes least.
    chunk = math.ceil(size / math.ceil(size / MAX_CHUNK))
    group = zarr.create_group(str(folder), zarr_format=3, attributes=dict(attributes))
    for name in streams:
        group.create_array(
            name,
            shape=(0, size),
            chunks=(1, chunk),
            dtype="float32",
            compressors=None,  # lossless compression gains 13 % on weights and costs more than the disk
            fill_value=math.nan,  # what is missing shall not look like a real row
            dimension_names=("time", "param"),
        )
        (folder / name / "c").mkdir()
        _sync(folder / name / _METADATA)
    _sync(folder / _METADATA)


def read_attributes(folder: Path) -> Any:
    """The attributes of a Zarr v3 group.

    Raises:
        TrajectoryError: if the folder is none.
    """
    if not folder.is_dir():
        raise TrajectoryError(f"There is no folder {folder}. Check the path.")
    metadata = _read_json(folder / _METADATA)
    if metadata.get("zarr_format") != 3 or metadata.get("node_type") != "group":
        raise TrajectoryError(f"{folder} is not a trajectory store: it is no Zarr v3 group. Check the path.")
    return metadata.get("attributes")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TrajectoryError(f"{path.parent} is not a trajectory store: it has no {_METADATA}. Check the path.")
    with open(path, "rb") as file:
        text = file.read(MAX_JSON + 1)
    if len(text) > MAX_JSON:
        raise TrajectoryError(f"{path} must be smaller than {MAX_JSON} bytes. It is damaged; restore it from a copy.")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TrajectoryError(f"{path} is damaged: {error}. Restore it from a copy.") from error
    if type(metadata) is not dict:
        raise TrajectoryError(f"{path} is damaged: it holds no dictionary. Restore it from a copy.")
    return metadata


class RowFiles:
    """The chunk files of one stream. Which of them count is for the commit log to say.

    Args:
        folder: the array's folder.
        size: coordinates of a row, from the layout.

    Raises:
        TrajectoryError: if the array is of another shape or type than this library makes.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._rows = folder / "c"
        self._size = size
        for path in (folder, self._rows):
            if path.is_symlink() or not path.is_dir():  # sweeping must never reach another place
                raise TrajectoryError(f"{path} must be a folder. It is missing or a link; restore it from a copy.")
        self._chunk = _chunk(folder / _METADATA, size)

    @property
    def num_row_bytes(self) -> int:
        """Bytes that one row takes on disk, padding included."""
        return math.ceil(self._size / self._chunk) * self._chunk * 4

    def write(self, row: int, vector: NDArray[np.float32], sync: bool) -> int:
        """Write one row and publish it by one rename. Nothing must be at its place: `sweep` sees to that.

        Args:
            row: its number.
            vector: `[param]`, little-endian float32, contiguous.
            sync: whether it must reach the disk before this returns.

        Returns:
            The CRC-32 of the vector's bytes.

        Raises:
            OSError: if the disk refuses.
        """
        temporary = self._temporary(row)
        temporary.mkdir()
        crc = 0
        for index, start in enumerate(range(0, self._size, self._chunk)):
            piece = vector[start : start + self._chunk].view(np.uint8).data
            crc = zlib.crc32(piece, crc)  # a chunk at a time, so that it is still in the cache when it is written
            with open(temporary / str(index), "xb", buffering=0) as file:
                write_all(file, piece)
                write_all(file, memoryview(bytes(self._chunk * 4 - len(piece))))
                if sync:
                    os.fsync(file.fileno())
        if sync:
            _sync(temporary)
        temporary.rename(self._rows / str(row))
        if sync:
            _sync(self._rows)
        return crc

    def discard(self, row: int) -> None:
        """Remove what there is of one row."""
        _remove(self._temporary(row))
        _remove(self._rows / str(row))

    def sweep(self, num_rows: int) -> None:
        """Remove every row, and every piece of one, from number `num_rows` on. Foreign files stay."""
        for entry in list(self._rows.iterdir()):
            ours = _OURS.fullmatch(entry.name)
            if ours and not (ours[1] and int(ours[1]) < num_rows):
                _remove(entry)

    def set_num_rows(self, num_rows: int) -> None:
        """Tell other readers of Zarr how many rows there are; the metadata is exchanged by one rename."""
        path = self._folder / _METADATA
        metadata = _read_json(path)
        if metadata["shape"] == [num_rows, self._size]:
            return
        metadata["shape"] = [num_rows, self._size]
        temporary = path.with_name(f".{_METADATA}.tmp")
        temporary.write_text(json.dumps(metadata, indent=2))
        _sync(temporary)
        temporary.replace(path)
        _sync(self._folder)

    def read(self, rows: Sequence[int], start: int, stop: int) -> NDArray[np.float32]:
        """The coordinates `start` to `stop` of some rows, `[time, param]`.

        Raises:
            TrajectoryError: if a chunk file is missing or of the wrong length. Nothing has been allocated then.
        """
        pieces = list(self._pieces(start, stop))
        for row in rows:
            for index, _, _ in pieces:
                self._require_length(row, index)
        values = np.empty((len(rows), stop - start), dtype="<f4")
        for row, target in zip(rows, values, strict=True):
            for index, first, span in pieces:
                self._read_piece(row, index, first, target[span])
        return values.astype(np.float32, copy=False)

    def crc(self, row: int) -> int:
        """The CRC-32 of a row's bytes as they are on disk, read a chunk at a time.

        Raises:
            TrajectoryError: if a chunk file is missing or of the wrong length.
        """
        crc = 0
        buffer = np.empty(min(self._chunk, self._size), dtype="<f4")
        for index, first, span in self._pieces(0, self._size):
            self._require_length(row, index)
            piece = buffer[: span.stop - span.start]
            self._read_piece(row, index, first, piece)
            crc = zlib.crc32(piece.view(np.uint8).data, crc)
        return crc

    def _temporary(self, row: int) -> Path:
        return self._rows / f".{row}.tmp"

    def _file(self, row: int, index: int) -> Path:
        return self._rows / str(row) / str(index)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, slice]]:
        """For each chunk that a coordinate range touches: its number, where to begin in it, and what it fills."""
        at = start
        while at < stop:
            index, first = divmod(at, self._chunk)
            end = min(stop, (index + 1) * self._chunk)
            yield index, first, slice(at - start, end - start)
            at = end

    def _require_length(self, row: int, index: int) -> None:
        path = self._file(row, index)
        found = path.stat().st_size if path.is_file() else None
        if found != self._chunk * 4:
            raise TrajectoryError(
                f"Row {row} of stream {self._folder.name!r} is damaged: {path} must have {self._chunk * 4} bytes, "
                f"got {'no file' if found is None else found}. Restore it from a copy, or cut the run before it "
                "with `Trajectory.resume`."
            )

    def _read_piece(self, row: int, index: int, first: int, target: NDArray[np.float32]) -> None:
        wanted = target.view(np.uint8).data
        with open(self._file(row, index), "rb", buffering=0) as file:
            file.seek(first * 4)
            while len(wanted):
                num_bytes = file.readinto(wanted)
                if not num_bytes:
                    raise TrajectoryError(f"{file.name} became shorter while it was read. Is somebody cutting the run?")
                wanted = wanted[num_bytes:]


def _chunk(path: Path, size: int) -> int:
    """The chunk length that an array's metadata states, after everything in it has been checked."""
    metadata = _read_json(path)
    try:
        num_rows, num_columns = metadata["shape"]
        one, chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        (codec,) = metadata["codecs"]
        told = {
            "zarr_format": metadata["zarr_format"],
            "node_type": metadata["node_type"],
            "data_type": metadata["data_type"],
            "chunk grid": metadata["chunk_grid"]["name"],
            "chunk keys": metadata["chunk_key_encoding"]["name"],
            "codec": codec["name"],
            "endian": codec["configuration"]["endian"],
            "rows in a chunk": one,
        }
        separator = metadata["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrajectoryError(f"{path} is damaged: {error!r}. Restore it from a copy.") from error
    known = {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": "float32",
        "chunk grid": "regular",
        "chunk keys": "default",
        "codec": "bytes",
        "endian": "little",
        "rows in a chunk": 1,
    }
    for key, value in known.items():
        if told[key] != value:
            raise TrajectoryError(f"{path} must have {key} {value!r}, got {told[key]!r:.80}. Restore it from a copy.")
    if separator != "/":
        raise TrajectoryError(f"{path} must have separator '/', got {separator!r:.80}. Restore it from a copy.")
    if num_columns != size or type(num_rows) is not int or not 0 <= num_rows <= MAX_ROWS:
        raise TrajectoryError(
            f"{path} must have shape [time, {size}] with at most {MAX_ROWS} rows, got [{num_rows!r:.40}, "
            f"{num_columns!r:.40}]. Restore it from a copy."
        )
    if type(chunk) is not int or not 1 <= chunk <= MAX_CHUNK:
        raise TrajectoryError(f"{path} must have chunks of 1 to {MAX_CHUNK} coordinates, got {chunk!r:.80}.")
    return chunk


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    """Have the kernel write a file or the entries of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

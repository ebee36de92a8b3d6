"""The metadata of Zarr v3 groups and arrays: made by zarr-python, read and checked here without it."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .errors import TrajectoryError
from .tiers import Coding

MAX_CHUNK = 2**20  # coordinates: 4 MiB a file, few enough files for large nets and cheap reads by coordinate range
MAX_ROWS = 2**40
MAX_CHUNK_ROWS = 2**12
MAX_JSON = 2**26  # bytes of metadata; the layout of a net with 100 000 tensors takes a sixth of it
METADATA = "zarr.json"
_MIN_ROUNDED, _ROUNDING = 2**18, 2**11  # coordinates; 4096 bytes of the narrowest tier
_BY_COORDINATE = {"name": "transpose", "configuration": {"order": [1, 0]}}


class Chunks(NamedTuple):
    """The shape of an array's chunks.

    Attributes:
        rows: rows in a chunk.
        coordinates: coordinates in a chunk.
        by_coordinate: whether all rows of one coordinate lie together in the file, `[param, time]`.
    """

    rows: int
    coordinates: int
    by_coordinate: bool = False


def row_chunks(size: int) -> Chunks:
    """Chunks of one row each: as many as the limit asks for, of equal size. Zarr pads the last; this wastes least.

    Large ones are rounded up to whole blocks of a disk.
    """
    chunk = math.ceil(size / math.ceil(size / MAX_CHUNK))
    return Chunks(1, chunk if chunk < _MIN_ROUNDED else math.ceil(chunk / _ROUNDING) * _ROUNDING)


def create_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Make an empty Zarr v3 group."""
    import zarr  # half a second, and readers do without

    zarr.create_group(str(folder), zarr_format=3, attributes=dict(attributes))
    sync(folder / METADATA)


def create_array(folder: Path, size: int, coding: Coding, chunks: Chunks, num_rows: int = 0) -> None:
    """Make the metadata of a Zarr v3 array `[time, param]`, and the folder `c` for its chunks."""
    import zarr
    from zarr.codecs import BloscCodec, TransposeCodec

    compressor = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle", typesize=4) if coding.compressed else None
    zarr.create_array(
        str(folder),
        shape=(num_rows, size),
        chunks=(chunks.rows, chunks.coordinates),
        dtype=coding.data_type,
        filters=[TransposeCodec(order=(1, 0))] if chunks.by_coordinate else None,
        compressors=compressor,
        fill_value=coding.fill,  # what is missing shall not look like a real row
        dimension_names=("time", "param"),
        attributes={} if coding.name == "float32" else {"tier": coding.name},
        zarr_format=3,
    )
    (folder / "c").mkdir()
    sync(folder / METADATA)


def create_index(folder: Path, size: int) -> Path:
    """Make a Zarr v3 array of int64, `[param]`, in one chunk, and give the path of that chunk."""
    import zarr

    zarr.create_array(
        str(folder), shape=(size,), chunks=(size,), dtype="int64", compressors=None, fill_value=-1, zarr_format=3
    )
    (folder / "c").mkdir()
    return folder / "c" / "0"


def read_attributes(folder: Path) -> Any:
    """The attributes of a Zarr v3 group.

    Raises:
        TrajectoryError: if the folder is none.
    """
    if not folder.is_dir():
        raise TrajectoryError(f"There is no folder {folder}. Check the path.")
    metadata = read_json(folder / METADATA)
    if metadata.get("zarr_format") != 3 or metadata.get("node_type") != "group":
        raise TrajectoryError(f"{folder} is not a trajectory store: it is no Zarr v3 group. Check the path.")
    return metadata.get("attributes")


def read_json(path: Path) -> dict[str, Any]:
    """A `zarr.json`.

    Raises:
        TrajectoryError: if it is missing, too large, or no dictionary of JSON.
    """
    if not path.is_file():
        raise TrajectoryError(f"{path.parent} is not a trajectory store: it has no {METADATA}. Check the path.")
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


def write_num_rows(folder: Path, num_rows: int, size: int) -> None:
    """Tell other readers of Zarr how many rows there are; the metadata is exchanged by one rename."""
    path = folder / METADATA
    metadata = read_json(path)
    if metadata["shape"] == [num_rows, size]:
        return
    metadata["shape"] = [num_rows, size]
    temporary = path.with_name(f".{METADATA}.tmp")
    temporary.write_text(json.dumps(metadata, indent=2))
    sync(temporary)
    temporary.replace(path)
    sync(folder)


def read_chunks(folder: Path, size: int, coding: Coding) -> Chunks:
    """The shape of the chunks that an array's metadata states, after everything in it has been checked.

    Raises:
        TrajectoryError: if the array is of another shape, type or coding than this library makes.
    """
    path = folder / METADATA
    metadata = read_json(path)
    try:
        num_rows, num_columns = metadata["shape"]
        chunk_rows, chunk = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        codec, *compressors = metadata["codecs"]
        by_coordinate = codec == _BY_COORDINATE
        if by_coordinate:
            codec, *compressors = compressors
        told = {
            "zarr_format": metadata["zarr_format"],
            "node_type": metadata["node_type"],
            "data_type": metadata["data_type"],
            "chunk grid": metadata["chunk_grid"]["name"],
            "chunk keys": metadata["chunk_key_encoding"]["name"],
            "codec": codec["name"],
            "endian": codec["configuration"]["endian"],
            "compressors": [item["name"] for item in compressors],
        }
        separator = metadata["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TrajectoryError(f"{path} is damaged: {error!r}. Restore it from a copy.") from error
    known = {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": coding.data_type,
        "chunk grid": "regular",
        "chunk keys": "default",
        "codec": "bytes",
        "endian": "little",
        "compressors": ["blosc"] if coding.compressed else [],
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
    if type(chunk_rows) is not int or not 1 <= chunk_rows <= MAX_CHUNK_ROWS or chunk_rows * chunk > MAX_CHUNK:
        raise TrajectoryError(
            f"{path} must have chunks of 1 to {MAX_CHUNK_ROWS} rows and at most {MAX_CHUNK} numbers, got "
            f"{chunk_rows!r:.80} rows."
        )
    return Chunks(chunk_rows, chunk, by_coordinate)


def sync(path: Path) -> None:
    """Have the kernel write a file or the entries of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

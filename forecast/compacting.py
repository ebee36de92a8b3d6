"""Rewrite a finished trajectory so that a few coordinates of all rows are read fast."""

import math
import os
import shutil
from pathlib import Path

import numpy as np

from .commit_log import explained, write_all
from .description import INDEX, Description
from .errors import TrajectoryError
from .trajectory import LOCK, LOG, Trajectory
from .zarr_metadata import MAX_CHUNK, Chunks, create_array, create_group, read_attributes

MAX_BLOCK_ROWS = 256
_SPAN = 2**16  # coordinates of a block of rows held at once: 64 MiB


def compact(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Write a copy of a store whose chunks hold up to 256 rows of few coordinates instead of one row of many.

    All rows of a coordinate lie together. A read of neighbouring coordinates over all rows is then one piece of one or
    two files for 256 rows; what it returns is laid out so, too (Fortran order). Reading a whole row becomes slower, as
    it lies in many files. The copy is the same recording: same log, digest and uuid, and `verify` checks the same
    CRCs. It is for reading; nothing can be appended.

    Args:
        path: a store that nobody writes to.
        out: a folder that does not exist.

    Raises:
        TrajectoryError: if a row is damaged, somebody is writing, or `out` exists or cannot be written.

    Examples:
        >>> import tempfile, torch
        >>> from deadreckon.forecast import Trajectory, pack
        >>> vector, layout = pack(torch.nn.Linear(3, 2))
        >>> folder = tempfile.TemporaryDirectory()
        >>> with Trajectory.create(folder.name + "/run", layout) as trajectory:
        ...     trajectory.append(10, streams={"weights": vector})
        >>> compact(folder.name + "/run", folder.name + "/compact")
        >>> Trajectory.open(folder.name + "/compact").stream("weights").read(slice(None), 2, 4).shape
        (1, 2)
        >>> folder.cleanup()
    """
    target = Path(os.path.realpath(out))
    if target.exists():
        raise TrajectoryError(f"{target} exists already. Choose another folder or remove it.")
    temporary = target.with_name(f".{target.name}.tmp")
    # Open for appending: nobody else writes meanwhile, and a torn tail is gone before the log is copied.
    with Trajectory.open(path, "a") as source, explained(f"compact {path}"):
        source.verify()
        attributes = read_attributes(source.path)
        about = Description.from_attributes(source.path, attributes)
        try:
            create_group(temporary, attributes)
            for name in (LOG, INDEX):
                if (source.path / name).is_file():
                    shutil.copyfile(source.path / name, temporary / name)
                elif (source.path / name).is_dir():
                    shutil.copytree(source.path / name, temporary / name)
            (temporary / LOCK).touch()
            for name in source.streams:
                _compact_stream(source, about, name, temporary / name)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _compact_stream(source: Trajectory, about: Description, name: str, folder: Path) -> None:
    stream, coding = source.stream(name), about.streams[name].coding
    size, num_rows = stream.layout.size, len(stream)
    block = min(MAX_BLOCK_ROWS, max(2, num_rows))
    width = min(size, MAX_CHUNK // block)
    width = math.ceil(size / math.ceil(size / width))
    create_array(folder, size, coding, Chunks(block, width, by_coordinate=True), num_rows)
    spans = range(0, size, width * max(1, _SPAN // width))
    for first_row in range(0, num_rows, block):
        rows = range(first_row, min(first_row + block, num_rows))
        (folder / "c" / str(first_row // block)).mkdir()
        for start in spans:
            stop = min(size, start + spans.step)
            values = coding.to_stored(stream.read(rows, start, stop))
            for begin in range(start, stop, width):
                piece = values[:, begin - start : min(begin + width, stop) - start]
                chunk = np.full((width, block), coding.fill, coding.dtype)
                chunk[: piece.shape[1], : piece.shape[0]] = piece.T
                with open(folder / "c" / str(first_row // block) / str(begin // width), "xb", buffering=0) as file:
                    write_all(file, memoryview(coding.compress(chunk.reshape(-1))))

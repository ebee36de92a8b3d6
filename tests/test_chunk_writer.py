"""Chunk files past the page cache and through it hold the same bytes, and rows are cut into whole blocks of a disk."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.forecast import Layout, TensorSpec, Trajectory, chunk_writer
from deadreckon.forecast.chunk_writer import ALIGNMENT, MIN_DIRECT, ChunkWriter, aligned_zeros
from deadreckon.forecast.zarr_metadata import MAX_CHUNK, row_chunks

NUM_BYTES = MIN_DIRECT + ALIGNMENT


def some_bytes(count: int, shift: int) -> np.ndarray:
    """Bytes that begin `shift` bytes behind an aligned address."""
    data = aligned_zeros(count + shift, np.uint8)[shift:]
    data[:] = np.random.default_rng(count).integers(0, 256, count)
    return data


def refuse(monkeypatch: pytest.MonkeyPatch, moment: str, number: int) -> None:
    """A file system that refuses at `open`, after it has made the file as some do, or at the first `write`."""
    real_open, real_write = os.open, os.write
    direct: set[int] = set()

    def opening(path: Any, flags: int, *arguments: Any, **others: Any) -> int:
        descriptor = real_open(path, flags & ~chunk_writer._DIRECT, *arguments, **others)
        if flags & chunk_writer._DIRECT:
            if moment == "open":
                os.close(descriptor)
                raise OSError(number, "refused")
            direct.add(descriptor)
        return descriptor

    def writing(descriptor: int, data: Any) -> int:
        if descriptor in direct and moment == "write":
            direct.clear()
            raise OSError(number, "refused")
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "write", writing)


@pytest.mark.parametrize("shift", [0, 16])
@pytest.mark.parametrize("missing", [0, 1, 5000])
def test_files_hold_what_they_were_given(tmp_path: Path, shift: int, missing: int) -> None:
    """Whatever its address and length, the content arrives, padded with zeros, and a second file is no mixture."""
    writer = ChunkWriter(NUM_BYTES)
    for turn in range(2):
        data = some_bytes(NUM_BYTES - missing - turn, shift)
        writer.write(tmp_path / str(turn), data, do_sync=True)
        assert (tmp_path / str(turn)).read_bytes() == data.tobytes() + bytes(missing + turn)


@pytest.mark.parametrize("moment", ["open", "write"])
def test_a_system_that_refuses_gets_plain_files(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where direct writing is refused, at either moment, the file goes through the page cache, as all later ones."""
    if not chunk_writer._DIRECT:
        pytest.skip("this system has no direct writing")
    refuse(monkeypatch, moment, errno.EINVAL)
    writer = ChunkWriter(NUM_BYTES)
    data = some_bytes(NUM_BYTES - 3, 0)
    writer.write(tmp_path / "a", data, do_sync=False)
    assert not writer.is_direct
    assert (tmp_path / "a").read_bytes() == data.tobytes() + bytes(3)


@pytest.mark.parametrize("moment", ["open", "write"])
def test_other_errors_are_not_hidden(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is an error and no reason to try another way; neither is a file that exists."""
    if not chunk_writer._DIRECT:
        pytest.skip("this system has no direct writing")
    writer = ChunkWriter(NUM_BYTES)
    (tmp_path / "b").touch()
    with pytest.raises(FileExistsError):
        writer.write(tmp_path / "b", some_bytes(NUM_BYTES, 0), do_sync=False)
    refuse(monkeypatch, moment, errno.ENOSPC)
    with pytest.raises(OSError, match="refused"):
        writer.write(tmp_path / "a", some_bytes(NUM_BYTES, 0), do_sync=False)
    assert writer.is_direct


@pytest.mark.parametrize("num_bytes", [0, MIN_DIRECT - ALIGNMENT, MIN_DIRECT + 1])
def test_small_and_odd_files_are_plain(num_bytes: int) -> None:
    """Files that are small or no whole number of blocks are not written directly."""
    assert not ChunkWriter(num_bytes).is_direct


@given(size=st.integers(1, 600 * MAX_CHUNK))
def test_chunks_cover_a_row_in_whole_blocks(size: int) -> None:
    """As few chunks as the limit allows, none of them empty, each of whole blocks of a disk where they are large."""
    chunk = row_chunks(size).coordinates
    count = math.ceil(size / MAX_CHUNK)
    assert (count - 1) * chunk < size <= count * chunk
    assert chunk <= MAX_CHUNK
    assert chunk < 2**18 or 2 * chunk % ALIGNMENT == 0


def test_rows_of_many_blocks_come_back(tmp_path: Path) -> None:
    """Rows long enough for direct writing are read as they were appended, from aligned memory and other."""
    size = MIN_DIRECT // 4 + 4321
    rows = [aligned_zeros(size, "<f4"), np.zeros(size + 1, "<f4")[1:]]
    with Trajectory.create(
        tmp_path / "t", Layout((TensorSpec("w", (size,), "float32", 0, "weight"),)), durability="row"
    ) as trajectory:
        for step, row in enumerate(rows):
            row[:] = np.random.default_rng(step).standard_normal(size)
            trajectory.append(step, {"weights": row})
    found = Trajectory.open(tmp_path / "t")
    found.verify()
    np.testing.assert_array_equal(found.stream("weights")[:], np.stack(rows))

"""A queue of runs in a folder: several workers share it, and whoever is killed leaves nothing half done."""

import fcntl
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ResultError
from ..files import write_whole

MAX_BYTES = 1 << 22  # of one result


class RunQueue:
    """Results by key, one file each, and locks by key.

    A run is done when its file is there; files are written whole or not at all. A run is somebody's while a lock of the
    operating system is held, which ends with the process however it ends: after `kill -9` the run is simply open again.
    Works on one machine, and wherever the file system honours `flock`.

    Args:
        folder: made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._results = folder / "runs"
        self._locks = folder / "locks"
        for path in (self._results, self._locks):
            path.mkdir(parents=True, exist_ok=True)

    def done(self, key: str) -> bool:
        """Whether there is a result."""
        return self._path(key).exists()

    def read(self, key: str) -> dict[str, Any]:
        """A result.

        Raises:
            FileNotFoundError: if there is none.
            ResultError: if the file is no result; delete it and it is run again.
        """
        return read_json(self._path(key))

    def write(self, key: str, result: dict[str, Any]) -> None:
        """Keep a result, whole or not at all."""
        write_whole(self._path(key), json.dumps(result, allow_nan=True))

    def _path(self, key: str) -> Path:
        return self._results / f"{file_name(key)}.json"

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Try to take a run: True inside if it is open and nobody else has it, and it is taken until the end."""
        with (self._locks / f"{file_name(key)}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            # Someone may have finished it between a look and the lock.
            yield not self.done(key)

    def open_keys(self, keys: Sequence[str]) -> list[str]:
        """Those that are not done."""
        return [key for key in keys if not self.done(key)]


def file_name(key: str) -> str:
    """A key as a file's name."""
    return re.sub(r"[^\w.+-]", "_", key)


def read_json(path: Path) -> dict[str, Any]:
    """A mapping from a file of ours.

    Raises:
        FileNotFoundError: if there is none.
        ResultError: if it is too large or something else.
    """
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("no mapping")
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is no result of a race: {error}. Delete it, and it is made again.") from error
    return value

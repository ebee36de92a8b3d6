"""Keep a copy of a trajectory at a URL, through fsspec: object stores, other machines, memory."""

import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import TrajectoryError
from .trajectory import LOCK, LOG, Trajectory
from .zarr_metadata import METADATA


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a place that fsspec has to reach, such as `s3://bucket/run`."""
    return "://" in os.fspath(path)


class Mirror:
    """The copy of a local store at a URL, brought up to date as rows are committed.

    Rows are sent first and the log after them, in one piece, which object stores publish whole or not at all. So what
    is at the URL is always a store that can be read: perhaps a few seconds behind. The log is sent at most every
    `seconds`, and at `close`.

    One writer at a time: the URL's `writer.lock` names who writes. Nobody frees it for a process that died, and two
    processes that start in the same moment may both take it: no object store that fsspec knows can prevent that.

    Args:
        url: of the store.
        seconds: between uploads of the log. Tuning: less loses less when the machine dies; more sends the log, about
            150 bytes a commit, less often.

    Raises:
        TrajectoryError: if somebody else writes there, or the place cannot be reached.
    """

    def __init__(self, url: str, seconds: float = 10.0) -> None:
        self.url = url
        self._seconds = seconds
        self._sent: dict[str, int] = {}
        self._due = 0.0
        with _explained(f"reach {url}"):
            self._fs, self._root = _filesystem(url)
            if self._fs.exists(f"{self._root}/{LOCK}"):
                holder = self._fs.cat_file(f"{self._root}/{LOCK}")[:300].decode(errors="replace")
                raise TrajectoryError(
                    f"{url} is open for writing already: {holder}. If that process is dead, remove {url}/{LOCK}."
                )

    def require_new(self) -> None:
        """Refuse a place that holds something.

        Raises:
            TrajectoryError: if it does.
        """
        with _explained(f"reach {self.url}"):
            if self._fs.exists(self._root) and self._fs.find(self._root):
                raise TrajectoryError(f"{self.url} exists already. Choose another place, or remove it.")

    def begin(self, trajectory: Trajectory) -> None:
        """Take the lock, and make the URL hold what the local store does: send what is new, remove what was cut."""
        holder = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T")}
        with _explained(f"write to {self.url}"):
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{LOCK}", json.dumps(holder).encode())
            for path in sorted(trajectory.path.glob("*/c/0")):
                if path.is_file():  # the coordinates of a sample
                    self._send(trajectory, path)
            self._send_metadata(trajectory)
            self._send(trajectory, trajectory.path / LOG)  # first, so that no row is missing that a log speaks of
            for name in trajectory.streams:
                count = len(trajectory.stream(name))
                there = self._rows(name)
                for row in there - set(range(count)):
                    self._fs.rm(f"{self._root}/{name}/c/{row}", recursive=True)
                # Rows beyond a cut are gone, so those that are there are the same.
                self._sent[name] = next((row for row in range(count) if row not in there), count)
        self.update(trajectory, everything=True)

    def update(self, trajectory: Trajectory, everything: bool = False) -> None:
        """Send rows that are new and, if it is time or `everything` is asked for, the log."""
        with _explained(f"write to {self.url}"):
            for name in trajectory.streams:
                for row in range(self._sent[name], len(trajectory.stream(name))):
                    for path in sorted((trajectory.path / name / "c" / str(row)).iterdir()):
                        self._send(trajectory, path)
                    self._sent[name] = row + 1
            if everything or time.monotonic() >= self._due:
                self._send(trajectory, trajectory.path / LOG)
                self._due = time.monotonic() + self._seconds

    def close(self, trajectory: Trajectory) -> None:
        """Send what is missing, once the local store is closed, and give the lock back."""
        self.update(trajectory, everything=True)
        with _explained(f"write to {self.url}"):
            self._send_metadata(trajectory)
            self._fs.rm_file(f"{self._root}/{LOCK}")

    def _send(self, trajectory: Trajectory, path: Path) -> None:
        self._fs.pipe_file(f"{self._root}/{path.relative_to(trajectory.path).as_posix()}", path.read_bytes())

    def _send_metadata(self, trajectory: Trajectory) -> None:
        for path in [trajectory.path / METADATA, *sorted(trajectory.path.glob(f"*/{METADATA}"))]:
            self._send(trajectory, path)

    def _rows(self, stream: str) -> set[int]:
        folder = f"{self._root}/{stream}/c"
        if not self._fs.exists(folder):
            return set()
        names = (str(entry).rstrip("/").rpartition("/")[2] for entry in self._fs.ls(folder, detail=False))
        return {int(name) for name in names if name.isdecimal()}


def download(url: str, folder: str | os.PathLike[str]) -> None:
    """Copy a store from a URL into a new folder, where `Trajectory.open` reads it.

    The arrays alone can be read in place: `zarr.open_group(url)`.

    Raises:
        TrajectoryError: if the folder exists or the place cannot be reached.
    """
    target = Path(folder)
    if target.exists():
        raise TrajectoryError(f"{target} exists already. Choose another folder or remove it.")
    temporary = target.with_name(f".{target.name}.tmp")
    with _explained(f"download {url}"):
        fs, root = _filesystem(url)
        # The log first: it speaks of no row that is not there already.
        (temporary).mkdir(parents=True)
        try:
            (temporary / LOG).write_bytes(fs.cat_file(f"{root}/{LOG}"))
            for name in fs.find(root):
                inner = str(name).removeprefix(root).lstrip("/")
                parts = Path(inner).parts
                if inner in (LOG, LOCK) or ".." in parts or Path(inner).is_absolute():
                    continue
                path = temporary / inner
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(fs.cat_file(name))
            for path in temporary.glob(f"*/{METADATA}"):
                (path.parent / "c").mkdir(exist_ok=True)  # of a stream without rows
            (temporary / LOCK).touch()
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec  # readers of local stores do without

    fs, root = fsspec.core.url_to_fs(url)
    return fs, str(root).rstrip("/")


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever a file system of fsspec raises into a `TrajectoryError` that says what was being done."""
    try:
        yield
    except TrajectoryError:
        raise
    except Exception as error:  # each of its file systems has errors of its own
        raise TrajectoryError(f"Could not {what}: {type(error).__name__}: {error}.") from error

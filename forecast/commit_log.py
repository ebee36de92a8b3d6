"""The one truth about what a trajectory store holds: a log of commits, each whole or absent."""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import weakref
import zlib
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from .errors import TrajectoryError

MAX_LINE = 2**24  # bytes; a longer line is refused when written, and damage or malice when read
_FLOAT = "$float"  # marks the floats that JSON has no word for


def to_plain(value: object, what: str) -> Any:
    """A value in the words of strict JSON; NaN and infinities become `{"$float": "nan"}`. `from_plain` is the way back.

    Args:
        value: None, bool, int, float, str, and lists, tuples and dictionaries of them. Tuples come back as lists.
        what: what it is, for the message.

    Raises:
        TrajectoryError: if it is or contains anything else.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise TrajectoryError(f"Whole numbers in {what} must fit 64 bits, got one of {value.bit_length()} bits.")
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: str(float(value))}
    if isinstance(value, list | tuple):
        return [to_plain(item, what) for item in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key == _FLOAT:
                raise TrajectoryError(f"Keys in {what} must be strings other than {_FLOAT!r}, got {key!r}.")
        return {key: to_plain(item, what) for key, item in value.items()}
    raise TrajectoryError(
        f"{what} must be plain JSON values, got {type(value).__name__}. Convert it, e.g. with `float(...)`."
    )


def from_plain(value: Any) -> Any:
    """The value that `to_plain` was given.

    Raises:
        ValueError: if it is not a result of `to_plain`.
    """
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if isinstance(value, dict):
        if _FLOAT in value:
            return float(value[_FLOAT])
        return {key: from_plain(item) for key, item in value.items()}
    return value


def encode_json(value: object) -> bytes:
    """One line of ASCII."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


class WriterLock:
    """The right to write one store, held by one open object of one process; the kernel frees it when that dies.

    A child made by `fork` does not share it: else a data loader's worker that outlives its parent would keep the store
    locked. On network file systems it is as good as their `flock`.

    Raises:
        TrajectoryError: if somebody else holds it.
    """

    def __init__(self, path: Path) -> None:
        file = open(path, "ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if isinstance(error, BlockingIOError):
                raise TrajectoryError(
                    f"{path.parent} is open for writing already, in this process or another. "
                    "Close it there, or record into another folder."
                ) from None
            raise
        self._file = file
        _LOCKS.add(self)

    @property
    def held(self) -> bool:
        """Whether this process may write."""
        return not self._file.closed

    def release(self) -> None:
        """Let others write; harmless when repeated."""
        if self.held:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()

    def forget(self) -> None:
        """Give up this process' share without unlocking for the parent that it was forked from."""
        self._file.close()


_LOCKS: "weakref.WeakSet[WriterLock]" = weakref.WeakSet()


def _forget_in_child() -> None:
    for lock in list(_LOCKS):
        lock.forget()


os.register_at_fork(after_in_child=_forget_in_child)


class CommitLog:
    """An append-only file of JSON lines `["crc", payload]`; a line that is not whole does not count.

    The CRC of a line goes on from that of the line before, so a changed, lost or exchanged line is noticed. The first
    line is a header that ties the log to its store. A torn line can only be the last one, left behind by a process or
    machine that died: it lacks its newline, or has zero bytes where blocks were never written. Readers ignore it and
    the next writer cuts it. Anything else that does not fit is damage, and an error.

    Args:
        path: the file.
        header: the payload of its first line.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self._header = encode_json(header)
        self._file: FileIO | None = None
        self._sync = False
        self._reset()

    def _reset(self) -> None:
        self.num_bytes = 0
        self._crc = 0
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all payloads after the header."""
        return self._digest.hexdigest()

    def create(self) -> None:
        """Write the file anew, with the header only."""
        with open(self.path, "xb") as file:
            file.write(_line(self._header, zlib.crc32(self._header)))
            file.flush()
            os.fsync(file.fileno())

    def replay(self) -> Iterator[Any]:
        """The payloads after the header, oldest first. What the caller does not go past is left out: see `cut`.

        Raises:
            TrajectoryError: if the log belongs to another store, or a line other than the last is damaged.
        """
        self._reset()
        if not self.path.is_file():
            raise TrajectoryError(f"{self.path} is missing. Restore it from a copy; without it the rows mean nothing.")
        with open(self.path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
                text = line[12:-2]
                crc = zlib.crc32(text, self._crc)
                if line != _line(text, crc):
                    torn = not line.endswith(b"\n") or b"\0" in line
                    if torn and number > 1 and len(line) <= MAX_LINE and not file.read(1):
                        return
                    raise TrajectoryError(
                        f"Line {number} of {self.path} is damaged. Restore the file from a copy, or keep the "
                        f"{self.num_bytes} bytes before that line and lose the rest."
                    )
                if number == 1:
                    if text != self._header:
                        raise TrajectoryError(f"{self.path} belongs to another store. Put the right one back.")
                    self.num_bytes, self._crc = len(line), crc
                    continue
                try:
                    payload = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise TrajectoryError(f"Line {number} of {self.path} is not JSON: {error}.") from error
                yield payload
                self._accept(text, crc, len(line))
        if self.num_bytes == 0:
            raise TrajectoryError(f"{self.path} is empty. Restore it from a copy; without it the rows mean nothing.")

    def _accept(self, text: bytes, crc: int, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        self._crc = crc
        self._digest.update(text + b"\n")

    def open_for_append(self, sync: bool) -> None:
        """Get ready for `cut` and `append`; with `sync`, each commit reaches the disk before `append` returns."""
        self._file = open(self.path, "ab", buffering=0)
        self._sync = sync

    def cut(self) -> int:
        """Drop everything behind what `replay` went past: a torn line, or commits that shall be forgotten.

        One truncation, so a crash leaves either the old log or the new one.

        Returns:
            How many bytes were dropped.
        """
        file = self._writable()
        dropped = os.fstat(file.fileno()).st_size - self.num_bytes
        if dropped:
            os.ftruncate(file.fileno(), self.num_bytes)
            os.fsync(file.fileno())
        return dropped

    def append(self, payload: Mapping[str, Any]) -> None:
        """Commit one payload.

        Raises:
            TrajectoryError: if it is too long for a line.
            OSError: if the disk refuses; the log is as before.
        """
        file = self._writable()
        text = encode_json(payload)
        crc = zlib.crc32(text, self._crc)
        line = _line(text, crc)
        if len(line) > MAX_LINE:
            raise TrajectoryError(f"One commit may take {MAX_LINE} bytes besides its rows, got {len(line)}.")
        try:
            write_all(file, memoryview(line))
            if self._sync:
                os.fsync(file.fileno())
        except OSError:
            # If this fails too, a torn line stays behind: readers ignore it and the store cuts it before it goes on.
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), self.num_bytes)
            raise
        self._accept(text, crc, len(line))

    def _writable(self) -> FileIO:
        if self._file is None:
            raise TrajectoryError(f"{self.path} is not open for appending.")
        return self._file

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(text: bytes, crc: int) -> bytes:
    return b'["%08x",%b]\n' % (crc, text)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what the system says into a `TrajectoryError` that says what was being done."""
    try:
        yield
    except TrajectoryError:
        raise
    except OSError as error:
        raise TrajectoryError(f"Could not {what}: {error}. Check permissions and free space.") from error


def write_all(file: FileIO, data: memoryview) -> None:
    """Write every byte, however many calls the system takes for it."""
    while len(data):
        data = data[file.write(data) or 0 :]

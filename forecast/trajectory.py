"""What one training run recorded: streams of vectors at their own cadence, scalars and events."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from .commit_log import CommitLog, WriterLock, encode_json, explained, from_plain, to_plain
from .description import Description, create_store
from .errors import TrajectoryError
from .layout import Layout
from .records import Commit, Event, Records, Scalars, ScalarTable, require_scalar, require_step
from .selection import Selection
from .stream import Stream, to_row
from .tiers import Tier
from .zarr_metadata import read_attributes
from .zarr_rows import RowFiles

if TYPE_CHECKING:
    import torch

Durability = Literal["none", "row"]
LOG, LOCK = "commit.log", "writer.lock"


class Trajectory:
    """A store of what one run recorded. Make it with `create`, `open` or `resume`; close it, or use `with`.

    On disk it is a folder and a Zarr v3 group: one array `[time, param]` a stream, and `commit.log`, which
    alone says what exists. Every `append` and `add_event` is one line there, so it is there wholly or not at all,
    whenever the process is killed. Reading needs numpy only and may go on while another process writes; a reader sees
    what was committed when it opened. `zarr.open_group(path)` reads the arrays as well; their shape in `zarr.json`
    is brought up to date when the writer closes.

    One writer at a time, and one thread at a time. A forked child may read, not write.

    Attributes:
        path: the folder.
        layout: what the coordinates mean, of all streams that have no layout of their own; see `Stream.layout`.
        streams: names of the streams.
        metadata: what the maker of the run noted, plain JSON values.
        uuid: tells this store from every other one.
        selection: what of the network the layout is; None for all of it.
        notice: what opening for appending cut, in a sentence; empty if nothing.

    Examples:
        >>> import tempfile, torch
        >>> from deadreckon.forecast import pack
        >>> vector, layout = pack(torch.nn.Linear(3, 2))
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = folder.name + "/run"
        >>> with Trajectory.create(path, layout, streams=("weights", "gradients")) as trajectory:
        ...     trajectory.append(10, streams={"weights": vector}, scalars={"loss": 0.5})
        >>> Trajectory.open(path).stream("weights").steps
        array([10])
        >>> folder.cleanup()
    """

    def __init__(
        self,
        path: Path,
        durability: Durability = "none",
        lock: WriterLock | None = None,
        last_step: int | None = None,
    ) -> None:
        about = Description.from_attributes(path, read_attributes(path))
        self.path = path
        self.layout = about.layout
        self.streams = tuple(about.streams)
        self.metadata = about.metadata
        self.uuid = about.uuid
        self.selection = about.selection
        self.notice = ""
        self._about = about
        self._files = {
            name: RowFiles(path / name, spec.layout.size, spec.coding) for name, spec in about.streams.items()
        }
        self._records = Records(self.streams)
        self._log = CommitLog(path / LOG, about.header)
        self._sync = durability == "row"
        self._lock = lock
        self._in_doubt = False
        if lock is None:
            self._replay()
        else:
            if any(files.is_compact for files in self._files.values()):
                raise TrajectoryError(f"{path} was made by `compact`: it can be read and not appended to.")
            self._log.open_for_append(self._sync)
            try:
                self._recover(last_step)
            except BaseException:
                self._log.close()
                raise

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        layout: Layout,
        streams: Sequence[str] = ("weights",),
        metadata: Mapping[str, Any] | None = None,
        *,
        durability: Durability = "none",
        tiers: Mapping[str, Tier] | None = None,
        layouts: Mapping[str, Layout] | None = None,
        selection: Selection | None = None,
    ) -> Self:
        """A new, empty store, open for appending.

        Args:
            path: a folder that does not exist yet or is empty.
            layout: what the coordinates mean; no tensor of it may be float64.
            streams: names of the streams, small letters, digits and underscores.
            metadata: plain JSON values for whoever reads the store: optimiser, task, seed, ...
            durability: `none` survives the death of the process at any moment, and may lose or damage the newest rows
                when the machine itself dies; `row` waits for the disk in every append and survives that too. Tuning:
                keep `none` unless power fails or the run is preempted with its machine; `row` halves the speed of
                appending or worse.
            tiers: by stream, how its numbers are stored; `float32` for those not named. Tuning: keep that for what
                differences are taken of; `bfloat16` halves the bytes of gradients and moments; `lossless` pays for
                streams full of zeros.
            layouts: by stream, what its coordinates mean where that is not `layout`.
            selection: of a network, what `layout` is.

        Raises:
            TrajectoryError: if the folder holds something, or cannot be made, or a name or the metadata is impossible.
            LayoutError: if the layout is empty or has a float64 tensor.
        """
        folder = Path(os.path.realpath(path))
        _require_durability(durability)
        about = Description.new(layout, streams, metadata or {}, tiers or {}, layouts or {}, selection)
        # Made aside and renamed, so that there is a whole store or none; an empty folder gives way to the rename.
        temporary = folder.parent / f".{folder.name}.{about.uuid}.tmp"
        with explained(f"create {folder}"):
            if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
                raise TrajectoryError(
                    f"{folder} exists already. Choose another folder, remove it, or go on with it by "
                    "`Trajectory.resume` or `Trajectory.open(path, 'a')`."
                )
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                create_store(temporary, about)
                CommitLog(temporary / LOG, about.header).create()
                (temporary / LOCK).touch()
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return cls._open_writer(folder, durability)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], mode: Literal["r", "a"] = "r", *, durability: Durability = "none"
    ) -> Self:
        """An existing store.

        Args:
            path: its folder.
            mode: `r` to read; `a` to append: takes the writer's lock, cuts a torn tail and removes rows that were
                never committed.
            durability: see `create`; without effect on reading.

        Raises:
            TrajectoryError: if it is no such store, is of another format version or damaged; or `mode` is `a` and
                somebody else is writing.
            LayoutError: if its layout is damaged.
        """
        if mode not in ("r", "a"):
            raise TrajectoryError(f"`mode` must be 'r' or 'a', got {mode!r}.")
        if "://" in os.fspath(path):
            raise TrajectoryError(f"{path} is a URL. Copy it with `deadreckon.forecast.download(url, folder)` first.")
        if mode == "a":
            return cls._open_writer(Path(os.path.realpath(path)), durability)
        with explained(f"open {path}"):
            return cls(Path(os.path.realpath(path)))

    @classmethod
    def resume(
        cls, path: str | os.PathLike[str], layout: Layout, step: int, *, durability: Durability = "none"
    ) -> Self:
        """An existing store open for appending, with everything after an optimiser step forgotten.

        Args:
            path: its folder.
            layout: the layout of the run that goes on, compared with the stored one.
            step: the step of the checkpoint. Rows, scalars and events of later steps are cut; those of this step stay.
            durability: see `create`.

        Raises:
            TrajectoryError: as in `open`.
            LayoutError: if the layouts differ. Nothing has been cut then.
        """
        folder = Path(os.path.realpath(path))
        step = require_step(step)
        with cls.open(folder) as found:
            layout.require_same(found.layout, f"the trajectory {folder}")
        return cls._open_writer(folder, durability, step)

    @classmethod
    def _open_writer(cls, folder: Path, durability: Durability, last_step: int | None = None) -> Self:
        _require_durability(durability)
        with explained(f"open {folder} for appending"):
            read_attributes(folder)  # before the lock's file is made in a folder that is something else
            lock = WriterLock(folder / LOCK)
            try:
                return cls(folder, durability, lock, last_step)
            except BaseException:
                lock.release()
                raise

    def _replay(self, last_step: int | None = None) -> None:
        """Rebuild the records from the log, up to the first one after `last_step`."""
        self._records.clear()
        for number, payload in enumerate(self._log.replay(), start=1):
            try:
                record = self._records.from_payload(payload)
            except TrajectoryError as error:
                raise TrajectoryError(f"Record {number} of {self._log.path} is damaged. {error}") from error
            # Steps never decrease, so everything after a step is the end of the log and one truncation cuts it.
            if last_step is not None and record.step > last_step:
                return
            self._records.add(record)

    def _recover(self, last_step: int | None = None) -> None:
        """Make the folder what the log says: cut the log first, then remove the rows it no longer knows.

        A crash between the two leaves rows that nobody reads and the next writer removes.
        """
        self._replay(last_step)
        num_bytes = self._log.cut()
        swept = sum(files.sweep(len(self._records.streams[name])) for name, files in self._files.items())
        if num_bytes or swept:
            after = f"after step {last_step}" if last_step is not None else "that no commit was complete for"
            self.notice = f"{self.path}: cut {swept} rows and {num_bytes} bytes of the log {after}."
        self._tell_zarr()
        self._in_doubt = False

    def _tell_zarr(self) -> None:
        for name, files in self._files.items():
            files.set_num_rows(len(self._records.streams[name]))

    def append(
        self,
        step: int,
        streams: "Mapping[str, NDArray[np.float32] | torch.Tensor] | None" = None,
        scalars: Mapping[str, float] | None = None,
    ) -> None:
        """Record rows and scalars of one optimiser step, all of them or, if this raises, none.

        Args:
            step: the optimiser step they were taken after. Never decreases; increases within each stream and each
                scalar, except that a step may come again after a breaking event.
            streams: by stream, the vector, `[param]`, float32, of numpy or torch on any device; copied.
            scalars: by name, numbers; NaN and infinities are kept.

        Raises:
            TrajectoryError: if the step does not fit, a name is unknown, or the disk refuses: nothing is recorded
                then, what was committed stays readable, and later appends may work again.
            LayoutError: if a vector is of another shape or type.
        """
        self._require_writer()
        step = require_step(step)
        vectors = {
            name: to_row(vector, name, self._about.streams[name].layout if name in self._about.streams else self.layout)
            for name, vector in (streams or {}).items()
        }
        numbers = {name: require_scalar(value, name) for name, value in (scalars or {}).items()}
        self._records.require_fits(Commit(step, dict.fromkeys(vectors, 0), numbers))
        with self._committing(f"append step {step} to {self.path}", vectors):
            rows = {
                name: self._files[name].write(len(self._records.streams[name]), vector, self._sync)
                for name, vector in vectors.items()
            }
            self._commit(Commit(step, rows, numbers))

    def add_event(self, kind: str, step: int, breaks: bool, **details: Any) -> None:
        """Record that something happened to the run.

        Args:
            kind: what: `jump`, `resume`, `schedule`, ...
            step: the optimiser step after which it happened; never decreases.
            breaks: whether it tore the curve. What is appended before the call lies before the tear, what is appended
                after it lies behind, and no window may span it.
            **details: plain JSON values.

        Raises:
            TrajectoryError: if the step does not fit, the details are not plain, or the disk refuses.
        """
        self._require_writer()
        plain = to_plain(details, "Details of an event")
        event = Event(kind, require_step(step), bool(breaks), from_plain(plain))
        self._records.require_fits(event)
        with self._committing(f"add an event to {self.path}", ()):
            self._commit(event)

    def _require_writer(self) -> None:
        if self._lock is None:
            raise TrajectoryError(f"{self.path} is open for reading. Open it with mode 'a' to append.")
        if not self._lock.held:
            raise TrajectoryError(f"{self.path} was closed, or this process was forked from its writer.")
        if self._in_doubt:
            with explained(f"recover {self.path}"):
                self._recover()

    def _commit(self, record: Commit | Event) -> None:
        self._log.append(self._records.to_payload(record))
        self._records.add(record)

    @contextlib.contextmanager
    def _committing(self, what: str, names: Sequence[str] | Mapping[str, Any]) -> Iterator[None]:
        """Around one commit: where it is left by an exception, Ctrl-C included, the log decides before the next one."""
        self._in_doubt = True
        with explained(what):
            try:
                yield
            except OSError:
                for name in names:  # room for others on a full disk; the next recovery would do it as well
                    with contextlib.suppress(OSError):
                        self._files[name].discard(len(self._records.streams[name]))
                raise
        self._in_doubt = False

    def stream(self, name: str) -> Stream:
        """One stream.

        Raises:
            TrajectoryError: if there is none of that name.
        """
        if name not in self._files:
            raise TrajectoryError(f"No stream named {name!r}. There are: {', '.join(self.streams)}.")
        spec = self._about.streams[name]
        return Stream(name, self._records.streams[name], self._files[name], spec.layout, spec.coding.name)

    @property
    def scalars(self) -> Mapping[str, Scalars]:
        """`Scalars` by name."""
        return ScalarTable(self._records.scalars)

    @property
    def events(self) -> tuple[Event, ...]:
        """Events in the order in which they were added."""
        return tuple(self._records.events)

    @property
    def num_bytes(self) -> int:
        """Bytes that the committed rows and the log take."""
        rows = (len(self._records.streams[name]) * files.num_row_bytes for name, files in self._files.items())
        return sum(rows) + self._log.num_bytes

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of what is recorded: layout, streams, metadata and the log with the rows' CRCs.

        Equal recordings have equal digests, wherever they are stored. It tells runs apart; as rows enter by their
        CRC-32 it proves nothing against an adversary.
        """
        parts = [self.layout.digest, self.streams, to_plain(self.metadata, "`metadata`"), self._log.digest]
        return hashlib.sha256(encode_json(parts)).hexdigest()

    def verify(self) -> None:
        """Read every committed row and compare its CRC-32.

        Raises:
            TrajectoryError: naming the first row that is damaged.
        """
        for name, series in self._records.streams.items():
            for row, found in enumerate(self._files[name].crcs(len(series))):
                if found != series.values[row]:
                    raise TrajectoryError(
                        f"Row {row} of stream {name!r} (step {series.steps[row]}) is damaged: its CRC-32 differs. "
                        "Restore it from a copy, or cut the run before it with `Trajectory.resume`."
                    )

    def close(self) -> None:
        """Tell Zarr's metadata how many rows there are and let others write. Reading goes on working.

        Raises:
            TrajectoryError: if the disk refuses; the store is closed and whole all the same.
        """
        try:
            if self._lock is not None and self._lock.held:
                with explained(f"close {self.path}"):
                    if self._in_doubt:
                        self._recover()
                    self._tell_zarr()
        finally:
            self._log.close()
            if self._lock is not None:
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @override
    def __repr__(self) -> str:
        rows = ", ".join(f"{name}: {len(series)}" for name, series in self._records.streams.items())
        return f"Trajectory({str(self.path)!r}, rows: {{{rows}}}, {len(self._records.events)} events)"


def _require_durability(durability: str) -> None:
    if durability not in get_args(Durability):
        raise TrajectoryError(f"`durability` must be one of {get_args(Durability)}, got {durability!r}.")

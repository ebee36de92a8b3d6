"""The store of one recording while it is being written: opened, written by a thread, copied to a URL, closed."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..forecast import ForecastError, Layout, Selection, Tier, Trajectory, TrajectoryError, TrajectoryWriter, download
from ..forecast.remote import Mirror, is_url
from ..forecast.trajectory import Durability
from .errors import ResumeError

RANKS = ".ranks"  # folder in the store, with what processes other than the first keep for a resume


class RecordingStore:
    """A trajectory open for appending, its writing thread and, if it is recorded to a URL, its copy there.

    For a URL the store is written into a temporary folder first, which is removed when everything has arrived.

    Attributes:
        trajectory: the store; see `TrajectoryWriter` for when it may be read.
        writer: what appends to it.
        notice: what a resume cut, in a sentence; empty if nothing.
        closed: whether writing has ended.
    """

    def __init__(self, trajectory: Trajectory, mirror: Mirror | None, depth: int, notice: str = "") -> None:
        self.trajectory = trajectory
        self.notice = notice
        self.closed = False
        self._mirror = mirror
        if mirror is not None:
            mirror.begin(trajectory)
        after: Callable[[], None] | None = (lambda: mirror.update(trajectory)) if mirror is not None else None
        self.writer = TrajectoryWriter(trajectory, depth, after)

    @staticmethod
    def create(
        path: str,
        selection: Selection,
        streams: tuple[str, ...],
        layouts: Mapping[str, Layout],
        tiers: Mapping[str, Tier],
        metadata: Mapping[str, Any],
        durability: Durability,
        depth: int,
    ) -> "RecordingStore":
        """A new store.

        Raises:
            TrajectoryError: if there is something already, or it cannot be made.
        """
        mirror = Mirror(path) if is_url(path) else None
        if mirror is not None:
            mirror.require_new()
        folder = _spool() if mirror is not None else Path(path)
        part = None if selection.is_everything else selection
        trajectory = Trajectory.create(
            folder,
            selection.layout,
            streams,
            metadata,
            durability=durability,
            tiers=tiers,
            layouts=layouts,
            selection=part,
        )
        return _opened(trajectory, mirror, depth)

    @staticmethod
    def resume(
        path: str,
        selection: Selection,
        streams: tuple[str, ...],
        saved: Mapping[str, Any],
        durability: Durability,
        depth: int,
    ) -> "RecordingStore":
        """The store of a checkpoint, with everything after the checkpoint cut.

        Args:
            path: folder or URL.
            selection: what the run that goes on would record.
            streams: the same.
            saved: what the checkpoint knows: `store`, `step` and perhaps `rows`.
            durability: see `Trajectory.create`.
            depth: see `TrajectoryWriter`.

        Raises:
            ResumeError: if it is gone, of another run, or records something else.
        """
        step, store = int(saved["step"]), str(saved["store"])
        try:
            mirror = Mirror(path) if is_url(path) else None
            folder = Path(path)
            if mirror is not None:
                folder = _spool()
                folder.rmdir()
                download(path, folder)
            trajectory = Trajectory.resume(folder, selection.layout, step, durability=durability)
        except ForecastError as error:
            raise ResumeError(
                f"The checkpoint was recorded into {path}, which cannot be continued: {error} "
                "Put the store back, or start a fresh run without the checkpoint."
            ) from error
        stored = trajectory.selection
        same = selection.is_everything if stored is None else stored.network.digest == selection.network.digest
        if trajectory.uuid != store or not same:
            trajectory.close()
            raise ResumeError(
                f"The store at {path} is of another run (it is {trajectory.uuid}, the checkpoint says {store})."
            )
        if trajectory.streams != streams:
            trajectory.close()
            raise ResumeError(f"The store at {path} has the streams {trajectory.streams}, asked for are {streams}.")
        notice = trajectory.notice
        rows: Mapping[str, int] = saved.get("rows", {})
        short = [name for name, count in rows.items() if len(trajectory.stream(name)) < int(count)]
        if short:
            notice += f" Rows of {', '.join(short)} that the checkpoint knows of are missing from {path}."
        return _opened(trajectory, mirror, depth, notice.strip())

    @property
    def rows(self) -> dict[str, int]:
        """How many rows each stream has."""
        return {name: len(self.trajectory.stream(name)) for name in self.trajectory.streams}

    def save(self) -> dict[str, int]:
        """Have everything written, for a checkpoint; how many rows each stream has then."""
        self.writer.drain()
        if self._mirror is not None and self.writer.error is None:
            try:
                self._mirror.update(self.trajectory, everything=True)
            except TrajectoryError as error:
                self.writer.error = error
        return self.rows

    def finish(self) -> None:
        """Write what waits, and close. What goes wrong is in the writer's `error`; what was committed stays."""
        self.closed = True
        self.writer.close()
        try:
            self.trajectory.close()
            if self._mirror is not None:
                self._mirror.close(self.trajectory)
                shutil.rmtree(self.trajectory.path, ignore_errors=True)
        except TrajectoryError as error:
            kept = f" What was recorded is in {self.trajectory.path}." if self._mirror is not None else ""
            if self.writer.error is None:
                self.writer.error = TrajectoryError(f"{error}{kept}")


def _opened(trajectory: Trajectory, mirror: Mirror | None, depth: int, notice: str = "") -> RecordingStore:
    try:
        return RecordingStore(trajectory, mirror, depth, notice)
    except BaseException:
        trajectory.close()
        raise


def _spool() -> Path:
    return Path(tempfile.mkdtemp(prefix="deadreckon-"))


def save_rank(folder: Path, rank: int, step: int, state: Mapping[str, Any]) -> None:
    """Keep what a process other than the first needs for a resume at a step; exchanged by one rename."""
    target = folder / RANKS / f"{rank}-{step}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(json.dumps(state))
    os.replace(temporary, target)


def load_rank(folder: Path, rank: int, step: int) -> dict[str, Any] | None:
    """What `save_rank` kept; None if nothing was.

    Raises:
        TrajectoryError: if it is damaged.
    """
    target = folder / RANKS / f"{rank}-{step}.json"
    if not target.is_file():
        return None
    try:
        state = json.loads(target.read_bytes())
        return {"seconds": float(state["seconds"]), "samples": int(state["samples"]), "ledger": dict(state["ledger"])}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrajectoryError(f"{target} is damaged: {error}. Remove it.") from error

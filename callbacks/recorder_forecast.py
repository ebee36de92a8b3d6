"""What a recording will take, said before the run begins."""

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import numpy as np

from ..forecast import TrajectoryError
from ..forecast.description import num_row_bytes
from .recorded_streams import RecordedStreams
from .recorder_options import RecorderOptions

LOG_BYTES = 150  # of one commit in the log, about
_RESERVE = 0.98  # of the free space; file systems need some themselves


@dataclass(frozen=True)
class RecordingForecast:
    """Rows, bytes and time that a recording takes.

    Attributes:
        num_steps: optimiser steps to come; infinite if the run has no end.
        every: by stream, optimiser steps between rows.
        row_bytes: by stream, bytes of a row on disk.
        row_seconds: by stream, seconds of the training thread for a row.
        buffer_bytes: memory that holds rows on their way to the disk.
        fresh: whether the weights that the run starts from are a row as well.
    """

    num_steps: float
    every: Mapping[str, int]
    row_bytes: Mapping[str, int]
    row_seconds: Mapping[str, float]
    buffer_bytes: int
    fresh: bool

    @property
    def num_rows(self) -> float:
        """Rows of all streams."""
        return sum(self._rows(name) for name in self.row_bytes)

    @property
    def num_bytes(self) -> float:
        """Bytes on disk, log included."""
        rows = sum(self._rows(name) * size for name, size in self.row_bytes.items())
        return rows + LOG_BYTES * self.num_steps

    @property
    def milliseconds_a_step(self) -> float:
        """Of the training thread, the mean over steps."""
        return 1e3 * sum(seconds / self.every[name] for name, seconds in self.row_seconds.items())

    def _rows(self, name: str) -> float:
        return self.num_steps // self.every[name] + (name == "weights" and self.fresh)

    def line(self, path: str) -> str:
        """The forecast in one line."""
        if math.isfinite(self.num_steps):
            size = f"{self.num_rows:.0f} rows of {len(self.row_bytes)} streams, {spelled(self.num_bytes)}"
        else:
            thousand = RecordingForecast(1000, self.every, self.row_bytes, self.row_seconds, self.buffer_bytes, True)
            size = f"{spelled(thousand.num_bytes)} for each 1000 steps of a run without end"
        return (
            f"TrajectoryRecorder: {size}, about {self.milliseconds_a_step:.2g} ms a step of the training thread, "
            f"{spelled(self.buffer_bytes)} of memory; into {path}"
        )

    def require_room(self, folder: Path) -> None:
        """Refuse a disk that cannot hold it.

        Raises:
            TrajectoryError: with both numbers.
        """
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        needed = self.num_bytes if math.isfinite(self.num_bytes) else sum(self.row_bytes.values())
        if needed > _RESERVE * free:
            raise TrajectoryError(
                f"The recording will take {spelled(needed)} and {there} has {spelled(free)} free. Record less often, "
                "fewer streams, some `parameters`, a `sample` of coordinates or in tier 'bfloat16'; or free some space."
            )


def forecast_recording(
    trainer: pl.Trainer, plan: RecordedStreams, every: Mapping[str, int], options: RecorderOptions
) -> RecordingForecast:
    """What recording the rest of a run takes, after a row of weights has been copied to see how long that lasts.

    A collective where parameters are sharded.
    """
    trial = np.zeros(plan.selection.layout.size, np.float32)
    seconds = 0.0
    for _ in range(2):  # the first time touches everything for the first time
        begin = time.perf_counter()
        plan.take("weights", 0, trial)
        seconds = time.perf_counter() - begin
    row_bytes: dict[str, int] = {}
    row_seconds: dict[str, float] = {}
    for name, asked in plan.names.items():
        size = plan.layout(name).size
        row_bytes[name] = num_row_bytes(size, options.tiers.get(asked, "float32"))
        row_seconds[name] = seconds * size / trial.size * (2 if name == "updates" else 1)
    rows = options.depth * 4 * sum(plan.layout(name).size for name in plan.names)
    extra = ("updates" in plan.names) + ("rank_gradients" in plan.names.values())
    return RecordingForecast(
        steps_to_come(trainer), every, row_bytes, row_seconds, rows + extra * trial.nbytes, not trainer.global_step
    )


def spelled(num_bytes: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"


def steps_to_come(trainer: pl.Trainer) -> float:
    """Optimiser steps until the end of the run, at most; infinite if there is no end.

    To be called when the training loader is set up. Where a module steps several optimisers by hand, each may step at
    every batch.
    """
    batches = trainer.estimated_stepping_batches * max(1, len(trainer.optimizers))
    limit = trainer.max_steps if trainer.max_steps >= 0 else math.inf
    total = min(limit, batches if batches >= 0 else math.inf)
    return max(0, total - trainer.global_step)

"""The rows of recorded streams that are characterised, phase by phase."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...forecast import Layout, Trajectory
from ..errors import DataError
from ..runs import TRAJECTORY, is_run
from .options import MIN_ROWS

PHASES = ("early", "middle", "late")
WHOLE = "whole"  # the phase of a stream that is too short for three
PSEUDO = "pseudo_gradients"
WEIGHTS = "weights"

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a stream.

    Attributes:
        stream: its name.
        phase: one of `PHASES`, or `WHOLE`.
        layout: what the coordinates mean.
        steps: the optimiser step of each row, `[time]`.
        segments: a number that two rows share if nothing broke the run between them, `[time]`.
        every: optimiser steps between neighbouring rows.
        values: `[time, param]`, all finite.
    """

    stream: str
    phase: str
    layout: Layout
    steps: NDArray[np.int64]
    segments: NDArray[np.int64]
    every: int
    values: Values

    def __len__(self) -> int:
        return len(self.steps)

    def pairs(self, lag: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The rows that lie exactly `lag` rows apart, with no gap or break between: the earlier and the later ones."""
        early = np.arange(len(self) - lag) if lag < len(self) else np.arange(0)
        late = early + lag
        near = (self.steps[late] - self.steps[early] == lag * self.every) & (
            self.segments[late] == self.segments[early]
        )
        return early[near], late[near]


def run_folders(folders: Sequence[str]) -> list[Path]:
    """The runs in some folders, each once, sorted.

    Args:
        folders: each a trajectory, a run's folder, or a folder of such.

    Raises:
        DataError: if one holds no recorded run.
    """
    found: dict[Path, Path] = {}
    for name in folders:
        folder = Path(name)
        if not folder.is_dir():
            raise DataError(f"There is no folder {folder}. Record runs first, or check the path.")
        inside = [folder] if is_run(folder) else [path for path in folder.iterdir() if path.is_dir() and is_run(path)]
        if not inside:
            raise DataError(f"{folder} holds no recorded run. Name a trajectory, a run's folder or a folder of these.")
        found |= {path.resolve(): path for path in inside}
    return [path for _, path in sorted(found.items())]


def open_folder(folder: Path) -> Trajectory:
    """The trajectory of a run, open for reading."""
    return Trajectory.open(folder / TRAJECTORY if (folder / TRAJECTORY).is_dir() else folder)


def streams_of(trajectory: Trajectory, wanted: Sequence[str]) -> list[str]:
    """The wanted streams that a run has, or that can be made of what it has."""
    return [name for name in wanted if name in trajectory.streams or (name == PSEUDO and WEIGHTS in trajectory.streams)]


def read_phases(trajectory: Trajectory, stream: str, limit: int, local_rows: int) -> Iterator[Rows]:
    """The rows of each phase in which there are enough; a row that is not finite is left out.

    A phase is a third of the stream's rows. A stream too short for three phases is one.

    Args:
        trajectory: open for reading.
        stream: one of `streams_of`.
        limit: rows of a phase at most, from its middle.
        local_rows: of weights between two pseudo-gradients that are made of them.
    """
    derived = stream not in trajectory.streams
    source = trajectory.stream(WEIGHTS if derived else stream)
    steps = source.steps
    segments = np.concatenate(
        [np.full(part.stop - part.start, number) for number, part in enumerate(source.segments)]
        or [np.zeros(0, dtype=np.int64)]
    )
    first = np.arange(len(steps))
    if derived:  # the weights before less those after, as a server would receive them
        last = first[local_rows::local_rows]
        first = last - local_rows
        same = segments[first] == segments[last]
        first, last = first[same], last[same]
        steps, segments = steps[last], segments[last]
    else:
        last = first
    gaps = np.diff(steps)
    every = int(np.bincount(gaps[gaps > 0]).argmax()) if (gaps > 0).any() else 1
    names = PHASES if len(first) >= len(PHASES) * MIN_ROWS else (WHOLE,)
    for phase, part in zip(names, np.array_split(np.arange(len(first)), len(names)), strict=True):
        chosen = part[max(0, (len(part) - limit) // 2) :][:limit]
        if not len(chosen):
            continue
        values = source[first[chosen]]
        if derived:
            values = values - source[last[chosen]]
        finite = np.isfinite(values).all(1)
        if int(finite.sum()) >= MIN_ROWS and bool(values[finite].any()):
            kept = chosen[finite]
            yield Rows(stream, phase, source.layout, steps[kept], segments[kept], every, values[finite])

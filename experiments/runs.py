"""Recorded runs on disk: which run a trajectory is of, how it ended and what it cost."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..forecast import Trajectory
from .errors import DataError, ResultError
from .files import write_whole
from .labelled import read_labelled
from .schema import COUNT, FLAG, NUMBER, TEXT
from .spec import Record, Scalar, check

TRAJECTORY = "trajectory"  # the store's folder in a run's folder
COMMIT_LOG = "commit.log"  # the store's log, whose presence makes a folder a trajectory
SUMMARY = "run.json"
SUMMARY_FORMAT, SUMMARY_VERSION = "deadreckon-run", 1
MAX_SUMMARY_BYTES = 2**20
_SUMMARY = Record(
    {
        "trajectory_digest": TEXT,
        "num_parameters": COUNT,
        "cpu_seconds": NUMBER,
        "seconds_per_step": NUMBER,
        "train_loss": NUMBER,
        "test_loss": NUMBER,
        "test_accuracy": NUMBER,
        "diverged": FLAG,
    }
)
_FACTS: Mapping[str, Scalar] = {
    "task": Scalar((str,)),
    "network": Scalar((str,)),
    "width": Scalar((int, float)),
    "optimizer": Scalar((str,)),
    "learning_rate": Scalar((int, float)),
    "schedule": Scalar((str,)),
    "batch_size": Scalar((int,)),
    "seed": Scalar((int,)),
    "steps": Scalar((int,)),
}


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What makes a run what it is: equal facts and versions give an equal run.

    Attributes:
        task: as in `load_task`.
        network: as in `make_network`.
        width: what its hidden widths were multiplied by.
        optimizer: as in `make_optimizer`.
        learning_rate: as it was used, before the schedule.
        schedule: as in `make_schedule`.
        batch_size: samples in a batch.
        seed: of the initial weights and of the order of the batches.
        steps: optimiser steps.
    """

    task: str
    network: str
    width: float
    optimizer: str
    learning_rate: float
    schedule: str
    batch_size: int
    seed: int
    steps: int


@dataclass(frozen=True)
class RunSummary:
    """How a run ended and what it cost, kept in `run.json` beside its trajectory.

    Attributes:
        trajectory_digest: of the trajectory this belongs to.
        num_parameters: trainable ones.
        cpu_seconds: of the whole run: training, recording and the last evaluation.
        seconds_per_step: CPU seconds of an optimiser step, training alone; see `TrainingClock`.
        train_loss: mean over the last tenth of the training batches; None where it is not finite.
        test_loss: mean on the test set after the last step; None where it is not finite.
        test_accuracy: share of the test set told rightly.
        diverged: whether weights or losses are not finite, or `train_loss` is above the loss of the first batch.
    """

    trajectory_digest: str
    num_parameters: int
    cpu_seconds: float
    seconds_per_step: float
    train_loss: float | None
    test_loss: float | None
    test_accuracy: float | None
    diverged: bool


@dataclass(frozen=True, kw_only=True)
class RecordedRun(RunFacts):
    """A run whose trajectory is on this machine.

    Attributes:
        folder: the run's folder with `trajectory` in it, or the trajectory's own where that lies alone.
        seconds_per_step: seconds of an optimiser step. CPU seconds of training alone where `run.json` tells them;
            else wall-clock seconds that include the recording; NaN where neither is known.
        diverged: whether `run.json` says so.
    """

    folder: Path
    seconds_per_step: float
    diverged: bool = False


def find_runs(folders: Sequence[str | Path], diverged: bool = False) -> list[RecordedRun]:
    """The recorded runs in some folders, sorted by folder, each once.

    Args:
        folders: each a trajectory, a run's folder, or a folder of such. Hidden sub-folders are passed over.
        diverged: whether runs that diverged are wanted, too.

    Raises:
        DataError: if a folder holds no recorded run, or a trajectory does not tell all that `RunFacts` asks.
        ResultError: if a `run.json` is damaged.
        TrajectoryError: if a trajectory is damaged.
    """
    found = {place.resolve(): read_run(place) for folder in folders for place in _runs_in(Path(folder))}
    return [run for _, run in sorted(found.items()) if diverged or not run.diverged]


def open_run(run: RecordedRun) -> Trajectory:
    """The trajectory of a run, open for reading."""
    return Trajectory.open(_store(run.folder))


def read_run(folder: Path) -> RecordedRun:
    """One recorded run.

    Args:
        folder: a run's folder or a trajectory.

    Raises:
        DataError: if the trajectory does not tell all that `RunFacts` asks.
        ResultError: if its `run.json` is damaged, or belongs to another trajectory.
        TrajectoryError: if it is no trajectory, or a damaged one.
    """
    with Trajectory.open(_store(folder)) as trajectory:
        facts = _facts(trajectory.metadata, folder)
        summary = read_summary(folder)
        if summary is None:
            return RecordedRun(**facts, folder=folder, seconds_per_step=_wall_seconds(trajectory), diverged=False)
        if summary.trajectory_digest != trajectory.digest:
            raise ResultError(
                f"{folder / SUMMARY} belongs to another trajectory than the one beside it. Record the run again."
            )
    return RecordedRun(**facts, folder=folder, seconds_per_step=summary.seconds_per_step, diverged=summary.diverged)


def read_summary(folder: Path) -> RunSummary | None:
    """The `run.json` of a run's folder, trusting nothing in it; None if there is none.

    Raises:
        ResultError: if it is damaged.
    """
    path = folder / SUMMARY
    if not path.is_file():
        return None
    label = (SUMMARY_FORMAT, SUMMARY_VERSION)
    data = read_labelled(path, label, _SUMMARY, MAX_SUMMARY_BYTES, "Record the run again.")
    for name in ("cpu_seconds", "seconds_per_step"):
        data[name] = math.nan if data[name] is None else data[name]
    return RunSummary(**{name: data[name] for name in _SUMMARY.required})


def summarise(
    trajectory: Trajectory, test_loss: float, test_accuracy: float, cpu_seconds: float, seconds_per_step: float
) -> RunSummary:
    """What there is to say about a run that has ended; see `RunSummary`."""
    losses = trajectory.scalars["loss"].values
    train_loss = float(losses[-max(1, len(losses) // 10) :].mean())
    finite = bool(np.isfinite([train_loss, test_loss]).all())
    if "weights" in trajectory.streams:
        finite = finite and bool(np.isfinite(trajectory.stream("weights")[-1]).all())
    return RunSummary(
        trajectory_digest=trajectory.digest,
        num_parameters=trajectory.layout.size,
        cpu_seconds=cpu_seconds,
        seconds_per_step=seconds_per_step,
        train_loss=train_loss if math.isfinite(train_loss) else None,
        test_loss=test_loss if math.isfinite(test_loss) else None,
        test_accuracy=test_accuracy,
        diverged=not finite or train_loss > float(losses[0]),
    )


def write_summary(folder: Path, summary: RunSummary) -> None:
    """Write `run.json` into a run's folder, whole or not at all."""
    data = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in vars(summary).items()
    }
    content = {"format": SUMMARY_FORMAT, "version": SUMMARY_VERSION, "data": check(data, _SUMMARY, "data")}
    write_whole(folder / SUMMARY, json.dumps(content, allow_nan=False, indent=1))


def _runs_in(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}. Record runs first, or check the path.")
    if is_run(folder):
        yield folder
        return
    inside = [path for path in folder.iterdir() if not path.name.startswith(".") and is_run(path)]
    if not inside:
        raise DataError(f"{folder} holds no recorded run. Name a trajectory, a run's folder or a folder of these.")
    yield from inside


def is_run(folder: Path) -> bool:
    """Whether a folder looks like a run's or a trajectory's."""
    return (_store(folder) / COMMIT_LOG).is_file()


def _store(folder: Path) -> Path:
    return folder / TRAJECTORY if (folder / TRAJECTORY).is_dir() else folder


def _facts(metadata: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, spec in _FACTS.items():
        if name not in metadata:
            raise DataError(
                f"The trajectory in {folder} does not tell its `{name}`: an older release, or other code, recorded it. "
                f"Record it again, or give the recorder `{name}` in its metadata."
            )
        try:
            facts[name] = check(metadata[name], spec, name)
        except ResultError as error:
            raise DataError(f"The trajectory in {folder}: {error}") from error
    # The recorder notes the class of the optimiser that it saw.
    return facts | {
        "optimizer": facts["optimizer"].lower(),
        "width": float(facts["width"]),
        "learning_rate": float(facts["learning_rate"]),
    }


def _wall_seconds(trajectory: Trajectory) -> float:
    """Wall-clock seconds of a step, recording included; NaN where the trajectory does not tell."""
    if "wall_seconds" not in trajectory.scalars:
        return math.nan
    seconds = trajectory.scalars["wall_seconds"]
    num_steps = int(seconds.steps[-1] - seconds.steps[0])
    return float(seconds.values[-1] - seconds.values[0]) / num_steps if num_steps else math.nan

"""One run of a corpus, as a worker process does it."""

import shutil
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from ...callbacks import TrajectoryRecorder
from ...forecast import Trajectory
from ...models.threads import one_thread
from ..classifier import evaluate
from ..runs import TRAJECTORY, RunFacts, RunSummary, summarise, write_summary
from ..tasks import TaskData, load_task
from ..training import TrainingClock, make_classifier, train


@dataclass(frozen=True)
class CorpusJob:
    """A run to be made.

    Attributes:
        facts: which one.
        every: optimiser steps between recorded rows.
        data: a folder with the task's files, or None.
        folder: where it goes; what is there already is replaced.
    """

    facts: RunFacts
    every: int
    data: str | None
    folder: Path


def partial_folder(folder: Path) -> Path:
    """Where a run lies until it is complete."""
    return folder.with_name(f".{folder.name}.partial")


@one_thread()
def record_run(job: CorpusJob) -> RunSummary:
    """Train, record and evaluate one run; its folder appears once it is complete, or not at all."""
    facts, partial = job.facts, partial_folder(job.folder)
    shutil.rmtree(partial, ignore_errors=True)
    task = _task(facts.task, job.data)
    begin = time.process_time()
    module = make_classifier(
        task,
        facts.network,
        facts.optimizer,
        facts.learning_rate,
        facts.schedule,
        facts.steps,
        facts.seed,
        facts.width,
    )
    recorder = TrajectoryRecorder(partial / TRAJECTORY, job.every, metadata=asdict(facts) | {"every": job.every})
    clock = TrainingClock([recorder])
    try:
        train(module, task, facts.batch_size, facts.steps, facts.seed, [clock, recorder])
        final = evaluate(module, task.test)
        with Trajectory.open(partial / TRAJECTORY) as trajectory:
            seconds = time.process_time() - begin
            summary = summarise(trajectory, final.loss, final.accuracy, seconds, clock.seconds_per_step)
        write_summary(partial, summary)
        if job.folder.exists():
            shutil.rmtree(job.folder)
        partial.rename(job.folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


@lru_cache(maxsize=1)  # a worker's runs come task by task
def _task(name: str, data: str | None) -> TaskData:
    return load_task(name, data)

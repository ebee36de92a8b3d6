"""Which runs train a forecaster and which validate it: by run and by task, never by time alone.

Cases of one run share its data order, its initial weights and most of their rows, so that a forecaster validated on
later cases of the same runs is validated on what it has seen. Whole runs are kept apart here; whole tasks where the
question is what a forecaster does on a task that it does not know.
"""

import hashlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch

from ..errors import OptionError
from ..run_cases import choose_tasks, known_tasks
from ..runs import RecordedRun


class Split(NamedTuple):
    """Runs to learn from and runs to choose by; both sorted as they were found."""

    training: list[RecordedRun]
    validation: list[RecordedRun]


def split_runs(
    runs: Sequence[RecordedRun],
    validation_share: float,
    validation_tasks: Collection[str],
    exclude_tasks: Collection[str],
    max_runs: int | None,
    seed: int,
) -> Split:
    """Choose runs for training and for validation.

    All runs of `validation_tasks` validate. Of every other task, the given share of its runs does, rounded, and at
    least one where it has two or more; a task with a single run trains. The draw of each task depends on the seed and
    the task's own runs, so that another task in the corpus changes nothing.

    Args:
        runs: all there are.
        validation_share: of each task's runs, from 0 to below 1.
        validation_tasks: tasks that only validate.
        exclude_tasks: tasks of which no run is read at all.
        max_runs: at most so many runs, as equally many of each task as can be; None for all.
        seed: of all draws.

    Raises:
        OptionError: if a task is named that no run has, or named twice over, or either side has no run.
    """
    known_tasks(runs, "validation_tasks", validation_tasks)
    both = sorted(set(validation_tasks) & set(exclude_tasks))
    if both:
        raise OptionError(f"A task cannot validate and be excluded at once, got {both[0]!r} for both.")
    by_task: dict[str, list[RecordedRun]] = {}
    for run in choose_tasks(runs, (), exclude_tasks):
        by_task.setdefault(run.task, []).append(run)
    shuffled = {task: _shuffled(own, f"{seed} {task}") for task, own in sorted(by_task.items())}
    kept = _limited(shuffled, max_runs)
    validation: set[str] = set()
    for task, own in kept.items():
        if task in validation_tasks:
            validation |= {str(run.folder) for run in own}
        elif len(own) > 1 and validation_share > 0:
            count = min(len(own) - 1, max(1, round(validation_share * len(own))))
            validation |= {str(run.folder) for run in own[:count]}
    chosen = {str(run.folder) for own in kept.values() for run in own}
    left = [run for run in runs if str(run.folder) in chosen]
    split = Split(
        [run for run in left if str(run.folder) not in validation],
        [run for run in left if str(run.folder) in validation],
    )
    for part, name, remedy in (
        (split.training, "training", "Validate on fewer tasks, or give more runs."),
        (split.validation, "validation", "Give at least two runs of a task, or name `validation_tasks`."),
    ):
        if not part:
            raise OptionError(f"Of {len(runs)} runs none is left for {name}. {remedy}")
    return split


def _shuffled(runs: Sequence[RecordedRun], salt: str) -> list[RecordedRun]:
    # A digest, because generators seeded with neighbouring numbers need not be independent.
    digest = hashlib.sha256(salt.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return [runs[index] for index in torch.randperm(len(runs), generator=generator).tolist()]


def _limited(by_task: dict[str, list[RecordedRun]], max_runs: int | None) -> dict[str, list[RecordedRun]]:
    """At most `max_runs` runs, taken from each task in turn."""
    if max_runs is None:
        return by_task
    kept: dict[str, list[RecordedRun]] = {task: [] for task in by_task}
    for round_number in range(max(map(len, by_task.values()))):
        for task, own in by_task.items():
            if round_number < len(own) and sum(map(len, kept.values())) < max_runs:
                kept[task].append(own[round_number])
    return {task: own for task, own in kept.items() if own}

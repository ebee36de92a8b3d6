"""What runs of `codec_accuracy.py` say: paired differences of accuracy, with intervals, and ratios of bits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deadreckon.experiments.bootstrap import LEVEL, resampled_means

NUM_RESAMPLES = 10_000
TARGET_RATIO, TARGET_LOSS = 300, 0.3  # times fewer bits, points of accuracy
FLOAT32, LONGER, LOCAL, COMPRESSED = ARMS = ("float32", "longer", "local", "compressed")


@dataclass(frozen=True)
class Run:
    """What one training run gave and cost.

    Attributes:
        problem: its name.
        seed: of weights and batches.
        arm: one of `ARMS`.
        size: parameters.
        num_steps: optimiser steps.
        accuracy: on all held-out samples at the end, in per cent.
        loss: on the same.
        up_ratio: bits of float32 over bits sent by the workers, key frames and all.
        down_ratio: the same of the server's.
        ratio: of both together, as one worker sends and receives them.
        nmse_up: mean over packets of the error, against what was to be sent, feedback included.
        nmse_down: the same of the server's.
    """

    problem: str
    seed: int
    arm: str
    size: int
    num_steps: int
    accuracy: float
    loss: float
    up_ratio: float = 1.0
    down_ratio: float = 1.0
    ratio: float = 1.0
    nmse_up: float = 0.0
    nmse_down: float = 0.0


Differences = NDArray[np.float64]


def interval(groups: Sequence[Differences]) -> tuple[float, float]:
    """The interval of the mean of the groups' means; each group is resampled by itself."""
    means = [resampled_means(values[:, None], NUM_RESAMPLES, seed) for seed, values in enumerate(groups)]
    low, high = np.quantile(np.mean(means, axis=0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def differences_of(runs: Sequence[Run], problem: str, arm: str, other: str) -> Differences:
    """Accuracy of one arm less another's, of the seeds that both have, in their order."""
    of_arm, of_other = (
        {run.seed: run.accuracy for run in runs if run.problem == problem and run.arm == name} for name in (arm, other)
    )
    return np.array([of_arm[seed] - of_other[seed] for seed in sorted(of_arm.keys() & of_other.keys())])


def paired(runs: Sequence[Run], problem: str, arm: str) -> list[Run]:
    """The runs of an arm that have a float32 run of the same seed."""
    seeds = {run.seed for run in runs if run.problem == problem and run.arm == FLOAT32}
    return [run for run in runs if run.problem == problem and run.arm == arm and run.seed in seeds]


def ratio_of(runs: Sequence[Run], attribute: str = "ratio") -> float:
    """Of several runs: bits add up, so it is that of their sums, a harmonic mean."""
    return len(runs) / sum(1 / getattr(run, attribute) for run in runs)


def table_text(runs: Sequence[Run]) -> Iterator[str]:
    """The table, line by line; all differences are to the float32 run of the same seed."""
    names = list(dict.fromkeys(run.problem for run in runs))
    columns = ("size", "steps", "seeds", "up", "down", "both", "float32", "this arm", "difference", "95 % interval")
    yield f"{'task':12s} {'arm':10s} " + " ".join(f"{name:>10s}" for name in columns) + "    smallest"
    for arm in (LONGER, LOCAL, COMPRESSED):
        for name in names:
            differences = differences_of(runs, name, arm, FLOAT32)
            if not len(differences):
                continue
            mine = paired(runs, name, arm)
            up, down, both = (ratio_of(mine, attribute) for attribute in ("up_ratio", "down_ratio", "ratio"))
            accuracy = np.mean([run.accuracy for run in mine])
            low, high = interval([differences])
            yield (
                f"{name:12s} {arm:10s} {mine[0].size:10d} {mine[0].num_steps:10d} {len(mine):10d} "
                f"{up:10.1f} {down:10.1f} {both:10.1f} {accuracy - differences.mean():10.2f} {accuracy:10.2f} "
                f"{differences.mean():+10.2f} [{low:+.2f}, {high:+.2f}] {differences.min():+11.2f}"
            )
    yield ""
    yield from summary_text(runs, names)


def summary_text(runs: Sequence[Run], names: Sequence[str]) -> Iterator[str]:
    """The compressed arm against each of the others over all tasks, and whether the target is met, line by line.

    `within tasks` resamples seeds within each task, whose means then count alike; `over pairs` resamples all pairs.
    """
    for other in (FLOAT32, LONGER, LOCAL):
        groups = [values for name in names if len(values := differences_of(runs, name, COMPRESSED, other))]
        if not groups:
            continue
        by_task = ", ".join(f"{values.mean():+.2f}" for values in groups)
        pairs = np.concatenate(groups)
        mean = np.mean([values.mean() for values in groups])
        (low, high), (pairs_low, pairs_high) = interval(groups), interval([pairs])
        yield (
            f"compressed less {other}: {by_task}; mean over tasks {mean:+.2f}, within tasks [{low:+.2f}, {high:+.2f}], "
            f"over {len(pairs)} pairs [{pairs_low:+.2f}, {pairs_high:+.2f}]"
        )
    compared = [name for name in names if len(differences_of(runs, name, COMPRESSED, FLOAT32))]
    if not compared:
        return
    groups = [differences_of(runs, name, COMPRESSED, FLOAT32) for name in compared]
    ratio = min(ratio_of(paired(runs, name, COMPRESSED)) for name in compared)
    lows = [interval(groups)[0], *(interval([values])[0] for values in groups)]
    yield f"target (at least {TARGET_RATIO} times fewer bits on each task, lower end above -{TARGET_LOSS} points): " + (
        f"least ratio {ratio:.1f}, "
        f"{'reached' if ratio >= TARGET_RATIO and lows[0] > -TARGET_LOSS else 'not reached'} over all tasks, "
        f"{'reached' if ratio >= TARGET_RATIO and min(lows[1:]) > -TARGET_LOSS else 'not reached'} on each by itself"
    )

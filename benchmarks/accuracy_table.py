"""What runs of `codec_accuracy.py` say: paired differences of accuracy, with intervals, and ratios of bits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deadreckon.experiments.bootstrap import LEVEL, resampled_means

NUM_RESAMPLES = 10_000
TARGET_RATIO, TARGET_LOSS = 300, 0.3  # times fewer bits, points of accuracy
FLOAT32, LOCAL, COMPRESSED = ARMS = ("float32", "local", "compressed")


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


def table_text(runs: Sequence[Run]) -> Iterator[str]:
    """The table, line by line."""
    names = list(dict.fromkeys(run.problem for run in runs))
    columns = ("size", "steps", "seeds", "up", "down", "both", "float32", "this arm", "difference", "95 % interval")
    yield f"{'task':12s} {'arm':10s} " + " ".join(f"{name:>10s}" for name in columns) + "    smallest"
    for arm in (LOCAL, COMPRESSED):
        groups: list[Differences] = []
        ratios: list[float] = []
        for name in names:
            plain = {run.seed: run for run in runs if run.problem == name and run.arm == FLOAT32}
            packed = {run.seed: run for run in runs if run.problem == name and run.arm == arm}
            if not packed:
                continue
            differences = np.array([packed[seed].accuracy - plain[seed].accuracy for seed in plain])
            groups.append(differences)
            # Bits add up, so the ratio of several runs is that of their sums: a harmonic mean.
            up, down, both = (
                len(packed) / sum(1 / getattr(run, attribute) for run in packed.values())
                for attribute in ("up_ratio", "down_ratio", "ratio")
            )
            ratios.append(both)
            low, high = interval([differences])
            first = next(iter(plain.values()))
            accuracies = [np.mean([run.accuracy for run in each.values()]) for each in (plain, packed)]
            yield (
                f"{name:12s} {arm:10s} {first.size:10d} {first.num_steps:10d} {len(plain):10d} "
                f"{up:10.1f} {down:10.1f} {both:10.1f} {accuracies[0]:10.2f} {accuracies[1]:10.2f} "
                f"{differences.mean():+10.2f} [{low:+.2f}, {high:+.2f}] {differences.min():+11.2f}"
            )
        if arm != COMPRESSED:
            continue
        low, high = interval(groups)
        mean = float(np.mean([values.mean() for values in groups]))
        kept = min(ratios) >= TARGET_RATIO and low > -TARGET_LOSS
        yield ""
        yield f"mean over tasks: difference {mean:+.2f} [{low:+.2f}, {high:+.2f}] points, least ratio {min(ratios):.1f}"
        yield f"target (at least {TARGET_RATIO} times fewer bits, lower end above -{TARGET_LOSS} points): " + (
            "reached" if kept else "not reached"
        )

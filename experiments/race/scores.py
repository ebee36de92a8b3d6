"""From curves to times: targets, time to a target, and ratios of times with their intervals."""

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..bootstrap import Estimate, as_ratio, estimates

Curve = Sequence[Sequence[float]]
TARGETS = ("early", "late", "best")
SHARES = {"early": 0.25, "late": 0.6}  # of the tuned decay's run
SLACK = 1.01  # the hardest target is this many times the decay's median final loss, or half of its runs would fail
PENALTY = 2.0  # a run that never gets there counts as this many times the reference's whole run
AXES = ("cpu", "raw_cpu", "wall", "steps", "gradient_evaluations")
RESAMPLES = 10_000
MIN_SEEDS = 3
COLUMN = {"raw_cpu": 1, "wall": 2, "steps": 0, "gradient_evaluations": 3}
LOSS, ACCURACY, GAUGE, CPU = 5, 6, 4, 1


def axis(curve: Curve, name: str, gauge_seconds: float) -> list[float]:
    """What each row of a curve had cost.

    Args:
        curve: rows of `race_clock.COLUMNS`.
        name: one of `AXES`. `cpu` is CPU seconds as they would be on a machine that is always as fast as one that takes
            `gauge_seconds` for a gauge: between two rows, the seconds that passed times `gauge_seconds` over the mean
            of the two gauges. `raw_cpu` is what the clock said.
        gauge_seconds: of the machine that `cpu` is expressed on.
    """
    if name != "cpu":
        return [row[COLUMN[name]] for row in curve]
    total = curve[0][CPU] * gauge_seconds / curve[0][GAUGE]
    found = [total]
    for before, after in pairwise(curve):
        total += (after[CPU] - before[CPU]) * gauge_seconds / ((before[GAUGE] + after[GAUGE]) / 2)
        found.append(total)
    return found


def time_to(curve: Curve, costs: Sequence[float], target: float) -> float | None:
    """What the first row at or below a loss had cost, on the line from the row before; None where there is none."""
    for index, row in enumerate(curve):
        if row[LOSS] <= target:
            if index == 0 or not math.isfinite(curve[index - 1][LOSS]):
                return costs[index]
            above, below = curve[index - 1][LOSS], row[LOSS]
            share = (above - target) / (above - below)
            return costs[index - 1] + share * (costs[index] - costs[index - 1])
    return None


def targets_of(curves: Sequence[Curve]) -> dict[str, float]:
    """The three losses to reach, from the runs of the tuned decay.

    `best` is `SLACK` times the median of their final losses; `early` and `late` the medians of what they had after a
    quarter and six tenths of the run.
    """
    found = {
        name: statistics.median(curve[round(share * (len(curve) - 1))][LOSS] for curve in curves)
        for name, share in SHARES.items()
    }
    return {**found, "best": SLACK * statistics.median(curve[-1][LOSS] for curve in curves)}


def median_gauge(curves: Sequence[Curve]) -> float:
    """The median of all gauges: of the machine that CPU seconds are expressed on."""
    return statistics.median(row[GAUGE] for curve in curves for row in curve)


def final_loss(curve: Curve) -> float:
    """The last loss; infinite where the run diverged."""
    return curve[-1][LOSS] if math.isfinite(curve[-1][LOSS]) else math.inf


def penalised(curve: Curve, name: str, target: float, gauge_seconds: float, limit: float) -> tuple[float, bool]:
    """What it cost to reach a loss, and whether it did; `PENALTY` times `limit` where it did not."""
    found = time_to(curve, axis(curve, name, gauge_seconds), target)
    return (PENALTY * limit, False) if found is None else (found, True)


def paired_ratio(times: Mapping[int, float], reference: Mapping[int, float], seed: int = 0) -> Estimate | None:
    """The geometric mean over common seeds of time over reference time, with its bootstrap interval; None without."""
    common = sorted(times.keys() & reference.keys())
    if not common:
        return None
    logs = np.array([[math.log(times[item] / reference[item])] for item in common])
    return as_ratio(estimates(logs, RESAMPLES, seed)[0])


def stratified_ratio(pairs: Mapping[str, Mapping[int, float]], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The geometric mean over problems of the geometric means over seeds, seeds resampled within each problem.

    There is no interval where some problem has fewer than `MIN_SEEDS` seeds: resampling one or two says nothing.

    Args:
        pairs: for each problem the ratio of every seed.
        resamples: how many.
        seed: of the resampling.
    """
    generator = np.random.default_rng(seed)
    means: list[float] = []
    spreads: list[Any] = []
    for ratios in pairs.values():
        logs = np.log(np.array(list(ratios.values())))
        means.append(float(logs.mean()))
        spreads.append(logs[generator.integers(len(logs), size=(resamples, len(logs)))].mean(axis=1))
    if min(len(ratios) for ratios in pairs.values()) < MIN_SEEDS:
        return as_ratio(Estimate(float(np.mean(means)), None, None))
    low, high = np.quantile(np.mean(spreads, axis=0), [0.025, 0.975])
    return as_ratio(Estimate(float(np.mean(means)), float(low), float(high)))


def break_even(meta_seconds: float, saved_seconds: float) -> float | None:
    """How many runs it takes to win back what training a forecaster took; None where a run saves nothing."""
    return meta_seconds / saved_seconds if saved_seconds > 0 else None

"""Numbers that the verdicts of `characterize` rest on: pure functions of checked results."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..measures import Data

FACTS = ("optimizer", "batch_size", "init")
MATCHED = ("task", "network", *FACTS)  # rates go with the optimiser


class Span(NamedTuple):
    """A mean over runs with the least, the greatest, and the median of them."""

    mean: float
    low: float
    high: float
    num_runs: int
    middle: float


def streams(data: Data) -> list[str]:
    """The streams that something is known of, in order."""
    return list(dict.fromkeys(row["stream"] for row in data["scales"]))


def span(values: Sequence[float | None]) -> Span | None:
    """Mean and ends of what is known; None where nothing is."""
    known = [float(value) for value in values if value is not None and math.isfinite(value)]
    return (
        Span(sum(known) / len(known), min(known), max(known), len(known), statistics.median(known)) if known else None
    )


def of_runs(rows: Sequence[Data], value: Callable[[Data], float | None]) -> dict[int, float]:
    """By run, the mean of a value over its rows, that is over phases."""
    found: dict[int, list[float]] = {}
    for row in rows:
        own = value(row)
        if own is not None and math.isfinite(own):
            found.setdefault(row["run"], []).append(own)
    return {run: sum(values) / len(values) for run, values in found.items()}


def rungs(data: Data, stream: str, level: str, entry: str) -> dict[int, float]:
    """By run, a number of the ladder of scales."""
    rows = [row for row in data["scales"] if row["stream"] == stream and row["level"] == level]
    return of_runs(rows, lambda row: row[entry])


def difference(first: dict[int, float], second: dict[int, float]) -> dict[int, float]:
    """By run, the first less the second, where both are known."""
    return {run: value - second[run] for run, value in first.items() if run in second}


def marginal(data: Data, stream: str, entry: str) -> dict[int, float]:
    """By run, a number of the fits to the whole vector."""
    rows = [row for row in data["marginals"] if row["stream"] == stream and row["group"] == "all"]
    return of_runs(rows, lambda row: row[entry])


def in_time(data: Data, stream: str, entry: str) -> dict[int, float]:
    """By run, a number of the dependence in time."""
    return of_runs([row for row in data["time"] if row["stream"] == stream], lambda row: row[entry])


def cosine(data: Data, stream: str, lag: int, entry: str = "cosine") -> dict[int, float]:
    """By run, the likeness of rows at a distance."""
    return of_runs(
        [row for row in data["time"] if row["stream"] == stream],
        lambda row: next((item[entry] for item in row["lags"] if item["lag"] == lag), None),
    )


def in_space(data: Data, stream: str, entry: str, way: str | None = None) -> dict[int, float]:
    """By run, a number of the dependence between coordinates."""
    rows = [row for row in data["space"] if row["stream"] == stream]
    return of_runs(rows, lambda row: row[entry] if way is None else row[entry][way])


def check_bits(data: Data, stream: str, name: str) -> dict[int, float]:
    """By run, the bits that the codec took with some settings."""
    rows = [row for row in data["checks"] if row["stream"] == stream and row["name"] == name]
    return of_runs(rows, lambda row: row["bits"])


def geometric_ratio(first: dict[int, float], second: dict[int, float]) -> float | None:
    """Geometric mean over runs of first / second; None where no run has both."""
    logs = [math.log(value / second[run]) for run, value in first.items() if value > 0 and second.get(run, 0.0) > 0]
    return math.exp(sum(logs) / len(logs)) if logs else None


class Lever(NamedTuple):
    """One way to save bits on a stream.

    Attributes:
        name: `scale`, `shape`, `mean` or `vector`.
        bits: a coordinate that it saves at fine resolution, by run.
    """

    name: str
    bits: dict[int, float]


def levers(data: Data, stream: str) -> list[Lever]:
    """What each way of going beyond an i.i.d. Gaussian source saves on a stream; not additive."""
    best = rungs(data, stream, "vector", "best_bits")
    shape = difference(rungs(data, stream, "vector", "gaussian_bits"), best)
    scale = difference(best, rungs(data, stream, "packet", "best_bits"))
    return [
        Lever("shape", shape),
        Lever("scale", scale),
        Lever("mean", in_time(data, stream, "bits")),
        Lever("vector", in_space(data, stream, "value_bits")),
    ]


class Effect(NamedTuple):
    """What a fact of the runs does to a number of a stream.

    Attributes:
        fact: one of `FACTS`.
        values: the mean of the number for each value of the fact, over groups of runs that differ in nothing else.
        groups: how many such groups there are.
    """

    fact: str
    values: dict[str, float]
    groups: int


def effect(data: Data, fact: str, numbers: dict[int, float]) -> Effect | None:
    """What a fact does to a number, from runs that are alike in all other facts; None where no two differ in it only.

    Each group's own mean is taken off first, so that groups that lack some value do not tilt the others.
    """
    groups: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for run, number in numbers.items():
        about = data["runs"][run]
        key = tuple(about[name] for name in MATCHED if name != fact)
        groups.setdefault(key, {}).setdefault(str(about[fact]), []).append(number)
    usable = [group for group in groups.values() if len(group) > 1]
    if not usable:
        return None
    everything = [sum(values) / len(values) for group in usable for values in group.values()]
    overall = sum(everything) / len(everything)
    shifts: dict[str, list[float]] = {}
    for group in usable:
        means = {value: sum(found) / len(found) for value, found in group.items()}
        middle = sum(means.values()) / len(means)
        for value, mean in means.items():
            shifts.setdefault(value, []).append(mean - middle)
    ordered = sorted(shifts, key=lambda value: (0, float(value), "") if value.isdigit() else (1, 0.0, value))
    return Effect(fact, {value: overall + sum(shifts[value]) / len(shifts[value]) for value in ordered}, len(usable))


class Batch(NamedTuple):
    """The cosine of neighbouring gradients at one batch size of otherwise equal runs.

    Attributes:
        label: task, network and optimiser.
        batch_size: samples.
        measured: the cosine.
        predicted: s / (1 + s) with s from the run of the smallest batch.
    """

    label: str
    batch_size: int
    measured: float
    predicted: float


def batches(data: Data) -> list[Batch]:
    """Measured and predicted cosines, early in training, of runs that differ in nothing but their batch size.

    The noise scale is that of the smallest batch, from its measured cosine c: B_noise = B (1 - c) / c. Early, because
    later runs of different batches are not at the same place. A smallest batch without likeness predicts nothing.
    """
    first = {row["run"]: row for row in reversed(data["time"]) if row["stream"] == "gradients"}
    groups: dict[tuple[Any, ...], dict[int, float]] = {}
    for run, row in first.items():
        about = data["runs"][run]
        if about["batch_size"] is not None and row["noise_measured"] is not None:
            key = tuple(about[name] for name in MATCHED if name != "batch_size")
            groups.setdefault(key, {})[about["batch_size"]] = row["noise_measured"]
    found: list[Batch] = []
    for key, cosines in sorted(groups.items(), key=str):
        least = min(cosines)
        if len(cosines) < 2 or not 0 < cosines[least] < 1:
            continue
        noise = least * (1 - cosines[least]) / cosines[least]
        label = ", ".join(str(part) for part in key[:3])
        for size, measured in sorted(cosines.items()):
            found.append(Batch(label, size, measured, size / noise / (1 + size / noise)))
    return found

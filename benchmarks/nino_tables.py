"""What `nino_compare.py` measured, as tables: skill against the others, and what a jump is worth."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deadreckon.experiments.bootstrap import as_ratio, as_skill, estimates, log_ratio

OURS = "nino_long"
MARGIN = 1.05  # of squared error, up to which ours counts as non-inferior
RESAMPLES = 2000
SEED = 0
Numbers = NDArray[np.float64]
Measured = dict[str, Any]


def groups_of(measured: Sequence[Measured]) -> dict[str, list[int]]:
    """Runs by task; Fashion-MNIST's convolutional networks apart from its others."""
    found: dict[str, list[int]] = {}
    for number, item in enumerate(measured):
        name = item["task"]
        if name == "fashion_mnist":
            name += " conv nets" if item["network"].startswith("conv") else " mlp"
        found.setdefault(name, []).append(number)
    return dict(sorted(found.items()))


def log_errors(measured: Sequence[Measured], name: str, horizon: int) -> Numbers | None:
    """log(squared error / that of standing still), `[run]`; None where it makes no such forecasts."""
    key = str(horizon)
    if any(key not in item["errors"].get(name, {}) for item in measured):
        return None
    return np.array([log_ratio(sum(i["errors"][name][key]), sum(i["persistence"][key])) for i in measured])


def interval(value: float, low: float | None, high: float | None, digits: int = 3) -> str:
    ends = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"{value:.{digits}f}{ends}"


def verdict(low: float | None, high: float | None) -> str:
    """What an interval of ours over theirs says."""
    if low is None or high is None:
        return "too few runs"
    if high < 1:
        return "better"
    if high <= MARGIN:
        return "non-inferior"
    return "worse by more than 5 %" if low > MARGIN else ("worse" if low > 1 else "open")


def skill_table(measured: Sequence[Measured], names: Sequence[str], horizon: int) -> list[str]:
    """Skill at one horizon, best first."""
    ours = log_errors(measured, OURS, horizon)
    rows: list[tuple[float, str]] = []
    for name in names:
        own = log_errors(measured, name, horizon)
        if own is None:
            continue
        (skill,) = (as_skill(entry) for entry in estimates(own[:, None], RESAMPLES, SEED))
        against = ""
        if ours is not None and name != OURS:
            (ratio,) = (as_ratio(entry) for entry in estimates((ours - own)[:, None], RESAMPLES, SEED))
            against = f"{interval(*ratio):26} {verdict(ratio.low, ratio.high)}"
        rows.append((-skill.value, f"{name:28} {interval(*skill):26} {against}".rstrip()))
    return [text for _, text in sorted(rows)]


def jump_table(measured: Sequence[Measured], names: Sequence[str], horizon: int) -> list[str]:
    """Jump value at one horizon, best first; of the runs of which it was measured."""
    key = str(horizon)
    measured = [item for item in measured if item["still"]]
    if not measured:
        return []
    rows: list[tuple[float, str]] = []

    def of(name: str, table: str) -> Numbers:
        return np.array([float(np.mean(item[table][name][key])) for item in measured], dtype=np.float64)

    def log_loss(values: Callable[[Measured], Sequence[float]]) -> Numbers:
        return np.array(
            [float(np.mean([log_ratio(a, b) for a, b in zip(values(i), i["still"], strict=True)])) for i in measured]
        )

    for name in names:
        if any(key not in item["credits"].get(name, {}) for item in measured):
            continue
        credit, cost = of(name, "credits"), np.array([item["steps"][name] for item in measured])
        (gain,) = estimates(credit[:, None], RESAMPLES, SEED)
        (net,) = estimates((credit - cost)[:, None], RESAMPLES, SEED)
        against = ""
        if name != OURS and all(key in item["credits"].get(OURS, {}) for item in measured):
            (more,) = estimates((of(OURS, "credits") - credit)[:, None], RESAMPLES, SEED)
            against = interval(*more, digits=0)
        (loss,) = (
            as_ratio(e) for e in estimates(log_loss(lambda i, n=name: i["losses"][n][key])[:, None], RESAMPLES, SEED)
        )
        text = f"{name:28} {interval(*gain, digits=0):22} {interval(*net, digits=0):22} {interval(*loss):24}"
        rows.append((-gain.value, f"{text} {against}".rstrip()))
    (run,) = (as_ratio(e) for e in estimates(log_loss(lambda i: i["later"][key])[:, None], RESAMPLES, SEED))
    rows.append((-float(horizon), f"{'(the run itself)':28} {horizon:<22} {'0':22} {interval(*run):24}".rstrip()))
    return [text for _, text in sorted(rows)]


def report(measured: Sequence[Measured], names: Sequence[str], horizons: Sequence[int]) -> str:
    """All tables."""
    lines: list[str] = []
    groups = groups_of(measured)
    everything = {**groups, "all runs": list(range(len(measured)))}
    costs = {n: [item["steps"][n] for item in measured if n in item["steps"]] for n in names}
    lines += ["Cost of one forecast in optimiser steps, median over runs:"]
    lines += ["  " + ", ".join(f"{n} {np.median(v):.2g}" for n, v in costs.items() if v and "shuffled" not in n), ""]
    for horizon in horizons:
        for group, runs in everything.items():
            own = [measured[number] for number in runs]
            lines += [f"## {horizon} steps ahead, {group}, {len(own)} runs", ""]
            lines += [f"{'forecaster':28} {'skill':26} {'ours / it':26}", *skill_table(own, names, horizon), ""]
            lines += [f"(jumps measured on {sum(bool(item['still']) for item in own)} of {len(own)} runs)"]
            head = f"{'jump to the forecast of':28} {'credited steps':22} {'net of the cost':22} {'loss':24} ours - it"
            lines += [head, *jump_table(own, names, horizon), ""]
    return "\n".join(lines)

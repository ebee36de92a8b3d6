"""The figures about jumps and races, in the manner of `figures`."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..measures import KEPT, NOT_PROPOSED, Data
from ..plotting import (
    BLUE,
    GREEN,
    GREY,
    INK,
    VERMILION,
    canvas,
    colors,
    finite,
    label,
    legend_below,
    nothing_to_show,
    plain_log_ticks,
    save,
)
from ..verdicts import arm_name, percent, seconds

JUMP_LOOK = {"kept": (GREEN, "^"), "rejected": (VERMILION, "x"), "not proposed": (GREY, ".")}


def jump_stage(jump: Data) -> str:
    """What became of a jump, as a key of `JUMP_LOOK`."""
    if jump["outcome"] == KEPT:
        return "kept"
    return "not proposed" if jump["outcome"] in NOT_PROPOSED else "rejected"


RACE_AXES = ((0, "optimiser steps"), (1, "CPU seconds"))


def race_curves(arms: Sequence[Data], target: Data, path: str | Path) -> Path:
    """The test metric over optimiser steps and over CPU seconds: thin lines a seed, thick ones their median.

    Args:
        arms: with `name` and `curve` of `[step, cpu seconds, wall seconds, gradient evaluations, metric]`.
        target: `metric` and `value`, as in a result.
        path: where, without a suffix.
    """
    with canvas(6.4, 2) as (figure, panels):
        panels[0].set_title("Race to the target, counted in steps and in seconds")
        for axes, (column, what) in zip(panels, RACE_AXES, strict=True):
            axes.set_xlabel(what)
            axes.set_ylabel(f"test {target['metric']}" + (" (nats)" if target["metric"] == "loss" else ""))
            for name, (color, _) in colors([arm["name"] for arm in arms]).items():
                curves = [_column(arm, column) for arm in arms if arm["name"] == name and arm["curve"]]
                for steps, values in curves:
                    axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.45)
                if curves:
                    axes.plot(*_median_curve(curves), color=color, linewidth=2.4, label=label(arm_name(name)))
            axes.axhline(target["value"], color=INK, linestyle="--", linewidth=1.2, label=f"target {target['value']:g}")
            _zoom(axes, arms, target)
        legend_below(figure, panels[1])
        return save(figure, path)


def _column(arm: Data, column: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array([[finite(row[column]), finite(row[4])] for row in arm["curve"]])
    return rows[:, 0], rows[:, 1]


def _median_curve(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The median of several curves, on a grid that all of them cover."""
    start, stop = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.linspace(start, stop, 200)
    return grid, np.median([np.interp(grid, x, y) for x, y in curves], axis=0)


def _zoom(axes: Axes, arms: Sequence[Data], target: Data) -> None:
    """Show the part of the scale where the race is decided: the first steps would take most of it."""
    values = [value for arm in arms for _, value in [(0, finite(row[4])) for row in arm["curve"]] if value == value]
    if not values:
        return
    best = max(values) if target["metric"] == "accuracy" else min(values)
    reach = 4 * abs(best - target["value"]) + 0.1 * abs(target["value"])
    if target["metric"] == "accuracy":
        axes.set_ylim(max(min(values), target["value"] - reach), max(best, target["value"]) + 0.02)
    else:
        axes.set_ylim(min(best, target["value"]) * 0.9, min(max(values), target["value"] + reach))


def ledger_bars(ledger: Data, run_seconds: float | None, path: str | Path) -> Path:
    """Wall-clock seconds by activity, longest first, with their share of the runs they belong to.

    Activities of another thread, which took none of the run's own time, are left out.

    Args:
        ledger: activities with `wall_seconds`.
        run_seconds: of these runs together, where known; what no activity took is shown as training.
        path: where, without a suffix.
    """
    costs = {label(name): finite(cost["wall_seconds"]) for name, cost in ledger.items()}
    costs = {name: value for name, value in costs.items() if value > 0}
    total = finite(run_seconds)
    rest = total - sum(costs.values())
    if rest > 0:
        costs["training itself"] = rest
    with canvas(1.2 + 0.36 * max(3, len(costs))) as (figure, (axes,)):
        if not costs:
            nothing_to_show(axes, "the ledger is empty")
            return save(figure, path)
        axes.set_title("Where the time went" + (f"  ({seconds(total)} in all)" if total == total else ""))
        names = sorted(costs, key=lambda name: costs[name])
        bars = axes.barh(names, [costs[name] for name in names], height=0.7)
        for name, bar in zip(names, bars, strict=True):
            bar.set_color(GREY if name == "training itself" else BLUE)
            share = f", {percent(costs[name] / total)}" if total > 0 else ""
            height = bar.get_y() + bar.get_height() / 2
            axes.text(costs[name], height, f" {seconds(costs[name])}{share}", va="center", fontsize=9.5)
        axes.set_xlim(0, 1.38 * max(max(costs.values()), 1e-9))  # room for the numbers
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("wall-clock seconds")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return save(figure, path)


def jump_timeline(jumps: Sequence[Data], path: str | Path) -> Path:
    """What became of every opportunity to jump: how far, and by how much the held-out loss beat what was asked.

    Args:
        jumps: of one run or of several, which then stand side by side.
        path: where, without a suffix.
    """
    with canvas(4.8, 2) as (figure, (top, bottom)):
        if not jumps:
            nothing_to_show(top, "no jump was tried")
            bottom.set_axis_off()
            return save(figure, path)
        places = _side_by_side([jump["step"] for jump in jumps])
        width = _bar_width(places)
        top.set_title("Jumps: how far, and by what margin")
        top.set_ylabel("steps ahead")
        for stage, (color, marker) in JUMP_LOOK.items():
            chosen = [(place, jump) for place, jump in zip(places, jumps, strict=True) if jump_stage(jump) == stage]
            if not chosen:
                continue
            at = [place for place, _ in chosen]
            if stage == "not proposed":
                top.plot(at, [0] * len(at), marker, color=color)
            else:
                heights = [jump["horizon"] for _, jump in chosen]
                hatch = "" if stage == "kept" else "////"
                top.bar(at, heights, width, color=color if stage == "kept" else "none", edgecolor=color, hatch=hatch)
            margins = [finite(jump["margin"]) for _, jump in chosen]
            bottom.plot(at, margins, marker, color=color)
        bottom.axhline(0, color=INK, linewidth=1.2, linestyle="--")
        margins = [abs(margin) for margin in (finite(jump["margin"]) for jump in jumps) if margin == margin and margin]
        if margins:
            # A power of ten, because ticks stand at those and must not crowd around zero.
            linear_up_to = 10.0 ** math.ceil(math.log10(max(statistics.median(margins), 1e-12)))
            bottom.set_yscale("symlog", linthresh=linear_up_to)
            plain_log_ticks(bottom.yaxis)
            bottom.margins(y=0.15)
        bottom.set_ylabel("margin (nats)\nabove 0 is kept")
        bottom.set_xlabel("optimiser step")
        handles = [
            Line2D([], [], color=color, marker=marker, linestyle="", label=f"{stage} ({number})")
            for stage, (color, marker) in JUMP_LOOK.items()
            if (number := sum(jump_stage(jump) == stage for jump in jumps))
        ]
        legend_below(figure, bottom, handles)
        for axes in (top, bottom):
            axes.set_xlim(min(places) - 2 * width, max(places) + 2 * width)
        return save(figure, path)


def _side_by_side(steps: Sequence[int]) -> list[float]:
    """Steps as places on the axis; equal ones, from several runs, are moved apart."""
    gaps = np.diff(sorted(set(steps)))
    gap = float(gaps.min()) if len(gaps) else 1.0
    most = max(Counter(steps).values())
    seen: Counter[int] = Counter()
    places = []
    for step in steps:
        places.append(step + gap * 0.8 * ((seen[step] + 0.5) / most - 0.5))
        seen[step] += 1
    return places


def _bar_width(places: Sequence[float]) -> float:
    gaps = np.diff(sorted(set(places)))
    return 0.85 * float(gaps.min()) if len(gaps) else 1.0

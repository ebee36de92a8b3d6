"""The figure of the race's grid: loss over all four ways of counting, a picture for each problem."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..plotting import GREY, INK, canvas, colors, label, legend_below, nothing_to_show, save
from .scores import LOSS, axis, median_gauge

PANELS = (
    ("cpu", "CPU seconds, evened out by the gauge"),
    ("wall", "seconds by the clock"),
    ("steps", "optimiser steps"),
    ("gradient_evaluations", "gradient evaluations"),
)
NUM_COLORS = 6
STYLES = ("-", "--")


def grid_curves(
    problem: str, rows: Sequence[Mapping[str, Any]], target: float | None, path: Path, named: Sequence[str] = ()
) -> Path:
    """Median test loss of each method over each axis.

    Args:
        problem: for the title.
        rows: runs of this problem.
        target: the hardest one, drawn as a line.
        path: where, without a suffix.
        named: methods to tell apart, the most important first; as many as there are looks for. All others are grey.
    """
    looks = [
        (color, style) for style in STYLES for color, _ in colors([str(index) for index in range(NUM_COLORS)]).values()
    ]
    told = dict(zip(named, looks, strict=False))
    present = list(dict.fromkeys(row["method"] for row in rows))
    others = [name for name in present if name not in told]
    names = [*others, *(name for name in told if name in present)]  # grey first, below
    with canvas(12.0, len(PANELS)) as (figure, panels):
        if not rows:
            nothing_to_show(panels[0], "nothing was run")
            return save(figure, path)
        panels[0].set_title(f"{label(problem)}: median test loss over {len({row['seed'] for row in rows})} seeds")
        gauge = median_gauge([row["curve"] for row in rows])
        losses = [value[LOSS] for row in rows for value in row["curve"] if np.isfinite(value[LOSS])]
        for axes, (name, what) in zip(panels, PANELS, strict=True):
            for method in names:
                own = [row["curve"] for row in rows if row["method"] == method]
                costs = [axis(curve, name, gauge) for curve in own]
                grid = np.linspace(0, min(cost[-1] for cost in costs), 100)
                values = [
                    np.interp(grid, cost, [row[LOSS] for row in curve]) for cost, curve in zip(costs, own, strict=True)
                ]
                color, style = told.get(method, (GREY, "-"))
                text = label(method) if method in told else f"{len(others)} more" if method == others[0] else None
                width = 1.8 if method in told else 0.6
                axes.plot(grid, np.median(values, axis=0), style, color=color, linewidth=width, label=text)
            if target is not None:
                axes.axhline(target, color=INK, linestyle="--", linewidth=1.0)
            axes.set_ylim(*limits(losses, target))
            axes.set_xlabel(what)
            axes.set_ylabel("test loss (nats)")
        legend_below(figure, panels[-1])
        return save(figure, path)


def limits(losses: Sequence[float], target: float | None) -> tuple[float, float]:
    """The losses that are shown: the end of the curves, and the target with those that just get there."""
    low = min(losses)
    high = low + 0.6 * (float(np.median(losses)) - low) + 0.05
    return 0.98 * low, high if target is None else max(high, 1.15 * target)

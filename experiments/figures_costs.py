"""The figure of a loss over what it cost, for one run or for several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from .measures import Data
from .plotting import colors, finite, grid_canvas, label, legend_below, log_scale, nothing_to_show, save
from .smoothing import MIN_SMOOTHED, running_median
from .verdicts import arm_name

Values = NDArray[np.float64]
COSTS = (
    ("steps", "optimiser steps"),
    ("samples", "samples trained on"),
    ("wall_seconds", "wall-clock seconds"),
    ("cpu_seconds", "total cost (CPU seconds)"),
)
LOG_FROM = 5  # a loss that falls by this factor is shown on a logarithmic scale


@dataclass(frozen=True)
class CostLine:
    """A run's loss, and what had been spent by then.

    Attributes:
        name: of the run; lines of one name have one colour and one entry in the legend.
        losses: `[point]`, in nats.
        steps: optimiser steps, `[point]`.
        samples: that were trained on, `[point]`; NaN where the batch size is not known.
        wall_seconds: `[point]`; NaN where they were not measured.
        cpu_seconds: of all threads and of all that the run did besides training, `[point]`; NaN likewise.
    """

    name: str
    losses: Values
    steps: Values
    samples: Values
    wall_seconds: Values
    cpu_seconds: Values


def record_line(record: Data, name: str) -> CostLine:
    """The training loss of a recorded run, smoothed by a running median where it is long enough."""
    curve = _columns(record["loss_curve"], 2)
    steps, losses = curve
    if len(losses) >= MIN_SMOOTHED:
        losses = running_median(losses)
    spent, wall, cpu = _columns(record["cost_curve"], 3)
    if len(spent):
        wall, cpu = np.interp(steps, spent, wall), np.interp(steps, spent, cpu)
    else:
        wall = cpu = np.full(len(steps), np.nan)
    return CostLine(name, losses, steps, steps * _batch_size(record), wall, cpu)


def race_lines(race: Data, prefix: str = "") -> list[CostLine]:
    """The test loss of every run of a race; runs of one arm have one name."""
    lines = []
    for arm in race["arms"]:
        steps, losses = _columns(arm["losses"], 2)
        if not len(steps) or len(steps) != len(arm["curve"]):
            continue
        _, cpu, wall, _, _ = _columns(arm["curve"], 5)
        lines.append(CostLine(prefix + arm_name(arm["name"]), losses, steps, steps * _batch_size(race), wall, cpu))
    return lines


def _columns(rows: Sequence[Sequence[float | None]], number: int) -> Values:
    """Rows as columns, `[column, row]`, with NaN for null."""
    return np.array([[finite(value) for value in row] for row in rows]).reshape(-1, number).T


def _batch_size(result: Data) -> float:
    return finite(result["options"].get("batch_size"))


def loss_over_costs(lines: Sequence[CostLine], path: str | Path, what: str = "training loss (nats)") -> Path:
    """A loss over steps, samples, wall-clock seconds and CPU seconds, a panel each.

    Args:
        lines: of one run or of several.
        path: where, without a suffix.
        what: the loss is.
    """
    looks = colors([line.name for line in lines])
    shown = [line for line in lines if line.name in looks and np.isfinite(line.losses).any()]
    with grid_canvas(5.0, 2, 2) as (figure, panels):
        logarithmic = _far_fall(shown)
        for number, (axes, (cost, text)) in enumerate(zip(panels, COSTS, strict=True)):
            known = [line for line in shown if np.isfinite(getattr(line, cost)).any()]
            if not known:
                nothing_to_show(axes, f"{text}:\nnot recorded")
                continue
            for line in known:
                thin = sum(other.name == line.name for other in known) > 1
                width, alpha = (1.0, 0.7) if thin else (1.8, 1.0)
                axes.plot(getattr(line, cost), line.losses, color=looks[line.name][0], linewidth=width, alpha=alpha)
            axes.set_xlabel(text)
            axes.xaxis.set_major_locator(MaxNLocator(4))
            if number % 2 == 0:
                axes.set_ylabel(what)
            if logarithmic is not None:
                log_scale(axes, *logarithmic)
        handles = [Line2D([], [], color=looks[name][0], label=label(name)) for name in looks]
        if len(handles) > 1:
            legend_below(figure, panels[0], handles)
        return save(figure, path)


def _far_fall(lines: Sequence[CostLine]) -> tuple[float, float] | None:
    """The lowest and the highest loss where a logarithmic scale is called for."""
    values = np.concatenate([line.losses[np.isfinite(line.losses)] for line in lines]) if lines else np.zeros(0)
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    return (low, high) if low > 0 and high > LOG_FROM * low else None

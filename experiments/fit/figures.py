"""The figures about fits, in the manner of `figures`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..measures import Data
from ..plotting import (
    BLUE,
    INK,
    MARKERS,
    MAX_LABEL,
    SKY,
    VERMILION,
    canvas,
    colors,
    finite,
    label,
    legend_below,
    nothing_to_show,
    save,
)

FLOOR = -1.0  # skills below are drawn there
NOTE: dict[str, Any] = {"ha": "right", "va": "bottom", "fontsize": 9, "color": "#555555"}
MAX_TASKS = 20


def fit_curve(curve: Sequence[Sequence[Any]], path: str | Path) -> Path:
    """Training and validation error over the iterations; 1 is standing still.

    Args:
        curve: `[iteration, training error, validation error]` points.
        path: where, without a suffix.
    """
    with canvas(3.6) as (figure, (axes,)):
        axes.set_title("Error while it was trained")
        axes.set_xlabel("iteration")
        axes.set_ylabel("MSE / MSE of standing still")
        steps = np.array([row[0] for row in curve], dtype=float)
        training, validation = (np.array([finite(row[column]) for row in curve]) for column in (1, 2))
        if not np.isfinite(validation).any():
            nothing_to_show(axes, "no finite error was measured")
            return save(figure, path)
        axes.axhline(1, color=INK, linewidth=1.4, linestyle="--", label="standing still")
        axes.plot(steps, training, color=SKY, label="training batches")
        axes.plot(steps, validation, color=BLUE, label="runs kept apart")
        best = int(np.nanargmin(validation))
        axes.plot(steps[best], validation[best], "o", color=VERMILION, markersize=7, label="kept")
        drawn = np.concatenate([training, validation])
        low, high = float(np.nanmin(drawn)), min(2.0, max(1.0, float(np.nanmax(drawn))))
        axes.set_ylim(low - 0.05 * (high - low + 0.1), high + 0.05 * (high - low + 0.1))
        legend_below(figure, axes)
        return save(figure, path)


def skill_by_task(skill: Sequence[Data], path: str | Path) -> Path:
    """Skill on each task, a mark for each horizon; hollow on the runs it was fitted to.

    Args:
        skill: rows with `task`, `role`, `horizon` and `skill`.
        path: where, without a suffix.
    """
    names = list(dict.fromkeys(row["task"] for row in skill))[:MAX_TASKS]
    with canvas(1.7 + 0.42 * max(2, len(names))) as (figure, (axes,)):
        axes.set_title("Skill on each task")
        axes.set_xlabel("skill: 1 - MSE / MSE of standing still")
        if not names:
            nothing_to_show(axes, "nothing was measured")
            return save(figure, path)
        axes.axvline(0, color=INK, linewidth=1.4, linestyle="--")
        horizons = sorted({row["horizon"] for row in skill})
        lowest = 0.0
        looks = colors([f"{horizon} steps ahead" for horizon in horizons])
        for (text, (color, marker)), horizon in zip(looks.items(), horizons, strict=False):
            offset = 0.5 * (horizons.index(horizon) / max(1, len(horizons) - 1) - 0.5)
            for role, face in (("validation", color), ("training", "none")):
                rows = [row for row in skill if (row["role"], row["horizon"]) == (role, horizon)]
                rows = [row for row in rows if row["task"] in names]
                values = np.array([finite(row["skill"]) for row in rows])
                lowest = min(lowest, float(np.nanmin(values, initial=0.0)))
                at = [names.index(row["task"]) + offset for row in rows]
                shown = text if role == "validation" else None
                axes.plot(
                    np.maximum(values, FLOOR),
                    at,
                    marker,
                    color=color,
                    markerfacecolor=face,
                    markersize=6,
                    label=shown,
                )
        axes.plot([], [], MARKERS[0], color=INK, markerfacecolor="none", label="hollow: on training runs")
        axes.set_yticks(range(len(names)), [label(name)[:MAX_LABEL] for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(max(lowest, FLOOR) - 0.08, 1.02)
        if lowest < FLOOR:
            axes.text(0.99, 0.01, f"(worse than {FLOOR:g} is drawn there)", **NOTE, transform=axes.transAxes)
        legend_below(figure, axes)
        return save(figure, path)

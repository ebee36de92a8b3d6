"""The figures of the report. Each takes checked plain data, writes PATH.png and PATH.svg, and returns the former."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from .figures_plane import forecast_beside_truth, pca_path
from .measures import OUR_DEFAULT, RAW_PREDICTOR, REFERENCE_FORECASTER, REFERENCE_PREDICTOR, Data
from .plotting import (
    BLUE,
    GREY,
    INK,
    MAX_LINES,
    SKY,
    canvas,
    colors,
    finite,
    label,
    legend_below,
    nothing_to_show,
    plain_log_ticks,
    save,
)
from .race.figures import JUMP_LOOK, jump_stage, jump_timeline, ledger_bars, race_curves
from .smoothing import MIN_SMOOTHED, running_median
from .timelines import draw_regimes

__all__ = [
    "forecast_beside_truth",
    "jump_timeline",
    "ledger_bars",
    "loss_curve",
    "pca_path",
    "race_curves",
    "rate_distortion",
    "skill_by_horizon",
]

HOLLOW = ("s", "^", "o", "D", "v", "P", "X", "p", "<", ">", "h")  # markers of references
FLOOR = -1.0  # skills below are drawn at the bottom edge, so that one wild forecaster does not flatten the others
CEILING = 0.3  # more bits than that above the reference are drawn there, for the same reason
NOTE: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 9, "color": "#555555"}


def loss_curve(curve: Sequence[Sequence[Any]], jumps: Sequence[Data], path: str | Path) -> Path:
    """Training loss over optimiser steps, with a running median; jumps marked by what became of them.

    Behind the curve stand the regimes in which the opportunities to jump came, where they are known.

    Args:
        curve: `[step, loss]` points.
        jumps: as in a result; those never proposed are left out.
        path: where, without a suffix.
    """
    with canvas(3.5) as (figure, (axes,)):
        axes.set_title("Training loss")
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("cross-entropy of a batch (nats)")
        steps = np.array([point[0] for point in curve], dtype=float)
        losses = np.array([finite(point[1]) for point in curve])
        if not np.isfinite(losses).any():
            nothing_to_show(axes, "no finite loss was recorded")
            return save(figure, path)
        axes.plot(steps, losses, color=SKY, linewidth=0.8, label="each batch")
        if len(losses) >= MIN_SMOOTHED:
            axes.plot(steps, running_median(losses), color=BLUE, label="running median")
        if np.nanmin(losses) > 0 and np.nanmax(losses) > 20 * np.nanmin(losses):
            axes.set_yscale("log")
            plain_log_ticks(axes.yaxis)
        draw_regimes(axes, jumps, float(steps[-1]))
        for stage, (color, marker) in JUMP_LOOK.items():
            at = [jump["step"] for jump in jumps if jump_stage(jump) == stage and stage != "not proposed"]
            if at:
                heights = np.interp(at, steps, np.nan_to_num(losses, nan=float(np.nanmedian(losses))))
                axes.plot(at, heights, marker, color=color, markersize=8, label=f"jump {stage}")
        axes.legend()
        return save(figure, path)


def skill_by_horizon(skill: Sequence[Data], path: str | Path) -> Path:
    """Skill over horizon, a line for each forecaster; persistence is the line at 0.

    Args:
        skill: entries with `forecaster`, `horizon` and `skill`; null where there was none.
        path: where, without a suffix.
    """
    with canvas(3.9) as (figure, (axes,)):
        axes.set_title("Does forecasting beat standing still?")
        axes.set_xlabel("horizon (optimiser steps ahead)")
        axes.set_ylabel("skill: 1 - MSE / MSE of standing still")
        axes.axhline(0, color=INK, linewidth=1.4, linestyle="--", label=f"{REFERENCE_FORECASTER} (standing still)")
        horizons = sorted({row["horizon"] for row in skill})
        lowest = 0.0
        for name, (color, marker) in colors([row["forecaster"] for row in skill]).items():
            if name == REFERENCE_FORECASTER:
                continue
            known = {row["horizon"]: finite(row["skill"]) for row in skill if row["forecaster"] == name}
            values = np.array([known.get(horizon, np.nan) for horizon in horizons])
            axes.plot(horizons, np.maximum(values, FLOOR), color=color, marker=marker, label=label(name))
            lowest = min(lowest, float(np.nanmin(values, initial=0.0)))
        if len(horizons) > 1 and min(horizons) > 0:
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(horizons, [f"{horizon:g}" for horizon in horizons])
        axes.set_ylim(max(lowest, FLOOR) - 0.08, 1.02)
        if lowest < FLOOR:
            axes.set_ylim(FLOOR - 0.28, 1.02)
            axes.text(0.5, 0.02, f"(worse than {FLOOR:g} is drawn at {FLOOR:g})", **NOTE, transform=axes.transAxes)
        legend_below(figure, axes)
        return save(figure, path)


def rate_distortion(
    rows: Sequence[Data], path: str | Path, references: Sequence[Data] = (), limits: Sequence[Data] = ()
) -> Path:
    """Bits a coordinate over the error made, a line for each front-end; below, the same relative to no prediction.

    Args:
        rows: entries with `predictor`, `nmse` and `bits_per_coordinate`; `raw` is mentioned, not drawn.
        path: where, without a suffix.
        references: entries with `reference`, `nmse` and `bits_per_coordinate`: other coders, in grey, after the
            front-ends as far as there is room. Our codec's default is black, in both panels.
        limits: entries with `nmse` and `bound`: the fewest bits for an error by the model that the result names.
    """
    points: dict[str, dict[float, tuple[float, float]]] = {}
    for row in rows:
        nmse, bits = finite(row["nmse"]), finite(row["bits_per_coordinate"])
        if row["predictor"] != RAW_PREDICTOR and row["nmse_target"] and nmse > 0 and bits > 0:
            points.setdefault(row["predictor"], {})[row["nmse_target"]] = (nmse, bits)
    raw = next((row["bits_per_coordinate"] for row in rows if row["predictor"] == RAW_PREDICTOR), None)
    with canvas(6.0, 2, (3, 2)) as (figure, (top, bottom)):
        if not points:
            nothing_to_show(top, "no front-end was measured")
            bottom.set_axis_off()
            return save(figure, path)
        top.set_title("Bits for a given error" + (f"  (float32 as it is: {raw:.3g} bits)" if raw else ""))
        top.set_ylabel("bits per coordinate")
        bottom.set_ylabel("bits against\nno prediction")
        bottom.set_xlabel("NMSE: squared error / squared norm")
        reference = points.get(REFERENCE_PREDICTOR, {})
        worst = 0.0
        for name, (color, marker) in colors(list(points)).items():
            look: dict[str, Any] = {"color": color, "marker": marker, "alpha": 0.9}
            if name == REFERENCE_PREDICTOR:
                look |= {"color": INK, "linestyle": "--"}
            worst = max(worst, _front_end(top, bottom, name, points[name], reference, look))
        ours = {
            row["nmse_target"]: (row["nmse"], row["bits_per_coordinate"])
            for row in references
            if row["reference"] == OUR_DEFAULT and finite(row["nmse"]) > 0 and finite(row["bits_per_coordinate"]) > 0
        }
        if ours:
            look = {"color": INK, "marker": "*", "markersize": 10, "zorder": 2.6}
            worst = max(worst, _front_end(top, bottom, OUR_DEFAULT, ours, reference, look))
        others = [row for row in references if row["reference"] != OUR_DEFAULT]
        for (name, line), marker in zip(_reference_lines(others, len(points)).items(), HOLLOW, strict=False):
            look = {"color": GREY, "marker": marker, "markerfacecolor": "white", "linestyle": ":", "zorder": 1.5}
            top.plot(*zip(*sorted(line), strict=True), label=label(name), linewidth=1.3, **look)
        bound = sorted({(finite(row["nmse"]), finite(row["bound"])) for row in limits})
        if bound:
            look = {"color": INK, "linewidth": 2.4, "zorder": 1.8}
            top.plot(*zip(*bound, strict=True), label="bound of the model", **look)
        if worst > CEILING:
            note = f"(more than {CEILING:+.0%} is drawn there)"
            bottom.text(0.5, 1.01, note, **NOTE, transform=bottom.transAxes)
        for axes in (top, bottom):
            axes.set_xscale("log")
            plain_log_ticks(axes.xaxis)
        ticks = sorted({target for line in points.values() for target in line})
        for axes in (top, bottom):
            axes.set_xticks(ticks)
            axes.minorticks_off()
        bottom.set_xlim(top.get_xlim())
        top.set_ylim(bottom=0)
        bottom.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.0f} %" if value else "0 %"))
        legend_below(figure, top)
        if not reference:
            nothing_to_show(bottom, "no reference without prediction was measured")
        return save(figure, path)


def _front_end(
    top: Axes,
    bottom: Axes,
    name: str,
    points: Mapping[float, tuple[float, float]],
    reference: Mapping[float, tuple[float, float]],
    look: Mapping[str, Any],
) -> float:
    """Error and bits of each target as a line, and below over those of the reference; the most above it."""
    top.plot(*zip(*sorted(points.values()), strict=True), label=label(name), **look)
    relative = sorted(
        (nmse, bits / reference[target][1] - 1) for target, (nmse, bits) in points.items() if target in reference
    )
    if not relative:
        return 0.0
    at, change = zip(*relative, strict=True)
    bottom.plot(at, np.minimum(change, CEILING), **look)
    return max(change)


def _reference_lines(references: Sequence[Data], num_taken: int) -> dict[str, list[tuple[float, float]]]:
    """Points of each reference, of as many as there is room for beside the lines that are taken."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in references:
        nmse, bits = finite(row["nmse"]), finite(row["bits_per_coordinate"])
        if nmse > 0 and bits > 0:
            lines.setdefault(row["reference"], []).append((nmse, bits))
    return dict(list(lines.items())[: max(MAX_LINES - num_taken, 0)])

"""The figures about scores, in the manner of `figures`; made for some thirty forecasters."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from ..measures import REFERENCE_FORECASTER as HOLD
from ..measures import Data
from ..plotting import (
    BLUE,
    CYCLE,
    GREEN,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    canvas,
    columns_canvas,
    finite,
    label,
    legend_below,
    nothing_to_show,
    plain_log_ticks,
    save,
)
from .verdicts import CLOSED, CONTROL, LEARNED, overall, standings

FLOOR = -0.5  # skills below are drawn there, pointing outwards, so that wild forecasters do not flatten the others
MAX_ROWS = 36  # forecasters in one figure, the most skilled; the tables have all
MAX_LEARNED, MAX_CLOSED, MAX_CONTROLS = 5, 3, 2  # lines with a name
FAMILY_LOOK = {CLOSED: (GREY, "s"), CONTROL: (ORANGE, "D"), LEARNED: (BLUE, "o")}
FAMILY_NAMES = {CLOSED: "closed form", CONTROL: "control", LEARNED: "learned"}
CLIP_NOTE = f"(less than {FLOOR:g} is drawn at the edge)"
SKILL = "skill: 1 - MSE / MSE of standing still"


def score_figures(score: Data, folder: Path) -> list[tuple[Path, str]]:
    """All figures of a score with what they show."""
    found = [
        (
            skill_lines(score, folder / "skill_by_horizon"),
            "The most skilled of each family, with intervals over runs; thin and grey, all others.",
        ),
        (
            skill_ranked(score, folder / "skill_ranked"),
            "Every forecaster at every horizon, with intervals over runs. Filled: beats every closed form.",
        ),
        (cost_against_skill(score, folder / "cost_against_skill"), "What skill costs. Up and to the left is better."),
    ]
    for group, what in (("kind", "kind of tensor"), ("phase", "third of the run")):
        if len({row[group] for row in score["skill"]}) > 1:
            caption = f"The same in each {what}; a mark for each horizon."
            found.append((skill_in_groups(score, group, folder / f"skill_by_{group}"), caption))
    return found


def skill_lines(score: Data, path: str | Path) -> Path:
    """Skill over horizon with intervals: the best of each family by name, all others as thin lines.

    Args:
        score: as in a result.
        path: where, without a suffix.
    """
    with canvas(4.6) as (figure, (axes,)):
        axes.set_title("Does forecasting beat standing still?")
        axes.set_xlabel("horizon (optimiser steps ahead)" + (f"\n{CLIP_NOTE}" if _clipped(score) else ""))
        axes.set_ylabel(SKILL)
        horizons = score["horizons"]
        names = _ranked(score)
        if not names:
            nothing_to_show(axes, "nothing was scored")
            return save(figure, path)
        axes.axhline(0, color=INK, linewidth=1.2, linestyle="--")
        families = _families(score)
        shown = {
            family: [name for name in names if families[name] == family][:limit]
            for family, limit in ((LEARNED, MAX_LEARNED), (CONTROL, MAX_CONTROLS), (CLOSED, MAX_CLOSED))
        }
        for name in names:
            if all(name not in group for group in shown.values()):
                skill = _skill_of(score, name)
                axes.plot(
                    horizons, [_floored(skill[at][0]) for at in horizons], color="#cfcfcf", linewidth=0.8, zorder=1
                )
        palettes = {
            LEARNED: (BLUE, VERMILION, GREEN, PURPLE, SKY),
            CONTROL: (ORANGE, "#8a5a00"),
            CLOSED: (INK, GREY, "#b0b0b0"),
        }
        styles = {LEARNED: "-", CONTROL: "-.", CLOSED: "--"}
        drawn = [(family, index, name) for family, group in shown.items() for index, name in enumerate(group)]
        for place, (family, index, name) in enumerate(drawn):
            skill = _skill_of(score, name)
            # A little to the side of each other, so that intervals do not hide one another.
            shift = 1 + 0.02 * (place - len(drawn) / 2)
            color, marker = palettes[family][index], MARKERS[place % len(MARKERS)]
            at = [horizon * shift for horizon in horizons]
            values = [_floored(skill[horizon][0]) for horizon in horizons]
            text = f"{label(name)} ({FAMILY_NAMES[family]})"
            axes.plot(at, values, styles[family], color=color, marker=marker, markersize=5, label=text, zorder=3)
            for x, horizon in zip(at, horizons, strict=True):
                _, low, high = skill[horizon]
                if not math.isnan(low):
                    axes.plot([x, x], [_floored(low), _floored(high)], color=color, linewidth=1.1, zorder=2)
        if len(horizons) > 1:
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(horizons, [f"{horizon:g}" for horizon in horizons])
        _limit(axes.set_ylim, _rows(score))
        legend_below(figure, axes)
        return save(figure, path)


def skill_ranked(score: Data, path: str | Path) -> Path:
    """Skill of every forecaster with its interval, a row each, a column a horizon.

    Args:
        score: as in a result.
        path: where, without a suffix.
    """
    names = _ranked(score)[:MAX_ROWS]
    horizons = score["horizons"]
    if not names:
        return _empty(path)
    families = _families(score)
    winners = {item.horizon: item.winners for item in standings(score)}
    rows = _rows(score)
    with columns_canvas(_height(len(names)), len(horizons)) as (figure, panels):
        for axes, horizon in zip(panels, horizons, strict=True):
            axes.set_title(f"{horizon} ahead")
            axes.axvline(0, color=INK, linewidth=1.2, linestyle="--")
            for place, name in enumerate(names):
                value, low, high = _skill_of(score, name)[horizon]
                color, marker = FAMILY_LOOK[families[name]]
                if not math.isnan(low):
                    axes.plot([_floored(low), _floored(high)], [place, place], color=color, linewidth=1.4)
                face = color if families[name] != LEARNED or name in winners[horizon] else "white"
                _mark(axes, value, place, color, marker, face)
            _finish_column(axes, rows, names, len(panels) > 3)
        panels[(len(panels) - 1) // 2].set_xlabel(SKILL + (f"\n{CLIP_NOTE}" if _clipped(score) else ""))
        handles = [
            Line2D([], [], color=color, marker=marker, linestyle="none", markerfacecolor=face, label=text)
            for (color, marker), face, text in (
                (FAMILY_LOOK[CLOSED], GREY, "closed form"),
                (FAMILY_LOOK[CONTROL], ORANGE, "control"),
                (FAMILY_LOOK[LEARNED], BLUE, "learned, beats every closed form"),
                (FAMILY_LOOK[LEARNED], "white", "learned, does not"),
            )
        ]
        legend_below(figure, panels[0], handles)
        return save(figure, path)


def skill_in_groups(score: Data, group: str, path: str | Path) -> Path:
    """Skill of every forecaster within each kind of tensor or phase of training, a column each, a mark a horizon.

    Args:
        score: as in a result.
        group: `kind` or `phase`.
        path: where, without a suffix.
    """
    names = _ranked(score)[:MAX_ROWS]
    members = [name for name in dict.fromkeys(row[group] for row in score["skill"]) if name != "all"]
    if not names or not members:
        return _empty(path)
    looks = dict(zip(score["horizons"], zip(CYCLE[:5], MARKERS, strict=False), strict=False))
    rows = [row for row in score["skill"] if row[group] in members]
    with columns_canvas(_height(len(names)), len(members)) as (figure, panels):
        for axes, member in zip(panels, members, strict=True):
            axes.set_title(label(member), fontsize=9.5)
            axes.axvline(0, color=INK, linewidth=1.2, linestyle="--")
            for row in rows:
                if row[group] == member and row["forecaster"] in names and row["horizon"] in looks:
                    color, marker = looks[row["horizon"]]
                    _mark(axes, finite(row["skill"]), names.index(row["forecaster"]), color, marker, color, size=4.5)
            _finish_column(axes, rows, names, len(panels) > 3)
        panels[(len(panels) - 1) // 2].set_xlabel(SKILL + (f"\n{CLIP_NOTE}" if _clipped(score) else ""))
        handles = [
            Line2D([], [], color=color, marker=marker, linestyle="none", label=f"{horizon} steps ahead")
            for horizon, (color, marker) in looks.items()
        ]
        legend_below(figure, panels[0], handles)
        return save(figure, path)


def cost_against_skill(score: Data, path: str | Path) -> Path:
    """Skill over what a forecast costs, a panel for each horizon.

    The best of each family has its name.

    Args:
        score: as in a result.
        path: where, without a suffix.
    """
    horizons = score["horizons"]
    families = _families(score)
    in_steps = any(row["step_equivalents"] is not None for row in score["cost"])
    key, what = ("step_equivalents", "in optimiser steps") if in_steps else ("cpu_seconds", "in seconds")
    costs = {(row["forecaster"], row["horizon"]): finite(row[key]) for row in score["cost"]}
    known = [value for value in costs.values() if value > 0]
    with canvas(0.9 + 2.2 * max(1, len(horizons)), max(1, len(horizons))) as (figure, panels):
        panels[-1].set_xlabel(f"CPU time of a forecast ({what})")
        if not known or not horizons:
            for axes in panels:
                nothing_to_show(axes, "no cost was measured")
            return save(figure, path)
        for axes, horizon in zip(panels, horizons, strict=True):
            axes.set_title(f"{horizon} steps ahead")
            axes.set_ylabel("skill")
            axes.axhline(0, color=INK, linewidth=1.2, linestyle="--")
            points = [
                (costs.get((row["forecaster"], horizon), math.nan), finite(row["skill"]), row["forecaster"])
                for row in overall(score, horizon)
            ]
            points = sorted(point for point in points if point[0] > 0 and not math.isnan(point[1]))
            best = {families[name]: name for _, _, name in sorted(points, key=lambda point: point[1])}
            named = 0
            for cost, skill, name in points:
                color, marker = FAMILY_LOOK[families[name]]
                axes.plot(cost, _floored(skill), marker, color=color, markersize=6, alpha=0.9)
                if best[families[name]] == name and skill > FLOOR and name != HOLD:
                    named += 1
                    # By turns above and below the mark, as neighbours are close to each other.
                    offset, anchor = ((0, 7), "bottom") if named % 2 else ((0, -9), "top")
                    look: dict[str, Any] = {"fontsize": 9, "ha": "center", "va": anchor, "color": color}
                    axes.annotate(label(name), (cost, skill), xytext=offset, textcoords="offset points", **look)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if max(known) > 200 * min(known) else (1, 2, 5)))
            plain_log_ticks(axes.xaxis)
            axes.set_xlim(min(known) / 2, max(known) * 2)
            _limit(axes.set_ylim, _rows(score), above=0.2)
        handles = [
            Line2D([], [], color=color, marker=marker, linestyle="none", label=FAMILY_NAMES[family])
            for family, (color, marker) in FAMILY_LOOK.items()
        ]
        legend_below(figure, panels[0], handles)
        return save(figure, path)


def _ranked(score: Data) -> list[str]:
    """The forecasters other than persistence, by skill averaged over horizons, each no worse than the floor."""
    totals: dict[str, list[float]] = {}
    for horizon in score["horizons"]:
        for row in overall(score, horizon):
            if row["skill"] is not None and row["forecaster"] != HOLD:
                totals.setdefault(row["forecaster"], []).append(max(FLOOR, row["skill"]))
    return sorted(totals, key=lambda name: -float(np.mean(totals[name])))


def _families(score: Data) -> dict[str, str]:
    known = {item["name"]: item["family"] for item in score["forecasters"]}
    return {name: family if family in FAMILY_LOOK else LEARNED for name, family in known.items()}


def _skill_of(score: Data, name: str) -> dict[int, tuple[float, float, float]]:
    """Skill, and the ends of its interval, by horizon; NaN where there is none."""
    found = {horizon: (math.nan, math.nan, math.nan) for horizon in score["horizons"]}
    for horizon in score["horizons"]:
        for row in overall(score, horizon):
            if row["forecaster"] == name:
                found[horizon] = (finite(row["skill"]), finite(row["low"]), finite(row["high"]))
    return found


def _floored(value: float) -> float:
    return value if math.isnan(value) else max(FLOOR, value)


def _clipped(score: Data) -> bool:
    return any(row["skill"] is not None and row["skill"] < FLOOR for row in score["skill"])


def _limit(set_limits: Callable[..., Any], rows: Sequence[Data], above: float = 0.04) -> None:
    """Room for all skills and intervals of some rows, down to the floor."""
    values = np.array([_floored(finite(row[key])) for row in rows for key in ("skill", "low", "high")])
    low = float(np.nanmin(values, initial=-0.05))
    high = min(1.0, float(np.nanmax(values, initial=0.1)))
    set_limits(low - 0.06, high + above)


def _rows(score: Data) -> list[Data]:
    """The rows over all runs, kinds and phases, at all horizons."""
    return [row for horizon in score["horizons"] for row in overall(score, horizon)]


def _mark(axes: Axes, value: float, row: float, color: str, marker: str, face: str, size: float = 5.5) -> None:
    if math.isnan(value):
        return
    outside = value < FLOOR
    axes.plot(
        _floored(value),
        row,
        "<" if outside else marker,
        color=color,
        markersize=size,
        markerfacecolor=face,
        clip_on=False,
    )


def _finish_column(axes: Axes, rows: Sequence[Data], names: Sequence[str], many: bool) -> None:
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    axes.tick_params(axis="y", labelsize=9, length=0)
    axes.tick_params(axis="x", labelsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xticks([0, 0.5] if many else [-0.5, 0, 0.5])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _limit(axes.set_xlim, rows)


def _height(num_rows: int) -> float:
    return 1.7 + 0.2 * max(4, num_rows)


def _empty(path: str | Path) -> Path:
    with canvas(2.0) as (figure, (axes,)):
        nothing_to_show(axes, "nothing was scored")
        return save(figure, path)

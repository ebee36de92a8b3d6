"""The figures of weights on their way: their path in its plane, with the loss around it; forecasts beside the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D

from .measures import Data
from .plotting import GREY, INK, canvas, colors, finite, label, legend_below, nothing_to_show, save
from .race.figures import JUMP_LOOK, jump_stage
from .verdicts import percent

WARNING = "A projection: a random walk makes smooth curves here, too."
# Of viridis what stands out from white, and once it is turned for a dark page, from black.
STEPS_MAP = ListedColormap(colormaps["viridis"](np.linspace(0.0, 0.82, 200)))
NUM_LEVELS = 9
HIGH_LEVELS = 0.9  # lines of equal loss are drawn up to this quantile of the grid; corners would take them all
NOTE: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 9, "color": "#555555"}
SIDES = 1.6  # how far beyond the way itself forecasts are drawn, in lengths of it


def pca_path(pca: Data, jumps: Sequence[Data], path: str | Path) -> Path:
    """The weights' path in the plane of its first two principal components, coloured by step.

    Lines of equal held-out loss are drawn where the loss around the path is known, and jumps as arrows in the colour of
    what became of them, from where they began to where they led or would have led.

    Args:
        pca: `points`, `steps` and `explained` shares of variance, as in a result, and `losses` and `arrows` if known.
        jumps: where there are no `arrows`, those kept are drawn as arrows between the rows around them.
        path: where, without a suffix.
    """
    points = _pairs(pca["points"])
    first, second = (finite(share) for share in pca["explained"])
    with canvas(4.8) as (figure, (axes,)):
        axes.set_title("The weights' path, seen in a plane")
        axes.set_xlabel(f"first principal component ({percent(first)} of the variance)\n{WARNING}")
        axes.set_ylabel(f"second ({percent(second)})")
        losses = pca.get("losses")
        handles = [_contours(axes, losses)] if losses is not None else []
        axes.plot(points[:, 0], points[:, 1], color="#a8a8a8", linewidth=1, zorder=2)
        dots = axes.scatter(points[:, 0], points[:, 1], c=pca["steps"], cmap=STEPS_MAP, s=16, zorder=3)
        figure.colorbar(dots, ax=axes, label="optimiser step", pad=0.02)
        if len(points):
            for text, point in (("start", points[0]), ("end", points[-1])):
                axes.annotate(text, tuple(point), textcoords="offset points", xytext=(0, -16), ha="center", zorder=6)
        handles += _arrows(axes, pca.get("arrows") or _between_rows(pca, jumps, points))
        if losses is None:
            axes.margins(0.12)
        legend_below(figure, axes, [handle for handle in handles if handle is not None])
        return save(figure, path)


def _pairs(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[finite(x), finite(y)] for x, y in rows]).reshape(-1, 2)


def _contours(axes: Axes, losses: Data) -> Line2D | None:
    values = np.array([[finite(value) for value in row] for row in losses["values"]])
    known = values[np.isfinite(values)]
    if values.ndim != 2 or values.shape != (len(losses["y"]), len(losses["x"])) or min(values.shape, default=0) < 2:
        return None
    low, high = float(known.min()) if len(known) else 0.0, float(np.quantile(known, HIGH_LEVELS)) if len(known) else 0.0
    if not 0 < low < high:
        return None
    levels = np.geomspace(low, high, NUM_LEVELS + 1)[1:]
    drawn = axes.contour(losses["x"], losses["y"], values, levels=levels, colors=GREY, linewidths=0.8, zorder=1)
    axes.clabel(drawn, fontsize=9, fmt="%.2g")
    return Line2D([], [], color=GREY, linewidth=0.8, label="held-out loss (nats)")


def _between_rows(pca: Data, jumps: Sequence[Data], points: np.ndarray) -> list[Data]:
    """An arrow for each jump that was kept, between the rows around it."""
    found: list[Data] = []
    for jump in jumps:
        row = int(np.searchsorted(pca["steps"], jump["step"]))
        if jump_stage(jump) == "kept" and 0 < row < len(points):
            found.append({**jump, "start": points[row - 1].tolist(), "end": points[row].tolist()})
    return found


def _arrows(axes: Axes, arrows: Sequence[Data]) -> list[Line2D | None]:
    counts: dict[str, int] = {}
    for arrow in arrows:
        stage = jump_stage(arrow)
        start, end = _pairs([arrow["start"], arrow["end"]])
        if not np.isfinite([start, end]).all():
            continue
        counts[stage] = counts.get(stage, 0) + 1
        look = {"arrowstyle": "-|>", "color": JUMP_LOOK[stage][0], "linewidth": 1.6, "mutation_scale": 11}
        look |= {"shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tuple(end), tuple(start), arrowprops=look, zorder=5)
    return [
        Line2D([], [], color=JUMP_LOOK[stage][0], linewidth=1.6, marker=">", label=f"jump {stage} ({number})")
        for stage, number in counts.items()
    ]


def forecast_beside_truth(forecasts: Data | None, path: str | Path) -> Path:
    """Where forecasts of the weights led, and where training went, in lengths of training's way.

    Distances to the way from the start to the end are exact here, unlike in a projection on a plane.

    Args:
        forecasts: `step`, `horizons`, `truth` and `by`, as in a result; None where there are none.
        path: where, without a suffix.
    """
    with canvas(4.0) as (figure, (axes,)):
        if forecasts is None or not forecasts["by"]:
            nothing_to_show(axes, "nothing was forecast")
            return save(figure, path)
        horizon = forecasts["horizons"][-1]
        axes.set_title(f"Forecasts beside the truth, {horizon} steps from step {forecasts['step']}")
        axes.set_xlabel("along the way that training went (it ends at 1)")
        axes.set_ylabel("distance off that way")
        names = [row["forecaster"] for row in forecasts["by"]]
        beyond = False
        for row in forecasts["by"]:
            look = colors(names).get(row["forecaster"])
            if look is not None:
                beyond |= _way(axes, row, look[0], look[1], label(row["forecaster"]))
        _way(axes, forecasts["truth"], INK, "o", "training")
        axes.plot([1], [0], "*", color=INK, markersize=13, zorder=4)
        axes.set_xlim(max(axes.get_xlim()[0], -SIDES), min(axes.get_xlim()[1], 1 + SIDES))
        axes.set_ylim(min(axes.get_ylim()[0], -0.05), min(axes.get_ylim()[1], SIDES))
        if beyond:
            axes.text(0.5, 0.95, "(some lead out of the picture)", **NOTE, transform=axes.transAxes)
        legend_below(figure, axes)
        return save(figure, path)


def _way(axes: Axes, row: Data, color: str, marker: str, name: str) -> bool:
    """A line from the start through the positions; whether it leaves the picture."""
    along = np.array([0.0, *(finite(value) for value in row["along"])])
    off = np.array([0.0, *(finite(value) for value in row["off"])])
    width = 2.6 if color == INK else 1.6
    axes.plot(along, off, color=color, marker=marker, markersize=5, linewidth=width, label=name)
    return bool((np.abs(along - 0.5) > SIDES + 0.5).any() or (off > SIDES).any())

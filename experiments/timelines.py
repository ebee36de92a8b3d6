"""What became of every opportunity to jump, along the loss of the run and before the regime it was in."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .measures import Data
from .plotting import BLUE, GREEN, GREY, VERMILION, canvas, finite, legend_below, log_scale, nothing_to_show, save
from .race.figures import JUMP_LOOK, jump_stage

REGIME_COLORS = {"chaotic": VERMILION, "transition": GREY, "stable": GREEN}
BAND = 0.12  # opacity of a regime
MAX_RUNS = 4  # below one another
RUG = 0.04  # height at which those never proposed stand, as a share of the panel


def draw_regimes(axes: Axes, jumps: Sequence[Data], end: float) -> None:
    """A band from each opportunity whose regime is known to the next one of them; one legend entry a regime."""
    known = [(float(jump["step"]), str(jump["regime"])) for jump in jumps if jump.get("regime") in REGIME_COLORS]
    seen: set[str] = set()
    for (step, regime), (until, _) in pairwise([*known, (end, "")]):
        name = "_nolegend_" if regime in seen else f"{regime} regime"
        axes.axvspan(step, until, color=REGIME_COLORS[regime], alpha=BAND, linewidth=0, zorder=0, label=name)
        seen.add(regime)


def regime_timeline(arms: Sequence[Data], path: str | Path) -> Path:
    """The test loss of runs that jump, what became of each opportunity, and the regimes behind; a panel for each run.

    Those kept or rejected stand on the loss, those never proposed at the foot.

    Args:
        arms: as in a race's result; the first `MAX_RUNS` with an opportunity are drawn.
        path: where, without a suffix.
    """
    shown = [arm for arm in arms if arm["jumps"]][:MAX_RUNS]
    with canvas(0.9 + 1.7 * max(len(shown), 1), max(len(shown), 1)) as (figure, panels):
        if not shown:
            nothing_to_show(panels[0], "no jump was tried")
            return save(figure, path)
        panels[0].set_title("Accepted and rejected jumps, and the regimes of the loss")
        for axes, arm in zip(panels, shown, strict=True):
            _timeline(axes, arm)
        panels[-1].set_xlabel("optimiser step")
        legend_below(figure, panels[0], _legend([jump for arm in shown for jump in arm["jumps"]]))
        return save(figure, path)


def _timeline(axes: Axes, arm: Data) -> None:
    curve = np.array([[finite(step), finite(loss)] for step, loss in arm["losses"]]).reshape(-1, 2)
    jumps = arm["jumps"]
    axes.set_ylabel(f"seed {arm['seed']}\ntest loss (nats)")
    end = max([float(jumps[-1]["step"]), *curve[-1:, 0].tolist()])
    draw_regimes(axes, jumps, end)
    known = bool(np.isfinite(curve[:, 1]).any())
    if known:
        axes.plot(curve[:, 0], curve[:, 1], color=BLUE, linewidth=1.4)
        low, high = float(np.nanmin(curve[:, 1])), float(np.nanmax(curve[:, 1]))
        if low > 0:
            log_scale(axes, low, high)
    at_foot = axes.get_xaxis_transform()
    for stage, (color, marker) in JUMP_LOOK.items():
        at = [jump["step"] for jump in jumps if jump_stage(jump) == stage]
        if not at:
            continue
        if known and stage != "not proposed":
            axes.plot(at, np.interp(at, curve[:, 0], curve[:, 1]), marker, color=color, markersize=8)
        else:
            axes.plot(at, [RUG] * len(at), marker, color=color, transform=at_foot, clip_on=False)


def _legend(jumps: Sequence[Data]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for stage, (color, marker) in JUMP_LOOK.items():
        number = sum(jump_stage(jump) == stage for jump in jumps)
        if number:
            handles.append(Line2D([], [], color=color, marker=marker, linestyle="", label=f"{stage} ({number})"))
    found = {jump.get("regime") for jump in jumps}
    handles += [
        Patch(color=color, alpha=2 * BAND, linewidth=0, label=f"{name} regime")
        for name, color in REGIME_COLORS.items()
        if name in found
    ]
    return handles

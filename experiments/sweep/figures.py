"""The figure about a sweep, in the manner of `figures`."""

from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from ..plotting import BLUE, SKY, VERMILION, canvas, label, legend_below, nothing_to_show, plain_log_ticks, save
from .verdicts import setting_text, settings, without_seed

MAX_PANELS = 5
MAX_NAMES = 12  # of values that are no numbers
_LOGARITHMIC = 9.0  # from this ratio of the largest to the smallest value on


def sweep_panels(cells: Sequence[Any], metric: Any, path: str | Path) -> Path:
    """The metric over each parameter that varies, a dot for each run; the best setting's runs stand out.

    Args:
        cells: complete runs of a result.
        metric: its `name` and `goal`.
        path: where, without a suffix.
    """
    names = list(dict.fromkeys(name for cell in cells for name in without_seed(cell["values"])))[:MAX_PANELS]
    with canvas(0.6 + 2.3 * max(1, len(names)), max(1, len(names))) as (figure, panels):
        if not names:
            nothing_to_show(panels[0], "no parameter varied in complete runs")
            return save(figure, path)
        best = setting_text(settings(cells, metric["goal"])[0]["values"])
        for axes, name in zip(panels, names, strict=True):
            places, ticks = _places([cell["values"].get(name) for cell in cells])
            for chosen, color, text in ((False, SKY, "a run"), (True, VERMILION, "the best setting's")):
                own = [
                    (place, cell["metric"])
                    for place, cell in zip(places, cells, strict=True)
                    if (setting_text(without_seed(cell["values"])) == best) == chosen
                ]
                axes.plot([x for x, _ in own], [y for _, y in own], "o", color=color, markeredgecolor=BLUE, label=text)
            if ticks:
                axes.set_xticks(range(len(ticks)), [label(tick) for tick in ticks])
                axes.set_xlim(-0.5, len(ticks) - 0.5)
            elif min(places) > 0 and max(places) / min(places) >= _LOGARITHMIC:
                axes.set_xscale("log")
                plain_log_ticks(axes.xaxis)
            axes.set_xlabel(label(name))
            axes.set_ylabel(label(metric["name"].rpartition("/")[2]))
        panels[0].set_title(f"{label(metric['name'])}, to {metric['goal']}")
        legend_below(figure, panels[-1])
        return save(figure, path)


def _places(values: Sequence[Any]) -> tuple[list[float], list[str]]:
    """Where values lie on an axis: numbers as they are, else in order of their names, which are the ticks then."""
    if all(isinstance(value, Real) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values], []
    names = list(dict.fromkeys(str(value) for value in values))[:MAX_NAMES]
    return [float(names.index(str(value))) if str(value) in names else float("nan") for value in values], names

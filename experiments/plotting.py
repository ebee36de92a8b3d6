"""Common ground of all figures: style, colours, safe labels, saving."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# M. Okabe and K. Ito (2008), Color Universal Design: told apart with any common colour vision. Their yellow is left
# out, which is too faint on white.
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY, INK = "#8a8a8a", "#222222"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH = 5.6  # inches; with 10.5 points still readable when a page of 360 pixels shrinks it
FEW_DECADES = 200  # the ratio of two values between which powers of ten are too few for ticks
MAX_LABEL = 28  # characters
MAX_LINES = 12  # of one panel; more cannot be told apart, and their legend would leave no room
LAST_READABLE = 0x24F  # DejaVu Sans draws Latin letters up to here

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "deadreckon",  # the same figure gives the same file
    "text.parse_math": False,  # names come from files: a dollar sign is a dollar sign
}


@contextmanager
def canvas(
    height: float, num_panels: int = 1, ratios: Sequence[float] | None = None
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with panels one above the other, in our style; global settings and pyplot are left alone.

    Args:
        height: in inches.
        num_panels: how many.
        ratios: their relative heights.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(num_panels, 1, squeeze=False, height_ratios=ratios)
        yield figure, [row[0] for row in axes]


@contextmanager
def columns_canvas(height: float, num_panels: int) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with panels side by side that share their vertical axis, in our style.

    Args:
        height: in inches.
        num_panels: how many.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(1, num_panels, squeeze=False, sharey=True)
        yield figure, list(axes[0])


@contextmanager
def grid_canvas(height: float, num_rows: int, num_columns: int) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with panels in rows and columns, in our style; panels come row by row.

    Args:
        height: in inches.
        num_rows: how many.
        num_columns: how many.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots(num_rows, num_columns, squeeze=False)
        yield figure, list(axes.flat)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG and SVG.

    Args:
        figure: made by `canvas`, still inside it.
        path: where, without a suffix; folders are made.

    Returns:
        The PNG file; the SVG file lies beside it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    png, svg = path.with_name(path.name + ".png"), path.with_name(path.name + ".svg")
    figure.savefig(png, dpi=160)
    figure.set_layout_engine("none")  # laid out already; doing it twice takes half as long again
    figure.savefig(svg, metadata={"Date": None})
    return png


def label(name: str) -> str:
    """A name from a file as a short label of readable characters."""
    text = "".join(sign if sign.isprintable() and ord(sign) <= LAST_READABLE else "?" for sign in name)
    return text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"


def finite(value: Any) -> float:
    """A number, with NaN, which leaves a gap in a line, for null and whatever is not finite."""
    return float(value) if value is not None and math.isfinite(value) else math.nan


def colors(names: Sequence[str]) -> Mapping[str, tuple[str, str]]:
    """A colour and a marker for each name, in order, which come round again; names beyond `MAX_LINES` are left out."""
    unique = list(dict.fromkeys(names))[:MAX_LINES]
    return {name: (CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(unique)}


def plain_log_ticks(axis: Any, form: Callable[[float], str] = "{:g}".format) -> None:
    """Numbers such as 0.1 on a logarithmic axis; powers of ten would need the mathematics that is switched off."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axis.set_minor_formatter(NullFormatter())


def log_scale(axes: Axes, low: float, high: float) -> None:
    """A logarithmic vertical scale with a number at every power of ten, and at 2 and 5 where there are few of these.

    Args:
        axes: whose scale.
        low: smallest value shown, above 0.
        high: largest.
    """
    axes.set_yscale("log")
    subs = (1.0, 2.0, 5.0) if high < FEW_DECADES * low else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    plain_log_ticks(axes.yaxis)


def legend_below(figure: Figure, axes: Axes, handles: Sequence[Artist] | None = None) -> None:
    """A legend at the foot of a figure, where it covers no data, with as many columns as there is room for.

    Args:
        figure: whose foot.
        axes: the panel whose labelled lines it explains.
        handles: what it explains instead.
    """
    found = list(handles) if handles is not None else axes.get_legend_handles_labels()[0]
    if not found:
        return
    widths = sorted((40 + 5.5 * len(str(handle.get_label())) for handle in found), reverse=True)
    columns = next((number for number in (4, 3, 2) if sum(widths[:number]) <= 72 * WIDTH), 1)
    figure.legend(handles=found, loc="outside lower center", ncols=columns, columnspacing=1.2)


def nothing_to_show(axes: Axes, text: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)

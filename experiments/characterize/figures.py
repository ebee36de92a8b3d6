"""The figures about a characterisation, in the manner of `figures`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..measures import Data
from ..plotting import (
    BLUE,
    CYCLE,
    GREY,
    INK,
    SKY,
    canvas,
    columns_canvas,
    finite,
    label,
    legend_below,
    nothing_to_show,
    plain_log_ticks,
    save,
)
from .advice import DEFAULT, RECOMMENDED, SCALES, TABLES
from .marginals import FAMILIES
from .measures import batches, check_bits, cosine, rungs, span, streams
from .scales import LEVELS
from .verdicts import stream_name

SHOWN_RUNS = 3  # heat maps side by side
LOOKS = {family: color for family, color in zip(FAMILIES, CYCLE, strict=False)}
STREAM_LOOKS: dict[str, str] = dict(zip(("gradients", "updates", "pseudo_gradients"), CYCLE, strict=False))


def characterize_figures(data: Data, folder: Path) -> list[tuple[Path, str]]:
    """All figures with what they show.

    Args:
        data: of the result.
        folder: where they are written.
    """
    found = [
        (
            marginals(data, folder / "marginals"),
            "How often which value, on a logarithmic scale, and the fitted families.",
        ),
        (
            models(data, folder / "models"),
            "Above, what families take more than the best; below, what is saved as more is known of scales.",
        ),
        (lags(data, folder / "lags"), "How alike rows are at a distance; bands are over runs."),
        (heat(data, folder / "cosines"), "How alike the gradients of each step are to those of each other step."),
    ]
    if data["drift"]:
        found.append((drift(data, folder / "drift"), "How scales move over training, by kind of tensor."))
    if batches(data):
        found.append((noise(data, folder / "batch_size"), "What the batch size does to neighbouring gradients."))
    if data["checks"]:
        found.append((checked(data, folder / "codec"), "What the codec takes with each of the settings."))
    return found


def _look(stream: str) -> str:
    return STREAM_LOOKS.get(stream, GREY)


def marginals(data: Data, path: str | Path) -> Path:
    """The histogram of each stream's values in the first run, with the fitted families.

    Args:
        data: of the result.
        path: where, without a suffix.
    """
    first = {row["stream"]: row for row in reversed(data["densities"])}
    shown = [first[stream] for stream in streams(data) if stream in first]
    if not shown:
        return _empty(path, "no values were found")
    with canvas(0.9 + 2.2 * len(shown), len(shown)) as (figure, panels):
        for axes, row in zip(panels, shown, strict=True):
            at = np.array(row["at"], dtype=float)
            measured = np.array([finite(value) for value in row["measured"]])
            lowest = float(np.min(measured[measured > 0], initial=1.0))
            axes.set_title(
                f"{stream_name(row['stream'])}, {row['phase']} ({_run_name(data, row['run'])})", fontsize=9.5
            )
            axes.bar(at, measured, at[1] - at[0], color="#d9d9d9", label="measured")
            for family, color in LOOKS.items():
                values = np.array([finite(value) for value in row["fits"].get(family, [])])
                if values.size:
                    axes.plot(at, values, color=color, linewidth=1.3, label=family.replace("_", " "))
            axes.set_yscale("log")
            axes.set_ylim(lowest / 2, 3 * float(measured.max(initial=1.0)))
            plain_log_ticks(axes.yaxis)
            axes.set_ylabel("density")
        panels[-1].set_xlabel("value over the root mean square")
        legend_below(figure, panels[0])
        return save(figure, path)


def models(data: Data, path: str | Path) -> Path:
    """Bits of families beyond the best, over the whole vector and within tensors; below, the ladder of scales.

    Args:
        data: of the result.
        path: where, without a suffix.
    """
    names = streams(data)
    with canvas(6.0, 2) as (figure, (top, bottom)):
        top.set_title("Bits more than the best family", fontsize=10.5)
        _bars(top, [name.replace("_", "\n") for name in FAMILIES], names, [_excess(data, name) for name in names])
        bottom.set_title("Bits below an i.i.d. Gaussian source, by what is known of scales", fontsize=10.5)
        groups = []
        for name in names:
            start = span(list(rungs(data, name, "vector", "gaussian_bits").values()))
            ends = [span(list(rungs(data, name, level, "best_bits").values())) for level in LEVELS]
            groups.append([start.mean - end.mean if start and end else math.nan for end in ends])
        _bars(bottom, [f"{level}" for level in LEVELS], names, groups)
        for axes in (top, bottom):
            axes.set_ylabel("bits a coordinate")
        legend_below(figure, top)
        return save(figure, path)


def _excess(data: Data, stream: str) -> list[float]:
    rows = [row for row in data["marginals"] if row["stream"] == stream and row["group"] == "all"]
    return [float(np.mean([row["bits"][family] - min(row["bits"].values()) for row in rows])) for family in FAMILIES]


def _bars(axes: Axes, groups: Sequence[str], names: Sequence[str], heights: Sequence[Sequence[float]]) -> None:
    width = 0.8 / max(1, len(names))
    for index, (name, own) in enumerate(zip(names, heights, strict=True)):
        at = np.arange(len(groups)) + (index - (len(names) - 1) / 2) * width
        axes.bar(at, own, width * 0.95, color=_look(name), label=stream_name(name))
    axes.set_xticks(range(len(groups)), groups, fontsize=9)
    axes.grid(visible=False, axis="x")


def lags(data: Data, path: str | Path) -> Path:
    """Cosine of rows over their distance, a line for each stream; the band reaches from the least run to the greatest.

    Args:
        data: of the result.
        path: where, without a suffix.
    """
    with canvas(3.6) as (figure, (axes,)):
        axes.set_title("How alike rows are at a distance")
        axes.set_xlabel("distance in recorded rows")
        axes.set_ylabel("cosine")
        axes.axhline(0, color=INK, linewidth=1)
        distances = sorted({item["lag"] for row in data["time"] for item in row["lags"]})
        for stream in streams(data):
            found = {lag: span(list(cosine(data, stream, lag).values())) for lag in distances}
            known = {lag: own for lag, own in found.items() if own is not None}
            if known:
                color = _look(stream)
                axes.plot(
                    list(known), [own.mean for own in known.values()], "o-", color=color, label=stream_name(stream)
                )
                low, high = ([getattr(own, end) for own in known.values()] for end in ("low", "high"))
                axes.fill_between(list(known), low, high, color=color, alpha=0.12, linewidth=0)
        axes.set_xscale("log")
        axes.set_xticks(distances, [str(lag) for lag in distances])
        axes.minorticks_off()
        legend_below(figure, axes)
        return save(figure, path)


def heat(data: Data, path: str | Path) -> Path:
    """Cosines of the rows of one phase with each other, for the first runs that have gradients, else any stream.

    Args:
        data: of the result.
        path: where, without a suffix.
    """
    wanted = "gradients" if any(row["stream"] == "gradients" for row in data["heat"]) else None
    rows = [row for row in data["heat"] if wanted is None or row["stream"] == wanted]
    chosen = list({row["run"]: row for row in reversed(rows)}.values())[::-1]
    # Runs as unlike as can be: those of different batch sizes first.
    by_batch = {data["runs"][row["run"]]["batch_size"]: row for row in reversed(chosen)}
    shown = (list(by_batch.values())[::-1] if len(by_batch) > 1 else chosen)[:SHOWN_RUNS]
    if not shown:
        return _empty(path, "no rows were found")
    image: Any = None
    with columns_canvas(2.9, len(shown)) as (figure, panels):
        for axes, row in zip(panels, shown, strict=True):
            values = np.array([[finite(value) for value in line] for line in row["cosines"]])
            image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            run = data["runs"][row["run"]]
            axes.set_title(label(f"batch {run['batch_size']}, {row['phase']}"), fontsize=9.5)
            axes.grid(visible=False)
            places = [0, len(values) - 1]
            axes.set_xticks(places, [str(row["steps"][place]) for place in places], fontsize=9)
            axes.set_yticks([])
        panels[0].set_ylabel(f"{stream_name(shown[0]['stream'])} of a step")
        figure.colorbar(image, ax=panels, label="cosine", shrink=0.8, pad=0.02)
        figure.supxlabel("optimiser step", fontsize=10)
        return save(figure, path)


def drift(data: Data, path: str | Path) -> Path:
    """Octaves by which root mean squares move from the first phase on, by kind of tensor, a panel for each stream.

    Args:
        data: of the result.
        path: where, without a suffix.
    """
    names = [stream for stream in streams(data) if any(row["stream"] == stream for row in data["drift"])]
    kinds = list(dict.fromkeys(row["kind"] for row in data["drift"]))
    with columns_canvas(3.4, len(names)) as (figure, panels):
        for axes, stream in zip(panels, names, strict=True):
            rows = [row for row in data["drift"] if row["stream"] == stream]
            axes.set_title(stream_name(stream), fontsize=10)
            axes.axhline(0, color=INK, linewidth=1)
            for kind, color in zip(kinds, CYCLE, strict=False):
                own = [row for row in rows if row["kind"] == kind]
                if own:
                    moved = _octaves(own)
                    axes.plot(list(moved), list(moved.values()), "o-", color=color, label=label(kind), markersize=4)
            axes.tick_params(axis="x", labelsize=9)
            axes.margins(x=0.15)
        panels[0].set_ylabel("octaves since the first phase")
        legend_below(figure, max(panels, key=lambda axes: len(axes.get_lines())))
        return save(figure, path)


def _octaves(rows: Sequence[Data]) -> dict[str, float]:
    """By phase, the mean over tensors of how far their scale has moved, each weighed by its size."""
    found: dict[str, list[tuple[float, int]]] = {}
    for row in rows:
        scales: Mapping[str, Any] = row["scales"]
        start = next(iter(scales.values()))
        for phase, value in scales.items():
            if start and value:
                found.setdefault(phase, []).append((math.log2(value / start), row["size"]))
    return {
        phase: sum(moved * size for moved, size in own) / sum(size for _, size in own) for phase, own in found.items()
    }


def noise(data: Data, path: str | Path) -> Path:
    """Cosine of neighbouring gradients over the batch size, and what the noise scale of the smallest batch predicts.

    Args:
        data: of the result.
        path: where, without a suffix.
    """
    found = batches(data)
    names = list(dict.fromkeys(item.label for item in found))
    with canvas(4.4) as (figure, (axes,)):
        axes.set_title("Neighbouring gradients, early in training")
        axes.set_xlabel("batch size (samples)")
        axes.set_ylabel("cosine")
        for index, name in enumerate(names):
            own = [item for item in found if item.label == name]
            sizes = [item.batch_size for item in own]
            color = CYCLE[index % len(CYCLE)]
            marker = "o" if index < len(CYCLE) else "s"
            axes.plot(sizes, [item.measured for item in own], f"{marker}-", color=color, label=label(name))
            axes.plot(sizes, [item.predicted for item in own], "--", color=color, linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(sorted({item.batch_size for item in found}))
        plain_log_ticks(axes.xaxis)
        axes.minorticks_off()
        legend_below(figure, axes)
        axes.text(0.02, 0.97, "dashed: s / (1 + s)", transform=axes.transAxes, va="top", fontsize=9, color="#555555")
        return save(figure, path)


def checked(data: Data, path: str | Path) -> Path:
    """Bits that the codec takes with each of the settings, means over runs.

    Args:
        data: of the result.
        path: where, without a suffix.
    """
    names = [stream for stream in streams(data) if any(row["stream"] == stream for row in data["checks"])]
    settings = (TABLES, SCALES, DEFAULT, RECOMMENDED)
    with canvas(3.4) as (figure, (axes,)):
        axes.set_title(f"The codec at an error of {data['nmse']:g}")
        axes.set_ylabel("bits a coordinate")
        width = 0.8 / len(settings)
        for index, (setting, color) in enumerate(zip(settings, (GREY, SKY, BLUE, "#D55E00"), strict=True)):
            found = [span(list(check_bits(data, name, setting).values())) for name in names]
            at = np.arange(len(names)) + (index - 1.5) * width
            heights = [own.mean if own else math.nan for own in found]
            axes.bar(at, heights, width * 0.95, color=color, label=setting)
        axes.set_xticks(range(len(names)), [stream_name(name) for name in names])
        axes.grid(visible=False, axis="x")
        legend_below(figure, axes)
        return save(figure, path)


def _run_name(data: Data, number: int) -> str:
    run = data["runs"][number]
    told = [run["task"], run["network"], run["optimizer"], run["batch_size"]]
    return label(" ".join(str(part) for part in told if part is not None))


def _empty(path: str | Path, text: str) -> Path:
    with canvas(2.0) as (figure, (axes,)):
        nothing_to_show(axes, text)
        return save(figure, path)

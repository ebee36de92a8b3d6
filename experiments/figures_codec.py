"""The figures of what packets are made of: bits of each layer, the fit of the coder's model, and likeness of rows."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import PercentFormatter

from .measures import Data
from .plotting import BLUE, GREY, INK, canvas, colors, finite, label, legend_below, nothing_to_show, save
from .smoothing import MIN_SMOOTHED, running_median


def bits_by_layer(anatomy: Data | None, path: str | Path) -> Path:
    """Above, bits a coordinate of each tensor over the run; below, each tensor's share of all bits.

    Args:
        anatomy: as in a result of `record`; None where there is none. The largest tensors are drawn.
        path: where, without a suffix.
    """
    with canvas(6.0, 2, (3, 2)) as (figure, (top, bottom)):
        if anatomy is None:
            nothing_to_show(top, "no gradients were coded")
            bottom.set_axis_off()
            return save(figure, path)
        steps = np.array(anatomy["steps"], dtype=float)
        bits = np.array([[finite(value) for value in row] for row in anatomy["bits"]])
        sizes = np.array([tensor["size"] for tensor in anatomy["tensors"]], dtype=float)
        names = [tensor["name"] for tensor in anatomy["tensors"]]
        order = np.argsort(-sizes, kind="stable")
        looks = colors([names[place] for place in order])
        shown = sorted(int(place) for place in order if names[place] in looks)
        top.set_title(f"Bits of the {anatomy['stream']} by layer, at NMSE {anatomy['nmse']:g}")
        top.set_ylabel("bits per coordinate")
        for place in shown:
            line = bits[:, place] / sizes[place]
            line = running_median(line) if len(line) >= MIN_SMOOTHED else line
            top.plot(steps, line, color=looks[names[place]][0], linewidth=1.5, label=label(names[place]))
        top.set_ylim(bottom=0)
        whole = np.maximum(bits.sum(1), 1e-300)
        shares = [bits[:, place] / whole for place in shown]
        hues = [looks[names[place]][0] for place in shown]
        bottom.stackplot(steps, shares, colors=hues, alpha=0.85, linewidth=0)
        bottom.set_ylim(0, 1)
        bottom.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        bottom.set_ylabel("share of all bits")
        bottom.set_xlabel("optimiser step")
        for axes in (top, bottom):
            axes.set_xlim(steps[0], steps[-1])
        legend_below(figure, top)
        return save(figure, path)


def cosines(likeness: Data | None, path: str | Path) -> Path:
    """Cosines of the rows of each step with those of each other step.

    Args:
        likeness: as in a result of `record`; None where there is none.
        path: where, without a suffix.
    """
    with canvas(4.6) as (figure, (axes,)):
        if likeness is None:
            nothing_to_show(axes, "too few rows were recorded")
            return save(figure, path)
        values = np.array([[finite(value) for value in row] for row in likeness["cosines"]])
        steps = likeness["steps"]
        axes.set_title(f"How alike the {likeness['stream']} of two steps are")
        image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest", origin="lower")
        axes.grid(visible=False)
        places = np.unique(np.linspace(0, len(steps) - 1, 5).round().astype(int))
        axes.set_xticks(places, [str(steps[place]) for place in places])
        axes.set_yticks(places, [str(steps[place]) for place in places])
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("optimiser step")
        figure.colorbar(image, ax=axes, label="cosine", pad=0.02)
        return save(figure, path)


def model_fit(anatomy: Data | None, path: str | Path) -> Path:
    """How residuals fall under the entropy coder's tables, and how large they are against what the tables expect.

    Above, the share of coordinates whose magnitude falls into each twentieth of the probability that its table gives:
    flat where the model is right. Below, mean magnitude of each scale class: on the diagonal where the model is right.

    Args:
        anatomy: as in a result of `record`; None where there is none.
        path: where, without a suffix.
    """
    with canvas(6.4, 2, (2, 3)) as (figure, (top, bottom)):
        if anatomy is None:
            nothing_to_show(top, "no gradients were coded")
            bottom.set_axis_off()
            return save(figure, path)
        shares = np.array([finite(share) for share in anatomy["histogram"]])
        edges = np.linspace(0, 1, len(shares) + 1)
        top.set_title(f"Residuals of the {anatomy['stream']} against the codec's model")
        top.bar(edges[:-1], shares * len(shares), np.diff(edges), align="edge", color=BLUE, edgecolor="white")
        top.axhline(1, color=INK, linestyle="--", linewidth=1.2, label="where the model is right")
        top.set_xlim(0, 1)
        top.set_xlabel("probability of a smaller magnitude, by the model")
        top.set_ylabel("how often / expected")
        classes = [row for row in anatomy["classes"] if (row["expected"] or 0) > 0 and (row["seen"] or 0) > 0]
        expected, seen = (np.array([row[name] for row in classes]) for name in ("expected", "seen"))
        share = np.array([row["number"] for row in classes]) / max(sum(row["number"] for row in classes), 1)
        if len(classes):
            ends = [float(min(expected.min(), seen.min())), float(max(expected.max(), seen.max()))]
            bottom.plot(ends, ends, color=INK, linestyle="--", linewidth=1.2)
        bottom.scatter(expected, seen, s=12 + 700 * share, color=BLUE, alpha=0.6, edgecolor="none")
        bottom.set_xscale("log")
        bottom.set_yscale("log")
        for axis in (bottom.xaxis, bottom.yaxis):
            axis.set_major_formatter("{x:g}")
        bottom.set_xlabel("magnitude that the model expects (cells)")
        bottom.set_ylabel("magnitude seen (cells)")
        bottom.text(
            0.98,
            0.04,
            "a dot for each scale class;\nits area: how many coordinates",
            ha="right",
            fontsize=9,
            color=GREY,
            transform=bottom.transAxes,
        )
        legend_below(figure, top)
        return save(figure, path)

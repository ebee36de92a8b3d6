"""The page `docs/gradients.md`, made of results of `deadreckon characterize`."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from deadreckon.experiments.characterize.figures import characterize_figures
from deadreckon.experiments.characterize.measures import streams
from deadreckon.experiments.characterize.text import NOTES, run_table, stream_parts
from deadreckon.experiments.characterize.verdicts import about, batch, capital, effects, headline, stream_name
from deadreckon.experiments.files import write_whole
from deadreckon.experiments.results import Result

TITLE = "# What gradients are like"
QUESTION = (
    "Do the gradient vectors of one network obey an i.i.d. Gaussian source, and if not, what describes them? The "
    "answer decides what a codec should model: the scale of each coordinate, its value, or several coordinates at "
    "once. Updates (weights after an optimiser's step less those before) and pseudo-gradients (weights before some "
    "local steps less those after) are asked the same. Every sentence below with a number in it is made from that "
    "number by `deadreckon characterize`, which does the same for runs of your own: [how it "
    "measures](#how-it-is-measured)."
)
METHOD = (
    "Five families are fitted to values of even rows and judged by held-out likelihood on odd rows and other "
    "coordinates, in bits a coordinate. Scales are predicted as the codec does it, by a causal running mean of a "
    "coordinate's own magnitudes and of those of its row and column, corrected by a third of the row itself; "
    "without quantisation, so that the codec knows a little less. Values are predicted by least squares from the "
    "last row and a running mean of those before it. The gains are those of ideal coders at fine resolution, where "
    "all coordinates cost bits. At the codec's error most coordinates of a gradient are zero, and the same "
    "knowledge is worth less in bits and more in proportion: that is why the codec itself is run on the last rows, "
    "without the first quarter of its packets, and why its bits have the last word."
)
LIMITS = (
    "Small networks and early training only: the largest run has the parameters and steps named above, and one "
    "seed. Rows of one run are not independent, so ranges over runs say more than p-values. Gains do not add up: "
    "what predicting values takes away, vectors cannot gain again."
)
COMMAND = "python benchmarks/characterize_tasks.py --streams FOLDER --out FOLDER --docs docs"


def make_page(results: Mapping[str, Result], folder: Path) -> str:
    """The page as Markdown; its figures are written as SVG.

    Args:
        results: `tasks`, runs of several tasks, optimisers and batch sizes; `variants`, of optimisers and
            initialisations.
        folder: where figures go; the page lies in the folder above.
    """
    tasks, variants = results["tasks"].data, results["variants"].data
    figures = _figures(results, folder)
    made = ", ".join(f"{name} {version}" for name, version in results["tasks"].environment["packages"].items())
    date = str(results["tasks"].environment["date"])[:10]
    parts = [TITLE, QUESTION, "## The answer for our tasks", about(tasks)]
    parts += [f"* {headline(tasks, stream)}" for stream in streams(tasks)]
    parts += [figures["tasks", "models"], figures["tasks", "codec"]]
    for stream in streams(tasks):
        parts.append(f"## {capital(stream_name(stream))}")
        parts += stream_parts(tasks, stream)
    parts += ["## Figures"]
    parts += [
        figures["tasks", name] for name in ("marginals", "lags", "cosines", "drift") if ("tasks", name) in figures
    ]
    parts += ["## Batch size and noise", " ".join(batch(tasks)), figures.get(("tasks", "batch_size"), "")]
    parts += ["## Initialisation and optimiser", about(variants)]
    for stream in streams(variants):
        parts += [
            f"**{capital(stream_name(stream))}.** {headline(variants, stream)}",
            *_items(effects(variants, stream)),
        ]
    parts += [figures["variants", "models"]]
    parts += ["## How it is measured", NOTES, METHOD, "## What this does not say", LIMITS]
    parts += ["## Every run", run_table(tasks), run_table(variants)]
    parts += [
        "## How to recompute",
        f"Measured on {date} with {made}. Everything, this page and its figures included, is made by",
        f"```text\n{COMMAND}\n```",
        "and the same for recorded runs of one's own by `deadreckon characterize RUN`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _items(sentences: list[str]) -> list[str]:
    return ["\n".join(f"* {sentence}" for sentence in sentences)] if sentences else []


def _figures(results: Mapping[str, Result], folder: Path) -> dict[tuple[str, str], str]:
    """Write the figures as SVG, and give what shows each in the page."""
    links: dict[tuple[str, str], str] = {}
    for name, result in results.items():
        with tempfile.TemporaryDirectory() as drawn:
            for path, caption in characterize_figures(result.data, Path(drawn)):
                own = f"gradients_{name}_{path.stem}.svg"
                write_whole(folder / own, path.with_suffix(".svg").read_text(encoding="utf-8"))
                links[name, path.stem] = f"![{caption}]({folder.name}/{own})\n\n*{caption}*"
    return links

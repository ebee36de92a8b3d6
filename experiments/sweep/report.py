"""The part of a report that is about a sweep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..report import html as web
from ..results import Result
from .figures import sweep_panels
from .verdicts import SEED, settings


def sweep_section(result: Result, title: str, folder: Path) -> list[str]:
    """The metric over each parameter, the settings best first, every run, and what failed.

    Args:
        result: of a sweep.
        title: of the section.
        folder: where the figure is written.
    """
    data = result.data
    metric = data["metric"]
    parts = [f"<h2>{web.escape(title)}</h2>"]
    if data["cells"]:
        caption = f"{metric['name']} of every complete run over each parameter that varied."
        picture = sweep_panels(data["cells"], metric, folder / "sweep").with_suffix(".svg")
        names = [name for name in data["parameters"] if name != SEED]
        rows = []
        for row in settings(data["cells"], metric["goal"]):
            numbers = [web.number(row[key], ".5g") for key in ("mean", "low", "high")]
            rows.append([*_texts(row["values"], names), *numbers, row["num_runs"]])
        runs = []
        for row in data["cells"]:
            numbers = [web.number(row["metric"], ".5g"), web.number(row["wall_seconds"], ".3g")]
            runs.append([row["name"], *_texts(row["values"], data["parameters"]), *numbers])
        columns = ["run", *data["parameters"], metric["name"], "seconds"]
        parts += [
            web.figures([(picture, caption)]),
            web.table([*names, metric["name"], "lowest", "highest", "runs"], rows, len(names)),
            web.folded("Every run", web.table(columns, runs, 1 + len(data["parameters"]))),
        ]
    if data["failures"]:
        failed = [[row["name"], row["reason"]] for row in data["failures"]]
        parts.append(web.folded("Runs that failed", web.table(["run", "reason"], failed, 2)))
    return parts


def _texts(values: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [str(values.get(name)) for name in names]

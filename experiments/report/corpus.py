"""The part of a report that is about a corpus of recorded runs."""

from collections.abc import Sequence
from pathlib import Path

from ..results import Result
from ..verdicts import percent
from . import html as web
from .summary import titled


def corpus_section(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
    """A table of the runs, folded, and one of those that failed; there is nothing to draw in `folder`."""
    data = result.data
    columns = ["run", "ended", "parameters", "training loss", "test loss", "test accuracy", "CPU (s)", "ms a step"]
    rows = [
        [
            run["name"],
            "diverged" if run["diverged"] else "well",
            run["num_parameters"],
            web.number(run["train_loss"], ".4f"),
            web.number(run["test_loss"], ".4f"),
            web.DASH if run["test_accuracy"] is None else percent(run["test_accuracy"]),
            web.number(run["cpu_seconds"]),
            web.DASH if run["seconds_per_step"] is None else f"{1000 * run['seconds_per_step']:.3g}",
        ]
        for run in data["runs"]
    ]
    parts = [
        f"<h2>{web.escape(titled('Corpus', result, results))}</h2>",
        "<p>Milliseconds of a step are CPU time of training alone, without the recording.</p>",
        web.folded("Every run", web.table(columns, rows, 2)),
    ]
    if data["failures"]:
        failed = [[item["name"], item["reason"]] for item in data["failures"]]
        parts.append(web.folded("Runs that failed", web.table(["run", "reason"], failed, 2)))
    return parts

"""The sections of a report about forecasters fitted to many runs and scored on many runs."""

from collections.abc import Sequence
from pathlib import Path

from ..bootstrap import LEVEL
from ..fit.figures import fit_curve, skill_by_task
from ..results import Result
from ..score.figures import score_figures
from ..score.text import skill_table
from ..score.verdicts import horizons_text
from ..verdicts import percent
from . import html as web
from .summary import titled


def fit_section(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
    """What a fit gave, by task; figures are written into `folder`."""
    data = result.data
    pictures = [(skill_by_task(data["skill"], folder / "skill_by_task"), "Skill by task; hollow on training runs.")]
    if data["curve"]:
        pictures.append((fit_curve(data["curve"], folder / "fit_curve"), "Error while it was trained."))
    columns = ["task", "runs", "horizon", "number of runs", "error / standing still", "worst skill", "within one scale"]
    rows = [
        [
            row["task"],
            "learned from" if row["role"] == "training" else "kept apart",
            row["horizon"],
            row["num_runs"],
            web.number(row["error"]),
            web.number(row["worst"], "+.3f"),
            web.DASH if row["coverage"] is None else percent(row["coverage"]),
        ]
        for row in data["skill"]
    ]
    return [
        f"<h2>{web.escape(titled('Fitted forecaster', result, results))}</h2>",
        web.figures([(png.with_suffix(".svg"), caption) for png, caption in pictures]),
        web.folded("Errors by task", web.table(columns, rows, 2)),
    ]


def score_section(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
    """How forecasters compare; figures are written into `folder`."""
    data = result.data
    text = (
        "Skill is 1 - MSE / MSE of standing still, with the geometric mean over runs of these ratios and its "
        f"{percent(LEVEL)} interval over runs, all forecasters on the same cases. Error ratios below 1 are better than "
        "the reference. A star: beats every closed form outside the interval."
    )
    parts = [
        f"<h2>{web.escape(titled('Forecasters compared', result, results))}</h2>",
        f"<p>{web.escape(text)}</p>",
        web.figures([(png.with_suffix(".svg"), caption) for png, caption in score_figures(data, folder)]),
    ]
    for horizon in data["horizons"]:
        columns, rows = skill_table(data, horizon)
        parts.append(f"<h3>{web.escape(horizons_text([horizon]))} ahead</h3>{web.table(columns, rows, 2)}")
    rows = [
        [run["folder"], run["task"], run["network"], run["num_parameters"], run["num_cases"]] for run in data["runs"]
    ]
    parts.append(web.folded("The runs", web.table(["run", "task", "network", "parameters", "cases"], rows, 3)))
    return parts

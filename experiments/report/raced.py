"""The section of a report about a race."""

from collections.abc import Sequence
from pathlib import Path

from .. import verdicts
from ..figures import jump_timeline, ledger_bars, pca_path, race_curves
from ..figures_costs import loss_over_costs, race_lines
from ..results import Result
from ..timelines import regime_timeline
from ..verdicts import arm_name
from . import html as web
from .jump_table import jump_table
from .sentences import arrows, plane, regimes
from .summary import jumping_arms, run_seconds, titled


def race_section(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
    """Whether jumping paid; figures are written into `folder`."""
    data = result.data
    arms = jumping_arms(data)
    jumps = [jump for arm in arms for jump in arm["jumps"]]
    ledger: dict[str, dict[str, float]] = {}
    for arm in arms:
        for name, cost in arm["ledger"].items():
            total = ledger.setdefault(name, {"wall_seconds": 0.0, "cpu_seconds": 0.0, "count": 0})
            for key in total:
                total[key] += cost[key] or 0
    pictures = [
        web.svg_of(race_curves(data["arms"], data["target"], folder / "race"), "Thin: each seed. Thick: their median."),
        web.svg_of(
            loss_over_costs(race_lines(data), folder / "costs", "test loss (nats)"),
            "Test loss of each run. Total cost is CPU time with everything that jumping takes.",
        ),
        web.svg_of(
            regime_timeline(arms, folder / "timeline"),
            "What became of each opportunity, on the loss; behind, the regime. At the foot: not proposed.",
        ),
        web.svg_of(jump_timeline(jumps, folder / "jumps"), "Every opportunity to jump, all seeds side by side."),
        web.svg_of(
            ledger_bars(ledger, run_seconds(arms), folder / "ledger"), "Where the time of the runs with jumps went."
        ),
    ]
    picture = data["picture"]
    if picture is not None:
        caption = (
            "One more run with jumps, watched: where each verified jump led or would have led, and the loss around."
        )
        pictures.append(web.svg_of(pca_path(picture, [], folder / "picture"), caption))
    columns = ["arm", "seed", "reached", "steps", "CPU (s)", "wall (s)", "gradient evaluations", "final test loss"]
    rows = [
        [
            arm_name(arm["name"]),
            arm["seed"],
            "yes" if arm["reached"] else "no",
            web.number(arm["steps_to_target"], ""),
            web.number(arm["cpu_seconds_to_target"]),
            web.number(arm["wall_seconds_to_target"]),
            web.number(arm["gradient_evaluations_to_target"], ".0f"),
            web.number(arm["final"]["test_loss"], ".4f"),
        ]
        for arm in data["arms"]
    ]
    costs = [
        [name, int(cost["count"]), web.number(cost["wall_seconds"]), web.number(cost["cpu_seconds"])]
        for name, cost in ledger.items()
    ]
    forecaster = f" Jumps were proposed by {data['forecaster']}." if data["forecaster"] else ""
    text = f"{data['network']} on {data['task']}, to a {verdicts.target(data)}.{forecaster}"
    return [
        f"<h2>{web.escape(titled('Race', result, results))}</h2>",
        f"<p>{web.escape(text)} Costs in the table are up to the first measurement that reached it.</p>",
        web.paragraphs(regimes(jumps) + arrows(picture) + plane(picture)),
        web.figures(pictures),
        web.table(columns, rows),
        "<h3>Ledger of the runs with jumps</h3>",
        web.table(["activity", "times", "wall (s)", "CPU (s)"], costs),
        jump_table(jumps),
    ]

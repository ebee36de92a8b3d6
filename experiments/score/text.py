"""A score as plain text: what it says first, then one table for each horizon."""

from .. import markdown
from ..bootstrap import LEVEL
from ..measures import Data
from ..verdicts import percent
from .verdicts import CONTROL, headline, horizons_text, overall, scored, standings

NONE = "-"
FAMILIES = {"closed": "closed form", "control": "control", "learned": "learned"}


def as_text(score: Data) -> str:
    """The whole score as Markdown that can be read as it is."""
    parts = ["# Skill of forecasters", headline(score), *scored(score)]
    for item in standings(score):
        parts.append(f"## {horizons_text([item.horizon])} ahead")
        columns, rows = skill_table(score, item.horizon)
        parts.append(markdown.table(columns, rows, num_text=2))
    parts.append(
        "Skill is 1 - MSE / MSE of standing still, a geometric mean over runs of the ratios; in brackets its "
        f"{percent(LEVEL)} interval over runs. Error ratios: below 1 is better than the reference. Worst: the skill in "
        "the run where it is least. Above 0: share of runs with skill. Within 1 and 2: how often the truth is within "
        "one and two of the scales that the forecaster gives (68 % and 95 % if errors were Gaussian and scales right). "
        "Steps: CPU time of one forecast over that of one optimiser step."
    )
    return "\n\n".join(parts) + "\n"


def skill_table(score: Data, horizon: int) -> tuple[list[str], list[list[str]]]:
    """Headings and rows about one horizon, the most skilled forecaster first."""
    standing = next(item for item in standings(score) if item.horizon == horizon)
    families = {item["name"]: item["family"] for item in score["forecasters"]}
    references = [name for name in (standing.best_closed,) if name is not None]
    references += [item["name"] for item in score["forecasters"] if item["family"] == CONTROL]
    against = {(row["forecaster"], row["reference"]): row for row in score["against"] if row["horizon"] == horizon}
    costs = {row["forecaster"]: row for row in score["cost"] if row["horizon"] == horizon}
    columns = ["forecaster", "family", "skill"]
    columns += [f"error / {name}" for name in references]
    columns += ["worst", "above 0", "within 1", "within 2", "steps"]
    rows = overall(score, horizon)
    rows = sorted(rows, key=lambda row: -row["skill"] if row["skill"] is not None else float("inf"))
    table: list[list[str]] = []
    for row in rows:
        name = row["forecaster"]
        cost = costs.get(name)
        table.append(
            [
                name + (" *" if name in standing.winners else ""),
                FAMILIES.get(families.get(name, ""), NONE),
                _interval(row["skill"], row["low"], row["high"]),
                *(_ratio(against.get((name, reference))) for reference in references),
                _number(row["worst"]),
                _percent(row["share_above_zero"]),
                _percent(row["within_one"]),
                _percent(row["within_two"]),
                NONE if cost is None or cost["step_equivalents"] is None else f"{cost['step_equivalents']:.2g}",
            ]
        )
    return columns, table


def _ratio(row: Data | None) -> str:
    return "1" if row is None else _interval(row["ratio"], row["low"], row["high"])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return NONE
    return _number(value) if low is None or high is None else f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    """Three decimals; large numbers shorter, as their decimals mean nothing."""
    if value is None:
        return NONE
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.0f} %"

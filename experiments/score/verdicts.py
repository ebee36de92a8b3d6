"""What a score says: which learned forecasters beat every closed form, by pure functions of checked results."""

from collections.abc import Sequence
from typing import NamedTuple

from ..bootstrap import LEVEL, MIN_RUNS
from ..measures import REFERENCE_FORECASTER as HOLD
from ..measures import Data
from ..verdicts import count, listing, percent, seconds

CLOSED, CONTROL, LEARNED = "closed", "control", "learned"
MAX_NAMED = 6  # winners in one sentence; the table has them all


class Standing(NamedTuple):
    """How the forecasters stand at one horizon.

    Attributes:
        horizon: optimiser steps ahead.
        best_closed: the closed form with the highest skill; None without any.
        best_learned: the same among learned ones.
        winners: learned ones whose squared error is below that of every closed form outside the interval, the most
            skilled first; not those that were fitted to runs they are scored on.
    """

    horizon: int
    best_closed: str | None
    best_learned: str | None
    winners: list[str]


def standings(score: Data) -> list[Standing]:
    """The standing at each horizon, ascending."""
    return [_standing(score, horizon) for horizon in score["horizons"]]


def _standing(score: Data, horizon: int) -> Standing:
    rows = {row["forecaster"]: row for row in overall(score, horizon)}
    ranked = sorted(
        (name for name, row in rows.items() if row["skill"] is not None), key=lambda name: -rows[name]["skill"]
    )
    families = {item["name"]: item["family"] for item in score["forecasters"]}
    closed = [name for name in ranked if families[name] == CLOSED]
    learned = [name for name in ranked if families[name] == LEARNED]
    high = {(row["forecaster"], row["reference"]): row["high"] for row in score["against"] if row["horizon"] == horizon}
    known = {item["name"] for item in score["forecasters"] if item.get("known_runs")}
    winners = [
        name
        for name in learned
        if closed
        and name not in known
        and all((bound := high.get((name, other))) is not None and bound < 1 for other in closed)
    ]
    return Standing(horizon, closed[0] if closed else None, learned[0] if learned else None, winners)


def overall(score: Data, horizon: int) -> list[Data]:
    """The rows of skill at a horizon over all runs, kinds and phases."""
    return [
        row
        for row in score["skill"]
        if row["horizon"] == horizon and (row["task"], row["kind"], row["phase"]) == ("all", "all", "all")
    ]


def headline(score: Data) -> str:
    """Which learned forecasters beat every closed form at which horizons, or that none does."""
    found = standings(score)
    every = horizons_text([item.horizon for item in found])
    if not any(item.best_learned for item in found):
        return "No learned forecaster was scored, so nothing is said about whether one beats the closed forms."
    if len(score["runs"]) < MIN_RUNS:
        return (
            f"Nothing is said about what beats what: {count(len(score['runs']), 'run')} do not make an interval, "
            f"{MIN_RUNS} are the least."
        )
    learned = [item for item in score["forecasters"] if item["family"] == LEARNED]
    if all(item.get("known_runs") for item in learned):
        return (
            "Nothing is said about what beats what: every learned forecaster was fitted to runs that it is scored on. "
            "Score it on other runs, best of a task that it has not seen."
        )
    winning = [item for item in found if item.winners]
    if not winning:
        return (
            f"No learned forecaster beats every closed form outside the {percent(LEVEL)} interval at any horizon "
            f"({every})."
        )
    parts = [f"{_named(item.winners)} {horizons_text([item.horizon])} ahead" for item in winning]
    losing = [item.horizon for item in found if not item.winners]
    return (
        f"At {len(winning)} of {count(len(found), 'horizon')} a learned forecaster beats every closed form outside the "
        f"{percent(LEVEL)} interval: {'; '.join(parts)}."
        + (f" None does {horizons_text(losing)} ahead." if losing else "")
    )


def scored(score: Data) -> list[str]:
    """What there is to say beyond the headline: for each horizon the best of each family, with the error it leaves."""
    tasks = sorted({run["task"] for run in score["runs"]})
    sentences = [
        f"{count(len(score['forecasters']), 'forecaster')} on {count(len(score['runs']), 'run')} of {listing(tasks)}, "
        f"the same {count(sum(run['num_cases'] for run in score['runs']), 'case')} for each; the intervals hold for "
        "runs like these, and for no other task."
    ]
    sentences += [_acquaintance(item, len(score["runs"])) for item in score["forecasters"] if item.get("known_tasks")]
    if score["fit_in_run"]:
        sentences.append(
            "Forecasters that needed it were fitted to the first part of each run; all were scored on the rest."
        )
    sentences += [sentence for item in standings(score) for sentence in _of_horizon(score, item)]
    left_out = sum(run["left_out"] for run in score["runs"])
    if left_out:
        sentences.append(f"{count(left_out, 'case')} with values that are not finite were left out.")
    return sentences


def _acquaintance(item: Data, num_runs: int) -> str:
    """What a forecaster has seen of the runs it is scored on."""
    if item["known_runs"]:
        return (
            f"{item['name']} was fitted to, or chosen by, {item['known_runs']} of these {count(num_runs, 'run')}: its "
            "skill here is no evidence, and it is not counted among those that beat anything."
        )
    return f"{item['name']} was fitted to other runs of {listing(item['known_tasks'])}: no task that it has not seen."


def _of_horizon(score: Data, item: Standing) -> list[str]:
    rows = {row["forecaster"]: row for row in overall(score, item.horizon)}
    ahead = f"{horizons_text([item.horizon])} ahead"
    if item.best_closed is None:
        return [f"{ahead}: nothing moved."]
    best = f"the best closed form is {item.best_closed} with skill {_with_interval(rows[item.best_closed])}"
    parts = ["no closed form is better than standing still" if item.best_closed == HOLD else best]
    if item.best_learned is not None:
        parts.append(
            f"the best learned forecaster is {item.best_learned} with {_with_interval(rows[item.best_learned])}"
        )
    sentences = [f"{ahead}: {', '.join(parts)}."]
    if item.best_learned is not None:
        controls = [entry["name"] for entry in score["forecasters"] if entry["family"] == CONTROL]
        ratios = [ratio_text(score, item.best_learned, other, item.horizon) for other in (item.best_closed, *controls)]
        cost = next(
            (row for row in score["cost"] if (row["forecaster"], row["horizon"]) == (item.best_learned, item.horizon)),
            None,
        )
        price = "" if cost is None else f" A forecast costs {cost_text(cost)}."
        sentences.append(f"Its squared error is {listing(ratios)}.{price}")
    return sentences


def ratio_text(score: Data, name: str, reference: str, horizon: int) -> str:
    """The ratio of two forecasters' squared errors with its interval, as words."""
    row = next(
        (
            row
            for row in score["against"]
            if (row["forecaster"], row["reference"], row["horizon"]) == (name, reference, horizon)
        ),
        None,
    )
    if row is None or row["ratio"] is None:
        return f"not to be compared with that of {reference}"
    interval = "" if row["low"] is None or row["high"] is None else f" ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['ratio']:.3f}{interval} times that of {reference}"


def cost_text(cost: Data) -> str:
    """What a forecast costs, in optimiser steps where their duration is known."""
    if cost["step_equivalents"] is not None:
        return f"as much CPU time as {cost['step_equivalents']:.2g} optimiser steps"
    return "an unknown time" if cost["cpu_seconds"] is None else f"{seconds(cost['cpu_seconds'])} of CPU time"


def horizons_text(horizons: Sequence[int]) -> str:
    """`10 steps`, `10 and 50 steps`."""
    return f"{listing([str(horizon) for horizon in horizons])} {'step' if list(horizons) == [1] else 'steps'}"


def _named(names: Sequence[str]) -> str:
    left = len(names) - MAX_NAMED
    return listing(names) if left <= 0 else f"{', '.join(names[:MAX_NAMED])} and {left} more"


def _with_interval(row: Data) -> str:
    if row["low"] is None or row["high"] is None:
        return f"{row['skill']:.3f}"
    return f"{row['skill']:.3f} ({row['low']:.3f} to {row['high']:.3f})"

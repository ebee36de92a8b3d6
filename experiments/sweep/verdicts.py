"""Sentences about a sweep, each made from numbers by a pure function."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from ..measures import Data
from ..verdicts import count, listing, seconds

SEED = "seed"  # runs that differ in it only are repetitions
_ORDER = {"minimize": "lowest", "maximize": "highest"}


def settings(cells: Sequence[Data], goal: str) -> list[dict[str, Any]]:
    """The settings of complete runs, best first: repetitions with other seeds are one, by their mean.

    Args:
        cells: of a result.
        goal: `minimize` or `maximize`.
    """
    groups: dict[str, list[Data]] = {}
    for cell in cells:
        groups.setdefault(setting_text(without_seed(cell["values"])), []).append(cell)
    rows: list[dict[str, Any]] = []
    for own in groups.values():
        values = [cell["metric"] for cell in own]
        row = {"values": without_seed(own[0]["values"]), "mean": sum(values) / len(values), "num_runs": len(own)}
        rows.append({**row, "low": min(values), "high": max(values)})
    return sorted(rows, key=lambda row: row["mean"], reverse=goal == "maximize")


def without_seed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a run but for its seed."""
    return {name: value for name, value in values.items() if name != SEED}


def setting_text(values: Mapping[str, Any]) -> str:
    """A setting in words: `learning_rate 0.01, batch_size 32`."""
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "the only setting"


def swept(sweep: Data) -> list[str]:
    """What was tried, what was best, how sure that is, and what failed."""
    cells, failures, metric = sweep["cells"], sweep["failures"], sweep["metric"]
    tried = f"{sweep['name']}: {count(len(cells) + len(failures), 'run')} of deadreckon {sweep['command']}"
    spent = sum(cell["wall_seconds"] or 0.0 for cell in cells)
    sentences = [f"{tried}, {count(len(cells), 'complete one')} in {seconds(spent)}."]
    rows = settings(cells, metric["goal"])
    if rows:
        sentences.append(_best(rows, metric))
        if len(rows) > 1:
            sentences.append(_margin(rows))
        sentences += _edges(rows)
    else:
        sentences.append("No run was completed, so nothing can be said about settings.")
    if failures:
        names = listing([item["name"] for item in failures[:3]])
        more = f" and {count(len(failures) - 3, 'other')}" if len(failures) > 3 else ""
        sentences.append(f"{count(len(failures), 'run')} failed: {names}{more}.")
    return sentences


def _best(rows: Sequence[Data], metric: Data) -> str:
    best = rows[0]
    over = f", the mean of {count(best['num_runs'], 'run')}" if best["num_runs"] > 1 else ""
    order = _ORDER[metric["goal"]]
    return f"The {order} {metric['name']} is {best['mean']:.4g}{over}, at {setting_text(best['values'])}."


def _margin(rows: Sequence[Data]) -> str:
    """Whether the best setting is told from the next one by more than the seeds differ."""
    best, second = rows[:2]
    text = f"Next comes {setting_text(second['values'])} at {second['mean']:.4g}"
    if min(best["num_runs"], second["num_runs"]) == 1:
        return f"{text}; with one run each, nothing says whether the difference is more than noise."
    apart = best["high"] < second["low"] or best["low"] > second["high"]
    return f"{text}; the ranges of their runs {'do not overlap' if apart else 'overlap'}."


def _edges(rows: Sequence[Data]) -> list[str]:
    """A sentence for each number whose best value is the smallest or the largest that was tried."""
    found: list[str] = []
    for name, value in rows[0]["values"].items():
        tried = {row["values"].get(name) for row in rows}
        numbers = [item for item in tried if isinstance(item, Real) and not isinstance(item, bool)]
        if len(numbers) < 3 or len(numbers) < len(tried):
            continue
        if value in (min(numbers), max(numbers)):
            which = "smallest" if value == min(numbers) else "largest"
            found.append(f"That is the {which} {name} that was tried: look further.")
    return found

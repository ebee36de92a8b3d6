"""From what forecasts got wrong in each run to the tables of a score: pure functions of sums.

Within a run squared errors are added up over cases and coordinates, as that is the error of the weights; between runs
their ratios to those of standing still are averaged as `bootstrap` says, so that a run counts once whatever its size.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...forecast.tally import NOTHING, Sums
from ..bootstrap import Estimate, as_ratio, as_skill, estimates, log_ratio

ALL = "all"  # kinds, phases and tasks together


class Cell(NamedTuple):
    """Whose errors, on what."""

    run: int
    forecaster: str
    horizon: int
    kind: str
    phase: str


Tallies = dict[Cell, Sums]


def add(tallies: Tallies, cell: Cell, sums: Sums) -> None:
    """Add sums to a cell and to all cells that comprise it."""
    for kind in (cell.kind, ALL):
        for phase in (cell.phase, ALL):
            wider = cell._replace(kind=kind, phase=phase)
            tallies[wider] = tallies.get(wider, NOTHING).plus(sums)


def skill_rows(
    tallies: Tallies, tasks: Sequence[str], folders: Sequence[str], num_resamples: int, seed: int
) -> list[dict[str, Any]]:
    """Skill of each forecaster at each horizon: over all; by kind, by phase and by task.

    Args:
        tallies: with the cells that comprise others.
        tasks: of each run.
        folders: of each run.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Rows with `forecaster`, `horizon`, `task`, `kind`, `phase`, of which at most one is not `all`; skill with its
        interval, the worst run, the share of runs with skill above 0, and calibration.
    """
    rows: list[dict[str, Any]] = []
    for task, kind, phase in _groups(tallies, tasks):
        runs = [number for number, own in enumerate(tasks) if task in (ALL, own)]
        for horizon in horizons_in(tallies):
            table, known = _log_ratios(tallies, runs, horizon, kind, phase)
            found = _estimates(table, num_resamples, seed)
            for column, name in enumerate(names_in(tallies)):
                skill = as_skill(found[column]) if found else None
                logs = table[:, column]
                rows.append(
                    {
                        "forecaster": name,
                        "horizon": horizon,
                        "task": task,
                        "kind": kind,
                        "phase": phase,
                        "num_runs": len(known),
                        "skill": None if skill is None else skill.value,
                        "low": None if skill is None else skill.low,
                        "high": None if skill is None else skill.high,
                        "worst": 1 - math.exp(logs.max()) if len(known) else None,
                        "worst_run": folders[known[int(logs.argmax())]] if len(known) else None,
                        "share_above_zero": float((logs < 0).mean()) if len(known) else None,
                        **_calibration(tallies, runs, name, horizon, kind, phase),
                    }
                )
    return rows


def against_rows(tallies: Tallies, num_runs: int, num_resamples: int, seed: int) -> list[dict[str, Any]]:
    """The squared error of each forecaster over that of each other one, run by run: a geometric mean and its interval.

    Below 1 the forecaster is better than the reference; it beats it outside the interval where `high` is below 1.
    """
    rows: list[dict[str, Any]] = []
    names = names_in(tallies)
    for horizon in horizons_in(tallies):
        table, _ = _log_ratios(tallies, range(num_runs), horizon, ALL, ALL)
        for column, reference in enumerate(names):
            differences = table - table[:, column : column + 1]
            for name, found in zip(names, _estimates(differences, num_resamples, seed), strict=False):
                if name != reference:
                    ratio = as_ratio(found)
                    rows.append(
                        {
                            "forecaster": name,
                            "reference": reference,
                            "horizon": horizon,
                            "ratio": ratio.value,
                            "low": ratio.low,
                            "high": ratio.high,
                        }
                    )
    return rows


def names_in(tallies: Mapping[Cell, Sums]) -> list[str]:
    """The forecasters, in the order in which they were scored."""
    return list(dict.fromkeys(cell.forecaster for cell in tallies))


def horizons_in(tallies: Mapping[Cell, Sums]) -> list[int]:
    """The horizons, ascending."""
    return sorted({cell.horizon for cell in tallies})


def _groups(tallies: Tallies, tasks: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Task, kind and phase: all of them together first, then one after the other."""
    yield ALL, ALL, ALL
    for kind in sorted({cell.kind for cell in tallies} - {ALL}):
        yield ALL, kind, ALL
    for phase in dict.fromkeys(cell.phase for cell in tallies):
        if phase != ALL:
            yield ALL, ALL, phase
    if len(set(tasks)) > 1:
        for task in sorted(set(tasks)):
            yield task, ALL, ALL


def _log_ratios(
    tallies: Tallies, runs: Sequence[int], horizon: int, kind: str, phase: str
) -> tuple[np.ndarray, list[int]]:
    """log(MSE / MSE of standing still), `[run, forecaster]`, and the runs in which something moved.

    Persistence is the same for all forecasters, so a run counts for all of them or for none.
    """
    names = names_in(tallies)
    known: list[int] = []
    table: list[list[float]] = []
    for run in runs:
        sums = [tallies.get(Cell(run, name, horizon, kind, phase), NOTHING) for name in names]
        if sums and sums[0].persistence > 0:
            known.append(run)
            table.append([log_ratio(own.squared_error, own.persistence) for own in sums])
    return np.array(table, dtype=np.float64).reshape(-1, len(names)), known


def _estimates(table: np.ndarray, num_resamples: int, seed: int) -> list[Estimate]:
    return estimates(table, num_resamples, seed) if len(table) else []


def _calibration(
    tallies: Tallies, runs: Sequence[int], name: str, horizon: int, kind: str, phase: str
) -> dict[str, float | None]:
    """How often the truth is within one and two scales, the mean over runs; None where nothing moves."""
    found = [tallies.get(Cell(run, name, horizon, kind, phase), NOTHING) for run in runs]
    moving = [sums for sums in found if sums.moving]
    if not moving:
        return {"within_one": None, "within_two": None}
    return {
        "within_one": float(np.mean([sums.within_one / sums.moving for sums in moving])),
        "within_two": float(np.mean([sums.within_two / sums.moving for sums in moving])),
    }

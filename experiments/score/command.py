"""`deadreckon score`: skill of forecasters on stored runs."""

import csv
import io
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ...forecast import Case, ForecastError
from ...forecast.tally import tally
from ...models import (
    Budget,
    FittableForecaster,
    fit_forecaster,
    make_forecaster,
)
from ...models.threads import one_thread
from ..closing import close_run
from ..contestants import Contestant, find_contestants, known_to
from ..errors import OptionError
from ..files import write_whole
from ..fit.options import ScoreOptions
from ..progress import tracked
from ..results import write_result
from ..run_cases import CaseRequest, RunCases, choose_tasks, read_cases
from ..run_logger import log_figure, log_table, make_logger
from ..runs import RecordedRun, find_runs, open_run
from .figures import score_figures
from .tables import ALL, Cell, Tallies, add, against_rows, skill_rows
from .text import as_text

TRAINING_SHARE = 0.6  # of the recorded steps, with `fit_in_run`
FIT_ITERATIONS = 400  # with `fit_in_run`, where a forecaster takes any
TIMES = 3  # a forecast is timed, of which the median counts

SKILL_COLUMNS = (
    "forecaster",
    "horizon",
    "task",
    "kind",
    "phase",
    "num_runs",
    "skill",
    "low",
    "high",
    "worst",
    "share_above_zero",
    "within_one",
    "within_two",
)
AGAINST_COLUMNS = ("forecaster", "reference", "horizon", "ratio", "low", "high")
COST_COLUMNS = ("forecaster", "horizon", "wall_seconds", "cpu_seconds", "step_equivalents")


@one_thread()
def run(options: ScoreOptions) -> None:
    """Score forecasters: tables, figures, score.md, tallies.csv and result.json in `options.out`.

    Raises:
        OptionError: if the runs or forecasters do not do.
    """
    out = Path(options.out)
    contestants = find_contestants(options.forecasters, options.controls, options.fit_in_run)
    runs = choose_tasks(find_runs(options.runs), options.only_tasks, options.exclude_tasks)
    forecasters = [item.forecaster for item in contestants]
    request = CaseRequest.of(forecasters, runs, options.horizons, options.spacing, options.cases_per_run, options.data)
    logger = make_logger(options.logger, out, "score", asdict(options), options.wandb_mode)
    tallies: Tallies = {}
    about: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    families: dict[str, Contestant] = {}
    for number, recorded in enumerate(tracked(runs, "scoring runs", options.progress)):
        cases, own = _prepared(recorded, contestants, request, options)
        families |= {item.name: item for item in own}
        for item in own:
            try:
                for entry in tally(item.forecaster, cases.cases):
                    phase = cases.phase(entry.last_step)
                    for kind, sums in entry.kinds.items():
                        add(tallies, Cell(number, item.name, entry.horizon, kind, phase), sums)
                costs += _costs(item, cases, request.horizons)
            except ForecastError as error:
                raise OptionError(f"{item.name!r} cannot forecast {recorded.folder}: {error}") from error
        about.append(_about(cases))
    if not tallies:
        raise OptionError(
            f"Of {len(runs)} runs none has a case whose values are finite. Give runs that did not diverge."
        )
    content = {
        "stream": request.stream,
        "spacing": request.spacing,
        "horizons": list(request.horizons),
        "resamples": options.resamples,
        "fit_in_run": options.fit_in_run,
        "forecasters": [_entry(item, runs) for item in families.values()],
        "runs": about,
        "skill": skill_rows(
            tallies,
            [item["task"] for item in about],
            [item["folder"] for item in about],
            options.resamples,
            options.seed,
        ),
        "against": against_rows(tallies, len(runs), options.resamples, options.seed),
        "cost": _cost_rows(costs),
        "options": asdict(options),
    }
    write_result(out, "score", content)
    write_whole(out / "tallies.csv", _as_csv(tallies, about))
    text = as_text(content)
    write_whole(out / "score.md", text)
    for key, columns in (("skill", SKILL_COLUMNS), ("against", AGAINST_COLUMNS), ("cost", COST_COLUMNS)):
        log_table(logger, f"score/{key}", columns, [[row[name] for name in columns] for row in content[key]])
    for path, _ in score_figures(content, out):
        log_figure(logger, f"score/{path.stem}", path)
    sources = [item.source for item in contestants if item.source]
    close_run(logger, out, [*(recorded.folder for recorded in runs), *sources])
    console = Console(soft_wrap=True)
    console.print(text, markup=False, highlight=False)


def _entry(item: Contestant, runs: Sequence[RecordedRun]) -> dict[str, Any]:
    """What is to be known about a forecaster."""
    known_runs, known_tasks = known_to(item, runs)
    return {
        "name": item.name,
        "family": item.family,
        "source": item.source,
        "num_numbers": item.num_numbers,
        "known_runs": known_runs,
        "known_tasks": known_tasks,
    }


def _prepared(
    run: RecordedRun, contestants: Sequence[Contestant], request: CaseRequest, options: ScoreOptions
) -> tuple[RunCases, list[Contestant]]:
    """The cases of a run to score on, and the forecasters, fitted to its first part where that is wanted."""
    if not options.fit_in_run:
        return read_cases(run, request), list(contestants)
    with open_run(run) as trajectory:
        steps = trajectory.stream(request.stream).steps
    cut = int(steps[0] + TRAINING_SHARE * (steps[-1] - steps[0]))
    held_out = read_cases(run, request, first_step=cut + 1)
    fitted: list[Contestant] = []
    training: list[Case] = []
    for item in contestants:
        forecaster = item.forecaster
        if item.needs_fit and isinstance(forecaster, FittableForecaster):
            training = training or read_cases(run, request, last_step=cut).cases
            forecaster = make_forecaster(forecaster.name, **forecaster.options)
            generator = torch.Generator().manual_seed(options.seed)
            try:
                fit_forecaster(forecaster, training, Budget(iterations=FIT_ITERATIONS), generator)
            except ForecastError as error:
                raise OptionError(
                    f"{item.name!r} cannot be fitted to the first part of {run.folder}: {error} "
                    "Take longer runs, shorter `horizons`, or a file that `deadreckon fit` wrote."
                ) from error
        fitted.append(Contestant(item.name, forecaster, item.source, item.is_control))
    return held_out, fitted


def _about(cases: RunCases) -> dict[str, Any]:
    run = cases.run
    return {
        "folder": str(run.folder),
        "task": run.task,
        "network": run.network,
        "num_parameters": cases.cases[0].window.layout.size if cases.cases else 0,
        "num_cases": len(cases.cases),
        "left_out": cases.left_out,
        "seconds_per_step": run.seconds_per_step,
    }


def _costs(item: Contestant, cases: RunCases, horizons: Sequence[int]) -> list[dict[str, Any]]:
    """Seconds of one forecast at one horizon, asked for alone: for several at once less is to be paid for each."""
    if not cases.cases:
        return []
    window = cases.cases[len(cases.cases) // 2].window
    found: list[dict[str, Any]] = []
    for horizon in horizons:
        walls, cpus = [], []
        for _ in range(TIMES):
            wall, cpu = time.perf_counter(), time.process_time()
            next(item.forecaster.forecast(window, [horizon]))
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        found.append(
            {
                "forecaster": item.name,
                "horizon": horizon,
                "wall_seconds": statistics.median(walls),
                "cpu_seconds": statistics.median(cpus),
                "seconds_per_step": cases.run.seconds_per_step,
            }
        )
    return found


def _cost_rows(costs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a forecast costs, medians over runs; CPU seconds over those of an optimiser step where these are known."""
    by_key: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in costs:
        by_key.setdefault((row["forecaster"], row["horizon"]), []).append(row)
    rows = []
    for (name, horizon), own in by_key.items():
        steps = [row["cpu_seconds"] / row["seconds_per_step"] for row in own if row["seconds_per_step"] > 0]
        rows.append(
            {
                "forecaster": name,
                "horizon": horizon,
                "wall_seconds": statistics.median([row["wall_seconds"] for row in own]),
                "cpu_seconds": statistics.median([row["cpu_seconds"] for row in own]),
                "step_equivalents": statistics.median(steps) if steps else None,
            }
        )
    return rows


def _as_csv(tallies: Tallies, about: Sequence[dict[str, Any]]) -> str:
    """All sums, one line a cell, for whoever wants to group them otherwise."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    sums = ("squared_error", "persistence", "within_one", "within_two", "moving")
    writer.writerow(["run", "task", "forecaster", "horizon", "kind", "phase", *sums])
    for cell, own in tallies.items():
        if ALL not in (cell.kind, cell.phase):
            run = about[cell.run]
            row = [run["folder"], run["task"], cell.forecaster, cell.horizon, cell.kind, cell.phase]
            writer.writerow([*row, *own])
    return text.getvalue()

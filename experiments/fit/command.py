"""`deadreckon fit`: fit one forecaster to stored trajectories of many runs."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from ...forecast import ForecastError
from ...forecast.tally import NOTHING, Sums, tally
from ...models import (
    Budget,
    FitReport,
    FittableForecaster,
    FittingError,
    TrainableForecaster,
    fit_forecaster,
    make_forecaster,
    save_forecaster,
)
from ...models.threads import one_thread
from ..bootstrap import log_ratio
from ..closing import close_run
from ..contestants import SAVED
from ..errors import OptionError
from ..progress import tracked
from ..results import FILE_NAME, require_new, write_result
from ..run_cases import CaseRequest, RunCases
from ..run_logger import log_figure, log_table, make_logger
from ..runs import find_runs
from .data import RunsData
from .figures import fit_curve, skill_by_task
from .module import VALIDATION_ERROR
from .options import FitOptions
from .split import split_runs
from .training import CHECKPOINT, train_forecaster
from .verdicts import fitted

SKILL_COLUMNS = ("task", "role", "horizon", "num_runs", "error", "skill", "worst", "coverage")
TRAINING_OPTIONS = ("batch_size", "learning_rate", "check_every", "patience")


@one_thread()
def run(options: FitOptions) -> None:
    """Fit a forecaster: `forecaster.safetensors`, figures and result.json in `options.out`.

    Raises:
        OptionError: if options contradict each other or the runs, or there is such a forecaster already.
        FittingError: if it cannot be fitted to these runs.
    """
    out = Path(options.out)
    _require_unfinished(out, options.resume)
    forecaster = _make(options)
    runs = find_runs(options.runs)
    split = split_runs(
        runs,
        options.validation_share,
        options.validation_tasks,
        options.exclude_tasks,
        options.max_runs,
        options.seed,
    )
    chosen = [*split.training, *split.validation]
    request = CaseRequest.of(
        [forecaster], chosen, options.horizons, options.spacing, options.cases_per_run, options.data
    )
    data = RunsData(forecaster, split, request, options.seed, options.iterations)
    data.setup("fit")
    logger = make_logger(options.logger, out, "fit", asdict(options), options.wandb_mode)
    wall, cpu = time.perf_counter(), time.process_time()
    curve: list[list[float]] = []
    if isinstance(forecaster, TrainableForecaster):
        trained = train_forecaster(
            forecaster,
            data,
            options.iterations,
            out,
            resume=options.resume,
            logger=logger,
            progress=options.progress,
        )
        result, curve = trained.result, trained.curve
    else:
        result = _fit(forecaster, data, options)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    parts = [("training", data.training), ("validation", data.validation)]
    skill = _skill_rows(forecaster, parts, options.horizons, options.progress)
    content = {
        "forecaster": forecaster.name,
        "file": SAVED,
        "stopped": result.stopped,
        "iterations": result.iterations,
        "training_error": result.training_error,
        "validation_error": result.validation_error,
        "wall_seconds": wall,
        "cpu_seconds": cpu,
        "num_numbers": sum(value.numel() for value in forecaster.state_dict().values()),
        "spacing": request.spacing,
        "runs": [_about(role, item) for role, part in parts for item in part],
        "skill": skill,
        "curve": curve,
        "excluded_tasks": list(options.exclude_tasks),
        "options": asdict(options),
    }
    out.mkdir(parents=True, exist_ok=True)
    save_forecaster(forecaster, out / SAVED)
    write_result(out, "fit", content)  # last: where it is, the fit is complete
    if logger:
        logger.log_metrics({VALIDATION_ERROR: result.validation_error}, step=result.iterations)
    log_table(logger, "fit/skill", SKILL_COLUMNS, [[row[name] for name in SKILL_COLUMNS] for row in skill])
    figures = [skill_by_task(skill, out / "skill_by_task")]
    if curve:
        figures.append(fit_curve(curve, out / "fit_curve"))
    for path in figures:
        log_figure(logger, f"fit/{path.stem}", path)
    close_run(logger, out, [run.folder for run in chosen])
    console = Console()
    for sentence in fitted(content):
        console.print(sentence, markup=False, highlight=False)


def _require_unfinished(out: Path, resume: bool) -> None:
    """Check that no fit is complete in a folder, and that one that was interrupted is not begun anew."""
    require_new(out / FILE_NAME)
    if not resume:
        require_new(out / SAVED)
        if (out / CHECKPOINT).exists():
            raise OptionError(
                f"{out} holds a fit that was interrupted. Go on with it by `--resume true`, choose another `--out`, or "
                f"remove {CHECKPOINT.parent}."
            )


def _make(options: FitOptions) -> FittableForecaster:
    """The forecaster, with what is known about its training only from the options."""
    forecaster = make_forecaster(options.forecaster, **options.forecaster_options)
    if not isinstance(forecaster, FittableForecaster):
        raise OptionError(f"{options.forecaster!r} has nothing to fit. Score it as it is, or fit another forecaster.")
    if isinstance(forecaster, TrainableForecaster):
        for name in TRAINING_OPTIONS:
            if getattr(options, name) is not None:
                setattr(forecaster, name, getattr(options, name))
        return forecaster
    given = [name for name in TRAINING_OPTIONS if getattr(options, name) is not None]
    if given:
        raise OptionError(
            f"`{given[0]}` has no effect on {options.forecaster!r}, which is not trained in batches. Leave it null."
        )
    if options.resume:
        raise OptionError(f"There is nothing to resume: {options.forecaster!r} is not trained in batches.")
    return forecaster


def _fit(forecaster: FittableForecaster, data: RunsData, options: FitOptions) -> FitReport:
    """Fit by the forecaster's own means, in one go."""
    generator = torch.Generator().manual_seed(options.seed)
    budget = Budget(options.iterations)
    try:
        return fit_forecaster(forecaster, data.training_cases, budget, generator, data.validation_cases)
    except FittingError as error:
        raise FittingError(data.explained(error)) from error


def _about(role: str, item: RunCases) -> dict[str, Any]:
    return {
        "folder": str(item.run.folder),
        "task": item.run.task,
        "role": role,
        "num_cases": len(item.cases),
        "left_out": item.left_out,
    }


def _skill_rows(
    forecaster: FittableForecaster,
    parts: Sequence[tuple[str, Sequence[RunCases]]],
    horizons: Sequence[int],
    progress: bool,
) -> list[dict[str, Any]]:
    """Skill by role, task and horizon: 1 minus the geometric mean over runs of MSE / MSE of standing still."""
    of_run: dict[tuple[str, str, int], list[Sums]] = {}
    pairs = [(role, item) for role, part in parts for item in part]
    for role, item in tracked(pairs, "measuring by task", progress):
        sums: dict[int, Sums] = dict.fromkeys(sorted(horizons), NOTHING)
        try:
            for entry in tally(forecaster, item.cases):
                for part in entry.kinds.values():
                    sums[entry.horizon] = sums[entry.horizon].plus(part)
        except ForecastError as error:
            raise OptionError(f"{forecaster.name!r} cannot forecast {item.run.folder}: {error}") from error
        for horizon, total in sums.items():
            of_run.setdefault((role, item.run.task, horizon), []).append(total)
    rows = []
    for (role, task, horizon), totals in sorted(of_run.items()):
        logs = np.array([log_ratio(total.squared_error, total.persistence) for total in totals])
        known = np.exp(logs[~np.isnan(logs)])
        shares = [total.within_one / total.moving for total in totals if total.moving]
        mean = float(np.exp(np.log(known).mean())) if len(known) else None
        rows.append(
            {
                "task": task,
                "role": role,
                "horizon": horizon,
                "num_runs": len(known),
                "error": mean,
                "skill": None if mean is None else 1 - mean,
                "worst": 1 - float(known.max()) if len(known) else None,
                "coverage": sum(shares) / len(shares) if shares else None,
            }
        )
    return rows

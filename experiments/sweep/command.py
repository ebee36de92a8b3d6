"""`deadreckon sweep`: the settings that a wandb sweep file asks for, run on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from ...forecast.commit_log import WriterLock
from .. import markdown
from ..files import write_whole
from ..manifest import write_manifest
from ..progress import tracked
from ..results import FILE_NAME, read_result, write_result
from ..workers import Failure, Workers, num_usable_cores
from .cells import LOG, CellJob, Done, read_done, run_cell
from .figures import sweep_panels
from .options import SweepOptions
from .plan import MAXIMIZE, Sweep, cells, read_sweep
from .verdicts import SEED, settings, swept

EXIT_ALL_FAILED = 1
LOCK = ".lock"


def run(options: SweepOptions) -> int:
    """Run what is missing of a sweep: a folder for each run, and sweep.md, figure and result.json in `options.out`.

    Returns:
        0, or 1 if not one run is complete.

    Raises:
        OptionError: if the file is not what runs here.
        TrajectoryError: if another process is at work in the folder.
    """
    sweep = read_sweep(options.file)
    out = Path(options.out)
    jobs = [CellJob(cell, out / cell.name) for cell in cells(sweep, options)]
    out.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(out / LOCK)
    try:
        found = {job.cell.name: done for job in jobs if (done := read_done(job)) is not None}
        missing = [job for job in jobs if job.cell.name not in found]
        made = _run(missing, options)
        data = _result(sweep, jobs, {**found, **made}, options)
        _write(out, data)
    finally:
        lock.release()
    _print(out, data, len(found))
    return 0 if data["cells"] else EXIT_ALL_FAILED


def _run(jobs: Sequence[CellJob], options: SweepOptions) -> dict[str, Done | Failure]:
    """Make the missing runs; what each came to by its name, or why it failed."""
    with Workers(run_cell, min(options.workers or num_usable_cores(), max(1, len(jobs)))) as workers:
        results = tracked(workers.results(jobs), "sweeping", options.progress, len(jobs))
        return {job.cell.name: done for job, done in results}


def _result(
    sweep: Sweep, jobs: Sequence[CellJob], came_to: Mapping[str, Done | Failure], options: SweepOptions
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, Any]] = []
    for job in jobs:
        about = {"name": job.cell.name, "values": dict(job.cell.values)}
        done = came_to[job.cell.name]
        if isinstance(done, Failure):
            failures.append({**about, "reason": done.reason})
        elif done.metrics.get(sweep.metric) is None:
            names = ", ".join(done.metrics) or "none"
            failures.append({**about, "reason": f"its result has no number {sweep.metric}; it has {names}"})
        else:
            rows.append({**about, "metric": done.metrics[sweep.metric], "wall_seconds": done.wall_seconds})
    return {
        "name": sweep.name,
        "method": sweep.method,
        "command": sweep.command.name,
        "metric": {"name": sweep.metric, "goal": sweep.goal},
        "parameters": sweep.varied,
        "cells": sorted(rows, key=lambda row: row["metric"], reverse=sweep.goal == MAXIMIZE),
        "failures": failures,
        "attribution": _attribution(rows, Path(options.out)),
        "options": asdict(options),
    }


def _attribution(rows: Sequence[Mapping[str, Any]], out: Path) -> str | None:
    """Whose data the runs learned from, as their results say."""
    found = (read_result(out / row["name"]).data.get("attribution") for row in rows)
    return next((text for text in found if text), None)


def _write(out: Path, data: dict[str, Any]) -> None:
    path = write_result(out, "sweep", data)
    sentences = "\n".join(f"* {sentence}" for sentence in swept(data))
    tables = [table for table in (_settings_table(data), _runs_table(data), _failures_table(data)) if table]
    write_whole(out / "sweep.md", "\n\n".join([f"# {data['name']}", sentences, *tables]) + "\n")
    sweep_panels(data["cells"], data["metric"], out / "sweep")
    results = [out / row["name"] / FILE_NAME for row in data["cells"]]
    write_manifest(out, "sweep", results, [path], data["options"])


def _settings_table(data: dict[str, Any]) -> str:
    """Means over seeds, where seeds vary."""
    if SEED not in data["parameters"] or not data["cells"]:
        return ""
    names = [name for name in data["parameters"] if name != SEED]
    rows = []
    for row in settings(data["cells"], data["metric"]["goal"]):
        numbers = [f"{row[key]:.5g}" for key in ("mean", "low", "high")]
        rows.append([*_texts(row, names), *numbers, str(row["num_runs"])])
    columns = [*names, data["metric"]["name"], "lowest", "highest", "runs"]
    return f"## Settings\n\n{markdown.table(columns, rows, len(names))}"


def _runs_table(data: dict[str, Any]) -> str:
    columns = [*data["parameters"], data["metric"]["name"], "seconds", "run"]
    rows = [
        [*_texts(row, data["parameters"]), f"{row['metric']:.5g}", f"{row['wall_seconds']:.3g}", row["name"]]
        for row in data["cells"]
    ]
    return f"## Runs\n\n{markdown.table(columns, rows, len(data['parameters']))}" if rows else ""


def _failures_table(data: dict[str, Any]) -> str:
    columns = ["run", *data["parameters"], "reason"]
    rows = [[row["name"], *_texts(row, data["parameters"]), row["reason"]] for row in data["failures"]]
    return f"## Failed\n\n{markdown.table(columns, rows, len(columns))}" if rows else ""


def _texts(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [str(row["values"].get(name)) for name in names]


def _print(out: Path, data: dict[str, Any], num_found: int) -> None:
    console = Console(soft_wrap=True)
    table = _settings_table(data) or _runs_table(data)
    text = [*swept(data), *([f"{num_found} of these were complete before."] if num_found else []), ""]
    text += [table.partition("\n\n")[2], ""] if table else []
    text += [f"{row['name']} failed: {row['reason']} (see {out / row['name'] / LOG})" for row in data["failures"]]
    for line in [*text, f"Table, figure and result: {out}"]:
        console.print(line, markup=False, highlight=False)

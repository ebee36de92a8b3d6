"""`deadreckon corpus`: train and record many small runs in parallel processes."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ...forecast import Trajectory, TrajectoryError
from ...forecast.commit_log import WriterLock
from .. import verdicts
from ..errors import ExperimentError, OptionError
from ..manifest import outputs_in, write_manifest
from ..options import CorpusOptions
from ..progress import tracked
from ..results import write_result
from ..runs import TRAJECTORY, RunFacts, is_run, open_run, read_run, read_summary
from ..tasks import fitting_networks, load_task
from ..workers import Failure, Workers, num_usable_cores
from .plan import plan, run_name
from .run import CorpusJob, partial_folder, record_run

EXIT_ALL_FAILED = 1
LOCK = ".lock"


def run(options: CorpusOptions) -> int:
    """Record what is missing of a corpus into `options.out`, and write its result.json.

    Returns:
        0, or 1 if not one run of the corpus could be made.

    Raises:
        OptionError: if options contradict each other, the tasks or the runs that are in the folder already.
        DataError: if a task's files cannot be found or fetched.
        TrajectoryError: if another process is at work in the folder.
    """
    out = Path(options.out)
    jobs, attributions = _jobs(options, out)
    out.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(out / LOCK)
    try:
        _require_alike(out, options)
        _sweep(out)
        missing = [job for job in jobs if not _is_complete(job)]
        failures = _record(missing, options)
        data = _result(jobs, failures, options, attributions)
        write_result(out, "corpus", data)
        write_manifest(out, "corpus", [], outputs_in(out), asdict(options))
    finally:
        lock.release()
    _print(out, data, len(jobs) - len(missing))
    return 0 if data["runs"] else EXIT_ALL_FAILED


def _jobs(options: CorpusOptions, out: Path) -> tuple[list[CorpusJob], list[str]]:
    """The runs that are asked for, task by task, and whose data they learn from."""
    jobs: list[CorpusJob] = []
    attributions: list[str] = []
    for name in options.tasks:
        task = load_task(name, options.data)
        fitting = fitting_networks(task)
        networks = [network for network in options.networks if network in fitting]
        if not networks:
            raise OptionError(f"`networks` must name one of {', '.join(fitting)} for the task {name}. Add one.")
        largest = max(options.batch_sizes)
        if largest > len(task.train.labels):
            raise OptionError(
                f"`batch_sizes` must be at most {len(task.train.labels)}, the samples of {name}, got {largest}."
            )
        for facts in plan(options, name, networks):
            jobs.append(CorpusJob(facts, options.every, options.data, out / run_name(facts)))
        attributions.append(task.attribution)
    return jobs, attributions


def _require_alike(out: Path, options: CorpusOptions) -> None:
    """Check that what is in the folder was recorded as the rest is going to be; anything else may differ."""
    wanted = {"steps": options.steps, "every": options.every}
    for folder in sorted(path for path in out.iterdir() if not path.name.startswith(".") and is_run(path)):
        try:
            with Trajectory.open(folder / TRAJECTORY) as trajectory:
                found = {name: trajectory.metadata.get(name) for name in wanted}
        except TrajectoryError:  # damaged, or none of ours
            continue
        if found != wanted:
            raise OptionError(
                f"{out} holds runs of {found['steps']} steps, recorded every {found['every']}: `steps` and `every` "
                f"must be the same, got {wanted['steps']} and {wanted['every']}. Choose another `--out`."
            )


def _is_complete(job: CorpusJob) -> bool:
    """Whether the very run is there, whole."""
    if not is_run(job.folder) or read_summary(job.folder) is None:
        return False
    try:
        found = read_run(job.folder)
    except (ExperimentError, TrajectoryError):  # damaged: made anew
        return False
    return all(getattr(found, field.name) == getattr(job.facts, field.name) for field in fields(RunFacts))


def _record(jobs: Sequence[CorpusJob], options: CorpusOptions) -> dict[str, str]:
    """Make the missing runs; the reasons of those that failed, by name."""
    failures: dict[str, str] = {}
    num_workers = options.workers or num_usable_cores()
    try:
        with Workers(record_run, num_workers) as workers:
            for job, result in tracked(workers.results(jobs), "recording runs", options.progress, len(jobs)):
                if isinstance(result, Failure):
                    failures[job.folder.name] = result.reason
    finally:
        for job in jobs:
            shutil.rmtree(partial_folder(job.folder), ignore_errors=True)
    return failures


def _sweep(out: Path) -> None:
    """Remove what a call that was killed left half-written."""
    for path in out.glob(partial_folder(Path("*")).name):
        shutil.rmtree(path)


def _result(
    jobs: Sequence[CorpusJob], failures: dict[str, str], options: CorpusOptions, attributions: Sequence[str]
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    num_bytes = 0
    for job in jobs:
        summary = None if job.folder.name in failures else read_summary(job.folder)
        if summary is None:
            continue
        with open_run(read_run(job.folder)) as trajectory:
            num_bytes += trajectory.num_bytes
        rows.append({"name": job.folder.name, **asdict(job.facts), **asdict(summary)})
    return {
        "every": options.every,
        "runs": rows,
        "failures": [{"name": name, "reason": reason} for name, reason in failures.items()],
        "cpu_seconds": sum(row["cpu_seconds"] for row in rows),
        "bytes": num_bytes,
        "attribution": " ".join(attributions),
        "options": asdict(options),
    }


def _print(out: Path, data: dict[str, Any], num_found: int) -> None:
    console = Console()
    for sentence in verdicts.corpus(data):
        console.print(Text(sentence), soft_wrap=True)
    if num_found:
        console.print(Text(f"{verdicts.count(num_found, 'run')} of these had been recorded before."), soft_wrap=True)
    console.print(Text(f"Corpus: {out}"), soft_wrap=True)

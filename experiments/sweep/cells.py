"""One run of a sweep, as a worker process does it."""

import importlib
import json
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from ..cli import parse
from ..errors import ResultError
from ..files import write_whole
from ..labelled import read_labelled
from ..result_metrics import result_metrics
from ..results import read_result
from ..schema import NUMBER, TEXT
from ..spec import Named, Record
from .plan import Cell

DONE = "cell.json"  # written last: where it is, the run is complete
LOG = "log.txt"
FORMAT, VERSION = "deadreckon-cell", 1
MAX_BYTES = 2**20
_CELL = Record({"cell": TEXT, "metrics": Named(NUMBER), "wall_seconds": NUMBER})


@dataclass(frozen=True)
class CellJob:
    """A run to be made.

    Attributes:
        cell: which one.
        folder: where it goes.
    """

    cell: Cell
    folder: Path


@dataclass(frozen=True)
class Done:
    """What a complete run came to.

    Attributes:
        metrics: the numbers of its result.
        wall_seconds: that it took.
    """

    metrics: dict[str, float | None]
    wall_seconds: float


def run_cell(job: CellJob) -> Done:
    """Run one command into its folder; what an interrupted call left is removed, what it prints goes to a file."""
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    begin = time.perf_counter()
    own = [f"--out={job.folder}", "--logger=none", "--progress=false"]
    command, options = parse([job.cell.command, *job.cell.words, *own])
    with (
        (job.folder / LOG).open("w", encoding="utf-8") as log,
        redirect_stdout(log),
        redirect_stderr(log),
    ):
        importlib.import_module(f"..{command.module}", __package__).run(options)
    result = read_result(job.folder)
    done = Done(dict(result_metrics(result.kind, result.data)), time.perf_counter() - begin)
    data = {"cell": job.cell.name, "metrics": done.metrics, "wall_seconds": done.wall_seconds}
    content = {"format": FORMAT, "version": VERSION, "data": data}
    write_whole(job.folder / DONE, json.dumps(content, allow_nan=False, indent=1))
    return done


def read_done(job: CellJob) -> Done | None:
    """What a complete run came to; None where it is not there, not complete, or its file is damaged."""
    path = job.folder / DONE
    try:
        data = read_labelled(path, (FORMAT, VERSION), _CELL, MAX_BYTES, "Run the sweep again.")
    except (OSError, ResultError):
        return None
    if data["cell"] != job.cell.name or not (job.folder / "result.json").is_file():
        return None
    return Done(data["metrics"], data["wall_seconds"] or 0.0)

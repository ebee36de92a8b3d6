"""Sentences about a fit, each made from numbers by a pure function."""

from collections.abc import Sequence

from ..measures import Data
from ..verdicts import count, listing, seconds

STOPPED = {
    "solved": "It was solved in closed form",
    "iterations": "It was trained for all iterations that it had",
    "seconds": "Its time ran out",
    "converged": "Its validation error stopped falling",
}


def fitted(fit: Data) -> list[str]:
    """What was fitted to what, and how good it is on the runs kept apart."""
    sentences = [
        f"{fit['forecaster']} was fitted to {_runs(fit, 'training')} and measured on {_runs(fit, 'validation')} "
        "kept apart."
    ]
    if fit["excluded_tasks"]:
        sentences.append(f"Not seen at all: {listing(fit['excluded_tasks'])}.")
    how = STOPPED.get(fit["stopped"], fit["stopped"])
    effort = "" if fit["stopped"] == "solved" else f", {count(fit['iterations'], 'iteration')}"
    spent = "" if fit["cpu_seconds"] is None else f", {seconds(fit['cpu_seconds'])} of CPU time"
    sentences.append(f"{how}{effort}{spent}; {count(fit['num_numbers'], 'number')} were learned.")
    rows = [row for row in fit["skill"] if row["role"] == "validation"]
    sentences += [_of_task(task, rows) for task in dict.fromkeys(row["task"] for row in rows)]
    left_out = sum(run["left_out"] for run in fit["runs"])
    if left_out:
        sentences.append(f"{count(left_out, 'case')} with values that are not finite were left out.")
    return sentences


def _runs(fit: Data, role: str) -> str:
    own = [run for run in fit["runs"] if run["role"] == role]
    tasks = sorted({run["task"] for run in own})
    return f"{count(len(own), 'run')} of {listing(tasks)} ({count(sum(run['num_cases'] for run in own), 'case')})"


def _of_task(task: str, rows: Sequence[Data]) -> str:
    own = sorted((row for row in rows if row["task"] == task), key=lambda row: row["horizon"])
    known = [row for row in own if row["error"] is not None]
    if not known:
        return f"On {task} nothing moved in the runs kept apart."
    horizons = listing([str(row["horizon"]) for row in known])
    errors = listing([f"{row['error']:.3g}" for row in known])
    num_runs = count(max(row["num_runs"] for row in known), "run")
    return (
        f"On {task}, {horizons} steps ahead, its squared error is {errors} times that of standing still "
        f"(geometric mean over {num_runs})."
    )

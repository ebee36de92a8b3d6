"""`deadreckon race` over problems, methods and seeds: tuned first, raced then, in pieces, by any number of workers."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from ...models.threads import one_thread
from ..errors import OptionError, ResultError
from ..files import write_whole
from ..options import RaceOptions
from ..progress import tracked
from ..results import environment
from ..tasks import TaskData, load_task
from .methods import BASELINES, BEST, DECAY, DECAYS, METHODS, Method, Settings, find_method
from .methods import SHARES as HORIZONS
from .problems import Problem, find_problem
from .queue import RunQueue, file_name, read_json
from .released import require_released
from .run import Entry, run_entry
from .scores import Curve, final_loss, median_gauge, penalised, targets_of

ROUNDS = ((0.2, None), (0.5, 3))  # of successive halving: share of the steps, and how many trials are left
MAX_SETTINGS = 12  # of one method that are tried, horizons included
TUNING_SEED = 1000  # seeds from here on tune and never race
CONTENDING = ((3, None), (7, 4))  # which tuned baseline is best: how many seeds say, and of how many baselines
PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Job:
    """One run that can be done now, under its key."""

    key: str
    entry: Entry


class Grid:
    """What is to be run in which order, from what has been run already.

    On every problem the decays are tuned first, then the other baselines, then what jumps; a method is tuned by
    successive halving (K. Jamieson and A. Talwalkar, 2016, Non-stochastic Best Arm Identification and Hyperparameter
    Optimization, arXiv:1502.07943) on the `tune` set and a seed that never races: all trials at a fifth of the steps,
    the best three at half of them, beyond the lowest or highest rate too where that is best, then the best one in full
    and, where its schedule ends, over shorter horizons too.
    The decay with the lowest final loss gives the hardest target; among the horizons of the others the one that gets
    there soonest is taken. Then each runs on two more seeds that never race, the four that are soonest in the
    geometric mean of three run on four more, and the soonest in the geometric mean of seven is the best baseline. What
    was chosen is written to `tuned/PROBLEM.json` once all baselines have been tuned, and no method that jumps is tuned
    or raced before that file is there; its digest is kept with each of their runs.

    Races go seed by seed over all problems and methods, so that whenever it stops, all have had as many.

    Args:
        options: of the command.
        queue: with the results.
    """

    def __init__(self, options: RaceOptions, queue: RunQueue) -> None:
        self.folder = Path(options.out)
        self.queue = queue
        self.seeds = options.seeds
        self.trials = options.trials
        self.problems = [find_problem(name) for name in options.problems]
        methods = [find_method(name) for name in options.methods]
        missing = [name for name in DECAYS if name not in options.methods]
        if missing:
            raise OptionError(f"`methods` must have {' and '.join(DECAYS)}, which give the targets; add {missing[0]}.")
        self.baselines = sorted(
            (method for method in methods if method.base is None), key=lambda method: method.name not in DECAYS
        )
        self.jumping = [method for method in methods if method.base is not None]

    def jobs(self) -> list[Job]:
        """Open runs whose turn it is, first ones first; empty only when all is done."""
        found: list[Job] = []
        for problem in self.problems:
            found += self._tuning(problem)
        if not found:
            found = [job for job in self._races() if not self.queue.done(job.key)]
        return found

    def _tuning(self, problem: Problem) -> list[Job]:
        """Open runs of a problem's tuning; writes the file of choices when there are none left."""
        path = self.tuned_path(problem)
        if path.exists():
            return []
        open_jobs: list[Job] = []
        chosen: dict[str, Settings] = {}
        for method in self.baselines:
            target = self._tuning_target(problem, chosen) if method.name not in DECAYS else None
            if method.name not in DECAYS and target is None:
                break  # the decays come first
            jobs, settings = self._halving(problem, method, target)
            open_jobs += jobs
            if settings is not None:
                chosen[method.name] = settings
        if open_jobs or len(chosen) < len(self.baselines):
            return open_jobs
        waiting, best = self._contend(problem, chosen)
        if waiting:
            return waiting
        losses = {name: self._final(problem, name, chosen[name]) for name in DECAYS}
        content = {
            "problem": asdict(problem),
            "settings": {name: dict(value) for name, value in chosen.items()},
            "decay": min(losses, key=lambda name: losses[name]),
            "best": best,
            "date": environment()["date"],
        }
        write_whole(path, json.dumps(content, indent=1))
        return []

    def tuned_path(self, problem: Problem) -> Path:
        """Where a problem's choices are written."""
        return self.folder / "tuned" / f"{file_name(problem.name)}.json"

    def tuned(self, problem: Problem) -> dict[str, Any]:
        """A problem's choices.

        Raises:
            ResultError: if its baselines have not all been tuned: nothing may jump before.
        """
        if not self.tuned_path(problem).exists():
            raise ResultError(f"The baselines of {problem.name} are not tuned yet; jumps come after that.")
        return read_json(self.tuned_path(problem))

    def _trial_key(self, problem: Problem, method: Method, settings: Settings, share: float) -> str:
        text = " ".join(f"{name}={value:g}" for name, value in sorted(settings.items()))
        return f"tune {problem.name} {problem.steps} {method.name} {share:g} {text}"

    def _contend(self, problem: Problem, chosen: Mapping[str, Settings]) -> tuple[list[Job], str]:
        """Which tuned baseline is soonest at the hardest target on the `tune` set, in CPU seconds.

        Returns:
            Open runs of the round that has been come to, if any, and the best as far as is known.
        """
        names = list(chosen)
        curves: dict[str, list[Curve]] = {}
        for num_seeds, num_left in CONTENDING:
            names = names[:num_left]
            jobs = {
                name: [self._seeded(problem, METHODS[name], chosen[name], seed) for seed in range(num_seeds)]
                for name in names
            }
            if waiting := [job for own in jobs.values() for job in own if not self.queue.done(job.key)]:
                return waiting, names[0]
            curves |= {name: [self.queue.read(job.key)["curve"] for job in own] for name, own in jobs.items()}
            times = _mean_times(curves)
            names.sort(key=lambda name, times=times: times[name])
        return [], names[0]

    def _seeded(self, problem: Problem, method: Method, settings: Settings, number: int) -> Job:
        """A whole run on one of the seeds that tune; the first is that of the trials."""
        trial = self._trial(problem, method, settings, 1.0)
        seed = TUNING_SEED + number
        return trial if number == 0 else Job(f"{trial.key} seed={seed}", replace(trial.entry, seed=seed))

    def _halving(self, problem: Problem, method: Method, target: float | None) -> tuple[list[Job], Settings | None]:
        """Open runs of the round that one method has come to, and its settings once there are none."""
        alive: Sequence[Settings] = method.trials(0, self.trials)
        for share, keep in ROUNDS:
            if keep is not None:
                alive = alive[:keep]
            jobs = [self._trial(problem, method, settings, share) for settings in alive]
            if waiting := [job for job in jobs if not self.queue.done(job.key)]:
                return waiting, None
            losses = {job.key: final_loss(self.queue.read(job.key)["curve"]) for job in jobs}
            alive = [job.entry.settings for job in sorted(jobs, key=lambda job: losses[job.key])]
        shares = HORIZONS if not method.anytime and method.name not in DECAYS else (1.0,)
        room = MAX_SETTINGS - len(method.trials(0, self.trials)) - len(shares) + 1
        waiting, best = self._beyond(problem, method, alive[0], room)
        if waiting:
            return waiting, None
        jobs = [self._trial(problem, method, {**best, "horizon": share}, 1.0) for share in shares]
        if waiting := [job for job in jobs if not self.queue.done(job.key)]:
            return waiting, None
        if target is None or len(jobs) == 1:
            return [], jobs[0].entry.settings
        curves = [self.queue.read(job.key)["curve"] for job in jobs]
        gauge = median_gauge(curves)
        limit = max(curve[-1][1] for curve in curves)
        times = [penalised(curve, "cpu", target, gauge, limit)[0] for curve in curves]
        return [], jobs[times.index(min(times))].entry.settings  # the longest where none gets there

    def _beyond(self, problem: Problem, method: Method, best: Settings, room: int) -> tuple[list[Job], Settings]:
        """At most `room` rates beyond those that were tried, one at a time, as long as each is better than the last.

        Returns:
            The open run, if there is one, and the best settings up to now.
        """
        rates = sorted(method.choices["rate"])
        share = ROUNDS[-1][0]
        for factor, edge in ((2.0, rates[-1]), (0.5, rates[0])):
            if best["rate"] != edge:
                continue
            for _ in range(room):
                further = {**best, "rate": best["rate"] * factor}
                jobs = [self._trial(problem, method, settings, share) for settings in (best, further)]
                if not self.queue.done(jobs[1].key):
                    return [jobs[1]], best
                losses = [final_loss(self.queue.read(job.key)["curve"]) for job in jobs]
                if not losses[1] < losses[0]:
                    return [], best
                best = further
            return [], best
        return [], best

    def _trial(self, problem: Problem, method: Method, settings: Settings, share: float) -> Job:
        key = self._trial_key(problem, method, settings, share)
        return Job(key, Entry(problem, method, settings, TUNING_SEED, share, "tune"))

    def _final(self, problem: Problem, name: str, settings: Settings) -> float:
        return final_loss(self.queue.read(self._trial_key(problem, METHODS[name], settings, 1.0))["curve"])

    def _tuning_target(self, problem: Problem, chosen: Mapping[str, Settings]) -> float | None:
        """The hardest target on the `tune` set, once both decays are tuned."""
        if not all(name in chosen for name in DECAYS):
            return None
        losses = [
            targets_of([self.queue.read(self._trial_key(problem, METHODS[name], chosen[name], 1.0))["curve"]])["best"]
            for name in DECAYS
        ]
        return min(losses)

    def _races(self) -> Iterator[Job]:
        for seed in self.seeds:
            for problem in self.problems:
                tuned = self.tuned(problem)
                for method in (*self.baselines, *self.jumping):
                    if not _is_tuned(method, tuned):
                        raise ResultError(
                            f"{method.name} was not among the methods when those of {problem.name} were tuned. Delete "
                            f"{self.tuned_path(problem)} to tune it too (runs that are done are kept), or leave it out."
                        )
                    yield self._race(problem, method, seed, tuned)

    def _race(self, problem: Problem, method: Method, seed: int, tuned: dict[str, Any]) -> Job:
        key = f"race {problem.name} {problem.steps} {method.name} {seed}"
        if method.base is None:
            return Job(key, Entry(problem, method, tuned["settings"][method.name], seed))
        base = tuned[method.base] if method.base in (DECAY, BEST) else method.base
        recipe = METHODS[base]
        jumping = Method(
            method.name,
            recipe.optimizer,
            recipe.schedule,
            recipe.average,
            recipe.outer,
            fixed=method.fixed,
            base=base,
            jumps=method.jumps,
        )
        return Job(key, Entry(problem, jumping, {**tuned["settings"][base], **method.fixed}, seed))

    def rows(self) -> list[dict[str, Any]]:
        """All races that are done."""
        ready = [problem for problem in self.problems if self.tuned_path(problem).exists()]
        found: list[dict[str, Any]] = []
        for seed in self.seeds:
            for problem in ready:
                tuned = self.tuned(problem)
                for method in (*self.baselines, *self.jumping):
                    if not _is_tuned(method, tuned):
                        continue
                    job = self._race(problem, method, seed, tuned)
                    if self.queue.done(job.key):
                        found.append(self.queue.read(job.key))
        return found


def _mean_times(curves: Mapping[str, Sequence[Curve]]) -> dict[str, float]:
    """Geometric means over the runs of each baseline, of CPU seconds to the hardest target of the decays among them."""
    together = [curve for own in curves.values() for curve in own]
    gauge, limit = median_gauge(together), max(curve[-1][1] for curve in together)
    target = min(targets_of(curves[name])["best"] for name in DECAYS)
    return {
        name: geometric_mean(penalised(curve, "cpu", target, gauge, limit)[0] for curve in own)
        for name, own in curves.items()
    }


def _is_tuned(method: Method, tuned: Mapping[str, Any]) -> bool:
    """Whether a problem's choices have settings for a method."""
    return method.base in (DECAY, BEST) or (method.base or method.name) in tuned["settings"]


@lru_cache(maxsize=2)
def _task(name: str, data: str | None) -> TaskData:
    return load_task(name, data)


def work(options: RaceOptions) -> tuple[Grid, bool]:
    """Do runs until all are done or the time is over; several processes may do so at once in the same folder.

    Returns:
        The grid, and whether all is done.

    Raises:
        OptionError: if something is asked for that the grid cannot do, or a method's checkpoint is not there.
    """
    grid = Grid(options, RunQueue(Path(options.out)))
    require_released(grid.jumping)
    begin = time.monotonic()
    with one_thread():
        for _ in tracked(_turns(grid, options, begin), "runs of the grid", options.progress):
            pass
    return grid, not grid.jobs()


def _turns(grid: Grid, options: RaceOptions, begin: float) -> Iterator[str]:
    """Do one run after another; gives the key of each once it is done."""
    while jobs := grid.jobs():
        if options.work_seconds is not None and time.monotonic() - begin > options.work_seconds:
            return
        for job in jobs:
            with grid.queue.claimed(job.key) as mine:
                if mine:
                    grid.queue.write(job.key, _done(job, grid, options))
                    yield job.key
                    break
        else:
            time.sleep(PAUSE_SECONDS)  # all that can be done is being done by others


def _done(job: Job, grid: Grid, options: RaceOptions) -> dict[str, Any]:
    problem = job.entry.problem
    result = run_entry(job.entry, _task(problem.task, options.data))
    if job.entry.method.base is not None and job.entry.method.name not in BASELINES:
        content = json.dumps(grid.tuned(problem), sort_keys=True)
        result["tuned_digest"] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return {**result, "date": environment()["date"]}

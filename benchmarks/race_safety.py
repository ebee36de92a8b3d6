"""What verified jumps cost a run, in CPU seconds, measured in two ways that a busy machine disturbs little.

Two runs of the same steps, one after the other, differ by up to a tenth in CPU seconds on a shared machine, so that the
race's pairs do not show a cost of two percent.

* With `--pairs` the run with jumps and the run without take turns, step by step, as two processes on one core: whatever
  slows the machine down slows both. Counted is what either process took by the clock of the operating system, from the
  beginning of the race's clock to the end, measuring on the test set left out. Beside it stands, as the control, the
  same of two runs without jumps.
* Without it: all CPU seconds inside the callback's hooks, in the ledger or not. They are a part of one run, and their
  share needs no second one. What they do to the steps between them (caches, the allocator) is not in it.

    python benchmarks/race_safety.py --tuned race_tuned.json --seeds 10 [--pairs]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from typing_extensions import override

from deadreckon.callbacks import SkipAhead
from deadreckon.experiments.bootstrap import as_ratio, estimates
from deadreckon.experiments.race import run as race_run
from deadreckon.experiments.race.methods import METHODS, Method
from deadreckon.experiments.race.problems import CORE, find_problem
from deadreckon.experiments.race.run import Entry, run_entry
from deadreckon.experiments.tasks import load_task

PATIENCE = 300.0  # seconds that a run waits for its turn
BOUND = 1.05


class Meter:
    """CPU seconds inside one callback's hooks."""

    def __init__(self, callback: pl.Callback) -> None:
        self.seconds = 0.0
        for name in dir(pl.Callback):
            if name.startswith("on_") or name in ("setup", "teardown"):
                setattr(callback, name, self._timed(getattr(callback, name)))

    def _timed(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begun = time.process_time()
            try:
                return hook(*arguments, **named)
            finally:
                self.seconds += time.process_time() - begun

        return timed


def jumping(name: str, base: Method) -> Method:
    """The method on top of a tuned baseline, as the race makes it."""
    return Method(
        name, base.optimizer, base.schedule, base.average, base.outer, base=base.name, jumps=METHODS[name].jumps
    )


class Turns(pl.Callback):
    """Lets a run go on by one step, hooks and all, and then another one.

    Args:
        own: released when it is this run's turn.
        other: of the other run.
    """

    def __init__(self, own: Semaphore, other: Semaphore) -> None:
        self._own, self._other = own, other
        self._begun = False

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._begun:
            self._other.release()
        self._begun = True
        if not self._own.acquire(timeout=PATIENCE):
            raise RuntimeError(f"The other run did not do its step within {PATIENCE:g} s; did it end early?")

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._other.release()


def take_turns(entry: Entry, turns: Turns, results: Connection) -> None:
    """One run of a pair, in a process of its own; sends its CPU seconds and the jumps that it kept."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    train: Callable[..., Any] = race_run.train

    def turning(*arguments: Any) -> Any:
        *others, callbacks = arguments
        return train(*others, [turns, *callbacks])

    race_run.train = turning
    result = run_entry(entry, load_task(entry.problem.task))
    results.send((result["curve"][-1][1], result["jumps"]["ahead"], result["diverged"]))


def pair(with_jumps: Entry, without: Entry, swapped: bool) -> tuple[float, float, bool]:
    """CPU seconds of the first run over those of the second, steps jumped over, and whether the first diverged."""
    context = multiprocessing.get_context("spawn")
    first, second = context.Semaphore(int(not swapped)), context.Semaphore(int(swapped))
    ends: list[Connection] = []
    processes: list[Any] = []
    for entry, turns in ((with_jumps, Turns(first, second)), (without, Turns(second, first))):
        receiving, sending = context.Pipe(duplex=False)
        processes.append(context.Process(target=take_turns, args=(entry, turns, sending)))
        processes[-1].start()
        sending.close()  # so that a process that dies is seen
        ends.append(receiving)
    (own, ahead, diverged), (other, *_) = (end.recv() for end in ends)
    for process in processes:
        process.join()
    return own / other, ahead, diverged


def interval(ratios: Sequence[float]) -> tuple[float, float | None, float | None]:
    """The geometric mean ratio and its 95 % interval over seeds."""
    found = as_ratio(estimates(np.log(np.array(ratios))[:, None], 10_000, 0)[0])
    return found.value, found.low, found.high


def report_pairs(
    method: str, problems: Sequence[str], tuned: dict[str, Any], seeds: Sequence[int], num_controls: int
) -> None:
    """Print ratios of runs that take turns, and those of equal ones beside."""
    print(f"{method}: CPU seconds of a run with jumps over one without, the two taking turns step by step")
    for name in problems:
        problem, base = find_problem(name), METHODS[tuned[name]["decay"]]
        settings = tuned[name]["settings"][base.name]
        for label, recipe, used in (
            (method, jumping(method, base), seeds),
            ("the same twice", base, seeds[:num_controls]),
        ):
            if not used:
                continue
            found = [
                pair(Entry(problem, recipe, settings, seed), Entry(problem, base, settings, seed), bool(seed % 2))
                for seed in used
            ]
            ratios = [ratio for ratio, *_ in found]
            value, low, high = interval(ratios)
            within = (
                "" if recipe is base else f", bound {BOUND}: " + ("kept" if high and high <= BOUND else "NOT shown")
            )
            kept, diverged = sum(ahead > 0 for _, ahead, _ in found), sum(bad for *_, bad in found)
            brackets = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
            print(
                f"{name:14s} {label:25s} {value:.3f}{brackets}{within}; kept a jump {kept}, diverged {diverged}; each "
                + " ".join(f"{ratio:.3f}" for ratio in ratios),
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tuned", type=Path, required=True, help="settings by problem")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--method", default="verified_adaptive_linear")
    parser.add_argument("--problems", nargs="+", default=CORE, choices=CORE)
    parser.add_argument("--first-seed", type=int, default=30)
    parser.add_argument("--pairs", action="store_true", help="runs with and without jumps that take turns")
    parser.add_argument("--controls", type=int, default=5, help="pairs of equal runs beside")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    torch.set_num_threads(1)
    tuned = json.loads(options.tuned.read_text())
    if options.pairs:
        report_pairs(options.method, options.problems, tuned, seeds, options.controls)
        return
    meters: list[Meter] = []
    train: Callable[..., Any] = race_run.train

    def metered(*arguments: Any) -> Any:
        *others, callbacks = arguments
        meters.extend(Meter(callback) for callback in callbacks if isinstance(callback, SkipAhead))
        return train(*others, callbacks)

    race_run.train = metered
    print(f"{options.method}: CPU seconds of a whole run without measuring, and the share of it, %, by seed")
    print(f"{'problem':14s} {'seconds':>8s}   inside the hooks         by the ledger")
    for name in options.problems:
        problem, base = find_problem(name), METHODS[tuned[name]["decay"]]
        task = load_task(problem.task)
        inside, ledger, seconds = [], [], []
        for seed in seeds:
            settings = tuned[name]["settings"][base.name]
            result = run_entry(Entry(problem, jumping(options.method, base), settings, seed), task)
            seconds.append(result["curve"][-1][1])
            inside.append(100 * meters[-1].seconds / seconds[-1])
            ledger.append(100 * sum(entry["cpu_seconds"] for entry in result["ledger"].values()) / seconds[-1])
        shares = "   ".join(" ".join(f"{value:6.2f}" for value in values) for values in (inside, ledger))
        print(f"{name:14s} {statistics.median(seconds):8.2f}   {shares}", flush=True)


if __name__ == "__main__":
    main()

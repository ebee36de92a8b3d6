"""What verified jumps cost a run: CPU seconds inside the callback's hooks, in the ledger or not.

Two runs of the same steps differ by some percent in CPU seconds on a shared machine, so that the ratio of a run with
jumps to one without does not show a cost of two percent, though the race has ten pairs for each problem. The hooks are
a part of one run, and their share needs no second one. What they do to the steps between them (caches, the allocator)
is not in it.

    python benchmarks/race_safety.py --tuned race_tuned.json --seeds 10
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from deadreckon.callbacks import SkipAhead
from deadreckon.experiments.race import run as race_run
from deadreckon.experiments.race.methods import METHODS, Method
from deadreckon.experiments.race.problems import CORE, find_problem
from deadreckon.experiments.race.run import Entry, run_entry
from deadreckon.experiments.tasks import load_task


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tuned", type=Path, required=True, help="settings by problem")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--method", default="verified_adaptive_linear")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tuned = json.loads(options.tuned.read_text())
    meters: list[Meter] = []
    train: Callable[..., Any] = race_run.train

    def metered(*arguments: Any) -> Any:
        *others, callbacks = arguments
        meters.extend(Meter(callback) for callback in callbacks if isinstance(callback, SkipAhead))
        return train(*others, callbacks)

    race_run.train = metered
    print(f"{options.method}: CPU seconds of a whole run without measuring, and the share of it, %, by seed")
    print(f"{'problem':14s} {'seconds':>8s}   inside the hooks         by the ledger")
    for name in CORE:
        problem, base = find_problem(name), METHODS[tuned[name]["decay"]]
        task = load_task(problem.task)
        inside, ledger, seconds = [], [], []
        for seed in range(30, 30 + options.seeds):
            settings = tuned[name]["settings"][base.name]
            result = run_entry(Entry(problem, jumping(options.method, base), settings, seed), task)
            seconds.append(result["curve"][-1][1])
            inside.append(100 * meters[-1].seconds / seconds[-1])
            ledger.append(100 * sum(entry["cpu_seconds"] for entry in result["ledger"].values()) / seconds[-1])
        shares = "   ".join(" ".join(f"{value:6.2f}" for value in values) for values in (inside, ledger))
        print(f"{name:14s} {statistics.median(seconds):8.2f}   {shares}", flush=True)


if __name__ == "__main__":
    main()

"""What jumps would give if forecasting and verifying cost nothing: an upper bound for what the race's jumps can win.

A tuned baseline is trained with an opportunity to jump every so many steps. At each the whole verification set says,
for free, which candidate of one family is best, staying where it is among them; the jump keeps the optimiser's state.
Counted are optimiser steps to 1.01 times the median final loss of the runs without jumps, on the `tune` set, and the
final loss, both beside the same run without jumps; a run that never gets there counts as two whole ones.

Families:

* `line`: w + s (w - w of `rows` rows ago), for eight s from 0.25 to 8;
* `average`: the mean of the latest 2, 4 or 8 rows;
* `trend`: the line through the means of the two halves of the latest 8 rows, at five horizons;
* `low_rank`: w + a combination of the latest 5 displacements between rows, fitted to the verification set by L-BFGS;
* `per_layer`: likewise, with one coefficient for each tensor's part of the latest 5 rows' displacement;
* `any`: the best candidate of all these;
* `random`: steps in random directions, as long as those of `line`: a control;
* `nino`, `adaptive_linear`: forecasts at five horizons by the forecasters that come with the package. They need rows 10
  steps apart, so that their opportunities are a multiple of 100 steps apart.

    python benchmarks/race_headroom.py --tuned TUNED.json --methods adamw_linear muon --seeds 3 > race_headroom.txt

With `--hindsight` every opportunity branches the run instead: one copy takes the best candidate of the family, even
where it is worse than staying, the other none, and both are trained to the end on the same batches, branching again at
each later opportunity. Of all these ends, a few dozen a run, are counted

* `better`: how many of the runs with one jump end lower than the run without;
* `one jump`: their final loss over that without;
* `or none`: the lower of the two, at each opportunity by itself;
* `all`: the final loss with a jump at each opportunity;
* `best`: that of the sequence of jumps that ends lowest. No rule that takes or refuses these candidates gets below it.
* `learned`: that of the sequence which a learned acceptance takes. A ridge regression predicts, from what is known at
  an opportunity (`headroom_runs.FEATURES`: the held-out change and its error, how much of the run is left, how long and
  which way the jump is, how straight the run), by how much a jump there, with none after it, changes the final loss; it
  jumps where it predicts a gain. It learns from all sequences of the other seeds and is judged by the one left out;
* `jumps`: how many it takes in a run.

The ends are compared on the samples that chose, and any disturbance of a run ends a little higher or lower: a few dozen
ends have a lowest one. How much of `or none` and `best` is such luck, the family `random` says. `learned` has no such
luck.

    python benchmarks/race_headroom.py --hindsight --tuned TUNED.json --methods muon --every 0.2 --families line random

`--tuned` is what `deadreckon race` writes for a problem.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from headroom_runs import FAMILIES, FORECASTERS, ROWS, SPACING, Run

from deadreckon.experiments.bootstrap import as_ratio, estimates
from deadreckon.experiments.race.problems import Problem, find_problem
from deadreckon.experiments.race.scores import SLACK, time_to
from deadreckon.experiments.tasks import TaskData, load_task

MEASUREMENTS = 60
VERIFY = 2000  # samples
RIDGE = 0.1  # of the regression, times the number of its rows
Pattern = tuple[bool, ...]  # at which opportunities a jump was taken


class Trials:
    """All runs of one method on one problem.

    Args:
        task: of the problem.
        problem: of the race.
        method: a baseline.
        settings: as tuned.
        given: what the command was given.
    """

    def __init__(
        self, task: TaskData, problem: Problem, method: str, settings: Mapping[str, float], given: argparse.Namespace
    ) -> None:
        self._of_run = task, problem, method, settings
        self._verified, self._measurements = given.verify, given.measurements
        self._samples = max(problem.test_samples, VERIFY) if given.hindsight else problem.test_samples
        self.seeds = range(2000, 2000 + given.seeds)
        self.method = method
        self.steps = round(problem.steps * settings.get("horizon", 1.0))
        self.every = max(ROWS, round(given.every * self.steps) // ROWS * ROWS)

    def start(self, seed: int, family: str | None) -> tuple[Run, int]:
        """A run at its beginning, and how many steps lie between its opportunities."""
        every, row_every = self.every, self.every // ROWS
        if family in FORECASTERS:
            every, row_every = ROWS * SPACING * max(1, round(self.every / (ROWS * SPACING))), SPACING
        return Run(*self._of_run, seed, row_every, self._verified, self._samples), every

    def curve(self, seed: int, family: str | None) -> tuple[list[list[float]], int]:
        """One run: its curve as the race has it (steps and losses only), and how many jumps were taken."""
        run, every = self.start(seed, family)
        curve: list[list[float]] = []
        jumps = 0
        for step in range(1, self.steps + 1):
            run.advance(step)
            if family is not None and step % every == 0:
                vector, is_better, _ = run.look(family)
                if vector is not None and is_better:
                    run.jump_to(vector)
                    jumps += 1
            if step % max(1, self.steps // self._measurements) == 0 or step == self.steps:
                curve.append([step, 0, 0, step, 1, run.loss(), 0])
        return curve, jumps

    def tree(self, seed: int, family: str) -> "Tree":
        """Every sequence of taking and refusing."""
        run, every = self.start(seed, family)
        tree = Tree({}, {})
        tree.grow(run, every, family)
        return tree


class Tree(NamedTuple):
    """All that can become of a run.

    Attributes:
        ends: the final loss of every sequence of taking and refusing.
        features: what is known at an opportunity, by what was done at those before.
    """

    ends: dict[Pattern, float]
    features: dict[Pattern, list[float]]

    def grow(self, run: Run, every: int, family: str, taken: Pattern = ()) -> None:
        """Train everything that can become of a run; it is left in one of the ends."""
        step = (len(taken) + 1) * every
        if step >= run.steps:
            run.advance(run.steps)
            self.ends[taken] = run.loss()
            return
        run.advance(step)
        vector, _, self.features[taken] = run.look(family)
        if vector is None:
            raise ValueError(f"`every` must leave {ROWS} rows between opportunities; there was no candidate at {step}.")
        saved = run.save()
        self.grow(run, every, family, (*taken, False))
        run.restore(saved)
        run.jump_to(vector)
        self.grow(run, every, family, (*taken, True))

    @property
    def depth(self) -> int:
        """Opportunities in a run."""
        return len(next(iter(self.ends)))

    def gains(self) -> tuple[np.ndarray, np.ndarray]:
        """For every opportunity its features, and the log of the final loss with a jump there and none after it over
        that with none."""
        rest = {taken: (False,) * (self.depth - len(taken) - 1) for taken in self.features}
        gains = [
            np.log(self.ends[(*taken, True, *rest[taken])] / self.ends[(*taken, False, *rest[taken])])
            for taken in self.features
        ]
        return np.array(list(self.features.values())), np.array(gains)

    def walk(self, rule: Callable[[Sequence[float]], bool]) -> Pattern:
        """What a rule does."""
        taken: Pattern = ()
        while len(taken) < self.depth:
            taken = (*taken, rule(self.features[taken]))
        return taken


def learned(trees: Sequence[Tree]) -> Callable[[Sequence[float]], bool]:
    """A rule that takes what a ridge regression says will lower the final loss."""
    pairs = [tree.gains() for tree in trees]
    features, gains = np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])
    center, scale = features.mean(0), features.std(0) + 1e-9
    rows = np.column_stack([np.ones(len(features)), (features - center) / scale])
    penalty = RIDGE * len(rows) * np.diag([0.0] + [1.0] * (rows.shape[1] - 1))
    weights = np.linalg.solve(rows.T @ rows + penalty, rows.T @ gains)
    return lambda values: bool(weights[0] + ((np.array(values) - center) / scale) @ weights[1:] < 0)


def ratio(values: Sequence[float]) -> str:
    """A geometric mean with its interval, or in parentheses, where there are too few seeds for one, the range."""
    found = as_ratio(estimates(np.log(np.array(values))[:, None], 10_000, 0)[0])
    if found.low is None or found.high is None:
        return f"{found.value:.3f} ({min(values):.3f}, {max(values):.3f})"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def greedy(trials: Trials, families: Sequence[str]) -> None:
    """Print what jumps give that are taken wherever the verification set likes them."""
    plain = [trials.curve(seed, None)[0] for seed in trials.seeds]
    target = SLACK * float(np.median([curve[-1][5] for curve in plain]))
    for family in families:
        taken, times, losses = 0, [], []
        for seed, other in zip(trials.seeds, plain, strict=True):
            curve, jumps = trials.curve(seed, family)
            taken += jumps
            own, reference = (
                time_to(item, [row[0] for row in item], target) or 2.0 * trials.steps for item in (curve, other)
            )
            times.append(own / reference)
            losses.append(curve[-1][5] / other[-1][5])
        print(
            f"{trials.method:>16} {family:>16} {taken / len(plain):6.1f} {ratio(times):>38} {ratio(losses):>28}",
            flush=True,
        )


def hindsight(trials: Trials, families: Sequence[str]) -> None:
    """Print what jumps give that are taken by what comes of them."""
    for family in families:
        better = opportunities = jumps = 0
        columns: list[list[float]] = [[], [], [], [], []]
        trees = [trials.tree(seed, family) for seed in trials.seeds]
        for index, tree in enumerate(trees):
            without, every_time = tree.ends[(False,) * tree.depth], tree.ends[(True,) * tree.depth]
            single = np.array([end / without for pattern, end in tree.ends.items() if sum(pattern) == 1])
            better += int((single < 1).sum())
            opportunities += tree.depth
            others = trees[:index] + trees[index + 1 :]
            found = [mean(single), mean(np.minimum(single, 1)), every_time / without, min(tree.ends.values()) / without]
            if others:
                taken = tree.walk(learned(others))
                jumps += sum(taken)
                found.append(tree.ends[taken] / without)
            for column, value in zip(columns, found, strict=False):
                column.append(value)
        cells = " ".join(f"{ratio(column):>22}" for column in columns if column)
        taken_by = f" {jumps / len(trees):6.1f}" if columns[-1] else ""
        print(f"{trials.method:>16} {family:>16} {better:3} of {opportunities:2} {cells}{taken_by}", flush=True)


def mean(values: np.ndarray) -> float:
    """The geometric mean."""
    return float(np.exp(np.log(values).mean()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tuned", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--every", type=float, default=0.1, help="share of the run between opportunities")
    parser.add_argument("--hindsight", action="store_true", help="judge each jump by the end of the run")
    parser.add_argument("--verify", type=int, default=VERIFY, help="samples that candidates are compared on")
    parser.add_argument("--measurements", type=int, default=MEASUREMENTS, help="in a run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tuned = json.loads(given.tuned.read_text())
    problem = find_problem(tuned["problem"]["name"])
    task = load_task(problem.task)
    print(
        f"{time.strftime('%F %T')}, {problem.name}, {given.seeds} seeds, a jump every {given.every:g} of a run at most"
        f", candidates compared on {given.verify} samples" + (", hindsight" if given.hindsight else "")
    )
    kind: Callable[[Trials, Sequence[str]], None]
    if given.hindsight:
        kind, columns = (
            hindsight,
            f"{'better':>9} {'one jump':>22} {'or none':>22} {'all':>22} {'best':>22} {'learned':>22} {'jumps':>6}",
        )
    else:
        kind, columns = greedy, f"{'jumps':>6} {'steps to target, over those without':>38} {'final loss':>28}"
    print(f"{'method':>16} {'family':>16} {columns}", flush=True)
    for method in given.methods:
        kind(Trials(task, problem, method, tuned["settings"][method], given), given.families)


if __name__ == "__main__":
    main()

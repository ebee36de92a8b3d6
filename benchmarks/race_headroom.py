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
* `nino`, `adaptive_linear`: forecasts at five horizons by the forecasters that come with the package. They need rows 10
  steps apart, so that there is an opportunity every 100 steps at most.

    python benchmarks/race_headroom.py --tuned TUNED.json --methods adamw_linear muon --seeds 3 > race_headroom.txt

`--tuned` is what `deadreckon race` writes for a problem.
"""

import argparse
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from deadreckon.experiments.bootstrap import as_ratio, estimates
from deadreckon.experiments.classifier import evaluate
from deadreckon.experiments.race.averages import holding, trained
from deadreckon.experiments.race.clock import in_evaluation, spread
from deadreckon.experiments.race.methods import METHODS
from deadreckon.experiments.race.optimizers import make_race_optimizer, rate_factor
from deadreckon.experiments.race.problems import Problem, find_problem
from deadreckon.experiments.race.scores import SLACK, time_to
from deadreckon.experiments.tasks import Batches, TaskData, load_task, make_network
from deadreckon.forecast import Forecaster, Window, layout_of, load_vector, pack, unpack
from deadreckon.forecast.graph import trace_graph
from deadreckon.models import load_pretrained, make_forecaster

LINE = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
HORIZONS = (10, 20, 50, 100, 200)
ROWS = 10  # kept between two opportunities
FORECASTERS = ("adaptive_linear", "nino")
COMBINATIONS = ("line", "average", "trend", "low_rank", "per_layer")
FAMILIES = (*COMBINATIONS, "any", *FORECASTERS)
SPACING = 10  # optimiser steps between rows for forecasters that come with the package
MEASUREMENTS = 60
VERIFY = 2000  # samples


class Families:
    """Candidates of each family from the latest rows.

    Args:
        network: the one that is trained.
        row_every: optimiser steps between rows.
        loss: of a vector, on the verification set; differentiable.
    """

    def __init__(self, network: nn.Module, row_every: int, loss: Callable[[Tensor], Tensor], sample: Tensor) -> None:
        self.layout = layout_of(network)
        self.row_every = row_every
        self.rows: deque[Tensor] = deque(maxlen=ROWS)
        self.steps: deque[int] = deque(maxlen=ROWS)
        self.loss = loss
        self.graph = trace_graph(network, (sample,))
        averages = [make_forecaster("lawa", history=count) for count in (2, 4, 8)]
        trend = make_forecaster("lawa", extrapolate=True, history=8)
        self.forecasters: dict[str, tuple[Sequence[Forecaster], Sequence[int]]] = {
            "average": (averages, HORIZONS[:1]),  # which propose the same for every horizon
            "trend": ([trend], HORIZONS),
            **{name: ([load_pretrained(name)], HORIZONS) for name in FORECASTERS},
        }

    def candidates(self, family: str) -> Iterator[Tensor]:
        """Vectors to choose from; none while the history is too short."""
        if family == "any":
            for name in COMBINATIONS:
                yield from self.candidates(name)
        elif len(self.rows) == ROWS:
            yield from self._forecasts(family) if family in self.forecasters else getattr(self, f"_{family}")()

    def _line(self) -> Iterator[Tensor]:
        for back in (2, 5):
            step = self.rows[-1] - self.rows[-1 - back]
            yield from (self.rows[-1] + share * step for share in LINE)

    def _low_rank(self) -> Iterator[Tensor]:
        rows = torch.stack(list(self.rows)[-6:])
        yield self._fitted(rows.diff(dim=0))

    def _per_layer(self) -> Iterator[Tensor]:
        step = self.rows[-1] - self.rows[-6]
        parts = torch.zeros(len(self.layout), len(step))
        for part, spec in zip(parts, self.layout, strict=True):
            part[spec.span] = step[spec.span]
        yield self._fitted(parts)

    def _fitted(self, directions: Tensor) -> Tensor:
        """The best combination of directions that L-BFGS finds in a few steps."""
        base = self.rows[-1]
        shares = torch.zeros(len(directions), requires_grad=True)
        optimizer = torch.optim.LBFGS([shares], max_iter=8, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = self.loss(base + shares @ directions)
            value.backward()
            return value

        optimizer.step(closure)
        return base + shares.detach() @ directions

    def _forecasts(self, family: str) -> Iterator[Tensor]:
        members, horizons = self.forecasters[family]
        for member in members:
            window = Window(
                torch.stack(list(self.rows)[-member.history :]),
                torch.tensor(list(self.steps)[-member.history :]),
                self.layout,
                graph=self.graph if member.needs_graph else None,
            )
            yield from (forecast.mean for forecast in member.forecast(window, horizons))


def run(
    task: TaskData,
    problem: Problem,
    method: str,
    settings: Mapping[str, float],
    seed: int,
    family: str | None,
    every: int,
) -> tuple[list[list[float]], int]:
    """One run: its curve as the race has it (steps and losses only), and how many jumps were taken."""
    recipe = METHODS[method]
    steps = round(problem.steps * settings.get("horizon", 1.0))
    network = make_network(problem.network, task, seed, problem.width)
    optimizer = make_race_optimizer(recipe.optimizer, network, settings, steps)
    rates: list[float] = [group["lr"] for group in optimizer.param_groups]
    batches = Batches(task.train, problem.batch_size, steps, seed)
    measured, checked = spread(task.tune, problem.test_samples), spread(task.verify, VERIFY)
    layout = layout_of(network)

    def loss_of(vector: Tensor) -> Tensor:
        logits = functional_call(network, unpack(vector, layout), (checked.inputs,))
        return functional.cross_entropy(logits, checked.labels)

    families = Families(network, every // ROWS, loss_of, checked.inputs[:2])
    average: list[Tensor] | None = None
    decay = settings.get("decay")
    curve: list[list[float]] = []
    jumps = 0
    for step, (inputs, labels) in enumerate(batches, start=1):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * rate_factor(recipe.schedule, step - 1, steps)
        optimizer.zero_grad()
        functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
        if decay is not None:
            average = average or [value.clone() for value in trained(network)]
            for own, value in zip(average, trained(network), strict=True):
                own.lerp_(value, 1 - min(decay, (1 + step) / (10 + step)))
        if step % families.row_every == 0:
            families.rows.append(pack(network)[0].clone())
            families.steps.append(step)
        if family is not None and step % every == 0:
            jumps += jump(network, families, family, average)
        if step % max(1, steps // MEASUREMENTS) == 0 or step == steps:
            curve.append([step, 0, 0, step, 1, measured_loss(network, optimizer, average, measured), 0])
    return curve, jumps


def jump(network: nn.Module, families: Families, family: str, average: list[Tensor] | None) -> bool:
    """Go to the best candidate, if one is better than staying; an average goes along."""
    with torch.no_grad():
        lowest, best = families.loss(families.rows[-1]), None
    for vector in families.candidates(family):
        with torch.no_grad():
            loss = families.loss(vector)
        if loss < lowest:
            lowest, best = loss, vector
    if best is None:
        return False
    before = [value.clone() for value in trained(network)]
    load_vector(network, best, families.layout)
    if average is not None:
        for own, old, new in zip(average, before, trained(network), strict=True):
            own.add_(new - old)
    families.rows.clear()  # the curve breaks here
    families.steps.clear()
    return True


def measured_loss(
    network: nn.Module, optimizer: torch.optim.Optimizer, average: list[Tensor] | None, split: Any
) -> float:
    """The loss of what is evaluated: the average where there is one."""
    with in_evaluation(optimizer):
        if average is None:
            return evaluate(network, split).loss
        with holding(network, average):
            return evaluate(network, split).loss


def ratio(values: Sequence[float]) -> str:
    """A geometric mean with its interval."""
    found = as_ratio(estimates(np.log(np.array(values))[:, None], 10_000, 0)[0])
    ends = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{ends}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tuned", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--every", type=float, default=0.1, help="share of the run between opportunities")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tuned = json.loads(given.tuned.read_text())
    problem = find_problem(tuned["problem"]["name"])
    task = load_task(problem.task)
    print(
        f"{time.strftime('%F %T')}, {problem.name}, {given.seeds} seeds, a jump every {given.every:g} of a run at most"
    )
    seeds = range(2000, 2000 + given.seeds)
    print(f"{'method':>16} {'family':>16} {'jumps':>6} {'steps to target, over those without':>38} {'final loss':>28}")
    for method in given.methods:
        settings = tuned["settings"][method]
        steps = round(problem.steps * settings.get("horizon", 1.0))
        every = max(ROWS, round(given.every * steps) // ROWS * ROWS)
        plain = [run(task, problem, method, settings, seed, None, every)[0] for seed in seeds]
        target = SLACK * float(np.median([curve[-1][5] for curve in plain]))
        for family in given.families:
            pause = ROWS * SPACING if family in FORECASTERS else every
            taken, times, losses = 0, [], []
            for seed, other in zip(seeds, plain, strict=True):
                curve, jumps = run(task, problem, method, settings, seed, family, pause)
                taken += jumps
                own, reference = (
                    time_to(item, [row[0] for row in item], target) or 2.0 * steps for item in (curve, other)
                )
                times.append(own / reference)
                losses.append(curve[-1][5] / other[-1][5])
            print(
                f"{method:>16} {family:>16} {taken / given.seeds:6.1f} {ratio(times):>38} {ratio(losses):>28}",
                flush=True,
            )


if __name__ == "__main__":
    main()

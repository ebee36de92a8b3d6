"""NiNo compared on runs that no forecaster was fitted to: skill, and what a jump to the forecast is worth.

    python benchmarks/nino_runs.py held_out runs/nino_held_out
    python benchmarks/nino_compare.py --runs runs/nino_held_out --checkpoint nino_no_posw.pt --wnn-plus nino_mlp.pt

The two checkpoints are those of the authors (github.com/SamsungSAILMontreal/nino); without one its rows are left out.
Of every run the same moments are taken. Every forecaster gets the rows that it wants: most of them 10 steps apart, the
authors' 200 steps apart. Below 200 steps the authors' forecasts are linear between standing still and their first one.

Skill is 1 - squared error of the weights over that of standing still: a geometric mean over runs, with 95 % bootstrap
intervals over runs. `ours / it` is the ratio of squared errors, run by run, of `nino_long`; ours is non-inferior where
the interval lies below 1.05.

Jump value: the weights that were forecast are put into the network, and their loss is measured on data that is neither
trained nor tested on (verify and tune). It is credited with as many optimiser steps as the run itself needed from this
moment to that loss: on the run's own losses (every 100 steps, made non-increasing by least squares), linearly between
them, negative where the loss is worse than at this moment, and at most to the run's ends. `net` is what is left when
the CPU time of one forecast, in optimiser steps, is taken off. `loss` is the ratio of losses, forecast over standing
still, a geometric mean.

`shuffled edges` is our network as it is, on a graph in which every block of edges carries the same scalars, at edges
drawn at random: degrees, kinds and all that a scalar shows by itself are the same, what its neighbours show is not.

What was measured is kept in `--work`, one file a run, so that a second call goes on with what is missing.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from nino_tables import Measured, Numbers, report
from torch import Tensor

from deadreckon.experiments.classifier import Classifier, evaluate
from deadreckon.experiments.run_graphs import graph_of_run
from deadreckon.experiments.runs import RecordedRun, find_runs, open_run
from deadreckon.experiments.tasks import Split, load_task, make_network
from deadreckon.forecast import Forecaster, Layout, Trajectory, Window, WindowError, unpack
from deadreckon.forecast.graph import NeuralGraph
from deadreckon.models import (
    load_forecaster,
    load_pretrained,
    load_released_nino,
    load_released_wnn_plus,
    make_forecaster,
    pretrained_names,
)
from deadreckon.models.nino_items import positions

HORIZONS = (10, 50, 200, 1000)
MOMENTS = (900, 1150, 1400)
FAR = 200  # optimiser steps between the authors' rows
CURVE_FROM, CURVE_EVERY = 300, 100
SAMPLES = 500
SEED = 0


class Contestant(NamedTuple):
    """A forecaster, and the rows it is given.

    Attributes:
        name: in the tables.
        forecaster: ready.
        spacing: optimiser steps between its rows.
        shuffled: whether its graph's edges are drawn anew.
    """

    name: str
    forecaster: Forecaster
    spacing: int
    shuffled: bool = False


def contestants(checkpoint: str | None, wnn_plus: str | None, fits: Sequence[str] = ()) -> list[Contestant]:
    """All there are.

    Args:
        checkpoint: the authors' NiNo, or None.
        wnn_plus: the authors' WNN+, or None.
        fits: files of forecasters beside those that come with the package, each `name=spacing=path`.
    """
    found = [
        Contestant("linear", make_forecaster("linear"), 10),
        Contestant("linear 200", make_forecaster("linear"), FAR),
    ]
    for name in ("tuned_line", "adaptive_linear", "wnn_plus", "nino", "nino_long"):
        if name in pretrained_names():
            found.append(Contestant(name, load_pretrained(name), 10))
    for text in fits:
        name, spacing, path = text.split("=")
        found.append(Contestant(name, load_forecaster(path), int(spacing)))
    ours = [item for item in found if item.name.startswith("nino")]
    found += [item._replace(name=f"{item.name} shuffled edges", shuffled=True) for item in ours]
    if wnn_plus is not None:
        found.append(Contestant("authors' WNN+", load_released_wnn_plus(wnn_plus, FAR), FAR))
    if checkpoint is not None:
        for variant in ("corrected", "released"):
            found.append(Contestant(f"authors' NiNo, {variant}", load_released_nino(checkpoint, FAR, variant), FAR))
    return found


# -- one run


def shuffled(graph: NeuralGraph, layout: Layout, seed: int) -> Tensor:
    """Which scalar each place in the flat vector gets: those of each block of edges in an order drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(layout.size)
    for block in graph.blocks:
        if block.parameter is not None:
            places = positions(graph, block, layout).flatten()
            order[places] = places[torch.randperm(len(places), generator=generator)]
    return order


def window_at(trajectory: Trajectory, step: int, rows: int, spacing: int, graph: NeuralGraph | None) -> Window:
    """The window that ends at a step."""
    row_of = rows_of(trajectory)
    steps = [step - spacing * back for back in range(rows - 1, -1, -1)]
    values = torch.stack([row_of[own]() for own in steps])
    rates = trajectory.scalars["learning_rate"]
    rate_of = dict(zip(rates.steps.tolist(), rates.values.tolist(), strict=True))
    known = [rate_of[own] for own in steps] if all(own in rate_of for own in steps) else None
    learning_rates = None if known is None else torch.tensor(known, dtype=torch.float64)
    return Window(values, torch.tensor(steps), trajectory.layout, learning_rates=learning_rates, graph=graph)


def means(contestant: Contestant, window: Window, horizons: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """The forecasts that a contestant can make."""
    order = None
    if contestant.shuffled:
        assert window.graph is not None  # all windows here carry one
        order = shuffled(window.graph, window.layout, SEED)
        window = replace(window, values=window.values[:, order])
    for horizon in horizons:
        try:
            (forecast,) = contestant.forecaster.forecast(window, [horizon])
        except WindowError:
            continue
        mean = forecast.mean
        if order is not None:
            mean = torch.empty_like(mean).index_copy_(0, order, mean)
        yield horizon, mean


def non_increasing(values: Numbers) -> Numbers:
    """The non-increasing sequence nearest in squares: neighbours out of order are averaged until none are."""
    blocks: list[tuple[float, int]] = []
    for value in values.tolist():
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] <= blocks[-1][0]:
            (one, many), (other, more) = blocks[-2:]
            blocks[-2:] = [((one * many + other * more) / (many + more), many + more)]
    return np.concatenate([np.full(count, value) for value, count in blocks])


def step_of(loss: float, steps: Numbers, losses: Numbers) -> float:
    """The optimiser step at which a run had a loss; its ends where it never did.

    Args:
        loss: the loss.
        steps: ascending.
        losses: at these steps, of any shape; made non-increasing first.
    """
    level = non_increasing(losses)
    values, first, counts = np.unique(-level, return_index=True, return_counts=True)
    middle = (steps[first] + steps[first + counts - 1]) / 2
    return float(np.interp(-loss, values, middle)) if np.isfinite(loss) else float(middle[0])


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of one call, the least of three, after one that warms up."""
    work()
    found: list[float] = []
    for _ in range(3):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return min(found)


def prepared(run: RecordedRun, trajectory: Trajectory, loss_of: Callable[[Tensor], float] | None) -> Measured:
    """What there is to know of a run before anybody forecasts it; nothing about losses without `loss_of`."""
    row_of = rows_of(trajectory)
    curve = [step for step in row_of if step >= CURVE_FROM and step % CURVE_EVERY == 0]
    moved: dict[str, list[float]] = {}
    later: dict[str, list[float]] = {}
    for horizon in HORIZONS:
        pairs = [(row_of[moment], row_of[moment + horizon]) for moment in MOMENTS]
        moved[str(horizon)] = [float((after() - before()).double().square().sum()) for before, after in pairs]
        later[str(horizon)] = [loss_of(after()) for _, after in pairs] if loss_of else []
    return {
        "task": run.task,
        "network": run.network,
        "schedule": run.schedule,
        "curve": [curve, [loss_of(row_of[step]()) for step in curve]] if loss_of else [[], []],
        "still": [loss_of(row_of[moment]()) for moment in MOMENTS] if loss_of else [],
        "later": later,
        "persistence": moved,
        "step_seconds": run.seconds_per_step,
        "errors": {},
        "losses": {},
        "credits": {},
        "steps": {},
    }


def rows_of(trajectory: Trajectory) -> dict[int, Callable[[], Tensor]]:
    """What reads the row of each step."""
    stream = trajectory.stream("weights")

    def reader(row: int) -> Callable[[], Tensor]:
        return lambda: torch.from_numpy(np.array(stream[row]))

    return {int(step): reader(row) for row, step in enumerate(stream.steps)}


def measure(
    run: RecordedRun, field: Sequence[Contestant], data: str | None, known: Measured | None = None, jumps: bool = True
) -> Measured:
    """What each contestant does on a run.

    Args:
        run: the run.
        field: who.
        data: a folder with the tasks' files.
        known: what was measured before; those in it are left as they are.
        jumps: whether the value of jumps is measured, too; `known` decides where there is such.
    """
    task = load_task(run.task, data)
    module = Classifier(make_network(run.network, task, run.seed, run.width))
    held_out = Split(*(torch.cat(parts)[:SAMPLES] for parts in zip(task.verify, task.tune, strict=True)))
    with open_run(run) as trajectory:
        layout = trajectory.layout

        def loss_of(vector: Tensor) -> float:
            module.load_state_dict(unpack(vector, layout))
            return evaluate(module, held_out).loss

        found = prepared(run, trajectory, loss_of if jumps else None) if known is None else known
        row_of, graph = rows_of(trajectory), graph_of_run(run, layout, data)
        steps, losses = (np.array(part, dtype=np.float64) for part in found["curve"])
        for item in field:
            if item.name in found["errors"]:
                continue
            tables: dict[str, dict[str, list[float]]] = {"errors": {}, "losses": {}, "credits": {}}
            for number, moment in enumerate(MOMENTS):
                window = window_at(trajectory, moment, max(2, item.forecaster.history), item.spacing, graph)
                horizon = 0
                for horizon, mean in means(item, window, HORIZONS):
                    wrong = float((row_of[moment + horizon]() - mean).double().square().sum())
                    tables["errors"].setdefault(str(horizon), []).append(wrong)
                    if not found["still"]:
                        continue
                    loss = loss_of(mean)
                    credit = step_of(loss, steps, losses) - step_of(found["still"][number], steps, losses)
                    tables["losses"].setdefault(str(horizon), []).append(loss)
                    tables["credits"].setdefault(str(horizon), []).append(credit)
                if moment == MOMENTS[0] and horizon:
                    spent = cpu_seconds(lambda i=item, w=window, h=horizon: list(i.forecaster.forecast(w, [h])))
                    found["steps"][item.name] = spent / found["step_seconds"]
            for table, values in tables.items():
                found[table][item.name] = values
    return found


# -- tables


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", required=True)
    parser.add_argument("--checkpoint", help="the authors' nino_no_posw.pt")
    parser.add_argument("--wnn-plus", help="the authors' nino_mlp.pt")
    parser.add_argument("--fits", nargs="*", default=[], help="more forecasters, each name=spacing=path")
    parser.add_argument("--data", help="a folder with the tasks' files")
    parser.add_argument("--work", type=Path, default=Path("runs/nino_compare"))
    parser.add_argument("--skill-only", action="store_true", help="measure no jumps on runs that are new")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--out", type=Path, help="where the tables go; printed if not given")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    field = contestants(options.checkpoint, options.wnn_plus, options.fits)
    options.work.mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    measured: list[Measured] = []
    for run in find_runs(options.runs):
        place = options.work / f"{run.folder.name}.json"
        known = json.loads(place.read_text()) if place.exists() else None
        if known is None or any(item.name not in known["errors"] for item in field):
            if time.perf_counter() - begin > options.seconds:
                return 3
            known = measure(run, field, options.data, known, not options.skill_only)
            place.write_text(json.dumps(known))
            print(run.folder.name, f"{time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
        measured.append(known)
    missing = [what for what, path in (("NiNo", options.checkpoint), ("WNN+", options.wnn_plus)) if path is None]
    head = (
        f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, one thread, {len(measured)} runs, moments {MOMENTS}."
    )
    left_out = "".join(f" The authors' {what} is left out: no checkpoint was given." for what in missing)
    text = f"{head}{left_out}\n\n{report(measured, [item.name for item in field], HORIZONS)}"
    if options.out is None:
        print(text)
    else:
        options.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

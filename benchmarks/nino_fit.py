"""Fit the weights of `nino` that come with the package, piece by piece.

    python benchmarks/nino_runs.py training runs/nino_training
    python benchmarks/nino_fit.py draw runs/nino_training --work runs/nino_fit --history 70
    python benchmarks/nino_fit.py train --work runs/nino_fit --rate 0.003 --iterations 1000   (again with smaller rates)
    python benchmarks/nino_fit.py finish runs/nino_training --work runs/nino_fit --out nino.safetensors

`draw` takes windows of every run that end at the same steps and draws the edges to train on. `train` goes on from the
best network so far, chosen by the geometric mean of the relative errors of the runs kept apart, and keeps it if it
became better. `finish` calibrates the scales on the runs kept apart. Every run whose seed is in `KEPT_APART` is kept
apart; no run that `nino_compare.py` measures is looked at.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deadreckon.experiments.run_graphs import graph_of_run
from deadreckon.experiments.runs import find_runs, open_run
from deadreckon.forecast import Case, cases
from deadreckon.models import NiNo, save_forecaster
from deadreckon.models.fitting import Examples
from deadreckon.models.nino_neurons import Edges, NeuronNetwork
from deadreckon.models.trainable import TrainingItems
from deadreckon.models.training import train

HORIZONS = (10, 50, 200, 500, 1000)
SPACING = 10
EVERY = 50  # steps between the windows of a run
KEPT_APART = frozenset({805, 807, 816, 821, 825, 826})
LOOK_EVERY = 50  # iterations between looks at the runs kept apart
FEW = 3  # windows of each run that scales are calibrated on
PARTS = ("training", "validation")
CONTEXT = Edges._fields.index("context")


def found_cases(folder: Path, history: int, data: str | None, parts: Sequence[str], every: int) -> list[list[Case]]:
    """Cases of the runs of each part, in the order of `parts`."""
    found: list[list[Case]] = [[] for _ in parts]
    for run in find_runs([str(folder)]):
        part = PARTS[run.seed in KEPT_APART]
        if part not in parts:
            continue
        with open_run(run) as trajectory:
            graph = graph_of_run(run, trajectory.layout, data)
            own = cases(trajectory, "weights", history, HORIZONS, spacing=SPACING, graph=graph)
        found[parts.index(part)] += [case for case in own if case.window.last_step % every == 0]
    return found


def draw(folder: Path, work: Path, history: int, width: int, data: str | None) -> None:
    """The items of both parts, and the network to begin with."""
    forecaster = NiNo(width=width, history=history)
    training, validation = found_cases(folder, history, data, PARTS, EVERY)
    examples = Examples.of(training, forecaster, validation)
    network, *drawn = forecaster.start(examples, torch.Generator().manual_seed(0))
    work.mkdir(parents=True, exist_ok=True)
    for name, items in zip(PARTS, drawn, strict=True):
        tensors = {f"{number:02}": part.contiguous() for number, part in enumerate(items.items)}
        save_file(tensors | {"share": items.share}, work / f"{name}.safetensors")
    save_file(network.state_dict(), work / "network.safetensors")
    print(f"{len(training)} cases to train on, {len(validation)} to choose by", flush=True)


def items_in(work: Path, name: str) -> TrainingItems:
    tensors = load_file(work / f"{name}.safetensors")
    share = tensors.pop("share")
    return TrainingItems(tuple(tensors[key] for key in sorted(tensors)), share)


def network_in(work: Path, history: int, width: int) -> NeuronNetwork:
    network = NeuronNetwork(width, len(HORIZONS), history)
    network.load_state_dict(load_file(work / "network.safetensors"))
    return network


def log_ratios(forecaster: NiNo, network: NeuronNetwork, items: TrainingItems) -> Tensor:
    """Logarithm of each case's relative error, averaged over cases, `[horizon]`."""
    found: list[Tensor] = []
    with torch.no_grad():
        for piece in torch.arange(len(items)).split(16):
            taken = items.take(piece)
            errors = forecaster.squared_errors(network, taken.items)
            *_, target, weight, reach = taken.items
            still = (weight.unsqueeze(2) * target.square()).sum(dim=1) * reach.square()
            found.append((errors / still).clamp(min=1e-9).log())
    return torch.cat(found).mean(dim=0)


class Piece(NamedTuple):
    """One piece of training.

    Attributes:
        rate: Adam's.
        iterations: at most.
        seconds: after which to stop.
        noise: deviation of random numbers added to what is seen of tensors as wholes, so that it counts less exactly.
        seed: of batches and noise.
    """

    rate: float
    iterations: int
    seconds: float
    noise: float
    seed: int


def fit(work: Path, history: int, width: int, piece: Piece) -> None:
    """Go on from the network so far, and keep the best by the runs kept apart."""
    forecaster, network = NiNo(width=width, history=history), network_in(work, history, width)
    training, validation = (items_in(work, name) for name in PARTS)
    generator = torch.Generator().manual_seed(piece.seed)
    begin, cpu = time.perf_counter(), time.process_time()
    before = log_ratios(forecaster, network, validation)

    def error() -> Tensor:
        batch = forecaster.batch(training, generator)
        tensors = list(batch.items)
        context = tensors[CONTEXT]
        tensors[CONTEXT] = context + piece.noise * torch.randn(context.shape, generator=generator)
        return forecaster.training_error(network, TrainingItems(tuple(tensors), batch.share))

    made, _, stopped = train(
        network.train(),
        error,
        lambda: log_ratios(forecaster, network, validation).mean(),
        piece.iterations,
        begin + piece.seconds,
        learning_rate=piece.rate,
        check_every=LOOK_EVERY,
        patience=20,
    )
    after = log_ratios(forecaster, network, validation)
    save_file(network.state_dict(), work / "network.safetensors")
    ratios = [", ".join(f"{value:.3f}" for value in part.exp().tolist()) for part in (before, after)]
    spent = (
        f"rate {piece.rate}, noise {piece.noise}, {made} iterations ({stopped}), {time.process_time() - cpu:.0f} CPU s"
    )
    change = f"at {HORIZONS}: {ratios[0]} -> {ratios[1]}"
    print(f"{spent}: error over that of standing still on the runs kept apart, {change}", flush=True)


def finish(folder: Path, work: Path, history: int, width: int, data: str | None, out: Path) -> None:
    """Calibrate the scales, and save the forecaster."""
    forecaster, network = NiNo(width=width, history=history), network_in(work, history, width)
    (validation,) = found_cases(folder, history, data, PARTS[1:], EVERY)
    steps = sorted({case.window.last_step for case in validation})
    kept = set(steps[:: max(1, len(steps) // FEW)])
    validation = [case for case in validation if case.window.last_step in kept]
    forecaster.finish(network, Examples.of(validation, forecaster, validation))
    save_forecaster(forecaster, out)
    print(f"calibrated on {len(validation)} cases", flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "train", "finish"))
    parser.add_argument("runs", type=Path, nargs="?", help="of `nino_runs.py training`; for `draw` and `finish`")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--history", type=int, default=70)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="a folder with the tasks' files")
    parser.add_argument("--out", type=Path, default=Path("nino.safetensors"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.what == "train":
        piece = Piece(options.rate, options.iterations, options.seconds, options.noise, options.seed)
        fit(options.work, options.history, options.width, piece)
        return 0
    if options.runs is None:
        parser.error(f"`{options.what}` needs the folder of the runs.")
    runs = cast(Path, options.runs)
    if options.what == "draw":
        draw(runs, options.work, options.history, options.width, options.data)
    else:
        finish(runs, options.work, options.history, options.width, options.data, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

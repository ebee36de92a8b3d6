"""Does compressed data-parallel training end as accurately as float32, and in how few bits? Three tasks, paired seeds.

Four workers in one process, each with batches of its own. A worker encodes its gradient; the server decodes all four,
takes the mean and encodes that; every worker decodes the mean and takes the optimiser's step with it. All five links
have a real encoder and a real decoder, and what is decoded must be equal, bit for bit, to what the encoder believes.
Bits are the length of packets in both directions, from the first step on: key frames, headers and warm-up are counted.
Float32 is 32 bits a coordinate in each direction.

With `--local-steps H` a worker takes H steps of its own between two packets and sends how far it came; the float32 run
still sends every gradient. H of the ratio is then due to sending rarely, and only the rest to the codec: both are told.

For each seed the float32 run has the same initial weights and the same batches, so that differences of accuracy on the
test set are paired. Their mean over seeds has a percentile bootstrap interval; over all tasks, seeds are resampled
within tasks. Five seeds make a percentile interval that is somewhat too narrow, so the smallest difference is shown
too.

Error feedback, part of the codec's configuration, is kept by each sender. What is owed is rescaled when the learning
rate changes only if `--rescale` is given: it supposes that a step is proportional to the gradient, which Adam's is not.

Run: `DEADRECKON_DATA=... python benchmarks/codec_accuracy.py --up '{"nmse": 0.5}' --down '{"nmse": 0.5}' --jobs 2`
"""

import argparse
import copy
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from codec_rate import provenance, report, spread, write
from numpy.typing import NDArray
from record_streams import gradient_of
from torch import Tensor

from deadreckon.codec import Codec, CodecConfig
from deadreckon.experiments.classifier import evaluate
from deadreckon.experiments.optimizers import make_optimizer, make_schedule
from deadreckon.experiments.tasks import Batches, load_task, make_network
from deadreckon.forecast import Layout, flatten, layout_of, trainable_parameters, unpack

NUM_WORKERS = 4
FLOAT_BITS = 32
NUM_RESAMPLES = 10_000
LEVEL = 0.95
TARGET_RATIO, TARGET_LOSS = 300, 0.3  # times fewer bits, points of accuracy


class Problem(NamedTuple):
    """What is trained, and how; the batch is a worker's."""

    task: str
    network: str
    width: float
    optimizer: str
    learning_rate: float
    schedule: str
    batch_size: int
    num_steps: int


PROBLEMS = {
    "digits": Problem("digits", "mlp", 4.0, "adam", 0.003, "cosine", 32, 300),
    "fashion": Problem("fashion_mnist", "mlp", 2.0, "adam", 0.002, "cosine", 64, 1000),
    "conv": Problem("fashion_mnist", "conv", 2.0, "adam", 0.003, "cosine", 32, 600),
    "shakespeare": Problem("shakespeare", "transformer", 2.0, "adam", 0.003, "cosine", 32, 800),
}
DEFAULT_PROBLEMS = ("digits", "fashion", "shakespeare")


class Scheme(NamedTuple):
    """How vectors travel; plain data, so that it can go to another process.

    Attributes:
        up: of the codec from workers to the server, as `CodecConfig.to_dict`.
        down: of the codec from the server to workers.
        rescale: whether feedback is told the learning rate.
        local_steps: optimiser steps of a worker between two packets.
    """

    up: dict[str, Any]
    down: dict[str, Any]
    rescale: bool
    local_steps: int


class Case(NamedTuple):
    """One training run; no scheme is float32."""

    problem: str
    seed: int
    num_steps: int
    scheme: Scheme | None


@dataclass(frozen=True)
class Run:
    """What one training run gave and cost.

    Attributes:
        problem: its name.
        seed: of weights and batches.
        compressed: whether vectors were.
        size: parameters.
        num_steps: optimiser steps.
        accuracy: on the test set at the end, in per cent.
        loss: on the test set.
        up_ratio: bits of float32 over bits sent by the workers, key frames and all.
        down_ratio: the same of the server's.
        ratio: of both together, as one worker sends and receives them.
        nmse_up: mean over packets of the error, against what was to be sent, feedback included.
        nmse_down: the same of the server's.
    """

    problem: str
    seed: int
    compressed: bool
    size: int
    num_steps: int
    accuracy: float
    loss: float
    up_ratio: float = 1.0
    down_ratio: float = 1.0
    ratio: float = 1.0
    nmse_up: float = 0.0
    nmse_down: float = 0.0


class Channel:
    """One direction of one link: encoder and decoder.

    Attributes:
        num_bits: sent so far.
        errors: ||vector - decoded||^2 / ||vector||^2 of each packet, with what was owed in `vector`.
    """

    def __init__(self, layout: Layout, config: dict[str, Any]) -> None:
        codec = Codec(layout, CodecConfig.from_dict(config))
        self._encoder, self._decoder = codec.encoder(), codec.decoder()
        self.num_bits = 0
        self.errors: list[float] = []

    def send(self, vector: Tensor, step: int, learning_rate: float | None) -> Tensor:
        """What arrives."""
        packet = self._encoder.encode(vector, step, learning_rate=learning_rate)
        decoded = self._decoder.decode(packet)
        if not torch.equal(decoded, self._encoder.reconstruction):
            raise AssertionError(f"Step {step}: the decoder's vector is not the encoder's.")
        self.num_bits += 8 * len(packet)
        self.errors.append(self._encoder.last_report.nmse)
        return decoded


def mean_of(vectors: Sequence[Tensor]) -> Tensor:
    """Of all workers, in their order."""
    return torch.stack(list(vectors)).mean(0)


def set_weights(network: torch.nn.Module, weights: Tensor, layout: Layout) -> None:
    """Put a vector into a network's parameters."""
    parameters = trainable_parameters(network)
    with torch.no_grad():
        for name, value in unpack(weights, layout).items():
            parameters[name].copy_(value)


def train(case: Case) -> Run:
    """One run, and its accuracy on the test set."""
    problem = PROBLEMS[case.problem]
    num_steps = case.num_steps or problem.num_steps
    task = load_task(problem.task)
    network = make_network(problem.network, task, case.seed, problem.width)
    seeds = range(NUM_WORKERS * case.seed, NUM_WORKERS * (case.seed + 1))
    loaders = [Batches(task.train, problem.batch_size, num_steps, seed) for seed in seeds]
    train_as = train_with_local_steps if case.scheme and case.scheme.local_steps > 1 else train_in_step
    ups, downs = train_as(problem, network, loaders, num_steps, case.scheme)
    found = evaluate(network, task.test)
    size = layout_of(network).size
    run = Run(case.problem, case.seed, bool(case.scheme), size, num_steps, 100 * found.accuracy, found.loss)
    return with_costs(run, ups, downs[0]) if downs else run


def train_in_step(
    problem: Problem, network: torch.nn.Module, loaders: Sequence[Batches], num_steps: int, scheme: Scheme | None
) -> tuple[list[Channel], list[Channel]]:
    """Every step, workers send gradients and the server their mean; one optimiser serves all. The links used."""
    layout, parameters = layout_of(network), trainable_parameters(network)
    optimizer = make_optimizer(problem.optimizer, network.parameters(), problem.learning_rate)
    schedule = make_schedule(problem.schedule, optimizer, num_steps)
    ups = [Channel(layout, scheme.up) for _ in loaders] if scheme else []
    downs = [Channel(layout, scheme.down)] if scheme else []
    for step in range(num_steps):
        gradients = [gradient_of(network, layout, loader[step])[0] for loader in loaders]
        if scheme:
            rate = float(optimizer.param_groups[0]["lr"]) if scheme.rescale else None
            pairs = zip(ups, gradients, strict=True)
            arrived = mean_of([channel.send(vector, step, rate) for channel, vector in pairs])
            mean = downs[0].send(arrived, step, rate)
        else:
            mean = mean_of(gradients)
        for name, value in unpack(mean, layout).items():
            parameters[name].grad = value.clone()
        optimizer.step()
        schedule.step()
    return ups, downs


def train_with_local_steps(
    problem: Problem, network: torch.nn.Module, loaders: Sequence[Batches], num_steps: int, scheme: Scheme | None
) -> tuple[list[Channel], list[Channel]]:
    """Workers take steps of their own, then send how far they came; the server sends the mean. The links used.

    Each worker has its own optimiser, whose state never travels. All begin each round at the same weights.
    """
    assert scheme is not None
    layout = layout_of(network)
    networks = [copy.deepcopy(network) for _ in loaders]
    optimizers = [make_optimizer(problem.optimizer, one.parameters(), problem.learning_rate) for one in networks]
    schedules = [make_schedule(problem.schedule, optimizer, num_steps) for optimizer in optimizers]
    ups = [Channel(layout, scheme.up) for _ in loaders]
    down = Channel(layout, scheme.down)
    start = flatten(trainable_parameters(network), layout).detach().clone()
    for step in range(num_steps):
        for one, loader, optimizer, schedule in zip(networks, loaders, optimizers, schedules, strict=True):
            parameters = trainable_parameters(one)
            for name, value in unpack(gradient_of(one, layout, loader[step])[0], layout).items():
                parameters[name].grad = value.clone()
            optimizer.step()
            schedule.step()
        if (step + 1) % scheme.local_steps == 0 or step + 1 == num_steps:
            moved = [start - flatten(trainable_parameters(one), layout).detach() for one in networks]
            arrived = [channel.send(vector, step, None) for channel, vector in zip(ups, moved, strict=True)]
            start = start - down.send(mean_of(arrived), step, None)
            for one in networks:
                set_weights(one, start, layout)
    set_weights(network, start, layout)
    return ups, [down]


def with_costs(run: Run, ups: Sequence[Channel], down: Channel) -> Run:
    """The run with what its channels counted."""
    whole = FLOAT_BITS * run.size * run.num_steps
    up = sum(channel.num_bits for channel in ups) / len(ups)
    errors = [error for channel in ups for error in channel.errors]
    costs = {
        "up_ratio": whole / up,
        "down_ratio": whole / down.num_bits,
        "ratio": 2 * whole / (up + down.num_bits),
        "nmse_up": sum(errors) / len(errors),
        "nmse_down": sum(down.errors) / len(down.errors),
    }
    return Run(**{**asdict(run), **costs})


Differences = NDArray[np.float64]


def interval(groups: Sequence[Differences]) -> tuple[float, float]:
    """The interval of the mean of the groups' means; each group is resampled by itself."""
    generator = np.random.default_rng(0)
    means = np.zeros(NUM_RESAMPLES)
    for values in groups:
        rows = generator.integers(len(values), size=(NUM_RESAMPLES, len(values)))
        means += values[rows].mean(1) / len(groups)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def table_text(runs: Sequence[Run]) -> Iterator[str]:
    """The table, line by line."""
    names = list(dict.fromkeys(run.problem for run in runs))
    columns = ("size", "steps", "seeds", "up", "down", "both", "float32", "compressed", "difference", "95 % interval")
    yield f"{'task':12s} " + " ".join(f"{name:>10s}" for name in columns) + "    smallest"
    groups: list[Differences] = []
    ratios: list[float] = []
    for name in names:
        plain = {run.seed: run for run in runs if run.problem == name and not run.compressed}
        packed = {run.seed: run for run in runs if run.problem == name and run.compressed}
        differences = np.array([packed[seed].accuracy - plain[seed].accuracy for seed in plain])
        groups.append(differences)
        # Bits add up, so the ratio of several runs is that of their sums: a harmonic mean.
        up, down, both = (
            len(packed) / sum(1 / getattr(run, attribute) for run in packed.values())
            for attribute in ("up_ratio", "down_ratio", "ratio")
        )
        ratios.append(both)
        low, high = interval([differences])
        first = next(iter(plain.values()))
        accuracies = [np.mean([run.accuracy for run in arm.values()]) for arm in (plain, packed)]
        yield (
            f"{name:12s} {first.size:10d} {first.num_steps:10d} {len(plain):10d} {up:10.1f} {down:10.1f} {both:10.1f} "
            f"{accuracies[0]:10.2f} {accuracies[1]:10.2f} {differences.mean():+10.2f} [{low:+.2f}, {high:+.2f}] "
            f"{differences.min():+11.2f}"
        )
    low, high = interval(groups)
    mean = float(np.mean([values.mean() for values in groups]))
    kept = min(ratios) >= TARGET_RATIO and low > -TARGET_LOSS
    yield ""
    yield f"mean over tasks: difference {mean:+.2f} [{low:+.2f}, {high:+.2f}] points, least ratio {min(ratios):.1f}"
    yield f"target (at least {TARGET_RATIO} times fewer bits, lower end above -{TARGET_LOSS} points): " + (
        "reached" if kept else "not reached"
    )


def config_from(text: str) -> dict[str, Any]:
    """A checked configuration, from JSON."""
    return CodecConfig.from_dict(json.loads(text)).to_dict()


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of compressed data-parallel training, paired with float32.")
    parser.add_argument("--up", default='{"nmse": 0.5}', type=config_from, help="CodecConfig of the workers, as JSON")
    parser.add_argument("--down", default='{"nmse": 0.5}', type=config_from, help="CodecConfig of the server, as JSON")
    parser.add_argument("--rescale", action="store_true", help="what is owed follows the learning rate")
    parser.add_argument("--local-steps", type=int, default=1, help="optimiser steps of a worker between two packets")
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=DEFAULT_PROBLEMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5), help="none of them tuned anything")
    parser.add_argument("--steps", type=int, default=0, help="instead of each problem's own number")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--json", type=Path, help="file for all runs")
    parser.add_argument("--text", type=Path, help="file for the table, which is printed anyway")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scheme = Scheme(arguments.up, arguments.down, arguments.rescale, arguments.local_steps)
    cases = [
        Case(problem, seed, arguments.steps, choice)
        for problem in arguments.problems
        for seed in arguments.seeds
        for choice in (None, scheme)
    ]
    runs: list[Run] = []
    for run in spread(train, cases, arguments.jobs):
        runs.append(run)
        text = f"{len(runs)}/{len(cases)} {run.problem} seed {run.seed}: {run.accuracy:.2f} % at 1/{run.ratio:.1f}"
        print(text, flush=True)
    about = provenance()
    write({**about, "scheme": scheme._asdict(), "runs": [asdict(run) for run in runs]}, arguments.json)
    report([f"{scheme}", "", *table_text(runs)], about, arguments.text)


if __name__ == "__main__":
    main()

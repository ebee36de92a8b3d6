"""Does compressed data-parallel training end as accurately as float32, and in how few bits? Three tasks, paired seeds.

Four workers in one process, each with batches of its own. A worker encodes its gradient; the server decodes all four,
takes the mean and encodes that; every worker decodes the mean and takes the optimiser's step with it. All five links
have a real encoder and a real decoder, and what is decoded must be equal, bit for bit, to what the encoder believes.
Bits are the length of packets in both directions, from the first step on: key frames, headers and warm-up are counted.
Float32 is 32 bits a coordinate in each direction.

With `--local-steps H` a worker takes H steps of its own between two packets and sends how far it came, and an outer
optimiser, SGD with Nesterov's momentum, takes a step against the mean of that (DiLoCo, Douillard et al. 2023, arXiv
2311.08105). The float32 run still sends every gradient. H of the ratio is then due to sending rarely, and only the rest
to the codec. A third arm tells the two apart: the same local steps with float32 vectors, named `local`.

For each seed the float32 run has the same initial weights and the same batches, so that differences of accuracy on all
that is held out are paired. Their mean over seeds has a percentile bootstrap interval; over all tasks, seeds are
resampled within tasks. Five seeds make a percentile interval that is somewhat too narrow, so the smallest difference is
shown too. Learning rates were chosen with float32 runs of a seed that is not used otherwise.

With `--stretch 2` all arms but float32 take twice as many steps. That asks whether bits can be had for computation: how
few bits reach the accuracy of the float32 run when time is left to compute while the link is the bottleneck. `--longer`
adds an arm to see what the computation alone is worth: float32 with as many steps, every gradient sent, named `longer`.

Error feedback, part of the codec's configuration, is kept by each sender. What is owed is rescaled when the learning
rate changes only if `--rescale` is given: it supposes that a step is proportional to the gradient, which Adam's is not.

Run: `DEADRECKON_DATA=... python benchmarks/codec_accuracy.py --up '{"nmse": 0.5}' --down '{"nmse": 0.5}' --jobs 2`
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accuracy_table import COMPRESSED, FLOAT32, LOCAL, LONGER, Run, table_text
from codec_gradients import gradients_of
from codec_replay import spread
from codec_tables import provenance, report, write
from torch import Tensor
from torch.optim import Optimizer

from deadreckon.codec import Codec, CodecConfig
from deadreckon.experiments.classifier import evaluate
from deadreckon.experiments.optimizers import make_optimizer, make_schedule
from deadreckon.experiments.tasks import Batches, Split, TaskData, load_task, make_network
from deadreckon.forecast import Layout, flatten, layout_of, trainable_parameters, unpack

NUM_WORKERS = 4
FLOAT_BITS = 32


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
    "digits": Problem("digits", "mlp", 4.0, "adam", 0.003, "cosine", 32, 1000),
    "fashion": Problem("fashion_mnist", "mlp", 1.0, "adam", 0.002, "cosine", 64, 6000),
    "shakespeare": Problem("shakespeare", "mlp", 2.0, "adam", 0.005, "cosine", 64, 6000),
    "conv": Problem("fashion_mnist", "conv", 2.0, "adam", 0.003, "cosine", 32, 600),
    "transformer": Problem("shakespeare", "transformer", 1.0, "adam", 0.006, "cosine", 16, 1000),
}
DEFAULT_PROBLEMS = ("digits", "fashion", "shakespeare")


class Scheme(NamedTuple):
    """How vectors travel; plain data, so that it can go to another process.

    Attributes:
        up: of the codec from workers to the server, as `CodecConfig.to_dict`; `None` for float32.
        down: of the codec from the server to workers.
        rescale: whether feedback is told the learning rate.
        local_steps: optimiser steps of a worker between two packets.
        outer_learning_rate: of the server's step, where local steps are taken; 1 is plain averaging.
        outer_momentum: of the same, Nesterov's.
        rate_factor: of the workers' learning rate, where local steps are taken; 1 - momentum makes up for the momentum.
        stretch: how many times the float32 run's steps are taken. Bits are compared over whole runs, so twice as many
            steps cost twice the bits, and twice the computation.
    """

    up: dict[str, Any] | None = None
    down: dict[str, Any] | None = None
    rescale: bool = False
    local_steps: int = 1
    outer_learning_rate: float = 1.0
    outer_momentum: float = 0.0
    rate_factor: float = 1.0
    stretch: int = 1

    @property
    def arm(self) -> str:
        """What the run is compared as."""
        if self.up:
            return COMPRESSED
        return LOCAL if self.local_steps > 1 else LONGER if self.stretch > 1 else FLOAT32


class Case(NamedTuple):
    """One training run."""

    problem: str
    seed: int
    num_steps: int
    scheme: Scheme


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


def fused(optimizer: Optimizer) -> Optimizer:
    """An optimiser that has taken no step yet, with all its operations in one pass: a quarter of the time here."""
    for group in optimizer.param_groups:
        group["fused"] = True
    return optimizer


class Sent(NamedTuple):
    """The links that were used, none in a float32 run."""

    ups: list[Channel]
    downs: list[Channel]


def links(scheme: Scheme, layout: Layout) -> Sent:
    """New ones; workers have one each to the server, which sends the same packets to all."""
    if scheme.up is None or scheme.down is None:
        return Sent([], [])
    return Sent([Channel(layout, scheme.up) for _ in range(NUM_WORKERS)], [Channel(layout, scheme.down)])


def exchange(sent: Sent, vectors: Sequence[Tensor], step: int, learning_rate: float | None) -> Tensor:
    """What all workers get: the mean of their vectors, through the links if there are any."""
    if not sent.ups:
        return mean_of(vectors)
    pairs = zip(sent.ups, vectors, strict=True)
    arrived = mean_of([channel.send(vector, step, learning_rate) for channel, vector in pairs])
    return sent.downs[0].send(arrived, step, learning_rate)


def train(case: Case) -> Run:
    """One run, and its accuracy on all that is held out."""
    problem, scheme = PROBLEMS[case.problem], case.scheme
    float_steps = case.num_steps or problem.num_steps
    num_steps = scheme.stretch * float_steps
    task = load_task(problem.task)
    network = make_network(problem.network, task, case.seed, problem.width)
    layout = layout_of(network)
    seeds = range(NUM_WORKERS * case.seed, NUM_WORKERS * (case.seed + 1))
    loaders = [Batches(task.train, problem.batch_size, num_steps, seed) for seed in seeds]
    train_as = train_with_local_steps if scheme.local_steps > 1 else train_in_step
    weights, sent = train_as(problem, network, layout, loaders, num_steps, scheme)
    set_weights(network, weights, layout)
    found = evaluate(network, held_out(task))
    run = Run(case.problem, case.seed, scheme.arm, layout.size, num_steps, 100 * found.accuracy, found.loss)
    if sent.ups:
        return with_costs(run, sent, float_steps)
    ratio = float_steps / math.ceil(num_steps / scheme.local_steps)
    return replace(run, up_ratio=ratio, down_ratio=ratio, ratio=ratio)


def held_out(task: TaskData) -> Split:
    """All samples that are not trained on: the more, the less noise in a difference of accuracies."""
    parts = (task.verify, task.tune, task.test)
    return Split(torch.cat([part.inputs for part in parts]), torch.cat([part.labels for part in parts]))


def train_in_step(
    problem: Problem,
    network: torch.nn.Module,
    layout: Layout,
    loaders: Sequence[Batches],
    num_steps: int,
    scheme: Scheme,
) -> tuple[Tensor, Sent]:
    """Every step, workers send gradients and the server their mean; one optimiser serves all.

    Returns:
        The weights at the end, and the links used.
    """
    weights = torch.nn.Parameter(flatten(trainable_parameters(network), layout).detach().clone())
    optimizer = fused(make_optimizer(problem.optimizer, [weights], problem.learning_rate))
    schedule = make_schedule(problem.schedule, optimizer, num_steps)
    sent = links(scheme, layout)
    for step in range(num_steps):
        gradients = gradients_of(network, layout, weights.detach(), [loader[step] for loader in loaders])
        rate = float(optimizer.param_groups[0]["lr"]) if scheme.rescale else None
        weights.grad = exchange(sent, list(gradients), step, rate).clone()
        optimizer.step()
        schedule.step()
    return weights.detach(), sent


def train_with_local_steps(
    problem: Problem,
    network: torch.nn.Module,
    layout: Layout,
    loaders: Sequence[Batches],
    num_steps: int,
    scheme: Scheme,
) -> tuple[Tensor, Sent]:
    """Workers take steps of their own, then send how far they came; the server steps with the mean.

    Each worker has its own optimiser state, which never travels: one optimiser whose every operation is by coordinate
    serves all. All workers begin each round at the same weights.

    Returns:
        The weights at the end, and the links used.
    """
    start = torch.nn.Parameter(flatten(trainable_parameters(network), layout).detach().clone())
    local = torch.nn.Parameter(start.detach().repeat(len(loaders), 1))
    optimizer = fused(make_optimizer(problem.optimizer, [local], scheme.rate_factor * problem.learning_rate))
    schedule = make_schedule(problem.schedule, optimizer, num_steps)
    sent = links(scheme, layout)
    outer = torch.optim.SGD(
        [start], scheme.outer_learning_rate, scheme.outer_momentum, nesterov=scheme.outer_momentum > 0
    )
    for step in range(num_steps):
        local.grad = gradients_of(network, layout, local.detach(), [loader[step] for loader in loaders])
        optimizer.step()
        schedule.step()
        if (step + 1) % scheme.local_steps == 0 or step + 1 == num_steps:
            start.grad = exchange(sent, list(start.detach() - local.detach()), step, None).clone()
            outer.step()
            local.data.copy_(start.detach())
    return start.detach(), sent


def with_costs(run: Run, sent: Sent, float_steps: int) -> Run:
    """The run with what its channels counted, against a float32 run of so many steps."""
    whole = FLOAT_BITS * run.size * float_steps
    up = sum(channel.num_bits for channel in sent.ups) / len(sent.ups)
    (down,) = sent.downs
    errors = [error for channel in sent.ups for error in channel.errors]
    return replace(
        run,
        up_ratio=whole / up,
        down_ratio=whole / down.num_bits,
        ratio=2 * whole / (up + down.num_bits),
        nmse_up=sum(errors) / len(errors),
        nmse_down=sum(down.errors) / len(down.errors),
    )


def config_from(text: str) -> dict[str, Any]:
    """A checked configuration, from JSON."""
    return CodecConfig.from_dict(json.loads(text)).to_dict()


def runs_before(path: Path | None, scheme: Scheme) -> list[Run]:
    """The runs that a file holds already.

    Raises:
        ValueError: if they are of another scheme.
    """
    if path is None or not path.exists():
        return []
    found = json.loads(path.read_text())
    if found["scheme"] != json.loads(json.dumps(scheme._asdict())):
        raise ValueError(f"{path} holds runs of another scheme, {found['scheme']}. Give another file.")
    return [Run(**run) for run in found["runs"]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of compressed data-parallel training, paired with float32.")
    parser.add_argument("--up", default='{"nmse": 0.5}', type=config_from, help="CodecConfig of the workers, as JSON")
    parser.add_argument("--down", default='{"nmse": 0.5}', type=config_from, help="CodecConfig of the server, as JSON")
    parser.add_argument("--rescale", action="store_true", help="what is owed follows the learning rate")
    parser.add_argument("--local-steps", type=int, default=1, help="optimiser steps of a worker between two packets")
    parser.add_argument("--outer-learning-rate", type=float, default=1.0, help="of the server, with local steps")
    parser.add_argument("--outer-momentum", type=float, default=0.0, help="of the server, with local steps")
    parser.add_argument("--rate-factor", type=float, default=1.0, help="of learning rates, with local steps")
    parser.add_argument("--stretch", type=int, default=1, help="times as many steps as float32")
    parser.add_argument("--no-control", action="store_true", help="leave out the arm of local steps in float32")
    parser.add_argument("--longer", action="store_true", help="add the arm of as many steps in float32")
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), default=DEFAULT_PROBLEMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5), help="none of them tuned anything")
    parser.add_argument("--steps", type=int, default=0, help="instead of each problem's own number")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--json", type=Path, help="file for all runs; those in it already are not done again")
    parser.add_argument("--text", type=Path, help="file for the table, which is printed anyway")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    local = Scheme(
        local_steps=arguments.local_steps,
        outer_learning_rate=arguments.outer_learning_rate,
        outer_momentum=arguments.outer_momentum,
        rate_factor=arguments.rate_factor,
        stretch=arguments.stretch,
    )
    controls = [local] if local.local_steps > 1 and not arguments.no_control else []
    controls += [Scheme(stretch=arguments.stretch)] if arguments.longer and arguments.stretch > 1 else []
    scheme = local._replace(up=arguments.up, down=arguments.down, rescale=arguments.rescale)
    cases = [
        Case(problem, seed, arguments.steps, choice)
        for problem in arguments.problems
        for seed in arguments.seeds
        for choice in (Scheme(), scheme, *controls)
    ]
    about = provenance()
    runs = runs_before(arguments.json, scheme)
    done = {(run.problem, run.seed, run.arm) for run in runs}
    cases = [case for case in cases if (case.problem, case.seed, case.scheme.arm) not in done]
    for number, run in enumerate(spread(train, cases, arguments.jobs), start=1):
        runs.append(run)
        write({**about, "scheme": scheme._asdict(), "runs": [asdict(run) for run in runs]}, arguments.json)
        which = f"{run.problem} seed {run.seed} {run.arm}"
        print(f"{number}/{len(cases)} {which}: {run.accuracy:.2f} % at 1/{run.ratio:.1f}", flush=True)
    report([f"{scheme}", "", *table_text(runs)], about, arguments.text)


if __name__ == "__main__":
    main()

"""Is extrapolation from Adam's moments a catastrophe, or was it their storage in half precision?

Leap+Verify (McEntire 2026, arXiv 2602.19580) found that K steps taken with frozen moments raise the loss by factors of
100 to 10,000. Its code stores the second moment as float16, where values up to 2.98e-8 become zero, and does
not correct the moments' bias. Here small networks train like its language models (AdamW, decay 0.01, gradients clipped
to norm 1), and at some checkpoints the same jump is made four ways:

* `fp32`: float32 moments, bias-corrected: `optimizer_moments`;
* `half`: the second moment through float16 and back, bias-corrected;
* `raw`: float32 moments without bias correction;
* `both`: the second moment through float16, and without bias correction, as published.

`moved` is the length of the jump over that of `fp32`, `loss` the held-out loss after the jump over the one before it,
and `true` that of really training K steps on. `zeros` is the share of the non-zero second moments that float16 makes
zero; of those at least 1 - 1 / (2.98e-8 P) must be where P parameters share a clipped gradient, a bound that says
nothing below 34 million parameters. So `tiny` gradients are added: the same loss times 1e-3, which Adam does not notice
but for its eps, and which makes second moments a million times smaller, as they are in large networks.

Run: `DEADRECKON_DATA=... python benchmarks/momentum_catastrophe.py`; it writes `momentum_catastrophe.txt`.
"""

import copy
import datetime
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deadreckon.experiments.tasks import TaskData, load_task, make_network, train_loader
from deadreckon.forecast import Moments, Window, layout_of, pack, read_moments, unpack
from deadreckon.models import OptimizerMoments
from deadreckon.models.threads import one_thread

SETTINGS = (("digits", "mlp"), ("fashion_mnist", "mlp"), ("fashion_mnist", "conv"))
CASES = ((1.0, 5e-5), (1.0, 1e-3), (1e-3, 5e-5))  # factor of the loss, learning rate
CHECKPOINTS = (20, 100, 300)
HORIZONS = (5, 25, 100)
BATCH_SIZE, SEED, HELD_OUT = 32, 0, 1000
VARIANTS = ("fp32", "half", "raw", "both")
WITHOUT_CORRECTION = 10**9  # updates after which 1 - beta^t is 1


def variants(moments: Moments) -> dict[str, Moments]:
    """The moments as the four ways of storing and correcting them have them."""
    half = replace(moments, exp_avg_sq=moments.exp_avg_sq.half().float())
    return {
        "fp32": moments,
        "half": half,
        "raw": replace(moments, num_updates=WITHOUT_CORRECTION),
        "both": replace(half, num_updates=WITHOUT_CORRECTION),
    }


@torch.no_grad()
def held_out_loss(network: nn.Module, task: TaskData) -> float:
    logits = network(task.verify.inputs[:HELD_OUT])
    return float(functional.cross_entropy(logits, task.verify.labels[:HELD_OUT]))


def loss_at(network: nn.Module, task: TaskData, vector: Tensor) -> float:
    """The held-out loss of other weights; infinite where it is no number."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for name, value in unpack(vector, layout_of(network)).items():
            other.get_parameter(name).copy_(value)
    loss = held_out_loss(other, task)
    return loss if math.isfinite(loss) else math.inf


def update(network: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], factor: float) -> None:
    """One optimiser step on `factor` times the loss, its gradient clipped to norm `factor`."""
    inputs, labels = batch
    optimizer.zero_grad()
    (functional.cross_entropy(network(inputs), labels) * factor).backward()
    nn.utils.clip_grad_norm_(network.parameters(), factor)
    optimizer.step()


class Jump(NamedTuple):
    """One jump, made in all ways."""

    step: int
    horizon: int
    zeros: float
    moved: dict[str, float]
    losses: dict[str, float]


def jumps_at(network: nn.Module, task: TaskData, moments: Moments, step: int) -> list[Jump]:
    """The jumps of all horizons from one checkpoint; the network stays where it is."""
    vector, layout = pack(network)
    vector = vector.detach()
    zeros = float((moments.exp_avg_sq.half() == 0)[moments.exp_avg_sq > 0].float().mean())
    found: list[Jump] = []
    for horizon in HORIZONS:
        moved: dict[str, float] = {}
        losses: dict[str, float] = {}
        for variant, some in variants(moments).items():
            window = Window(vector.unsqueeze(0), torch.tensor([step]), layout, moments=some)
            (forecast,) = OptimizerMoments().forecast(window, [horizon])
            moved[variant] = float((forecast.mean - vector).norm())
            losses[variant] = loss_at(network, task, forecast.mean)
        found.append(Jump(step, horizon, zeros, moved, losses))
    return found


def lines_of(task: TaskData, name: str, rate: float, factor: float) -> Iterator[str]:
    """Train one network and report at each checkpoint and horizon."""
    network = make_network(name, task, SEED)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    layout = layout_of(network)
    jumps: list[Jump] = []
    real: dict[int, float] = {}
    last = CHECKPOINTS[-1] + HORIZONS[-1]
    for step, batch in enumerate(train_loader(task, BATCH_SIZE, last, SEED), start=1):
        update(network, optimizer, batch, factor)
        if step in CHECKPOINTS:
            real[step] = held_out_loss(network, task)
            jumps += jumps_at(network, task, read_moments(optimizer, network, layout), step)
        elif any(step == checkpoint + horizon for checkpoint in CHECKPOINTS for horizon in HORIZONS):
            real[step] = held_out_loss(network, task)
    for jump in jumps:
        before = real[jump.step]
        ratios = " ".join(f"{jump.moved[variant] / jump.moved['fp32']:9.3g}" for variant in VARIANTS[1:])
        after = " ".join(f"{jump.losses[variant] / before:9.4g}" for variant in VARIANTS)
        scale = "plain" if factor == 1 else "tiny"
        yield (
            f"{task.name:13s} {name:4s} {scale:5s} {rate:7.0e} {jump.step:4d} {jump.horizon:4d} {before:7.3f} "
            f"{jump.zeros:6.3f} {ratios}  {after} {real[jump.step + jump.horizon] / before:7.3f}"
        )


def main() -> None:
    begin = time.perf_counter()
    lines = [
        f"{datetime.date.today()}, torch {torch.__version__}, one thread. AdamW, decay 0.01, batches of {BATCH_SIZE}, "
        f"clipping at 1, seed {SEED}; held-out loss on {HELD_OUT} samples.",
        f"{'':60s}{'moved, of fp32':29s}  {'loss after / before':39s} {'':7s}",
        f"{'task':13s} {'net':4s} {'loss':5s} {'rate':>7s} {'step':>4s} {'K':>4s} {'before':>7s} {'zeros':>6s} "
        + " ".join(f"{variant:>9s}" for variant in VARIANTS[1:])
        + "  "
        + " ".join(f"{variant:>9s}" for variant in VARIANTS)
        + f" {'true':>7s}",
    ]
    print("\n".join(lines))
    with one_thread():
        for task_name, network in SETTINGS:
            task = load_task(task_name)
            for factor, rate in CASES:
                for line in lines_of(task, network, rate, factor):
                    print(line, flush=True)
                    lines.append(line)
    Path(__file__).with_suffix(".txt").write_text("\n".join(lines) + "\n")
    print(f"{time.perf_counter() - begin:.0f} seconds")


if __name__ == "__main__":
    main()

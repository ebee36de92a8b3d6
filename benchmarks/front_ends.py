"""Bits of each codec front-end on real gradients: two networks on Fashion-MNIST, two batch sizes, early and late.

Trains with Adam at 0.003, keeps the gradients of two stretches of the run, and replays them through encoder and
decoder. Bits are the length of packets; the ratio is to `none`, the same entropy-coded lattice without a prediction.
`cosine` is the mean cosine of neighbouring gradients, which is what any prediction lives on.

Run: `DEADRECKON_DATA=... python benchmarks/front_ends.py`
"""

import itertools
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from deadreckon.codec import Codec, CodecConfig
from deadreckon.experiments.tasks import load_task
from deadreckon.experiments.training import make_classifier, train
from deadreckon.forecast import Layout, flatten, layout_of, trainable_parameters
from deadreckon.models.threads import one_thread

PREDICTORS = ("none", "previous", "momentum_norm", "momentum_projected", "fitted", "linear")
ERRORS = (0.5, 0.1, 0.01)
STRETCHES = {"early": range(5, 45), "late": range(400, 440)}


class Keep(pl.Callback):
    """Keeps the gradients of some steps."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = set(steps)
        self.gradients: dict[int, Tensor] = {}

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if trainer.global_step in self.steps:
            parameters = trainable_parameters(pl_module)
            named = {name: value.grad for name, value in parameters.items()}
            self.gradients[trainer.global_step] = flatten(named, layout_of(pl_module))


def bits(layout: Layout, config: CodecConfig, stretch: list[tuple[int, Tensor]]) -> float:
    """Bits a coordinate after ten packets of warming up, each packet decoded and its error checked."""
    codec = Codec(layout, config)
    encoder, decoder = codec.encoder(), codec.decoder()
    lengths: list[int] = []
    for step, vector in stretch:
        packet = encoder.encode(vector, step)
        error = float((decoder.decode(packet) - vector).double().square().sum())
        if error > config.nmse * float(vector.double().square().sum()) * (1 + 1e-9):
            raise AssertionError(f"NMSE {config.nmse} was not kept at step {step}")
        lengths.append(len(packet))
    return 8 * sum(lengths[10:]) / (len(lengths[10:]) * layout.size)


def main() -> None:
    task = load_task("fashion_mnist")
    names = " ".join(f"{name:>18s}" for name in PREDICTORS[1:])
    print(f"{'network':7s} {'batch':>5s} {'when':5s} {'cosine':>6s} {'NMSE':>5s} {'none (bits)':>11s} {names}")
    with one_thread():
        for network in ("mlp", "conv"):
            for batch_size in (32, 512):
                wanted = [step for stretch in STRETCHES.values() for step in stretch]
                keep = Keep(wanted)
                module = make_classifier(task, network, "adam", 0.003, "constant", max(wanted) + 1, 0)
                train(module, task, batch_size, max(wanted) + 1, 0, [keep])
                layout = layout_of(module)
                for when, steps in STRETCHES.items():
                    stretch: list[tuple[int, Any]] = [(step, keep.gradients[step]) for step in steps]
                    pairs = itertools.pairwise(stretch)
                    cosines = [float(torch.cosine_similarity(a, b, dim=0)) for (_, a), (_, b) in pairs]
                    cosine = sum(cosines) / len(cosines)
                    for nmse in ERRORS:
                        found = [bits(layout, CodecConfig(name, nmse=nmse), stretch) for name in PREDICTORS]
                        ratios = " ".join(f"{value / found[0]:18.3f}" for value in found[1:])
                        row = f"{network:7s} {batch_size:5d} {when:5s} {cosine:6.2f} {nmse:5.2f} {found[0]:11.3f}"
                        print(row, ratios, flush=True)


if __name__ == "__main__":
    main()

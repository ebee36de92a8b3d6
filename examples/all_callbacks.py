"""A plain Lightning module with all callbacks: record, forecast, jump, compress; and what each of them cost.

    python examples/all_callbacks.py --steps 400 --out runs/example

Copy the module's place, `probe`, and the callbacks; the rest is data that ship with the package.
"""

import argparse

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from deadreckon.callbacks import GradientCompression, OnlineForecaster, SkipAhead, TrajectoryRecorder
from deadreckon.codec import CodecConfig
from deadreckon.experiments.tasks import load_task
from deadreckon.forecast import Ledger

Batch = tuple[Tensor, Tensor]


class Digits(pl.LightningModule):
    """A small network; nothing in it knows of deadreckon."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        loss = functional.cross_entropy(self(images), labels)
        self.log("train/loss", loss)
        return loss

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.003)


def probe(module: nn.Module, batch: Batch) -> Tensor:
    """The loss of each held-out sample, by which a jump is judged; it must not change or log anything."""
    images, labels = batch
    return functional.cross_entropy(module(images), labels, reduction="none")


def main() -> None:
    """Train once with all callbacks, and print what they did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--out", default="runs/example")
    given = parser.parse_args()

    pl.seed_everything(0, verbose=False)
    task = load_task("digits")
    loader = DataLoader(TensorDataset(task.train.inputs, task.train.labels), batch_size=64, shuffle=True)
    held_out = [(task.verify.inputs, task.verify.labels)]  # neither trained on nor reported on

    recorder = TrajectoryRecorder(f"{given.out}/trajectory", every=10)  # rows of weights, every 10th step
    # `share=0.1` would limit it to a tenth of the run's time; without a limit, runs are repeatable.
    forecaster = OnlineForecaster(("linear", "learned_linear"), horizons=(10, 20), every=50, share=None)
    # A forecast needs rows since the last jump that was kept: jump too often, and there is nothing to forecast from.
    jumps = SkipAhead("linear", every=150, horizons=(10, 20), probe=probe, batches=held_out)
    codec = GradientCompression(CodecConfig("fitted", nmse=0.1))  # as over a link, on one process too

    trainer = pl.Trainer(
        max_steps=given.steps,
        accelerator="cpu",
        logger=CSVLogger(given.out, name="", version="csv"),  # or any other logger of Lightning's
        callbacks=[recorder, forecaster, jumps, codec],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Digits()
    trainer.fit(module, loader)

    module.eval()
    with torch.no_grad():
        accuracy = (module(task.test.inputs).argmax(dim=1) == task.test.labels).float().mean()
    print(f"accuracy on the test set: {accuracy:.3f}")
    for entry in forecaster.scores[-4:]:
        print(f"{entry.forecaster} at step {entry.step}: skill {entry.skill:+.2f}, {entry.horizon} steps ahead")
    for jump in jumps.jumps:
        print(f"step {jump.step}: {jump.outcome.value}")
    print(f"gradients took {codec.bits_per_coordinate:.2f} bits a coordinate instead of 32")
    costs = Ledger.merged([recorder.ledger, forecaster.ledger, jumps.ledger, codec.ledger])
    for name, cost in costs.to_dict().items():
        print(f"{name}: {cost['cpu_seconds']:.2f} CPU seconds")


if __name__ == "__main__":
    main()

"""Two processes train one network over gloo and send half a bit a coordinate instead of 32.

    python examples/ddp.py --steps 200

Lightning starts the second process itself, by running this file once more. On several machines, start it on each with
`MASTER_ADDR`, `MASTER_PORT` and `NODE_RANK` set, and `num_nodes` in the Trainer.
"""

import argparse

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from deadreckon.callbacks import GradientCompression
from deadreckon.codec import CodecConfig
from deadreckon.codec.distributed import ExchangeConfig
from deadreckon.experiments.tasks import load_task
from deadreckon.forecast import pack

# What a packet loses is added to the next gradient; `all_gather` suits up to about four processes.
HALF_A_BIT = CodecConfig.fast(bits=0.5, feedback="classic")


class Digits(pl.LightningModule):
    """A small network; nothing in it knows of deadreckon."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self.network(images), labels)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main() -> None:
    """Train; the first process prints what was sent, and whether both ended with the same weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args()

    pl.seed_everything(0, verbose=False)
    task = load_task("digits")
    loader = DataLoader(TensorDataset(task.train.inputs, task.train.labels), batch_size=64, shuffle=True)
    compression = GradientCompression(HALF_A_BIT, ExchangeConfig("all_gather"))
    trainer = pl.Trainer(
        max_steps=given.steps,
        accelerator="cpu",
        devices=2,
        strategy="ddp",  # Lightning gives each process its own part of the data
        callbacks=[compression],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Digits()
    trainer.fit(module, loader)

    weights, _ = pack(module)
    lowest, highest = (trainer.strategy.reduce(weights.clone(), reduce_op=name) for name in ("min", "max"))
    if trainer.is_global_zero:
        with torch.no_grad():
            accuracy = (module.network(task.test.inputs).argmax(dim=1) == task.test.labels).float().mean()
        print(f"accuracy on the test set: {accuracy:.3f}")
        print(f"{compression.bits_per_coordinate:.2f} bits a coordinate instead of 32")
        print(f"weights of both processes are equal: {torch.equal(lowest, highest)}")


if __name__ == "__main__":
    main()

"""Trains in forked processes and kills them; `test_recorder_crash.py` starts it. Arguments: folder, kills, seed.

The run `whole` goes to its end; the others get SIGKILL at a random moment after their first row.
"""

import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from deadreckon.callbacks import TrajectoryRecorder

STEPS = 150
STREAMS = ("weights", "gradients", "buffers")


class Net(pl.LightningModule):
    """Rows of half a megabyte, which the writing thread writes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(300, 400), nn.BatchNorm1d(400), nn.ReLU(), nn.Linear(400, 10))

    @override
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.network(batch).square().mean()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def train(folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(16, 300, generator=generator) for _ in range(STEPS)]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        callbacks=[TrajectoryRecorder(folder, 1, STREAMS)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Net(), DataLoader(batches, batch_size=None))  # pyright: ignore[reportArgumentType]


def start(folder: Path) -> int:
    child = os.fork()
    if child == 0:
        out = os.open(folder.with_suffix(".out"), os.O_CREAT | os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        try:
            train(folder)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    begin = time.perf_counter()
    _, status = os.waitpid(start(folder / "whole"), 0)
    assert status == 0, (folder / "whole.out").read_text()
    longest = time.perf_counter() - begin
    moments = random.Random(seed)
    for number in range(kills):
        path = folder / str(number)
        child = start(path)
        while not (path / "weights" / "c" / "0").exists():
            time.sleep(0.001)
            assert os.waitpid(child, os.WNOHANG) == (0, 0), path.with_suffix(".out").read_text()
        time.sleep(moments.uniform(0, 0.3 * longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(number, os.WIFSIGNALED(status), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

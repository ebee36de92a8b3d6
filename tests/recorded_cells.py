"""Trains small networks with and without a recorder, in one process or two; `test_support_matrix.py` starts it.

Arguments: a JSON list of cells, a folder. Prints one JSON line a cell. Lightning is imported once; each cell runs in
forked processes that find each other as those of a cluster would.
"""

import importlib
import json
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from typing_extensions import override

from deadreckon.callbacks import TrajectoryRecorder
from deadreckon.forecast import Trajectory

STEPS = 4
OPTIMIZERS = {
    "SGD": ("torch.optim", "SGD", {"lr": 0.05, "momentum": 0.9}),
    "Adam": ("torch.optim", "Adam", {"lr": 0.01}),
    "AdamW": ("torch.optim", "AdamW", {"lr": 0.01}),
    "Muon": ("torch.optim", "Muon", {"lr": 0.01}),
    "Adan": ("adan_pytorch", "Adan", {"lr": 0.001}),
    "AdamP": ("adamp", "AdamP", {"lr": 0.01}),
    "Schedule-Free": ("schedulefree", "AdamWScheduleFree", {"lr": 0.01}),
}


class Cell(pl.LightningModule):
    """A network of matrices only, which is what Muon takes."""

    def __init__(self, optimizer: str, compiled: bool, sharded: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.network = nn.Sequential(nn.Linear(8, 6, bias=False), nn.Tanh(), nn.Linear(6, 4, bias=False))
        self.choice, self.compiled, self.sharded = optimizer, compiled, sharded

    @override
    def configure_model(self) -> None:
        if self.sharded:
            from torch.distributed.fsdp import fully_shard

            assert self.device_mesh is not None
            fully_shard(self.network, mesh=self.device_mesh["data_parallel"])
        if self.compiled:
            self.network.compile(backend="aot_eager")

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        return (self.network(inputs.to(next(self.parameters()).dtype)) - targets).square().mean()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        home, name, options = OPTIMIZERS[self.choice]
        optimizer = getattr(importlib.import_module(home), name)(self.parameters(), **options)
        if self.choice == "Schedule-Free":
            optimizer.train()
        return optimizer


class Positioned:
    """Batches whose position is in checkpoints."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches, self.position = batches, 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        while self.position < len(self.batches):
            self.position += 1
            yield self.batches[self.position - 1]
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = int(state["position"])


def train(
    cell: dict[str, Any],
    rank: int,
    recorder: TrajectoryRecorder | None,
    steps: int = STEPS,
    saved: Path | None = None,
    checkpoint: Path | None = None,
) -> np.ndarray:
    """Train one cell and give its weights, whole."""
    world, sharded = cell["world"], cell["strategy"] == "model-parallel"
    module = Cell(cell["optimizer"], cell["compile"], sharded)
    options: dict[str, Any] = {"precision": cell["precision"]}
    if cell["precision"] == "16-mixed":
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        options = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
    if world > 1:
        kinds = {"ddp": DDPStrategy, "model-parallel": ModelParallelStrategy}
        options["strategy"] = kinds[cell["strategy"]](process_group_backend="gloo")
    generator = torch.Generator().manual_seed(rank)
    count = STEPS * cell["accumulate"]
    batches = [(torch.randn(16, 8, generator=generator), torch.randn(16, 4, generator=generator)) for _ in range(count)]
    callbacks: list[pl.Callback] = [] if recorder is None else [recorder]
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=world,
        max_steps=steps,
        use_distributed_sampler=False,
        callbacks=callbacks,
        accumulate_grad_batches=cell["accumulate"],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        **options,
    )
    trainer.fit(module, Positioned(batches), ckpt_path=checkpoint, weights_only=True)
    if saved is not None:
        trainer.save_checkpoint(saved)
    values = [value.full_tensor() if sharded else value for value in module.parameters()]  # pyright: ignore
    return torch.cat([value.detach().float().reshape(-1) for value in values]).numpy()


def compare(cell: dict[str, Any], rank: int, folder: Path) -> str:
    """What is wrong with a recorded run of a cell; empty if nothing."""
    plain = train(cell, rank, None)
    streams: tuple[Any, ...] = ("weights", "raw_gradients", "updates", "moments")
    if cell["optimizer"] != "Schedule-Free":
        streams += ("gradients",)
    recorded = train(cell, rank, TrajectoryRecorder(folder, 1, streams))
    if not np.array_equal(plain, recorded):
        return "the recorded run differs"
    if rank > 0:
        return ""
    with Trajectory.open(folder) as found:
        found.verify()
        weights, gradients = found.stream("weights"), found.stream("raw_gradients")
        if weights.steps.tolist() != list(range(STEPS + 1)):
            return f"rows at {weights.steps.tolist()}"
        if not np.array_equal(weights[-1], recorded):
            return "the last row is not the weights"
        if not np.allclose(weights[1:] - weights[:-1], found.stream("updates")[:], atol=1e-6):
            return "updates are not differences of weights"
        if not (np.abs(gradients[:]).max(axis=1) > 0).all() or not np.isfinite(gradients[:]).all():
            return "gradients are zero or not finite"
        if "gradients" in streams and not np.array_equal(gradients[:], found.stream("gradients")[:]):
            return "gradients that nothing clips differ from raw ones"
        moments = [name for name in found.streams if name not in streams]
        if not moments or not all(np.abs(found.stream(name)[-1]).max() > 0 for name in moments):
            return f"moments {moments} are zero"
    return ""


def ranks(cell: dict[str, Any], rank: int, folder: Path) -> str:
    """What is wrong with gradients of ranks and with what a rank finds again after a resume; empty if nothing."""
    streams: tuple[Any, ...] = ("weights", "gradients", "rank_gradients")
    straight = train(cell, rank, TrajectoryRecorder(folder / "straight", 1, streams))
    short = TrajectoryRecorder(folder / "t", 1, streams)
    train(cell, rank, short, steps=2, saved=folder / "last.ckpt")
    resumed = TrajectoryRecorder(folder / "t", 1, streams)
    if not np.array_equal(straight, train(cell, rank, resumed, checkpoint=folder / "last.ckpt")):
        return "the resumed run differs"
    before, after = short.ledger.activities["recording"], resumed.ledger.activities["recording"]
    if rank > 0:
        kept = json.loads((folder / "t" / ".ranks" / "1-2.json").read_text())["ledger"]["recording"]
        if not kept["count"] <= before.count < after.count or after.wall_seconds < kept["wall_seconds"]:
            return "a rank did not go on from its own ledger"
        return ""
    with Trajectory.open(folder / "t") as found, Trajectory.open(folder / "straight") as whole:
        own = np.stack([found.stream(f"gradients_of_rank_{each}")[:] for each in range(2)])
        if np.array_equal(own[0], own[1]) or not np.allclose(own.mean(axis=0), found.stream("gradients")[:], atol=1e-6):
            return "gradients are not the mean of different gradients of ranks"
        for name in found.streams:
            if not np.array_equal(found.stream(name)[:], whole.stream(name)[:]):
                return f"{name} of the resumed run differ"
        if found.scalars["samples"][-1] != 16 * 2 * STEPS * cell["accumulate"]:
            return f"{found.scalars['samples'][-1]} samples"
    return ""


def run(cell: dict[str, Any], folder: Path) -> str:
    """Run a cell in processes of its own; what is wrong, or empty."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    children: list[int] = []
    for rank in range(cell["world"]):
        child = os.fork()
        if child == 0:
            out = open(folder.with_suffix(f".{rank}"), "w")
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            if cell["world"] > 1:
                os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
                os.environ |= {"NODE_RANK": "0", "WORLD_SIZE": str(cell["world"])}
            try:
                wrong = ranks(cell, rank, folder) if cell.get("ranks") else compare(cell, rank, folder)
            except BaseException as error:
                traceback.print_exc()
                wrong = f"{type(error).__name__}: {str(error)[:300]}"
            folder.with_suffix(f".{rank}.json").write_text(json.dumps(wrong))
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    results = [json.loads(folder.with_suffix(f".{rank}.json").read_text()) for rank in range(cell["world"])]
    return next((wrong for wrong in results if wrong), "")


def main(cells: list[dict[str, Any]], folder: Path) -> None:
    """Run all cells, one after the other."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for number, cell in enumerate(cells):
        wrong = run(cell, folder / str(number))
        print(json.dumps({"cell": cell, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))

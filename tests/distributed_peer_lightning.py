"""One of two processes that train with Lightning under DDP. Arguments: rank, folder, parts. Writes rank<r>.json."""

import hashlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from typing_extensions import override

from deadreckon.callbacks import CompressedDDP, GradientCompression, LocalSteps, UnsupportedTrainerError
from deadreckon.codec import CodecConfig
from deadreckon.codec.distributed import ExchangeConfig
from deadreckon.experiments.tasks import Batches, Split
from deadreckon.forecast import pack

NUM_STEPS = 12
OWING = CodecConfig("fitted", "Z", nmse=0.5, feedback="classic")


class Small(pl.LightningModule):
    """A small network, and digests of its parameters after every step."""

    def __init__(self, optimizer: str = "sgd") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
        self.kind = optimizer
        self.digests: list[str] = []

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, labels = batch
        return nn.functional.cross_entropy(self.net(inputs), labels)

    @override
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.digests.append(hashlib.sha256(pack(self)[0].numpy().tobytes()).hexdigest())

    @override
    def configure_optimizers(self) -> Any:
        if self.kind == "adam":
            return torch.optim.Adam(self.parameters(), 0.01)
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


def loader(rank: int) -> Batches:
    """Batches that go on where a checkpoint was saved; others on each rank."""
    generator = torch.Generator().manual_seed(10 + rank)
    inputs = torch.randn(8 * NUM_STEPS, 20, generator=generator)
    return Batches(Split(inputs, inputs[:, :4].argmax(1)), 8, NUM_STEPS, rank)


def fit(
    rank: int, folder: Path, callback: GradientCompression | None, module: Small | None = None, **options: Any
) -> tuple[Small, pl.Trainer]:
    module = Small() if module is None else module
    checkpoint = options.pop("ckpt_path", None)
    callbacks: list[pl.Callback] = [callback] if callback is not None else []
    settings: dict[str, Any] = {
        "strategy": DDPStrategy(cluster_environment=Environment()),
        "max_steps": NUM_STEPS,
        "logger": False,
        "enable_checkpointing": False,
    }
    settings |= options
    callbacks += settings.pop("callbacks", [])
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        **settings,
    )
    trainer.fit(module, loader(rank), ckpt_path=checkpoint)
    return module, trainer


class Environment(LightningEnvironment):
    """The two processes are there already."""

    @property
    @override
    def creates_processes_externally(self) -> bool:
        return True


def trains(rank: int, folder: Path) -> dict:
    """A run with a checkpoint in the middle, the same resumed, and the logged figures."""
    callback = GradientCompression(OWING, ExchangeConfig("sharded", check_every=4))
    saver = ModelCheckpoint(folder / "saved", every_n_train_steps=5, save_top_k=-1, filename="{step}")
    logger = CSVLogger(folder / f"log{rank}")
    straight, trainer = fit(
        rank, folder, callback, callbacks=[saver], enable_checkpointing=True, logger=logger, log_every_n_steps=4
    )
    assert callback.hook is not None
    again = GradientCompression(OWING, ExchangeConfig("sharded", check_every=4))
    resumed, _ = fit(rank, folder, again, Small(), ckpt_path=str(folder / "saved" / "step=5.ckpt"))
    assert again.hook is not None
    other = GradientCompression(OWING, ExchangeConfig("all_gather"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(rank, folder, other, Small(), ckpt_path=str(folder / "saved" / "step=5.ckpt"), max_steps=6)
    return {
        "digests": straight.digests,
        "resumed": resumed.digests,
        "bytes": [callback.hook.traffic.sent_bytes, again.hook.traffic.sent_bytes],
        "packets": [callback.num_packets, again.num_packets],
        "bits": callback.bits_per_coordinate,
        "nmse": callback.nmse,
        "in_progress_bar": float(trainer.progress_bar_metrics.get("compression", 0.0)),
        "told": callback.choice.text("sharded") if callback.choice else "",
        "warned": [str(one.message) for one in caught if "codec's state was saved" in str(one.message)],
        "activities": sorted(callback.ledger.activities),
    }


def raw_equals_plain(rank: int, folder: Path) -> dict:
    """The raw codec, from the strategy, against plain DDP, with accumulation and clipping."""
    found = []
    for strategy in (
        DDPStrategy(cluster_environment=Environment()),
        CompressedDDP(CodecConfig("none", lattice="raw"), cluster_environment=Environment()),
    ):
        module, trainer = fit(
            rank,
            folder,
            None,
            strategy=strategy,
            accumulate_grad_batches=3,
            gradient_clip_val=0.05,
            max_steps=4,
        )
        found.append(module.digests)
    callbacks = [one for one in trainer.callbacks if isinstance(one, GradientCompression)]  # pyright: ignore
    return {"raw_equals_plain": found[0] == found[1], "steps_of_12_batches": callbacks[0].num_packets}


def half(rank: int, folder: Path) -> dict:
    """In bfloat16, both ways, and with Adam."""
    found = []
    for precision in ("bf16-mixed", "bf16-true"):
        module = Small("adam")
        fit(rank, folder, GradientCompression(OWING), module, precision=precision, max_steps=3)
        found.append(module.digests)
    return {"half": found}


def local(rank: int, folder: Path) -> dict:
    """Rounds of four local steps, ten steps in all, saved within the second round."""
    ends, found = [], []
    for checkpoint in (None, str(folder / "local" / "step=6.ckpt")):
        saver = ModelCheckpoint(folder / "local", every_n_train_steps=6, save_top_k=-1, filename="{step}")
        module, steps = Small("adam"), LocalSteps(4, OWING)
        fit(
            rank,
            folder,
            None,
            module,
            callbacks=[steps, saver],
            enable_checkpointing=True,
            max_steps=10,
            ckpt_path=checkpoint,
        )
        assert steps.rounds is not None
        ends.append((hashlib.sha256(pack(module)[0].numpy().tobytes()).hexdigest(), steps.rounds.num_rounds))
        found.append(module.digests)
    return {
        "local": found[0],
        "local_resumed": found[1],
        "local_end": ends[0][0],
        "local_resumed_end": ends[1][0],
        "local_rounds": ends[0][1],
    }


def refused(rank: int, folder: Path) -> dict:
    """What Lightning settings are refused."""
    messages = []
    hooked = DDPStrategy(cluster_environment=Environment(), ddp_comm_hook=print)
    wrong: list[dict[str, Any]] = [{"precision": "64-true"}, {"strategy": hooked}]
    for options in wrong:
        try:
            fit(rank, folder, GradientCompression(), **options)
        except UnsupportedTrainerError as error:
            messages.append(str(error))
    return {"refused": messages}


PARTS = {"all": (trains, raw_equals_plain, half, local, refused)}


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    os.environ |= {
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": sys.argv[4],
        "NODE_RANK": "0",
    }
    result: dict = {}
    for part in PARTS[sys.argv[3]]:
        result |= part(rank, folder)
        (folder / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

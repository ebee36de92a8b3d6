"""Small real training runs for the tests of the callbacks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from deadreckon.experiments.tasks import Batches, load_task
from deadreckon.experiments.training import quiet_lightning
from deadreckon.forecast import Forecast, Forecaster, Window, pack

NUM_STEPS = 60


class Digits(pl.LightningModule):
    """Digits by a small network with dropout and batch norm, so that random states and buffers matter."""

    def __init__(self, optimizer: str = "adam", dropout: float = 0.2) -> None:
        super().__init__()
        # A generator of its own would do, but dropout draws from the global one in any case.
        torch.manual_seed(1)
        self.network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, 10)
        )
        self.optimizer = optimizer

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return functional.cross_entropy(self(images), labels)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.optimizer == "sgd":
            return torch.optim.SGD(self.parameters(), lr=0.1)
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Crash(pl.Callback):
    """Ends the run as a failure would, after an optimiser step."""

    def __init__(self, step: int) -> None:
        self.step = step

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


class Away(Forecaster):
    """Forecasts weights far from anything sensible, so that every jump is rejected."""

    name = "away"

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            yield Forecast(horizon, window.last + 5.0, torch.zeros_like(window.last))


def probe(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Held-out losses; draws from the global generator, which a jump must put back."""
    torch.rand(1)
    images, labels = batch
    return functional.cross_entropy(module(images), labels, reduction="none")


def held_out() -> list[tuple[Tensor, Tensor]]:
    """Batches for the probe."""
    task = load_task("digits")
    return [(task.verify.inputs, task.verify.labels)]


def fit(
    callbacks: Sequence[pl.Callback],
    module: pl.LightningModule | None = None,
    num_steps: int = NUM_STEPS,
    checkpoint: Path | None = None,
    **trainer_options: Any,
) -> pl.LightningModule:
    """Train on the digits and give the module; the same callbacks and options give the same weights."""
    module = module if module is not None else Digits()
    torch.manual_seed(2)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, **trainer_options}
    accumulated = options.get("accumulate_grad_batches", 1)
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="cpu",
            max_steps=num_steps,
            callbacks=list(callbacks),
            enable_model_summary=False,
            enable_progress_bar=False,
            **options,
        )
        loader = Batches(load_task("digits").train, 32, NUM_STEPS * accumulated, seed=0)
        trainer.fit(module, loader, ckpt_path=str(checkpoint) if checkpoint else None, weights_only=True)
    return module


def weights(module: nn.Module) -> Tensor:
    """All trainable weights, `[param]`."""
    return pack(module)[0]

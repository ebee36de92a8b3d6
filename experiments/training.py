"""One training run of an experiment, under Lightning's Trainer."""

import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import lightning.pytorch as pl
from typing_extensions import override

from ..forecast import Ledger
from .classifier import Classifier
from .progress import TrainingProgress
from .run_logger import RunLogger
from .tasks import TaskData, make_network, train_loader


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence what Lightning says about hardware and loaders; its errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Ledgered(Protocol):
    """Whatever keeps an account of what it costs."""

    ledger: Ledger


class TrainingClock(pl.Callback):
    """CPU seconds of training alone: what other callbacks charge to their ledgers meanwhile is taken off.

    All threads of the process count. It must be the first callback of its Trainer.

    Args:
        others: the callbacks whose charges are taken off.

    Attributes:
        seconds_per_step: CPU seconds of one optimiser step, the mean from the start of training to its end; NaN before.
    """

    def __init__(self, others: Sequence[Ledgered]) -> None:
        self.seconds_per_step = math.nan
        self._others = others
        self._began = 0.0
        self._first_step = 0

    def _now(self) -> float:
        return time.process_time() - sum(item.ledger.total.cpu_seconds for item in self._others)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began, self._first_step = self._now(), trainer.global_step

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        num_steps = trainer.global_step - self._first_step
        if num_steps:
            self.seconds_per_step = (self._now() - self._began) / num_steps


def make_classifier(
    task: TaskData,
    network: str,
    optimizer: str,
    learning_rate: float,
    schedule: str,
    num_steps: int,
    seed: int,
    width: float = 1.0,
) -> Classifier:
    """A fresh network in its LightningModule."""
    return Classifier(make_network(network, task, seed, width), optimizer, learning_rate, schedule, num_steps)


def train(
    module: pl.LightningModule,
    task: TaskData,
    batch_size: int,
    num_steps: int,
    seed: int,
    callbacks: Sequence[pl.Callback],
    logger: RunLogger = False,
    progress: bool = False,
) -> None:
    """Train for a number of optimiser steps on the CPU, on batches that depend on the seed and the step only."""
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=num_steps,
            callbacks=[*callbacks, TrainingProgress(num_steps)] if progress else list(callbacks),
            logger=logger,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            log_every_n_steps=10,
        )
        trainer.fit(module, train_loader(task, batch_size, num_steps, seed))

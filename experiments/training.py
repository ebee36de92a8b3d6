"""One training run of an experiment, under Lightning's Trainer."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lightning.pytorch as pl

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


def make_classifier(
    task: TaskData, network: str, optimizer: str, learning_rate: float, schedule: str, num_steps: int, seed: int
) -> Classifier:
    """A fresh network in its LightningModule."""
    return Classifier(make_network(network, task, seed), optimizer, learning_rate, schedule, num_steps)


def train(
    module: Classifier,
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

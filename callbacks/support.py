"""Which Trainer settings the callbacks support."""

from collections.abc import Mapping
from typing import TypeVar

import lightning.pytorch as pl
import torch
from torch import Tensor

from ..forecast import Layout
from .errors import UnsupportedTrainerError

_Callback = TypeVar("_Callback", bound=pl.Callback)


def require_single_process(trainer: pl.Trainer, who: str) -> None:
    """Refuse more than one process.

    Raises:
        UnsupportedTrainerError: naming the strategy.
    """
    if trainer.world_size != 1:
        raise UnsupportedTrainerError(
            f"{who} runs in one process; this Trainer has {trainer.world_size} "
            f"({type(trainer.strategy).__name__}). Use `devices=1`."
        )


def require_plain_training(trainer: pl.Trainer, module: pl.LightningModule, who: str) -> None:
    """Refuse everything but 32-bit training with automatic optimisation and no accumulation, in one process.

    Raises:
        UnsupportedTrainerError: naming the setting and the value found.
    """
    require_single_process(trainer, who)
    if trainer.precision != "32-true":
        raise UnsupportedTrainerError(
            f"{who} supports precision '32-true', got {trainer.precision!r}. Train in 32 bit or leave the callback out."
        )
    if not module.automatic_optimization:
        raise UnsupportedTrainerError(f"{who} supports automatic optimisation only; this module optimises manually.")
    if trainer.accumulate_grad_batches != 1:
        raise UnsupportedTrainerError(
            f"{who} supports `accumulate_grad_batches=1`, got {trainer.accumulate_grad_batches}."
        )


def sole_optimizer(trainer: pl.Trainer, who: str) -> torch.optim.Optimizer:
    """The Trainer's one optimiser.

    Raises:
        UnsupportedTrainerError: if there are several, or one with a closure that runs more than once (LBFGS).
    """
    if len(trainer.optimizers) != 1:
        raise UnsupportedTrainerError(f"{who} supports one optimiser, got {len(trainer.optimizers)}.")
    optimizer = trainer.optimizers[0]
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UnsupportedTrainerError(f"{who} does not support LBFGS, whose step evaluates the gradient many times.")
    return optimizer


def require_unchanged(parameters: Mapping[str, Tensor], layout: Layout, who: str) -> None:
    """Refuse a module whose set of trainable parameters is not what it was when the run began.

    Raises:
        UnsupportedTrainerError: naming a parameter that was frozen or unfrozen.
    """
    changed = sorted(set(parameters) ^ set(layout.names))
    if changed:
        raise UnsupportedTrainerError(
            f"{who} needs the same trainable parameters throughout a run; {changed[0]!r} was frozen or unfrozen "
            "since it began. Freeze before `fit`, in the module's constructor or `configure_model`."
        )


def find_callback(trainer: pl.Trainer, kind: type[_Callback]) -> _Callback | None:
    """The Trainer's callback of a class, if it has one."""
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, kind):
            return callback
    return None

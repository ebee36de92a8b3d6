"""Which Trainer settings the callbacks support."""

from collections.abc import Mapping
from typing import TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

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


RANK_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-mixed")


def require_ddp_training(trainer: pl.Trainer, module: pl.LightningModule, who: str) -> DDPStrategy:
    """The strategy, if a hook of its DistributedDataParallel may carry the gradients.

    Raises:
        UnsupportedTrainerError: naming the setting and the value found.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        raise UnsupportedTrainerError(
            f"{who} runs in one process, or in several under DDP; this Trainer's strategy is "
            f"{type(strategy).__name__}. Use `strategy='ddp'`."
        )
    if trainer.precision not in RANK_PRECISIONS:
        raise UnsupportedTrainerError(
            f"{who} under DDP supports precision {', '.join(RANK_PRECISIONS)}, got {trainer.precision!r}."
        )
    if not module.automatic_optimization:
        raise UnsupportedTrainerError(f"{who} supports automatic optimisation only; this module optimises manually.")
    if strategy._ddp_comm_hook is not None or strategy._model_averaging_period is not None:
        raise UnsupportedTrainerError(
            f"{who} registers a communication hook, and DDP takes one only: leave `ddp_comm_hook` and "
            "`model_averaging_period` out of the strategy."
        )
    return strategy


def wrapped_model(strategy: DDPStrategy, who: str) -> DistributedDataParallel:
    """The strategy's model, once it is wrapped.

    Raises:
        UnsupportedTrainerError: if something other than DistributedDataParallel wraps it.
    """
    model = strategy.model
    if not isinstance(model, DistributedDataParallel):
        raise UnsupportedTrainerError(
            f"{who} needs the model inside DistributedDataParallel, it is a {type(model).__name__}. Compile "
            "submodules rather than the LightningModule."
        )
    return model


def plain_learning_rate(optimizer: torch.optim.Optimizer) -> float | None:
    """The rate that steps are proportional to; `None` where they are not, or parameters differ in it."""
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    return rates.pop() if isinstance(optimizer, torch.optim.SGD) and len(rates) == 1 else None


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

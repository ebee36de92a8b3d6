"""Which Trainer settings the recorder supports, and what it reads of them."""

import sys

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch import Tensor

from .errors import UnsupportedTrainerError


def require_recordable(trainer: pl.Trainer, who: str) -> None:
    """Refuse strategies whose parameters cannot be read whole, and optimisers whose steps are not single updates.

    Raises:
        UnsupportedTrainerError: naming the strategy or the optimiser.
    """
    strategy = trainer.strategy
    known = isinstance(strategy, SingleDeviceStrategy | DDPStrategy | ModelParallelStrategy)
    if not known or isinstance(strategy, DeepSpeedStrategy):
        raise UnsupportedTrainerError(
            f"{who} supports one device, DDPStrategy and ModelParallelStrategy, got {type(strategy).__name__}. "
            "Use one of these or leave the callback out."
        )
    for optimizer in trainer.optimizers:
        if isinstance(optimizer, torch.optim.LBFGS):
            raise UnsupportedTrainerError(
                f"{who} does not support LBFGS, whose step evaluates the gradient many times."
            )


def whole(value: Tensor) -> Tensor:
    """A tensor with all its shards, if it is one that is sharded between processes; a collective then."""
    module = sys.modules.get("torch.distributed.tensor")  # whoever has such a tensor has imported it
    if module is not None and isinstance(value, module.DTensor):
        return value.full_tensor()  # pyright: ignore[reportAttributeAccessIssue]
    return value


def require_unscaled(trainer: pl.Trainer, streams: tuple[str, ...], who: str) -> None:
    """Refuse optimisers that undo the loss' scale inside their step, where nobody sees the gradients that they use.

    Raises:
        UnsupportedTrainerError: naming the optimiser.
    """
    if loss_scale(trainer) == 1.0:
        return
    for optimizer in trainer.optimizers:
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            raise UnsupportedTrainerError(
                f"{who} cannot record {streams} with a gradient scaler and {type(optimizer).__name__}(fused=True), "
                "which unscales inside its step. Use an optimiser that is not fused."
            )


def loss_scale(trainer: pl.Trainer) -> float:
    """What the loss is multiplied by before the backward pass; 1 without a gradient scaler."""
    plugin = trainer.precision_plugin
    scaler = plugin.scaler if isinstance(plugin, MixedPrecision) else None
    return float(scaler.get_scale()) if scaler is not None else 1.0

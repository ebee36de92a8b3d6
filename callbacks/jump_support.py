"""Which Trainer settings SkipAhead supports, and what it takes from the Trainer."""

import copy
from collections.abc import Sequence
from typing import Any, final

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.types import LRSchedulerConfig

from ..forecast import Forecaster, has_moments
from ..forecast.jump import Agreement, Alone, Together
from .errors import UnsupportedTrainerError

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true")


def require_jumpable(trainer: pl.Trainer, who: str) -> None:
    """Refuse precisions and strategies under which a jump has not been tried.

    Raises:
        UnsupportedTrainerError: naming the setting and the value found.
    """
    if trainer.precision not in PRECISIONS:
        raise UnsupportedTrainerError(
            f"{who} supports precision {', '.join(map(repr, PRECISIONS))}, got {trainer.precision!r}. "
            "Train in one of them or leave the callback out."
        )
    # By class and not by subclass: sharded strategies are built upon these.
    if type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
        raise UnsupportedTrainerError(
            f"{who} supports one process, or several with DDPStrategy; this Trainer has "
            f"{type(trainer.strategy).__name__}."
        )


def require_optimizers(
    trainer: pl.Trainer, forecasters: Sequence[Forecaster], who: str
) -> tuple[torch.optim.Optimizer, ...]:
    """The Trainer's optimisers.

    Raises:
        UnsupportedTrainerError: if there is none, one is LBFGS, or a forecaster needs moments that cannot be read.
    """
    optimizers: tuple[torch.optim.Optimizer, ...] = tuple(trainer.optimizers)
    if len(optimizers) < 1:
        raise UnsupportedTrainerError(f"{who} needs an optimiser; `configure_optimizers` gives none.")
    if any(isinstance(optimizer, torch.optim.LBFGS) for optimizer in optimizers):
        raise UnsupportedTrainerError(f"{who} does not support LBFGS, whose step evaluates the gradient many times.")
    for forecaster in forecasters:
        if forecaster.needs_moments and (len(optimizers) > 1 or not has_moments(optimizers[0])):
            names = ", ".join(type(optimizer).__name__ for optimizer in optimizers)
            raise UnsupportedTrainerError(
                f"{forecaster.name!r} needs torch's Adam or AdamW with the same betas, eps and weight decay in all "
                f"groups, got {names}."
            )
    return optimizers


def agreement_of(trainer: pl.Trainer) -> Agreement:
    """How the Trainer's processes agree."""
    return Together() if trainer.world_size > 1 else Alone()


def is_compiled(module: pl.LightningModule) -> bool:
    """Whether `torch.compile` made the module or a part of it."""
    return module._compiler_ctx is not None or any(
        isinstance(part, torch._dynamo.OptimizedModule) for part in module.modules()
    )


def prepared(trainer: pl.Trainer, module: pl.LightningModule, batch: Any) -> Any:
    """A batch in the Trainer's precision and on the module's device; hooks for batches of training are not called."""
    return move_data_to_device(trainer.precision_plugin.convert_input(batch), module.device)


@final
class Schedules:
    """The learning-rate schedules that go by the optimiser step, to bring along with a jump.

    Its state can be put back, so that it may take part in a transaction.

    Args:
        configs: all schedules of the Trainer; those that go by the epoch or by a metric are left alone.
    """

    def __init__(self, configs: Sequence[LRSchedulerConfig]) -> None:
        self._schedulers = [
            config.scheduler
            for config in configs
            if config.interval == "step"
            and not isinstance(config.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        ]

    def __len__(self) -> int:
        return len(self._schedulers)

    def advance(self, num_steps: int) -> None:
        """Step every schedule so often; one that ends goes no further than its end."""
        for scheduler in self._schedulers:
            left = num_steps
            if isinstance(scheduler, torch.optim.lr_scheduler.OneCycleLR):
                left = min(num_steps, max(0, scheduler.total_steps - 1 - scheduler.last_epoch))
            for _ in range(left):
                scheduler.step()

    def state_dict(self) -> list[Any]:
        """The schedules' states, copied."""
        return [copy.deepcopy(scheduler.state_dict()) for scheduler in self._schedulers]

    def load_state_dict(self, state: list[Any]) -> None:
        """Put them back."""
        for scheduler, each in zip(self._schedulers, state, strict=True):
            scheduler.load_state_dict(copy.deepcopy(each))

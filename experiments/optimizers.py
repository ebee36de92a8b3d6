"""Optimisers and learning-rate schedules by name."""

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from .errors import OptionError

SGD_MOMENTUM = 0.9


def make_optimizer(name: str, parameters: Iterable[nn.Parameter], learning_rate: float) -> Optimizer:
    """An optimiser with PyTorch's defaults otherwise; `sgd` has momentum 0.9.

    Raises:
        OptionError: if there is no such optimiser.
    """
    if name == "adam":
        return Adam(parameters, lr=learning_rate)
    if name == "adamw":
        return AdamW(parameters, lr=learning_rate)
    if name == "sgd":
        return SGD(parameters, lr=learning_rate, momentum=SGD_MOMENTUM)
    raise OptionError(f"`optimizer` must be one of adam, adamw, sgd, got {name!r}.")


def decay_factor(schedule: str, step: int, num_steps: int) -> float:
    """What the learning rate is multiplied by in optimiser step `step`, counted from 0.

    `constant`: 1. `linear`: 1 - step / num_steps. `cosine`: (1 + cos(pi step / num_steps)) / 2. Zero from `num_steps`
    on for the latter two.

    Raises:
        OptionError: if there is no such schedule.
    """
    progress = min(1.0, step / num_steps)
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return (1.0 + math.cos(math.pi * progress)) / 2.0
    raise OptionError(f"`schedule` must be one of constant, linear, cosine, got {schedule!r}.")


def make_schedule(name: str, optimizer: Optimizer, num_steps: int) -> LambdaLR:
    """A scheduler to be stepped after every optimiser step; see `decay_factor`.

    Raises:
        OptionError: if there is no such schedule, or `num_steps` is below 1.
    """
    if num_steps < 1:
        raise OptionError(f"`num_steps` must be at least 1, got {num_steps}.")
    return LambdaLR(optimizer, lambda step: decay_factor(name, step, num_steps))

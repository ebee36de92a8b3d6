"""The optimisers and schedules of the race's grid."""

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..errors import OptionError
from ..optimizers import SGD_MOMENTUM, decay_factor
from .adaptive_memory import AdaptiveMemoryAdamW
from .matrix_optimizers import AuONAndAdamW, MuonAndAdamW
from .methods import Settings

WARM_UP = 0.3  # of a one-cycle schedule
START = 0.04  # of the highest rate, where a cycle begins
NEEDS_EXTRA = "`{name}` needs the package {package}. Install it with `pip install 'deadreckon[race]'`."


def make_race_optimizer(name: str, network: nn.Module, settings: Settings, num_steps: int) -> Optimizer:
    """An optimiser of the grid.

    Args:
        name: `adam`, `adamw`, `sgd` (Nesterov momentum 0.9), `muon`, `auon`, `adaptive_memory`, `schedule_free`,
            `adan`, `adamp`.
        network: whose parameters.
        settings: `rate`, and `adam_rate`, `beta`, `warmup`, `pull` where they apply.
        num_steps: of the run, for warm-ups given as a share of it.

    Raises:
        OptionError: if there is no such optimiser, or its package is missing.
    """
    rate = settings["rate"]
    parameters: Iterable[Tensor] = network.parameters()
    if name == "adam":
        return Adam(parameters, lr=rate)
    if name == "adamw":
        return AdamW(parameters, lr=rate)
    if name == "sgd":
        return SGD(parameters, lr=rate, momentum=SGD_MOMENTUM, nesterov=True)
    if name == "muon":
        return MuonAndAdamW(network, rate, settings["adam_rate"])
    if name == "auon":
        return AuONAndAdamW(network, rate, settings["adam_rate"])
    if name == "adaptive_memory":
        return AdaptiveMemoryAdamW(parameters, rate, settings["pull"])
    if name == "schedule_free":
        return _schedule_free(parameters, settings, num_steps)
    if name in ("adan", "adamp"):
        return _from_library(name, parameters, rate)
    raise OptionError(
        "`optimizer` must be one of adam, adamw, sgd, muon, auon, adaptive_memory, schedule_free, adan, adamp, "
        f"got {name!r}."
    )


def _schedule_free(parameters: Iterable[Tensor], settings: Settings, num_steps: int) -> Optimizer:
    try:
        from schedulefree import AdamWScheduleFree
    except ImportError as error:
        raise OptionError(NEEDS_EXTRA.format(name="schedule_free", package="schedulefree")) from error
    warm_up = round(settings["warmup"] * num_steps)
    optimizer = AdamWScheduleFree(
        parameters, lr=settings["rate"], betas=(settings["beta"], 0.999), warmup_steps=warm_up, weight_decay=0.01
    )
    optimizer.train()
    return optimizer


def _from_library(name: str, parameters: Iterable[Tensor], rate: float) -> Optimizer:
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise OptionError(NEEDS_EXTRA.format(name=name, package="pytorch_optimizer")) from error
    kind: Any = {"adan": pytorch_optimizer.Adan, "adamp": pytorch_optimizer.AdamP}[name]
    return kind(parameters, lr=rate, weight_decay=0.01)


def rate_factor(schedule: str, step: int, num_steps: int) -> float:
    """What the rate is multiplied by in optimiser step `step`, counted from 0; see `decay_factor` for the others.

    `one_cycle` rises along a cosine from 4 % over the first three tenths of the run, and falls to zero along another.

    Raises:
        OptionError: if there is no such schedule.
    """
    if schedule != "one_cycle":
        return decay_factor(schedule, step, num_steps)
    progress = min(1.0, step / num_steps)
    if progress < WARM_UP:
        return START + (1 - START) * (1 - math.cos(math.pi * progress / WARM_UP)) / 2
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def make_race_schedule(schedule: str, optimizer: Optimizer, num_steps: int) -> LambdaLR:
    """A scheduler to be stepped after every optimiser step.

    Raises:
        OptionError: if there is no such schedule.
    """
    rate_factor(schedule, 0, num_steps)
    return LambdaLR(optimizer, lambda step: rate_factor(schedule, step, num_steps))

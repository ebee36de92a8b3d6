"""The optimisers and schedules of the race's grid."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from typing_extensions import override

from ..errors import OptionError
from ..optimizers import SGD_MOMENTUM, decay_factor
from .methods import Settings

WARM_UP = 0.3  # of a one-cycle schedule
MUON_MOMENTUM = 0.95
MUON_SCALE = 0.2  # the root mean square of AdamW's updates, about
NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS = (3.4445, -4.7750, 2.0315), 5
START = 0.04  # of the highest rate, where a cycle begins
NEEDS_EXTRA = "`{name}` needs the package {package}. Install it with `pip install 'deadreckon[race]'`."


class MuonAndAdamW(Optimizer):
    """Muon for the matrices inside a network and AdamW for the rest, as one optimiser.

    B <- 0.95 B + 0.05 g;  W <- W - 0.2 sqrt(max(rows, columns)) rate O(0.05 g + 0.95 B), with O the nearest
    semi-orthogonal matrix, roughly, by five Newton-Schulz iterations (K. Jordan and others, 2024, Muon: An optimizer
    for hidden layers in neural networks); the factor is that of `torch.optim.Muon` with `match_rms_adamw`. A kernel is
    the matrix `[out, in * height * width]`. Embeddings and the last matrix are left to AdamW.

    `torch.optim.Muon` iterates in bfloat16. On processors without instructions for it that takes ten times as long as
    float32 (64 x 784: 25 ms against 2.3 ms an optimiser step on one core of an EPYC with AVX2), which would be a race
    against a handicap; hence this one, in float32.

    Args:
        network: whose parameters.
        rate: of Muon.
        adam_rate: of AdamW.
    """

    def __init__(self, network: nn.Module, rate: float, adam_rate: float) -> None:
        embeddings = {part.weight for part in network.modules() if isinstance(part, nn.Embedding)}
        trained = [value for value in network.parameters() if value.requires_grad]
        inner = [value for value in trained if value.ndim >= 2 and value not in embeddings][:-1]
        chosen = set(inner)
        rest = [value for value in trained if value not in chosen]
        groups = [{"params": inner, "lr": rate}] if inner else []
        super().__init__([*groups, {"params": rest, "lr": adam_rate}], {"lr": adam_rate})
        self._adam = AdamW(rest, lr=adam_rate)

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        *muon_groups, adam_group = self.param_groups
        self._adam.param_groups[0]["lr"] = adam_group["lr"]
        self._adam.step()
        for group in muon_groups:
            for value in group["params"]:
                if value.grad is not None:
                    self._muon_step(value, group["lr"])
        return loss

    def _muon_step(self, value: Tensor, rate: float) -> None:
        gradient = value.grad
        assert gradient is not None  # seen to by the caller
        buffer = self.state[value].setdefault("momentum", torch.zeros_like(value))
        buffer.lerp_(gradient, 1 - MUON_MOMENTUM)
        matrix = gradient.lerp(buffer, MUON_MOMENTUM).flatten(1)
        length = MUON_SCALE * math.sqrt(max(matrix.shape))
        value.sub_(orthogonalised(matrix).view_as(value), alpha=rate * length)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Roughly U V' of a matrix U S V': singular values between 0.7 and 1.2, by five Newton-Schulz iterations.

    X <- a X + (b X X' + c (X X')^2) X from X = matrix / |matrix|, with a, b, c of K. Jordan and others (2024).
    """
    tall = matrix.shape[0] > matrix.shape[1]
    values = matrix.T if tall else matrix
    values = values / values.norm().clamp(min=1e-7)
    first, second, third = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = values @ values.T
        values = first * values + (second * gram + third * gram @ gram) @ values
    return values.T if tall else values


def make_race_optimizer(name: str, network: nn.Module, settings: Settings, num_steps: int) -> Optimizer:
    """An optimiser of the grid.

    Args:
        name: `adam`, `adamw`, `sgd` (Nesterov momentum 0.9), `muon`, `schedule_free`, `adan`, `adamp`.
        network: whose parameters.
        settings: `rate`, and `adam_rate`, `beta`, `warmup` where they apply.
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
    if name == "schedule_free":
        return _schedule_free(parameters, settings, num_steps)
    if name in ("adan", "adamp"):
        return _from_library(name, parameters, rate)
    raise OptionError(f"`optimizer` must be one of adam, adamw, sgd, muon, schedule_free, adan, adamp, got {name!r}.")


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

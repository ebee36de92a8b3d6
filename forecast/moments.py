"""The moments an Adam-type optimiser keeps, laid out like the weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import WindowError
from .layout import Layout
from .packing import flatten, trainable_parameters

_ADAM_LIKE = (torch.optim.Adam, torch.optim.AdamW)


@dataclass(frozen=True)
class Moments:
    """State of Adam (Kingma and Ba 2014, arXiv 1412.6980, algorithm 1) at one optimiser step.

    Attributes:
        exp_avg: m, the running mean of the gradient, `[param]`, not bias-corrected.
        exp_avg_sq: v, the running mean of its square, `[param]`, not bias-corrected.
        num_updates: t, how many updates made them; both are zero-debiased by `1 - beta**t`.
        learning_rate: per update, one number or `[param]` where parameter groups differ.
        beta1: decay of m per update.
        beta2: decay of v per update.
        eps: added to the root of v.
        weight_decay: decoupled decay (AdamW) per update and unit of learning rate; 0 where decay is in the gradient.
    """

    exp_avg: Tensor
    exp_avg_sq: Tensor
    num_updates: int
    learning_rate: Tensor
    beta1: float
    beta2: float
    eps: float
    weight_decay: float

    def __post_init__(self) -> None:
        if self.exp_avg.shape != self.exp_avg_sq.shape or self.exp_avg.ndim != 1:
            raise WindowError(
                f"Moments must be two vectors of one length, got {tuple(self.exp_avg.shape)} "
                f"and {tuple(self.exp_avg_sq.shape)}."
            )
        if self.num_updates < 1:
            raise WindowError(f"`num_updates` must be at least 1, got {self.num_updates}.")

    @property
    def vectors(self) -> tuple[Tensor, Tensor]:
        """Both moments, `[param]` each."""
        return self.exp_avg, self.exp_avg_sq


def keeps_moments(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `raw_moments` understands this optimiser: torch's Adam and AdamW without `amsgrad` or `maximize`."""
    return isinstance(optimizer, _ADAM_LIKE) and not any(
        group["amsgrad"] or group["maximize"] for group in optimizer.param_groups
    )


def has_moments(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `read_moments` understands this optimiser: it keeps moments, by the same rule for all parameters."""
    return keeps_moments(optimizer) and len(_settings(optimizer)) == 1


def raw_moments(optimizer: torch.optim.Optimizer, module: nn.Module, layout: Layout) -> dict[str, Tensor]:
    """The moments as the optimiser keeps them, `exp_avg` and `exp_avg_sq`, each `[param]`, float32.

    Parameters that have had no gradient yet have zero moments.

    Raises:
        WindowError: if the optimiser keeps none.
    """
    if not keeps_moments(optimizer):
        raise WindowError(
            f"Moments are read from torch's Adam and AdamW (no amsgrad, no maximize), got {type(optimizer).__name__}."
        )
    parameters = trainable_parameters(module)
    states = {name: optimizer.state.get(parameters[name], {}) for name in layout.names}
    return {
        key: flatten({name: state.get(key) for name, state in states.items()}, layout)
        for key in ("exp_avg", "exp_avg_sq")
    }


def read_moments(optimizer: torch.optim.Optimizer, module: nn.Module, layout: Layout) -> Moments:
    """The moments that an optimiser keeps for a module's parameters, with the rule that makes updates of them.

    The learning rate is the one in force now: after a scheduler's step that of the next update.

    Raises:
        WindowError: if the optimiser is not Adam or AdamW, made no update yet, or its groups differ in more than the
            learning rate.
    """
    raw = raw_moments(optimizer, module, layout)
    settings = _settings(optimizer)
    if len(settings) > 1:
        raise WindowError(f"Parameter groups must share betas, eps and weight decay, got {sorted(settings)}.")
    ((beta1, beta2, eps, weight_decay),) = settings
    parameters = trainable_parameters(module)
    num_updates = max(int(optimizer.state.get(parameters[name], {}).get("step", 0)) for name in layout.names)
    if num_updates == 0:
        raise WindowError("The optimiser has made no update yet, so it has no moments.")
    rates = {id(value): float(group["lr"]) for group in optimizer.param_groups for value in group["params"]}
    rate = torch.empty(layout.size)
    for spec in layout:
        rate[spec.span] = rates.get(id(parameters[spec.name]), 0.0)
    rate = rate[0] if bool((rate == rate[0]).all()) else rate
    return Moments(raw["exp_avg"], raw["exp_avg_sq"], num_updates, rate, beta1, beta2, eps, weight_decay)


def _settings(optimizer: torch.optim.Optimizer) -> set[tuple[float, float, float, float]]:
    """Betas, eps and decoupled weight decay of each parameter group."""
    return {(*group["betas"], group["eps"], _decoupled_decay(optimizer, group)) for group in optimizer.param_groups}


def _decoupled_decay(optimizer: torch.optim.Optimizer, group: dict) -> float:
    decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay", False)
    return float(group["weight_decay"]) if decoupled else 0.0

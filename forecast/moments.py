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


def has_moments(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `read_moments` understands this optimiser: torch's Adam and AdamW without `amsgrad` or `maximize`."""
    return isinstance(optimizer, _ADAM_LIKE) and not any(
        group["amsgrad"] or group["maximize"] for group in optimizer.param_groups
    )


def read_moments(optimizer: torch.optim.Optimizer, module: nn.Module, layout: Layout) -> Moments:
    """The moments that an optimiser keeps for a module's trainable parameters, in float32.

    Parameters that have had no gradient yet have zero moments.

    Raises:
        WindowError: if the optimiser is not Adam or AdamW, made no update yet, or its groups differ in more than the
            learning rate.
    """
    if not has_moments(optimizer):
        raise WindowError(
            f"Moments are read from torch's Adam and AdamW (no amsgrad, no maximize), got {type(optimizer).__name__}."
        )
    settings = {(*group["betas"], group["eps"], _decoupled_decay(optimizer, group)) for group in optimizer.param_groups}
    if len(settings) > 1:
        raise WindowError(f"Parameter groups must share betas, eps and weight decay, got {sorted(settings)}.")
    ((beta1, beta2, eps, weight_decay),) = settings
    rates = {id(value): float(group["lr"]) for group in optimizer.param_groups for value in group["params"]}
    first: dict[str, Tensor | None] = {}
    second: dict[str, Tensor | None] = {}
    rate = torch.empty(layout.size)
    num_updates = 0
    parameters = trainable_parameters(module)
    for spec in layout:
        value = parameters[spec.name]
        state = optimizer.state.get(value, {})
        first[spec.name] = state.get("exp_avg")
        second[spec.name] = state.get("exp_avg_sq")
        rate[spec.span] = rates.get(id(value), 0.0)
        num_updates = max(num_updates, int(state.get("step", 0)))
    if num_updates == 0:
        raise WindowError("The optimiser has made no update yet, so it has no moments.")
    rate = rate[0] if bool((rate == rate[0]).all()) else rate
    return Moments(flatten(first, layout), flatten(second, layout), num_updates, rate, beta1, beta2, eps, weight_decay)


def _decoupled_decay(optimizer: torch.optim.Optimizer, group: dict) -> float:
    decoupled = isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay", False)
    return float(group["weight_decay"]) if decoupled else 0.0

"""Plain numbers and facts that go with recorded rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..forecast import has_moments


def batch_length(batch: Any) -> int:
    """Samples in a batch: the first extent of its first tensor; 0 if there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        lengths = (batch_length(item) for item in batch)
        return next((length for length in lengths if length), 0)
    return 0


def learning_rates(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, float]:
    """The rates of all parameter groups in order: `learning_rate`, then `learning_rate_1` and so on."""
    rates = [float(group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    return {f"learning_rate_{number}" if number else "learning_rate": rate for number, rate in enumerate(rates)}


def optimizer_facts(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """What a reader of the trajectory needs to know of the optimisers, as plain JSON values."""
    first = optimizers[0]
    facts: dict[str, Any] = {"optimizer": type(first).__name__}
    if len(optimizers) > 1:
        return facts | {"optimizers": [type(optimizer).__name__ for optimizer in optimizers]}
    if has_moments(first) and len({group["lr"] for group in first.param_groups}) == 1:
        group = first.param_groups[0]
        beta1, beta2 = group["betas"]
        decay = float(group["weight_decay"]) if isinstance(first, torch.optim.AdamW) else 0.0
        facts["adam"] = {
            "beta1": float(beta1),
            "beta2": float(beta2),
            "eps": float(group["eps"]),
            "weight_decay": decay,
        }
    return facts

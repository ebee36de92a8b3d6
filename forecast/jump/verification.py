"""Whether held-out data say that other weights are better."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import JumpError
from .outcome import Outcome

Probe = Callable[[nn.Module, Any], Tensor]
"""`probe(module, batch)` gives the loss of each sample, `[batch]`, or one loss for the batch; it changes nothing."""


class Verdict(NamedTuple):
    """What a comparison on held-out data said.

    Attributes:
        outcome: `KEPT`, `NOT_BETTER` or `NOT_FINITE`.
        margin: by how much the fall of the mean loss exceeded what was asked; negative where it fell short.
        loss_before: mean held-out loss before.
        loss_after: mean held-out loss after.
    """

    outcome: Outcome
    margin: float
    loss_before: float
    loss_after: float


def probe_losses(module: nn.Module, probe: Probe, batches: Iterable[Any]) -> Tensor:
    """Losses of a module on held-out batches, in eval mode and without gradients.

    Returns:
        One loss for each sample (or for each batch, if that is what the probe gives), `[sample]`, float64, on the CPU.

    Raises:
        JumpError: if there is no batch, or the probe gives something else than losses.
    """
    losses: list[Tensor] = []
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                value = probe(module, batch)
                if not isinstance(value, Tensor) or value.ndim > 1:
                    raise JumpError(
                        "`probe` must give a tensor of losses, one a sample or one a batch, got "
                        f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}."
                    )
                losses.append(value.detach().double().reshape(-1).cpu())
    finally:
        for part, training in modes:
            part.training = training
    if not losses:
        raise JumpError("Verification needs at least one held-out batch, got none.")
    return torch.cat(losses)


def compare_losses(before: Tensor, after: Tensor, num_standard_errors: float) -> Verdict:
    """Whether losses fell by more than noise: mean(before - after) > k * its paired standard error.

    Pairing takes out what samples have in common, so a few hundred samples resolve small gains. The standard error
    speaks of the sampling of held-out data only, not of what ordinary steps would have gained meanwhile.

    Args:
        before: losses of the present weights, `[sample]`.
        after: losses of the proposed weights on the same samples, `[sample]`.
        num_standard_errors: k; 0 takes any fall of the mean, 1 to 2 keeps noise from being taken for progress.

    Raises:
        JumpError: if there is one loss only and k is above 0: one number has no standard error.
    """
    if before.numel() < 2 and num_standard_errors > 0:
        raise JumpError(
            "One held-out loss has no standard error. Let `probe` return the loss of each sample, give more batches, "
            "or set `num_standard_errors=0`."
        )
    gain = before - after
    loss_before, loss_after = float(before.mean()), float(after.mean())
    if not math.isfinite(loss_after):
        return Verdict(Outcome.NOT_FINITE, float("-inf"), loss_before, loss_after)
    error = float(gain.std() / math.sqrt(gain.numel())) if gain.numel() > 1 else 0.0
    margin = float(gain.mean()) - num_standard_errors * error
    return Verdict(Outcome.KEPT if margin > 0 else Outcome.NOT_BETTER, margin, loss_before, loss_after)

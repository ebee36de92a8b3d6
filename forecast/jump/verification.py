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
        outcome: `KEPT`, `NOT_BETTER`, `NOT_WORTH_IT` or `NOT_FINITE`.
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
            losses = [batch_losses(module, probe, batch) for batch in batches]
    finally:
        for part, training in modes:
            part.training = training
    if not losses:
        raise JumpError("Verification needs at least one held-out batch, got none.")
    return torch.cat(losses)


@torch.no_grad()
def batch_losses(module: nn.Module, probe: Probe, batch: Any) -> Tensor:
    """Losses on one held-out batch, `[sample]`, float64, on the CPU; the module must be in eval mode.

    Raises:
        JumpError: if the probe gives something else than losses.
    """
    value = probe(module, batch)
    if not isinstance(value, Tensor) or value.ndim > 1:
        raise JumpError(
            "`probe` must give a tensor of losses, one a sample or one a batch, got "
            f"{tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__}."
        )
    return value.detach().double().reshape(-1).cpu()


class PairedSums(NamedTuple):
    """Sums over samples from which a paired comparison is made; those of several processes may be added up.

    Attributes:
        values: number of samples, and the sums of: fall, squared fall, loss before, loss after; `[5]`, float64.
    """

    values: Tensor

    @classmethod
    def of(cls, before: Tensor, after: Tensor) -> "PairedSums":
        """The sums of losses before and after on the same samples, `[sample]` each."""
        fall = before - after
        parts = [fall.new_tensor(float(fall.numel())), fall.sum(), fall.square().sum(), before.sum(), after.sum()]
        return cls(torch.stack(parts))

    def plus(self, other: Tensor) -> "PairedSums":
        """With more samples, given as their sums."""
        return PairedSums(self.values + other)

    @property
    def num_samples(self) -> int:
        """How many samples."""
        return int(self.values[0])

    @property
    def mean_fall(self) -> float:
        """Mean of loss before minus loss after."""
        return float(self.values[1] / self.values[0])

    @property
    def standard_error(self) -> float:
        """Standard error of `mean_fall`; 0 for one sample."""
        count, total, squares = (float(value) for value in self.values[:3])
        if count < 2:
            return 0.0
        variance = (squares - total * total / count) / (count - 1)
        return math.sqrt(max(variance, 0.0) / count) if math.isfinite(variance) else math.nan

    @property
    def loss_before(self) -> float:
        """Mean loss before."""
        return float(self.values[3] / self.values[0])

    @property
    def loss_after(self) -> float:
        """Mean loss after."""
        return float(self.values[4] / self.values[0])


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
    require_evidence(before.numel(), num_standard_errors)
    sums = PairedSums.of(before.double(), after.double())
    if not math.isfinite(sums.loss_after):
        return Verdict(Outcome.NOT_FINITE, float("-inf"), sums.loss_before, sums.loss_after)
    margin = sums.mean_fall - num_standard_errors * sums.standard_error
    outcome = Outcome.KEPT if margin > 0 else Outcome.NOT_BETTER
    return Verdict(outcome, margin, sums.loss_before, sums.loss_after)


def require_evidence(num_samples: int, num_standard_errors: float) -> None:
    """Refuse to judge by one loss where noise is to be told from progress.

    Raises:
        JumpError: saying what to do.
    """
    if num_samples < 2 and num_standard_errors > 0:
        raise JumpError(
            "One held-out loss has no standard error. Let `probe` return the loss of each sample, give more batches, "
            "or set `num_standard_errors=0`."
        )

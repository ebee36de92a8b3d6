"""One jump, from forecast to verdict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import JumpError
from ..forecaster import Forecaster
from ..ledger import Ledger
from ..packing import load_vector, pack
from ..window import Window
from .outcome import Outcome
from .transaction import Stateful, Transaction
from .verification import Probe, compare_losses, probe_losses


@dataclass(frozen=True)
class JumpPolicy:
    """When a jump is taken.

    Args:
        num_standard_errors: by how many paired standard errors the held-out loss must fall; see `compare_losses`.
        max_relative_scale: a forecast whose predicted error is more than this many times its move (both as norms over
            all coordinates) is not verified at all. Lower it to save verification, raise it to let the data decide.

    Raises:
        JumpError: if one of them is out of range.
    """

    num_standard_errors: float = 1.0
    max_relative_scale: float = 3.0

    def __post_init__(self) -> None:
        if not self.num_standard_errors >= 0:
            raise JumpError(f"`num_standard_errors` must be at least 0, got {self.num_standard_errors}.")
        if not self.max_relative_scale > 0:
            raise JumpError(f"`max_relative_scale` must be above 0, got {self.max_relative_scale}.")


@dataclass(frozen=True)
class Jump:
    """A record of one opportunity to jump.

    Attributes:
        step: optimiser step at which it came.
        horizon: how far ahead, in optimiser steps; 0 where nothing was proposed.
        outcome: how it ended.
        margin: see `Verdict`; NaN where nothing was verified.
        loss_before: mean held-out loss before; NaN where nothing was verified.
        loss_after: mean held-out loss of the proposed weights; NaN where nothing was verified.
        wall_seconds: what it took altogether.
    """

    step: int
    horizon: int
    outcome: Outcome
    margin: float = float("nan")
    loss_before: float = float("nan")
    loss_after: float = float("nan")
    wall_seconds: float = 0.0


def attempt_jump(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    forecaster: Forecaster,
    window: Window,
    horizon: int,
    probe: Probe,
    batches: Iterable[Any],
    policy: JumpPolicy,
    ledger: Ledger,
    others: Sequence[Stateful] = (),
    batch_size: int | None = None,
) -> Jump:
    """Forecast, verify on held-out data, and keep the forecast weights or put everything back.

    The window's last row must be the module's present weights: a forecast from elsewhere would undo steps.

    Args:
        module: the network in training; on return it holds the old weights, bit for bit, or the forecast ones.
        optimizer: its optimiser; its state is left as it is in both cases.
        forecaster: of the stream `weights`.
        window: recorded history up to now.
        horizon: optimiser steps ahead.
        probe: the held-out loss; must not change anything.
        batches: held-out batches, gone through twice.
        policy: when to keep.
        ledger: charged for `forecasting`, `loading`, `copying`, `verifying` and `rolling back`.
        others: more state to protect, see `Transaction`.
        batch_size: samples in a training batch, to express verification in gradient evaluations; where not given only
            seconds are charged.

    Raises:
        JumpError: if the window does not end at the present weights. Whatever the probe raises goes through, after
            everything has been put back.
    """
    layout = window.layout
    with ledger.charge("forecasting"):
        present = pack(module)[0].to(window.last.device)
        if not bool(torch.isfinite(present).all()):
            return Jump(window.last_step, horizon, Outcome.NOT_FINITE)
        if not torch.equal(present, window.last):
            raise JumpError(
                f"The window must end at the present weights; its last row, of step {window.last_step}, differs."
            )
        forecast = next(forecaster.forecast(window, [horizon]))
        move = float(torch.linalg.vector_norm((forecast.mean - window.last).double()))
        expected_error = float(torch.linalg.vector_norm(forecast.scale.double()))
        finite = bool(torch.isfinite(forecast.mean).all())
    if not finite:
        return Jump(window.last_step, horizon, Outcome.NOT_FINITE)
    # Written so that an expected error of NaN is not trusted either.
    if not expected_error <= policy.max_relative_scale * move:
        return Jump(window.last_step, horizon, Outcome.UNTRUSTED)
    with Transaction(module, optimizer, ledger, others) as transaction:
        # Inside the transaction, because a loader may draw from a global random generator.
        with ledger.charge("loading"):
            batches = list(batches)
        before = _charged_probe(module, probe, batches, ledger, batch_size)
        with ledger.charge("copying"):
            load_vector(module, forecast.mean, layout)
        after = _charged_probe(module, probe, batches, ledger, batch_size)
        verdict = compare_losses(before, after, policy.num_standard_errors)
        if verdict.outcome.kept:
            transaction.commit()
    return Jump(window.last_step, horizon, verdict.outcome, verdict.margin, verdict.loss_before, verdict.loss_after)


def _charged_probe(
    module: nn.Module, probe: Probe, batches: Sequence[Any], ledger: Ledger, batch_size: int | None
) -> torch.Tensor:
    num_samples = sum(_batch_length(batch) for batch in batches) if batch_size else 0
    # A forward pass is about a third of a forward and a backward one.
    equivalents = num_samples / (3 * batch_size) if batch_size else 0.0
    with ledger.charge("verifying", equivalents):
        return probe_losses(module, probe, batches)


def _batch_length(batch: Any) -> int:
    """Samples in a batch: the first extent of its first tensor."""
    if isinstance(batch, torch.Tensor):
        return batch.shape[0]
    if isinstance(batch, dict):
        return _batch_length(next(iter(batch.values())))
    if isinstance(batch, list | tuple) and batch:
        return _batch_length(batch[0])
    raise JumpError(f"A held-out batch must hold a tensor first, got {type(batch).__name__}.")

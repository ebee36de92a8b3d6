"""What a jump works on, and the record of one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..ledger import Ledger
from .after import KeepMoments, MomentRule
from .agreement import Agreement, Alone
from .candidates import CandidateScreen
from .outcome import Outcome
from .progress import Progress
from .regime import RegimeTracker
from .rules import JumpPolicy
from .transaction import Stateful
from .verification import Probe


@dataclass(frozen=True)
class JumpSetting:
    """Everything that stays the same from jump to jump of one run.

    Args:
        module: the network in training.
        optimizers: its optimisers.
        probe: the held-out loss; must not change anything.
        batches: held-out batches, gone through once at each verified jump; not an iterator.
        policy: when to keep.
        ledger: charged for `forecasting`, `loading`, `copying`, `screening`, `verifying`, `re-estimating` statistics,
            `rolling back` and `following up` with moments and schedules.
        others: more state to protect, see `Transaction`.
        batch_size: samples in a training batch, to express verification in gradient evaluations; where not given only
            seconds are charged.
        moments: what becomes of the optimisers' moments.
        batch_norm_batches: training batches to measure batch normalisation's running statistics on at the candidate
            weights, before they are verified; `None` leaves the statistics as they are.
        on_load: called inside the transaction with a kept jump's horizon, to bring along what goes with the step, such
            as a schedule. What it changes must be among `others`.
        agreement: of the processes of the run.
        progress: told of every held-out loss; asked by the rule `worth_it`.
        regimes: shown activations on the first held-out batch; `None` for none.
        screen: measures several candidates at once.
        precision: entered around every pass of the probe, autocast for example.
        prepare: makes of a batch what the network takes: on its device, in its precision.
        step_seconds: CPU seconds of an ordinary step now; NaN where `worth_it` is to count gradient evaluations only.
    """

    module: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    probe: Probe
    batches: Iterable[Any]
    policy: JumpPolicy = field(default_factory=JumpPolicy)
    ledger: Ledger = field(default_factory=Ledger)
    others: Sequence[Stateful] = ()
    batch_size: int | None = None
    moments: MomentRule = field(default_factory=KeepMoments)
    batch_norm_batches: Iterable[Any] | None = None
    on_load: Callable[[int], None] | None = None
    agreement: Agreement = field(default_factory=Alone)
    progress: Progress = field(default_factory=Progress)
    regimes: RegimeTracker | None = None
    screen: CandidateScreen = field(default_factory=CandidateScreen)
    precision: Callable[[], AbstractContextManager[Any]] = nullcontext
    prepare: Callable[[Any], Any] = lambda batch: batch
    step_seconds: Callable[[], float] = lambda: float("nan")


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
        regime: `chaotic`, `transition` or `stable`, when it came; empty where unknown.
        step_scale: what the forecast's step was multiplied by.
        credited: how many ordinary steps a kept jump replaced, as measured, see `Progress`; 0 for one that was not
            kept, NaN where it is unknown, as after a blind jump.
        num_samples: held-out samples that the decision took.
        num_candidates: how many weights it chose from.
        costs: CPU seconds by activity.
    """

    step: int
    horizon: int
    outcome: Outcome
    margin: float = float("nan")
    loss_before: float = float("nan")
    loss_after: float = float("nan")
    wall_seconds: float = 0.0
    regime: str = ""
    step_scale: float = 1.0
    credited: float = 0.0
    num_samples: int = 0
    num_candidates: int = 0
    costs: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for checkpoints and results; `from_dict` is the way back."""
        return {**self.__dict__, "outcome": self.outcome.name, "costs": dict(self.costs)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Jump":
        """The record that `to_dict` gave."""
        return cls(**{**data, "outcome": Outcome[data["outcome"]]})

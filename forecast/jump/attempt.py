"""One jump, from forecast to verdict."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import JumpError
from ..forecaster import Forecaster
from ..ledger import Cost, Ledger
from ..packing import pack, trainable_parameters
from ..window import Window
from .batch_norm import norm_buffers, reestimate_statistics
from .outcome import Outcome
from .proposal import Candidate, propose
from .rules import Standing
from .setting import Jump, JumpSetting
from .transaction import Transaction
from .trial import Trial
from .weights import LoadedWeights


def attempt_jump(
    setting: JumpSetting,
    forecaster: Forecaster,
    window: Window,
    horizons: int | Sequence[int],
    step_scales: Sequence[float] = (1.0,),
    number: int = 0,
) -> Jump:
    """Forecast, verify on held-out data, and keep the forecast weights or put everything back.

    Of several horizons or step scales the one with the lowest loss on the first held-out batch is taken (screening) and
    then tested on the others, so that choosing among many does not make the test pass. With one candidate all batches
    go into the test.

    The window's last row must be the module's present weights: a forecast from elsewhere would undo steps.

    Args:
        setting: the network, its optimisers and everything else that stays the same; on return the network holds the
            old weights, bit for bit, or the forecast ones.
        forecaster: of the stream `weights`.
        window: recorded history up to now.
        horizons: optimiser steps ahead; one or several from the same forecast.
        step_scales: what the forecast's step is multiplied by, each above 0.
        number: of this opportunity in the run, to credit it later.

    Returns:
        The record; its `step` is the window's last.

    Raises:
        JumpError: if the window does not end at the present weights, or held-out data do not suffice. Whatever the
            probe raises goes through, after everything has been put back.
    """
    spent = _Spent(setting.ledger)
    step = window.last_step
    horizons = (horizons,) if isinstance(horizons, int) else tuple(horizons)
    if not step_scales or not all(scale > 0 for scale in step_scales):
        raise JumpError(f"`step_scales` must be numbers above 0, at least one, got {list(step_scales)}.")
    blank = Jump(step, horizons[0], Outcome.NOT_FINITE)
    with setting.ledger.charge("forecasting"):
        present, layout = pack(setting.module)
        window.layout.require_same(layout, "the module")
        present = present.to(window.last.device)
        if not bool(torch.isfinite(present).all()):
            return replace(blank, costs=spent.by_activity())
        if not torch.equal(present, window.last):
            raise JumpError(
                f"The window must end at the present weights; its last row, of step {window.last_step}, differs."
            )
        found = propose(forecaster, window, horizons, step_scales, setting.policy, setting.agreement)
    if isinstance(found, Outcome):
        return replace(blank, outcome=found, costs=spent.by_activity())
    candidates = found
    with Transaction(setting.module, setting.optimizers, setting.ledger, setting.others) as transaction:
        loaded = LoadedWeights(setting.module, window.layout, transaction.saved, setting.ledger)
        if setting.policy.acceptance.verifies:
            jump, chosen = _verified(setting, candidates, loaded, blank, spent, number)
        else:
            chosen = candidates[0]
            _estimate_norms(setting, chosen, loaded)
            setting.progress.forget()
            jump = replace(blank, outcome=Outcome.KEPT, credited=math.nan)
        jump = replace(jump, horizon=chosen.horizon, step_scale=chosen.step_scale, num_candidates=len(candidates))
        if jump.outcome.kept:
            loaded.use(chosen)
            with setting.ledger.charge("following up"), torch.no_grad():
                steps = _steps(setting, transaction)
                for optimizer in setting.optimizers:
                    setting.moments.apply(optimizer, steps, chosen.horizon)
                if setting.on_load is not None:
                    setting.on_load(chosen.horizon)
            transaction.commit()
    return replace(jump, costs=spent.by_activity())


def _verified(
    setting: JumpSetting, candidates: list[Candidate], loaded: LoadedWeights, blank: Jump, spent: "_Spent", number: int
) -> tuple[Jump, Candidate]:
    """The record of a jump that was verified, and the candidate it was about."""
    rule, fall_per_step = setting.policy.acceptance, setting.progress.fall_per_step

    def required(loss_before: float) -> float:
        return rule.required_gain(Standing(loss_before, fall_per_step, spent.steps(setting.step_seconds())))

    trial = Trial(setting, loaded, blank.step, required)
    chosen = trial.screen(candidates)
    if not trial.over:
        _estimate_norms(setting, chosen, loaded)
        trial.test(chosen)
    verdict = trial.verdict(rule.shortfall)
    setting.progress.observe(blank.step, trial.losses_before)
    credited = 0.0
    if verdict.outcome.kept:
        credited = setting.progress.jumped(blank.step, trial.losses_before, trial.losses_after, number)
    else:
        setting.progress.went_on(blank.step, trial.losses_before)
    jump = replace(
        blank,
        outcome=verdict.outcome,
        margin=verdict.margin,
        loss_before=verdict.loss_before,
        loss_after=verdict.loss_after,
        credited=credited,
        num_samples=trial.num_samples,
    )
    return jump, chosen


def _estimate_norms(setting: JumpSetting, chosen: Candidate, loaded: LoadedWeights) -> None:
    """Measure batch normalisation's statistics at the candidate, if asked for, and let them go with its weights."""
    if setting.batch_norm_batches is None or not norm_buffers(setting.module):
        return
    loaded.use(chosen)
    with setting.ledger.charge("re-estimating"):
        with setting.precision():
            num_samples = reestimate_statistics(setting.module, map(setting.prepare, setting.batch_norm_batches))
        for buffer in norm_buffers(setting.module):
            if buffer.is_floating_point():
                buffer.copy_(setting.agreement.first(buffer))
        loaded.take_buffers(norm_buffers(setting.module))
    if setting.batch_size:
        # Known only now; the seconds are charged already.
        work = Cost(gradient_equivalents=num_samples / (3 * setting.batch_size))
        setting.ledger.add("re-estimating", work)


def _steps(setting: JumpSetting, transaction: Transaction) -> dict[Tensor, Tensor]:
    """By how much each trainable parameter was moved."""
    trainable = set(trainable_parameters(setting.module).values())
    return {value: value.detach() - saved for value, saved in transaction.saved if value in trainable}


class _Spent:
    """What an opportunity has cost since it began."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._before = dict(ledger.activities)
        self._total = ledger.total

    def by_activity(self) -> dict[str, float]:
        """CPU seconds by activity."""
        seconds: dict[str, float] = {}
        for name, cost in self._ledger.activities.items():
            earlier = self._before[name].cpu_seconds if name in self._before else 0.0
            if cost.count > (self._before[name].count if name in self._before else 0):
                seconds[name] = cost.cpu_seconds - earlier
        return seconds

    def steps(self, step_seconds: float) -> float:
        """In ordinary steps: by gradient evaluations, or by the clock where that is more and a step's time is known."""
        total = self._ledger.total
        work = total.gradient_equivalents - self._total.gradient_equivalents
        seconds = total.cpu_seconds - self._total.cpu_seconds
        return max(work, seconds / step_seconds) if step_seconds > 0 else work

"""Which weights a forecast offers to jump to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..forecaster import Forecast, Forecaster
from ..layout import Layout
from ..window import Window
from .agreement import Agreement
from .outcome import Outcome
from .rules import JumpPolicy


@dataclass(frozen=True)
class Candidate:
    """Weights that a run may go on from.

    Attributes:
        horizon: optimiser steps that they stand for.
        step_scale: what the forecast's step was multiplied by.
        weights: `[param]`.
    """

    horizon: int
    step_scale: float
    weights: Tensor


def propose(
    forecaster: Forecaster,
    window: Window,
    horizons: Sequence[int],
    step_scales: Sequence[float],
    policy: JumpPolicy,
    agreement: Agreement,
) -> list[Candidate] | Outcome:
    """Candidates from one window, one for each horizon and step scale, or the outcome that says why there is none.

    With w the present weights, f the forecast and c a step scale, a candidate is w + c (f - w). Horizons whose
    predicted error dwarfs the move are left out, and steps are cut as `policy` says. All processes get the first one's.

    Args:
        forecaster: of the stream `weights`.
        window: up to the present weights.
        horizons: optimiser steps ahead.
        step_scales: above 0.
        policy: what is trusted.
        agreement: of the processes of the run.
    """
    candidates: list[Candidate] = []
    finite_ones = 0
    for forecast in forecaster.forecast(window, horizons):
        mean = agreement.first(forecast.mean)
        step = mean - window.last
        move = float(torch.linalg.vector_norm(step.double()))
        expected_error = float(torch.linalg.vector_norm(forecast.scale.double()))
        # Written so that an expected error of NaN is not trusted either.
        facts = [bool(torch.isfinite(mean).all()), expected_error <= policy.max_relative_scale * move]
        finite, trusted = agreement.first(torch.tensor(facts)).tolist()
        finite_ones += finite
        if not finite or not trusted:
            continue
        if policy.trust_radius is not None:
            step = agreement.first(_cut(step, forecast, window.layout, policy.trust_radius))
            mean = window.last + step
        for scale in step_scales:
            weights = mean if scale == 1 else window.last + scale * step
            candidates.append(Candidate(forecast.horizon, float(scale), weights))
    if candidates:
        return candidates
    return Outcome.UNTRUSTED if finite_ones else Outcome.NOT_FINITE


def _cut(step: Tensor, forecast: Forecast, layout: Layout, radius: float) -> Tensor:
    """The step, for each tensor cut to radius |step| / |error| of itself, at most all of it."""
    cut = step.clone()
    for spec in layout:
        length = float(torch.linalg.vector_norm(step[spec.span].double()))
        error = float(torch.linalg.vector_norm(forecast.scale[spec.span].double()))
        if not radius * length >= error:
            cut[spec.span] *= radius * length / error if error < float("inf") else 0.0
    return cut

"""What our NiNo sees of a scalar and of its tensor, in units that a change of sign or of scale leaves alone."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Window
from .coordinate_parts import divided, extremes
from .motion import working_dtype
from .nino_released import tensor_scaling
from .rows import chunks, gram

ROWS = 5
STEPS = ROWS - 1  # differences between neighbouring rows
SIGNALS = STEPS + 2  # odd numbers of a scalar: its steps, its value, and the optimiser's next step
FEATURES = 8  # even numbers of a scalar, made of the signals
CONTEXT = 15  # even numbers that all scalars of a tensor share
LIMIT = 3.0  # of logarithms


class Facts(NamedTuple):
    """About each tensor.

    Attributes:
        mean: of its values, `[tensor]`, float64.
        deviation: of its values, `[tensor]`, float64.
        unit: root mean square of the steps of what moved, `[tensor]`, float64; 0 where nothing did.
        context: `[tensor, CONTEXT]`, float32.
        spacing: optimiser steps between rows.
        step: what the optimiser's moments say of the next row, `[param]`; None where there are no moments.
    """

    mean: Tensor
    deviation: Tensor
    unit: Tensor
    context: Tensor
    spacing: int
    step: Tensor | None


def facts_of(window: Window) -> Facts:
    """What a window with `ROWS` rows tells about its tensors."""
    layout = window.layout
    scaling = tensor_scaling(window)
    moved = torch.zeros(len(layout), dtype=torch.float64)
    dtype = working_dtype(window.values.dtype)
    for index, span in chunks(layout):
        low, high = extremes(window.values[:, span].to(dtype))
        moved[index] += int((high > low).sum())
    # Inner products of the steps, from those of the rows' deviations from the newest.
    to_steps = torch.diff(torch.eye(ROWS, dtype=torch.float64)[:, :STEPS], dim=0)
    products = to_steps @ gram(window) @ to_steps.T
    energy = products.diagonal(dim1=1, dim2=2)
    unit = (energy.sum(dim=1) / (moved * STEPS).clamp(min=1)).clamp(min=0).sqrt()
    norms = energy.clamp(min=0).sqrt()
    sizes = norms.unsqueeze(2) * norms.unsqueeze(1)
    cosines = divided(products, sizes).clamp(-1, 1)
    size = torch.tensor([max(1, spec.numel) for spec in layout], dtype=torch.float64)
    spacing = window.spacing
    rates = window.learning_rates
    known = rates is not None and float(rates[0]) > 0 and float(rates[-1]) > 0
    trend = math.log(float(rates[-1]) / float(rates[0])) if rates is not None and known else 0.0
    shared = (math.log10(spacing) / 2, float(known), max(-LIMIT, min(LIMIT, trend)), float(window.moments is not None))
    context = torch.stack(
        (
            _logarithm(divided(unit, scaling.deviation)) / 2,
            *(cosines[:, late, early] for late in range(STEPS) for early in range(late)),
            *(_logarithm(divided(norms[:, STEPS - 1], norms[:, early])) for early in range(STEPS - 1)),
            size.log10() / 4,
            *(torch.full_like(size, value) for value in shared),
        ),
        dim=1,
    )
    return Facts(*scaling, unit, context.float(), spacing, _step(window))


def _logarithm(ratio: Tensor) -> Tensor:
    """Of positive numbers, cut; 0 of 0."""
    return torch.where(ratio > 0, ratio.clamp(min=1e-30).log().clamp(-LIMIT, LIMIT), 0.0)


def _step(window: Window) -> Tensor | None:
    """Adam's update with its moments frozen, until the next row."""
    moments = window.moments
    if moments is None:
        return None
    first = moments.exp_avg / (1 - moments.beta1**moments.num_updates)
    second = moments.exp_avg_sq / (1 - moments.beta2**moments.num_updates)
    update = divided(first, second.sqrt() + moments.eps) * moments.learning_rate
    return -window.spacing * (update + moments.learning_rate * moments.weight_decay * window.last.to(update))


def signals_of(rows: Tensor, step: Tensor | None, facts: Facts, tensor: int) -> Tensor:
    """Odd numbers of some scalars of one tensor, `[SIGNALS, scalar]`, float32: steps, value, optimiser's next step.

    Args:
        rows: `[time, scalar]`.
        step: of `facts`, `[scalar]`.
        facts: about the window.
        tensor: which tensor.
    """
    mean, deviation, unit = (float(part[tensor]) for part in (facts.mean, facts.deviation, facts.unit))
    rows = rows.to(working_dtype(rows.dtype))
    found = torch.zeros(SIGNALS, rows.shape[1])
    if unit > 0:
        found[:STEPS] = rows.diff(dim=0).div_(unit)
        if step is not None:
            found[STEPS + 1] = step.to(rows) / unit
    if deviation > 0:
        found[STEPS] = (rows[-1] - mean).div_(deviation)
    return found


def features_of(signals: Tensor) -> Tensor:
    """Even numbers of some scalars, `[FEATURES, scalar]`; all zero for signals that are zero."""
    steps, value, step = signals[:STEPS], signals[STEPS], signals[STEPS + 1]
    energy = steps.square().mean(dim=0)
    size = energy.sqrt()
    mean = steps.mean(dim=0)
    before = steps[: STEPS - 1].mean(dim=0)
    last = steps[STEPS - 1]
    return torch.stack(
        (
            size.log1p(),
            divided(mean.abs(), size),
            divided(last * steps[STEPS - 2], energy),
            divided(last * before, energy),
            divided(last.abs(), size),
            divided(value * mean, value.abs() * size),
            value.abs().log1p(),
            divided(2 * step * mean, step.square() + mean.square()),
        )
    )


def aligned(drift: Tensor, common: Tensor) -> Tensor:
    """How far a scalar's mean step goes with what it has in common with others, between -1 and 1; an even number."""
    return divided(2 * drift * common, drift.square() + common.square())

"""What our NiNo sees of a scalar and of its tensor, in units that a change of sign or of scale leaves alone."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Layout, Window
from .coordinate_parts import divided
from .motion import working_dtype
from .rows import chunks, gram, tensor_scaling

ROWS = 5  # of a window, where nothing else is asked for
BESIDE = 2  # odd numbers of a scalar beside its steps: its value, and the optimiser's next step
FEATURES = 8  # even numbers of a scalar, made of the odd ones
LIMIT = 3.0  # of logarithms


def num_signals(history: int) -> int:
    """How many odd numbers there are of a scalar: its steps, its value, and the optimiser's next step."""
    return history - 1 + BESIDE


def num_context(history: int) -> int:
    """How many even numbers all scalars of a tensor share."""
    num_steps = history - 1
    return 1 + num_steps * (num_steps - 1) // 2 + (num_steps - 1) + 5


class Facts(NamedTuple):
    """About each tensor.

    Attributes:
        mean: of its values, `[tensor]`, float64.
        deviation: of its values, `[tensor]`, float64.
        unit: root mean square of the steps of what moved, `[tensor]`, float64; 0 where nothing did.
        context: `[tensor, num_context(time)]`, float32.
        step: what the optimiser's moments say of the next row, `[param]`; None where there are no moments.
    """

    mean: Tensor
    deviation: Tensor
    unit: Tensor
    context: Tensor
    step: Tensor | None


def facts_of(window: Window) -> Facts:
    """What a window of at least three rows tells about its tensors."""
    num_steps = len(window) - 1
    layout = window.layout
    scaling = tensor_scaling(window)
    moved = torch.zeros(len(layout), dtype=torch.float64)
    for index, span in chunks(layout):
        moved[index] += int((window.values[1:, span] != window.values[0, span]).any(dim=0).sum())
    # Inner products of the steps, from those of the rows' deviations from the newest.
    to_steps = torch.diff(torch.eye(len(window), dtype=torch.float64)[:, :num_steps], dim=0)
    products = to_steps @ gram(window) @ to_steps.T
    energy = products.diagonal(dim1=1, dim2=2)
    unit = (energy.sum(dim=1) / (moved * num_steps).clamp(min=1)).clamp(min=0).sqrt()
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
            *(cosines[:, late, early] for late in range(num_steps) for early in range(late)),
            *(_logarithm(divided(norms[:, -1], norms[:, early])) for early in range(num_steps - 1)),
            size.log10() / 4,
            *(torch.full_like(size, value) for value in shared),
        ),
        dim=1,
    )
    return Facts(*scaling, unit, context.float(), _step(window))


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
    """Odd numbers of some scalars of one tensor, `[signal, scalar]`, float32: steps, value, optimiser's next step.

    Args:
        rows: `[time, scalar]`.
        step: of `facts`, `[scalar]`.
        facts: about the window.
        tensor: which tensor.
    """
    mean, deviation, unit = (float(part[tensor]) for part in (facts.mean, facts.deviation, facts.unit))
    rows = rows.to(working_dtype(rows.dtype))
    found = torch.zeros(num_signals(len(rows)), rows.shape[1])
    if unit > 0:
        found[:-BESIDE] = rows.diff(dim=0).div_(unit)
        if step is not None:
            found[-1] = step.to(rows) / unit
    if deviation > 0:
        found[-2] = (rows[-1] - mean).div_(deviation)
    return found


def signals_of_all(rows: Tensor, step: Tensor | None, facts: Facts, layout: Layout) -> Tensor:
    """`signals_of` of all tensors, `[signal, param]`, float32.

    Args:
        rows: `[time, param]`.
        step: of `facts`, `[param]`.
        facts: about the window.
        layout: of the network.
    """
    rows = rows.to(working_dtype(rows.dtype))
    sizes = torch.tensor([spec.numel for spec in layout])
    # What does not move, or has one value only, is divided by infinity.
    scales = torch.stack((facts.mean, facts.unit, facts.deviation))
    scales[1:] = torch.where(scales[1:] > 0, scales[1:], math.inf)
    mean, unit, deviation = scales.to(rows.dtype).repeat_interleave(sizes, dim=1)
    found = torch.zeros(num_signals(len(rows)), layout.size)
    found[:-BESIDE] = rows.diff(dim=0).div_(unit)
    if step is not None:
        found[-1] = step.to(rows) / unit
    found[-2] = (rows[-1] - mean).div_(deviation)
    return found


def features_of(signals: Tensor) -> Tensor:
    """Even numbers of some scalars, `[FEATURES, scalar]`; all zero for signals that are zero."""
    steps, value, step = signals[:-BESIDE], signals[-2], signals[-1]
    energy = steps.square().mean(dim=0)
    size = energy.sqrt()
    mean = steps.mean(dim=0)
    before = steps[:-1].mean(dim=0)
    last = steps[-1]
    return torch.stack(
        (
            size.log1p(),
            divided(mean.abs(), size),
            divided(last * steps[-2], energy),
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

"""What our NiNo sees of a scalar and of its tensor, in units that a change of sign or of scale leaves alone."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Layout, Window
from .coordinate_parts import divided
from .motion import working_dtype
from .nino_stretches import SINGLE, Condensed, stretches
from .rows import chunks, gram, tensor_scaling

ROWS = 5  # of a window, where nothing else is asked for
BESIDE = 2  # odd numbers of a scalar beside its steps: its value, and the optimiser's next step
NEAR = 8  # even numbers of a scalar, made of its odd ones; of the newest steps, where the window is long
FAR = 4  # further ones, of the older steps
LIMIT = 3.0  # of logarithms


def num_steps(history: int) -> int:
    """How many steps are seen of a scalar: from row to row, and from stretch to stretch of older rows."""
    return len(stretches(history)) - 1


def num_signals(history: int) -> int:
    """How many odd numbers there are of a scalar: its steps, its value, and the optimiser's next step."""
    return num_steps(history) + BESIDE


def num_features(history: int) -> int:
    """How many even numbers there are of a scalar."""
    return NEAR + (FAR if history > SINGLE else 0)


def num_context(history: int) -> int:
    """How many even numbers all scalars of a tensor share."""
    steps = num_steps(history)
    return 1 + steps * (steps - 1) // 2 + (steps - 1) + 6


class Facts(NamedTuple):
    """About each tensor.

    Attributes:
        mean: of its values, `[tensor]`, float64.
        deviation: of its values, `[tensor]`, float64.
        unit: root mean square of the steps from row to row of what moved, `[tensor]`, float64; 0 where nothing did.
        context: `[tensor, num_context(time)]`, float32.
        step: what the optimiser's moments say of the next row, `[param]`; None where there are no moments.
    """

    mean: Tensor
    deviation: Tensor
    unit: Tensor
    context: Tensor
    step: Tensor | None


def facts_of(seen: Condensed) -> Facts:
    """What a window of at least three rows tells about its tensors."""
    window, spacing = seen.window, seen.spacing
    steps = len(window) - 1
    layout = window.layout
    scaling = tensor_scaling(window)
    moved = torch.zeros(len(layout), dtype=torch.float64)
    for index, span in chunks(layout):
        moved[index] += int((window.values[1:, span] != window.values[0, span]).any(dim=0).sum())
    # Inner products of the steps, from those of the rows' deviations from the newest.
    distances = torch.tensor(seen.gaps, dtype=torch.float64)
    to_steps = torch.diff(torch.eye(len(window), dtype=torch.float64)[:, :steps], dim=0) / distances.unsqueeze(1)
    products = to_steps @ gram(window) @ to_steps.T
    energy = products.diagonal(dim1=1, dim2=2)
    newest = energy[:, -(SINGLE - 1) :]
    unit = (newest.sum(dim=1) / (moved * newest.shape[1]).clamp(min=1)).clamp(min=0).sqrt()
    norms = energy.clamp(min=0).sqrt()
    sizes = norms.unsqueeze(2) * norms.unsqueeze(1)
    cosines = divided(products, sizes).clamp(-1, 1)
    size = torch.tensor([max(1, spec.numel) for spec in layout], dtype=torch.float64)
    known, trends = _trends(window.learning_rates)
    shared = (math.log10(spacing) / 2, known, *trends, float(window.moments is not None))
    context = torch.stack(
        (
            _logarithm(divided(unit, scaling.deviation)) / 2,
            *(cosines[:, late, early] for late in range(steps) for early in range(late)),
            *(_logarithm(divided(norms[:, -1], norms[:, early])) for early in range(steps - 1)),
            size.log10() / 4,
            *(torch.full_like(size, value) for value in shared),
        ),
        dim=1,
    )
    return Facts(*scaling, unit, context.float(), _step(window, spacing))


def _trends(rates: Tensor | None) -> tuple[float, tuple[float, float]]:
    """Whether learning rates are known, and logarithms of the newest over the oldest, and over that half way."""
    if rates is None or not all(float(rates[at]) > 0 for at in (0, len(rates) // 2, -1)):
        return 0.0, (0.0, 0.0)
    whole, half = (math.log(float(rates[-1]) / float(rates[at])) for at in (0, len(rates) // 2))
    return 1.0, (max(-LIMIT, min(LIMIT, whole)), max(-LIMIT, min(LIMIT, half)))


def _logarithm(ratio: Tensor) -> Tensor:
    """Of positive numbers, cut; 0 of 0."""
    return torch.where(ratio > 0, ratio.clamp(min=1e-30).log().clamp(-LIMIT, LIMIT), 0.0)


def _step(window: Window, spacing: int) -> Tensor | None:
    """Adam's update with its moments frozen, until the next row."""
    moments = window.moments
    if moments is None:
        return None
    first = moments.exp_avg / (1 - moments.beta1**moments.num_updates)
    second = moments.exp_avg_sq / (1 - moments.beta2**moments.num_updates)
    update = divided(first, second.sqrt() + moments.eps) * moments.learning_rate
    return -spacing * (update + moments.learning_rate * moments.weight_decay * window.last.to(update))


def signals_of(rows: Tensor, step: Tensor | None, facts: Facts, tensor: int, distances: tuple[float, ...]) -> Tensor:
    """Odd numbers of some scalars of one tensor, `[signal, scalar]`, float32: steps, value, optimiser's next step.

    Args:
        rows: `[time, scalar]`.
        step: of `facts`, `[scalar]`.
        facts: about the window.
        tensor: which tensor.
        distances: between the rows, in units of their spacing.
    """
    mean, deviation, unit = (float(part[tensor]) for part in (facts.mean, facts.deviation, facts.unit))
    rows = rows.to(working_dtype(rows.dtype))
    found = torch.zeros(len(rows) - 1 + BESIDE, rows.shape[1])
    if unit > 0:
        found[:-BESIDE] = rows.diff(dim=0).div_(rows.new_tensor(distances).mul_(unit).unsqueeze(1))
        if step is not None:
            found[-1] = step.to(rows) / unit
    if deviation > 0:
        found[-2] = (rows[-1] - mean).div_(deviation)
    return found


def signals_of_all(
    rows: Tensor, step: Tensor | None, facts: Facts, layout: Layout, distances: tuple[float, ...]
) -> Tensor:
    """`signals_of` of all tensors, `[signal, param]`, float32.

    Args:
        rows: `[time, param]`.
        step: of `facts`, `[param]`.
        facts: about the window.
        layout: of the network.
        distances: between the rows, in units of their spacing.
    """
    rows = rows.to(working_dtype(rows.dtype))
    sizes = torch.tensor([spec.numel for spec in layout])
    # What does not move, or has one value only, is divided by infinity.
    scales = torch.stack((facts.mean, facts.unit, facts.deviation))
    scales[1:] = torch.where(scales[1:] > 0, scales[1:], math.inf)
    mean, unit, deviation = scales.to(rows.dtype).repeat_interleave(sizes, dim=1)
    found = torch.zeros(len(rows) - 1 + BESIDE, layout.size)
    for row, distance in enumerate(distances):
        torch.sub(rows[row + 1], rows[row], out=found[row]).div_(unit * distance if distance != 1 else unit)
    if step is not None:
        found[-1] = step.to(rows) / unit
    found[-2] = (rows[-1] - mean).div_(deviation)
    return found


def drift_of(signals: Tensor, distances: tuple[float, ...]) -> Tensor:
    """Mean step of some scalars over the whole window, `[scalar]`, from the oldest row to the newest."""
    steps = signals[:-BESIDE]
    if len(set(distances)) == 1:
        return steps.mean(dim=0)
    return torch.tensordot(steps.new_tensor(distances).div_(sum(distances)), steps, dims=1)


def features_of(signals: Tensor, distances: tuple[float, ...]) -> Tensor:
    """Even numbers of some scalars, `[num_features, scalar]`; all zero for signals that are zero."""
    value, step = signals[-2], signals[-1]
    far, steps = signals[:-BESIDE].split((len(distances) - len(distances[1 - SINGLE :]), len(distances[1 - SINGLE :])))
    energy = steps.square().mean(dim=0)
    size = energy.sqrt()
    mean = steps.mean(dim=0)
    before = steps[:-1].mean(dim=0)
    last = steps[-1]
    near = (
        size.log1p(),
        divided(mean.abs(), size),
        divided(last * steps[-2], energy),
        divided(last * before, energy),
        divided(last.abs(), size),
        divided(value * mean, value.abs() * size),
        value.abs().log1p(),
        divided(2 * step * mean, step.square() + mean.square()),
    )
    if not len(far):
        return torch.stack(near)
    weights = far.new_tensor(distances[: len(far)])
    total = float(weights.sum())
    older = torch.tensordot(weights / total, far, dims=1)
    middle = (len(far) + 1) // 2
    halves = (slice(0, middle), slice(len(far) - middle, None))
    early, late = (torch.tensordot(weights[i] / float(weights[i].sum()), far[i], dims=1) for i in halves)
    # On a random walk the square of a mean over a distance is that of a step over the distance.
    wander = torch.tensordot(weights, far.square(), dims=1).div_(len(far)).sqrt_()
    return torch.stack(
        (
            *near,
            aligned(mean, older),
            divided(older.abs() * total**0.5, size).log1p(),
            aligned(early, late),
            divided(wander, size).log1p(),
        )
    )


def aligned(drift: Tensor, common: Tensor) -> Tensor:
    """How far a scalar's mean step goes with what it has in common with others, between -1 and 1; an even number."""
    return divided(2 * drift * common, drift.square() + common.square())

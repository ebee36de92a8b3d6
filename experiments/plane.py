"""A run's weights in the plane in which they moved most, and the loss there.

None of it is part of the run: it is worked out afterwards, and costs the run nothing.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ..forecast import Layout, WindowError, unpack
from ..forecast.coordinates import PCACoordinates
from .classifier import evaluating
from .tasks import Split

MIN_ROWS = 3
MARGIN = 0.25  # of the path's extent, around it
POINTS = 13  # of the grid, each way
MAX_SAMPLES = 128  # of the held-out set
MAX_WORK = 2e11  # multiplications of all evaluations, roughly; larger networks get a coarser grid, or none
COARSE_POINTS = 7


def plane_of(rows: Tensor) -> PCACoordinates | None:
    """The plane of the first two principal components of rows `[time, param]`; `None` where they span none."""
    if len(rows) < MIN_ROWS:
        return None
    try:
        return PCACoordinates.fit(rows, 2)
    except WindowError:  # the run diverged, or moved along a line
        return None


def path_in(plane: PCACoordinates, rows: Tensor, steps: Sequence[int]) -> dict[str, Any]:
    """The path as plain data: its points, their steps, and the share of the variance along each direction."""
    return {
        "points": plane.from_parameters(rows).tolist(),
        "steps": list(steps),
        "explained": plane.explained_variance_ratio.tolist(),
    }


def grid_points(num_parameters: int, inputs: Tensor) -> int:
    """How many points each way the grid has; 0 where even a coarse one would be too much work."""
    positions = inputs.shape[-1] if inputs.dtype == torch.int64 else 1  # a text has a prediction at each place
    work = float(num_parameters) * positions * min(len(inputs), MAX_SAMPLES)
    return next((points for points in (POINTS, COARSE_POINTS) if work * points**2 <= MAX_WORK), 0)


def losses_on(
    plane: PCACoordinates,
    points: Sequence[Sequence[float]],
    last: Tensor,
    module: nn.Module,
    layout: Layout,
    split: Split,
) -> dict[str, Any] | None:
    """The held-out loss on a grid that covers some points of the plane, and where the run ended.

    Args:
        plane: in the space of the module's weights.
        points: `[x, y]` each.
        last: the weights at the end, `[param]`.
        module: left as it is; its buffers are used as they are, whatever the weights.
        layout: of its weights.
        split: the set whose first `MAX_SAMPLES` samples the loss is of.

    Returns:
        As plain data, in nats: `values[y][x]` over `x` and `y`; `end`, the loss of the last weights, and
        `end_on_plane`, that of the point of the plane nearest to them; `num_evaluations` in all, `num_samples` of each,
        and the `seconds` they took. `None` where it would be too much work.
    """
    samples = Split(split.inputs[:MAX_SAMPLES], split.labels[:MAX_SAMPLES])
    number = grid_points(layout.size, samples.inputs)
    place = np.array(points, dtype=float)
    if not number or not len(place) or not np.isfinite(place).all():
        return None
    low, high = place.min(0), place.max(0)
    extent = np.maximum(high - low, 1e-3 * float((high - low).max()) + 1e-12)
    low, high = low - MARGIN * extent, high + MARGIN * extent
    across, up = np.linspace(low[0], high[0], number), np.linspace(low[1], high[1], number)
    begin = time.perf_counter()

    def loss_at(x: float, y: float) -> float:
        coordinates = torch.tensor([x, y], dtype=plane.basis.dtype)
        return _loss(module, layout, plane.to_parameters(coordinates), samples)

    values = [[loss_at(x, y) for x in across.tolist()] for y in up.tolist()]
    shadow = plane.to_parameters(plane.from_parameters(last))
    return {
        "x": across.tolist(),
        "y": up.tolist(),
        "values": values,
        "end": _loss(module, layout, last, samples),
        "end_on_plane": _loss(module, layout, shadow, samples),
        "num_evaluations": number**2 + 2,
        "num_samples": len(samples.labels),
        "seconds": time.perf_counter() - begin,
    }


def _loss(module: nn.Module, layout: Layout, weights: Tensor, samples: Split) -> float:
    inputs, labels = samples
    with evaluating(module):
        logits = functional_call(module, unpack(weights, layout), (inputs,), strict=False)
        return float(functional.cross_entropy(logits, labels))

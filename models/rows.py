"""Inner products and linear combinations of a window's rows, made in pieces that stay in the cache.

Most forecasters are of the form mean = last + sum_i c_i (row_i - last). Here are the two passes over memory that they
need: the inner products from which coefficients are made, and the combination itself. Neither makes a copy of the
window; a third array of its size would be the largest thing in memory (10 M parameters, 5 rows: 200 MB).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Layout, Window
from .coordinate_pieces import for_each
from .motion import working_dtype
from .pieces import PIECE


class Scaling(NamedTuple):
    """Mean and standard deviation of each tensor over all its values in the window, `[tensor]`, float64."""

    mean: Tensor
    deviation: Tensor


def chunks(layout: Layout, size: int = PIECE) -> Iterator[tuple[int, slice]]:
    """Stretches of at most `size` coordinates that lie within one tensor, with the tensor's position in the layout."""
    for index, spec in enumerate(layout):
        end = spec.offset + spec.numel
        for begin in range(spec.offset, end, size):
            yield index, slice(begin, min(begin + size, end))


def deviations_in(window: Window, span: slice) -> Tensor:
    """All rows but the newest, relative to the newest, `[time - 1, coordinate]`, of a stretch of the coordinates.

    Forecasts are built from these instead of from the rows: they are exactly zero where nothing moves, and large values
    do not cancel.
    """
    rows = window.values[:, span]
    rows = rows.to(working_dtype(rows.dtype))
    return rows[:-1] - rows[-1]


def gram(window: Window) -> Tensor:
    """Inner products of the rows' deviations from the newest, for each tensor, `[tensor, time - 1, time - 1]`, float64.

    It is all that a forecaster that treats the coordinates of a tensor alike can know about them: it does not change
    when they are permuted, or rotated.
    """
    size = len(window) - 1
    stretches = list(chunks(window.layout))
    parts = torch.zeros(len(stretches), size, size, dtype=torch.float64)

    def work(place: int) -> None:
        rows = deviations_in(window, stretches[place][1]).double()
        parts[place] = (rows @ rows.T).cpu()

    # 12 rows of 10 M parameters with two threads: 0.45 s stretch by stretch, 0.29 s side by side.
    for_each(work, range(len(stretches)), window.values.device)
    tensors = torch.tensor([index for index, _ in stretches], dtype=torch.int64)
    return torch.zeros(len(window.layout), size, size, dtype=torch.float64).index_add_(0, tensors, parts)


def combine(window: Window, coefficients: Tensor) -> Tensor:
    """last + sum_i c_i (row_i - last), `[param]`, in the window's type.

    Args:
        window: its rows.
        coefficients: c, `[time - 1]`, or `[tensor, time - 1]` where each tensor has its own; oldest row first.
    """
    dtype = working_dtype(window.values.dtype)
    weights = coefficients.to(device=window.values.device, dtype=dtype)
    weights = weights.expand(len(window.layout), -1) if weights.ndim == 1 else weights
    result = torch.empty_like(window.last)
    for index, span in chunks(window.layout):
        rows = deviations_in(window, span)
        result[span] = torch.addmv(window.values[-1, span].to(dtype), rows.T, weights[index])
    return result


def tensor_scaling(window: Window) -> Scaling:
    """Mean and standard deviation (divisor n - 1) of each tensor over all rows, made piece by piece."""
    count = torch.tensor([max(1, len(window) * spec.numel) for spec in window.layout], dtype=torch.float64)
    total, squares = torch.zeros(2, len(window.layout), dtype=torch.float64)
    dtype = working_dtype(window.values.dtype)
    for index, span in chunks(window.layout):
        total[index] += window.values[:, span].to(dtype).sum(dtype=torch.float64).cpu()
    mean = total / count
    for index, span in chunks(window.layout):
        rows = window.values[:, span].double() - mean[index].to(window.values.device)
        squares[index] += rows.square_().sum().cpu()
    return Scaling(mean, (squares / (count - 1).clamp(min=1)).sqrt())

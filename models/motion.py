"""How much the rows of a window move."""

import math

import torch
from torch import Tensor

from ..forecast import Window
from .pieces import filled

SMALLEST_EXPONENT = -126  # of float32's normal numbers; some processors take smaller ones for zero


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type to compute in: float32, or wider where the values are."""
    return torch.promote_types(dtype, torch.float32)


def power_of_two_below(rows: Tensor) -> float:
    """The largest power of two that no entry's size is below on the whole: 2^floor(log2 max |entry|).

    Dividing by it is exact, so that a result does not depend on which coordinates were worked on together. 1 where all
    is zero or the largest is not finite.
    """
    largest = float(torch.stack(rows.aminmax()).abs().max()) if rows.numel() else 0.0
    if not 0.0 < largest < math.inf:
        return 1.0
    return 2.0 ** max(math.frexp(largest)[1] - 1, SMALLEST_EXPONENT)


def root_sum_of_squares(rows: Tensor) -> Tensor:
    """The Euclidean norm of each column, `[param]` from `[time, param]`, without overflow for large finite values.

    Columns 1e19 times smaller than the largest entry of all count as zero. `torch.linalg.vector_norm(rows, dim=0)` does
    the same thirty times slower (4 rows of a million columns: 147 ms against 5 ms, torch 2.13, one core).
    """
    unit = power_of_two_below(rows)
    total = rows.new_zeros(rows.shape[1])
    for row in rows:  # one row at a time, because fresh memory costs more than arithmetic
        scaled = row / unit
        total.addcmul_(scaled, scaled)
    return total.sqrt_().mul_(unit)


def random_walk(window: Window) -> Tensor:
    """The standard deviation of one optimiser step if the stream were a random walk without drift, `[param]`.

    sigma^2 = mean over neighbouring rows of (difference)^2 / (steps between them), the maximum-likelihood estimate for
    Brownian motion seen at these steps. It is the yardstick of every scale: zero where nothing moved, proportional to
    the values, and `sqrt(horizon)` times it is what persistence expects to be off by. Needs two rows.
    """
    dtype = working_dtype(window.values.dtype)
    gaps = window.steps.diff().to(device=window.values.device, dtype=dtype)
    divisors = (gaps * len(gaps)).sqrt().unsqueeze(1)

    def norm(span: slice) -> Tensor:
        return root_sum_of_squares(window.values[:, span].to(dtype).diff(dim=0).div_(divisors))

    return filled(window.last, norm, dtype)


def walk_factor(steps: Tensor, coefficients: Tensor, horizon: int) -> Tensor:
    """How far off last + sum_i c_i (row_i - last) is on a random walk, in units of one step's deviation.

    With W Brownian motion of unit variance a step, the error sum_i c_i (W(t_i) - W(t)) - (W(t + horizon) - W(t)) has
    variance horizon + c' K c, where K_ij = min(t - t_i, t - t_j); this is its root. Persistence, c = 0, gets
    sqrt(horizon).

    Args:
        steps: of the rows, `[time]`.
        coefficients: c, `[..., time - 1]`, oldest row first.
        horizon: optimiser steps ahead.

    Returns:
        The factors, `[...]`, float64.
    """
    back = (steps[-1] - steps[:-1]).to(device="cpu", dtype=torch.float64)
    c = coefficients.to(device="cpu", dtype=torch.float64)
    between = torch.minimum(back.unsqueeze(0), back.unsqueeze(1))
    return (horizon + ((c @ between) * c).sum(dim=-1)).sqrt()


def walked(window: Window, factor: float | Tensor) -> Tensor:
    """`random_walk` times a factor, or one for each tensor, `[tensor]`; `[param]`, in the window's type.

    Made anew for each horizon, so that no vector of the network's size has to be kept between them.
    """
    sigma = random_walk(window)
    if isinstance(factor, Tensor):
        for spec, own in zip(window.layout, factor.tolist(), strict=True):
            sigma[spec.span].mul_(own)
    else:
        sigma.mul_(factor)
    return sigma.to(window.values.dtype)

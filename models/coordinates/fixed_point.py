"""Numbers in fixed point, held in float64, whose sums are exact in any order.

A sum of products of whole numbers in float64 is exact, and so the same in any order, on any machine and with any number
of threads, as long as its absolute terms add up to less than 2^53. That is what makes reconstruction from a seed
bit-exact; plain float sums differ in the last bits between machines.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

FRACTION_BITS = 20  # of coordinates, whose natural size is 1: a step of 1e-6
FACTOR_BITS = 17  # of the entries of low-rank factors, so that their products fit
EXACT = 2.0**53


def fixed_point(values: npt.NDArray[np.float64], num_bits: int = FRACTION_BITS) -> npt.NDArray[np.float64]:
    """The nearest whole multiples of 2^-num_bits, as whole numbers; halves to even."""
    return np.rint(values * 2.0**num_bits)


class Rounded(torch.autograd.Function):
    """Rounds to whole multiples of 2^-num_bits; the gradient passes as if it did not (straight-through)."""

    @staticmethod
    @override
    def forward(ctx: Any, values: Tensor, num_bits: int) -> Tensor:
        return torch.round(values * 2.0**num_bits) * 2.0**-num_bits

    @staticmethod
    @override
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None


def exact_product(left: Tensor, right: Tensor) -> Tensor:
    """The product of two matrices of float64 whose entries are rounded first, exact and so the same everywhere.

    Args:
        left: `[row, rank]`, entries of size 1 or so.
        right: `[rank, column]`.

    Returns:
        `[row, column]`; all NaN where the entries are too large, or not finite, for an exact product.
    """
    left, right = Rounded.apply(left, FACTOR_BITS), Rounded.apply(right, FACTOR_BITS)
    largest = float(left.detach().abs().amax()) * float(right.detach().abs().amax()) * left.shape[1]
    if not largest * 4.0**FACTOR_BITS < EXACT:
        return (left @ right) * float("nan")
    return left @ right

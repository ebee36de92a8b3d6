"""What coordinates of low rank share: matrices of a layout, and products that are exact."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...forecast.layout import Layout
from ..errors import ModelError
from ..options import require_integer
from .fixed_point import exact_product


class Factors(NamedTuple):
    """Shapes of the two factors of one tensor, seen as a matrix of its first axis by all others.

    Attributes:
        num_rows: of the matrix.
        num_columns: of the matrix.
        rank: columns of the left factor and rows of the right one; no more than the matrix has.
    """

    num_rows: int
    num_columns: int
    rank: int


def factors_of(layout: Layout, rank: int) -> list[Factors]:
    """The factors' shapes by tensor.

    Raises:
        ModelError: if the rank is not a whole number from 1 up, or a tensor has fewer than two axes.
    """
    require_integer("rank", rank, 1)
    found: list[Factors] = []
    for spec in layout:
        if len(spec.shape) < 2 or spec.numel == 0:
            raise ModelError(
                f"Coordinates of low rank need tensors of two axes or more, got {spec.name!r} of shape {spec.shape}. "
                "Choose tensors by `choose_layout(module, num_axes=2)`."
            )
        num_columns = spec.numel // spec.shape[0]
        found.append(Factors(spec.shape[0], num_columns, min(rank, spec.shape[0], num_columns)))
    return found


def low_rank_product(left: Tensor, right: Tensor) -> Tensor:
    """left right / sqrt(rank), of size 1 for factors of size 1, flat; exact as `exact_product`."""
    return (exact_product(left, right) * (1.0 / math.sqrt(left.shape[1]))).reshape(-1)


def best_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors whose `low_rank_product` is nearest to a matrix, both of equal size (Eckart and Young 1936)."""
    left, singular, right = torch.linalg.svd(matrix * math.sqrt(rank), full_matrices=False)
    root = singular[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]

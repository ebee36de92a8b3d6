"""Successive differences of a window's rows, in terms of their deviations from the newest."""

import torch
from torch import Tensor


def difference_matrix(num_rows: int) -> Tensor:
    """B with row_{k+1} - row_k = sum_j B_kj (row_j - last), `[time - 1, time - 1]`, float64; the oldest first.

    It turns inner products of deviations G (`rows.gram`) into those of differences, B G B', and coefficients e of
    differences into those of deviations, B' e.
    """
    size = num_rows - 1
    return torch.diag(torch.ones(max(size - 1, 0), dtype=torch.float64), 1) - torch.eye(size, dtype=torch.float64)

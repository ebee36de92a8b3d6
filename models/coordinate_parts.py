"""Small parts that per-coordinate networks share."""

import torch
from torch import Tensor, nn
from typing_extensions import override


class Dense(nn.Module):
    """y = W x + b, without first values: `nn.Linear` would draw them from the global generator."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in))
        self.bias = nn.Parameter(torch.empty(num_out))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.linear(inputs, self.weight, self.bias)


def mixed(head: Dense, hidden: Tensor, mixture: Tensor | None) -> Tensor:
    """A last layer's outputs, or those times the mixture, `[item, mixed]`, without computing all of them."""
    if mixture is None:
        return head(hidden)
    return nn.functional.linear(hidden, mixture.T @ head.weight, head.bias @ mixture)


def extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest of each column, `[coordinate]` each; reducing along the first axis took twice as long."""
    low, high = torch.minimum(rows[0], rows[1]), torch.maximum(rows[0], rows[1])
    for row in rows[2:]:
        torch.minimum(low, row, out=low)
        torch.maximum(high, row, out=high)
    return low, high


def divided(values: Tensor, by: Tensor) -> Tensor:
    """`values / by`, and 0 where `by` is 0."""
    return torch.where(by > 0, values / by, 0.0)

"""Numbers that tell how a tensor has been moving, from the inner products of its rows alone.

They are what `adaptive_linear`, `flow_matching` and `neural_ode` look at. All come from the Gram matrix of the rows'
deviations, which does not change when coordinates are permuted, mirrored or rotated, and each is free of the unit of
the values. So what is learned from them holds for a network with its neurons in another order, or with its weights at
another scale, by construction; there is nothing that augmentation could add.
"""

import math

import torch
from torch import Tensor

from .differences import difference_matrix

BLOCKS = (1, 2, 4)  # rows in the stretches whose displacements are compared
LARGEST_LOG = 3.0  # of quotients of lengths; what is farther off tells no more
NOTHING = 1e-12  # of the tensor's motion; stretches that moved less have no direction


def feature_names(history: int) -> tuple[str, ...]:
    """The features of a window of `history` rows, in order; "steps" are those from row to row, the newest last."""
    num_steps = history - 1
    return (
        *(f"cosine of steps {lag} apart" for lag in range(1, num_steps)),
        *(f"log length of step {index}" for index in range(num_steps)),
        "straightness",
        "motion along the least-squares line",
        "cosine of newest step and whole displacement",
        *(
            f"{what} of the newest {rows} rows to the {rows} before"
            for rows in BLOCKS
            if 2 * rows <= num_steps
            for what in ("cosine", "log length")
        ),
        "log of the number of coordinates",
        "log ratio of learning rates",
    )


def step_gram(gram: Tensor) -> Tensor:
    """Inner products of the steps from row to row, of the same shape as those of deviations from the newest row.

    Args:
        gram: `[..., time - 1, time - 1]`, oldest row first, as `rows.gram` gives it.
    """
    to_steps = difference_matrix(gram.shape[-1] + 1).to(gram)
    return to_steps @ gram @ to_steps.T


def motion(gram: Tensor) -> Tensor:
    """Mean squared length of the steps from row to row, `[...]`: the square of a tensor's unit of length."""
    return step_gram(gram).diagonal(dim1=-2, dim2=-1).mean(dim=-1).clamp(min=0)


def rate_change(learning_rates: Tensor | None) -> float:
    """Logarithm of the newest over the oldest learning rate of a window.

    0, as if it were constant, where they are not known or have no ratio.

    Args:
        learning_rates: of the rows, `[time]`.
    """
    if learning_rates is None:
        return 0.0
    oldest, newest = float(learning_rates[0]), float(learning_rates[-1])
    if not (0 < oldest < math.inf and 0 < newest < math.inf):
        return 0.0
    return min(max(math.log(newest / oldest), -LARGEST_LOG), LARGEST_LOG)


def gram_features(gram: Tensor, sizes: Tensor, rate_changes: Tensor) -> Tensor:
    """The features of tensors, of one window or of many, `[tensor, feature]`, float64; see `feature_names`.

    Lengths are relative to the tensor's root mean squared step. A tensor that stands still has those of a random walk.

    Args:
        gram: inner products of deviations from the newest row, `[tensor, time - 1, time - 1]`, float64.
        sizes: number of coordinates of each tensor, `[tensor]`.
        rate_changes: `rate_change` of each one's window, `[tensor]`.
    """
    steps = step_gram(gram)
    size = steps.shape[-1]
    unit = steps.diagonal(dim1=-2, dim2=-1).mean(dim=-1)[:, None, None]
    walk = torch.eye(size, dtype=gram.dtype)
    steps = torch.where(unit > 0, steps / torch.where(unit > 0, unit, 1.0), walk)
    squares = steps.diagonal(dim1=-2, dim2=-1)
    found = [
        steps.diagonal(lag, dim1=-2, dim2=-1).sum(-1)
        / (squares[:, lag:].sum(-1) * squares[:, :-lag].sum(-1)).sqrt().clamp(min=NOTHING)
        for lag in range(1, size)
    ]
    found += [_log_length(squares[:, index]) for index in range(size)]
    whole, newest = torch.ones(size, dtype=gram.dtype), walk[-1]
    found += [_product(steps, whole, whole) / size**2]
    # The slope of the least-squares line weighs steps by a parabola.
    parabola = torch.arange(1, size + 1, dtype=gram.dtype) * torch.arange(size, 0, -1, dtype=gram.dtype)
    parabola = parabola / parabola.sum()
    found += [_product(steps, parabola, parabola), _cosine(steps, newest, whole)]
    for rows in BLOCKS:
        if 2 * rows <= size:
            late, early = torch.zeros_like(whole), torch.zeros_like(whole)
            late[size - rows :], early[size - 2 * rows : size - rows] = 1.0, 1.0
            lengths = _log_length(_product(steps, late, late)) - _log_length(_product(steps, early, early))
            found += [_cosine(steps, late, early), lengths.clamp(-LARGEST_LOG, LARGEST_LOG)]
    found += [sizes.to(gram).clamp(min=1).log(), rate_changes.to(gram)]
    return torch.stack(found, dim=-1)


def _product(steps: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Inner product of two sums of steps, `[tensor]`."""
    return torch.einsum("i,nij,j->n", first, steps, second)


def _cosine(steps: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Cosine between two sums of steps, `[tensor]`; 0 where one of them is nothing."""
    lengths = _product(steps, first, first) * _product(steps, second, second)
    return _product(steps, first, second) / lengths.clamp(min=NOTHING**2).sqrt()


def _log_length(squares: Tensor) -> Tensor:
    """Logarithm of the root, kept within reason."""
    return (squares.clamp(min=NOTHING).log() / 2).clamp(-LARGEST_LOG, LARGEST_LOG)

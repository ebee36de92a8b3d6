"""A flat vector, made in pieces that stay in the cache."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

PIECE = 1 << 16  # coordinates; a few rows of them fit into a core's second-level cache


def pieces(num_parameters: int) -> Iterator[slice]:
    """Stretches of at most `PIECE` coordinates, for work in which coordinates do not meet."""
    for begin in range(0, num_parameters, PIECE):
        yield slice(begin, min(begin + PIECE, num_parameters))


def filled(like: Tensor, work: Callable[[slice], Tensor], dtype: torch.dtype | None = None) -> Tensor:
    """A vector as long as `like`, each piece of it what `work` gives for that stretch.

    Intermediate results then never grow larger than a piece, which keeps memory at the result's size and is faster too:
    a fresh array of the vector's length costs more than the arithmetic in it.

    Args:
        like: a vector; gives length, device and type.
        work: from a stretch to its values.
        dtype: the result's type, if it is to be another.
    """
    result = torch.empty_like(like, dtype=dtype)
    for span in pieces(len(like)):
        result[span] = work(span)
    return result

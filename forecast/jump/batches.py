"""How many samples a batch holds."""

from typing import Any

from torch import Tensor

from ..errors import JumpError


def batch_length(batch: Any) -> int:
    """Samples in a batch: the first extent of its first tensor.

    Raises:
        JumpError: if it holds none in front.
    """
    if isinstance(batch, Tensor):
        return batch.shape[0]
    if isinstance(batch, dict) and batch:
        return batch_length(next(iter(batch.values())))
    if isinstance(batch, list | tuple) and batch:
        return batch_length(batch[0])
    raise JumpError(f"A batch must hold a tensor first, got {type(batch).__name__}.")

"""The states of all ranks in one checkpoint, which Lightning writes on rank 0 only."""

import io
from typing import Any

import torch
from torch import Tensor

from ..codec.distributed import Wire
from .errors import ResumeError


def gather_states(wire: Wire, state: dict[str, Any]) -> dict[str, Tensor]:
    """Every rank's state as bytes, by rank, on all ranks. All must call it: Lightning does, when it saves.

    Args:
        wire: to the other ranks.
        state: this rank's, of tensors and plain data.
    """
    file = io.BytesIO()
    torch.save(state, file)
    mine = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    lengths = [int(length) for length in wire.gather(torch.tensor([len(mine)]))]
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(mine)] = mine
    parts = wire.gather(padded)
    return {str(rank): part[:length].clone() for rank, (part, length) in enumerate(zip(parts, lengths, strict=True))}


def state_of_rank(saved: dict[str, Tensor], rank: int) -> dict[str, Any]:
    """One rank's state, from `gather_states`' result, treated as untrusted.

    Raises:
        ResumeError: if it is missing or damaged.
    """
    part = saved.get(str(rank))
    if not isinstance(part, Tensor) or part.dtype != torch.uint8:
        raise ResumeError(f"The checkpoint holds no codec state of rank {rank}.")
    try:
        state = torch.load(io.BytesIO(part.cpu().numpy().tobytes()), weights_only=True)
    except Exception as error:  # whatever damaged bytes lead to
        raise ResumeError(f"The codec state of rank {rank} in the checkpoint is damaged: {error}") from error
    if not isinstance(state, dict):
        raise ResumeError(f"The codec state of rank {rank} in the checkpoint is damaged: it is no dictionary.")
    return state

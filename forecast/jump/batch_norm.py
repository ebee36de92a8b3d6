"""Running statistics of batch normalisation, measured anew at other weights."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import JumpError
from .batches import batch_length

_NORMS = nn.modules.batchnorm._BatchNorm


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch normalisations of a module that keep running statistics."""
    return [part for part in module.modules() if isinstance(part, _NORMS) and part.track_running_stats]


def norm_buffers(module: nn.Module) -> list[Tensor]:
    """Their running statistics, the tensors themselves."""
    return [buffer for part in batch_norms(module) for buffer in part.buffers(recurse=False)]


def reestimate_statistics(module: nn.Module, batches: Iterable[Any]) -> int:
    """Replace running means and variances by their averages over batches at the present weights.

    Everything but the batch normalisations is in eval mode meanwhile, so dropout draws nothing. All modes, momenta and
    counts of tracked batches are as before afterwards.

    Args:
        module: called with each batch's first part, where the batch is a tuple or list as usual of inputs and labels,
            else with the batch; a dictionary gives named arguments.
        batches: of training data.

    Returns:
        How many samples were passed through.

    Raises:
        JumpError: if there is no batch.
    """
    norms = batch_norms(module)
    modes = [(part, part.training) for part in module.modules()]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    momenta = [norm.momentum for norm in norms]
    num_samples = 0
    module.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
            norm.train()
        with torch.no_grad():
            for batch in batches:
                inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
                num_samples += batch_length(batch)
                if isinstance(inputs, dict):
                    module(**inputs)
                else:
                    module(inputs)
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
        for part, training in modes:
            part.training = training
    if not num_samples:
        raise JumpError("`batch_norm_batches` must hold at least one batch, got none.")
    return num_samples

"""Checks of the tensors that learned forecasters are loaded from."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..forecast.errors import NotFittedError


def require_tensors(
    name: str, state: Mapping[str, Tensor], expected: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
) -> None:
    """Check names, types, shapes and finiteness of untrusted tensors before anything is made from them.

    Args:
        name: the forecaster, for messages.
        state: what was read.
        expected: type and shape of each tensor.

    Raises:
        NotFittedError: naming the first that does not fit.
    """
    if state.keys() != expected.keys():
        raise NotFittedError(f"The state of {name!r} has the tensors {sorted(expected)}, got {sorted(state)}.")
    for key, (dtype, shape) in expected.items():
        if state[key].dtype != dtype or tuple(state[key].shape) != shape:
            raise NotFittedError(
                f"{key!r} of {name!r} must be {dtype} of shape {shape}, "
                f"got {state[key].dtype} {tuple(state[key].shape)}."
            )
        if not bool(torch.isfinite(state[key]).all()):
            raise NotFittedError(f"{key!r} of {name!r} holds values that are not finite.")


def require_horizons(horizons: Tensor) -> None:
    """Check that there are horizons, positive and ascending.

    Raises:
        NotFittedError: if not.
    """
    if not len(horizons) or int(horizons[0]) < 1 or not bool((horizons.diff() > 0).all()):
        raise NotFittedError(f"'horizons' must be positive and ascending, got {horizons.tolist()[:10]}.")

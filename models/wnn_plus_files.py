"""The published weights of WNN+, read from their authors' checkpoints."""

import os
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from .checkpoints import read_state_dict
from .errors import ModelFileError
from .options import require_integer
from .tensor_types import NUM_TYPES
from .wnn_plus import HIDDEN_LAYERS, RELEASED_EPSILON, RELEASED_HORIZONS, ROWS, TypedPerceptron, Variant, WNNPlus

# Of the checkpoint, and of `TypedPerceptron`. Every second entry of the authors' `edge_mlp.fc` is an activation.
_LAYERS = {"edge_proj.fc.0": "project"} | {
    f"edge_mlp.fc.{2 * index}": f"hidden.{index}" for index in range(HIDDEN_LAYERS)
}
_LAYERS[f"edge_mlp.fc.{2 * HIDDEN_LAYERS}"] = "head"
MAX_WIDTH = 4096


def load_released_wnn_plus(
    path: str | os.PathLike[str],
    spacing: int,
    variant: Variant = "corrected",
    types: Mapping[str, str] | None = None,
    stream: str = "weights",
) -> WNNPlus:
    """WNN+ with its authors' weights, which you have to bring.

    They are `checkpoints/nino_mlp.pt` (width 128) and `nino_mlp_h32.pt` (width 32) of the repository
    github.com/SamsungSAILMontreal/nino (MIT licence), trained on rows 200 Adam steps apart to forecast the next 40. So
    they forecast up to 40 row spacings ahead, linearly between rows. They damp strongly, and more so where rows are
    closer together than in their training. Nobody measured how far off they are: the scale is that of persistence,
    sigma sqrt(horizon).

    Args:
        path: the checkpoint.
        spacing: optimiser steps between the rows of the windows it will be given; 200 to use it as published.
        variant: `corrected`, or `released` for what the authors' code does; see `WNNPlus`.
        types: types by pattern of tensor names, where the names mislead; see `WNNPlus`.
        stream: the stream it forecasts.

    Returns:
        A forecaster that is fitted.

    Raises:
        ModelFileError: if the file cannot be read or is no such checkpoint; no code in it is run.
        ModelError: if `spacing`, `variant` or a type is impossible.
    """
    require_integer("spacing", spacing, 1)
    state = _read(path)
    forecaster = WNNPlus(
        width=state["types"].shape[1],
        scaling="values",
        variant=variant,
        types=types,
        epsilon=RELEASED_EPSILON,
        stream=stream,
    )
    horizons = spacing * torch.arange(1, RELEASED_HORIZONS + 1)
    network = cast(TypedPerceptron, forecaster.build(horizons, spacing))
    network.load_state_dict(state)
    forecaster.take_over(network, horizons, spacing)
    return forecaster


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The checkpoint's tensors under the names of `TypedPerceptron`, checked."""
    given = read_state_dict(path)
    found = {key: value for key, value in given.items() if isinstance(value, Tensor)}
    if len(found) < len(given):
        raise ModelFileError(f"{path} is a file of torch, but holds no 'state_dict' of tensors.")
    embedding = found.get("layer_embed.weight")
    width = embedding.shape[-1] if embedding is not None and embedding.ndim == 2 else 0
    if not 0 < width <= MAX_WIDTH:
        raise ModelFileError(f"{path} is no checkpoint of WNN+: it has no embedding of types.")
    expected: dict[str, tuple[str, tuple[int, ...]]] = {"layer_embed.weight": ("types", (NUM_TYPES, width))}
    for source, target in _LAYERS.items():
        num_in, num_out = ROWS if target == "project" else width, RELEASED_HORIZONS if target == "head" else width
        expected[f"{source}.weight"] = (f"{target}.weight", (num_out, num_in))
        expected[f"{source}.bias"] = (f"{target}.bias", (num_out,))
    if found.keys() != expected.keys():
        odd = sorted(map(str, found.keys() ^ expected.keys()))
        raise ModelFileError(f"{path} is no checkpoint of WNN+: {odd[0]!r} is missing or too much.")
    for source, (_, shape) in expected.items():
        value = found[source]
        if tuple(value.shape) != shape or not value.is_floating_point() or not bool(torch.isfinite(value).all()):
            raise ModelFileError(
                f"{source!r} in {path} must be finite numbers of shape {shape}, got {value.dtype} {tuple(value.shape)}."
            )
    return {target: found[source].float() for source, (target, _) in expected.items()}

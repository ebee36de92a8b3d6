"""The published weights of NiNo's graph network, read from their authors' checkpoints."""

import os

import torch
from torch import Tensor

from .checkpoints import read_state_dict
from .errors import ModelFileError
from .nino_network import ROUNDS, NiNoNetwork

MAX_WIDTH = 1024
MAX_TOKENS = 1 << 20
_TOKENS = "wte_pos_enc_layer.weight"
_IGNORED = f"gnn.convs.{ROUNDS}."  # the third round has no effect on any forecast


def read_released_network(path: str | os.PathLike[str]) -> NiNoNetwork:
    """The network in a checkpoint of the authors, checked; no code in the file is run.

    Args:
        path: `checkpoints/nino_no_posw.pt`, `nino.pt` or `nino_h32.pt` of github.com/SamsungSAILMontreal/nino.

    Raises:
        ModelFileError: if the file cannot be read or is no such checkpoint.
    """
    values = read_state_dict(path)
    embedding = values.get("layer_embed.weight")
    if "edge_mlp.fc.0.weight" in values:
        raise ModelFileError(f"{path} holds WNN+, which needs no graph. Use `load_released_wnn_plus`.")
    width = embedding.shape[-1] if isinstance(embedding, Tensor) and embedding.ndim == 2 else 0
    if not 0 < width <= MAX_WIDTH:
        raise ModelFileError(f"{path} is no checkpoint of NiNo: it has no embedding of types.")
    tokens = values.get(_TOKENS)
    num_tokens = tokens.shape[0] if isinstance(tokens, Tensor) and tokens.ndim == 2 else 0
    if num_tokens > MAX_TOKENS:
        raise ModelFileError(f"{path} embeds {num_tokens} tokens; at most {MAX_TOKENS} are read.")
    names = _names(num_tokens)
    # Of the third round only the presence is looked at, by its prefix.
    own = {key: value for key, value in values.items() if not str(key).startswith(_IGNORED)}
    if own.keys() != names.keys():
        odd = sorted(map(str, own.keys() ^ names.keys()))
        raise ModelFileError(f"{path} is no checkpoint of NiNo: {odd[0]!r} is missing or too much.")
    with torch.device("meta"):
        expected = NiNoNetwork(width, num_tokens).state_dict()
    state: dict[str, Tensor] = {} if num_tokens else {"tokens": torch.zeros(0, width)}
    for source, target in names.items():
        value, shape = own[source], tuple(expected[target].shape)
        if (
            not isinstance(value, Tensor)
            or tuple(value.shape) != shape
            or not value.is_floating_point()
            or not bool(torch.isfinite(value).all())
        ):
            raise ModelFileError(f"{source!r} in {path} must be finite numbers of shape {shape}.")
        state[target] = value.float()
    network = NiNoNetwork(width, num_tokens)
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()


def _names(num_tokens: int) -> dict[str, str]:
    """The authors' names and ours."""
    layers = {"node_proj.fc.0": "positions", "edge_proj.fc.0": "features", "edge_out.fc.0": "head"}
    layers["edge_out.fc.2"] = "out"
    for index in range(ROUNDS):
        conv, update = f"gnn.convs.{index}.", f"gnn.edge_update.{index}."
        layers |= {
            conv + "edge_encoder": f"rounds.{index}.modulate",
            conv + "pre_nns.0.0": f"rounds.{index}.before",
            conv + "post_nns.0.0": f"rounds.{index}.after",
            conv + "lin": f"rounds.{index}.last",
            update + "lin_e": f"rounds.{index}.edge",
            update + "lin_s": f"rounds.{index}.source",
            update + "lin_t": f"rounds.{index}.target",
            update + "lin1": f"rounds.{index}.output",
        }
    names = {"layer_embed.weight": "types"}
    if num_tokens:
        names[_TOKENS] = "tokens"
    for source, target in layers.items():
        names |= {f"{source}.{part}": f"{target}.{part}" for part in ("weight", "bias")}
    return names

"""What part of a network a tensor is, in the fifteen types of the neural graphs of Knyazev et al. 2025."""

import fnmatch
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..forecast import TensorSpec
from .errors import ModelError

NUM_TYPES = 15
DENSE, OTHER, CONVOLUTION, NORM, TOKENS, PLACES, QUERY, KEY, VALUE = range(1, 10)
TYPES = {
    "dense": DENSE,
    "other": OTHER,  # biases too
    "convolution": CONVOLUTION,
    "norm": NORM,
    "token_embedding": TOKENS,
    "position_embedding": PLACES,
    "query": QUERY,
    "key": KEY,
    "value": VALUE,
}
COLUMNS, ROWS = "query_key_value_columns", "query_key_value_rows"  # three matrices side by side, or one upon the other
NAMES = (*TYPES, COLUMNS, ROWS)
# Of two or more axes. A name's last part is its own, the one before that of the module that owns it.
_PATTERNS = (
    (COLUMNS, r"(^|\.)c_attn\.weight$"),  # GPT-2's, which is stored [in, out]
    (ROWS, r"(^|\.)(in_proj_weight|(qkv|in_proj|Wqkv)\.weight)$"),  # torch.nn.MultiheadAttention's, and others
    ("query", r"(^|\.)(q_proj(\.|_)weight|(query|to_q|q)\.weight)$"),
    ("key", r"(^|\.)(k_proj(\.|_)weight|(key|to_k|k)\.weight)$"),
    ("value", r"(^|\.)(v_proj(\.|_)weight|(value|to_v|v)\.weight)$"),
)
_PLACES = r"(^|[._])(wpe|pos|position|positions|positional|pos_embed|pos_embedding)([._]|$)"


def type_name(spec: TensorSpec, overrides: Mapping[str, str]) -> str:
    """The type of a tensor, told from its kind, its shape and its name.

    Args:
        spec: the tensor.
        overrides: types by pattern of names, as the shell's (`*.c_attn.weight`); the first that matches decides.

    Returns:
        One of `NAMES`. Biases, norms' biases and whatever is not known are `other`.
    """
    for pattern, chosen in overrides.items():
        if fnmatch.fnmatchcase(spec.name, pattern):
            return chosen
    is_matrix = len(spec.shape) > 1
    if spec.kind == "norm":
        return "norm" if spec.name.rpartition(".")[2].startswith("weight") else "other"
    if spec.kind == "embedding" or (spec.kind == "other" and is_matrix):
        if re.search(_PLACES, spec.name):
            return "position_embedding"
        return "token_embedding" if spec.kind == "embedding" else "other"
    if spec.kind == "convolution":
        return "convolution"
    if spec.kind == "weight" and is_matrix:
        return next((name for name, pattern in _PATTERNS if re.search(pattern, spec.name)), "dense")
    return "dense" if spec.kind == "weight" else "other"


def type_codes(spec: TensorSpec, name: str, begin: int, end: int) -> int | Tensor:
    """The number of a type, 1 to 9, for the coordinates `begin` to `end` of a tensor.

    Fused matrices hold three types, one `[coordinate]` each; a piece of one that has lost its shape counts as dense.
    """
    if name in TYPES:
        return TYPES[name]
    if len(spec.shape) < 2 or (spec.shape[-1] if name == COLUMNS else spec.shape[0]) % 3:
        return DENSE
    places = torch.arange(begin, end)
    if name == COLUMNS:
        third = places % spec.shape[-1] // (spec.shape[-1] // 3)
    else:
        third = places // (spec.numel // 3)
    return QUERY + third


def require_overrides(name: str, value: object) -> dict[str, str]:
    """Types by pattern, checked.

    Raises:
        ModelError: if it is not a mapping of texts, or a type is unknown.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ModelError(f"`{name}` must map patterns of tensor names to types, got {value!r}.")
    for pattern, chosen in value.items():
        if chosen not in NAMES:
            raise ModelError(f"`{name}` must map to one of {', '.join(NAMES)}, got {chosen!r} for {pattern!r}.")
    return dict(value)

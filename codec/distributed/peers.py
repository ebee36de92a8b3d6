"""Whether all ranks mean the same: compared once at the start, before any packet."""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import warnings
from collections.abc import Mapping

import numpy as np
import torch

from ...forecast import Layout
from ..codec import Codec
from ..config import CodecConfig
from ..errors import ConfigError
from ..modes import policy_to_dict
from ..predictor_choice import predictor_digest
from .wire import Wire

_VERSIONED = ("deadreckon", "torch", "numpy", "constriction")
_MAX_TEXT = 2**24  # bytes of a rank's description


def describe_machine(wire: Wire) -> dict[str, str]:
    """What bit-equality may depend on: library versions, processor, and the kind of device that sends."""
    found = {f"version of {name}": _version(name) for name in _VERSIONED}
    return found | {"processor": platform.machine(), "system": platform.system(), "device kind": wire.device}


def describe_codec(codec: Codec, prefix: str = "") -> dict[str, str]:
    """What ranks must share for packets to mean the same: each tensor and each setting, by name."""
    found = {f"{prefix}stream": codec.stream, "number of tensors": str(len(codec.layout))}
    found |= _describe_layout(codec.layout)
    return found | {f"{prefix}setting {name}": text for name, text in _describe_config(codec.config).items()}


def require_same_codecs(codec: Codec, wire: Wire) -> None:
    """Check that all ranks code the same vectors with the same settings.

    Raises:
        ConfigError: on every rank, naming the first difference and both values.
    """
    require_equal(wire, describe_codec(codec))


def require_equal(wire: Wire, what: Mapping[str, str], lower_promise: Mapping[str, str] | None = None) -> None:
    """Check that all ranks describe the same.

    Args:
        wire: to the other ranks.
        what: by name; must be equal.
        lower_promise: by name; where these differ, there is a warning on every rank. Parameters may then differ
            between ranks by rounding, if a predictor or the sum of packets rounds differently on unlike machines.

    Raises:
        ConfigError: on every rank, naming the first entry that differs and both values.
    """
    difference = _first_difference(wire, what)
    if difference:
        raise ConfigError(f"All ranks must have {difference} Make them equal, then start again.")
    difference = _first_difference(wire, lower_promise or {})
    if difference:
        warnings.warn(
            f"The ranks are unlike machines: they should have {difference} Packets are decoded all the same, but "
            "parameters are no longer promised equal bit for bit; let the comparison of parameters heal them.",
            stacklevel=2,
        )


def _first_difference(wire: Wire, what: Mapping[str, str]) -> str:
    """A sentence on the first entry in which a rank differs from rank 0; empty where there is none."""
    text = json.dumps(what).encode()
    digest = torch.tensor(list(hashlib.sha256(text).digest()), dtype=torch.uint8)
    if all(torch.equal(other, digest) for other in wire.gather(digest)):
        return ""
    lengths = [int(length) for length in wire.gather(torch.tensor([len(text)]))]
    if max(lengths) > _MAX_TEXT:
        raise ConfigError(f"A rank describes itself in {max(lengths)} bytes; at most {_MAX_TEXT} are read.")
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(text)] = torch.tensor(list(text), dtype=torch.uint8)
    found = [
        json.loads(bytes(data[:length].tolist())) for data, length in zip(wire.gather(padded), lengths, strict=True)
    ]
    for rank, other in enumerate(found):
        for name in {**found[0], **other}:
            first, second = found[0].get(name, "none"), other.get(name, "none")
            if first != second:
                return f"the same {name}: rank 0 has {first}, rank {rank} has {second}."
    return ""


def _version(package: str) -> str:
    if package == "torch":
        return torch.__version__
    if package == "numpy":
        return np.__version__
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _describe_layout(layout: Layout) -> dict[str, str]:
    return {f"tensor {index}": f"{spec.name!r} {spec.shape} {spec.dtype}" for index, spec in enumerate(layout.tensors)}


def _describe_config(config: CodecConfig) -> dict[str, str]:
    settings = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    settings["modes"] = policy_to_dict(config.modes)
    settings["predictor"] = predictor_digest(config.predictor)
    # 1 and 1.0 are the same setting
    return {
        name: str(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)
        for name, value in settings.items()
    }

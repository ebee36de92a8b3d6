"""Supermasks as one file: a seed, and one bit a weight and task."""

import json
import os
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ...forecast import ForecastError, Layout
from ..errors import ModelFileError
from ..whole_file import write_whole
from .supermask import Supermasks

FORMAT = "deadreckon.supermasks"
VERSION = 1
OTHER = "other."


def save_supermasks(network: Supermasks, path: str | os.PathLike[str]) -> None:
    """Write the remembered masks, `load_supermasks` is the way back; scores that are being learned are not written.

    One safetensors file: `masks`, bytes `[task, byte]`, the lowest bit the first weight; the module's other tensors
    under `other.`; seed, share and layout as JSON. The file appears under its name complete or not at all.

    Raises:
        ModelFileError: if the file cannot be written.
    """
    about = {
        "format": FORMAT,
        "version": VERSION,
        "kept": network.kept,
        "seed": network.seed,
        "layout": network.layout.to_dict(),
    }
    tensors = {"masks": network.packed.cpu().contiguous()}
    for name, value in network.module.state_dict().items():
        tensors[OTHER + name] = value.detach().cpu().contiguous()
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    write_whole(path, safetensors.torch.save(tensors, {"deadreckon": text}), "supermasks")


def load_supermasks(path: str | os.PathLike[str], module: nn.Module) -> Supermasks:
    """Read what `save_supermasks` wrote into a module of the same architecture, treating the file as untrusted.

    Raises:
        ModelFileError: if it cannot be read, is of another format or version, or does not fit the module.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError as error:
        raise ModelFileError(f"There are no supermasks {path}.") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelFileError(f"{path} is not a file of supermasks: {error}.") from error
    try:
        about: dict[str, Any] = json.loads(metadata.get("deadreckon", ""))
        if about["format"] != FORMAT or about["version"] != VERSION:
            raise ModelFileError(f"it is not of format {FORMAT} version {VERSION}")
        network = Supermasks(module, Layout.from_dict(about["layout"]), about["kept"], about["seed"])
        packed = tensors.pop("masks")
        if packed.dtype != torch.uint8 or tuple(packed.shape[1:]) != tuple(network.packed.shape[1:]):
            raise ModelFileError(f"its masks have shape {tuple(packed.shape)} and type {packed.dtype}")
        network.packed = packed
        network.module.load_state_dict({name.removeprefix(OTHER): value for name, value in tensors.items()})
    except (ForecastError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"The supermasks in {path} cannot be used: {error}.") from error
    return network

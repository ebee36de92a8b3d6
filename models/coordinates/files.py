"""A reduced network as one file: coordinates, seeds, and whatever the coordinates do not express."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ...forecast import ForecastError, Layout
from ..errors import ModelFileError
from ..whole_file import write_whole
from .kinds import make_coordinates
from .reduced_module import ReducedModule
from .start import GivenStart, SeededStart, Start, ZeroStart

FORMAT = "deadreckon.reduced_network"
VERSION = 1
START = "start"
OTHER = "other."


def save_reduced(reduced: ReducedModule, path: str | os.PathLike[str], whole: bool = True) -> None:
    """Write a reduced network; `load_reduced` is the way back, to the last bit.

    One safetensors file: each part of the coordinates in float32, under `other.` each parameter and buffer that they
    leave out, and in its metadata as JSON the kind of coordinates, their options and seeds, the layout, the start, and
    a SHA-256 of all tensors of the network as made from the file. A `GivenStart` is in the file, as `start`, unless
    `whole` says otherwise. The file appears under its name complete or not at all.

    Args:
        reduced: the network.
        path: the file; replaced where it exists. Its folder must exist.
        whole: whether a given start is written too. Without it `load_reduced` must be given the same start.

    Raises:
        ModelFileError: if the file cannot be written, or a coordinate is not finite.
    """
    coordinates = reduced.coordinates
    vector = reduced.vector.detach().cpu()
    if not bool(torch.isfinite(vector).all()):
        raise ModelFileError("Coordinates must be finite to be written. This network has diverged.")
    pieces = coordinates.split(vector)
    tensors = {part.name: piece.clone() for part, piece in zip(coordinates.parts, pieces, strict=True)}
    others = _others(reduced)
    tensors |= {OTHER + name: value for name, value in others.items()}
    start: dict[str, Any] = {"kind": coordinates.start.kind, "digest": coordinates.start.digest}
    if isinstance(coordinates.start, SeededStart):
        start["seed"] = coordinates.start.seed
    elif isinstance(coordinates.start, GivenStart) and whole:
        tensors[START] = coordinates.start.parameters.detach().cpu().float().contiguous()
    about = {
        "format": FORMAT,
        "version": VERSION,
        "kind": coordinates.kind,
        "options": coordinates.options,
        "layout": coordinates.layout.to_dict(),
        "start": start,
        "digest": _network_digest(coordinates.to_parameters(vector), others),
    }
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    write_whole(path, safetensors.torch.save(tensors, {"deadreckon": text}), "reduced network")


def load_reduced(path: str | os.PathLike[str], module: nn.Module, start: Tensor | None = None) -> ReducedModule:
    """Read a reduced network into a module of the same architecture, treating the file as untrusted.

    Args:
        path: what `save_reduced` wrote.
        module: any module with tensors of the same names and shapes; it is changed, its values do not matter.
        start: the given start, `[param]`, where the file was written without it.

    Returns:
        The network, whose every tensor is equal to the saved one's bit for bit.

    Raises:
        ModelFileError: if the file cannot be read, is of another format or version, does not fit the module, or does
            not make the tensors that were saved.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError as error:
        raise ModelFileError(f"There is no reduced network {path}.") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelFileError(f"{path} is not a saved reduced network: {error}.") from error
    about = _read_about(metadata.get("deadreckon", ""), path)
    try:
        found = _start(about["start"], tensors.pop(START, start))
        coordinates = make_coordinates(about["kind"], Layout.from_dict(about["layout"]), about["options"], found)
        pieces: list[Tensor] = []
        for part in coordinates.parts:
            piece = tensors.pop(part.name, None)
            if piece is None or tuple(piece.shape) != part.shape or piece.dtype != torch.float32:
                raise ModelFileError(f"Part {part.name!r} must be a float32 tensor of shape {part.shape}.")
            pieces.append(piece.reshape(-1))
        reduced = ReducedModule(module, coordinates, torch.cat(pieces))
        _load_others(reduced, {name.removeprefix(OTHER): value for name, value in tensors.items()})
    except (ForecastError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"The reduced network in {path} cannot be used: {error}") from error
    made = _network_digest(reduced.coordinates.to_parameters(reduced.vector.detach().cpu()), _others(reduced))
    if made != about["digest"]:
        raise ModelFileError(f"{path} does not make the network that was saved: it is damaged.")
    return reduced


def _others(reduced: ReducedModule) -> dict[str, Tensor]:
    """Parameters and buffers of the wrapped module that the coordinates leave out."""
    return {name: value.detach().cpu().contiguous() for name, value in reduced.module.state_dict().items()}


def _load_others(reduced: ReducedModule, others: Mapping[str, Tensor]) -> None:
    mine = reduced.module.state_dict()
    if mine.keys() != others.keys():
        wrong = sorted(mine.keys() ^ others.keys())
        raise ModelFileError(f"The module and the file differ in the tensor {wrong[0]!r}.")
    for name, value in others.items():
        if value.shape != mine[name].shape or value.dtype != mine[name].dtype:
            raise ModelFileError(
                f"{name!r} must have shape {tuple(mine[name].shape)} and type {mine[name].dtype}, got "
                f"{tuple(value.shape)} and {value.dtype}."
            )
    reduced.module.load_state_dict(dict(others))


def _network_digest(parameters: Tensor, others: Mapping[str, Tensor]) -> str:
    """SHA-256 of every number of a network."""
    text = hashlib.sha256(parameters.numpy().astype("<f4", copy=False).tobytes())
    for name in sorted(others):
        text.update(f"\0{name}\0{others[name].dtype}\0{tuple(others[name].shape)}\0".encode())
        text.update(others[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return text.hexdigest()


def _start(about: Mapping[str, Any], given: Tensor | None) -> Start:
    kind = about["kind"]
    if kind == ZeroStart.kind:
        return ZeroStart()
    if kind == SeededStart.kind:
        return SeededStart(about["seed"])
    if kind != GivenStart.kind:
        raise ModelFileError(f"There is no start {kind!r}.")
    if given is None:
        raise ModelFileError("It was written without its start. Give the pretrained parameters as `start`.")
    start = GivenStart(given)
    if start.digest != about["digest"]:
        raise ModelFileError("The start is another one than the network was trained from.")
    return start


def _read_about(text: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        about = json.loads(text)
        if about["format"] != FORMAT:
            raise KeyError("format")
        if not isinstance(about["kind"], str) or not isinstance(about["options"], dict) or "digest" not in about:
            raise TypeError("wrong types")
        if not isinstance(about["start"], dict) or not isinstance(about["layout"], dict):
            raise TypeError("wrong types")
        version = about["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} is a safetensors file, but does not describe a reduced network.") from error
    if version != VERSION:
        raise ModelFileError(f"{path} has format version {version!r}; this library reads version {VERSION}.")
    return about

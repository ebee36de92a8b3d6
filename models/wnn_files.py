"""The published weights of WNN, read from their authors' files or from a plain archive of the same arrays."""

import importlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from .errors import ModelFileError
from .options import require_integer
from .wnn import RELEASED_EPSILON, RELEASED_SPACINGS, WNN, Nowcasters, Variant

KINDS = ("conv", "fc", "bias")  # in the order of the networks in `Nowcasters`
LAYERS = ("in", "compress", "add", "scale", "rate", "out")
SHAPES: dict[str, tuple[int, ...]] = {
    f"{stream}_{layer}_{part}": shape
    for stream, num_inputs in (("value", 5), ("diff", 4))
    for layer, (rows, columns) in zip(
        LAYERS, ((num_inputs, 64), (64, 8), (8, 64), (8, 64), (8, 64), (64, 32)), strict=True
    )
    for part, shape in (("w", (rows, columns)), ("b", (columns,)))
} | {"head_w": (64, 1), "head_b": (1,)}
Arrays = Mapping[str, np.ndarray]
Files = Mapping[str, str | os.PathLike[str]]


def load_released_wnn(
    source: str | os.PathLike[str] | Files, spacing: int, variant: Variant = "corrected", stream: str = "weights"
) -> WNN:
    """WNN with its authors' weights, which you have to bring: they have no licence and are not part of this library.

    They are in github.com/jjh6297/WNN (`CNN/NWNN_Conv_13.h5`, `NWNN_FC_13.h5`, `NWNN_Bias_13.h5`), trained on one value
    an epoch under Adam, to forecast five epochs. So they forecast up to five row spacings ahead; a forecast of less is
    the same change in proportion. Nobody measured how far off they are: the scale is that of persistence,
    sigma sqrt(horizon).

    Args:
        source: a folder with the authors' three files, or with `wnn_conv.npz`, `wnn_fc.npz` and `wnn_bias.npz`, each
            with arrays `weight_value_in_w`, ... [inputs, outputs]; or the three files by `conv`, `fc` and `bias`.
        spacing: optimiser steps between the rows of the windows it will be given; an epoch's, to use it as published.
        variant: `corrected`, or `released` for what the authors' code does; see `WNN`.
        stream: the stream it forecasts.

    Returns:
        A forecaster that is fitted.

    Raises:
        ModelFileError: if a file is missing, cannot be read, or does not hold one of these networks; or if `h5py`, with
            which the authors' files are read, is not installed.
        ModelError: if `spacing` or `variant` is impossible.
    """
    forecaster = WNN(variant=variant, epsilon=RELEASED_EPSILON, stream=stream)
    horizons = torch.tensor([RELEASED_SPACINGS * require_integer("spacing", spacing, 1)])
    network = cast(Nowcasters, forecaster.build(horizons, spacing))
    files = _files_in(Path(source)) if isinstance(source, str | os.PathLike) else source
    if set(files) != set(KINDS):
        raise ModelFileError(f"The files of WNN are those of {', '.join(KINDS)}, got {', '.join(sorted(files))}.")
    for index, kind in enumerate(KINDS):
        network.nets[index].load_state_dict(_state_of(_read(Path(files[kind]))))
    network.trained.fill_(True)
    forecaster.take_over(network, horizons, spacing)
    return forecaster


def _files_in(folder: Path) -> dict[str, Path]:
    """The three files of a folder, the authors' where both forms are there."""
    theirs = {kind: folder / f"NWNN_{kind.upper() if kind == 'fc' else kind.capitalize()}_13.h5" for kind in KINDS}
    plain = {kind: folder / f"wnn_{kind}.npz" for kind in KINDS}
    for files in (theirs, plain):
        if all(path.is_file() for path in files.values()):
            return files
    raise ModelFileError(
        f"{folder} must hold {', '.join(path.name for path in theirs.values())}, "
        f"or {', '.join(path.name for path in plain.values())}."
    )


def _read(path: Path) -> Arrays:
    """The arrays of one network, checked."""
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_h5(path)
    if arrays.keys() != SHAPES.keys():
        odd = sorted(arrays.keys() ^ SHAPES.keys())
        raise ModelFileError(f"{path} does not hold a network of WNN: {odd[0]!r} is missing or too much.")
    for name, shape in SHAPES.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ModelFileError(
                f"{name!r} in {path} must be finite numbers of shape {shape}, got {array.dtype} {array.shape}."
            )
    return arrays


def _read_npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = [name for name in archive.files if name.startswith("weight_")]
            return {name.removeprefix("weight_"): archive[name] for name in names}
    except FileNotFoundError as error:
        raise ModelFileError(f"There is no file {path}.") from error
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{path} is not an archive of arrays: {error}.") from error


def _read_h5(path: Path) -> Arrays:
    """Keras's weights: its dense layers are numbered in the order in which the authors made them.

    That order, not the one in which the file lists them, is: first stream, second stream, head; within a stream `in`,
    `compress`, `add`, `scale`, `rate`, `out`.
    """
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError as error:
        raise ModelFileError(f"{path} is an HDF5 file. Install `h5py` to read it.") from error
    if not path.is_file():
        raise ModelFileError(f"There is no file {path}.")
    try:
        with h5py.File(path, "r") as file:
            group = file["model_weights"] if "model_weights" in file else file
            dense = sorted((name for name in group if name.startswith("dense_")), key=lambda name: int(name[6:]))
            places = [*(f"{stream}_{layer}" for stream in ("value", "diff") for layer in LAYERS), "head"]
            if len(dense) != len(places):
                raise ModelFileError(
                    f"{path} does not hold a network of WNN: it has {len(dense)} layers, not {len(places)}."
                )
            return {
                f"{place}_{part}": np.asarray(group[f"{name}/{name}/{leaf}:0"])
                for place, name in zip(places, dense, strict=True)
                for part, leaf in (("w", "kernel"), ("b", "bias"))
            }
    except ModelFileError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise ModelFileError(f"{path} does not hold a network of WNN: {error}.") from error


def _state_of(arrays: Arrays) -> dict[str, torch.Tensor]:
    """The arrays as a `Nowcaster` names them, transposed, its `expand` made of `add`, `scale` and `rate`."""
    state: dict[str, torch.Tensor] = {}
    for stream, name in (("value", "values"), ("diff", "differences")):
        for layer, part in (("inner", ("in",)), ("compress", ("compress",)), ("outer", ("out",))):
            _join(state, f"{name}.{layer}", [f"{stream}_{each}" for each in part], arrays)
        _join(state, f"{name}.expand", [f"{stream}_{each}" for each in ("add", "scale", "rate")], arrays)
    _join(state, "head", ["head"], arrays)
    return state


def _join(state: dict[str, torch.Tensor], target: str, sources: list[str], arrays: Arrays) -> None:
    weights = np.concatenate([arrays[f"{source}_w"].T for source in sources])
    biases = np.concatenate([arrays[f"{source}_b"] for source in sources])
    state[f"{target}.weight"] = torch.tensor(weights, dtype=torch.float32)
    state[f"{target}.bias"] = torch.tensor(biases, dtype=torch.float32)

"""Forecasters on disk: one safetensors file each, no pickle."""

import json
import os

import safetensors
import safetensors.torch
from torch import Tensor

from ..forecast import ForecastError
from .closed_form import ClosedForm
from .errors import ModelFileError
from .fitting import FittableForecaster
from .registry import make_forecaster
from .whole_file import write_whole

FORMAT = "deadreckon.forecaster"
VERSION = 1


def save_forecaster(forecaster: ClosedForm | FittableForecaster, path: str | os.PathLike[str]) -> None:
    """Write a forecaster; `load_forecaster` is the way back, to the last bit.

    The file holds what `state_dict` gives as safetensors, and name, options (the stream is one of them) and format
    version as JSON in their metadata. It appears under its name complete or not at all.

    Args:
        forecaster: one that `make_forecaster` can make, fitted or not.
        path: the file; replaced where it exists. Its folder must exist.

    Raises:
        ModelFileError: if the file cannot be written.
    """
    state = forecaster.state_dict() if isinstance(forecaster, FittableForecaster) else {}
    about = {"format": FORMAT, "version": VERSION, "name": forecaster.name, "options": forecaster.options}
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    content = safetensors.torch.save(tensors, {"deadreckon": json.dumps(about, sort_keys=True)})
    write_whole(path, content, "forecaster")


def load_forecaster(path: str | os.PathLike[str]) -> ClosedForm | FittableForecaster:
    """Read a forecaster that `save_forecaster` wrote, treating the file as untrusted.

    Raises:
        ModelFileError: if it cannot be read, is of another format or version, names an unknown forecaster or option, or
            holds tensors that do not fit.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            state: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}
    except FileNotFoundError as error:
        raise ModelFileError(f"There is no forecaster {path}.") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelFileError(f"{path} is not a saved forecaster: {error}.") from error
    name, options = _read_about(metadata.get("deadreckon", ""), path)
    try:
        forecaster = make_forecaster(name, **options)
        if isinstance(forecaster, FittableForecaster):
            forecaster.load_state_dict(state)
        elif state:
            raise ModelFileError(f"{name!r} has nothing to load, got {sorted(state)[:5]}.")
    except ForecastError as error:
        raise ModelFileError(f"The forecaster in {path} cannot be used: {error}") from error
    return forecaster


def _read_about(text: str, path: str | os.PathLike[str]) -> tuple[str, dict[str, object]]:
    """Name and options from the metadata."""
    try:
        about = json.loads(text)
        if about["format"] != FORMAT:
            raise KeyError("format")
        version, name, options = about["version"], about["name"], about["options"]
        if not isinstance(name, str) or not isinstance(options, dict):
            raise TypeError("wrong types")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} is a safetensors file, but does not describe a forecaster.") from error
    if version != VERSION:
        raise ModelFileError(f"{path} has format version {version!r}; this library reads version {VERSION}.")
    return name, options

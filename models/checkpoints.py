"""Reads the checkpoints of other projects, without running code in them."""

import os
import pickle
from typing import cast

import torch

from .errors import ModelFileError


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, object]:
    """What a checkpoint of torch has under `state_dict`; keys and values are still to be checked.

    Raises:
        ModelFileError: if the file cannot be read, holds more than plain tensors and values, or has no such entry.
    """
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelFileError(f"There is no checkpoint {path}.") from error
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]  # an empty file has an error without a text
        raise ModelFileError(f"{path} is not a checkpoint of plain tensors: {why}") from error
    found = cast(dict[object, object], content).get("state_dict") if isinstance(content, dict) else None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path} is a file of torch, but holds no 'state_dict' of tensors.")
    return cast(dict[str, object], found)

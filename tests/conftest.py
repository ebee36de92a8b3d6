"""Settings shared by all tests."""

import os

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("ci")


def data_folder(*names: str) -> str:
    """The folder that `DEADRECKON_DATA` names; skips the test where it lacks one of `names`, or fails it in CI."""
    return _folder("DEADRECKON_DATA", names)


def golden_folder(*names: str) -> str:
    """The same for `DEADRECKON_GOLDEN`, the outputs of peer implementations."""
    return _folder("DEADRECKON_GOLDEN", names)


def _folder(variable: str, names: tuple[str, ...]) -> str:
    folder = os.environ.get(variable, "")
    missing = [name for name in names if not os.path.exists(os.path.join(folder, name))]
    if folder and not missing:
        return folder
    reason = f"set {variable} to a folder that holds {', '.join(names)}"
    if os.environ.get("DEADRECKON_REQUIRE_DATA"):
        pytest.fail(f"DEADRECKON_REQUIRE_DATA is set: {reason}")
    pytest.skip(reason)

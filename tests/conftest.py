"""Settings shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("ci")


@pytest.fixture(autouse=True)
def threads_are_left_as_found() -> Iterator[None]:
    """Rounding depends on the number of threads: a test that leaves another one behind breaks those that follow."""
    yield
    assert torch.get_num_threads() == 1


@pytest.fixture
def two_threads(threads_are_left_as_found: None) -> Iterator[None]:
    """Torch computes with two threads during the test."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not drawn, which takes most of their time: their files are there and nearly empty."""
    from matplotlib.figure import Figure

    def savefig(figure: Figure, path: Path, **options: Any) -> None:
        path.write_bytes(b"\x89PNG" if path.suffix == ".png" else b"<svg></svg>")

    monkeypatch.setattr(Figure, "savefig", savefig)


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

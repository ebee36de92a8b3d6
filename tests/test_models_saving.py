"""Forecasters on disk."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from problems import fitted, small_layout
from torch import Tensor

from deadreckon.models import ModelFileError, forecaster_names, load_forecaster, make_forecaster, save_forecaster
from deadreckon.models.fitting import FittableForecaster

LAYOUT = small_layout()


def write(path: Path, about: object, tensors: dict[str, Tensor] | None = None) -> Path:
    safetensors.torch.save_file(tensors or {}, path, {"deadreckon": json.dumps(about)})
    return path


def about(**changes: object) -> dict[str, object]:
    return {"format": "deadreckon.forecaster", "version": 1, "name": "hold", "options": {}} | changes


@pytest.mark.parametrize("name", forecaster_names())
def test_files_are_equal_for_equal_forecasters(name: str, tmp_path: Path) -> None:
    """What was loaded and saved again is the same file; nothing else is left in the folder."""
    save_forecaster(fitted(make_forecaster(name), LAYOUT), tmp_path / "first")
    save_forecaster(load_forecaster(tmp_path / "first"), tmp_path / "second")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_unfitted_forecasters_can_be_saved(tmp_path: Path) -> None:
    """An unfitted learned forecaster comes back unfitted, with its options."""
    save_forecaster(make_forecaster("learned_linear", history=7), tmp_path / "one")
    loaded = load_forecaster(tmp_path / "one")
    assert not loaded.fitted
    assert loaded.history == 7


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails, the file that was there stays, and no temporary one remains."""
    path = tmp_path / "one"
    save_forecaster(make_forecaster("hold"), path)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelFileError, match="Cannot write the forecaster .*: No space left on device"):
        save_forecaster(make_forecaster("linear"), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["one"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """Neither writing to nor reading from a folder that is not there goes unnoticed."""
    with pytest.raises(ModelFileError, match="Cannot write the forecaster .*none/one"):
        save_forecaster(make_forecaster("hold"), tmp_path / "none" / "one")
    with pytest.raises(ModelFileError, match="There is no forecaster .*none/one"):
        load_forecaster(tmp_path / "none" / "one")


def test_other_files_are_refused(tmp_path: Path) -> None:
    """Files that are not safetensors, cut short, or safetensors of something else are named as such."""
    path = tmp_path / "one"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ModelFileError, match="is not a saved forecaster"):
        load_forecaster(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="is not a saved forecaster"):
        load_forecaster(path)
    # A header that claims more than there is.
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelFileError, match="is not a saved forecaster"):
        load_forecaster(path)
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ModelFileError, match="does not describe a forecaster"):
        load_forecaster(path)
    for wrong in ([], about(format="other"), about(name=3), about(options=[]), {"format": "deadreckon.forecaster"}):
        with pytest.raises(ModelFileError, match="does not describe a forecaster"):
            load_forecaster(write(path, wrong))
    with pytest.raises(ModelFileError, match="has format version 2; this library reads version 1"):
        load_forecaster(write(path, about(version=2)))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A file that was cut anywhere is an error, never a forecaster."""
    whole = tmp_path / "whole"
    save_forecaster(fitted(make_forecaster("learned_linear", history=2), LAYOUT), whole)
    content = whole.read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(ModelFileError, match="is not a saved forecaster"):
            load_forecaster(tmp_path / "cut")


def test_unknown_forecasters_and_options_are_refused(tmp_path: Path) -> None:
    """Names, options and tensors that this library does not know are refused with the reason."""
    path = tmp_path / "one"
    with pytest.raises(ModelFileError, match="cannot be used: There is no forecaster 'cubic'"):
        load_forecaster(write(path, about(name="cubic")))
    with pytest.raises(ModelFileError, match="'hold' has no option 'code'"):
        load_forecaster(write(path, about(options={"code": "import os"})))
    with pytest.raises(ModelFileError, match="`history` must be a whole number"):
        load_forecaster(write(path, about(options={"history": "2"})))
    with pytest.raises(ModelFileError, match="'hold' has nothing to load, got"):
        load_forecaster(write(path, about(), {"extra": torch.zeros(1)}))


@pytest.mark.parametrize("options", [{"name": "learned_linear"}, {"name": "neural_ode", "coordinates": "pca"}])
def test_damaged_states_are_refused(options: dict, tmp_path: Path) -> None:
    """A tensor that is missing, unknown, of another type or shape, or not finite is named."""
    name = options["name"]
    forecaster = fitted(make_forecaster(**options), LAYOUT)
    assert isinstance(forecaster, FittableForecaster)
    state = forecaster.state_dict()
    description = about(name=name, options=forecaster.options)
    path = tmp_path / "one"
    for key, value in state.items():
        missing = {other: entry for other, entry in state.items() if other != key}
        with pytest.raises(ModelFileError, match=f"'{name}' has the tensors|'{name}' must be torch"):
            load_forecaster(write(path, description, missing))
        changed = {**state, key: value.to(torch.float16)}
        with pytest.raises(ModelFileError, match=f"'.*' of '{name}' must be torch"):
            load_forecaster(write(path, description, changed))
        if value.ndim and key not in ("groups", "scale.groups"):
            with pytest.raises(ModelFileError, match="must be torch|has the tensors|one name for each|must name each"):
                load_forecaster(write(path, description, {**state, key: torch.stack([value, value])}))
        if value.is_floating_point():
            with pytest.raises(ModelFileError, match="not finite"):
                load_forecaster(write(path, description, {**state, key: torch.full_like(value, torch.nan)}))
    with pytest.raises(ModelFileError, match="has the tensors"):
        load_forecaster(write(path, description, {**state, "extra": torch.zeros(1)}))
    with pytest.raises(ModelFileError, match="'horizons' must be positive and ascending"):
        horizons = "horizons" if "horizons" in state else "scale.horizons"
        load_forecaster(write(path, description, {**state, horizons: state[horizons].flip(0)}))
    with pytest.raises(ModelFileError, match="must be at least 1|must be above 0"):
        load_forecaster(write(path, description, {**state, "spacing": torch.zeros_like(state["spacing"])}))
    with pytest.raises(ModelFileError, match="variance'.* at least 0"):
        variance = "variance" if "variance" in state else "scale.variance"
        load_forecaster(write(path, description, {**state, variance: -1 - state[variance]}))


def test_options_that_do_not_fit_the_tensors_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    """A file that claims a network of a trillion weights is refused for its shapes, without allocating any."""
    forecaster = fitted(make_forecaster("neural_ode", coordinates="pca"), LAYOUT)
    assert isinstance(forecaster, FittableForecaster)
    huge = about(name="neural_ode", options=forecaster.options | {"width": 10**6, "rank": 10**6})
    with pytest.raises(ModelFileError, match="'basis' of 'neural_ode' must be torch.float32 of shape .1000000, 41."):
        load_forecaster(write(tmp_path / "one", huge, forecaster.state_dict()))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (b"\xff\xfe", "'groups' is not a list of names"),
        (b"{}", "'groups' is not a list of names"),
        (b"[1]", "'groups' is not a list of names"),
        (b"[]", "'groups' must have one name for each of"),
    ],
)
def test_damaged_group_names_are_refused(groups: bytes, message: str, tmp_path: Path) -> None:
    """The names of `learned_linear`'s groups are checked like everything else."""
    forecaster = fitted(make_forecaster("learned_linear"), LAYOUT)
    assert isinstance(forecaster, FittableForecaster)
    state = forecaster.state_dict() | {"groups": torch.tensor(list(groups), dtype=torch.uint8)}
    with pytest.raises(ModelFileError, match=message):
        load_forecaster(write(tmp_path / "one", about(name="learned_linear", options=forecaster.options), state))

"""WNN: the network, its variants, and its authors' files."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import golden_folder
from problems import cases_of, drifting_rows, fitted, small_layout, window_of

from deadreckon.models import WNN, Budget, FittingError, ModelError, ModelFileError, fit_forecaster, load_released_wnn
from deadreckon.models.coordinate_network import CoordinateNetwork
from deadreckon.models.wnn import BIAS, CONVOLUTION, DENSE, RELEASED_EPSILON, Nowcasters, Variant, normalised
from deadreckon.models.wnn_files import KINDS, SHAPES, _state_of

KIND_OF = {"conv": "convolution", "fc": "weight", "bias": "bias"}
Arrays = Mapping[str, np.ndarray]


def reference(history: np.ndarray, weights: Arrays, as_released: bool) -> dict[str, np.ndarray]:
    """The published formulas in float64, one scalar at a time; `history` is `[time, scalar]`."""
    w = {name: weights[name].astype(np.float64) for name in SHAPES}

    def stream(z: np.ndarray, name: str) -> np.ndarray:
        def layer(x: np.ndarray, part: str) -> np.ndarray:
            return x @ w[f"{name}_{part}_w"] + w[f"{name}_{part}_b"]

        a = layer(z, "in")
        c = np.maximum(layer(a, "compress"), 0)
        t = layer(c, "add") + layer(c, "scale") * np.exp(layer(c, "rate") * a)
        out = layer(t, "out")
        return np.where(out > 0, out, 0.3 * out)

    xs, ds, outs, forecasts = [], [], [], []
    for column in history.astype(np.float64).T:
        r = np.ptp(column - column[0]) + 1e-8
        s = r + 1e-5
        x = (column - column[0]) / s / 2
        d = x[1:] - x[:-1]
        o = np.tanh(np.concatenate((stream(x, "value"), stream(d, "diff"))) @ w["head_w"] + w["head_b"])[0]
        xs.append(x)
        ds.append(d)
        outs.append(o)
        forecasts.append(((column[4] if as_released else x[4]) + o) * s * 2 + column[0])
    return {"x": np.stack(xs), "d": np.stack(ds), "o": np.array(outs), "forecast": np.array(forecasts)}


def some_weights(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: (0.3 * generator.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}


def save_npz(path: Path, arrays: Arrays) -> None:
    with_others: dict[str, Any] = {"history": np.zeros(3)} | {f"weight_{key}": value for key, value in arrays.items()}
    np.savez(path, **with_others)


def write_npz(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    weights = {kind: some_weights(index) for index, kind in enumerate(KINDS)}
    for kind, arrays in weights.items():
        save_npz(folder / f"wnn_{kind}.npz", arrays)
    return weights


def forecast_of(forecaster: WNN, history: np.ndarray, kind: str, horizon: int = 100, spacing: int = 20) -> np.ndarray:
    layout = small_layout({f"x.{KIND_OF[kind]}": (history.shape[1],)})
    window = window_of(torch.from_numpy(history), range(0, 5 * spacing, spacing), layout)
    (found,) = forecaster.forecast(window, [horizon])
    return found.mean.double().numpy()


# --- the network


def test_each_network_has_the_papers_size() -> None:
    """9,425 parameters with one output."""
    network = WNN().build(torch.tensor([5]), 1)
    assert isinstance(network, Nowcasters)
    for net in network.nets:
        assert sum(value.numel() for value in net.parameters()) == 9425


@pytest.mark.parametrize("variant", ["corrected", "released"])
@pytest.mark.parametrize("kind", KINDS)
def test_forecasts_are_those_of_the_formulas(kind: str, variant: Variant, tmp_path: Path) -> None:
    """A loaded network agrees with a slow float64 version of the formulas, and only a bias has a variant of its own."""
    weights = write_npz(tmp_path)
    history = drifting_rows(5, 40, torch.Generator().manual_seed(1)).numpy()
    forecaster = load_released_wnn(tmp_path, 20, variant)
    expected = reference(history, weights[kind], as_released=variant == "released" and kind == "bias")
    np.testing.assert_allclose(forecast_of(forecaster, history, kind), expected["forecast"], atol=2e-6)
    seen = normalised(torch.from_numpy(history), RELEASED_EPSILON)
    np.testing.assert_allclose(seen.values.T, expected["x"], atol=1e-12)
    np.testing.assert_allclose(seen.differences.T, expected["d"], atol=1e-12)
    half = forecast_of(forecaster, history, kind, horizon=50)
    np.testing.assert_allclose(half, (history[4] + expected["forecast"]) / 2, atol=2e-6)


def test_what_stands_still_moves_in_the_released_variant_only(tmp_path: Path) -> None:
    """The authors' code moves a constant; the corrected variant holds it, with a scale of zero."""
    write_npz(tmp_path)
    history = np.full((5, 3), 0.5, dtype=np.float32)
    assert np.array_equal(forecast_of(load_released_wnn(tmp_path, 20), history, "conv"), history[4])
    assert (forecast_of(load_released_wnn(tmp_path, 20, "released"), history, "conv") != 0.5).all()


def test_the_scale_of_released_weights_is_that_of_persistence(tmp_path: Path) -> None:
    """Nobody measured it, so it is the motion of one step times the root of the horizon."""
    write_npz(tmp_path)
    rows = drifting_rows(5, 6, torch.Generator().manual_seed(1))
    window = window_of(rows, range(0, 100, 20), small_layout({"x.weight": (6,)}))
    (found,) = load_released_wnn(tmp_path, 20).forecast(window, [40])
    expected = (rows.diff(dim=0).square().mean(dim=0) / 20 * 40).sqrt()
    torch.testing.assert_close(found.scale, expected)


def test_each_kind_has_its_network() -> None:
    """Convolutions; dense matrices, embeddings and what has more axes; biases, norms and what has fewer."""
    layout = small_layout(
        {"a.convolution": (2, 2, 3, 3), "a.weight": (2, 2), "a.embedding": (3, 2), "a.bias": (2,), "a.norm": (2,)}
        | {"cls": (1, 4), "gain": ()}
    )
    found = [WNN().groups(spec, 0, spec.numel) for spec in layout]
    assert found == [CONVOLUTION, DENSE, DENSE, BIAS, BIAS, DENSE, BIAS]


def test_kinds_that_were_not_there_use_another_network() -> None:
    """Trained without convolutions, it takes them for dense matrices; trained with biases only, everything for them."""
    forecaster = fitted(WNN(), small_layout({"a.weight": (6, 5), "a.bias": (6,)}))
    rows = drifting_rows(5, 8, torch.Generator().manual_seed(3))
    (dense,), (other,), (bias,) = (
        forecaster.forecast(window_of(rows, range(0, 10, 2), small_layout({f"b.{kind}": (8,)})), [12])
        for kind in ("weight", "convolution", "bias")
    )
    assert torch.equal(dense.mean, other.mean)
    assert not torch.equal(dense.mean, bias.mean)
    biases = fitted(WNN(), small_layout({"a.bias": (6,)}))
    window = window_of(rows, range(0, 10, 2), small_layout({"b.weight": (8,)}))
    (found,) = biases.forecast(window, [12])
    assert bool((found.mean != rows[-1]).any())


def test_networks_are_trained_on_their_kind_alone() -> None:
    """Training on dense matrices leaves the other networks as they were."""
    forecaster, layout = WNN(), small_layout({"a.weight": (6, 5)})
    rows = drifting_rows(30, layout.size, torch.Generator().manual_seed(5))
    cases = cases_of(rows, range(0, 60, 2), 5, [2, 12], layout)
    fit_forecaster(forecaster, cases, Budget(iterations=2), torch.Generator().manual_seed(1))
    fresh = WNN().build(torch.tensor([2, 12]), 2)
    with torch.no_grad():
        WNN().initialise(fresh, torch.Generator().manual_seed(1))
    state = forecaster.state_dict()
    for name, value in fresh.named_parameters():
        assert torch.equal(state[f"network.{name}"], value) == (not name.startswith(f"nets.{DENSE}."))


def test_forecasts_reach_no_farther_than_two_ranges_in_five_spacings() -> None:
    """However sure the network is, a forecast goes two ranges for five spacings or less, and in proportion beyond."""
    forecaster = fitted(WNN(), small_layout({"a.weight": (6, 5)}), spacing=2)  # horizons 2 and 12
    assert isinstance(forecaster, CoordinateNetwork)
    state = forecaster.state_dict()
    state[f"network.nets.{DENSE}.head.bias"] = torch.full((2,), 50.0)
    forecaster.load_state_dict(state)
    rows = drifting_rows(5, 8, torch.Generator().manual_seed(3))
    extent = rows.amax(dim=0) - rows.amin(dim=0)
    window = window_of(rows, range(0, 10, 2), small_layout({"b.weight": (8,)}))
    near, far = forecaster.forecast(window, [2, 12])
    torch.testing.assert_close(near.mean - rows[-1], 2 * extent)
    torch.testing.assert_close(far.mean - rows[-1], 2 * extent * 6 / 5)


def test_the_penalty_is_the_authors() -> None:
    """1e-6 on the weights and 0.1 on the offsets of each stream's outer layers, of networks that train."""
    network = WNN().build(torch.tensor([5]), 1)
    assert isinstance(network, Nowcasters)
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(0.5)
    network.trained[DENSE] = True
    found = WNN().penalty(network)
    assert found is not None
    weights, offsets = 5 * 64 + 64 * 32 + 4 * 64 + 64 * 32, 2 * (64 + 32)
    assert float(found.detach()) == pytest.approx(0.5 * (1e-6 * weights + 0.1 * offsets), rel=1e-5)


def test_the_released_variant_is_not_fitted() -> None:
    """It repeats what the authors' code does; fitting it is an error, and it stays unfitted."""
    forecaster, layout = WNN(variant="released"), small_layout()
    cases = cases_of(drifting_rows(30, layout.size, torch.Generator()), range(30), 5, [2], layout)
    with pytest.raises(FittingError, match="Fit the corrected one"):
        fit_forecaster(forecaster, cases, Budget(), torch.Generator())
    assert not forecaster.fitted
    with pytest.raises(ModelError, match="`variant` must be one of 'corrected', 'released', got 'fixed'"):
        WNN(variant="fixed")  # type: ignore[arg-type]


# --- files


def write_h5(path: Path, weights: Arrays, first: int) -> None:
    """As Keras 2.2 wrote it: dense layers numbered on from `first`, beside layers without weights."""
    h5py: Any = pytest.importorskip("h5py")
    places = [f"{stream}_{part}" for stream in ("value", "diff") for part in "in compress add scale rate out".split()]
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "2.2.4"
        file.create_group("multiply_5")
        for number, place in enumerate([*places, "head"], start=first):
            group = file.create_group(f"dense_{number}").create_group(f"dense_{number}")
            group["kernel:0"], group["bias:0"] = weights[f"{place}_w"], weights[f"{place}_b"]


def test_the_authors_form_and_the_plain_one_are_read_alike(tmp_path: Path) -> None:
    """HDF5 files with layers numbered across a power of ten give the networks that archives of arrays give."""
    plain, theirs = tmp_path / "plain", tmp_path / "theirs"
    plain.mkdir()
    theirs.mkdir()
    weights = write_npz(plain)
    for first, kind, name in ((1, "conv", "Conv"), (93, "fc", "FC"), (40, "bias", "Bias")):
        write_h5(theirs / f"NWNN_{name}_13.h5", weights[kind], first)
    first, second = load_released_wnn(plain, 20).state_dict(), load_released_wnn(theirs, 20).state_dict()
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key])
    mixed = {"conv": plain / "wnn_conv.npz", "fc": theirs / "NWNN_FC_13.h5", "bias": str(plain / "wnn_bias.npz")}
    assert torch.equal(
        load_released_wnn(mixed, 20).state_dict()["network.nets.1.head.weight"], first["network.nets.1.head.weight"]
    )


def test_without_h5py_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 files need a package that is not a dependency."""
    for name in ("Conv", "FC", "Bias"):
        (tmp_path / f"NWNN_{name}_13.h5").touch()

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModelFileError, match="Install `h5py`"):
        load_released_wnn(tmp_path, 20)


def test_files_that_are_no_networks_are_refused(tmp_path: Path) -> None:
    """Missing files, other formats, other arrays, shapes, types and values: each is an error that names it."""
    with pytest.raises(ModelFileError, match=r"must hold NWNN_Conv_13.h5, NWNN_FC_13.h5, NWNN_Bias_13.h5, or wnn_conv"):
        load_released_wnn(tmp_path, 20)
    weights = write_npz(tmp_path)["conv"]
    path = tmp_path / "wnn_conv.npz"
    for change, message in (
        ({"head_w": np.zeros((64, 2), np.float32)}, r"'head_w' in .* must be finite numbers of shape \(64, 1\)"),
        ({"head_b": np.array([1], np.int64)}, "'head_b' in .* must be finite numbers of shape"),
        ({"value_in_b": np.full(64, np.nan, np.float32)}, "'value_in_b' in .* must be finite numbers"),
        ({"more": np.zeros(1)}, "does not hold a network of WNN: 'more' is missing or too much"),
        ({"head_b": np.array([None], dtype=object)}, "is not an archive of arrays"),
    ):
        save_npz(path, {**weights, **change})
        with pytest.raises(ModelFileError, match=message):
            load_released_wnn(tmp_path, 20)
    save_npz(path, {key: value for key, value in weights.items() if key != "diff_out_w"})
    with pytest.raises(ModelFileError, match="'diff_out_w' is missing or too much"):
        load_released_wnn(tmp_path, 20)
    path.write_bytes(b"not an archive")
    with pytest.raises(ModelFileError, match="is not an archive of arrays"):
        load_released_wnn(tmp_path, 20)
    with pytest.raises(ModelFileError, match="There is no file"):
        load_released_wnn({"conv": tmp_path / "none.npz", "fc": path, "bias": path}, 20)
    with pytest.raises(ModelFileError, match="The files of WNN are those of conv, fc, bias, got conv"):
        load_released_wnn({"conv": path}, 20)
    with pytest.raises(ModelError, match="`spacing` must be a whole number of at least 1, got 0"):
        load_released_wnn(tmp_path, 0)


def test_hdf5_files_that_are_no_networks_are_refused(tmp_path: Path) -> None:
    """Damaged files, other numbers of layers and layers without weights."""
    h5py: Any = pytest.importorskip("h5py")
    write_npz(tmp_path)
    path = tmp_path / "conv.h5"
    files = {"conv": path, "fc": tmp_path / "wnn_fc.npz", "bias": tmp_path / "wnn_bias.npz"}
    with pytest.raises(ModelFileError, match="There is no file"):
        load_released_wnn(files, 20)
    path.write_bytes(b"not HDF5")
    with pytest.raises(ModelFileError, match="does not hold a network of WNN"):
        load_released_wnn(files, 20)
    with h5py.File(path, "w") as file:
        file.create_group("dense_1")
    with pytest.raises(ModelFileError, match="it has 1 layers, not 13"):
        load_released_wnn(files, 20)
    with h5py.File(path, "w") as file:
        for number in range(13):
            file.create_group(f"dense_{number}")
    with pytest.raises(ModelFileError, match="does not hold a network of WNN"):
        load_released_wnn(files, 20)
    with h5py.File(path, "w") as file:
        for number in range(13):
            file.create_group(f"dense_{number if number else 'x'}")
    with pytest.raises(ModelFileError, match="does not hold a network of WNN"):
        load_released_wnn(files, 20)


# --- the authors' own outputs


@pytest.mark.golden
@pytest.mark.parametrize("kind", KINDS)
def test_the_authors_weights_give_the_authors_outputs(kind: str) -> None:
    """Inputs to 1e-12, outputs to 1e-5, forecasts of both variants to 1e-6 and of corner cases to 2e-5."""
    folder = Path(golden_folder(*(f"wnn_{name}.npz" for name in KINDS)))
    with np.load(folder / f"wnn_{kind}.npz", allow_pickle=False) as archive:
        golden = {name: archive[name] for name in archive.files}
    weights = {name: golden[f"weight_{name}"] for name in SHAPES}
    network = Nowcasters(torch.ones(1))
    network.nets[KINDS.index(kind)].load_state_dict(_state_of(weights))
    network.trained.fill_(True)
    for prefix, limit in (("", 1e-6), ("corner_", 2e-5)):
        history = golden[f"{prefix}history"]
        seen = normalised(torch.from_numpy(history), RELEASED_EPSILON)
        np.testing.assert_allclose(seen.values.T, golden[f"{prefix}input_values"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(seen.differences.T, golden[f"{prefix}input_differences"], rtol=0, atol=1e-12)
        features = torch.cat((seen.values, seen.differences)).T.float()
        with torch.no_grad():
            outputs = network(features, KINDS.index(kind), None)[:, 0].numpy()
        np.testing.assert_allclose(outputs, golden[f"{prefix}network_output"], rtol=0, atol=1e-5)
        moving = np.ptp(history, axis=0) > 0  # the corrected variant holds what stands still
        for variant, name, of in (("released", "as_released", moving | True), ("corrected", "fixed", moving)):
            forecaster = load_released_wnn(folder, 20, "released" if variant == "released" else "corrected")
            found, expected = forecast_of(forecaster, history, kind), golden[f"{prefix}forecast_{name}"]
            np.testing.assert_allclose(found[of], expected[of], rtol=0, atol=limit)
            assert np.array_equal(found[~of], history[-1][~of])
        slow = reference(history, weights, as_released=kind == "bias")
        np.testing.assert_allclose(slow["o"], golden[f"{prefix}network_output_float64"], rtol=0, atol=1e-10)
        expected = golden[f"{prefix}forecast_as_released_float64"]
        np.testing.assert_allclose(slow["forecast"], expected, rtol=0, atol=1e-10)

"""WNN+: the network, the types of tensors, and its authors' checkpoints."""

from pathlib import Path

import pytest
import torch
from conftest import golden_folder
from problems import cases_of, drifting_rows, small_layout, window_of
from torch import Tensor, nn

from deadreckon.forecast import Layout, TensorSpec, layout_of
from deadreckon.forecast.layout import Kind
from deadreckon.models import (
    Budget,
    FittingError,
    ModelError,
    ModelFileError,
    WNNPlus,
    fit_forecaster,
    load_released_wnn_plus,
)
from deadreckon.models.tensor_types import type_codes, type_name

WIDTH = 8


def a_checkpoint(width: int = WIDTH, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"layer_embed.weight": (15, width), "edge_proj.fc.0.weight": (width, 5), "edge_proj.fc.0.bias": (width,)}
    for index, num_out in ((0, width), (2, width), (4, width), (6, 40)):
        shapes[f"edge_mlp.fc.{index}.weight"] = (num_out, width)
        shapes[f"edge_mlp.fc.{index}.bias"] = (num_out,)
    return {name: 0.5 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(path: Path, state: object) -> Path:
    torch.save({"state_dict": state, "model_args": {"gnn": False}}, path)
    return path


def reference(rows: Tensor, layout: Layout, types: dict[str, int], state: dict[str, Tensor], k: int) -> Tensor:
    """What the authors' code computes, in float64, one tensor at a time."""
    w = {name: value.double() for name, value in state.items()}
    parts: list[Tensor] = []
    for spec in layout:
        values = rows[:, spec.span].double()
        mean, std = values.mean(), values.std()
        scaled = ((values - mean) / (std + 1e-6)).T
        hidden = scaled @ w["edge_proj.fc.0.weight"].T + w["edge_proj.fc.0.bias"]
        hidden = hidden + w["layer_embed.weight"][types[spec.name]]
        for index in (0, 2, 4):
            hidden = nn.functional.silu(hidden @ w[f"edge_mlp.fc.{index}.weight"].T + w[f"edge_mlp.fc.{index}.bias"])
        change = hidden @ w["edge_mlp.fc.6.weight"][k - 1] + w["edge_mlp.fc.6.bias"][k - 1]
        parts.append((scaled[:, -1] + change) * std + mean)
    return torch.cat(parts)


LAYOUT = small_layout({"a.weight": (6, 5), "a.bias": (6,), "b.convolution": (2, 3, 3, 3), "c.norm": (3,)})
TYPES = {"a.weight": 1, "a.bias": 2, "b.convolution": 3, "c.norm": 2}


def some_rows() -> Tensor:
    return drifting_rows(5, LAYOUT.size, torch.Generator().manual_seed(3))


def test_forecasts_are_those_of_the_formulas(tmp_path: Path) -> None:
    """A loaded checkpoint agrees with a slow float64 version, at each of its 40 horizons; between them it is linear."""
    state = a_checkpoint()
    forecaster = load_released_wnn_plus(write(tmp_path / "it.pt", state), 20, "released")
    rows = some_rows()
    window = window_of(rows, range(0, 100, 20), LAYOUT)
    for k in (1, 7, 40):
        (found,) = forecaster.forecast(window, [20 * k])
        torch.testing.assert_close(found.mean.double(), reference(rows, LAYOUT, TYPES, state, k), rtol=0, atol=2e-5)
    (found,) = forecaster.forecast(window, [30])
    expected = (reference(rows, LAYOUT, TYPES, state, 1) + reference(rows, LAYOUT, TYPES, state, 2)) / 2
    torch.testing.assert_close(found.mean.double(), expected, rtol=0, atol=2e-5)
    small = 1e-4 * rows  # where the epsilon shows
    (found,) = forecaster.forecast(window_of(small, range(0, 100, 20), LAYOUT), [20])
    expected = reference(small, LAYOUT, TYPES, state, 1)
    torch.testing.assert_close(found.mean.double(), expected, rtol=0, atol=2e-9)


def test_the_corrected_variant_adds_the_change_and_holds_what_stands_still(tmp_path: Path) -> None:
    """It differs from the released one by the epsilon on the way back, and where nothing moves."""
    path = write(tmp_path / "it.pt", a_checkpoint())
    rows = some_rows()
    rows[:, 2:5] = 0.25
    window = window_of(rows, range(0, 100, 20), LAYOUT)
    (released,) = load_released_wnn_plus(path, 20, "released").forecast(window, [20])
    (corrected,) = load_released_wnn_plus(path, 20).forecast(window, [20])
    assert torch.equal(corrected.mean[2:5], rows[-1, 2:5])
    assert bool((released.mean[2:5] != rows[-1, 2:5]).all())
    moving = torch.ones(LAYOUT.size, dtype=torch.bool)
    moving[2:5] = False
    torch.testing.assert_close(corrected.mean[moving], released.mean[moving], rtol=0, atol=1e-5)

    silent = {name: torch.zeros_like(value) for name, value in a_checkpoint().items()}
    path = write(tmp_path / "silent.pt", silent)
    window = window_of(1e-6 * rows, range(0, 100, 20), LAYOUT)
    (released,) = load_released_wnn_plus(path, 20, "released").forecast(window, [20])
    (corrected,) = load_released_wnn_plus(path, 20).forecast(window, [20])
    assert torch.equal(corrected.mean, window.last)
    assert bool((released.mean[moving] != window.last[moving]).any())


def test_types_have_an_effect(tmp_path: Path) -> None:
    """Overridden, a tensor is forecast as what it is said to be; others stay as they are."""
    path = write(tmp_path / "it.pt", a_checkpoint())
    window = window_of(some_rows(), range(0, 100, 20), LAYOUT)
    (plain,) = load_released_wnn_plus(path, 20).forecast(window, [20])
    (told,) = load_released_wnn_plus(path, 20, types={"*.bias": "query"}).forecast(window, [20])
    differs = plain.mean != told.mean
    assert bool(differs[LAYOUT["a.bias"].span].all())
    assert int(differs.sum()) == 6


def test_scalings_see_the_same_numbers() -> None:
    """`values` are scaled by the tensor's spread, `motion` by how it moves; both are exact."""
    rows = some_rows()
    rows[:, 1] = 2.0
    span, window = LAYOUT["a.weight"].span, window_of(rows, layout=LAYOUT)
    part = rows[:, span]
    moving = (part.diff(dim=0) != 0).any(dim=0)
    mean, std = part.mean(), part.std()
    u = part[:, moving].diff(dim=0).square().mean().sqrt()
    values, motion = WNNPlus(scaling="values"), WNNPlus()
    seen = values.inputs(part, values.context(window)[0], 0.0)
    torch.testing.assert_close(seen.features, ((part - mean) / std).T)
    torch.testing.assert_close(seen.unit, torch.where(moving, std, 0.0))
    seen = motion.inputs(part, motion.context(window)[0], 0.0)
    expected = torch.cat(((part[:-1] - part[-1]) / u, (part[-1:] - mean) / std))
    torch.testing.assert_close(seen.features, expected.T)
    torch.testing.assert_close(seen.unit, torch.where(moving, u, 0.0))


def test_options_that_do_not_go_together_are_refused() -> None:
    """Released variant and epsilon need the authors' scaling; types must be known; what is released is not fitted."""
    with pytest.raises(ModelError, match="`scaling` must be 'values' for the released variant"):
        WNNPlus(variant="released")
    with pytest.raises(ModelError, match="`scaling` must be 'values'"):
        WNNPlus(epsilon=1e-6)
    with pytest.raises(ModelError, match="`types` must map to one of dense, other.* got 'matrix' for 'a'"):
        WNNPlus(types={"a": "matrix"})
    with pytest.raises(ModelError, match="`types` must map patterns"):
        WNNPlus(types=["dense"])  # type: ignore[arg-type]
    cases = cases_of(drifting_rows(30, LAYOUT.size, torch.Generator()), range(30), 5, [2], LAYOUT)
    with pytest.raises(FittingError, match="Fit the corrected one"):
        fit_forecaster(WNNPlus(variant="released", scaling="values"), cases, Budget(), torch.Generator())


# --- types


def spec_of(name: str, kind: Kind, shape: tuple[int, ...]) -> TensorSpec:
    return TensorSpec(name, shape, "float32", 0, kind)


@pytest.mark.parametrize(
    ("name", "kind", "shape", "expected"),
    [
        ("0.weight", "weight", (4, 3), "dense"),
        ("0.bias", "bias", (4,), "other"),
        ("0.weight", "convolution", (4, 3, 3, 3), "convolution"),
        ("ln.weight", "norm", (4,), "norm"),
        ("ln.bias", "norm", (4,), "other"),
        ("wte.weight", "embedding", (9, 4), "token_embedding"),
        ("transformer.wpe.weight", "embedding", (9, 4), "position_embedding"),
        ("position_embedding.weight", "embedding", (9, 4), "position_embedding"),
        ("positional.weight", "embedding", (9, 4), "position_embedding"),
        ("composition.weight", "embedding", (9, 4), "token_embedding"),
        ("pos_embed", "other", (9, 4), "position_embedding"),
        ("scale", "other", (), "other"),
        ("cls", "other", (1, 4), "other"),
        ("h.0.attn.c_attn.weight", "weight", (4, 12), "query_key_value_columns"),
        ("attn.in_proj_weight", "weight", (12, 4), "query_key_value_rows"),
        ("attn.qkv.weight", "weight", (12, 4), "query_key_value_rows"),
        ("attn.q_proj.weight", "weight", (4, 4), "query"),
        ("attn.k_proj_weight", "weight", (4, 4), "key"),
        ("self.value.weight", "weight", (4, 4), "value"),
        ("out_proj.weight", "weight", (4, 4), "dense"),
    ],
)
def test_types_are_told_from_kind_shape_and_name(name: str, kind: Kind, shape: tuple[int, ...], expected: str) -> None:
    """Each tensor has a type; overrides win, the first that matches."""
    spec = spec_of(name, kind, shape)
    assert type_name(spec, {}) == expected
    assert type_name(spec, {"nothing*": "norm", name[0] + "*": "value", "*": "key"}) == "value"


def test_fused_matrices_hold_three_types() -> None:
    """Thirds of the columns, or of the rows, are query, key and value; any stretch of them can be asked for."""
    columns, rows = spec_of("c_attn.weight", "weight", (2, 6)), spec_of("in_proj_weight", "weight", (6, 2))
    by_column = torch.tensor([7, 7, 8, 8, 9, 9] * 2)
    by_row = torch.tensor([7] * 4 + [8] * 4 + [9] * 4)
    for spec, expected in ((columns, by_column), (rows, by_row)):
        name = type_name(spec, {})
        for begin, end in ((0, 12), (3, 11)):
            found = type_codes(spec, name, begin, end)
            assert isinstance(found, Tensor)
            assert torch.equal(found, expected[begin:end])
    piece = spec_of("c_attn.weight[2:9]", "weight", (7,))
    assert type_codes(piece, "query_key_value_columns", 0, 7) == 1


# --- files


def test_checkpoints_of_other_kinds_are_refused(tmp_path: Path) -> None:
    """Missing and damaged files, code in them, other names, shapes and values: each is an error that names it."""
    with pytest.raises(ModelFileError, match="There is no checkpoint"):
        load_released_wnn_plus(tmp_path / "none.pt", 20)
    path = tmp_path / "it.pt"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(ModelFileError, match="is not a checkpoint of plain tensors"):
        load_released_wnn_plus(path, 20)
    torch.save({"state_dict": nn.Linear(2, 2)}, path)
    with pytest.raises(ModelFileError, match="is not a checkpoint of plain tensors"):
        load_released_wnn_plus(path, 20)
    torch.save([1, 2], path)
    with pytest.raises(ModelFileError, match="holds no 'state_dict' of tensors"):
        load_released_wnn_plus(path, 20)
    state = a_checkpoint()
    for change, message in (
        ({"layer_embed.weight": torch.zeros(4)}, "it has no embedding of types"),
        ({"layer_embed.weight": torch.zeros(3, WIDTH)}, "'layer_embed.weight' in .* must be finite numbers of shape"),
        ({"edge_mlp.fc.6.weight": torch.zeros(39, WIDTH)}, "'edge_mlp.fc.6.weight' in .* shape"),
        ({"edge_proj.fc.0.bias": torch.full((WIDTH,), float("inf"))}, "'edge_proj.fc.0.bias' in .* must be finite"),
        ({"edge_mlp.fc.0.bias": torch.zeros(WIDTH, dtype=torch.int64)}, "'edge_mlp.fc.0.bias' in .* must be finite"),
        ({"gnn.convs.0.lin.weight": torch.zeros(1)}, "'gnn.convs.0.lin.weight' is missing or too much"),
    ):
        with pytest.raises(ModelFileError, match=message):
            load_released_wnn_plus(write(path, {**state, **change}), 20)
    del state["edge_mlp.fc.2.bias"]
    with pytest.raises(ModelFileError, match="'edge_mlp.fc.2.bias' is missing or too much"):
        load_released_wnn_plus(write(path, state), 20)
    with pytest.raises(ModelError, match="`spacing` must be a whole number"):
        load_released_wnn_plus(write(path, a_checkpoint()), 0)


# --- the authors' own outputs


def golden_layout(case: dict[str, object]) -> Layout:
    """The layout of the case's network: built again for plain networks, told from GPT-2's names for that."""
    linear = nn.Linear
    if case["case"] == "mlp":
        return layout_of(nn.Sequential(linear(64, 32), nn.ReLU(), linear(32, 32), nn.ReLU(), linear(32, 10)))
    if case["case"] == "cnn_fm16":
        convolutions = [
            nn.Conv2d(1, 16, 3),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),
            nn.ReLU(),
        ]
        fc = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(32, 10))
        return layout_of(nn.ModuleDict({"fc": fc}))
    specs: list[TensorSpec] = []
    offset = 0
    for name, shape in zip(case["param_names"], case["param_shapes"], strict=True):  # type: ignore[call-overload]
        parts: list[tuple[str, Kind]] = [("wte", "embedding"), ("wpe", "embedding"), ("ln_", "norm"), ("bias", "bias")]
        kinds: list[Kind] = [kind for part, kind in parts if part in name]
        specs.append(TensorSpec(name, tuple(shape), "float32", offset, kinds[0] if kinds else "weight"))
        offset += specs[-1].numel
    return Layout(tuple(specs))


@pytest.mark.golden
@pytest.mark.parametrize("case_name", ["cnn_fm16", "mlp", "gpt2_tiny"])
def test_the_authors_weights_give_the_authors_outputs(case_name: str) -> None:
    """Types are those of the authors' graphs; forecasts agree to 2e-6, and to 3e-5 of the forecast change."""
    names = ("nino_mlp.pt", "nino_mlp_h32.pt")
    folder = Path(golden_folder(f"golden_{case_name}.pt", *names))
    case = torch.load(folder / f"golden_{case_name}.pt", weights_only=True)
    case["case"] = case_name
    layout = golden_layout(case)
    assert layout.names == tuple(case["param_names"])
    rows = torch.cat([case["history"][name].reshape(5, -1) for name in layout.names], dim=1)
    types = torch.zeros(layout.size, dtype=torch.int64)
    for slot in case["edge_param_index"].T.long():
        types[slot[slot >= 0]] = case["edge_type"][slot >= 0].long()
    for file, key in zip(names, ("prediction_mlp", "prediction_mlp_h32"), strict=True):
        forecaster = load_released_wnn_plus(folder / file, 20, "released")
        for spec in layout:
            found = torch.as_tensor(forecaster.groups(spec, 0, spec.numel)).expand(spec.numel)
            assert torch.equal(found.long(), types[spec.span])
        assert case[key].keys() >= {5, 40}
        for k, prediction in case[key].items():
            expected = torch.cat([prediction[name].flatten() for name in layout.names])
            (found,) = forecaster.forecast(window_of(rows, case["history_steps"], layout), [20 * k])
            torch.testing.assert_close(found.mean, expected, rtol=0, atol=2e-6)
            assert float((found.mean - expected).norm() / (expected - rows[-1]).norm()) < 3e-5

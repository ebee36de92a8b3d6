"""The published NiNo: its arithmetic on an explicit list of edges, and the same on tiles."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from graph_networks import GPT2
from nino_golden import CASES, Golden, golden, released_path, require_close
from nino_graphs import GraphBuilder, chain, gpt2
from problems import drifting_rows, small_layout
from torch import Tensor

from deadreckon.forecast import Layout, Window, WindowError
from deadreckon.forecast.errors import NotFittedError
from deadreckon.forecast.graph import NeuralGraph, trace_graph
from deadreckon.models import (
    Budget,
    FittingError,
    ModelError,
    ModelFileError,
    ReleasedNiNo,
    load_forecaster,
    load_released_nino,
    released_graph,
    save_forecaster,
)
from deadreckon.models.graph_edges import edge_list
from deadreckon.models.nino_files import read_released_network
from deadreckon.models.nino_network import HORIZONS, NiNoNetwork, merge
from deadreckon.models.nino_reference import graph_data, reference_changes, reference_forecast, reference_states
from deadreckon.models.nino_tiles import NiNoPass
from deadreckon.models.rows import tensor_scaling

SPACING = 200


def some_network(width: int = 6, num_tokens: int = 0, seed: int = 0) -> NiNoNetwork:
    """Random values, large enough that every part matters."""
    network = NiNoNetwork(width, num_tokens)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(std=0.4, generator=generator)
    return network.requires_grad_(False)


def window_on(graph: NeuralGraph, layout: Layout, rows: Tensor | None = None) -> Window:
    rows = drifting_rows(5, layout.size, torch.Generator().manual_seed(1)) if rows is None else rows
    return Window(rows, torch.arange(200, 1001, 200), layout, graph=graph)


def compared(
    network: NiNoNetwork, graph: NeuralGraph, layout: Layout, positions: bool = False
) -> tuple[Tensor, Tensor]:
    """Changes at all 40 horizons, on tiles and by the reference in float64, `[horizon, param]`."""
    window = window_on(graph, layout)
    edges = edge_list(graph, layout)
    generator = torch.Generator().manual_seed(2)
    places = torch.randn(edges.num_nodes, 8, generator=generator) if positions else None
    if positions and graph.unexplained:
        assert places is not None
        places[-1] = 0.0  # the node of tensors without edges has no position on tiles
    network64 = NiNoNetwork(network.width, len(network.tokens)).double()
    network64.load_state_dict(network.state_dict())
    data = graph_data(edges, window.values.double(), layout, places)
    expected = reference_changes(network64, data, layout.size)
    run = NiNoPass(merge(network), graph, layout, window.values, tensor_scaling(window), places)
    found = run.forecasts(torch.eye(HORIZONS), lambda tensor, rows, changes: changes)
    return found.double(), expected


def depth_wise() -> tuple[NeuralGraph, Layout]:
    """5 x 5 kernels in, grouped and depth-wise convolutions, a residual, heads, a part of a group, an odd tensor."""
    layout = small_layout(
        {
            "a": (6, 2, 5, 5),
            "a.bias": (6,),
            "b": (6, 1, 3, 3),
            "c": (8, 3, 1, 3),
            "d.weight": (7, 8),
            "d.bias": (7,),
            "e": (4, 3),
            "f": (),
        }
    )
    builder = GraphBuilder(layout)
    inputs, first = builder.group(2, "input"), builder.group(6)
    builder.convolution("a", inputs, first)
    builder.vector("a.bias", first)
    second = builder.group(6)
    builder.convolution("b", first, second, groups=6)
    builder.identity(first, second)
    third = builder.group(8)
    builder.convolution("c", second, third, groups=2)
    fourth = builder.group(7)
    builder.matrix("dense", "d.weight", third, fourth, (0, 1))
    builder.vector("d.bias", fourth)
    return builder.done(unexplained=("e", "f")), layout


def mlp() -> tuple[NeuralGraph, Layout]:
    layout = small_layout()
    return chain(layout), layout


def language(vocabulary: int = 9) -> tuple[NeuralGraph, Layout]:
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (vocabulary, 4), "wpe.weight": (3, 4)}
    shapes |= {"h.0.ln_1.weight": (4,), "h.0.ln_1.bias": (4,), "h.0.attn.c_attn.weight": (4, 12)}
    shapes |= {"h.0.attn.c_attn.bias": (12,), "h.0.attn.c_proj.weight": (4, 4), "h.0.attn.c_proj.bias": (4,)}
    shapes |= {"h.0.ln_2.weight": (4,), "h.0.ln_2.bias": (4,), "h.0.mlp.c_fc.weight": (4, 16)}
    shapes |= {"h.0.mlp.c_fc.bias": (16,), "h.0.mlp.c_proj.weight": (16, 4), "h.0.mlp.c_proj.bias": (4,)}
    shapes |= {"ln_f.weight": (4,), "ln_f.bias": (4,)}
    layout = small_layout({f"transformer.{name}": shape for name, shape in shapes.items()})
    return gpt2(layout, 2, original=False), layout


def graph_of(case: Golden) -> NeuralGraph:
    return gpt2(case.layout, case.content["num_heads"]) if case.content["num_heads"] else chain(case.layout)


# -- the authors' numbers


@pytest.mark.golden
@pytest.mark.parametrize("case_name", CASES)
def test_the_reference_gives_the_authors_numbers(case_name: str) -> None:
    """On their own graph, with their positional features and without: within the limits that they give."""
    case, network = golden(case_name), read_released_network(released_path())
    for positions, name in ((case.content["lpe"], "prediction_no_posw"), (None, "prediction_no_posw_lpe_zero")):
        data = graph_data(case.edges, case.rows, case.layout, positions)
        found = reference_forecast(case.rows, case.layout, reference_changes(network, data, case.layout.size))
        for horizon in case.content[name]:
            require_close(found[horizon - 1], case.prediction(name, horizon), case.rows[-1])


@pytest.mark.golden
@pytest.mark.parametrize("case_name", CASES)
def test_the_reference_has_the_authors_states(case_name: str) -> None:
    """States of nodes and edges agree with theirs at the beginning and after each round."""
    case, network = golden(case_name), read_released_network(released_path())
    nodes, edges = reference_states(network, graph_data(case.edges, case.rows, case.layout, case.content["lpe"]))
    samples = case.content["intermediates"]
    for number in range(3):
        for name, found, at in (("node", nodes, samples["node_ids"]), ("edge", edges, samples["edge_ids"])):
            expected = samples[f"{name}_embedding_{number}"]
            largest = float(expected.abs().max())
            torch.testing.assert_close(found[number][at.long()], expected, rtol=0, atol=1e-5 * largest)


@pytest.mark.golden
@pytest.mark.parametrize("case_name", CASES)
def test_tiles_give_the_authors_numbers(case_name: str) -> None:
    """The forecaster with their checkpoint on the graph as tiles, without positions."""
    case = golden(case_name)
    forecaster = load_released_nino(released_path(), SPACING, "released")
    window = window_on(graph_of(case), case.layout, case.rows)
    for found in forecaster.forecast(window, [5 * SPACING, 40 * SPACING]):
        expected = case.prediction("prediction_no_posw_lpe_zero", found.horizon // SPACING)
        require_close(found.mean, expected, case.rows[-1])


@pytest.mark.golden
@pytest.mark.parametrize("case_name", CASES)
def test_tiles_have_the_authors_edges(case_name: str) -> None:
    """Every scalar is an edge of the authors' type, and ends where others end that end together in their graph."""
    case = golden(case_name)
    own = edge_list(graph_of(case), case.layout)
    assert own.num_nodes == case.content["node_count"]
    assert own.ends.shape == case.edges.ends.shape
    theirs = case.edges
    mine_at, theirs_at = (part.scalars[:, 0].argsort() for part in (own, theirs))
    keep = theirs.scalars[theirs_at, 0] >= 0
    mine_at, theirs_at = mine_at[keep], theirs_at[keep]
    assert torch.equal(own.types[mine_at], theirs.types[theirs_at])
    relabelled: dict[int, int] = {}
    for mine, other in zip(
        own.ends[:, mine_at].flatten().tolist(), theirs.ends[:, theirs_at].flatten().tolist(), strict=True
    ):
        assert relabelled.setdefault(mine, other) == other
    assert len(set(relabelled.values())) == len(relabelled)


@pytest.mark.golden
def test_a_traced_graph_gives_the_authors_numbers() -> None:
    """GPT-2 traced, its key biases moved to where the authors have them, gives their forecasts."""
    case = golden("gpt2_tiny")
    graph = trace_graph(GPT2(256, 64, 32, 2, 2), (torch.zeros(1, 64, dtype=torch.int64),))
    forecaster = load_released_nino(released_path(), SPACING, "released")
    horizon = 40 * SPACING
    expected = case.prediction("prediction_no_posw_lpe_zero", 40)
    (found,) = forecaster.forecast(window_on(released_graph(graph), case.layout, case.rows), [horizon])
    require_close(found.mean, expected, case.rows[-1])
    (right,) = forecaster.forecast(window_on(graph, case.layout, case.rows), [horizon])
    assert float((right.mean - expected).norm() / (expected - case.rows[-1]).norm()) > 1e-3


# -- tiles against the reference


@pytest.mark.parametrize("make", [mlp, depth_wise, language])
@pytest.mark.parametrize("positions", [False, True])
def test_tiles_equal_the_reference(make: Callable[[], tuple[NeuralGraph, Layout]], positions: bool) -> None:
    """At every horizon within 1e-5: dense, grouped, depth-wise and large kernels, residuals, heads, tensors alone."""
    graph, layout = make()
    found, expected = compared(some_network(), graph, layout, positions)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert bool((expected.abs().amax(dim=0) > 0).all())


def test_tokens_have_states_of_their_own() -> None:
    """With an embedding of the vocabulary tiles equal the reference, and nodes of the vocabulary are not alike."""
    graph, layout = language()
    network = some_network(num_tokens=10)
    found, expected = compared(network, graph, layout)
    assert float((found - expected).norm() / expected.norm()) < 1e-5
    plain = some_network(num_tokens=10)
    plain.tokens[:] = plain.tokens[:1].clone()
    without, _ = compared(plain, graph, layout)
    assert float((found - without).norm() / expected.norm()) > 1e-2


def test_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into many small pieces, tiles give the same forecasts but for rounding."""
    for make in (depth_wise, language):
        graph, layout = make()
        whole, _ = compared(some_network(), graph, layout)
        monkeypatch.setattr("deadreckon.models.graph_tiles.EDGES", 5)
        monkeypatch.setattr("deadreckon.models.graph_tiles.TARGETS", 3)
        cut, _ = compared(some_network(), graph, layout)
        monkeypatch.undo()
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)


def test_threads_do_not_matter(two_threads: None) -> None:
    """Forecasts are the same to the last bit with two threads."""
    graph, layout = language()
    with_two, _ = compared(some_network(), graph, layout)
    torch.set_num_threads(1)
    with_one, _ = compared(some_network(), graph, layout)
    torch.set_num_threads(2)
    assert torch.equal(with_two, with_one)


# -- the forecaster


def ready(variant: str = "corrected") -> ReleasedNiNo:
    forecaster = ReleasedNiNo(variant)  # type: ignore[arg-type]
    forecaster.take_over(some_network(), SPACING)
    return forecaster


def test_the_corrected_variant_holds_what_stands_still() -> None:
    """It adds the change to the newest value, and what does not move in the window stays; the released one moves it."""
    graph, layout = mlp()
    window = window_on(graph, layout)
    window.values[:, 3:6] = 0.5
    (corrected,) = ready().forecast(window, [SPACING])
    (released,) = ready("released").forecast(window, [SPACING])
    moving = torch.ones(layout.size, dtype=torch.bool)
    moving[3:6] = False
    assert torch.equal(corrected.mean[3:6], window.last[3:6])
    assert bool((released.mean[3:6] != window.last[3:6]).all())
    torch.testing.assert_close(corrected.mean[moving], released.mean[moving], rtol=0, atol=2e-5)


def test_between_trained_horizons_it_is_linear() -> None:
    """Halfway between two outputs lies their mean, halfway to the first one half its step."""
    graph, layout = mlp()
    window = window_on(graph, layout)
    first, half, second, begin = (f.mean for f in ready().forecast(window, [SPACING, 300, 2 * SPACING, 100]))
    torch.testing.assert_close(half, (first + second) / 2)
    torch.testing.assert_close(begin, (window.last + first) / 2)


def test_a_horizon_does_not_depend_on_others() -> None:
    """All horizons come from one pass, and each is what it is alone, to the last bit."""
    graph, layout = depth_wise()
    window = window_on(graph, layout)
    (alone,) = ready().forecast(window, [600])
    *_, among = ready().forecast(window, [200, 4000, 600])
    assert torch.equal(alone.mean, among.mean)
    assert torch.equal(alone.scale, among.scale)


def test_saved_and_loaded_it_forecasts_the_same(tmp_path: Path) -> None:
    """Through a file to the last bit; what is damaged is refused."""
    graph, layout = mlp()
    window = window_on(graph, layout)
    forecaster = ready("released")
    save_forecaster(forecaster, tmp_path / "one")
    loaded = load_forecaster(tmp_path / "one")
    (before,), (after,) = forecaster.forecast(window, [900]), loaded.forecast(window, [900])
    assert torch.equal(before.mean, after.mean)
    assert loaded.options == forecaster.options
    state = forecaster.state_dict()
    for change, message in (
        ({"network.types": torch.zeros(15, 5000)}, "describes no network"),
        ({"spacing": torch.tensor(0)}, "must be at least 1"),
        ({"network.head.bias": torch.zeros(1)}, "network.head.bias"),
    ):
        with pytest.raises(NotFittedError, match=message):
            ReleasedNiNo().load_state_dict(state | change)


def test_windows_without_a_fitting_graph_are_refused() -> None:
    """Without a graph the message says how to get one; another network's graph does not get into a window."""
    graph, layout = mlp()
    rows = drifting_rows(5, layout.size, torch.Generator().manual_seed(1))
    plain = Window(rows, torch.arange(200, 1001, 200), layout)
    with pytest.raises(WindowError, match="carries none. Make one with `trace_graph"):
        ready().forecast(plain, [SPACING])
    with pytest.raises(WindowError, match="belongs to another layout"):
        window_on(language()[0], layout)
    with pytest.raises(WindowError, match="Fitted to rows 200 steps apart, got 1"):
        ready().forecast(Window(rows, torch.arange(5), layout, graph=graph), [1])
    with pytest.raises(WindowError, match="Fitted up to horizon 8000"):
        ready().forecast(window_on(graph, layout), [8001])


def test_it_is_not_to_be_fitted() -> None:
    """Fitting is refused, and so is a variant or spacing that there is not."""
    with pytest.raises(FittingError, match="has its authors' weights"):
        ready().fit_to(None, Budget(), torch.Generator())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="variant"):
        ReleasedNiNo("other")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="spacing"):
        ReleasedNiNo().take_over(some_network(), 0)


# -- graphs and files


def test_the_key_bias_moves_as_in_the_authors_graph() -> None:
    """Of a right graph of GPT-2, `released_graph` makes the authors' own, and changes nothing in a chain."""
    right, layout = language()
    assert released_graph(right).blocks == gpt2(layout, 2).blocks
    assert right.blocks != gpt2(layout, 2).blocks
    graph, _ = depth_wise()
    assert released_graph(graph).blocks == graph.blocks


def a_checkpoint(width: int = 4, num_tokens: int = 0) -> dict[str, Tensor]:
    shapes = {"layer_embed.weight": (15, width)}
    if num_tokens:
        shapes["wte_pos_enc_layer.weight"] = (num_tokens, width)
    layers = {"node_proj.fc.0": (width, 8), "edge_proj.fc.0": (width, 45)}
    layers |= {"edge_out.fc.0": (width, width), "edge_out.fc.2": (360, width)}
    for index in range(3):
        conv = f"gnn.convs.{index}."
        layers |= {conv + "edge_encoder": (2 * width, width), conv + "pre_nns.0.0": (width, 2 * width)}
        layers |= {conv + "post_nns.0.0": (width, 2 * width), conv + "lin": (width, width)}
        if index < 2:
            layers |= {
                f"gnn.edge_update.{index}.{name}": (width, width) for name in ("lin_e", "lin_s", "lin_t", "lin1")
            }
    for name, shape in layers.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(path: Path, state: object) -> Path:
    torch.save({"state_dict": state, "model_args": {}}, path)
    return path


def test_checkpoints_are_read_with_and_without_a_vocabulary(tmp_path: Path) -> None:
    """Every tensor of the file is where it belongs; those of the third round, which do nothing, are left out."""
    state = a_checkpoint(num_tokens=5)
    network = read_released_network(write(tmp_path / "one", state))
    assert torch.equal(network.tokens, state["wte_pos_enc_layer.weight"])
    assert torch.equal(network.state_dict()["rounds.1.source.weight"], state["gnn.edge_update.1.lin_s.weight"])
    assert sum(value.numel() for value in network.parameters()) == sum(
        value.numel() for name, value in state.items() if not name.startswith("gnn.convs.2.")
    )
    assert len(read_released_network(write(tmp_path / "two", a_checkpoint())).tokens) == 0


def test_other_files_are_refused(tmp_path: Path) -> None:
    """What is missing, no checkpoint, of another model, of wrong shape or not finite is named."""
    state = a_checkpoint()
    with pytest.raises(ModelFileError, match="There is no checkpoint"):
        read_released_network(tmp_path / "none")
    (tmp_path / "text").write_text("not a checkpoint")
    with pytest.raises(ModelFileError, match="not a checkpoint of plain tensors"):
        read_released_network(tmp_path / "text")
    short = dict(state)
    del short["edge_out.fc.2.bias"]
    for found, message in (
        (None, "holds no 'state_dict'"),
        ({"x": torch.zeros(1)}, "no embedding of types"),
        (
            {"layer_embed.weight": torch.zeros(15, 4), "edge_mlp.fc.0.weight": torch.zeros(4, 4)},
            "load_released_wnn_plus",
        ),
        ({"layer_embed.weight": torch.zeros(15, 5000)}, "no embedding of types"),
        (short, "'edge_out.fc.2.bias' is missing"),
        (state | {"more": torch.zeros(1)}, "'more' is missing or too much"),
        (
            state | {"node_proj.fc.0.bias": torch.zeros(3)},
            "'node_proj.fc.0.bias' in .* must be finite numbers of shape",
        ),
        (state | {"node_proj.fc.0.bias": torch.full((4,), torch.nan)}, "must be finite numbers"),
    ):
        with pytest.raises(ModelFileError, match=message):
            read_released_network(write(tmp_path / "it", found))

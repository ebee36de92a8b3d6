"""Neural graphs of many architectures, proved by permuting neurons."""

from dataclasses import replace

import pytest
import torch
from graph_networks import GPT2, NETWORKS, Llama, build, tokens, vectors
from graph_odd_networks import ODD_NETWORKS, Between, build_odd
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from typing_extensions import override

from deadreckon.forecast import GraphError, layout_of, pack, unpack
from deadreckon.forecast.graph import (
    NeuralGraph,
    TensorAxes,
    check_graph,
    inverse,
    permute,
    permute_named,
    random_permutations,
    trace_graph,
)
from deadreckon.forecast.graph.check import relative_change

ALL = {**dict.fromkeys(NETWORKS, build), **dict.fromkeys(ODD_NETWORKS, build_odd)}
# free axes: residual stream; for each block hidden units of the MLP, heads, dimensions of queries and keys, of values
FREE = {
    "mlp": 2,
    "lenet": 3,
    "vgg": 4,  # the first linear layer reads 2x2 positions of each channel
    "resnet": 5,
    "mobilenet": 5,
    "grouped": 4,
    "densenet": 4,
    "lstm": 2,
    "lstm_both_ways": 2,
    "gru": 2,
    "rnn": 2,
    "cell_loop": 1,
    "gpt2": 9,
    "gpt2_fused": 9,
    "bert": 10,  # and the pooler
    "llama": 9,  # rotary positions pin the dimensions of queries and keys; queries of a key may be exchanged
    "llama_plain": 11,
    "llama_fused": 11,
    "llama_one_key": 9,
    "qwen": 9,
    "vit": 9,
    "neox_heads": 4,
    "bloom_heads": 4,
    "encoder_decoder": 12,
}
PINNED = (
    "cumulative sorted flipped rolled scaled_by_place one_neuron_apart neuron_by_index every_other largest arg_largest "
    "unknown windows as_strided tall_reshape one_unit local_response padded_channels bilinear"
).split()


@pytest.mark.parametrize("name", ALL)
def test_permuting_neurons_leaves_the_function_unchanged(name: str) -> None:
    """Permuted as the graph allows, a network computes the same, and each scalar stays on its edge."""
    module, inputs = ALL[name](name)
    graph = trace_graph(module, inputs)
    check = check_graph(module, graph, inputs, seed=1)
    assert check.passed, check
    assert check.ends_kept


@pytest.mark.parametrize("name", NETWORKS)
def test_as_much_may_be_permuted_as_the_architecture_allows(name: str) -> None:
    """The number of free axes is the one that a person counts, and almost every scalar is moved."""
    module, inputs = build(name)
    graph = trace_graph(module, inputs)
    assert sum(not axis.pinned and axis.size > 1 for axis in graph.axes) == FREE[name]
    assert check_graph(module, graph, inputs).changed > 0.8


@pytest.mark.parametrize("name", PINNED)
def test_what_tells_neurons_apart_pins_them(name: str) -> None:
    """Operations that treat neurons one by one, or are not known, leave nothing to permute."""
    module, inputs = build_odd(name)
    graph = trace_graph(module, inputs)
    assert all(axis.pinned or axis.size == 1 for axis in graph.axes)


@pytest.mark.parametrize("name", ALL)
def test_every_scalar_lies_in_exactly_one_block(name: str) -> None:
    """Blocks cover each trainable tensor once, or it is named as unexplained, with a reason."""
    module, inputs = ALL[name](name)
    graph = trace_graph(module, inputs)
    graph.require_fits(layout_of(module))
    for tensor in graph.unexplained:
        assert any(repr(tensor) in note for note in graph.notes)


def _rewired(graph: NeuralGraph, generator: torch.Generator) -> NeuralGraph:
    """A graph that lets one dimension of one matrix be permuted apart from all others."""
    inner = {axis.within for axis in graph.axes}
    free = {n for n, axis in enumerate(graph.axes) if not axis.pinned and axis.within is None and axis.size > 1} - inner
    places = [
        (number, dim)
        for number, tensor in enumerate(graph.tensors)
        for dim, segments in enumerate(tensor.dims)
        if len(tensor.dims) > 1 and any(axis in free for segment in segments for axis in segment.axes)
    ]
    number, dim = places[int(torch.randint(len(places), (), generator=generator))]
    tensor = graph.tensors[number]
    axes = [*graph.axes]

    def apart(axis: int) -> int:
        if axis not in free:
            return axis
        axes.append(axes[axis])
        return len(axes) - 1

    segments = tuple(replace(segment, axes=tuple(map(apart, segment.axes))) for segment in tensor.dims[dim])
    dims = (*tensor.dims[:dim], segments, *tensor.dims[dim + 1 :])
    tensors = (*graph.tensors[:number], TensorAxes(tensor.name, tensor.trainable, dims), *graph.tensors[number + 1 :])
    return replace(graph, axes=tuple(axes), tensors=tensors)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rewired_graph_fails_the_check(name: str) -> None:
    """Permuting one dimension of a matrix without what it is tied to changes the outputs."""
    module, inputs = build(name)
    graph = trace_graph(module, inputs)
    wrong = _rewired(graph, torch.Generator().manual_seed(2))
    check = check_graph(module, wrong, inputs, repeats=1)
    assert not check.passed
    assert check.deviation > 1e-3


@pytest.mark.parametrize("name", ["mlp", "resnet", "gpt2", "llama", "lstm"])
def test_edges_between_the_wrong_columns_fail_the_check(name: str) -> None:
    """A block that starts at another column of the same size, but of other neurons, is found out."""
    module, inputs = build(name)
    graph = trace_graph(module, inputs)
    number, block = next(
        (n, b) for n, b in enumerate(graph.blocks) if b.kind in ("dense", "conv") and _is_free(graph, b.source)
    )
    stranger = replace(graph.nodes[block.source], axes=(len(graph.axes),))
    axis = replace(graph.axes[0], size=stranger.size, pinned=False, within=None, name="stranger")
    blocks = (*graph.blocks[:number], replace(block, source=len(graph.nodes)), *graph.blocks[number + 1 :])
    wrong = replace(graph, axes=(*graph.axes, axis), nodes=(*graph.nodes, stranger), blocks=blocks)
    assert check_graph(module, graph, inputs).ends_kept
    check = check_graph(module, wrong, inputs)
    assert not check.ends_kept
    assert not check.passed


def _is_free(graph: NeuralGraph, group: int) -> bool:
    return all(not graph.axes[axis].pinned for axis in graph.nodes[group].axes) and graph.nodes[group].size > 1


@settings(max_examples=25)
@given(
    widths=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    layers=st.lists(st.sampled_from(["relu", "norm", "skip", "gate", "concat", "none"]), min_size=4, max_size=4),
    seed=st.integers(0, 1000),
)
def test_random_networks_pass(widths: list[int], layers: list[str], seed: int) -> None:
    """Random stacks of linear layers with norms, skips, gates and concatenations are traced right."""

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.side, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
            width = 3
            for size, layer in zip(widths, layers, strict=False):
                size = width if layer == "skip" else size
                self.linear.append(nn.Linear(width, size))
                self.side.append(nn.Linear(width, size, bias=False))
                self.norms.append(nn.LayerNorm(size))
                width = width + size if layer == "concat" else size
            self.last = nn.Linear(width, 2)

        def forward(self, values: Tensor) -> Tensor:  # pyright: ignore[reportImplicitOverride]
            for linear, side, norm, layer in zip(self.linear, self.side, self.norms, layers, strict=False):
                made = linear(values)
                if layer == "relu":
                    values = made.relu()
                elif layer == "norm":
                    values = norm(made)
                elif layer == "skip":
                    values = values + made.tanh()
                elif layer == "gate":
                    values = made * side(values).sigmoid()
                elif layer == "concat":
                    values = torch.cat([values, made], -1)
                else:
                    values = made
            return self.last(values)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Stack()
    inputs = vectors(4, 3)
    graph = trace_graph(module, inputs)
    graph.require_fits(layout_of(module))
    assert check_graph(module, graph, inputs, seed, repeats=1).passed


def test_a_graph_is_the_same_every_time() -> None:
    """Two traces of two copies of a network have the same digest, whatever its weights."""
    first, inputs = build("llama")
    digest = trace_graph(first, inputs).digest
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        assert trace_graph(Llama(), inputs).digest == digest


def test_a_graph_survives_plain_data() -> None:
    """`from_dict` is the way back of `to_dict`, with the same digest."""
    module, inputs = build("gpt2")
    graph = trace_graph(module, inputs)
    again = NeuralGraph.from_dict(graph.to_dict())
    assert again == graph
    assert again.digest == graph.digest


def test_inverse_permutations_give_everything_back() -> None:
    """Permuting and permuting back is the identity, for axes that lie within others too."""
    module, inputs = build("llama_plain")
    graph = trace_graph(module, inputs)
    vector, layout = pack(module)
    permutations = random_permutations(graph, torch.Generator().manual_seed(3))
    moved = permute(graph, vector, layout, permutations)
    assert not torch.equal(moved, vector)
    assert torch.equal(permute(graph, moved, layout, inverse(permutations, graph)), vector)


def test_permuting_a_vector_is_permuting_its_tensors() -> None:
    """`permute` of a flat vector agrees with `permute_named`, and leaves what it was given alone."""
    module, inputs = build("gpt2")
    graph = trace_graph(module, inputs)
    vector, layout = pack(module)
    before = vector.clone()
    permutations = random_permutations(graph, torch.Generator().manual_seed(3))
    named = permute_named(graph, unpack(vector, layout), permutations)
    for name, tensor in unpack(permute(graph, vector, layout, permutations), layout).items():
        assert torch.equal(named[name], tensor)
    assert torch.equal(vector, before)


def test_tracing_leaves_the_module_as_found() -> None:
    """Weights, buffers, modes and random state are as before, after tracing and after the check."""
    module, inputs = build("resnet")
    module.train()
    module[1].eval()  # type: ignore[index]
    state = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    random = torch.get_rng_state()
    check_graph(module, trace_graph(module, inputs), inputs)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch._C._get_mkldnn_enabled()


def test_unknown_operations_are_named() -> None:
    """An operation without a rule is told by name in the notes."""
    module, inputs = build_odd("unknown")
    assert any("_fft_r2c" in note for note in trace_graph(module, inputs).notes)


def test_declared_dimensions_are_pinned_or_tied() -> None:
    """What the user declares is heeded: pinned dimensions stay, dimensions of one word are permuted alike."""
    module, inputs = build("mlp")
    free = trace_graph(module, inputs)
    pinned = trace_graph(module, inputs, {"0.weight": ("pinned", None)})
    assert sum(not axis.pinned for axis in free.axes) == sum(not axis.pinned for axis in pinned.axes) + 1
    square = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    tied = trace_graph(square, inputs, {"0.bias": ("twins",), "2.bias": ("twins",)})
    assert sum(not axis.pinned and axis.size > 1 for axis in tied.axes) == 1
    assert check_graph(square, tied, inputs).passed


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"nowhere": ("pinned",)}, "no parameter or buffer"),
        ({"0.weight": ("pinned",)}, "2 dimensions"),
        ({"0.bias": ("one",), "2.bias": ("one",)}, "different extent"),
    ],
)
def test_wrong_declarations_are_refused(declared: dict[str, tuple[str | None, ...]], message: str) -> None:
    """A declaration that does not fit the module is an error that says why."""
    module, inputs = build("mlp")
    with pytest.raises(GraphError, match=message):
        trace_graph(module, inputs, declared)


def test_a_module_that_does_not_run_is_refused() -> None:
    """Inputs of the wrong shape give one clear error, and leave the mode as found."""
    module, _ = build("mlp")
    with pytest.raises(GraphError, match="could not be traced"):
        trace_graph(module, vectors(4, 9))
    assert module.training


class _Silent(Between):
    """Outputs zero, whatever its neurons do."""

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * 0.0


def test_a_check_needs_the_graph_of_the_network() -> None:
    """The graph of another network is refused, and so is what proves nothing: outputs that are no numbers or all zero,
    and no permutation at all."""
    module, inputs = build("mlp")
    graph = trace_graph(module, inputs)
    other, _ = build("lenet")
    with pytest.raises(GraphError, match="another network"):
        check_graph(other, graph, inputs)
    broken = Between(lambda v: v * float("nan"))
    with pytest.raises(GraphError, match="finite"):
        check_graph(broken, trace_graph(broken, inputs), inputs)
    silent = _Silent(lambda v: v)
    with pytest.raises(GraphError, match="All outputs are zero"):
        check_graph(silent, trace_graph(silent, inputs), inputs)
    with pytest.raises(GraphError, match="`repeats` must be at least 1, got 0"):
        check_graph(module, graph, inputs, repeats=0)


def test_an_output_that_was_zero_and_is_not_any_more_fails_the_check() -> None:
    """Beside outputs that stay the same, one that permuting makes differ from zero is found."""
    assert relative_change([torch.ones(2), torch.zeros(2)], [torch.ones(2), torch.tensor([0.0, 0.5])]) == 0.5
    assert relative_change([torch.ones(2), torch.zeros(2)], [torch.ones(2), torch.zeros(2)]) == 0.0


def test_impossible_permutations_are_refused() -> None:
    """Pinned axes, unknown axes, other layouts and things that are no permutation are errors."""
    module, inputs = build("mlp")
    graph = trace_graph(module, inputs)
    vector, layout = pack(module)
    pinned = next(n for n, axis in enumerate(graph.axes) if axis.pinned)
    free = next(n for n, axis in enumerate(graph.axes) if not axis.pinned)
    with pytest.raises(GraphError, match="pinned"):
        permute(graph, vector, layout, {pinned: torch.arange(graph.axes[pinned].size)})
    with pytest.raises(GraphError, match="no axis"):
        permute(graph, vector, layout, {99: torch.arange(2)})
    with pytest.raises(GraphError, match="needs permutations"):
        permute(graph, vector, layout, {free: torch.zeros(graph.axes[free].size, dtype=torch.long)})
    with pytest.raises(GraphError, match="another layout"):
        permute(graph, vector, layout_of(nn.Linear(2, 2)), {})


def test_key_edges_point_from_keys_to_what_they_read() -> None:
    """Key blocks run from the query and key nodes to the residual nodes, query blocks the other way."""
    graph = trace_graph(GPT2(), tokens())
    query = next(block for block in graph.blocks if block.kind == "query")
    key = next(block for block in graph.blocks if block.kind == "key")
    assert (query.source, query.target) == (key.target, key.source)


def test_a_hidden_layer_may_be_reached_by_named_arguments() -> None:
    """Example inputs may be a tensor, a tuple or a dictionary of named arguments."""
    module, inputs = build("mlp")
    digest = trace_graph(module, inputs).digest
    assert trace_graph(module, (inputs,)).digest == digest
    assert trace_graph(module, {"input": inputs}).digest == digest

"""The data of a neural graph: tiles, checks of what is stored."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from graph_networks import NETWORKS, build

from deadreckon.forecast import GraphError, Window, WindowError, layout_of
from deadreckon.forecast.graph import Axis, EdgeBlock, NeuralGraph, NodeGroup, trace_graph


def _graph() -> NeuralGraph:
    return trace_graph(*build("mlp"))


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_hold_the_tensor_and_go_back(name: str) -> None:
    """Writing back every tile of a tensor gives the tensor, also with leading dimensions."""
    module, inputs = build(name)
    graph = trace_graph(module, inputs)
    for spec in layout_of(module):
        if spec.name in graph.unexplained:
            continue
        tensor = torch.arange(2.0 * spec.numel).reshape(2, *spec.shape)
        back = torch.full_like(tensor, -1)
        for block in graph.blocks:
            if block.parameter == spec.name:
                tile = graph.tile(block, tensor)
                assert tile.shape == (2, *block.tile_shape)
                graph.untile(block, tile, back)
        assert torch.equal(back, tensor)


def test_auxiliary_tiles_are_ones_and_cannot_be_written() -> None:
    """Edges without a tensor carry ones."""
    graph = trace_graph(*build("resnet"))
    block = next(block for block in graph.blocks if block.parameter is None)
    assert torch.equal(graph.tile(block), torch.ones(block.tile_shape))
    with pytest.raises(GraphError, match="auxiliary"):
        graph.untile(block, torch.ones(block.tile_shape), torch.ones(3))


def test_tiles_of_wrong_tensors_are_refused() -> None:
    """A missing or too small tensor, or a tile of another shape, is an error."""
    graph = _graph()
    block = graph.blocks[0]
    with pytest.raises(GraphError, match="must hold the values"):
        graph.tile(block)
    with pytest.raises(GraphError, match="does not hold"):
        graph.tile(block, torch.ones(2, 2))
    with pytest.raises(GraphError, match="`tile` must have shape"):
        graph.untile(block, torch.ones(1, 2, 3, 1), torch.ones(8, 5))


def test_a_graph_of_another_layout_does_not_fit() -> None:
    """Another layout, a missing block and a doubled block are told apart."""
    graph, layout = _graph(), layout_of(build("mlp")[0])
    with pytest.raises(GraphError, match="another layout"):
        graph.require_fits(layout_of(build("lenet")[0]))
    with pytest.raises(GraphError, match="must occur 1 times"):
        replace(graph, blocks=graph.blocks[1:]).require_fits(layout)
    with pytest.raises(GraphError, match="must occur 1 times"):
        replace(graph, blocks=(*graph.blocks, graph.blocks[0])).require_fits(layout)
    with pytest.raises(GraphError, match="which the layout lacks"):
        replace(graph, blocks=(replace(graph.blocks[0], parameter="else"),)).require_fits(layout)
    axes = (*graph.axes, Axis("idle", 2**40, True))
    nodes = (*graph.nodes, NodeGroup("idle", 2**40, "input", (len(graph.axes),)))
    with pytest.raises(GraphError, match="too many"):
        replace(graph, axes=axes, nodes=nodes).require_fits(layout)
    first = next(iter(layout)).name
    for names in (("else",), (first, first)):
        with pytest.raises(GraphError, match="`unexplained` must name"):
            replace(graph, unexplained=names).require_fits(layout)


def test_a_window_refuses_a_graph_that_leaves_scalars_out() -> None:
    """Its digest says it fits, but a block is missing: nothing could be forecast there."""
    graph, layout = _graph(), layout_of(build("mlp")[0])
    values, steps = torch.zeros(2, layout.size), torch.tensor([0, 1])
    assert Window(values, steps, layout, graph=graph).graph is graph
    with pytest.raises(WindowError, match="must occur 1 times"):
        Window(values, steps, layout, graph=replace(graph, blocks=graph.blocks[1:]))


def _changed(data: dict[str, Any], path: list[Any], value: object) -> dict[str, Any]:
    at: Any = data
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], 9, "format 9"),
        (["digest"], "0", "damaged"),
        (["axes", 0, 1], 0, "size of axis"),
        (["axes", 0, 1], 2.5, "whole number"),
        (["axes", 0, 2], 1, "neither true nor false"),
        (["axes", 0, 3], 0, "lies within"),
        (["axes"], 3, "Not a stored neural graph"),
        (["nodes", 0, 0], 3, "not a text"),
        (["nodes", 0, 1], 7, "multiply"),
        (["nodes", 0, 2], "unknown", "kind must be"),
        (["nodes", 0, 3], [99], "names axes"),
        (["blocks", 0, "kind"], "unknown", "kind must be"),
        (["blocks", 0, "ends"], [0, 99], "names node group"),
        (["blocks", 0, "offset"], [4, 0], "spans nodes"),
        (["blocks", 0, "groups"], 3, "cannot have 3 groups"),
        (["blocks", 0, "span"], [[0, 8], [5, 5]], "impossible span"),
        (["blocks", 0, "shape"], [8, 4], "tile"),
        (["blocks", 0, "order"], [0, 0], "must permute"),
        (["blocks", 0, "parameter"], None, "auxiliary"),
        (["blocks", 0, "span"], 5, "Not a stored neural graph"),
        (["layout"], 10**30, "not a text"),
        (["axes", 0, 1], 2**50, "reasonable size"),
    ],
)
def test_damaged_data_is_refused(path: list[Any], value: object, message: str) -> None:
    """Every wrong entry of a stored graph gives an error that says what is wrong."""
    with pytest.raises(GraphError, match=message):
        NeuralGraph.from_dict(_changed(_graph().to_dict(), path, value))


def test_a_missing_entry_is_refused() -> None:
    """A stored graph without its blocks is none."""
    data = _graph().to_dict()
    del data["blocks"]
    with pytest.raises(GraphError, match="Not a stored neural graph"):
        NeuralGraph.from_dict(data)


def test_the_digest_depends_on_edges_but_not_on_notes() -> None:
    """Notes are for people; anything else changes the digest."""
    graph = _graph()
    assert replace(graph, notes=("hello",)).digest == graph.digest
    assert replace(graph, blocks=graph.blocks[::-1]).digest != graph.digest


def test_node_offsets_count_nodes_through_all_groups() -> None:
    """Groups follow each other without gaps; the numbers of nodes and edges are sums."""
    graph = _graph()
    assert graph.node_offsets == (0, 5, 13, 14, 21, 22, 25)
    assert graph.num_nodes == 26
    assert graph.num_edges == 5 * 8 + 8 + 8 * 7 + 7 + 7 * 3 + 3
    assert EdgeBlock("head", 0, 0, None, (), (), (), 4, 4, groups=2).num_edges == 8

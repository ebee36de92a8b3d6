"""A neural graph as an explicit list of edges: for checking, and for small graphs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..forecast import Layout
from ..forecast.graph import NeuralGraph
from .nino_network import HEAD, RESIDUAL, SELF_LOOP, SLOTS, pieces_of
from .tensor_types import CONVOLUTION, DENSE, KEY, NORM, OTHER, PLACES, QUERY, TOKENS, VALUE

TYPE_OF = {
    "dense": DENSE,
    "bias": OTHER,
    "conv": CONVOLUTION,
    "norm": NORM,
    "embedding": TOKENS,
    "position": PLACES,
    "query": QUERY,
    "key": KEY,
    "value": VALUE,
    "residual": RESIDUAL,
    "head": HEAD,
}


@dataclass(frozen=True)
class EdgeList:
    """All edges of a graph, self-loops last. Nodes are counted through all groups.

    Attributes:
        ends: source and target node of each edge, `[2, edge]`, int64.
        types: of each edge, as in `tensor_types`, and 10 residual, 11 head, 13 self-loop; `[edge]`, int64.
        scalars: the position in the flat vector of what each slot of an edge carries, `[edge, slot]`, int64; -1 for
            nothing.
        num_nodes: of the graph, and one more where there are tensors that it does not explain.
        token: row of the vocabulary that a node is for, `[node]`, int64; -1 for nodes that are for none.
        sends: whether messages run along an edge, `[edge]`, bool: not for tensors that the graph does not explain.
    """

    ends: Tensor
    types: Tensor
    scalars: Tensor
    num_nodes: int
    token: Tensor
    sends: Tensor


def edge_list(graph: NeuralGraph, layout: Layout) -> EdgeList:
    """The edges of a graph, one by one. Takes 100 bytes an edge and more.

    A kernel of more than nine positions becomes several edges side by side. A tensor that the graph does not explain
    becomes edges that send nothing, between a node that is joined to nothing and itself.

    Args:
        graph: the graph.
        layout: of the network it belongs to.
    """
    ends: list[Tensor] = []
    types: list[Tensor] = []
    scalars: list[Tensor] = []
    token = torch.full((graph.num_nodes,), -1)
    for group, offset in zip(graph.nodes, graph.node_offsets, strict=True):
        if group.kind == "vocabulary":
            token[offset : offset + group.size] = torch.arange(group.size)

    def add(source: Tensor, target: Tensor, kind: int, at: Tensor) -> None:
        for piece in pieces_of(at.shape[1]):
            part = at[:, piece]
            ends.append(torch.stack((source, target)))
            types.append(torch.full((len(source),), kind))
            scalars.append(torch.nn.functional.pad(part, (0, SLOTS - part.shape[1]), value=-1))

    for block in graph.blocks:
        groups, per_target, per_source, slots = block.tile_shape
        sources = graph.node_offsets[block.source] + block.source_offset + torch.arange(block.num_sources)
        targets = graph.node_offsets[block.target] + block.target_offset + torch.arange(block.num_targets)
        shape = (groups, per_target, per_source)
        source = sources.view(groups, 1, per_source).expand(shape).reshape(-1)
        target = targets.view(groups, per_target, 1).expand(shape).reshape(-1)
        if block.parameter is None:
            at = torch.full((len(source), 1), -1)
        else:
            spec = layout[block.parameter]
            places = torch.arange(spec.offset, spec.offset + spec.numel).view(spec.shape)
            at = graph.tile(block, places).reshape(-1, slots)
        add(source, target, TYPE_OF[block.kind], at)
    num_nodes, num_sending = graph.num_nodes, sum(len(part) for part in types)
    if graph.unexplained:
        for name in graph.unexplained:
            spec = layout[name]
            lone = torch.full((spec.numel,), num_nodes)
            add(lone, lone, OTHER, torch.arange(spec.offset, spec.offset + spec.numel).unsqueeze(1))
        num_nodes += 1
    num_silent = sum(len(part) for part in types) - num_sending
    loops = torch.arange(num_nodes)
    add(loops, loops, SELF_LOOP, torch.full((num_nodes, 1), -1))
    sends = torch.ones(num_sending + num_silent + num_nodes, dtype=torch.bool)
    sends[num_sending : num_sending + num_silent] = False
    token = torch.nn.functional.pad(token, (0, num_nodes - len(token)), value=-1)
    return EdgeList(torch.cat(ends, dim=1), torch.cat(types), torch.cat(scalars), num_nodes, token, sends)

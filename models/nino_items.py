"""Windows on graphs as lists of scalars: whole ones to check against, and parts of them to train on."""

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..forecast import Layout, Window
from ..forecast.graph import EdgeBlock, NeuralGraph
from .graph_tiles import silent_blocks
from .nino_neurons import EDGE_KINDS, LONE_EDGE, LONE_NODE, NODE_KINDS, Edges
from .nino_signals import drift_of, facts_of, features_of, signals_of
from .nino_stretches import condensed

_OF_EDGES = ("basis", "kind", "tensor", "ends", "share")


class Part(NamedTuple):
    """Some or all edges of one window.

    Attributes:
        edges: as one case.
        at: position of each edge's scalar in the flat vector, `[edge]`, int64; -1 for edges without one.
        counts: for how many scalars it stands, `[edge]`, float64; 0 for edges without one.
        unit: of its tensor, as in `Facts`, `[edge]`, float64.
    """

    edges: Edges
    at: Tensor
    counts: Tensor
    unit: Tensor


def num_blocks(graph: NeuralGraph, end: str, auxiliary: bool) -> list[int]:
    """How many blocks end in each group of nodes, or begin there.

    Args:
        graph: the graph.
        end: `target` or `source`.
        auxiliary: whether those without a tensor count.
    """
    found = [0] * len(graph.nodes)
    for block in graph.blocks:
        if auxiliary or block.parameter is not None:
            found[block.target if end == "target" else block.source] += 1
    return found


def part_of(
    window: Window,
    nodes_per_group: int | None = None,
    max_edges: int | None = None,
    generator: torch.Generator | None = None,
) -> Part:
    """The edges of a window's graph, one for each scalar, with what is seen of them.

    Args:
        window: with a graph and as many rows as the network sees.
        nodes_per_group: to choose at random from each group; groups that number the same axes get the same choice. All
            of them if None.
        max_edges: to choose at random from those between chosen nodes, as evenly over the blocks as can be.
        generator: the source of randomness; needed if something is to be chosen.
    """
    graph, layout = cast(NeuralGraph, window.graph), window.layout
    seen_rows = condensed(window)
    values, distances = seen_rows.window.values, seen_rows.gaps
    facts = facts_of(seen_rows)
    step = None if facts.step is None else facts.step.cpu()
    signals = torch.cat(
        [
            signals_of(values[:, spec.span].cpu(), None if step is None else step[spec.span], facts, index, distances)
            for index, spec in enumerate(layout)
        ],
        dim=1,
    )
    places = {block: positions(graph, block, layout) for block in graph.blocks if block.parameter is not None}
    statistics, common = _seen_of_nodes(graph, places, signals, distances)
    basis = torch.cat((signals, common)).T.contiguous()
    chosen, numbers = _choice(graph, nodes_per_group, generator)
    blocks = [*graph.blocks, *silent_blocks(graph, layout)]
    found = [_block_edges(graph, block, layout, places, chosen, nodes_per_group, generator) for block in blocks]
    if max_edges is not None:
        found = _thinned(found, max_edges, cast(torch.Generator, generator))
    position = {name: number for number, name in enumerate(layout.names)}
    inward, outward = num_blocks(graph, "target", True), num_blocks(graph, "source", True)
    columns: list[tuple[Tensor, ...]] = []
    for block, (at, source, target) in zip(blocks, found, strict=True):
        lone = block.source == len(graph.nodes)
        size = len(at)
        if lone:
            share = torch.zeros(size, 2)
            kind = LONE_EDGE
        else:
            kind = EDGE_KINDS[block.kind]
            by_target = torch.bincount(target, minlength=graph.num_nodes)[target] * inward[block.target]
            by_source = torch.bincount(source, minlength=graph.num_nodes)[source] * outward[block.source]
            share = torch.stack((1 / by_target, 1 / by_source), dim=1)
        stands = 0.0 if block.parameter is None else _numel(block) / max(1, size)
        columns.append(
            (
                at,
                torch.full((size,), stands, dtype=torch.float64),
                torch.full((size,), kind),
                torch.full((size,), position.get(str(block.parameter), 0)),
                torch.stack((numbers[source], numbers[target]), dim=1),
                share,
            )
        )
    at, count, kind, tensor, ends, share = (torch.cat(parts) for parts in zip(*columns, strict=True))
    seen = basis[at.clamp(min=0)] * (at >= 0).unsqueeze(1)
    kinds = torch.tensor([NODE_KINDS[group.kind] for group in graph.nodes for _ in range(group.size)] + [LONE_NODE])
    kept = (numbers >= 0).nonzero().squeeze(1)
    edges = Edges(seen, kind, tensor, ends, share.float(), facts.context, statistics[kept], kinds[kept])
    return Part(Edges(*(part.unsqueeze(0) for part in edges)), at, count, facts.unit[tensor])


def _numel(block: EdgeBlock) -> int:
    return block.num_edges * block.slots


def _seen_of_nodes(
    graph: NeuralGraph, places: Mapping[EdgeBlock, Tensor], signals: Tensor, distances: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """`[node, statistic]`, the lone node last, and what each scalar has in common with others, `[2, param]`."""
    features, drift = features_of(signals, distances), drift_of(signals, distances)
    half = len(features) + 1
    statistics = torch.zeros(graph.num_nodes + 1, 2 * half)
    common = torch.zeros(2, signals.shape[1])
    inward, outward = num_blocks(graph, "target", False), num_blocks(graph, "source", False)
    for block, at in places.items():
        seen, moved = features[:, at], drift[at]
        for side, dims, other, group, offset, number in (
            (0, (-2, -1), (2, 3), block.target, block.target_offset, inward),
            (1, (-3, -1), (1, 3), block.source, block.source_offset, outward),
        ):
            mean = moved.mean(dim=dims)
            common[side][at] = mean.unsqueeze(other[0]).unsqueeze(other[1]).expand(at.shape)
            facts = torch.cat((seen.mean(dim=dims).flatten(1), mean.flatten().abs().log1p().unsqueeze(0)))
            begin = graph.node_offsets[group] + offset
            place = statistics[begin : begin + facts.shape[1], side * half : (side + 1) * half]
            place += facts.T / number[group]
    return statistics, common


def positions(graph: NeuralGraph, block: EdgeBlock, layout: Layout) -> Tensor:
    """Of a block's scalars in the flat vector, `[groups, target, source, slot]`, int64."""
    spec = layout[str(block.parameter)]
    return graph.tile(block, torch.arange(spec.offset, spec.offset + spec.numel).view(spec.shape or (1,)))


def _choice(
    graph: NeuralGraph, nodes_per_group: int | None, generator: torch.Generator | None
) -> tuple[list[Tensor], Tensor]:
    """Chosen nodes of each group, and the number of every node among all chosen ones, -1 for others."""
    by_axes: dict[tuple[int, ...], Tensor] = {}
    chosen: list[Tensor] = []
    numbers = torch.full((graph.num_nodes + 1,), -1)
    total = 0
    for group, offset in zip(graph.nodes, graph.node_offsets, strict=True):
        if nodes_per_group is None or group.size <= nodes_per_group:
            own = torch.arange(group.size)
        elif group.axes in by_axes:
            own = by_axes[group.axes]
        else:
            own = torch.randperm(group.size, generator=generator)[:nodes_per_group].sort().values
            by_axes[group.axes] = own
        chosen.append(own)
        numbers[offset + own] = total + torch.arange(len(own))
        total += len(own)
    numbers[-1] = total
    return chosen, numbers


def _block_edges(
    graph: NeuralGraph,
    block: EdgeBlock,
    layout: Layout,
    places: Mapping[EdgeBlock, Tensor],
    chosen: list[Tensor],
    nodes_per_group: int | None,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scalars between chosen nodes: position in the flat vector, source and target node, `[edge]` each."""
    if block.source == len(graph.nodes):
        spec = layout[str(block.parameter)]
        at = torch.arange(spec.offset, spec.offset + spec.numel)
        if nodes_per_group is not None and len(at) > nodes_per_group**2:
            at = at[torch.randint(len(at), (nodes_per_group**2,), generator=generator)]
        lone = torch.full_like(at, graph.num_nodes)
        return at, lone, lone
    groups, per_target, per_source, slots = block.tile_shape
    source = _inside(chosen[block.source], block.source_offset, block.num_sources)
    target = _inside(chosen[block.target], block.target_offset, block.num_targets)
    if groups > 1:
        same = (target // per_target).unsqueeze(1) == (source // per_source).unsqueeze(0)
        to, of = same.nonzero().unbind(dim=1)
        source, target = source[of], target[to]
    else:
        source, target = source.repeat(len(target)), target.repeat_interleave(len(source))
    source, target = source.repeat_interleave(slots), target.repeat_interleave(slots)
    if block.parameter is None:
        at = torch.full_like(source, -1)
    else:
        slot = torch.arange(slots).repeat(len(source) // slots)
        at = places[block][target // per_target, target % per_target, source % per_source, slot]
    begin = graph.node_offsets[block.source] + block.source_offset
    return at, source + begin, target + graph.node_offsets[block.target] + block.target_offset


def _inside(nodes: Tensor, offset: int, count: int) -> Tensor:
    """Those of a group's nodes that a tile spans, counted from the tile's first."""
    return nodes[(nodes >= offset) & (nodes < offset + count)] - offset


def _thinned(
    found: list[tuple[Tensor, Tensor, Tensor]], max_edges: int, generator: torch.Generator
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """At most `max_edges` altogether: small blocks whole, of large ones equally many."""
    left, shares = max_edges, [0] * len(found)
    order = sorted(range(len(found)), key=lambda number: len(found[number][0]))
    for place, number in enumerate(order):
        shares[number] = min(len(found[number][0]), left // (len(order) - place))
        left -= shares[number]
    thin: list[tuple[Tensor, Tensor, Tensor]] = []
    for parts, share in zip(found, shares, strict=True):
        if share < len(parts[0]):
            keep = torch.randperm(len(parts[0]), generator=generator)[:share]
            parts = (parts[0][keep], parts[1][keep], parts[2][keep])
        thin.append(parts)
    return thin


def padded(parts: list[Edges], num_edges: int) -> Edges:
    """Cases of different sizes as one: what is filled up are edges that carry nothing, and nodes without any.

    Args:
        parts: of one case each.
        num_edges: at least as many as each has.
    """
    sizes = [max(part[field].shape[1] for part in parts) for field in range(len(parts[0]))]
    sizes = [num_edges if field in _OF_EDGES else size for field, size in zip(Edges._fields, sizes, strict=True)]
    columns: list[Tensor] = []
    for field, size in enumerate(sizes):
        full: list[Tensor] = []
        for part in parts:
            value = part[field]
            shape = (1, size - value.shape[1], *value.shape[2:])
            full.append(torch.cat((value, value.new_zeros(shape)), dim=1))
        columns.append(torch.cat(full))
    return Edges(*columns)

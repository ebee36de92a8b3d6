"""Dense tiles of a neural graph, cut into pieces that stay in a processor's cache."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from ..forecast import Layout
from ..forecast.graph import EdgeBlock, NeuralGraph

EDGES = 2048  # worked on together
TARGETS = 16  # rows of a tile worked on together: 64 bytes, a cache line, where targets lie side by side in memory


class Cut(NamedTuple):
    """A part of a tile `[groups, target, source, slots]`: some groups, targets and sources, and all slots."""

    groups: slice
    targets: slice
    sources: slice


class Span(NamedTuple):
    """Some nodes of one group."""

    group: int
    begin: int
    end: int


def node_spans(graph: NeuralGraph) -> list[Span]:
    """All nodes, in pieces. Edges into different pieces can be worked on at the same time."""
    return [
        Span(number, begin, min(begin + TARGETS, group.size))
        for number, group in enumerate(graph.nodes)
        for begin in range(0, group.size, TARGETS)
    ]


def shape_of(cut: Cut) -> tuple[int, int, int]:
    """How many groups, targets and sources."""
    groups, targets, sources = (part.stop - part.start for part in cut)
    return groups, targets, sources


def block_spans(block: EdgeBlock, edges: int | None = None) -> list[tuple[int, int]]:
    """All targets of a block, counted from its own first, in pieces.

    Args:
        block: the block.
        edges: a piece has so many where that makes it larger; `TARGETS` targets if not given.
    """
    if block.num_targets > block.groups or block.groups == 1:
        size = max(TARGETS, (edges or 0) * block.groups // block.num_sources)
    else:
        size = edges or EDGES
    return [(begin, min(begin + size, block.num_targets)) for begin in range(0, block.num_targets, size)]


def cuts(block: EdgeBlock, begin: int, end: int, edges: int | None = None) -> Iterator[Cut]:
    """The edges into targets `begin` to `end` of a block, counted from its own first, at most `edges` at a time.

    Always the same cuts for the same range, so that results do not depend on anything else. `EDGES` if not given.
    """
    groups, per_target, per_source, _ = block.tile_shape
    edges = edges or EDGES
    if groups > 1 and per_target == 1:
        step = max(1, edges // per_source)
        for first in range(begin, end, step):
            for source in _ranges(per_source, edges):
                yield Cut(slice(first, min(first + step, end)), slice(0, 1), source)
        return
    for group in range(begin // per_target, (end - 1) // per_target + 1):
        low, high = max(begin - group * per_target, 0), min(end - group * per_target, per_target)
        for source in _ranges(per_source, max(1, edges // (high - low))):
            yield Cut(slice(group, group + 1), slice(low, high), source)


def _ranges(size: int, step: int) -> Iterator[slice]:
    for begin in range(0, size, step):
        yield slice(begin, min(begin + step, size))


def source_states(states: Tensor, block: EdgeBlock, cut: Cut) -> Tensor:
    """States of a cut's sources, `[groups, 1, source, width]`, a view.

    Args:
        states: of all nodes of the source group, `[node, width]`; or `[1, width]` where all nodes are alike.
        block: whose edges they are.
        cut: which of them.
    """
    width = states.shape[1]
    if len(states) == 1:
        return states.view(1, 1, 1, width)
    own = states[block.source_offset : block.source_offset + block.num_sources]
    return own.view(block.groups, 1, -1, width)[cut.groups, :, cut.sources]


def target_states(states: Tensor, block: EdgeBlock, cut: Cut) -> Tensor:
    """States of a cut's targets, `[groups, target, 1, width]`, a view; see `source_states`."""
    width = states.shape[1]
    if len(states) == 1:
        return states.view(1, 1, 1, width)
    own = states[block.target_offset : block.target_offset + block.num_targets]
    return own.view(block.groups, -1, 1, width)[cut.groups, cut.targets]


def cut_values(tile: Tensor, cut: Cut, slots: slice) -> Tensor:
    """A cut of a tile's values, `[slot, time, groups, target, source]`, a view.

    Args:
        tile: `[time, groups, target, source, slot]`.
        cut: which edges.
        slots: which scalars of each edge.
    """
    return tile[:, cut.groups, cut.targets, cut.sources, slots].permute(4, 0, 1, 2, 3)


def tile_of(graph: NeuralGraph, block: EdgeBlock, layout: Layout, values: Tensor) -> Tensor:
    """The values of a block's edges, `[..., groups, target, source, slots]`: a view where the order in memory allows.

    Args:
        graph: the graph.
        block: that has a tensor.
        layout: of its network.
        values: `[..., param]`.
    """
    spec = layout[str(block.parameter)]
    return graph.tile(block, values[..., spec.span].unflatten(-1, spec.shape or (1,)))


def put_back(graph: NeuralGraph, layout: Layout, tiles: Sequence[tuple[EdgeBlock, Tensor]], result: Tensor) -> None:
    """Copy tiles to where they belong, where `tile_of` could not make them views of `result`.

    Args:
        graph: the graph.
        layout: of its network.
        tiles: blocks that have a tensor, with what `tile_of` gave of `result`, filled since.
        result: `[..., param]`.
    """
    for block, tile in tiles:
        if tile.untyped_storage().data_ptr() != result.untyped_storage().data_ptr():
            spec = layout[str(block.parameter)]
            graph.untile(block, tile, result[..., spec.span].unflatten(-1, spec.shape or (1,)))


def silent_blocks(graph: NeuralGraph, layout: Layout) -> list[EdgeBlock]:
    """One block for each tensor that the graph does not explain: edges that carry no messages.

    Both ends are node group `len(graph.nodes)`, which the graph lacks: one node that nothing is joined to. The state of
    such a group is `[1, width]`, so that it fits any number of sources.
    """
    lone = len(graph.nodes)
    blocks: list[EdgeBlock] = []
    for name in graph.unexplained:
        size, shape = layout[name].numel, layout[name].shape
        if size:
            span = tuple((0, extent) for extent in shape or (1,))  # a scalar is taken for one entry
            blocks.append(EdgeBlock("bias", lone, lone, name, span, (size,), (0,), size, 1))
    return blocks


def incoming(graph: NeuralGraph) -> list[list[int]]:
    """For each group of nodes the blocks that end there, as indices."""
    found: list[list[int]] = [[] for _ in graph.nodes]
    for number, block in enumerate(graph.blocks):
        found[block.target].append(number)
    return found

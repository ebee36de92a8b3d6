"""NiNo layer by layer on dense tiles: the same numbers as `nino_reference`, without a state for every edge.

With f the features of an edge, every message is affine in f in the first round, and affine in g = SiLU(U f + S x_j +
T x_i + c) in the second. So the mean of messages needs only sums over the edges of a tile: of f or g (times a matrix
afterwards, once a node instead of once an edge), and of their products with what the sources send:

    sum_j (A z_ij + a) * (d_i + y_j) + B z_ij + b = (A Z_i + n a) * d_i + B Z_i + n b + sum_j (A z_ij + a) * y_j.

Where all sources are alike, as the rows of an embedding are that nothing is joined to, the last sum is
(A Z_i + n a) * y: no matrix product for an edge at all. States of edges exist for 2048 edges at a time. Matrix products
for an edge are left in the second round (one, width^2, where sources differ) and after it (two); as published there are
eight and a half, and eight more in a third round that has no effect.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import silu

from ..forecast import Layout
from ..forecast.graph import EdgeBlock, NeuralGraph
from .coordinate_pieces import for_each
from .graph_edges import TYPE_OF
from .graph_tiles import (
    Cut,
    Span,
    block_spans,
    cut_values,
    cuts,
    incoming,
    node_spans,
    put_back,
    shape_of,
    silent_blocks,
    source_states,
    target_states,
    tile_of,
)
from .nino_network import (
    AUXILIARY_VALUE,
    ROWS,
    SCALE_EPSILON,
    SELF_LOOP,
    SELF_LOOP_VALUE,
    Merged,
    MergedRound,
    num_pieces,
    pieces_of,
)
from .rows import Scaling

ValueOf = Callable[[int, Tensor, Tensor], Tensor]
"""Tensor's number, values `[time, groups, target, source, slot]` and outputs `[horizon, ...]` to forecasts."""
States = list[Tensor]  # of each group of nodes, `[node, width]`, or `[1, width]` where all its nodes are alike


class Ends(NamedTuple):
    """What nodes add to the inside of their edges' next activation, as sources and as targets."""

    source: States
    target: States


class NiNoPass:
    """One window on one graph, ready to be forecast.

    Args:
        merged: the network.
        graph: the graph.
        layout: of the network that is forecast.
        rows: its five values, `[time, param]`.
        scaling: of its tensors.
        positions: what tells nodes apart, `[node, 8]`; zero, and the work less, where none are given.
    """

    def __init__(
        self,
        merged: Merged,
        graph: NeuralGraph,
        layout: Layout,
        rows: Tensor,
        scaling: Scaling,
        positions: Tensor | None = None,
    ) -> None:
        self.merged = merged
        self.graph = graph
        self.layout = layout
        self.rows = rows
        self.scaling = scaling
        self._number = {name: number for number, name in enumerate(layout.names)}
        self._incoming = incoming(graph)
        self._constant = merged.rounds[0].state.bias + merged.type_state
        start = self._start(positions)
        first = self._round(start, None)
        self._inner = self._ends(merged.rounds[0], first)
        second = self._round(first, self._inner)
        self._outer = self._ends(merged.rounds[1], second)

    # -- nodes

    def _start(self, positions: Tensor | None) -> States:
        start, tokens = self.merged.start, self.merged.tokens
        states: States = []
        for group, offset in zip(self.graph.nodes, self.graph.node_offsets, strict=True):
            if positions is None:
                state = start.bias.unsqueeze(0)
            else:
                own = positions[offset : offset + group.size].float()
                state = torch.addmm(start.bias, own, start.weight.T)
            if len(tokens):
                state = state + (tokens[1 : group.size + 1] if group.kind == "vocabulary" else tokens[:1])
            states.append(state)
        lone = start.bias.unsqueeze(0)
        states.append(lone + tokens[:1] if len(tokens) else lone)
        return states

    def _round(self, states: States, ends: Ends | None) -> States:
        """New states of all nodes; `ends` are those of the first round's edges, None in the first round itself."""
        layers = self.merged.rounds[0 if ends is None else 1]
        sent = [state @ layers.other.T for state in states]
        width = layers.take.shape[0]
        result: States = []
        spans: list[Span] = []
        for span in node_spans(self.graph):
            group = span.group
            if len(result) == group:
                alike = not self._incoming[group] and len(states[group]) == 1
                result.append(states[group].new_empty(1 if alike else self.graph.nodes[group].size, width))
            if len(result[group]) > 1 or span.begin == 0:
                spans.append(span._replace(end=min(span.end, len(result[group]))))
        result.append(states[-1].new_empty(1, width))
        lone = Span(len(self.graph.nodes), 0, 1)

        def work(span: Span) -> None:
            state = states[span.group]
            state = state if len(state) == 1 else state[span.begin : span.end]
            total, count = self._messages(layers, span, state, sent, ends)
            update = torch.addmm(layers.keep.bias, state, layers.keep.weight.T) + (total / count) @ layers.take.T
            result[span.group][span.begin : span.end] = silu(update)

        for_each(work, [*spans, lone], self.rows.device)
        return result

    def _messages(
        self, layers: MergedRound, span: Span, state: Tensor, sent: States, ends: Ends | None
    ) -> tuple[Tensor, Tensor]:
        """The sum of all messages to some nodes, `[node, width]`, and how many there are, `[node, 1]`."""
        size, width = span.end - span.begin, state.shape[1]
        own = torch.addmm(layers.own.bias, state, layers.own.weight.T)
        total = own.new_zeros(size, width)
        count = own.new_ones(size, 1)
        blocks = self._incoming[span.group] if span.group < len(self.graph.nodes) else []
        for number in blocks:
            block = self.graph.blocks[number]
            begin = max(span.begin - block.target_offset, 0)
            end = min(span.end - block.target_offset, block.num_targets)
            if begin >= end:
                continue
            first = begin + block.target_offset - span.begin
            to = slice(first, first + end - begin)
            scale, shift, cross = self._from_block(layers, number, begin, end, sent[block.source], ends)
            total[to] += scale * (own if len(own) == 1 else own[to]) + shift + cross
            count[to] += num_pieces(block.slots) * (block.num_sources // block.groups)
        # And the self-loops.
        scale, shift = self._self_loops(layers, span, ends)
        theirs = sent[span.group]
        theirs = theirs if len(theirs) == 1 else theirs[span.begin : span.end]
        return total.add_(scale * (own + theirs) + shift), count

    def _self_loops(self, layers: MergedRound, span: Span, ends: Ends | None) -> tuple[Tensor, Tensor]:
        merged = self.merged
        if ends is None:
            inside = SELF_LOOP_VALUE * layers.scale.weight[:, :ROWS].sum(dim=1) + merged.type_scale[SELF_LOOP]
            moved = SELF_LOOP_VALUE * layers.shift.weight[:, :ROWS].sum(dim=1) + merged.type_shift[SELF_LOOP]
            return (inside + layers.scale.bias).unsqueeze(0), (moved + layers.shift.bias).unsqueeze(0)
        first = merged.rounds[0].state
        inside = first.bias + merged.type_state[SELF_LOOP] + SELF_LOOP_VALUE * first.weight[:, :ROWS].sum(dim=1)
        both = ends.source[span.group] + ends.target[span.group]
        active = silu(inside + (both if len(both) == 1 else both[span.begin : span.end]))
        scale = torch.addmm(layers.scale.bias, active, layers.scale.weight.T)
        return scale, torch.addmm(layers.shift.bias, active, layers.shift.weight.T)

    def _from_block(
        self, layers: MergedRound, number: int, begin: int, end: int, sent: Tensor, ends: Ends | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over a block's edges into some of its targets: of scale(e), of shift(e), of scale(e) * y_j.

        Each `[node, width]`, or what broadcasts to it.
        """
        block = self.graph.blocks[number]
        groups, per_target, per_source, slots = block.tile_shape
        kind = TYPE_OF[block.kind]
        width = sent.shape[1]
        size = end - begin
        tile = self._tile(block)
        scale_bias, shift_bias = layers.scale.bias, layers.shift.bias
        if ends is None:
            scale_bias = scale_bias + self.merged.type_scale[kind]
            shift_bias = shift_bias + self.merged.type_shift[kind]
        alike = len(sent) == 1
        cross = sent.new_zeros(size, width)
        scale_sum, shift_sum = sent.new_zeros(size, width), sent.new_zeros(size, width)
        for piece in pieces_of(slots):
            used = ROWS * (piece.stop - piece.start) if ends is None else width
            sums = sent.new_zeros(size, used)
            for cut in cuts(block, begin, end):
                place = _place(block, cut, begin)
                features = self._features(block, tile, cut, piece)
                if ends is None:
                    by_edge = features.unflatten(1, shape_of(cut))
                    sums[place] += by_edge.sum(dim=3).flatten(1).T
                    if not alike:
                        theirs = source_states(sent, block, cut).squeeze(1)
                        products = torch.matmul(by_edge, theirs).flatten(1, 2)
                        cross[place] += torch.einsum("qnw,wq->nw", products, layers.scale.weight[:, :used])
                else:
                    to = target_states(ends.target[block.target], block, cut) + self._constant[kind]
                    active = self._active(block, cut, features, to)
                    sums[place] += active.sum(dim=2).flatten(0, 1)
                    if not alike:
                        scales = active.flatten(0, 2) @ layers.scale.weight.T
                        scales = scales.view(active.shape).mul_(source_states(sent, block, cut))
                        cross[place] += scales.sum(dim=2).flatten(0, 1)
            scale_sum += sums @ layers.scale.weight[:, :used].T
            shift_sum += sums @ layers.shift.weight[:, :used].T
        count = per_source * num_pieces(slots)
        scale_sum += count * scale_bias
        shift_sum += count * shift_bias
        if alike:
            return scale_sum, shift_sum, scale_sum * sent
        every = sent[block.source_offset : block.source_offset + block.num_sources].view(groups, per_source, width)
        of_group = every.sum(dim=1)[torch.arange(begin, end) // per_target]
        return scale_sum, shift_sum, cross + num_pieces(slots) * scale_bias * of_group

    # -- edges

    def _tile(self, block: EdgeBlock) -> Tensor | None:
        return None if block.parameter is None else tile_of(self.graph, block, self.layout, self.rows)

    def _features(self, block: EdgeBlock, tile: Tensor | None, cut: Cut, slots: slice) -> Tensor:
        """Scaled values, `[slot * time, edge]`, float32."""
        if tile is None:
            return torch.full((ROWS, math.prod(shape_of(cut))), AUXILIARY_VALUE)
        number = self._number[str(block.parameter)]
        mean, deviation = float(self.scaling.mean[number]), float(self.scaling.deviation[number])
        values = cut_values(tile, cut, slots)
        values = values.to(torch.promote_types(values.dtype, torch.float32)).reshape(values.shape[0] * ROWS, -1)
        return (values - mean).mul_(1 / (deviation + SCALE_EPSILON)).float()

    def _active(self, block: EdgeBlock, cut: Cut, features: Tensor, to: Tensor) -> Tensor:
        """g of some edges, `[groups, target, source, width]`; `to` is all of its inside that a target decides."""
        weight = self.merged.rounds[0].state.weight
        inside = source_states(self._inner.source[block.source], block, cut) + to
        inside = inside.expand(*shape_of(cut), weight.shape[0]).contiguous()
        silu(inside.flatten(0, 2).addmm_(features.T, weight[:, : len(features)].T), inplace=True)
        return inside

    def _ends(self, layers: MergedRound, states: States) -> Ends:
        return Ends([state @ layers.source.T for state in states], [state @ layers.target.T for state in states])

    # -- forecasts

    def forecasts(self, mixture: Tensor, value_of: "ValueOf") -> Tensor:
        """Values of every scalar, `[horizon, param]`, in the window's type.

        Args:
            mixture: of the 40 outputs, `[horizon, 40]`.
            value_of: makes values of outputs.
        """
        merged = self.merged
        weight = torch.stack([torch.einsum("k,skw->ws", row.double(), merged.out.weight) for row in mixture]).float()
        bias = torch.stack([merged.out.bias @ row.double() for row in mixture]).float()
        second, head = merged.rounds[1], merged.head
        result = self.rows.new_empty(len(mixture), self.layout.size)
        blocks = [block for block in self.graph.blocks if block.parameter is not None]
        blocks += silent_blocks(self.graph, self.layout)
        places = [tile_of(self.graph, block, self.layout, result) for block in blocks]
        pieces = [(number, span) for number, block in enumerate(blocks) for span in block_spans(block)]

        def work(piece: tuple[int, tuple[int, int]]) -> None:
            number, (begin, end) = piece
            block, place = blocks[number], places[number]
            kind, tile = TYPE_OF[block.kind], cast(Tensor, self._tile(block))
            tensor = self._number[str(block.parameter)]
            for cut in cuts(block, begin, end):
                inner = target_states(self._inner.target[block.target], block, cut) + self._constant[kind]
                outer = target_states(self._outer.target[block.target], block, cut) + second.state.bias
                for slots in pieces_of(block.slots):
                    features = self._features(block, tile, cut, slots)
                    active = self._active(block, cut, features, inner)
                    inside = source_states(self._outer.source[block.source], block, cut) + outer
                    inside = inside.expand(active.shape).contiguous()
                    flat, active = inside.flatten(0, 2), active.flatten(0, 2)
                    silu(flat.addmm_(active, second.state.weight.T), inplace=True)
                    silu(torch.addmm(head.bias, flat, head.weight.T, out=active), inplace=True)
                    count = slots.stop - slots.start
                    found = active.new_empty(len(mixture), *shape_of(cut), count)
                    # One by one: the last digits of a horizon must not depend on which others are asked for.
                    for number, into in enumerate(found.flatten(1, 3)):
                        torch.addmm(bias[number, :count], active, weight[number, :, :count], out=into)
                    values = cut_values(tile, cut, slots).permute(1, 2, 3, 4, 0)
                    place[:, cut.groups, cut.targets, cut.sources, slots] = value_of(tensor, values, found)

        for_each(work, pieces, self.rows.device)
        put_back(self.graph, self.layout, list(zip(blocks, places, strict=True)), result)
        return result


def _place(block: EdgeBlock, cut: Cut, begin: int) -> slice:
    """Where a cut's targets lie among those from `begin` on."""
    groups, targets, _ = shape_of(cut)
    first = cut.groups.start * (block.num_targets // block.groups) + cut.targets.start - begin
    return slice(first, first + groups * targets)

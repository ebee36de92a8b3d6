"""Our NiNo on dense tiles: the numbers of `NeuronNetwork`, with memory for nodes and one piece of a tile."""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import silu

from ..forecast import Layout, Window
from ..forecast.graph import EdgeBlock, NeuralGraph
from .coordinate_pieces import for_each
from .graph_tiles import Cut, block_spans, cut_values, cuts, put_back, shape_of, silent_blocks, tile_of
from .nino_items import num_blocks
from .nino_neurons import COMMON, EDGE_KINDS, LONE_EDGE, LONE_NODE, NODE_KINDS, SPREAD, NeuronNetwork, num_statistics
from .nino_signals import BESIDE, aligned, drift_of, facts_of, features_of, num_features, signals_of, signals_of_all
from .nino_stretches import condensed

Work = Callable[[int, Cut], tuple[Tensor, Tensor]]
"""Block's number and cut to sums over its sources, `[..., groups, target]`, and targets, `[..., groups, source]`."""
STRIPES = 4  # parts of a block that are worked on side by side; fixed, so that sums do not depend on the threads
EDGES = 8192  # worked on together: on a perceptron of 52,650 weights 2048 took 1.3 times as long, 32768 as long
HELD = 2**18  # scalars up to which what is seen of them is kept: 60 to 80 bytes each, made once instead of three times


class Common(NamedTuple):
    """Mean step of a block's edges into each target, `[target]`, and out of each source, `[source]`."""

    target: Tensor
    source: Tensor


class NeuronPass:
    """One window on its graph, ready to be forecast.

    All is laid out with scalars last, `[number, ..., scalar]`, so that what is done to a number is done to a stretch of
    memory. States of nodes are `[width, node]`.

    Args:
        network: the network.
        window: with a graph and as many rows as the network sees.
    """

    def __init__(self, network: NeuronNetwork, window: Window) -> None:
        self.network = network
        self.graph = cast(NeuralGraph, window.graph)
        self.layout: Layout = window.layout
        seen = condensed(window)
        self.rows = seen.window.values.cpu()
        self._distances = seen.gaps
        self.facts = facts_of(seen)
        self._step = None if self.facts.step is None else self.facts.step.cpu()
        self._number = {name: number for number, name in enumerate(self.layout.names)}
        self._signals = len(self.rows) - 1 + BESIDE
        self._features = num_features(len(window))
        self._context = network.context(self.facts.context)
        self._followed = network.of_tensors(self.facts.context)
        self._blocks = [*self.graph.blocks, *silent_blocks(self.graph, self.layout)]
        self._seen_of_all = self._held() if self.layout.size <= HELD else None
        self._tiles = [self._tile(block) for block in self._blocks]
        statistics, self._common = self._statistics()
        kinds = [NODE_KINDS[group.kind] for group in self.graph.nodes]
        nodes = [network.start(s.T, torch.tensor(k)) for s, k in zip(statistics, kinds, strict=True)]
        nodes.append(network.start(torch.zeros(1, num_statistics(len(window))), torch.tensor(LONE_NODE)))
        nodes = self._renewed(nodes)
        self._source = [network.source(state).T for state in nodes]
        self._target = [network.target(state).T for state in nodes]

    # -- what is seen

    def _held(self) -> Tensor:
        """What is seen of every scalar, `[number, param]`: signals, features, mean step."""
        signals = signals_of_all(self.rows, self._step, self.facts, self.layout, self._distances)
        return self._with_features(signals)

    def _with_features(self, signals: Tensor) -> Tensor:
        drift = drift_of(signals, self._distances)
        return torch.cat((signals, features_of(signals, self._distances), drift.unsqueeze(0)))

    def _tile(self, block: EdgeBlock) -> tuple[Tensor, ...]:
        """What is seen of a block's edges; or its rows, and the optimiser's step, where that is not held."""
        if block.parameter is None:
            return ()
        if self._seen_of_all is not None:
            return (tile_of(self.graph, block, self.layout, self._seen_of_all),)
        step = () if self._step is None else (self._step.unsqueeze(0),)
        return tuple(tile_of(self.graph, block, self.layout, values) for values in (self.rows, *step))

    def _seen(self, number: int, cut: Cut) -> Tensor:
        """`[number, groups, target, source, slot]`."""
        block, tiles = self._blocks[number], self._tiles[number]
        if block.parameter is None:
            return torch.zeros(self._signals + self._features + 1, *shape_of(cut), block.slots)
        parts = [tile[:, cut.groups, cut.targets, cut.sources] for tile in tiles]
        if self._seen_of_all is not None:
            return parts[0]
        step = parts[1].flatten() if len(parts) > 1 else None
        tensor = self._number[block.parameter]
        signals = signals_of(parts[0].flatten(1), step, self.facts, tensor, self._distances)
        return self._with_features(signals).view(-1, *parts[0].shape[1:])

    def _statistics(self) -> tuple[list[Tensor], list[Common | None]]:
        """Of the nodes of each group, `[statistic, node]`, and what the edges of each block have in common."""
        half = self._features + 1
        sums = self._stripes(half, self._counted)
        found = [torch.zeros(2 * half, group.size) for group in self.graph.nodes]
        common: list[Common | None] = []
        inward, outward = (num_blocks(self.graph, end, False) for end in ("target", "source"))
        for block, (at_target, at_source) in zip(self.graph.blocks, sums, strict=True):
            if block.parameter is None:
                common.append(None)
                continue
            common.append(Common(at_target[-1].clone(), at_source[-1].clone()))
            for side, part in enumerate((at_target, at_source)):
                part[-1].abs_().log1p_()
                group, offset = (block.source, block.source_offset) if side else (block.target, block.target_offset)
                place = found[group][side * half : (side + 1) * half, offset : offset + part.shape[1]]
                place += part / (outward if side else inward)[group]
        return found, common

    def _counted(self, number: int, cut: Cut) -> tuple[Tensor, Tensor]:
        """Features and mean steps summed over a cut's sources, and over its targets."""
        seen = _over_slots(self._seen(number, cut)[self._signals :])
        return seen.sum(dim=3), seen.sum(dim=2)

    # -- messages

    def _renewed(self, nodes: list[Tensor]) -> list[Tensor]:
        network = self.network
        width = network.width
        sent = [network.send(state).chunk(2, dim=1) for state in nodes]
        weight, bias = network.gate.weight.unflatten(0, (2, width)), network.gate.bias.unflatten(0, (2, width))
        by_feature = weight.transpose(1, 2).unsqueeze(2).unsqueeze(2)  # [2, feature, 1, 1, width]

        def messages(number: int, cut: Cut) -> tuple[Tensor, Tensor]:
            block = self._blocks[number]
            gate = block.slots * (bias + network.gate_kinds[EDGE_KINDS[block.kind]].view(2, width))
            from_source = _states(sent[block.source][0], block, cut.groups, cut.sources, "source")
            from_target = _states(sent[block.target][1], block, cut.groups, cut.targets, "target")
            groups, targets, sources = shape_of(cut)
            forward = (gate[0] * from_source.sum(dim=1, keepdim=True)).expand(groups, targets, width)
            reverse = (gate[1] * from_target.sum(dim=1, keepdim=True)).expand(groups, sources, width)
            if block.parameter is not None:
                seen = _over_slots(self._seen(number, cut)[self._signals : -1])
                forward = forward + _gated(seen, from_source, by_feature[0])
                reverse = reverse + _gated(seen.mT, from_target, by_feature[1])
            return forward.movedim(2, 0), reverse.movedim(2, 0)

        sums = self._stripes(width, messages)
        incoming = [torch.zeros(width, len(state)) for state in nodes]
        outgoing = [torch.zeros(width, len(state)) for state in nodes]
        inward, outward = (num_blocks(self.graph, end, True) for end in ("target", "source"))
        for block, (at_target, at_source) in zip(self.graph.blocks, sums, strict=True):
            place = slice(block.target_offset, block.target_offset + block.num_targets)
            incoming[block.target][:, place] += at_target / inward[block.target]
            place = slice(block.source_offset, block.source_offset + block.num_sources)
            outgoing[block.source][:, place] += at_source / outward[block.source]
        parts = zip(nodes, incoming, outgoing, strict=True)
        return [network.renewed(state, came.T, went.T) for state, came, went in parts]

    def _stripes(self, width: int, work: Work) -> list[tuple[Tensor, Tensor]]:
        """Means over the edges of each target and of each source of each block of the graph, `[width, node]`."""
        blocks = self.graph.blocks
        pieces: list[tuple[int, int]] = []
        spans = [block_spans(block, EDGES) for block in blocks]
        targets = [torch.zeros(width, block.groups, block.num_targets // block.groups) for block in blocks]
        sources: list[Tensor] = []
        for number, block in enumerate(blocks):
            count = min(STRIPES, len(spans[number]))
            sources.append(torch.zeros(count, width, block.groups, block.num_sources // block.groups))
            pieces += [(number, stripe) for stripe in range(count)]

        def fill(piece: tuple[int, int]) -> None:
            number, stripe = piece
            to, of = targets[number], sources[number][stripe]
            for begin, end in spans[number][stripe::STRIPES]:
                for cut in cuts(blocks[number], begin, end, EDGES):
                    forward, reverse = work(number, cut)
                    to[:, cut.groups, cut.targets] += forward
                    of[:, cut.groups, cut.sources] += reverse

        for_each(fill, pieces, self.rows.device)
        found: list[tuple[Tensor, Tensor]] = []
        for number, block in enumerate(blocks):
            _, per_target, per_source, slots = block.tile_shape
            at_sources = sources[number].sum(dim=0) if len(sources[number]) > 1 else sources[number][0]
            means = (targets[number] / (per_source * slots), at_sources / (per_target * slots))
            found.append((means[0].flatten(1), means[1].flatten(1)))
        return found

    # -- forecasts

    def forecasts(self, reach: Tensor, calibration: Tensor, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """Means and scales, `[asked, param]` each, in the window's type.

        Args:
            reach: trained horizons in row spacings, `[horizon]`.
            calibration: what scales are multiplied by, `[horizon]`.
            mixture: of trained horizons, for each asked one, `[asked, horizon]`.
        """
        mean, scale = (self.rows.new_empty(len(mixture), self.layout.size) for _ in range(2))
        numbers = [number for number, block in enumerate(self._blocks) if block.parameter is not None]
        places = {
            n: [tile_of(self.graph, self._blocks[n], self.layout, part) for part in (mean, scale)] for n in numbers
        }
        pieces = [(number, span) for number in numbers for span in block_spans(self._blocks[number], EDGES)]
        heads = [self._head(row.double(), reach.double(), calibration) for row in mixture]
        fixed = {number: [head.fixed(self._added(number)) for head in heads] for number in numbers}

        def work(piece: tuple[int, tuple[int, int]]) -> None:
            number, (begin, end) = piece
            block = self._blocks[number]
            slots = slice(0, block.slots)
            tile = tile_of(self.graph, block, self.layout, self.rows[-1:])
            for cut in cuts(block, begin, end, EDGES):
                hidden, basis, unit = self._cut(number, cut)
                last = cut_values(tile, cut, slots).permute(1, 2, 3, 4, 0)[0]
                # One by one: the last digits of a horizon must not depend on which others are asked for.
                for asked, head in enumerate(heads):
                    change, scale = head.of(hidden, basis, fixed[number][asked])
                    found = (change.mul_(unit).view(last.shape) + last, scale.mul_(unit).view(last.shape))
                    for place, values in zip(places[number], found, strict=True):
                        place[asked, cut.groups, cut.targets, cut.sources, slots] = values

        for_each(work, pieces, self.rows.device)
        for index, result in enumerate((mean, scale)):
            put_back(self.graph, self.layout, [(self._blocks[n], places[n][index]) for n in numbers], result)
        return mean, scale

    def _added(self, number: int) -> Tensor:
        """What the tensor and the kind of a block add to its z, `[horizon, number]`."""
        block, network = self._blocks[number], self.network
        kind = LONE_EDGE if block.source == len(self.graph.nodes) else EDGE_KINDS[block.kind]
        added = self._followed[self._number[str(block.parameter)]] + network.by_kind[kind]
        return added.view(network.num_horizons, network.num_odd)

    def _head(self, row: Tensor, reach: Tensor, calibration: Tensor) -> "_Head":
        """The network's last layer for one asked horizon; `row` says what each trained one counts for."""
        network = self.network
        counts = row.nonzero().squeeze(1)
        weight, bias = (
            part.unflatten(0, (-1, network.num_odd + 1)) for part in (network.head.weight, network.head.bias)
        )
        far = (row * reach).view(-1, 1, 1) * network.directions  # [horizon, number, direction]
        return _Head(
            torch.einsum("hor,hrw->ow", far, weight[:, :-1].double()).float(),
            far,
            bias[:, :-1],
            (row * reach) @ network.usual.double(),
            weight[counts, -1],
            bias[counts, -1].unsqueeze(1),
            (row * calibration.square() * reach)[counts].float().unsqueeze(1),
        )

    def _cut(self, number: int, cut: Cut) -> tuple[Tensor, Tensor, Tensor]:
        """Last states and odd numbers, `[..., scalar]`, and unit, `[scalar]`, 0 for what stands still."""
        network, block = self.network, self._blocks[number]
        lone = block.source == len(self.graph.nodes)
        seen = self._seen(number, cut)
        shape = seen.shape[1:]
        basis = seen.new_empty(network.num_odd, *shape)
        basis[:-COMMON] = seen[: self._signals]
        if lone:
            basis[-COMMON:] = 0
        else:
            common = cast(Common, self._common[number])
            basis[-2] = common.target.view(block.groups, -1)[cut.groups, cut.targets, None, None]
            basis[-1] = common.source.view(block.groups, 1, -1, 1)[cut.groups, :, cut.sources]
        basis = basis.flatten(1)
        drift = seen[-1].flatten()
        looked_at = torch.cat((seen[self._signals : -1].flatten(1), aligned(drift, basis[-COMMON:])))
        tensor = self._number[str(block.parameter)]
        kind = network.edge_kinds[LONE_EDGE if lone else EDGE_KINDS[block.kind]]
        fixed = (self._context[tensor] + kind + network.edge.bias).view(-1, 1, 1, 1)
        of, to = self._source[block.source], self._target[block.target]
        if lone:
            of, to = of.view(-1, 1, 1, 1), to.view(-1, 1, 1, 1)
        else:
            of = of[:, block.source_offset : block.source_offset + block.num_sources]
            to = to[:, block.target_offset : block.target_offset + block.num_targets]
            of = of.reshape(len(of), block.groups, 1, -1)[:, cut.groups, :, cut.sources]
            to = to.reshape(len(to), block.groups, -1, 1)[:, cut.groups, cut.targets]
        inside = (of + (to + fixed)).unsqueeze(4).expand(-1, *shape).reshape(len(of), -1)
        hidden = silu(torch.addmm(inside, network.edge.weight, looked_at), inplace=True)
        hidden = silu(torch.addmm(network.middle.bias.unsqueeze(1), network.middle.weight, hidden), inplace=True)
        moved = (basis[: len(self.rows) - 1] != 0).any(dim=0)
        return hidden, basis, torch.where(moved, float(self.facts.unit[tensor]), 0.0)


class _Head(NamedTuple):
    """The last layer for one asked horizon: what is linear in the trained ones is mixed once, before any scalar."""

    change: Tensor  # [number, width], times how far it is
    far: Tensor  # directions, times how far it is, [horizon, number, direction]
    bias: Tensor  # of z, [horizon, direction]
    usual: Tensor  # times how far it is, [number]
    scale: Tensor  # of the trained horizons that count, [counts, width]
    scale_bias: Tensor  # [counts, 1]
    variance: Tensor  # what their squared scales count for, [counts, 1]

    def fixed(self, added: Tensor) -> Tensor:
        """What is the same for all edges of a block, `[number, 1]`; `added` to their z, `[horizon, direction]`."""
        return (torch.einsum("hor,hr->o", self.far, (self.bias + added).double()) + self.usual).float().unsqueeze(1)

    def of(self, hidden: Tensor, basis: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        """Change and scale in units, `[scalar]` each."""
        change = torch.addmm(fixed, self.change, hidden).mul_(basis).sum(dim=0)
        inside = torch.addmm(self.scale_bias, self.scale, hidden).div_(SPREAD).tanh_()
        return change, inside.mul_(2 * SPREAD).exp_().mul_(self.variance).sum(dim=0).sqrt_()


def _over_slots(seen: Tensor) -> Tensor:
    """The sum over the last axis, without a copy where there is nothing to sum."""
    return seen.squeeze(4) if seen.shape[4] == 1 else seen.sum(dim=4)


def _gated(seen: Tensor, states: Tensor, by_feature: Tensor) -> Tensor:
    """sum_f by_feature_f * (seen_f @ states), `[groups, row, width]`, in the order that makes less to add up.

    Args:
        seen: `[feature, groups, row, column]`.
        states: `[groups, column, width]`.
        by_feature: `[feature, 1, 1, width]`.
    """
    if seen.shape[2] <= seen.shape[3]:
        return (torch.matmul(seen, states) * by_feature).sum(dim=0)
    return torch.einsum("fgrc,fgcw->grw", seen, states * by_feature)


def _states(states: Tensor, block: EdgeBlock, groups: slice, nodes: slice, end: str) -> Tensor:
    """States of some of the nodes at one end of a block, `[groups, node, width]`, from `[node, width]`."""
    offset = block.source_offset if end == "source" else block.target_offset
    count = block.num_sources if end == "source" else block.num_targets
    return states[offset : offset + count].view(block.groups, -1, states.shape[1])[groups, nodes]

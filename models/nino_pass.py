"""Our NiNo on dense tiles: the numbers of `NeuronNetwork`, with memory for nodes and one piece of a tile."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import silu

from ..forecast import Layout, Window
from ..forecast.graph import EdgeBlock, NeuralGraph
from .coordinate_pieces import for_each
from .graph_tiles import Cut, block_spans, cut_values, cuts, silent_blocks, source_states, target_states, tile_of
from .nino_items import num_blocks
from .nino_neurons import BASIS, EDGE_KINDS, LONE_EDGE, LONE_NODE, NODE_KINDS, STATISTICS, NeuronNetwork, split
from .nino_signals import FEATURES, SIGNALS, STEPS, aligned, facts_of, features_of, signals_of

Work = Callable[[EdgeBlock, Cut], tuple[Tensor, Tensor]]
"""Sums over a cut's sources, `[groups, target, ...]`, and over its targets, `[groups, source, ...]`."""
STRIPES = 4  # parts of a block that are worked on side by side; fixed, so that sums do not depend on the threads


class Common(NamedTuple):
    """Mean step of a block's edges into each target, `[target, 1]`, and out of each source, `[source, 1]`."""

    target: Tensor
    source: Tensor


class NeuronPass:
    """One window on its graph, ready to be forecast.

    Args:
        network: the network.
        window: with `ROWS` rows and a graph.
    """

    def __init__(self, network: NeuronNetwork, window: Window) -> None:
        self.network = network
        self.graph = cast(NeuralGraph, window.graph)
        self.layout: Layout = window.layout
        self.rows = window.values.cpu()
        self.facts = facts_of(window)
        self._step = None if self.facts.step is None else self.facts.step.cpu()
        self._number = {name: number for number, name in enumerate(self.layout.names)}
        self._context = network.context(self.facts.context)
        statistics, self._common = self._statistics()
        kinds = [NODE_KINDS[group.kind] for group in self.graph.nodes]
        nodes = [network.start(s, torch.tensor(k)) for s, k in zip(statistics, kinds, strict=True)]
        nodes.append(network.start(torch.zeros(1, STATISTICS), torch.tensor(LONE_NODE)))
        nodes = self._renewed(nodes)
        self._source = [network.source(state) for state in nodes]
        self._target = [network.target(state) for state in nodes]

    # -- what is seen

    def _signals(self, block: EdgeBlock, cut: Cut) -> Tensor:
        """`[SIGNALS, groups, target, source, slot]`."""
        slots = slice(0, block.slots)
        shape = (*(part.stop - part.start for part in cut), block.slots)
        if block.parameter is None:
            return torch.zeros(SIGNALS, *shape)
        seen = cut_values(tile_of(self.graph, block, self.layout, self.rows), cut, slots).permute(1, 2, 3, 4, 0)
        step = None
        if self._step is not None:
            tile = tile_of(self.graph, block, self.layout, self._step.unsqueeze(0))
            step = cut_values(tile, cut, slots).permute(1, 2, 3, 4, 0).flatten()
        number = self._number[block.parameter]
        return signals_of(seen.flatten(1), step, self.facts, number).unflatten(1, shape)

    def _statistics(self) -> tuple[list[Tensor], list[Common | None]]:
        """Of the nodes of each group, and what the edges of each block have in common."""
        half = FEATURES + 1
        blocks = self.graph.blocks
        sums = self._stripes(list(blocks), half, half, self._counted)
        found = [torch.zeros(group.size, STATISTICS) for group in self.graph.nodes]
        common: list[Common | None] = []
        inward, outward = (num_blocks(self.graph, end, False) for end in ("target", "source"))
        for block, (at_target, at_source) in zip(blocks, sums, strict=True):
            if block.parameter is None:
                common.append(None)
                continue
            means = Common(*(part[:, FEATURES:].clone() for part in (at_target, at_source)))
            common.append(means)
            for side, part in enumerate((at_target, at_source)):
                part[:, FEATURES:] = part[:, FEATURES:].abs().log1p()
                group, offset = (block.source, block.source_offset) if side else (block.target, block.target_offset)
                number = (outward if side else inward)[group]
                found[group][offset : offset + len(part), side * half : (side + 1) * half] += part / number
        return found, common

    def _counted(self, block: EdgeBlock, cut: Cut) -> tuple[Tensor, Tensor]:
        """Mean features and steps over a cut's sources, and over its targets; not yet divided by their number."""
        if block.parameter is None:
            groups, targets, sources = (part.stop - part.start for part in cut)
            return torch.zeros(groups, targets, FEATURES + 1), torch.zeros(groups, sources, FEATURES + 1)
        signals = self._signals(block, cut)
        seen = torch.cat((features_of(signals.flatten(1)), signals[:STEPS].mean(dim=0).flatten().unsqueeze(0)))
        seen = seen.unflatten(1, signals.shape[1:]).sum(dim=4)
        return seen.sum(dim=3).movedim(0, 2), seen.sum(dim=2).movedim(0, 2)

    # -- messages

    def _renewed(self, nodes: list[Tensor]) -> list[Tensor]:
        network, blocks = self.network, self.graph.blocks
        width = network.width
        sent = [network.send(state).chunk(2, dim=1) for state in nodes]
        weight, bias = network.gate.weight.unflatten(0, (2, width)), network.gate.bias.unflatten(0, (2, width))

        def messages(block: EdgeBlock, cut: Cut) -> tuple[Tensor, Tensor]:
            signals = self._signals(block, cut)
            seen = features_of(signals.flatten(1)).unflatten(1, signals.shape[1:]).sum(dim=4)
            gate = bias + network.gate_kinds[EDGE_KINDS[block.kind]].unflatten(0, (2, width))
            from_source = source_states(sent[block.source][0], block, cut).squeeze(1)
            from_target = target_states(sent[block.target][1], block, cut).squeeze(2)
            forward = torch.einsum("fgtw,wf->gtw", torch.matmul(seen, from_source), weight[0])
            reverse = torch.einsum("fgsw,wf->gsw", torch.matmul(seen.mT, from_target), weight[1])
            forward += block.slots * gate[0] * from_source.sum(dim=1, keepdim=True)
            reverse += block.slots * gate[1] * from_target.sum(dim=1, keepdim=True)
            return forward, reverse

        sums = self._stripes(list(blocks), width, width, messages)
        incoming = [torch.zeros(len(state), width) for state in nodes]
        outgoing = [torch.zeros(len(state), width) for state in nodes]
        inward, outward = (num_blocks(self.graph, end, True) for end in ("target", "source"))
        for block, (at_target, at_source) in zip(blocks, sums, strict=True):
            place = slice(block.target_offset, block.target_offset + block.num_targets)
            incoming[block.target][place] += at_target / inward[block.target]
            place = slice(block.source_offset, block.source_offset + block.num_sources)
            outgoing[block.source][place] += at_source / outward[block.source]
        return [network.renewed(*parts) for parts in zip(nodes, incoming, outgoing, strict=True)]

    def _stripes(
        self, blocks: Sequence[EdgeBlock], at_target: int, at_source: int, work: Work
    ) -> list[tuple[Tensor, Tensor]]:
        """Means over the edges of each target and of each source of each block, `[node, ...]`."""
        pieces: list[tuple[int, int]] = []
        targets = [torch.zeros(block.num_targets, at_target) for block in blocks]
        sources: list[list[Tensor]] = []
        for number, block in enumerate(blocks):
            parts = range(min(STRIPES, len(block_spans(block))))
            sources.append([torch.zeros(block.num_sources, at_source) for _ in parts])
            pieces += [(number, stripe) for stripe in parts]

        def fill(piece: tuple[int, int]) -> None:
            number, stripe = piece
            block = blocks[number]
            groups = block.groups
            to = targets[number].unflatten(0, (groups, -1))
            of = sources[number][stripe].unflatten(0, (groups, -1))
            for begin, end in block_spans(block)[stripe::STRIPES]:
                for cut in cuts(block, begin, end):
                    forward, reverse = work(block, cut)
                    to[cut.groups, cut.targets] += forward
                    of[cut.groups, cut.sources] += reverse

        for_each(fill, pieces, self.rows.device)
        found: list[tuple[Tensor, Tensor]] = []
        for number, block in enumerate(blocks):
            _, per_target, per_source, slots = block.tile_shape
            at_sources = torch.stack(sources[number]).sum(dim=0)
            found.append((targets[number] / (per_source * slots), at_sources / (per_target * slots)))
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
        blocks = [block for block in self.graph.blocks if block.parameter is not None]
        common = [self._common[number] for number, block in enumerate(self.graph.blocks) if block.parameter is not None]
        silent = silent_blocks(self.graph, self.layout)
        blocks += silent
        common += [Common(torch.zeros(1, 1), torch.zeros(1, 1)) for _ in silent]
        places = [[tile_of(self.graph, block, self.layout, part) for block in blocks] for part in (mean, scale)]
        pieces = [(number, span) for number, block in enumerate(blocks) for span in block_spans(block)]
        reach, calibration = reach.float(), (calibration * reach.sqrt()).float()
        mixture = mixture.float()

        def work(piece: tuple[int, tuple[int, int]]) -> None:
            number, (begin, end) = piece
            block = blocks[number]
            slots = slice(0, block.slots)
            tile = tile_of(self.graph, block, self.layout, self.rows[-1:])
            for cut in cuts(block, begin, end):
                change, log_scale, unit = self._cut(block, cast(Common, common[number]), cut)
                change, variance = change * reach, (log_scale.exp() * calibration).square()
                last = cut_values(tile, cut, slots).permute(1, 2, 3, 4, 0)[0]
                for asked, row in enumerate(mixture):
                    for place, found in ((places[0], change @ row), (places[1], (variance @ row).sqrt())):
                        value = found.mul_(unit).view(last.shape)
                        into = place[number][asked, cut.groups, cut.targets, cut.sources, slots]
                        into.copy_(value + last if place is places[0] else value)

        for_each(work, pieces, self.rows.device)
        for tiles, result in zip(places, (mean, scale), strict=True):
            for block, place in zip(blocks, tiles, strict=True):  # where a tile could not be a view
                if place.untyped_storage().data_ptr() != result.untyped_storage().data_ptr():
                    spec = self.layout[str(block.parameter)]
                    self.graph.untile(block, place, result[:, spec.span].unflatten(-1, spec.shape or (1,)))
        return mean, scale

    def _cut(self, block: EdgeBlock, common: Common, cut: Cut) -> tuple[Tensor, Tensor, Tensor]:
        """Change and log scale, `[scalar, horizon]`, and unit, `[scalar]`, 0 for what stands still."""
        network = self.network
        signals = self._signals(block, cut)
        shape, signals = signals.shape[1:], signals.flatten(1)
        drift = signals[:STEPS].mean(dim=0)
        shared = torch.stack(
            [
                states(part, block, cut).expand(*shape[:3], 1).unsqueeze(3).expand(*shape, 1).flatten()
                for states, part in ((target_states, common.target), (source_states, common.source))
            ]
        )
        alignments = torch.stack([aligned(drift, part) for part in shared])
        number = self._number[str(block.parameter)]
        lone = block.source == len(self.graph.nodes)
        kind = network.edge_kinds[LONE_EDGE if lone else EDGE_KINDS[block.kind]]
        fixed = self._context[number] + kind + network.edge.bias
        inside = source_states(self._source[block.source], block, cut) + (
            target_states(self._target[block.target], block, cut) + fixed
        )
        inside = inside.unsqueeze(3).expand(*shape, network.width).reshape(-1, network.width)
        inside = inside.addmm(torch.cat((features_of(signals), alignments)).T, network.edge.weight.T)
        hidden = silu(inside, inplace=True)
        hidden = silu(network.middle(hidden), inplace=True)
        outputs = network.head(hidden).unflatten(1, (-1, BASIS + 1))
        change, log_scale = split(outputs, torch.cat((signals, shared)).T)
        moved = (signals[:STEPS] != 0).any(dim=0)
        return change, log_scale, torch.where(moved, float(self.facts.unit[number]), 0.0)

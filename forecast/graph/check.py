"""Proof of a neural graph: its permutations leave the network's function unchanged."""

from dataclasses import dataclass

import torch
from torch import nn

from ..errors import GraphError
from ..layout import Layout
from ..packing import layout_of, plain_name
from .neural_graph import EdgeBlock, NeuralGraph
from .permutation import Permutations, permute_named, permuted_nodes, random_permutations
from .tracing import evaluate
from .values import tensors_in


@dataclass(frozen=True)
class GraphCheck:
    """What came of permuting a network's neurons.

    Attributes:
        passed: whether the outputs stayed the same within the tolerance, and every edge kept its ends, every time.
        deviation: largest change of an output, relative to the largest output.
        tolerance: what was allowed.
        moved: names of the axes that were permuted.
        pinned: names of the axes of more than one index that must stay.
        ends_kept: whether each scalar that was permuted is on the edge between the neurons that were permuted so.
        changed: share of the trainable scalars that got another value; a check that moves nothing proves nothing.
        repeats: how many random permutations were tried.
    """

    passed: bool
    deviation: float
    tolerance: float
    moved: tuple[str, ...]
    pinned: tuple[str, ...]
    ends_kept: bool
    changed: float
    repeats: int


def check_graph(
    module: nn.Module,
    graph: NeuralGraph,
    example_inputs: object,
    seed: int = 0,
    *,
    repeats: int = 2,
    tolerance: float = 1e-4,
) -> GraphCheck:
    """Permute every free axis at random and compare the module's outputs with those before.

    Parameters and buffers are permuted and set back. Weights that are all equal, such as fresh norms and zero biases,
    would hide a wrong wiring, so every floating tensor is shaken a little first, and set back as well. The comparison
    is made in float64.

    Args:
        module: the network; left as found.
        graph: its graph.
        example_inputs: as for `trace_graph`.
        seed: of the permutations and of the shaking.
        repeats: how many random permutations are tried, at least 1.
        tolerance: largest allowed change relative to the largest output.

    Returns:
        What came of it; nothing is raised when the graph is wrong.

    Raises:
        GraphError: if the graph belongs to another network, nothing is to be tried, or outputs prove nothing: they are
            not finite, or all zero.
    """
    if repeats < 1:
        raise GraphError(f"`repeats` must be at least 1, got {repeats}: without a permutation nothing is proved.")
    layout = layout_of(module)
    if layout.digest != graph.layout_digest:
        raise GraphError("The graph belongs to another network. Trace this one.")
    generator = torch.Generator().manual_seed(seed)
    tensors = {plain_name(name): value for name, value in (*module.named_parameters(), *module.named_buffers())}
    trainable = {plain_name(name) for name, value in module.named_parameters() if value.requires_grad}
    saved = {name: value.detach().clone() for name, value in tensors.items()}
    worst, changed, ends_kept, orders = 0.0, 0.0, True, dict[int, torch.Tensor]()
    try:
        with torch.no_grad():
            for name, value in tensors.items():
                if value.is_floating_point() and name in {*trainable, *(t.name for t in graph.tensors)}:
                    value.copy_(_shaken(saved[name], generator))
        start = {name: value.detach().clone() for name, value in tensors.items()}
        before = _outputs(module, example_inputs)
        if not any(bool((tensor != 0).any()) for tensor in before):
            raise GraphError("All outputs are zero, whatever is permuted. Try other inputs.")
        for _ in range(repeats):
            orders = random_permutations(graph, generator)
            permuted = permute_named(graph, start, orders)
            ends_kept = ends_kept and edges_keep_their_ends(graph, layout, orders)
            with torch.no_grad():
                for name, value in tensors.items():
                    value.copy_(permuted[name])
            worst = max(worst, relative_change(before, _outputs(module, example_inputs)))
            moved = sum(int((permuted[name] != start[name]).sum()) for name in trainable)
            changed = max(changed, moved / max(1, sum(start[name].numel() for name in trainable)))
    finally:
        with torch.no_grad():
            for name, value in tensors.items():
                value.copy_(saved[name])
    return GraphCheck(
        passed=worst <= tolerance and ends_kept,
        deviation=worst,
        tolerance=tolerance,
        moved=tuple(graph.axes[number].name for number in orders),
        pinned=tuple(axis.name for axis in graph.axes if axis.pinned and axis.size > 1),
        ends_kept=ends_kept,
        changed=changed,
        repeats=repeats,
    )


def edges_keep_their_ends(graph: NeuralGraph, layout: Layout, permutations: Permutations) -> bool:
    """Whether permuting scalars is the same as permuting the nodes that their edges join.

    Args:
        graph: the graph.
        layout: the trainable tensors.
        permutations: as of `random_permutations`.
    """
    orders = [permuted_nodes(graph, group, permutations) for group in graph.nodes]
    nodes = torch.cat([first + order for first, order in zip(graph.node_offsets, orders, strict=True)])
    by_name: dict[str, list[EdgeBlock]] = {}
    for block in graph.blocks:
        if block.parameter is not None:
            by_name.setdefault(block.parameter, []).append(block)
        elif not _follows(graph, block, nodes):
            return False
    for name, blocks in by_name.items():
        ends = torch.full((3, *layout[name].shape), -1)
        for block in blocks:
            for row, numbers in zip(ends, block_ends(graph, block), strict=True):
                graph.untile(block, numbers, row)
        places = torch.arange(layout[name].numel, dtype=torch.float64).reshape(layout[name].shape)
        moved = permute_named(graph, {name: places}, permutations)[name].long().reshape(-1)
        source, target, slot = (row.reshape(-1) for row in ends)
        if not (
            torch.equal(nodes[source], source[moved])
            and torch.equal(nodes[target], target[moved])
            and torch.equal(slot, slot[moved])
        ):
            return False
    return True


def block_ends(graph: NeuralGraph, block: EdgeBlock) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers of the source node, the target node and the slot of each scalar of a block, in the tile's shape."""
    groups, targets, sources, slots = block.tile_shape
    first = graph.node_offsets[block.source] + block.source_offset
    second = graph.node_offsets[block.target] + block.target_offset
    source = first + torch.arange(groups * sources).reshape(groups, 1, sources, 1)
    target = second + torch.arange(groups * targets).reshape(groups, targets, 1, 1)
    slot = torch.arange(slots).reshape(1, 1, 1, slots)
    return source.expand(block.tile_shape), target.expand(block.tile_shape), slot.expand(block.tile_shape)


def _follows(graph: NeuralGraph, block: EdgeBlock, nodes: torch.Tensor) -> bool:
    """Whether auxiliary edges join nodes after a permutation just if they joined them before, in any block alike."""
    alike = [
        other
        for other in graph.blocks
        if (other.parameter, other.kind, other.source, other.target) == (None, block.kind, block.source, block.target)
    ]

    def pairs(order: torch.Tensor) -> torch.Tensor:
        ends = [block_ends(graph, other) for other in alike]
        numbers = [order[source] * len(nodes) + order[target] for source, target, _ in ends]
        return torch.cat([number.reshape(-1) for number in numbers]).sort().values

    return torch.equal(pairs(nodes), pairs(torch.arange(len(nodes))))


def _shaken(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Values that differ from each other, positive where the given ones are, as variances must be."""
    noise = torch.rand(value.shape, generator=generator).to(value.device)
    scale = float(value.float().std()) if value.numel() > 1 else 0.0
    if bool((value > 0).all()):
        return (value * (0.5 + noise)).to(value.dtype)
    return (value + (noise - 0.5) * (scale if scale > 0 else 0.2)).to(value.dtype)


def _outputs(module: nn.Module, example_inputs: object) -> list[torch.Tensor]:
    found = [tensor for tensor in tensors_in(_tree(evaluate(module, example_inputs))) if tensor.is_floating_point()]
    if not found or not all(bool(tensor.isfinite().all()) for tensor in found):
        raise GraphError("A check needs outputs that are finite floating-point tensors. Try other inputs.")
    return [tensor.detach().double().clone() for tensor in found]


def _tree(result: object) -> object:
    if isinstance(result, torch.Tensor | tuple | list | dict):
        return result
    return dict(getattr(result, "__dict__", {}))


def relative_change(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    """The largest change relative to the largest entry of its output; where that is zero, to the largest of all.

    Args:
        before: outputs, not all zero.
        after: the same ones later.
    """
    largest = [float(tensor.abs().max()) if tensor.numel() else 0.0 for tensor in before]
    worst = 0.0
    for one, other, own in zip(before, after, largest, strict=True):
        if one.numel():
            worst = max(worst, float((one - other).abs().max()) / (own or max(largest)))
    return worst

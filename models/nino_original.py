"""The authors' graph of a network, where it differs from the right one."""

import re
from dataclasses import replace

from ..forecast.graph import EdgeBlock, NeuralGraph


def released_graph(graph: NeuralGraph) -> NeuralGraph:
    """A traced graph as the authors' code would make it: the key's bias acts on the residual nodes.

    A key's matrix runs from query and key nodes to residual nodes, because q.k contracts the former. The authors' code
    lets its bias end where the matrix ends. In truth it is added to the keys, and that is where a traced graph has it.
    On GPT-2 this is the only difference, so that forecasts can be compared number by number.

    A key's matrix that is not square, as in grouped-query attention, is left as it is: what the authors' code does to
    it has no sense to imitate.

    Args:
        graph: a traced one.

    Returns:
        A graph of the same layout; permuting its axes is not proved to do nothing.
    """
    ends: dict[str, tuple[int, ...]] = {}
    for block in graph.blocks:
        if block.parameter is not None:
            own = tuple(end for _, end in block.span)
            before = ends.get(block.parameter, own)
            ends[block.parameter] = tuple(max(pair) for pair in zip(before, own, strict=True))
    keys = [block for block in graph.blocks if block.kind == "key"]
    blocks = tuple(_moved(block, keys, ends) if block.kind == "bias" else block for block in graph.blocks)
    return replace(graph, blocks=blocks, notes=(*graph.notes, "Key biases end where the authors' code lets them end."))


def _moved(bias: EdgeBlock, keys: list[EdgeBlock], ends: dict[str, tuple[int, ...]]) -> EdgeBlock:
    """The block of a bias, ending at the targets of the key that it belongs to, if it belongs to one."""
    if bias.parameter is None:
        return bias
    (length,) = ends[bias.parameter]
    for key in keys:
        if key.parameter is None or _stem(key.parameter) != _stem(bias.parameter) or key.source != bias.target:
            continue
        # In a fused matrix the key's part of the bias lies where the key's part of the matrix lies.
        spans = [span for span, end in zip(key.span, ends[key.parameter], strict=True) if end == length]
        if bias.span[0] in spans and key.num_targets == bias.num_targets:
            return replace(bias, target=key.target, target_offset=key.target_offset)
    return bias


def _stem(name: str) -> str:
    """What the names of a layer's weight and bias have in common."""
    return re.sub(r"(weight|bias)$", "", name)

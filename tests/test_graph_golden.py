"""The traced graph against the edge lists of a published implementation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import golden_folder
from graph_networks import GPT2
from torch import Tensor, nn
from typing_extensions import override

from deadreckon.forecast import layout_of
from deadreckon.forecast.graph import NeuralGraph, trace_graph

pytestmark = pytest.mark.golden
TYPES = {
    "dense": 1,
    "bias": 2,
    "conv": 3,
    "norm": 4,
    "embedding": 5,
    "position": 6,
    "query": 7,
    "key": 8,
    "value": 9,
    "residual": 10,
    "head": 11,
}


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        convolutions = (
            nn.Conv2d(1, 16, 3, 2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding="same"),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding="same"),
            nn.ReLU(),
        )
        self.fc = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.fc(images)


def _networks() -> dict[str, tuple[nn.Module, Tensor]]:
    mlp = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    return {
        "cnn_fm16": (Conv(), torch.randn(2, 1, 28, 28)),
        "mlp": (mlp, torch.randn(2, 64)),
        "gpt2_tiny": (GPT2(256, 64, 32, 2, 2), torch.randint(256, (2, 64))),
    }


def _edges(
    graph: NeuralGraph, module: nn.Module
) -> tuple[dict[int, tuple[int, int, int, int]], set[tuple[int, int, int]]]:
    """Source, target, type and slot of each scalar, and all edges that carry none."""
    layout = layout_of(module)
    numbers = {spec.name: torch.arange(layout.size)[spec.span].reshape(spec.shape) for spec in layout}
    scalars: dict[int, tuple[int, int, int, int]] = {}
    auxiliary: set[tuple[int, int, int]] = set()
    for block in graph.blocks:
        tile = graph.tile(block, None if block.parameter is None else numbers[block.parameter])
        groups, targets, sources, _ = tile.shape
        first = graph.node_offsets[block.source] + block.source_offset
        second = graph.node_offsets[block.target] + block.target_offset
        for at in torch.ones(tile.shape).nonzero().tolist():
            group, target, source, slot = at
            ends = first + group * sources + source, second + group * targets + target
            if block.parameter is None:
                auxiliary.add((*ends, TYPES[block.kind]))
            else:
                scalars[int(tile[tuple(at)])] = (*ends, TYPES[block.kind], slot)
        assert groups * targets == block.num_targets
    return scalars, auxiliary


def _golden_edges(case: dict[str, Any]) -> tuple[dict[int, tuple[int, int, int, int]], set[tuple[int, int, int]]]:
    scalars: dict[int, tuple[int, int, int, int]] = {}
    auxiliary: set[tuple[int, int, int]] = set()
    rows = zip(
        case["edge_index"].T.tolist(), case["edge_type"].tolist(), case["edge_param_index"].tolist(), strict=True
    )
    for (source, target), kind, slots in rows:
        for slot, scalar in enumerate(slots):
            if scalar >= 0:
                scalars[scalar] = (source, target, kind, slot)
        if kind in (10, 11):
            auxiliary.add((source, target, kind))
    return scalars, auxiliary


@pytest.mark.parametrize("name", ["cnn_fm16", "mlp", "gpt2_tiny"])
def test_the_traced_graph_has_the_published_edges_but_for_the_key_biases(name: str) -> None:
    """Scalar by scalar, source, target, type and slot are those of the published graph, with the nodes renumbered."""
    file = f"golden_{name}.pt"
    case = torch.load(Path(golden_folder(file)) / file, weights_only=True)
    module, inputs = _networks()[name]
    layout = layout_of(module)
    assert list(layout.names) == case["param_names"]
    graph = trace_graph(module, inputs)
    graph.require_fits(layout)
    mine, mine_auxiliary = _edges(graph, module)
    theirs, their_auxiliary = _golden_edges(case)
    # the published graph lets key biases end in the residual nodes; they shift the keys, so ours end in those
    wrong: set[int] = set()
    if name == "gpt2_tiny":
        for spec in layout:
            if spec.name.endswith("c_attn.bias"):
                wrong |= set(range(spec.offset + 32, spec.offset + 64))
    assert mine.keys() == theirs.keys() == set(range(layout.size))
    renumbered: dict[int, int] = {}
    for scalar in mine.keys() - wrong:
        assert mine[scalar][2:] == theirs[scalar][2:]
        for own, other in zip(mine[scalar][:2], theirs[scalar][:2], strict=True):
            assert renumbered.setdefault(own, other) == other
    for scalar in wrong:
        own_source, own_target, own_kind, _ = mine[scalar]
        source, target, kind, _ = theirs[scalar]
        assert own_kind == kind == TYPES["bias"]
        assert renumbered.setdefault(own_source, source) == source
        assert renumbered[own_target] != target
    heads = {source for source, _, kind in mine_auxiliary if kind == TYPES["head"]}
    for head in heads:
        ends = {renumbered[target] for source, target, _ in mine_auxiliary if source == head}
        (renumbered[head],) = {
            source
            for source, _, kind in their_auxiliary
            if kind == TYPES["head"] and ends == {t for s, t, _ in their_auxiliary if s == source}
        }
    assert sorted(renumbered.values()) == list(range(case["node_count"]))
    assert {(renumbered[s], renumbered[t], kind) for s, t, kind in mine_auxiliary} == their_auxiliary

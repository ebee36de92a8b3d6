"""NiNo in the terms of torch-geometric: slow, plain, every edge one by one; what the fast path must agree with."""

from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import silu
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing
from typing_extensions import override

from ..forecast import Layout
from .graph_edges import EdgeList
from .nino_network import (
    AUXILIARY_VALUE,
    HORIZONS,
    POSITIONS,
    ROWS,
    SCALE_EPSILON,
    SELF_LOOP,
    SELF_LOOP_VALUE,
    SLOTS,
    NiNoNetwork,
    Round,
)


def graph_data(edges: EdgeList, rows: Tensor, layout: Layout, positions: Tensor | None = None) -> Data:
    """A window on a graph, as one object of torch-geometric.

    Args:
        edges: the graph.
        rows: the window's five values of every parameter, `[time, param]`.
        layout: what they mean; each tensor is scaled by its own mean and standard deviation.
        positions: what tells nodes apart, `[node, 8]`; zero where none are given.

    Returns:
        `Data` with `edge_index`, `edge_type`, `edge_attr` (`[edge, slot * time]`, scaled), `scalars`, `token`,
        `sends` and `pos`, in the type of the rows.
    """
    scaled = torch.empty_like(rows)
    for spec in layout:
        values = rows[:, spec.span]
        scaled[:, spec.span] = (values - values.mean()) / (values.std() + SCALE_EPSILON)
    seen = scaled.T[edges.scalars.clamp(min=0)] * (edges.scalars >= 0).unsqueeze(2)
    own = edges.scalars[:, 0] < 0
    seen[own, 0] = AUXILIARY_VALUE
    seen[edges.types == SELF_LOOP, 0] = SELF_LOOP_VALUE
    return Data(
        edge_index=edges.ends,
        edge_type=edges.types,
        edge_attr=seen.flatten(1),
        scalars=edges.scalars,
        token=edges.token,
        sends=edges.sends,
        pos=rows.new_zeros(edges.num_nodes, POSITIONS) if positions is None else positions.to(rows),
        num_nodes=edges.num_nodes,
    )


class ModulatedMean(MessagePassing):
    """x_i <- SiLU(last(after[x_i; mean_j(scale(e) * before[x_i; x_j] + shift(e))])), the mean over incoming edges."""

    def __init__(self, layers: Round) -> None:
        super().__init__(aggr="mean")
        self.layers = layers

    @override
    def forward(self, nodes: Tensor, edge_index: Tensor, edges: Tensor) -> Tensor:
        mean = self.propagate(edge_index, x=nodes, edges=edges)
        return silu(self.layers.last(self.layers.after(torch.cat((nodes, mean), dim=1))))

    @override
    def message(self, x_j: Tensor, x_i: Tensor, edges: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        scale, shift = self.layers.modulate(edges).chunk(2, dim=1)
        return scale * self.layers.before(torch.cat((x_i, x_j), dim=1)) + shift


@torch.no_grad()
def reference_states(network: NiNoNetwork, data: Data) -> tuple[list[Tensor], list[Tensor]]:
    """The states of nodes and of edges at the beginning and after each round, `[node, width]` and `[edge, width]`."""
    pos, index, sends = (cast(Tensor, part) for part in (data.pos, data.edge_index, data.sends))
    nodes = [network.positions(pos)]
    if len(network.tokens):
        nodes[0] = nodes[0] + network.tokens[data.token + 1]
    edges = [network.features(data.edge_attr) + network.types[data.edge_type]]
    for part in network.rounds:
        layers = cast(Round, part)
        nodes.append(ModulatedMean(layers)(nodes[-1], index[:, sends], edges[-1][sends]))
        inside = layers.edge(edges[-1]) + layers.source(nodes[-1])[index[0]] + layers.target(nodes[-1])[index[1]]
        edges.append(layers.output(silu(inside)))
    return nodes, edges


@torch.no_grad()
def reference_changes(network: NiNoNetwork, data: Data, size: int) -> Tensor:
    """The change of every parameter that is forecast, in units of its tensor's deviation, `[horizon, param]`.

    Args:
        network: in the type of the data.
        data: as `graph_data` makes it.
        size: number of parameters.
    """
    _, edges = reference_states(network, data)
    outputs = network.out(silu(network.head(edges[-1]))).unflatten(1, (SLOTS, HORIZONS))
    scalars = cast(Tensor, data.scalars)
    used = scalars >= 0
    changes = outputs.new_zeros(size, HORIZONS)
    changes[scalars[used]] = outputs[used]
    return changes.T.contiguous()


def reference_forecast(rows: Tensor, layout: Layout, changes: Tensor) -> Tensor:
    """The authors' way back: (scaled newest value + change) * deviation + mean, `[horizon, param]`.

    Without the epsilon that was added on the way there, so that no change is not exactly the newest value.

    Args:
        rows: the window's values, `[time, param]`, with `ROWS` rows.
        layout: what they mean.
        changes: as `reference_changes` gives them.
    """
    forecast = torch.empty_like(changes)
    for spec in layout:
        values = rows[-ROWS:, spec.span]
        mean, deviation = values.mean(), values.std()
        scaled = (values[-1] - mean) / (deviation + SCALE_EPSILON)
        forecast[:, spec.span] = (scaled + changes[:, spec.span]) * deviation + mean
    return forecast

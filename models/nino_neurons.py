"""The network of our NiNo: even functions of what neurons and edges see, times odd numbers of each scalar."""

from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from typing_extensions import override

from ..forecast.graph.neural_graph import EdgeKind, NodeKind
from .coordinate_parts import Dense
from .nino_signals import BESIDE, FEATURES, ROWS, aligned, features_of, num_context, num_signals

NODE_KINDS = {kind: number for number, kind in enumerate(get_args(NodeKind))}
LONE_NODE = len(NODE_KINDS)  # the node of tensors that the graph does not explain
EDGE_KINDS = {kind: number for number, kind in enumerate(get_args(EdgeKind))}
LONE_EDGE = len(EDGE_KINDS)
STATISTICS = 2 * (FEATURES + 1)  # of a node: mean features and common motion of its incoming, then its outgoing edges
COMMON = 2  # odd numbers beside a scalar's own: what the edges of its target, and of its source, have in common
SPREAD = 4.0  # limit of the logarithm of a scale


class Edges(NamedTuple):
    """Scalars of several cases, as edges. `case` numbers cases, `node` the nodes of one case.

    Attributes:
        basis: `[case, edge, number]`: a scalar's signals, then what it has in common with others.
        kind: of each edge, `[case, edge]`, integers.
        tensor: of each edge, for its context, `[case, edge]`, integers.
        ends: source and target, `[case, edge, 2]`, integers.
        share: what a message along it counts for at its target, and one against it at its source, `[case, edge, 2]`.
        context: of tensors, `[case, tensor, number]`.
        statistics: of nodes, `[case, node, STATISTICS]`.
        node_kind: `[case, node]`, integers.
    """

    basis: Tensor
    kind: Tensor
    tensor: Tensor
    ends: Tensor
    share: Tensor
    context: Tensor
    statistics: Tensor
    node_kind: Tensor


class NeuronNetwork(nn.Module):
    """Outputs `[edge, horizon, number + 1]` for each scalar: how much of each odd number to go on with, a log scale.

    x = SiLU(begin(statistics) + node kind);
    m_i = sum_e share_e (gate(phi_e) + edge kind) * send(x_j), over incoming edges; m'_j the same over outgoing ones;
    x <- SiLU(renew[x; m; m']);
    outputs = head(SiLU(middle(SiLU(edge[phi_e; alignments; context] + edge kind + source(x_j) + target(x_i))))).

    All it sees is even in the values and free of their unit, so that forecasts are odd and follow the unit.

    Args:
        width: of all states.
        num_horizons: how many horizons it is trained for.
        history: rows that it sees.
    """

    def __init__(self, width: int, num_horizons: int, history: int = ROWS) -> None:
        super().__init__()
        self.width = width
        self.num_horizons = num_horizons
        self.num_odd = num_signals(history) + COMMON
        self.begin = Dense(STATISTICS, width)
        self.node_kinds = nn.Parameter(torch.empty(LONE_NODE + 1, width))
        self.gate = Dense(FEATURES, 2 * width)
        self.gate_kinds = nn.Parameter(torch.empty(LONE_EDGE + 1, 2 * width))
        self.send = Dense(width, 2 * width)
        self.renew = Dense(3 * width, width)
        self.edge = Dense(FEATURES + 2, width)
        self.context = Dense(num_context(history), width)
        self.edge_kinds = nn.Parameter(torch.empty(LONE_EDGE + 1, width))
        self.source = Dense(width, width)
        self.target = Dense(width, width)
        self.middle = Dense(width, width)
        self.head = Dense(width, num_horizons * (self.num_odd + 1))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """He et al. 2015, as usual before SiLU; the head is zero, so that training begins at persistence."""
        for name, value in self.named_parameters():
            if value.ndim == 1 or name.startswith(("head", "node_kinds", "gate_kinds", "edge_kinds")):
                value.zero_()
            else:
                value.normal_(std=(2 / value.shape[1]) ** 0.5, generator=generator)

    @override
    def forward(self, edges: Edges) -> Tensor:
        """Outputs, `[case, edge, horizon, number + 1]`: the plain form, on a list of edges."""
        num_cases, num_nodes, _ = edges.statistics.shape
        signals = edges.basis[..., :-COMMON].movedim(2, 0)
        features = features_of(signals).movedim(0, 2)
        kind = edges.kind.long()
        first = torch.arange(num_cases).view(-1, 1, 1) * num_nodes
        source, target = (edges.ends.long() + first).flatten(0, 1).unbind(dim=1)
        nodes = self.start(edges.statistics, edges.node_kind).flatten(0, 1)
        gates = (self.gate(features) + self.gate_kinds[kind]).flatten(0, 1)
        sent = self.send(nodes)
        forth, back = (gates.chunk(2, dim=1), sent.chunk(2, dim=1))
        share = edges.share.flatten(0, 1)
        empty = nodes.new_zeros(nodes.shape)
        forward = empty.index_add(0, target, share[:, :1] * forth[0] * back[0][source])
        reverse = empty.index_add(0, source, share[:, 1:] * forth[1] * back[1][target])
        nodes = self.renewed(nodes, forward, reverse)
        drift = signals[:-BESIDE].mean(dim=0)
        alignments = torch.stack([aligned(drift, common) for common in edges.basis[..., -COMMON:].unbind(dim=2)], dim=2)
        context = self.context(edges.context)
        of_tensor = torch.take_along_dim(context, edges.tensor.long().unsqueeze(2), dim=1)
        inside = self.edge(torch.cat((features, alignments), dim=2)) + of_tensor + self.edge_kinds[kind]
        inside = inside.flatten(0, 1) + self.source(nodes)[source] + self.target(nodes)[target]
        return self.ended(inside).view(*edges.kind.shape, self.num_horizons, self.num_odd + 1)

    def start(self, statistics: Tensor, kind: Tensor) -> Tensor:
        """First states of nodes."""
        return silu(self.begin(statistics) + self.node_kinds[kind.long()])

    def renewed(self, nodes: Tensor, forward: Tensor, reverse: Tensor) -> Tensor:
        """States of nodes after their messages."""
        return silu(self.renew(torch.cat((nodes, forward, reverse), dim=-1)))

    def ended(self, inside: Tensor) -> Tensor:
        """Outputs of edges from the inside of their first activation, `[edge, horizon * (number + 1)]`."""
        return self.head(silu(self.middle(silu(inside))))


def split(outputs: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Change and logarithm of its scale, in units and row spacings to be multiplied by, `[..., horizon]` each.

    Args:
        outputs: `[..., horizon, number + 1]`.
        basis: the odd numbers, `[..., number]`.
    """
    change = (outputs[..., :-1] * basis.unsqueeze(-2)).sum(dim=-1)
    return change, SPREAD * torch.tanh(outputs[..., -1] / SPREAD)

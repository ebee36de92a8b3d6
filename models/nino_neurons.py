"""The network of our NiNo: even functions of what neurons and edges see, times odd numbers of each scalar."""

from typing import NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from typing_extensions import override

from ..forecast.graph.neural_graph import EdgeKind, NodeKind
from .coordinate_parts import Dense
from .nino_signals import ROWS, aligned, drift_of, features_of, num_context, num_features, num_signals
from .nino_stretches import gaps

NODE_KINDS = {kind: number for number, kind in enumerate(get_args(NodeKind))}
LONE_NODE = len(NODE_KINDS)  # the node of tensors that the graph does not explain
EDGE_KINDS = {kind: number for number, kind in enumerate(get_args(EdgeKind))}
LONE_EDGE = len(EDGE_KINDS)
COMMON = 2  # odd numbers beside a scalar's own: what the edges of its target, and of its source, have in common
SPREAD = 4.0  # limit of the logarithm of a scale
TENSOR_WIDTH = 32  # of what looks at tensors as wholes


def num_statistics(history: int) -> int:
    """Of a node: mean features and common motion of its incoming, then of its outgoing edges."""
    return 2 * (num_features(history) + 1)


class Edges(NamedTuple):
    """Scalars of several cases, as edges. `case` numbers cases, `node` the nodes of one case.

    Attributes:
        basis: `[case, edge, number]`: a scalar's signals, then what it has in common with others.
        kind: of each edge, `[case, edge]`, integers.
        tensor: of each edge, for its context, `[case, edge]`, integers.
        ends: source and target, `[case, edge, 2]`, integers.
        share: what a message along it counts for at its target, and one against it at its source, `[case, edge, 2]`.
        context: of tensors, `[case, tensor, number]`.
        statistics: of nodes, `[case, node, num_statistics(history)]`.
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
    z, log scale = head(SiLU(middle(SiLU(edge[phi_e; alignments; context] + edge kind + source(x_j) + target(x_i)))));
    outputs = usual + directions (z + whole(context) + edge kind's), and the log scale.

    `usual` is what is best on the whole, by least squares; `directions` are those in which cases differ, scaled so that
    one means the same in each: both are found before training and held. `whole` sees how a tensor moves as a whole, and
    says the same of all its edges.

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
        self.distances = gaps(history)
        features = num_features(history)
        self.begin = Dense(num_statistics(history), width)
        self.node_kinds = nn.Parameter(torch.empty(LONE_NODE + 1, width))
        self.gate = Dense(features, 2 * width)
        self.gate_kinds = nn.Parameter(torch.empty(LONE_EDGE + 1, 2 * width))
        self.send = Dense(width, 2 * width)
        self.renew = Dense(3 * width, width)
        self.edge = Dense(features + 2, width)
        self.context = Dense(num_context(history), width)
        self.edge_kinds = nn.Parameter(torch.empty(LONE_EDGE + 1, width))
        self.source = Dense(width, width)
        self.target = Dense(width, width)
        self.middle = Dense(width, width)
        self.head = Dense(width, num_horizons * (self.num_odd + 1))
        self.whole = nn.ModuleList(
            Dense(*sizes)
            for sizes in (
                (num_context(history), TENSOR_WIDTH),
                (TENSOR_WIDTH, TENSOR_WIDTH),
                (TENSOR_WIDTH, num_horizons * self.num_odd),
            )
        )
        self.by_kind = nn.Parameter(torch.empty(LONE_EDGE + 1, num_horizons * self.num_odd))
        self.usual: Tensor
        self.directions: Tensor
        self.register_buffer("usual", torch.zeros(num_horizons, self.num_odd))
        self.register_buffer("directions", torch.eye(self.num_odd).repeat(num_horizons, 1, 1))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """He et al. 2015, as usual before SiLU; the last layers are zero, so that training begins at `usual`."""
        for name, value in self.named_parameters():
            if value.ndim == 1 or name.startswith(
                ("head", "whole.2", "node_kinds", "gate_kinds", "edge_kinds", "by_kind")
            ):
                value.zero_()
            else:
                value.normal_(std=(2 / value.shape[1]) ** 0.5, generator=generator)

    @override
    def forward(self, edges: Edges) -> Tensor:
        """Outputs, `[case, edge, horizon, number + 1]`: the plain form, on a list of edges."""
        num_cases, num_nodes, _ = edges.statistics.shape
        signals = edges.basis[..., :-COMMON].movedim(2, 0)
        features = features_of(signals, self.distances).movedim(0, 2)
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
        drift = drift_of(signals, self.distances)
        alignments = torch.stack([aligned(drift, common) for common in edges.basis[..., -COMMON:].unbind(dim=2)], dim=2)
        context = self.context(edges.context)
        of_tensor = torch.take_along_dim(context, edges.tensor.long().unsqueeze(2), dim=1)
        inside = self.edge(torch.cat((features, alignments), dim=2)) + of_tensor + self.edge_kinds[kind]
        inside = inside.flatten(0, 1) + self.source(nodes)[source] + self.target(nodes)[target]
        found = self.head(self.hidden(inside)).view(*edges.kind.shape, self.num_horizons, self.num_odd + 1)
        own = self.of_tensors(edges.context)
        own = torch.take_along_dim(own, edges.tensor.long().unsqueeze(2), dim=1) + self.by_kind[kind]
        inner = found[..., :-1] + own.unflatten(2, (self.num_horizons, self.num_odd))
        followed = torch.einsum("hor,nehr->neho", self.directions, inner) + self.usual
        return torch.cat((followed, found[..., -1:]), dim=3)

    def start(self, statistics: Tensor, kind: Tensor) -> Tensor:
        """First states of nodes."""
        return silu(self.begin(statistics) + self.node_kinds[kind.long()])

    def renewed(self, nodes: Tensor, forward: Tensor, reverse: Tensor) -> Tensor:
        """States of nodes after their messages."""
        return silu(self.renew(torch.cat((nodes, forward, reverse), dim=-1)))

    def hidden(self, inside: Tensor) -> Tensor:
        """Last states of edges from the inside of their first activation, `[edge, width]`."""
        return silu(self.middle(silu(inside)))

    def of_tensors(self, context: Tensor) -> Tensor:
        """What all edges of a tensor add to z, `[..., tensor, horizon * number]`."""
        first, second, last = self.whole
        return last(silu(second(silu(first(context)))))


def split(outputs: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Change and logarithm of its scale, in units and row spacings to be multiplied by, `[..., horizon]` each.

    Args:
        outputs: `[..., horizon, number + 1]`.
        basis: the odd numbers, `[..., number]`.
    """
    change = (outputs[..., :-1] * basis.unsqueeze(-2)).sum(dim=-1)
    return change, SPREAD * torch.tanh(outputs[..., -1] / SPREAD)

"""The published graph network of NiNo: its weights, and the maps they merge into."""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from .coordinate_parts import Dense
from .tensor_types import NUM_TYPES

ROWS = 5  # values of each scalar that it sees, oldest first
SLOTS = 9  # scalars on one edge: the positions of a 3 x 3 kernel
HORIZONS = 40  # row spacings ahead, one output each
POSITIONS = 8  # numbers that tell nodes apart: eigenvectors of the graph's Laplacian
ROUNDS = 2  # of message passing that have an effect; the authors' third has none
SCALE_EPSILON = 1e-6  # added to the standard deviation before dividing by it
# Types beyond those of tensors, in the table of 15.
RESIDUAL, HEAD, SELF_LOOP = 10, 11, 13
SELF_LOOP_VALUE = 2.0
AUXILIARY_VALUE = 1.0


class Round(nn.Module):
    """The layers of one round of message passing, and of the change of the edges after it.

    message j -> i = scale(e) * before[x_i; x_j] + shift(e), with (scale, shift) = modulate(e);
    x_i <- SiLU(last(after[x_i; mean of messages]));
    e <- output(SiLU(edge(e) + source(x_j) + target(x_i))).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.modulate = Dense(width, 2 * width)
        self.before = Dense(2 * width, width)
        self.after = Dense(2 * width, width)
        self.last = Dense(width, width)
        self.edge = Dense(width, width)
        self.source = Dense(width, width)
        self.target = Dense(width, width)
        self.output = Dense(width, width)


class NiNoNetwork(nn.Module):
    """The layers of NiNo, as published; `nino_reference` and `nino_tiles` say what is done with them.

    Args:
        width: of nodes' and edges' states.
        num_tokens: rows of the embedding of vocabulary nodes, row 0 for all other nodes; 0 for none.
    """

    def __init__(self, width: int, num_tokens: int = 0) -> None:
        super().__init__()
        self.width = width
        self.types = nn.Parameter(torch.zeros(NUM_TYPES, width))
        self.tokens = nn.Parameter(torch.zeros(num_tokens, width))
        self.positions = Dense(POSITIONS, width)
        self.features = Dense(SLOTS * ROWS, width)
        self.rounds = nn.ModuleList(Round(width) for _ in range(ROUNDS))
        self.head = Dense(width, width)
        self.out = Dense(width, SLOTS * HORIZONS)


class Affine(NamedTuple):
    """x -> weight x + bias, `[out, in]` and `[out]`."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: Dense) -> "Affine":
        """What a layer does, in float64."""
        return cls(layer.weight.detach().double(), layer.bias.detach().double())

    def after(self, other: "Affine") -> "Affine":
        """x -> self(other(x))."""
        return Affine(self.weight @ other.weight, self.weight @ other.bias + self.bias)

    def split(self) -> "tuple[Affine, Affine]":
        """The first and the second half of the outputs."""
        (w0, w1), (b0, b1) = self.weight.chunk(2), self.bias.chunk(2)
        return Affine(w0, b0), Affine(w1, b1)

    def float(self) -> "Affine":
        """The same, rounded to float32."""
        return Affine(self.weight.float().contiguous(), self.bias.float().contiguous())


class MergedRound(NamedTuple):
    """One round, with the edge's state written as an affine map of what is at hand: z.

    In the first round z are an edge's features, in the second the activation g that its new state is made of.

    Attributes:
        scale: z to scale(e); in the first round without what depends on the edge's type.
        shift: z to shift(e); the same.
        own: x_i to its share of `before`, `[out, in]`, with the bias.
        other: x_j to its share, `[out, in]`.
        keep: x_i to its share of last(after[...]), with the bias.
        take: the mean of messages to its share, `[out, in]`.
        state: z to the inside of the next activation; in the first round without what depends on the type.
        source: x_j to the inside of the next activation, `[out, in]`.
        target: x_i to the same, `[out, in]`.
    """

    scale: Affine
    shift: Affine
    own: Affine
    other: Tensor
    keep: Affine
    take: Tensor
    state: Affine
    source: Tensor
    target: Tensor


class Merged(NamedTuple):
    """All that the fast path needs.

    Attributes:
        start: a node's state from its positions.
        tokens: added to vocabulary nodes; `[0, width]` for none.
        type_scale: what an edge's type adds to `scale` in the first round, `[type, width]`.
        type_shift: the same of `shift`.
        type_state: the same of `state`.
        rounds: the two rounds.
        head: the second activation h of an edge to the inside of the last one.
        out: the last activation to the outputs, `[slot, horizon, width]` and `[slot, horizon]`.
    """

    start: Affine
    tokens: Tensor
    type_scale: Tensor
    type_shift: Tensor
    type_state: Tensor
    rounds: tuple[MergedRound, MergedRound]
    head: Affine
    out: Affine


@torch.no_grad()
def merge(network: NiNoNetwork) -> Merged:
    """Neighbouring linear maps multiplied out, in float64, and rounded to float32 once."""
    features = Affine.of(network.features)
    types = network.types.detach().double()
    first, second = (cast(Round, part) for part in network.rounds)
    one = _merged_round(first, features)
    scale, shift = (part.weight for part in Affine.of(first.modulate).split())
    state = Affine.of(first.edge).weight
    two = _merged_round(second, Affine.of(first.output))
    head = Affine.of(network.head).after(Affine.of(second.output))
    out = Affine.of(network.out)
    shape = (SLOTS, HORIZONS)
    return Merged(
        start=Affine.of(network.positions).float(),
        tokens=network.tokens.detach().float(),
        type_scale=(types @ scale.T).float(),
        type_shift=(types @ shift.T).float(),
        type_state=(types @ state.T).float(),
        rounds=(_float(one), _float(two)),
        head=head.float(),
        out=Affine(out.weight.reshape(*shape, -1), out.bias.reshape(shape)),
    )


def _merged_round(layers: Round, edge: Affine) -> MergedRound:
    """`edge` makes the edge's state of z."""
    scale, shift = Affine.of(layers.modulate).after(edge).split()
    before, last = Affine.of(layers.before), Affine.of(layers.last)
    own, other = before.weight.chunk(2, dim=1)
    after = last.after(Affine.of(layers.after))
    keep, take = after.weight.chunk(2, dim=1)
    state = Affine.of(layers.edge).after(edge)
    ends = (Affine.of(layers.source), Affine.of(layers.target))
    return MergedRound(
        scale,
        shift,
        Affine(own, before.bias),
        other,
        Affine(keep, after.bias),
        take,
        Affine(state.weight, state.bias + ends[0].bias + ends[1].bias),
        ends[0].weight,
        ends[1].weight,
    )


def _float(merged: MergedRound) -> MergedRound:
    return MergedRound(
        merged.scale.float(),
        merged.shift.float(),
        merged.own.float(),
        merged.other.float().contiguous(),
        merged.keep.float(),
        merged.take.float().contiguous(),
        merged.state.float(),
        merged.source.float(),
        merged.target.float(),
    )


def pieces_of(slots: int) -> list[slice]:
    """The slots of an edge in pieces of at most nine: a larger kernel counts as several edges side by side."""
    return [slice(begin, min(begin + SLOTS, slots)) for begin in range(0, slots, SLOTS)]


def num_pieces(slots: int) -> int:
    """How many edges an edge with `slots` scalars counts as."""
    return math.ceil(slots / SLOTS)

"""What a neural graph consists of: axes, groups of nodes, blocks of edges."""

from dataclasses import dataclass
from typing import Literal

NodeKind = Literal["input", "neurons", "vocabulary", "positions", "constant", "heads"]
EdgeKind = Literal[
    "dense", "bias", "conv", "norm", "embedding", "position", "query", "key", "value", "residual", "head"
]


@dataclass(frozen=True)
class Axis:
    """A set of indices that may be permuted without changing what the network computes.

    Attributes:
        name: for people.
        size: how many indices.
        pinned: whether only the identity is allowed: data axes, and what an operation treats index by index.
        within: the axis in whose every position this one may be permuted differently, as an index into the graph's
            axes (the dimensions of a head within the heads); None for one permutation everywhere.
    """

    name: str
    size: int
    pinned: bool
    within: int | None = None


@dataclass(frozen=True)
class NodeGroup:
    """Neurons that a person would draw as one column.

    Attributes:
        name: for people.
        size: how many nodes.
        kind: what they are; "constant" is the one source node of a bias or norm vector.
        axes: indices into the graph's axes; their sizes multiply to `size`, row-major. Empty for a single node.
    """

    name: str
    size: int
    kind: NodeKind
    axes: tuple[int, ...]


@dataclass(frozen=True)
class EdgeBlock:
    """All edges of one tensor, or of a part of it, between two groups of nodes, as a dense tile.

    The part `span` of the tensor, reshaped to `shape`, permuted by `order`, reshaped to `[groups, target, source,
    slots]`, holds the edges. With `groups` above 1 the tile is block-diagonal: of equally many targets and equally
    many sources in each group, only those of the same group are joined.

    Attributes:
        kind: what the edges are; "residual" and "head" are auxiliary, carry ones and have no tensor.
        source: index of the source group.
        target: index of the target group.
        parameter: name of the tensor in the layout; None for auxiliary edges.
        span: for each dimension of the tensor, the range `(begin, end)` that belongs to this block.
        shape: what the narrowed tensor is reshaped to.
        order: how it is permuted then.
        num_sources: how many nodes of the source group the tile spans.
        num_targets: how many nodes of the target group the tile spans.
        groups: number of diagonal blocks.
        slots: scalars on one edge, such as kernel positions, row-major.
        source_offset: first node of the source group in the tile.
        target_offset: first node of the target group in the tile.
    """

    kind: EdgeKind
    source: int
    target: int
    parameter: str | None
    span: tuple[tuple[int, int], ...]
    shape: tuple[int, ...]
    order: tuple[int, ...]
    num_sources: int
    num_targets: int
    groups: int = 1
    slots: int = 1
    source_offset: int = 0
    target_offset: int = 0

    @property
    def tile_shape(self) -> tuple[int, int, int, int]:
        """`[groups, target, source, slots]`."""
        return (self.groups, self.num_targets // self.groups, self.num_sources // self.groups, self.slots)

    @property
    def num_edges(self) -> int:
        """How many edges; each carries `slots` scalars."""
        return self.num_targets * self.num_sources // self.groups

    @property
    def narrowed(self) -> tuple[int, ...]:
        """Shape of the part of the tensor that belongs to this block."""
        return tuple(end - begin for begin, end in self.span)


@dataclass(frozen=True)
class Segment:
    """A range of one dimension of a tensor that runs over a product of axes, row-major.

    Attributes:
        size: how many positions.
        axes: indices into the graph's axes; their sizes multiply to `size`. Empty where `size` is 1.
    """

    size: int
    axes: tuple[int, ...]


@dataclass(frozen=True)
class TensorAxes:
    """What each dimension of one tensor of the module runs over; this is what `permute` follows.

    Attributes:
        name: the tensor's name in the module.
        trainable: whether it is a tensor of the layout; else a frozen parameter or a buffer.
        dims: for each dimension its segments, in order. A dimension that is a product of a free axis and a sum is
            written as two, so there may be more than the tensor has; their extents still multiply to its own.
    """

    name: str
    trainable: bool
    dims: tuple[tuple[Segment, ...], ...]

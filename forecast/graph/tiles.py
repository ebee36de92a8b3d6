"""How a part of a tensor becomes a tile of edges."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .axes import Factor
from .neural_graph import EdgeBlock, EdgeKind
from .structure import Leaves


@dataclass(frozen=True)
class Piece:
    """A range of one dimension of a parameter: a product of leaves, the first of them perhaps at one position.

    Attributes:
        begin: first index.
        end: one after the last.
        leaves: what the range runs over, row-major.
        fixed: the positions of the first leaves, where only one position of each is in the range.
    """

    begin: int
    end: int
    leaves: Leaves
    fixed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Side:
    """One end of a block's edges: a node group, and which leaf of the parameter numbers which of its leaves.

    Attributes:
        group: number of the node group.
        leaves: leaves of the parameter, in the order in which the group numbers its nodes.
    """

    group: int
    leaves: Leaves


class Unclear(Exception):
    """Why a parameter gets no edges."""


def make_tile(
    name: str,
    kind: EdgeKind,
    pieces: Sequence[Piece],
    source: Side,
    target: Side,
    shared: Sequence[Factor],
    slots: Sequence[Factor],
) -> EdgeBlock:
    """How a part of a tensor becomes a tile: its leaves are brought into the order groups, target, source, slots.

    Raises:
        Unclear: if no order of the leaves makes a tile.
    """
    leaves = [leaf for piece in pieces for leaf in piece.leaves]
    fixed = {leaf: at for piece in pieces for leaf, at in zip(piece.leaves, piece.fixed, strict=False)}
    for side in (source, target):
        leading = [leaf for leaf in side.leaves if leaf in fixed]
        if [*side.leaves[: len(leading)]] != leading or (shared and [*side.leaves[: len(shared)]] != [*shared]):
            raise Unclear("its neurons are numbered in an order that no tile has.")
    if shared and fixed:
        raise Unclear("it is both cut and grouped.")
    wanted = [*shared, *(leaf for side in (target, source) for leaf in side.leaves if leaf not in shared), *slots]
    rest = [leaf for leaf in leaves if leaf not in wanted]
    if any(leaf.size > 1 and leaf not in fixed for leaf in rest) or len({*wanted}) != len(wanted):
        raise Unclear("a dimension of it numbers neurons of no column.")

    def offset(side: Side) -> int:
        first = 0
        for leaf in side.leaves:
            first = first * leaf.size + fixed.get(leaf, 0)
        return first

    def count(some: Sequence[Factor]) -> int:
        return math.prod(leaf.size for leaf in some if leaf not in fixed)

    order = [*wanted, *rest]
    return EdgeBlock(
        kind=kind,
        source=source.group,
        target=target.group,
        parameter=name,
        span=tuple((piece.begin, piece.end) for piece in pieces),
        shape=tuple(1 if leaf in fixed else leaf.size for leaf in leaves),
        order=tuple(leaves.index(leaf) for leaf in order),
        num_sources=count(source.leaves),
        num_targets=count(target.leaves),
        groups=count(shared),
        slots=count(slots),
        source_offset=offset(source),
        target_offset=offset(target),
    )


def turned(block: EdgeBlock) -> EdgeBlock:
    """The same edges drawn the other way round; they are not grouped."""
    if block.groups != 1:
        return replace(block, kind="dense")
    rank = len(block.order)
    split = rank
    remaining = block.num_targets
    for number, dim in enumerate(block.order):
        if remaining == 1:
            split = number
            break
        remaining //= block.shape[dim]
    middle = split
    remaining = block.num_sources
    while remaining > 1:
        remaining //= block.shape[block.order[middle]]
        middle += 1
    order = (*block.order[split:middle], *block.order[:split], *block.order[middle:])
    return replace(
        block,
        source=block.target,
        target=block.source,
        order=order,
        num_sources=block.num_targets,
        num_targets=block.num_sources,
        source_offset=block.target_offset,
        target_offset=block.source_offset,
    )

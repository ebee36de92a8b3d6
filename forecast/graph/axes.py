"""Which indices of a network's tensors must be permuted together: axes that split, are cut, and are tied.

Every dimension of every tensor is a product of factors, row-major. A factor begins as a leaf. A reshape splits a leaf
into a product; a slice cuts it into a sum of ranges. Leaves that must be permuted alike are tied into one class, and
whatever splits or cuts one of them splits or cuts all of them, so that tied factors always have the same structure.
Each occurrence keeps its own identity: where a factor came from says which neurons it numbers.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Dim = tuple["Factor", ...]


@dataclass(eq=False)
class Tie:
    """A class of leaves that are permuted alike.

    Attributes:
        members: the leaves.
        pinned: whether only the identity is allowed.
        data: whether the indices are positions of data, such as a batch or pixels.
        outer: leaves, or what became of them, in whose every position the permutation may be another one.
        even: leaves across whose positions it must be the same after all.
        fans: what stands for the members at each single position of an outer leaf.
    """

    members: "list[Factor]"
    pinned: bool = False
    data: bool = False
    outer: "list[Factor]" = field(default_factory=lambda: [])
    even: "list[Factor]" = field(default_factory=lambda: [])
    fans: "list[Fan]" = field(default_factory=lambda: [])


@dataclass(eq=False)
class Fan:
    """The copies of a class's members for each position of an outer leaf: one list of copies for each member."""

    over: "Factor"
    copies: "dict[Factor, tuple[Factor, ...]]"


@dataclass(eq=False)
class Factor:
    """One occurrence of a set of indices: a leaf, a product of factors, or a sum of ranges.

    Attributes:
        size: how many indices.
        tie: the class, while this is a leaf.
        product: what a leaf was split into.
        parts: what it was cut into; each range is a dimension of its own.
        parent: what it is a part of, and the choice that was made there: "" for a factor of a product.
    """

    size: int
    tie: Tie | None = None
    product: Dim | None = None
    parts: tuple[Dim, ...] | None = None
    parent: "tuple[Factor, str] | None" = None

    @property
    def leaf(self) -> Tie:
        """The class of a leaf."""
        if self.tie is None:
            raise RuntimeError("Not a leaf.")
        return self.tie


def new_leaf(size: int, pinned: bool = False, data: bool = False, parent: tuple[Factor, str] | None = None) -> Factor:
    """A leaf in a class of its own."""
    factor = Factor(size, parent=parent)
    factor.tie = Tie([factor], pinned, data)
    return factor


def new_dim(size: int, pinned: bool = False, data: bool = False) -> Dim:
    """A dimension of one fresh leaf; of none where there is a single index."""
    return () if size == 1 else (new_leaf(size, pinned, data),)


def extent(dim: Iterable[Factor]) -> int:
    """How many indices a dimension has."""
    return math.prod(factor.size for factor in dim)


def factors(dim: Iterable[Factor]) -> list[Factor]:
    """Leaves and sums that multiply to a dimension."""
    found: list[Factor] = []
    for factor in dim:
        if factor.product is not None:
            found += factors(factor.product)
        else:
            found.append(factor)
    return found


def ranges(factor: Factor) -> list[Dim]:
    """The ranges of a sum in order, with ranges of ranges unrolled."""
    if factor.parts is None:
        raise RuntimeError("Not a sum.")
    found: list[Dim] = []
    for part in factor.parts:
        inner = factors(part)
        if inner and inner[0].parts is not None:
            found += [(*first, *inner[1:]) for first in ranges(inner[0])]
        else:
            found.append(tuple(inner))
    return found


def leaves(dim: Iterable[Factor]) -> list[Factor]:
    """Every leaf of a dimension, those of all ranges included."""
    found: list[Factor] = []
    for factor in factors(dim):
        if factor.parts is None:
            found.append(factor)
        else:
            for part in factor.parts:
                found += leaves(part)
    return found


def pin(dim: Iterable[Factor]) -> None:
    """Allow a dimension, and copies of it, only the identity."""
    for leaf in leaves(dim):
        leaf.leaf.pinned = True
        for fan in leaf.leaf.fans:
            for copies in fan.copies.values():
                pin(copies)


def join(parts: Sequence[Dim]) -> Dim:
    """The dimension in which others lie one after the other."""
    return (Factor(sum(extent(part) for part in parts), parts=tuple(parts)),)


def split(leaf: Factor, outer_size: int) -> None:
    """Make a leaf, and all that are tied to it, a product of `outer_size` and the rest."""
    tie = leaf.leaf
    outer_tie, inner_tie = Tie([], tie.pinned, tie.data), Tie([], tie.pinned, tie.data)
    for member in tie.members:
        outer, inner = Factor(outer_size, outer_tie, parent=(member, "")), Factor(member.size // outer_size, inner_tie)
        inner.parent = (member, "")
        outer_tie.members.append(outer)
        inner_tie.members.append(inner)
        member.tie, member.product = None, (outer, inner)
    inner_tie.outer.append(outer_tie.members[0])
    for part in (outer_tie, inner_tie):
        part.outer += tie.outer
        part.even += tie.even
    _dissolve(tie)


def cut_leaf(leaf: Factor, ends: Sequence[int]) -> None:
    """Make a leaf, and all that are tied to it, a sum of the ranges between consecutive `ends`."""
    tie = leaf.leaf
    sizes = [end - begin for begin, end in pairwise(ends)]
    ties = [Tie([], tie.pinned, tie.data, [*tie.outer], [*tie.even]) for _ in sizes]
    for member in tie.members:
        parts = [
            Factor(size, part, parent=(member, f"part {number}"))
            for number, (size, part) in enumerate(zip(sizes, ties, strict=True))
        ]
        for part, part_tie in zip(parts, ties, strict=True):
            part_tie.members.append(part)
        member.tie, member.parts = None, tuple((part,) for part in parts)
    _dissolve(tie)


def _dissolve(tie: Tie) -> None:
    """What is no leaf any more has no copies: they are tied to it."""
    for fan in tie.fans:
        for member, copies in fan.copies.items():
            for copy in copies:
                unify((copy,), (member,))


def tied(first: Dim, second: Dim) -> bool:
    """Whether two dimensions are permuted alike already."""
    left = [factor for factor in factors(first) if factor.size > 1]
    right = [factor for factor in factors(second) if factor.size > 1]
    return len(left) == len(right) and all(_tied(one, other) for one, other in zip(left, right, strict=True))


def _tied(one: Factor, other: Factor) -> bool:
    if one is other:
        return True
    if one.tie is not None or other.tie is not None:
        return one.tie is other.tie
    mine, theirs = ranges(one), ranges(other)
    return len(mine) == len(theirs) and all(tied(a, b) for a, b in zip(mine, theirs, strict=True))


def unify(first: Dim, second: Dim) -> None:
    """Tie two dimensions of equal extent index by index, refining both as far as the other one asks.

    Structures that cannot be reconciled are pinned, which makes a tie superfluous.
    """
    if extent(first) != extent(second):
        raise RuntimeError(f"Dimensions of {extent(first)} and {extent(second)} cannot be tied.")
    while not tied(first, second):
        left = [factor for factor in factors(first) if factor.size > 1]
        right = [factor for factor in factors(second) if factor.size > 1]
        one, other = next(pair for pair in zip(left, right, strict=False) if not _tied(*pair))
        if one.size == other.size:
            possible = _merge(one, other)
        else:
            large, small = (one, other) if one.size > other.size else (other, one)
            possible = large.size % small.size == 0 and _divide(large, small.size)
        if not possible:
            pin(first)
            pin(second)
            return


def _divide(factor: Factor, outer_size: int) -> bool:
    """Split a leaf; tell whether that was possible."""
    if factor.parts is not None:
        return False
    split(factor, outer_size)
    return True


def _merge(one: Factor, other: Factor) -> bool:
    """Bring two factors of equal size closer to being tied; tell whether that was possible."""
    if one.tie is not None and other.tie is not None:
        _union(one.tie, other.tie)
        return True
    if one.tie is not None or other.tie is not None:
        whole, parted = (one, other) if one.tie is not None else (other, one)
        cut_leaf(whole, _ends(parted))
        return True
    ends = sorted({*_ends(one), *_ends(other)})
    for factor in (one, other):
        for end in ends:
            if end not in _ends(factor):
                cut((factor,), 0, end)
    if _ends(one) != _ends(other):
        return False
    for mine, theirs in zip(ranges(one), ranges(other), strict=True):
        unify(mine, theirs)
    return tied((one,), (other,))


def _ends(factor: Factor) -> list[int]:
    ends = [0]
    for part in ranges(factor):
        ends.append(ends[-1] + extent(part))
    return ends


def _union(one: Tie, other: Tie) -> None:
    for member in other.members:
        member.tie = one
    fans = other.fans
    one.members += other.members
    one.pinned |= other.pinned
    one.data |= other.data
    one.outer += other.outer
    one.even += other.even
    for fan in fans:
        mine = _find_fan(one, fan.over)
        if mine is None:
            one.fans.append(fan)
        else:
            first, second = next(iter(mine.copies.values())), next(iter(fan.copies.values()))
            mine.copies.update(fan.copies)
            for copy, twin in zip(first, second, strict=True):
                unify((copy,), (twin,))
    if one.members[0].tie is one:
        for fan in one.fans:
            _complete(one, fan)


def _find_fan(tie: Tie, over: Factor) -> Fan | None:
    for fan in tie.fans:
        if over.tie is not None and fan.over.tie is over.tie:
            return fan
    return None


def _complete(tie: Tie, fan: Fan) -> None:
    """Give every member copies, tied to those of the others."""
    first = next(iter(fan.copies.values()), None)
    for member in tie.members:
        if member in fan.copies:
            continue
        copies = tuple(
            new_leaf(member.size, tie.pinned, tie.data, (member, f"copy {number}")) for number in range(fan.over.size)
        )
        fan.copies[member] = copies
        if first is None:
            first = copies
            continue
        for copy, twin in zip(copies, first, strict=True):
            unify((copy,), (twin,))


def lies_within(leaf: Factor, outer: Factor) -> bool:
    """Whether a leaf was made inside another one, so that each position of that one may have its own permutation."""
    within = {id(found.tie) for found in leaves(leaf.leaf.outer)}
    return id(outer.tie) in within


def copy_at(leaf: Factor, outer: Factor, position: int) -> Factor:
    """What stands for `leaf` at one position of an outer leaf."""
    tie = leaf.leaf
    fan = _find_fan(tie, outer)
    if fan is None:
        fan = Fan(outer, {})
        tie.fans.append(fan)
    if leaf not in fan.copies:
        _complete(tie, fan)
        for number in range(outer.size):
            # what the leaf lies within, its copies lie within as well, at the same position
            for found in leaves(tie.outer):
                if found.tie is None or found.tie is outer.tie:
                    continue
                inner_fan = _find_fan(found.tie, outer)
                for member in tie.members:
                    target = fan.copies[member][number]
                    if target.tie is not None:
                        at = found if inner_fan is None else inner_fan.copies.get(found, (found,) * outer.size)[number]
                        target.tie.outer.append(at)
    return fan.copies[leaf][position]


def cut(dim: Dim, begin: int, end: int) -> Dim:
    """The range `begin` to `end` of a dimension, which is cut there, and so is all that is tied to it.

    Cuts that do not fit the structure pin it, and the range is then pinned positions of their own.
    """
    size = extent(dim)
    if (begin, end) == (0, size):
        return dim
    found = [factor for factor in factors(dim) if factor.size > 1]
    inner = extent(found[1:])
    if begin % inner or end % inner or (found[0].parts is None and found[0].leaf.data):
        pin(found)
        rest = tuple(found[1:]) if not (begin % inner or end % inner) else ()
        return (*new_dim((end - begin) // extent(rest), pinned=True, data=True), *rest)
    first, rest = found[0], tuple(found[1:])
    begin, end = begin // inner, end // inner
    if first.parts is None:
        cut_leaf(first, sorted({0, begin, end, first.size}))
    chosen: list[Dim] = []
    offset = 0
    for part in ranges(first):
        length = extent(part)
        low, high = max(begin - offset, 0), min(end - offset, length)
        if low < high:
            chosen.append(cut(part, low, high))
        offset += length
    return (*(chosen[0] if len(chosen) == 1 else join(chosen)), *rest)


def regroup(dims: Sequence[Dim], shape: Sequence[int]) -> list[Dim]:
    """The dimensions of a tensor after a reshape; leaves are split where it asks for it."""
    new: list[Dim] = []
    rest = [factor for dim in dims for factor in factors(dim) if factor.size > 1]
    for size in shape:
        taken: list[Factor] = []
        have = 1
        while have < size:
            if not rest:
                raise RuntimeError("A reshape must keep the number of elements.")
            head = rest.pop(0)
            need = size // have if size % have == 0 else 0
            if head.size > need and need and head.size % need == 0 and _divide(head, need):
                rest = [*factors((head,)), *rest]
                continue
            if not need or need % head.size:
                return _forget(dims, shape)
            taken.append(head)
            have *= head.size
        new.append(tuple(taken))
    return new


def _forget(dims: Sequence[Dim], shape: Sequence[int]) -> list[Dim]:
    """A reshape that cuts across the structure: everything is pinned."""
    for dim in dims:
        pin(dim)
    return [new_dim(size, pinned=True, data=True) for size in shape]


def forbid_fan(dims: Iterable[Dim], across: Iterable[Factor]) -> None:
    """Ask that permutations of `dims` be the same at every position of `across`."""
    across = [*across]
    for dim in dims:
        for leaf in leaves(dim):
            leaf.leaf.even += [outer for outer in across if outer is not leaf]

"""The axes of a traced network once everything is known: which are free, which lie within which."""

from collections.abc import Mapping, Sequence

from .axes import Dim, Factor, Fan, Tie, extent, factors, leaves, pin, ranges, unify
from .neural_graph import Axis, Segment, TensorAxes
from .values import Value

Leaves = tuple[Factor, ...]


class Structure:
    """Settles the axes of a traced network.

    A sum of pinned ranges inside a product counts as one pinned leaf. A leaf may be permuted differently at each
    position of an outer one only if the outer one is there wherever the leaf is, in every tensor of the trace.

    Args:
        values: every tensor of the trace.
        named: parameters and buffers by name.
    """

    def __init__(self, values: Sequence[Value], named: Mapping[str, Value]) -> None:
        self.named = named
        present = [value for value in values if not value.uniform]
        self._settle_fans(present)
        for value in named.values():
            for dim in value.dims:
                self._simplify(dim)
        self._settle_fans(present)
        self._outer = self._find_outer(present)
        self.axes: list[Axis] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []

    # What became of the copies

    def _settle_fans(self, values: Sequence[Value]) -> None:
        """Tie copies to what they are copies of, where the position that tells them apart is not always there."""
        while True:
            for value in values:
                pin(leaf for dim in value.dims for leaf in leaves(dim) if leaf.leaf.pinned)
            broken: dict[int, tuple[Tie, Fan]] = {}
            for value in values:
                found = {id(leaf.tie): leaf.leaf for dim in value.dims for leaf in leaves(dim)}
                for tie in found.values():
                    for fan in tie.fans:
                        even = {id(leaf.tie) for leaf in leaves(tie.even)}
                        if fan.over.tie is None or id(fan.over.tie) not in found or id(fan.over.tie) in even:
                            broken[id(fan)] = (tie, fan)
            if not broken:
                return
            for tie, fan in broken.values():
                if fan in tie.fans:
                    tie.fans.remove(fan)
                for member, copies in fan.copies.items():
                    for copy in copies:
                        unify((copy,), (member,))

    # Sums that are no dimension's first factor, or lie in others, cannot be written as ranges

    def _simplify(self, dim: Dim) -> None:
        found = factors(dim)
        sums = [factor for factor in found if self._is_sum(factor)]
        pin(sums[1:])
        for factor in sums[:1]:
            if any(len(self._refine(factors(part))) > 1 or self._has_sum(part) for part in ranges(factor)):
                pin((factor,))

    def _is_sum(self, factor: Factor) -> bool:
        return factor.tie is None and not self.collapsed(factor)

    def _has_sum(self, dim: Dim) -> bool:
        return any(self._is_sum(factor) for factor in factors(dim))

    def collapsed(self, factor: Factor) -> bool:
        """Whether a factor is a sum of pinned ranges only, inside a product: it counts as one pinned leaf."""
        return (
            factor.tie is None
            and factor.parent is not None
            and factor.parent[1] == ""
            and all(leaf.leaf.pinned for leaf in leaves((factor,)))
        )

    def _fanned(self, found: Sequence[Factor], at: int) -> int:
        """How many factors after `at` have copies for each position of it."""
        tie = found[at].tie
        count = 0
        if tie is None:
            return 0
        for factor in found[at + 1 :]:
            if factor.tie is None or not any(fan.over.tie is tie for fan in factor.tie.fans):
                break
            count += 1
        return count

    def refine(self, dim: Dim) -> list[list[Leaves]]:
        """A dimension as a product of sums of products of leaves: at most a product, then a sum."""
        return self._refine(factors(dim))

    def _refine(self, found: Sequence[Factor]) -> list[list[Leaves]]:
        refined: list[list[Leaves]] = []
        for at, factor in enumerate(found):
            rest = [*found[at + 1 :]]
            if self._is_sum(factor):
                parts = [self._refine([*factors(part), *rest]) for part in ranges(factor)]
                refined.append([(*part[0][0], *end) if len(part) > 1 else end for part in parts for end in part[-1]])
                break
            count = self._fanned(found, at)
            if count:
                segments: list[Leaves] = []
                for position in range(factor.size):
                    copies = [self._copy(inner, factor, position) for inner in rest[:count]]
                    segments.append((*(leaf for copy in copies for leaf in factors((copy,))), *rest[count:]))
                refined.append(segments)
                break
            if refined:
                refined[-1] = [(*refined[-1][0], factor)]
            else:
                refined.append([(factor,)])
        return refined or [[()]]

    def _copy(self, leaf: Factor, outer: Factor, position: int) -> Factor:
        fan = next(fan for fan in leaf.leaf.fans if fan.over.tie is outer.tie)
        return fan.copies[leaf][position]

    def alternatives(self, dim: Dim) -> list[Leaves]:
        """The products of leaves that a dimension consists of, one after the other."""
        refined = self.refine(dim)
        if len(refined) == 1:
            return refined[0]
        return [(*refined[0][0], *segment) for segment in refined[1]]

    # Nesting

    def _find_outer(self, values: Sequence[Value]) -> dict[int, Tie]:
        """For each class, the outer class in whose every position it may be permuted differently."""
        together: dict[int, set[int]] = {}
        ties: dict[int, Tie] = {}
        for value in values:
            found = {id(leaf.tie): leaf.leaf for dim in value.dims for leaf in leaves(dim)}
            ties.update(found)
            for number in found:
                if number in together:
                    together[number] &= found.keys()
                else:
                    together[number] = set(found)
        chosen: dict[int, Tie] = {}
        for number, tie in ties.items():
            even = {id(leaf.tie) for leaf in leaves(tie.even)}
            candidates = {id(leaf.tie): leaf.leaf for leaf in leaves(tie.outer)}
            fit = [
                outer
                for key, outer in candidates.items()
                if key in together[number] and key not in even and key != number and not tie.pinned
            ]
            for outer in sorted(fit, key=lambda outer: -outer.members[0].size):
                above = outer  # a product read in two orders has each factor inside the other: one of them is enough
                while id(above) in chosen:
                    above = chosen[id(above)]
                if above is not tie:
                    chosen[number] = outer
                    break
        return chosen

    # Numbers

    def axis(self, leaf: Factor, name: str) -> int:
        """The number of a leaf's axis; made when first asked for."""
        key = id(leaf.tie) if leaf.tie is not None else id(leaf)
        if key not in self._numbers:
            self._kept.append(leaf)
            pinned = leaf.tie.pinned if leaf.tie is not None else True
            outer = self._outer.get(key)
            within = self.axis(outer.members[0], name) if outer is not None else None
            self._numbers[key] = len(self.axes)
            self.axes.append(Axis(name, leaf.size, pinned, within))
        return self._numbers[key]

    def tensor_axes(self, name: str, trainable: bool) -> TensorAxes:
        """What the dimensions of a parameter or buffer run over."""
        dims: list[tuple[Segment, ...]] = []
        for number, dim in enumerate(self.named[name].dims):
            for part in self.refine(dim):
                dims.append(
                    tuple(
                        Segment(extent(segment), tuple(self.axis(leaf, f"{name}[{number}]") for leaf in segment))
                        for segment in part
                    )
                )
        return TensorAxes(name, trainable, tuple(dims))

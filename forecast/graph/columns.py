"""Columns of neurons: which leaves number the same ones."""

import math
from collections.abc import Sequence

from .axes import Dim, Factor, factors
from .neural_graph import NodeGroup, NodeKind
from .structure import Leaves, Structure
from .wiring import Wiring, root_of

Key = tuple[object, ...]


class Columns:
    """Finds and makes the node groups of a graph.

    Neurons are told apart by what their leaves were split, cut or copied from. Columns may be united when they turn
    out to be the same neurons.

    Args:
        structure: the settled axes.
        wiring: says which leaves number neurons.
    """

    def __init__(self, structure: Structure, wiring: Wiring) -> None:
        self._structure = structure
        self._wiring = wiring
        self._same: dict[Key, Key] = {}
        self._roots: dict[int, Factor] = {}
        self._first: dict[Key, list[int]] = {}
        self._numbers: dict[Key, int] = {}
        self._groups: list[NodeGroup] = []

    def numbers_neurons(self, leaf: Factor) -> bool:
        """Whether a leaf numbers neurons, not positions of data."""
        return root_of(leaf) in self._wiring.roots

    def repeats(self, leaf: Factor) -> bool:
        """Whether a leaf only repeats what others number."""
        return not self.numbers_neurons(leaf) and leaf.tie is not None and not leaf.tie.data

    def key(self, leaves: Sequence[Factor]) -> Key | None:
        """What tells a column apart; None if the leaves number no column, or more than one."""
        roots: set[int] = set()
        choices: set[tuple[object, str]] = set()
        for leaf in leaves:
            factor = leaf
            while factor.parent is not None:
                above, choice = factor.parent
                if choice.startswith("part"):
                    choices.add((id(above), choice))
                elif choice:
                    choices.add(("copy", choice))
                factor = above
            roots.add(id(factor))
            self._roots[id(factor)] = factor
        if len(roots) != 1 or not all(self.numbers_neurons(leaf) for leaf in leaves):
            return None
        key = (*roots, frozenset(choices))
        return key if {*self.ordered(key)} == {*leaves} else None

    def is_part(self, leaves: Sequence[Factor]) -> bool:
        """Whether some leaves number neurons of one root, but not all leaves of a column."""
        return all(self.numbers_neurons(leaf) for leaf in leaves) and self.key(leaves) is None

    def ordered(self, key: Key) -> Leaves:
        """The leaves of a column, row-major."""
        root, choices = self._roots[int(str(key[0]))], key[1]
        found: list[Factor] = []
        self._walk(root, choices if isinstance(choices, frozenset) else frozenset(), found)
        return tuple(found)

    def _walk(self, factor: Factor, choices: "frozenset[tuple[object, str]]", found: list[Factor]) -> None:
        if factor.product is not None:
            for number, part in enumerate(factor.product):
                if not self._is_position(factor.product[number + 1 :], part, choices):
                    self._walk(part, choices, found)
        elif factor.parts is not None and not self._structure.collapsed(factor):
            for number, part in enumerate(factor.parts):
                if (id(factor), f"part {number}") in choices:
                    for inner in part:
                        self._walk(inner, choices, found)
                    return
            found.append(factor)
        else:
            copy = next((choice for origin, choice in choices if origin == "copy"), None)
            if copy is not None and factor.tie is not None and factor.tie.fans:
                self._walk(factor.tie.fans[0].copies[factor][int(copy.split()[1])], choices, found)
            else:
                found.append(factor)

    def _is_position(self, later: Sequence[Factor], part: Factor, choices: "frozenset[tuple[object, str]]") -> bool:
        """Whether a factor only says which copy of the later ones is meant."""
        if part.tie is None or not any(origin == "copy" for origin, _ in choices):
            return False
        return any(
            fan.over.tie is part.tie for factor in factors(later) if factor.tie is not None for fan in factor.tie.fans
        )

    def find(self, key: Key) -> Key:
        """What stands for all columns united with this one."""
        while key in self._same:
            key = self._same[key]
        return key

    def unite(self, one: Key, other: Key) -> None:
        """Let two columns be the same neurons."""
        first, second = self.find(one), self.find(other)
        if first != second:
            self._same[second] = first

    def merge(self, first: Dim, second: Dim) -> bool:
        """Unite the columns of two dimensions range by range; False where they number no plain columns."""
        one, other = self._structure.alternatives(first), self._structure.alternatives(second)
        united = len(one) == len(other)
        for left, right in zip(one, other, strict=False):
            keys = self.key(left), self.key(right)
            if keys[0] is None or keys[1] is None or not alike(self.ordered(keys[0]), self.ordered(keys[1])):
                united = False
            else:
                self.unite(keys[0], keys[1])
        return united

    def arrange(self, key: Key, leading: Sequence[int]) -> None:
        """Number a column's neurons with these of its leaves first."""
        self._first[self.find(key)] = [*leading]

    def arranged(self, key: Key) -> Leaves:
        """The leaves of a column in the order in which its neurons are numbered."""
        leaves = self.ordered(key)
        leading = self._first.get(self.find(key), [])
        return (*(leaves[n] for n in leading), *(leaf for n, leaf in enumerate(leaves) if n not in leading))

    def column(self, leaves: Sequence[Factor], name: str) -> tuple[int, Leaves]:
        """The node group whose neurons some leaves number, and the order of the leaves in its numbering."""
        key = self.key(leaves)
        if key is not None:
            order = self.arranged(key)
            return self._group(self.find(key), name, "neurons", order), order
        neurons = [leaf for leaf in leaves if self.numbers_neurons(leaf)]
        if not neurons:
            return self._group(("input", *map(id, leaves)), "input", "input", tuple(leaves)), tuple(leaves)
        free = [leaf for leaf in leaves if leaf not in neurons]
        key = self.key(neurons)
        if key is not None:
            order = (*free, *self.arranged(key))
            ties = [id(leaf.tie) for leaf in free]
            return self._group(("wide", self.find(key), *ties), f"{name} input", "neurons", order), order
        return self._group(("loose", *map(id, leaves)), f"{name} input", "neurons", tuple(leaves)), tuple(leaves)

    def lone(self, key: Key, name: str, kind: NodeKind, leaves: Leaves) -> int:
        """A node group of its own."""
        return self._group(key, name, kind, leaves)

    def known(self, leaves: Sequence[Factor]) -> int | None:
        """The node group that some leaves number, if there is one."""
        key = self.key(leaves)
        return None if key is None else self._numbers.get(self.find(key))

    def size(self, number: int) -> int:
        """How many nodes a group has."""
        return self._groups[number].size

    def groups(self) -> tuple[NodeGroup, ...]:
        """All node groups, in the order in which they were made."""
        return tuple(self._groups)

    def _group(self, key: Key, name: str, kind: NodeKind, leaves: Leaves) -> int:
        if key not in self._numbers:
            axes = tuple(self._structure.axis(leaf, name) for leaf in leaves)
            self._numbers[key] = len(self._groups)
            self._groups.append(NodeGroup(name, math.prod(leaf.size for leaf in leaves), kind, axes))
        return self._numbers[key]


def alike(one: Sequence[Factor], other: Sequence[Factor]) -> bool:
    """Whether leaves are tied one by one; pinned ones need no tie."""
    return len(one) == len(other) and all(
        a is b or (a.tie is not None and a.tie is b.tie) or (a.size == b.size and _fixed(a) and _fixed(b))
        for a, b in zip(one, other, strict=True)
    )


def _fixed(leaf: Factor) -> bool:
    return leaf.tie is None or leaf.tie.pinned

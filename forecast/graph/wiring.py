"""Who feeds whom: what is noted about neurons and parameters while a network is traced."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .axes import Dim, Factor, extent, leaves, new_leaf, tied, unify
from .neural_graph import EdgeKind
from .values import Value


@dataclass
class Use:
    """How a parameter, or a part of it, was used first; it makes one set of edges.

    Attributes:
        kind: of the edges.
        out: dimensions of the parameter whose indices are the neurons it makes.
        links: pairs of a dimension of the parameter and the dimension of the value that it meets there: the sources,
            or for vectors such as a bias the targets.
        diagonal: pairs of a dimension in `out` and one of the value, met group by group.
        rows: dimensions whose indices are looked up or run over positions: the sources.
    """

    kind: EdgeKind
    out: list[Dim]
    links: list[tuple[Dim, Dim]]
    diagonal: list[tuple[Dim, Dim]]
    rows: list[Dim]

    @property
    def dims(self) -> list[Dim]:
        """All dimensions of the parameter that have a role."""
        return [*self.out, *(dim for dim, _ in self.links), *self.rows]


@dataclass
class Attention:
    """One product of queries, keys and values."""

    queries: Value
    keys: Value
    values: Value


@dataclass
class Wiring:
    """Notes for making nodes and edges, in computing order.

    Attributes:
        uses: by parameter, the parts of it that were used, each once.
        roots: factors that number neurons: output dimensions of parameters, and sums of neurons made anew.
        merges: dimensions that number the same neurons.
        residuals: source and target of identity edges.
        attentions: products of queries, keys and values.
        notes: what was not understood.
    """

    uses: dict[str, list[Use]] = field(default_factory=lambda: {})
    roots: set[Factor] = field(default_factory=lambda: set())
    merges: list[tuple[Dim, Dim]] = field(default_factory=lambda: [])
    residuals: list[tuple[Dim, Dim]] = field(default_factory=lambda: [])
    attentions: list[Attention] = field(default_factory=lambda: [])
    notes: list[str] = field(default_factory=lambda: [])
    _read: set[Factor] = field(default_factory=lambda: set())
    _same: dict[Factor, Factor] = field(default_factory=lambda: {})

    def neurons(self, dims: Iterable[Dim]) -> list[Factor]:
        """The leaves that number neurons, in order."""
        return [leaf for dim in dims for leaf in leaves(dim) if root_of(leaf) in self.roots]

    def note(self, text: str) -> None:
        """Tell people once."""
        if text not in self.notes:
            self.notes.append(text)

    def use(
        self,
        value: Value,
        kind: EdgeKind,
        out: Sequence[Dim] = (),
        links: Sequence[tuple[Dim, Dim]] = (),
        diagonal: Sequence[tuple[Dim, Dim]] = (),
        rows: Sequence[Dim] = (),
    ) -> None:
        """Note that a parameter, or a part of it, makes edges. A second use in the same role merges the neurons.

        A second use in another role, as of a tied head, adds nothing.
        """
        if value.tensor is None:
            return
        for _, dim in (*links, *diagonal) if out else ():
            self._mark_read(dim)
        new = Use(kind, [*out], [*links], [*diagonal], [*rows])
        uses = self.uses.setdefault(value.tensor, [])
        for use in uses:
            if _overlap(use, new):
                if use.kind == kind and len(use.links) == len(links) and _overlap_dims(use.links, links):
                    self._reuse(use.links, links)
                    self._reuse(use.diagonal, diagonal)
                return
        uses.append(new)
        self.roots |= {root_of(leaf) for dim in out for leaf in leaves(dim)}

    def _reuse(self, pairs: list[tuple[Dim, Dim]], new: Sequence[tuple[Dim, Dim]]) -> None:
        for number, ((mine, before), (_, now)) in enumerate(zip(pairs, new, strict=False)):
            old_neurons, new_neurons = self.neurons([before]), self.neurons([now])
            if new_neurons and not old_neurons:
                pairs[number] = (mine, now)
            elif new_neurons and not self.same(before, now) and tied(before, now):
                self.merge(before, now)

    def merge(self, first: Dim, second: Dim) -> None:
        """Note that two dimensions number the same neurons."""
        read = self._is_read(first) or self._is_read(second)
        self.merges.append((first, second))
        for one, other in zip(self._tops(first), self._tops(second), strict=False):
            if self._find(one) is not self._find(other):
                self._same[self._find(one)] = self._find(other)
        if read:
            self._mark_read(second)

    def same(self, first: Dim, second: Dim) -> bool:
        """Whether two dimensions number the same neurons already."""
        one, other = self._tops(first), self._tops(second)
        return {self._find(top) for top in one} == {self._find(top) for top in other}

    def add(self, first: Dim, second: Dim) -> Dim:
        """Neurons meet neurons in a sum or product; the dimension that numbers the result's neurons.

        What was made just now and read by nobody takes in the other operand: as the same neurons if that was made just
        now too, by identity edges if not.
        """
        if self.same(first, second) or not tied(first, second):
            # halves that were turned round and joined again are the same neurons, but in another order
            return first if all(root_of(factor) in self.roots for factor in first) else second
        fresh, other = not self._is_read(first), not self._is_read(second)
        if fresh and other:
            self.merge(first, second)
            return first
        if fresh or other:
            source, target = (second, first) if fresh else (first, second)
            self.residuals.append((source, target))
            self._mark_read(source)
            return target
        leaf = new_leaf(extent(first))
        self.roots.add(leaf)
        unify((leaf,), first)
        for source in (first, second):
            self.residuals.append((source, (leaf,)))
        return (leaf,)

    def _tops(self, dim: Dim) -> list[Factor]:
        return [*dict.fromkeys(top_of(leaf) for leaf in self.neurons([dim]))]

    def _find(self, top: Factor) -> Factor:
        while top in self._same:
            top = self._same[top]
        return top

    def _mark_read(self, dim: Dim) -> None:
        for top in self._tops(dim):
            self._read.add(self._find(top))

    def _is_read(self, dim: Dim) -> bool:
        for leaf in self.neurons([dim]):
            factor: Factor | None = leaf
            while factor is not None:
                if factor in self._read or self._find(factor) in self._read:
                    return True
                factor = factor.parent[0] if factor.parent else None
        return False


def _overlap(one: Use, other: Use) -> bool:
    """Whether two uses are of the same scalars: every dimension of the later one meets one of the earlier one."""
    earlier = [_numbers(dim) for dim in one.dims]
    return all(any(mine & theirs for theirs in earlier) for mine in map(_numbers, other.dims) if mine)


def _overlap_dims(one: Sequence[tuple[Dim, Dim]], other: Sequence[tuple[Dim, Dim]]) -> bool:
    return all(_numbers(a) & _numbers(b) for (a, _), (b, _) in zip(one, other, strict=True))


def _numbers(dim: Dim) -> set[int]:
    return {id(leaf) for leaf in leaves(dim)}


def root_of(factor: Factor) -> Factor:
    """What a factor was split, cut or copied from in the end."""
    while factor.parent is not None:
        factor = factor.parent[0]
    return factor


def top_of(factor: Factor) -> Factor:
    """The largest whole that a factor belongs to: as far up as nothing was cut or copied."""
    while factor.parent is not None and factor.parent[1] == "":
        factor = factor.parent[0]
    return factor

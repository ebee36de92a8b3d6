"""From what a trace noted to nodes and blocks of edges."""

import math
from collections.abc import Mapping, Sequence
from itertools import product

from ..layout import Layout
from .axes import Dim, Factor, extent
from .columns import Columns, Key, alike
from .neural_graph import EdgeBlock, EdgeKind, NeuralGraph
from .structure import Leaves, Structure
from .tiles import Piece, Side, Unclear, make_tile, turned
from .values import Value
from .wiring import Attention, Use, Wiring

Role = tuple[str, Factor | None]


class Assembly:
    """Makes a neural graph of what was noted.

    Args:
        structure: the settled axes.
        wiring: who feeds whom.
        layout: the trainable tensors.
        notes: what is to be told already.
    """

    def __init__(self, structure: Structure, wiring: Wiring, layout: Layout, notes: Sequence[str]) -> None:
        self._structure = structure
        self._wiring = wiring
        self._layout = layout
        self._columns = Columns(structure, wiring)
        self._blocks: list[EdgeBlock] = []
        self._notes = [*notes]
        self._types: dict[Key, EdgeKind] = {}

    def graph(self) -> NeuralGraph:
        """The whole graph."""
        for first, second in self._wiring.merges:
            self._columns.merge(first, second)
        attentions = [found for attention in self._wiring.attentions for found in self._typed(attention)]
        unexplained: list[str] = []
        used = [name for name in self._wiring.uses if name in self._layout.names]
        for name in (*used, *(name for name in self._layout.names if name not in used)):
            try:
                self._blocks += self._tensor_blocks(name)
            except Unclear as reason:
                unexplained.append(name)
                self._notes.append(f"{name!r} gets no edges and is treated per coordinate: {reason}")
        self._add_residuals()
        for queries, keys, values in attentions:
            self._add_heads(queries, keys, values)
        tensors = [
            self._structure.tensor_axes(name, name in self._layout.names)
            for name, value in self._structure.named.items()
            if value.dims
        ]
        return NeuralGraph(
            axes=tuple(self._structure.axes),
            nodes=self._columns.groups(),
            blocks=tuple(self._blocks),
            tensors=tuple(tensors),
            unexplained=tuple(name for name in self._layout.names if name in unexplained),
            layout_digest=self._layout.digest,
            notes=tuple(self._notes),
        )

    # One parameter

    def _tensor_blocks(self, name: str) -> list[EdgeBlock]:
        value = self._structure.named[name]
        uses = self._wiring.uses.get(name, [])
        if not uses:
            raise Unclear("no operation that makes edges was seen to use it.")
        if 0 in value.shape:
            raise Unclear("it is empty.")
        roles = [self._roles(use) for use in uses]
        blocks: list[EdgeBlock] = []
        for pieces in product(*(self._pieces(dim) for dim in value.dims)):
            number = next((n for n, use in enumerate(uses) if _covers(use, roles[n], pieces)), None)
            if number is None:
                raise Unclear(
                    "a part of it was not seen in use, or in a way that is not understood."
                    if any(use.out for use in uses)
                    else "its numbers belong to several neurons each, as of a norm that all heads share."
                )
            blocks.append(self._block(name, uses[number], roles[number], pieces))
        return blocks

    def _pieces(self, dim: Dim) -> list[Piece]:
        refined = self._structure.refine(dim)
        prefix, segments = (refined[0][0], refined[1]) if len(refined) > 1 else ((), refined[0])
        pieces: list[Piece] = []
        begin = 0
        for position in product(*(range(leaf.size) for leaf in prefix)):
            for segment in segments:
                pieces.append(Piece(begin, begin + extent(segment), (*prefix, *segment), position))
                begin += extent(segment)
        return pieces

    def _roles(self, use: Use) -> dict[Factor, Role]:
        """For each leaf of a parameter, what it numbers there, and the leaf of the value that it meets."""
        roles: dict[Factor, Role] = {}
        for dims, role in ((use.out, "out"), (use.rows, "row")):
            for dim in dims:
                for segment in self._structure.alternatives(dim):
                    roles.update((leaf, (role, None)) for leaf in segment)
        for pairs, role in ((use.links, "in" if use.out else "target"), (use.diagonal, "both")):
            for mine, theirs in pairs:
                roles.update({leaf: (role, other) for leaf, other in self._paired(mine, theirs)})
        return roles

    def _paired(self, mine: Dim, theirs: Dim) -> list[tuple[Factor, Factor | None]]:
        first, second = self._structure.alternatives(mine), self._structure.alternatives(theirs)
        if extent(theirs) == 1:
            return [(leaf, None) for segment in first for leaf in segment]
        pairs: list[tuple[Factor, Factor | None]] = []
        for one, other in zip(first, second, strict=False):
            left, right = [leaf for leaf in one if leaf.size > 1], [leaf for leaf in other if leaf.size > 1]
            if [leaf.size for leaf in left] == [leaf.size for leaf in right]:
                pairs += zip(left, right, strict=True)
        return pairs if len(first) == len(second) else []

    def _block(self, name: str, use: Use, roles: Mapping[Factor, Role], pieces: Sequence[Piece]) -> EdgeBlock:
        found = [leaf for piece in pieces for leaf in piece.leaves]
        by_role: dict[str, list[Factor]] = {"out": [], "in": [], "both": [], "target": [], "row": [], "slot": []}
        for leaf in found:
            by_role[roles.get(leaf, ("slot", None))[0]].append(leaf)
        meets = {leaf: other for leaf in found if (other := roles.get(leaf, ("", None))[1]) is not None}
        slots, shared = by_role["slot"], by_role["both"]
        if use.kind != "conv" and any(leaf.size > 1 for leaf in slots):
            raise Unclear("a dimension of it is used in a way that is not understood.")
        stem = name.rpartition(".")[0] or name
        constant = not use.out and not by_role["row"]
        source: Side | None = None
        if by_role["row"]:
            kind = "vocabulary" if use.kind == "embedding" else "positions"
            rows = tuple(by_role["row"])
            source = Side(self._columns.lone(("rows", *map(id, rows)), name, kind, rows), rows)
        elif constant:
            source = Side(self._columns.lone(("constant", *map(id, found)), name, "constant", ()), ())
        else:
            reads = [leaf for leaf in found if leaf in meets and leaf not in by_role["out"]]
            neurons = [leaf for leaf in reads if self._columns.numbers_neurons(meets[leaf])]
            if neurons and not any(self._columns.repeats(meets[leaf]) for leaf in reads):
                slots = [*slots, *(leaf for leaf in reads if leaf not in neurons)]
                reads = neurons
            source = self._side(reads, meets, stem)
            self._link_repeats([meets[leaf] for leaf in neurons], source.group, stem)
        if use.out:
            out = [leaf for leaf in found if leaf in by_role["out"] or leaf in shared]
            target = self._side(out, {}, stem)
            kind_of_edges = self._kind(use.kind, out)
        else:
            self._require_whole([meets[leaf] for leaf in by_role["target"] if leaf in meets])
            target = self._side(by_role["target"], meets, stem)
            kind_of_edges = use.kind
        block = make_tile(name, kind_of_edges, pieces, source, target, shared, slots)
        return turned(block) if kind_of_edges == "key" else block

    def _require_whole(self, met: Sequence[Factor]) -> None:
        """A vector meets all leaves of a column: else each of its numbers belongs to several neurons."""
        if met and self._columns.is_part(met):
            raise Unclear("each of its numbers belongs to several neurons, as of a norm that all heads share.")

    def _side(self, own: Sequence[Factor], meets: Mapping[Factor, Factor], stem: str) -> Side:
        back = {meets.get(leaf, leaf): leaf for leaf in own}
        group, order = self._columns.column([*back], stem)
        return Side(group, tuple(back[leaf] for leaf in order))

    def _kind(self, kind: EdgeKind, out: Sequence[Factor]) -> EdgeKind:
        key = self._columns.key(out)
        if key is None or kind not in ("dense", "conv"):
            return kind
        return self._types.get(key, kind)

    def _link_repeats(self, neurons: Sequence[Factor], wide: int, stem: str) -> None:
        """Neurons that are read several times over: identity edges to each of their repeats."""
        if not neurons:
            return
        plain, order = self._columns.column(neurons, stem)
        size = math.prod(leaf.size for leaf in order)
        if plain == wide or any(block.source == plain and block.target == wide for block in self._blocks):
            return
        for offset in range(0, self._columns.size(wide), size):
            self._blocks.append(_identity(plain, wide, size, target_offset=offset))

    # What has no tensor

    def _add_residuals(self) -> None:
        seen: set[tuple[int, int]] = set()
        for first, second in self._wiring.residuals:
            pairs = zip(self._structure.alternatives(first), self._structure.alternatives(second), strict=False)
            for one, other in pairs:
                left, right = self._columns.known(one), self._columns.known(other)
                if left is None or right is None or left == right or (left, right) in seen:
                    continue
                seen.add((left, right))
                self._blocks.append(_identity(left, right, self._columns.size(left)))

    def _typed(self, attention: Attention) -> list[tuple[Key, Key, Key]]:
        """Say which columns are queries, keys and values, and unite those of queries and keys where they are alike."""
        sides = [self._neurons(value) for value in (attention.queries, attention.keys, attention.values)]
        if not len(sides[0]) == len(sides[1]) > 0 or not sides[2]:
            self._notes.append("Attention was seen whose queries, keys or values are not understood; it has no heads.")
            return []
        found: list[tuple[Key, Key, Key]] = []
        for number, queries in enumerate(sides[0]):
            columns = [
                self._columns.key(side) for side in (queries, sides[1][number], sides[2][number % len(sides[2])])
            ]
            if None in columns:
                self._notes.append("Attention was seen whose queries, keys or values are not neurons; it has no heads.")
                continue
            mine, theirs, values = [column for column in columns if column is not None]
            self._types.setdefault(mine, "query")
            self._types.setdefault(theirs, "key")
            self._types.setdefault(values, "value")
            one, other = self._columns.ordered(mine), self._columns.ordered(theirs)
            if alike(one, other):
                self._columns.unite(mine, theirs)
            else:
                ties = [leaf.tie for leaf in other]
                self._columns.arrange(mine, [n for n, leaf in enumerate(one) if leaf.tie not in ties])
            found.append((mine, theirs, values))
        return found

    def _neurons(self, value: Value) -> list[Leaves]:
        """The columns that a value's neurons lie in, each as its leaves."""
        found: dict[Leaves, None] = {}
        for segments in product(*(self._structure.alternatives(dim) for dim in value.dims)):
            leaves = tuple(leaf for segment in segments for leaf in segment if self._columns.numbers_neurons(leaf))
            if leaves:
                found[leaves] = None
        return [*found]

    def _add_heads(self, queries: Key, keys: Key, values: Key) -> None:
        """Head nodes with edges to the neurons of each head; identity edges from repeated queries to their keys."""
        columns = [self._columns.known(self._columns.ordered(key)) for key in (queries, keys, values)]
        if None in columns:
            return
        query, key, value = [column for column in columns if column is not None]
        if query != key:
            size = self._columns.size(key)
            for offset in range(0, self._columns.size(query), size):
                self._blocks.append(_identity(query, key, size, source_offset=offset))
        mine, theirs = self._columns.arranged(queries), self._columns.arranged(values)
        repeats = [
            leaf for leaf in mine if query != key and leaf.tie not in [k.tie for k in self._columns.ordered(keys)]
        ]
        ties = [leaf.tie for leaf in theirs]
        heads = [leaf for leaf in mine if leaf.tie is not None and leaf.tie in ties and leaf not in repeats]
        if [*mine[: len(repeats) + len(heads)]] != [*repeats, *heads] or ties[: len(heads)] != [h.tie for h in heads]:
            self._notes.append("The heads of an attention are not numbered first; it has no head nodes.")
            return
        count = math.prod(leaf.size for leaf in heads)
        total = count * math.prod(leaf.size for leaf in repeats)
        name = self._columns.groups()[query].name
        group = self._columns.lone(("heads", query, value), f"{name} heads", "heads", (*repeats, *heads))
        size = self._columns.size(query)
        self._blocks.append(EdgeBlock("head", group, query, None, (), (), (), total, size, groups=total))
        size = self._columns.size(value)
        for offset in range(0, total, count):
            block = EdgeBlock("head", group, value, None, (), (), (), count, size, groups=count, source_offset=offset)
            self._blocks.append(block)


def _identity(source: int, target: int, size: int, source_offset: int = 0, target_offset: int = 0) -> EdgeBlock:
    return EdgeBlock(
        "residual",
        source,
        target,
        None,
        (),
        (),
        (),
        size,
        size,
        groups=size,
        source_offset=source_offset,
        target_offset=target_offset,
    )


def _covers(use: Use, roles: Mapping[Factor, Role], pieces: Sequence[Piece]) -> bool:
    """Whether these pieces are part of what was used: all their leaves have a role, but for kernel positions."""
    leaves = [leaf for piece in pieces for leaf in piece.leaves]
    known = [leaf for leaf in leaves if leaf in roles]
    if use.kind == "conv":
        return any(roles[leaf][0] in ("out", "both") for leaf in known)
    return all(leaf in roles or leaf.size == 1 for leaf in leaves) and (bool(known) or not use.out)

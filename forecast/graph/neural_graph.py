"""A network as neurons and edges: every scalar of every trainable tensor is an edge between two neurons."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor

from ..errors import GraphError
from ..layout import Layout
from .parts import Axis, EdgeBlock, EdgeKind, NodeGroup, NodeKind, Segment, TensorAxes
from .plain_data import MAX_WHOLE, flag, maybe, text, whole, wholes

FORMAT = 1
MAX_IDLE_NODES = 2**20  # nodes beyond one a scalar; a file that claims more is damaged or hostile
MAX_ITEMS = 2**20  # axes, groups, blocks or tensors; a graph that claims more is damaged or hostile, never real


@dataclass(frozen=True)
class NeuralGraph:
    """The neural graph of a network.

    Every scalar of every trainable tensor occurs in exactly one block, or its tensor is named in `unexplained`. A tied
    tensor occurs once. `check_graph` proves that permuting the axes leaves the network's function unchanged.

    Attributes:
        axes: what may be permuted.
        nodes: groups of nodes in computing order.
        blocks: tiles of edges.
        tensors: what each dimension of each tensor runs over; tensors that no permutation moves may be missing.
        unexplained: trainable tensors without edges, to be treated per coordinate; `notes` say why.
        layout_digest: digest of the layout that the parameter names belong to.
        notes: what was not understood or was assumed, for people.

    Raises:
        GraphError: if an index, a size or a kind is impossible.
    """

    axes: tuple[Axis, ...]
    nodes: tuple[NodeGroup, ...]
    blocks: tuple[EdgeBlock, ...]
    tensors: tuple[TensorAxes, ...]
    unexplained: tuple[str, ...]
    layout_digest: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what in (self.axes, self.nodes, self.blocks, self.tensors, self.unexplained, self.notes):
            if len(what) > MAX_ITEMS:
                raise GraphError(f"A graph holds at most {MAX_ITEMS} items of a kind, got {len(what)}.")
        for number, axis in enumerate(self.axes):
            if not 1 <= axis.size <= MAX_WHOLE:
                raise GraphError(f"The size of axis {axis.name!r} must be within 1 and {MAX_WHOLE}, got {axis.size}.")
            if axis.within is not None and (axis.within == number or not 0 <= axis.within < len(self.axes)):
                raise GraphError(f"Axis {axis.name!r} lies within axis {axis.within}, of {len(self.axes)}.")
        for group in self.nodes:
            if group.kind not in get_args(NodeKind):
                raise GraphError(f"A node group's kind must be one of {get_args(NodeKind)}, got {group.kind!r}.")
            self._require_product(group.size, group.axes, f"Node group {group.name!r}")
        for tensor in self.tensors:
            for dim in tensor.dims:
                for segment in dim:
                    self._require_product(segment.size, segment.axes, f"Tensor {tensor.name!r}")
        for block in self.blocks:
            self._require_block(block)

    def _require_product(self, size: int, axes: tuple[int, ...], what: str) -> None:
        if any(not 0 <= axis < len(self.axes) for axis in axes):
            raise GraphError(f"{what} names axes {axes}, but there are {len(self.axes)}.")
        product = math.prod(self.axes[axis].size for axis in axes)
        if size != product:
            raise GraphError(f"{what} has size {size}, but its axes multiply to {product}.")

    def _require_block(self, block: EdgeBlock) -> None:
        what = f"The {block.kind!r} block of {block.parameter!r}"
        if block.kind not in get_args(EdgeKind):
            raise GraphError(f"A block's kind must be one of {get_args(EdgeKind)}, got {block.kind!r}.")
        for end, offset, count in (
            (block.source, block.source_offset, block.num_sources),
            (block.target, block.target_offset, block.num_targets),
        ):
            if not 0 <= end < len(self.nodes):
                raise GraphError(f"{what} names node group {end}, but there are {len(self.nodes)}.")
            if offset < 0 or count < 1 or offset + count > self.nodes[end].size:
                raise GraphError(f"{what} spans nodes {offset} to {offset + count} of {self.nodes[end].size}.")
        if block.groups < 1 or block.num_sources % block.groups or block.num_targets % block.groups or block.slots < 1:
            raise GraphError(
                f"{what} cannot have {block.groups} groups and {block.slots} slots between "
                f"{block.num_sources} and {block.num_targets} nodes."
            )
        if block.parameter is None:
            if block.span or block.shape or block.order or block.slots != 1:
                raise GraphError(f"{what} is auxiliary and must have no span, shape or order.")
            return
        if any(not 0 <= begin < end for begin, end in block.span) or any(extent < 1 for extent in block.shape):
            raise GraphError(f"{what} has an impossible span {block.span} or shape {block.shape}.")
        if not math.prod(block.narrowed) == math.prod(block.shape) == math.prod(block.tile_shape):
            raise GraphError(f"{what} has span {block.span}, shape {block.shape} and tile {block.tile_shape}.")
        if sorted(block.order) != list(range(len(block.shape))):
            raise GraphError(f"{what} must permute {len(block.shape)} dimensions, got {block.order}.")

    @property
    def num_nodes(self) -> int:
        """How many nodes, over all groups."""
        return sum(group.size for group in self.nodes)

    @property
    def num_edges(self) -> int:
        """How many edges, auxiliary ones included, self-loops not."""
        return sum(block.num_edges for block in self.blocks)

    @cached_property
    def node_offsets(self) -> tuple[int, ...]:
        """The number of each group's first node, when nodes are counted through all groups."""
        offsets = [0]
        for group in self.nodes:
            offsets.append(offsets[-1] + group.size)
        return tuple(offsets[:-1])

    def tile(self, block: EdgeBlock, tensor: Tensor | None = None) -> Tensor:
        """The values of a block's edges, as a view of the tensor where its strides allow.

        Args:
            block: one of `blocks`.
            tensor: values of its tensor, `[..., *shape]` with any leading dimensions; None for auxiliary edges.

        Returns:
            `[..., groups, target, source, slots]`; ones for auxiliary edges.

        Raises:
            GraphError: if the tensor is missing or too small.
        """
        if block.parameter is None:
            return torch.ones(block.tile_shape)
        if tensor is None:
            raise GraphError(f"`tensor` must hold the values of {block.parameter!r}, got None.")
        part, lead = _narrow(block, tensor)
        leading = part.shape[:lead]
        order = (*range(lead), *(lead + dim for dim in block.order))
        return part.reshape(*leading, *block.shape).permute(order).reshape(*leading, *block.tile_shape)

    def untile(self, block: EdgeBlock, tile: Tensor, out: Tensor) -> None:
        """Write a tile back to where it came from; the way back of `tile`.

        Args:
            block: one of `blocks` that has a tensor.
            tile: `[..., groups, target, source, slots]`.
            out: the whole tensor, `[..., *shape]`, written in place where the block lies.

        Raises:
            GraphError: if the block is auxiliary, or a shape does not fit.
        """
        if block.parameter is None:
            raise GraphError(f"A {block.kind!r} block is auxiliary and has no tensor to write to.")
        part, lead = _narrow(block, out)
        leading = part.shape[:lead]
        if tuple(tile.shape) != (*leading, *block.tile_shape):
            raise GraphError(f"`tile` must have shape {(*leading, *block.tile_shape)}, got {tuple(tile.shape)}.")
        permuted = (*leading, *(block.shape[dim] for dim in block.order))
        back = sorted(range(len(block.order)), key=block.order.__getitem__)
        order = (*range(lead), *(lead + dim for dim in back))
        part.copy_(tile.reshape(permuted).permute(order).reshape(part.shape))

    def require_fits(self, layout: Layout) -> None:
        """Check that this is a graph of the network that `layout` describes, and that it explains all of it once.

        The scalars are counted once only: no other layout has the same digest.

        Raises:
            GraphError: if the digests differ, a scalar lies in no block or in two, or a name is not the layout's.
        """
        if layout.digest != self.layout_digest:
            raise GraphError("The graph belongs to another layout. Trace the network that the layout was made of.")
        if layout.digest in self._proved:
            return
        if self.num_nodes > layout.size + MAX_IDLE_NODES:
            raise GraphError(f"The graph has {self.num_nodes} nodes, too many for {layout.size} scalars.")
        shapes = {spec.name: spec.shape for spec in layout}
        if len(set(self.unexplained)) < len(self.unexplained) or not shapes.keys() >= set(self.unexplained):
            raise GraphError(f"`unexplained` must name tensors of the layout, each once, got {self.unexplained}.")
        counts = {spec.name: torch.zeros(spec.shape, dtype=torch.int32) for spec in layout}
        for block in self.blocks:
            if block.parameter is None:
                continue
            if block.parameter not in counts:
                raise GraphError(f"The graph has edges for {block.parameter!r}, which the layout lacks.")
            if len(block.span) != len(shapes[block.parameter]):
                raise GraphError(f"The span {block.span} does not fit {block.parameter!r}, {shapes[block.parameter]}.")
            _narrow(block, counts[block.parameter])[0].add_(1)
        for name, count in counts.items():
            wanted = 0 if name in self.unexplained else 1
            if not bool((count == wanted).all()):
                raise GraphError(f"Every scalar of {name!r} must occur {wanted} times in blocks, but some do not.")
        self._proved.add(layout.digest)

    @cached_property
    def _proved(self) -> set[str]:
        return set()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the way back."""
        return {"digest": self.digest, **self._plain()}

    def _plain(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "layout": self.layout_digest,
            "axes": [[axis.name, axis.size, axis.pinned, axis.within] for axis in self.axes],
            "nodes": [[group.name, group.size, group.kind, list(group.axes)] for group in self.nodes],
            "blocks": [
                {
                    "kind": block.kind,
                    "ends": [block.source, block.target],
                    "parameter": block.parameter,
                    "span": [list(ends) for ends in block.span],
                    "shape": list(block.shape),
                    "order": list(block.order),
                    "count": [block.num_sources, block.num_targets],
                    "groups": block.groups,
                    "slots": block.slots,
                    "offset": [block.source_offset, block.target_offset],
                }
                for block in self.blocks
            ],
            "tensors": [
                [tensor.name, tensor.trainable, [[[s.size, list(s.axes)] for s in dim] for dim in tensor.dims]]
                for tensor in self.tensors
            ],
            "unexplained": list(self.unexplained),
            "notes": list(self.notes),
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of everything but the notes."""
        plain = {key: value for key, value in self._plain().items() if key != "notes"}
        return hashlib.sha256(json.dumps(plain, separators=(",", ":"), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "NeuralGraph":
        """Rebuild a graph from `to_dict`'s result, treating it as untrusted.

        Raises:
            GraphError: if it is not such a result or its digest does not fit.
        """
        try:
            if data["format"] != FORMAT:
                raise GraphError(f"The stored graph has format {data['format']!r}, this version reads {FORMAT}.")
            graph = cls(
                axes=tuple(Axis(text(n), whole(s), flag(p), maybe(w)) for n, s, p, w in data["axes"]),
                nodes=tuple(NodeGroup(text(n), whole(s), k, wholes(a)) for n, s, k, a in data["nodes"]),
                blocks=tuple(_block(entry) for entry in data["blocks"]),
                tensors=tuple(
                    TensorAxes(
                        text(name),
                        flag(trainable),
                        tuple(tuple(Segment(whole(size), wholes(axes)) for size, axes in dim) for dim in dims),
                    )
                    for name, trainable, dims in data["tensors"]
                ),
                unexplained=tuple(text(name) for name in data["unexplained"]),
                layout_digest=text(data["layout"]),
                notes=tuple(text(note) for note in data["notes"]),
            )
            digest = data["digest"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, GraphError):
                raise
            raise GraphError(f"Not a stored neural graph: {error}.") from error
        if graph.digest != digest:
            raise GraphError(f"The stored graph is damaged: its digest is {graph.digest}, it says {digest}.")
        return graph


def _narrow(block: EdgeBlock, tensor: Tensor) -> tuple[Tensor, int]:
    """The part of a tensor that belongs to a block, a view, and how many leading dimensions there are."""
    lead = tensor.dim() - len(block.span)
    if lead < 0 or any(end > extent for (_, end), extent in zip(block.span, tensor.shape[lead:], strict=True)):
        raise GraphError(f"{block.parameter!r} of shape {tuple(tensor.shape)} does not hold span {block.span}.")
    for dim, (begin, end) in enumerate(block.span):
        tensor = tensor.narrow(lead + dim, begin, end - begin)
    return tensor, lead


def _block(entry: Mapping[str, Any]) -> EdgeBlock:
    source, target = wholes(entry["ends"])
    num_sources, num_targets = wholes(entry["count"])
    source_offset, target_offset = wholes(entry["offset"])
    parameter = entry["parameter"]
    return EdgeBlock(
        kind=entry["kind"],
        source=source,
        target=target,
        parameter=None if parameter is None else text(parameter),
        span=tuple((whole(begin), whole(end)) for begin, end in entry["span"]),
        shape=wholes(entry["shape"]),
        order=wholes(entry["order"]),
        num_sources=num_sources,
        num_targets=num_targets,
        groups=whole(entry["groups"]),
        slots=whole(entry["slots"]),
        source_offset=source_offset,
        target_offset=target_offset,
    )

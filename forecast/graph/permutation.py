"""Permuting a network's neurons as its graph allows."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import GraphError
from ..layout import Layout
from ..packing import require_vector
from .neural_graph import NeuralGraph, NodeGroup, TensorAxes

Permutations = Mapping[int, Tensor]


def random_permutations(graph: NeuralGraph, generator: torch.Generator) -> dict[int, Tensor]:
    """A random permutation of every axis that may be permuted.

    Args:
        graph: the graph.
        generator: where randomness comes from.

    Returns:
        For the number of each free axis of more than one index, which old index comes to each place: `[size]`, or
        `[outer, size]` for an axis that lies within another one; rows are counted as before that one is permuted.
    """
    made: dict[int, Tensor] = {}
    for number, axis in enumerate(graph.axes):
        if axis.pinned or axis.size == 1:
            continue
        count = 1 if axis.within is None else graph.axes[axis.within].size
        rows = torch.stack([torch.randperm(axis.size, generator=generator) for _ in range(count)])
        made[number] = rows[0] if axis.within is None else rows
    return made


def inverse(permutations: Permutations, graph: NeuralGraph) -> dict[int, Tensor]:
    """The permutations that undo others."""
    undone: dict[int, Tensor] = {}
    for number, order in permutations.items():
        outer = graph.axes[number].within
        back = order.argsort(-1)
        undone[number] = back if outer is None or outer not in permutations else back[permutations[outer]]
    return undone


def permute_named(graph: NeuralGraph, tensors: Mapping[str, Tensor], permutations: Permutations) -> dict[str, Tensor]:
    """Permute named tensors.

    Args:
        graph: the graph they belong to.
        tensors: by name; those that the graph does not know are returned as they are.
        permutations: as of `random_permutations`; axes that are missing stay.

    Returns:
        New tensors; the given ones are not changed.

    Raises:
        GraphError: if a pinned axis is to be permuted, or a shape does not fit.
    """
    _require_allowed(graph, permutations)
    known = {tensor.name: tensor for tensor in graph.tensors}
    return {
        name: _permuted(graph, known[name], tensor, permutations) if name in known else tensor.clone()
        for name, tensor in tensors.items()
    }


def permute(graph: NeuralGraph, vector: Tensor, layout: Layout, permutations: Permutations) -> Tensor:
    """Permute a flat parameter vector.

    A module's frozen parameters and buffers, such as a batch norm's statistics, have to be permuted alike for the
    function to stay the same: see `permute_named`.

    Args:
        graph: the graph of the network.
        vector: `[param]`.
        layout: what its numbers mean.
        permutations: as of `random_permutations`.

    Returns:
        A new vector, `[param]`.

    Raises:
        GraphError: if the graph belongs to another layout or a pinned axis is to be permuted.
        LayoutError: if the vector does not fit the layout.
    """
    if layout.digest != graph.layout_digest:
        raise GraphError("The graph belongs to another layout. Trace the network that the layout was made of.")
    require_vector(vector, layout)
    result = vector.clone()
    pieces = {spec.name: vector[spec.span].reshape(spec.shape) for spec in layout}
    for name, tensor in permute_named(graph, pieces, permutations).items():
        result[layout[name].span] = tensor.reshape(-1)
    return result


def permuted_nodes(graph: NeuralGraph, group: NodeGroup, permutations: Permutations) -> Tensor:
    """Which old node of a group comes to each place, `[node]`."""
    numbers = torch.arange(group.size).reshape([graph.axes[axis].size for axis in group.axes])
    return _permute_product(graph, numbers, [*group.axes], [0] * len(group.axes), permutations).reshape(-1)


def _require_allowed(graph: NeuralGraph, permutations: Permutations) -> None:
    for number, order in permutations.items():
        if not 0 <= number < len(graph.axes):
            raise GraphError(f"There is no axis {number}; there are {len(graph.axes)}.")
        axis = graph.axes[number]
        if axis.pinned:
            raise GraphError(f"Axis {axis.name!r} is pinned and cannot be permuted.")
        wanted = (axis.size,) if axis.within is None else (graph.axes[axis.within].size, axis.size)
        if tuple(order.shape) != wanted or not bool((order.sort(-1).values == torch.arange(axis.size)).all()):
            raise GraphError(f"Axis {axis.name!r} needs permutations of shape {wanted}, got {tuple(order.shape)}.")


def _permuted(graph: NeuralGraph, axes: TensorAxes, tensor: Tensor, permutations: Permutations) -> Tensor:
    extents = [sum(segment.size for segment in dim) for dim in axes.dims]
    if tensor.numel() != torch.Size(extents).numel():
        raise GraphError(f"{axes.name!r} has shape {tuple(tensor.shape)}, but the graph knows extents {extents}.")
    result = tensor.detach().reshape(extents).clone()
    _permute_parts(graph, axes, result, permutations, 0, [])
    return result.reshape(tensor.shape)


def _permute_parts(
    graph: NeuralGraph,
    axes: TensorAxes,
    part: Tensor,
    permutations: Permutations,
    dim: int,
    chosen: list[tuple[int, ...]],
) -> None:
    """Permute in place every combination of segments."""
    if dim == len(axes.dims):
        flat = [axis for axes_of_dim in chosen for axis in axes_of_dim]
        owners = [number for number, axes_of_dim in enumerate(chosen) for _ in axes_of_dim]
        view = part.reshape([graph.axes[axis].size for axis in flat])
        part.copy_(_permute_product(graph, view, flat, owners, permutations).reshape(part.shape))
        return
    begin = 0
    for segment in axes.dims[dim]:
        narrowed = part.narrow(dim, begin, segment.size)
        _permute_parts(graph, axes, narrowed, permutations, dim + 1, [*chosen, segment.axes])
        begin += segment.size


def _permute_product(
    graph: NeuralGraph, view: Tensor, flat: list[int], owners: list[int], permutations: Permutations
) -> Tensor:
    """Permute a tensor with one dimension for each axis; an axis goes before the one that it lies within."""
    depths = {place: _depth(graph, axis) for place, axis in enumerate(flat)}
    for place in sorted(depths, key=lambda place: -depths[place]):
        axis = flat[place]
        if axis not in permutations:
            continue
        outer = graph.axes[axis].within
        if outer is None:
            view = view.index_select(place, permutations[axis].to(view.device))
            continue
        at = _outer_place(flat, owners, place, outer)
        if at is None:
            raise GraphError(f"Axis {graph.axes[axis].name!r} occurs without the one that it lies within.")
        order = permutations[axis].to(view.device)
        shape = [1] * view.dim()
        shape[at], shape[place] = order.shape
        order = (order if at < place else order.T).reshape(shape)
        view = view.gather(place, order.expand(view.shape))
    return view


def _depth(graph: NeuralGraph, axis: int) -> int:
    depth = 0
    outer = graph.axes[axis].within
    while outer is not None and depth <= len(graph.axes):
        depth += 1
        outer = graph.axes[outer].within
    return depth


def _outer_place(flat: list[int], owners: list[int], place: int, outer: int) -> int | None:
    """Where the axis lies that another one lies within: in the same dimension if it is there, else the nearest."""
    places = [number for number, axis in enumerate(flat) if axis == outer]
    return min(places, key=lambda number: (owners[number] != owners[place], abs(number - place)), default=None)

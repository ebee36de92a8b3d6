"""What is known about a tensor while a network is traced."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.utils._pytree import tree_leaves

from .axes import Dim, extent, new_dim, new_leaf


@dataclass(eq=False)
class Value:
    """One tensor of a traced network.

    Attributes:
        dims: what each dimension runs over.
        tensor: name of the parameter or buffer that this is, or is a view or a multiple of.
        given: whether it depends on the inputs.
        uniform: whether all its elements are equal, so that no permutation can show.
        base: the value that this is a view of.
        scores: queries and keys whose products these are.
        weighs: whether these are attention weights: scores after a softmax.
    """

    dims: list[Dim]
    tensor: str | None = None
    given: bool = False
    uniform: bool = False
    base: "Value | None" = None
    scores: "tuple[Value, Value] | None" = None
    weighs: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the dimensions."""
        return tuple(extent(dim) for dim in self.dims)


def input_value(tensor: Tensor) -> Value:
    """What a network is given: every index is a position of data."""
    return Value([new_dim(size, pinned=True, data=True) for size in tensor.shape], given=True)


def named_value(name: str, tensor: Tensor) -> Value:
    """A parameter or buffer; every dimension is free until it is used."""
    return Value([(new_leaf(size),) for size in tensor.shape], tensor=name)


def constant_value(tensor: Tensor) -> Value:
    """A tensor made on the way: free along dimensions in which all its slices are equal, else pinned."""
    dims: list[Dim] = []
    for dim, size in enumerate(tensor.shape):
        same = size > 0 and bool((tensor == tensor.narrow(dim, 0, 1)).all())
        dims.append(new_dim(size, pinned=not same, data=not same))
    uniform = tensor.numel() > 0 and bool((tensor == tensor.reshape(-1)[0]).all())
    return Value(dims, uniform=uniform)


def opaque_dims(shape: Iterable[int]) -> list[Dim]:
    """Dimensions of which nothing is known: pinned."""
    return [new_dim(size, pinned=True, data=True) for size in shape]


def tensors_in(tree: object) -> list[Tensor]:
    """Every tensor of nested tuples, lists and dictionaries, in order."""
    leaves: list[object] = tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

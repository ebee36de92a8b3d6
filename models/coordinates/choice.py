"""Which tensors of a network are expressed in coordinates."""

from collections.abc import Sequence

from torch import nn

from ...forecast.errors import LayoutError
from ...forecast.layout import Layout, TensorSpec
from ...forecast.packing import layout_of
from ...forecast.selection import Selection


def choose_layout(module: nn.Module, patterns: Sequence[str] = ("*",), num_axes: int = 0) -> Layout:
    """The layout of some of a module's trainable tensors, whole.

    Args:
        module: any module.
        patterns: a tensor is chosen if its name matches one of them, as file names do.
        num_axes: and if it has so many axes or more: 2 leaves biases and norms out.

    Raises:
        LayoutError: if nothing is left.

    Examples:
        >>> choose_layout(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), num_axes=2).names
        ('0.weight', '2.weight')
    """
    specs: list[TensorSpec] = []
    offset = 0
    for spec in Selection.choose(layout_of(module), patterns).layout:
        if len(spec.shape) >= num_axes:
            specs.append(TensorSpec(spec.name, spec.shape, spec.dtype, offset, spec.kind))
            offset += spec.numel
    if not specs:
        raise LayoutError(f"No tensor that matches {list(patterns)} has {num_axes} axes or more.")
    return Layout(tuple(specs))

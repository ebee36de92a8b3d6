"""Between a module's parameters and one flat vector."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import LayoutError
from .layout import DTYPES, Kind, Layout, TensorSpec

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


def _kind(owner: nn.Module, leaf: str) -> Kind:
    """What a parameter is for, told from the class of the module that owns it."""
    if isinstance(owner, _NORMS):
        return "norm"
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return "embedding"
    if leaf.startswith("bias"):
        return "bias"
    if isinstance(owner, nn.modules.conv._ConvNd):
        return "convolution"
    if leaf.endswith("weight") or leaf.startswith("weight"):
        return "weight"
    return "other"


def plain_name(name: str) -> str:
    """A parameter's name without the prefix that `torch.compile(submodule)` adds."""
    return name.replace("_orig_mod.", "")


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require a gradient, by plain name, in `named_parameters()` order, tied ones once."""
    return {plain_name(name): value for name, value in module.named_parameters() if value.requires_grad}


def layout_of(module: nn.Module) -> Layout:
    """The layout of a module's trainable parameters.

    Raises:
        LayoutError: if there is none, or one of them is complex or of an integer type.
    """
    specs: list[TensorSpec] = []
    offset = 0
    for name, value in trainable_parameters(module).items():
        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise LayoutError(f"Parameters must be of type {', '.join(DTYPES)}, got {dtype} for {name!r}.")
        owner_name, _, leaf = name.rpartition(".")
        owner = module.get_submodule(owner_name) if owner_name else module
        specs.append(TensorSpec(name, tuple(value.shape), dtype, offset, _kind(owner, leaf)))
        offset += value.numel()
    if not specs:
        raise LayoutError("The module has no trainable parameter. Check `requires_grad`.")
    return Layout(tuple(specs))


def vector_dtype(layout: Layout) -> torch.dtype:
    """The type of a layout's flat vector: float32, or float64 as soon as one tensor is float64."""
    return torch.float64 if any(spec.dtype == "float64" for spec in layout) else torch.float32


def flatten(tensors: Mapping[str, Tensor | None], layout: Layout, out: Tensor | None = None) -> Tensor:
    """Lay named tensors end to end in layout order; a missing gradient (`None`) counts as zeros.

    Args:
        tensors: one entry for each tensor of the layout, of its shape.
        layout: the order.
        out: where to write, `[param]`; made anew when not given.

    Returns:
        The flat vector, `[param]`, detached.

    Raises:
        LayoutError: if a tensor is missing or of another shape.
    """
    vector = torch.empty(layout.size, dtype=vector_dtype(layout), device=_device(tensors)) if out is None else out
    for spec in layout:
        if spec.name not in tensors:
            raise LayoutError(f"Tensor {spec.name!r} is missing.")
        value = tensors[spec.name]
        if value is None:
            vector[spec.span] = 0
            continue
        if tuple(value.shape) != spec.shape:
            raise LayoutError(f"Tensor {spec.name!r} must have shape {spec.shape}, got {tuple(value.shape)}.")
        vector[spec.span] = value.detach().reshape(-1)
    return vector


def _device(tensors: Mapping[str, Tensor | None]) -> torch.device:
    devices = {value.device for value in tensors.values() if value is not None}
    if len(devices) > 1:
        raise LayoutError(f"Tensors must lie on one device, got {sorted(map(str, devices))}.")
    return devices.pop() if devices else torch.device("cpu")


def pack(module: nn.Module) -> tuple[Tensor, Layout]:
    """A module's trainable parameters as one flat vector, and what its numbers mean.

    Args:
        module: any module; frozen parameters and buffers are left out, tied parameters come once.

    Returns:
        `vector`, `[param]`, detached, float32 (float64 if a parameter is), and its `Layout`. `unpack` is the way back.

    Raises:
        LayoutError: if there is nothing to train, or a parameter is complex or integer.

    Examples:
        >>> vector, layout = pack(nn.Linear(3, 2))
        >>> vector.shape, layout.names
        (torch.Size([8]), ('weight', 'bias'))
    """
    layout = layout_of(module)
    return flatten(trainable_parameters(module), layout), layout


def unpack(vector: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The named tensors of a flat vector, in their own shapes and types; views where the type allows.

    Args:
        vector: `[param]`.
        layout: what its numbers mean.

    Raises:
        LayoutError: if the vector's shape does not fit.
    """
    require_vector(vector, layout)
    return {spec.name: vector[spec.span].reshape(spec.shape).to(getattr(torch, spec.dtype)) for spec in layout}


@torch.no_grad()
def load_vector(module: nn.Module, vector: Tensor, layout: Layout) -> None:
    """Copy a flat vector into a module's parameters, in place, so that views and optimiser references stay valid.

    Raises:
        LayoutError: if the module has another layout or the vector another size. Nothing is written then.
    """
    layout.require_same(layout_of(module), "the module")
    require_vector(vector, layout)
    parameters = trainable_parameters(module)
    for spec in layout:
        parameters[spec.name].copy_(vector[spec.span].reshape(spec.shape))


def require_vector(vector: Tensor, layout: Layout) -> None:
    """Check that a vector has a layout's shape.

    Raises:
        LayoutError: if it has not.
    """
    if tuple(vector.shape) != (layout.size,):
        raise LayoutError(f"The vector must have shape ({layout.size},) to fit the layout, got {tuple(vector.shape)}.")

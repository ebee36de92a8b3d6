"""A module whose parameters are made from coordinates."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from ...forecast.packing import flatten, unpack
from ..errors import ModelError
from .contract import SeededCoordinates
from .placement import find_places, placed, places_in_copy, vacate

DIGEST_LENGTH = 12  # hexadecimal digits of the coordinates' digest in the names of their parameters


class ReducedModule(nn.Module):
    """Wraps any module: what it trains are coordinates, and its parameters are made from them at each call.

    The expressed parameters are gone from the wrapped module (None between calls). Trainable are the parts of the
    coordinates and those parameters that the layout leaves out; buffers stay. So what works on a module's trainable
    parameters works in these coordinates as it is: optimisers, `TrajectoryRecorder`, forecasters, `SkipAhead`,
    `GradientCompression`, checkpoints, `DistributedDataParallel`, `torch.compile`.

    Each part is a parameter `<part>_<first 12 digits of the coordinates' digest>`. Coordinates mean nothing without
    their map: with the digest in the name, a layout's digest tells maps apart, and a trajectory, packet or checkpoint
    of other coordinates is refused. `DistributedDataParallel` compares no names; but it broadcasts buffers from rank 0,
    so the digest is a buffer too, not saved, and a process whose map is another one refuses to work.

    `torch.compile` compiles the wrapped module; it leaves the map alone, which is a graph break, since fused operations
    would round otherwise. So `fullgraph=True` is refused by the compiler, which says why.

    Why not `torch.nn.utils.parametrize`: it makes one tensor at a time, at each access, and keeps the tensor that it
    replaces. Here all tensors come from one map of one vector, once a call, and nothing else is kept.

    Args:
        module: it is changed: give a copy to keep it. May be any class that reads its parameters by attribute.
        coordinates: whose layout names trainable tensors of the module, as `choose_layout` gives.
        initial: coordinates to begin with, `[size]`; `coordinates.initial()` when not given.

    Raises:
        LayoutError: if the module has no such tensor, or of another shape.
        ModelError: if a tensor belongs to a recurrent layer, which keeps its weights a second time, or `initial` has
            another shape.
    """

    def __init__(self, module: nn.Module, coordinates: SeededCoordinates, initial: Tensor | None = None) -> None:
        super().__init__()
        start = coordinates.initial() if initial is None else initial.detach()
        if tuple(start.shape) != (coordinates.size,):
            raise ModelError(f"`initial` must have shape ({coordinates.size},), got {tuple(start.shape)}.")
        self.coordinates = coordinates
        self._places = find_places(module, coordinates.layout)
        device = next(module.parameters()).device
        vacate(self._places)
        self.module = module
        # Bytes as floats: casts to half precision and weight averages, which truncate integers, leave them as they are.
        told = torch.tensor(list(bytes.fromhex(coordinates.digest)), dtype=torch.float32, device=device)
        self.register_buffer("map_digest", told, persistent=False)
        self.map_digest: Tensor
        for part, values in zip(coordinates.parts, coordinates.split(start), strict=True):
            self.register_parameter(self.part_name(part.name), nn.Parameter(values.float().clone().to(device)))

    def part_name(self, part: str) -> str:
        """The name of the parameter that holds a part."""
        return f"{part}_{self.coordinates.digest[:DIGEST_LENGTH]}"

    @property
    def vector(self) -> Tensor:
        """The present coordinates, `[size]`; differentiable."""
        return torch.cat([self.get_parameter(self.part_name(part.name)).reshape(-1) for part in self.coordinates.parts])

    @torch.no_grad()
    def set_vector(self, coordinates: Tensor) -> None:
        """Copy coordinates, `[size]`, into the parameters.

        Raises:
            ModelError: if the shape differs.
        """
        if tuple(coordinates.shape) != (self.coordinates.size,):
            raise ModelError(f"Coordinates must have shape ({self.coordinates.size},), got {tuple(coordinates.shape)}.")
        for part, values in zip(self.coordinates.parts, self.coordinates.split(coordinates), strict=True):
            self.get_parameter(self.part_name(part.name)).copy_(values)

    @torch.compiler.disable(reason="parameters are made from whole numbers, the same to the last bit everywhere")
    def tensors(self) -> dict[str, Tensor]:
        """The expressed tensors by name, made from the present coordinates; differentiable.

        Raises:
            ModelError: if `DistributedDataParallel` brought the digest of another map from rank 0.
        """
        told = "".join(f"{int(value):02x}" for value in self.map_digest.tolist())
        if told != self.coordinates.digest:
            raise ModelError(
                f"This process makes parameters by the map {self.coordinates.digest[:DIGEST_LENGTH]}, rank 0 by "
                f"{told[:DIGEST_LENGTH]}. Give all processes coordinates of the same kind, options, layout and start; "
                "a `GivenStart` must have the same numbers everywhere before DistributedDataParallel is made."
            )
        return unpack(self.coordinates.to_parameters(self.vector), self.coordinates.layout)

    @contextmanager
    def placed(self, tensors: Mapping[str, Tensor] | None = None) -> Iterator[nn.Module]:
        """The wrapped module with its parameters in place, for as long as the context lasts.

        Args:
            tensors: what to place; `tensors()` when not given.
        """
        found = self.tensors() if tensors is None else tensors
        with placed(self._places, found):
            yield self.module

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        made = self.tensors()  # outside of the context, where a graph break does not keep the module from compilation
        with placed(self._places, made):
            return self.module(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReducedModule":
        twin = ReducedModule.__new__(ReducedModule)
        memo[id(self)] = twin
        nn.Module.__init__(twin)
        twin.coordinates = self.coordinates
        twin.module = copy.deepcopy(self.module, memo)
        twin._places = places_in_copy(self._places, self.module, twin.module)
        for name, value in self._parameters.items():
            twin.register_parameter(name, copy.deepcopy(value, memo))
        twin.register_buffer("map_digest", self.map_digest.clone(), persistent=False)
        twin.training = self.training
        return twin

    @torch.no_grad()
    def plain_module(self) -> nn.Module:
        """A copy of the wrapped module with ordinary parameters, as the present coordinates make them."""
        twin = copy.deepcopy(self)
        made: dict[str, nn.Parameter] = {}
        for name, value in twin.tensors().items():
            made[name] = nn.Parameter(value.detach().clone())
        for place in twin._places:
            place.owner._parameters[place.leaf] = made[place.name]
        return twin.module


def load_parameters(reduced: ReducedModule, module: nn.Module) -> float:
    """Set the coordinates so that the expressed tensors come near those of a plain module.

    Args:
        reduced: whose coordinates are set.
        module: with the same tensors by name.

    Returns:
        ||theta - made||^2 / ||theta||^2, what the coordinates cannot express.

    Raises:
        LayoutError: if a tensor is missing or of another shape.
    """
    layout = reduced.coordinates.layout
    theta = flatten(dict(module.named_parameters()), layout).float()
    reduced.set_vector(reduced.coordinates.from_parameters(theta))
    made = reduced.coordinates.to_parameters(reduced.vector.detach())
    return float((theta - made).square().sum() / theta.square().sum())

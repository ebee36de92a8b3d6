"""The contract of coordinates for the tensors of a layout, with a seed and a start."""

import abc
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from ...forecast.coordinates import Coordinates
from ...forecast.layout import Layout
from ..errors import ModelError
from .start import Start, parameter_scales


@dataclass(frozen=True)
class Part:
    """Some of the coordinates that belong together, a parameter of their own in a `ReducedModule`.

    Attributes:
        name: what they are called.
        shape: their shape there; in the vector of coordinates they lie end to end, in the order of the parts.
    """

    name: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """How many coordinates."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class SeededCoordinates(Coordinates):
    """Parameters theta = theta_0 + s * delta(z): a start, the natural size of each parameter, and a map of few numbers.

    theta_0 is `start`, s the `tensor_scale` of each tensor, z the coordinates; delta is what the subclass is about. It
    is made of whole numbers and single, correctly rounded operations, so theta is the same to the last bit in every
    process and on every machine. `to_parameters` gives float64 for coordinates of float64 and float32 for all others.
    Coordinates that are not finite, or too large for exact sums, give parameters that are all NaN.

    Args:
        layout: names and shapes of the tensors that are expressed.
        start: where they begin.
    """

    layout: Layout
    start: Start
    kind: ClassVar[str]

    @property
    @abc.abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """The coordinates by what they are, in order."""

    @property
    @abc.abstractmethod
    def options(self) -> dict[str, int | str | float]:
        """The constructor's arguments but layout and start, as plain values for JSON."""

    @abc.abstractmethod
    def initial(self, seed: int = 0) -> Tensor:
        """Coordinates `[size]`, float32, to begin training with, drawn by a seed."""

    @abc.abstractmethod
    def displacement(self, coordinates: Tensor) -> Tensor:
        """delta of coordinates `[size]`: `[param]`, float64, differentiable, of size 1 for coordinates of size 1."""

    @abc.abstractmethod
    def nearest(self, displacement: Tensor) -> Tensor:
        """Coordinates `[size]`, float64, whose delta is near a given one, `[param]`, float64."""

    @cached_property
    def scales(self) -> Tensor:
        """s, `[param]`, float64."""
        return parameter_scales(self.layout)

    @cached_property
    def beginning(self) -> Tensor:
        """theta_0, `[param]`, float64."""
        return self.start.values(self.layout)

    @cached_property
    def _size(self) -> int:
        return sum(part.numel for part in self.parts)

    @property
    @override
    def size(self) -> int:
        return self._size

    @property
    @override
    def num_parameters(self) -> int:
        return self.layout.size

    @cached_property
    def _digest(self) -> str:
        told = [self.kind, self.options, self.layout.digest, self.start.digest]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    @override
    def digest(self) -> str:
        return self._digest

    @override
    def to_parameters(self, coordinates: Tensor) -> Tensor:
        """Parameters `[..., param]` of coordinates `[..., size]`.

        Raises:
            ModelError: if the last axis has another length.
        """
        self._require_last("coordinates", coordinates, self.size)
        dtype = torch.float64 if coordinates.dtype == torch.float64 else torch.float32
        device = coordinates.device
        beginning, scales = self.beginning.to(device), self.scales.to(device)
        rows = [(beginning + scales * self.displacement(row)).to(dtype) for row in coordinates.reshape(-1, self.size)]
        return torch.stack(rows).reshape(*coordinates.shape[:-1], self.num_parameters)

    @override
    def from_parameters(self, parameters: Tensor) -> Tensor:
        """Coordinates `[..., size]` of parameters `[..., param]`, by search: slow, and exact only where one exists.

        Raises:
            ModelError: if the last axis has another length, or a parameter is not finite.
        """
        self._require_last("parameters", parameters, self.num_parameters)
        if not bool(torch.isfinite(parameters).all()):
            raise ModelError("Parameters must be finite to be expressed in coordinates.")
        rows = parameters.detach().reshape(-1, self.num_parameters).cpu().double()
        found = torch.stack([self.nearest((row - self.beginning) / self.scales) for row in rows])
        return found.reshape(*parameters.shape[:-1], self.size).to(parameters)

    def split(self, coordinates: Tensor) -> list[Tensor]:
        """Coordinates `[size]` by part, each in its shape."""
        pieces = torch.split(coordinates, [part.numel for part in self.parts])
        return [piece.reshape(part.shape) for piece, part in zip(pieces, self.parts, strict=True)]

    def _require_last(self, name: str, values: Tensor, length: int) -> None:
        if values.ndim < 1 or values.shape[-1] != length:
            raise ModelError(f"`{name}` must have shape [..., {length}], got {tuple(values.shape)}.")

"""The coordinates that leave everything as it is."""

import hashlib
from dataclasses import dataclass

from torch import Tensor
from typing_extensions import override

from .contract import Coordinates


@dataclass(frozen=True)
class FullCoordinates(Coordinates):
    """Every parameter is its own coordinate.

    Args:
        num_coordinates: how many parameters there are.
    """

    num_coordinates: int

    @property
    @override
    def size(self) -> int:
        return self.num_coordinates

    @property
    @override
    def num_parameters(self) -> int:
        return self.num_coordinates

    @property
    @override
    def digest(self) -> str:
        return hashlib.sha256(f"full:{self.num_coordinates}".encode()).hexdigest()

    @override
    def to_parameters(self, coordinates: Tensor) -> Tensor:
        return coordinates

    @override
    def from_parameters(self, parameters: Tensor) -> Tensor:
        return parameters

"""The contract of reduced coordinates."""

import abc

from torch import Tensor


class Coordinates(abc.ABC):
    """A way to express the parameters of a network by `size` numbers.

    `to_parameters` is differentiable in its argument. `from_parameters` is its left inverse: coordinates go to
    parameters and back unchanged up to rounding. Parameters that the coordinates cannot express come back as the
    nearest that they can. Where the map is not linear, `from_parameters` may find a local optimum and other coordinates
    for the same parameters; the class says so.
    """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many numbers."""

    @property
    @abc.abstractmethod
    def num_parameters(self) -> int:
        """How many parameters they express."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of everything that defines the map."""

    @abc.abstractmethod
    def to_parameters(self, coordinates: Tensor) -> Tensor:
        """Parameters `[..., param]` of coordinates `[..., size]`."""

    @abc.abstractmethod
    def from_parameters(self, parameters: Tensor) -> Tensor:
        """Coordinates `[..., size]` of parameters `[..., param]`."""

"""Few numbers that stand for many parameters."""

from .contract import Coordinates
from .full import FullCoordinates
from .pca import PCACoordinates

__all__ = ["Coordinates", "FullCoordinates", "PCACoordinates"]

"""What a trajectory and a forecast are."""

from .forecaster import Forecast, Forecaster, LearnedForecaster
from .layout import Layout, TensorSpec
from .moments import Moments, has_moments, read_moments
from .packing import flatten, layout_of, load_vector, pack, require_vector, trainable_parameters, unpack
from .window import Window

__all__ = [
    "Forecast",
    "Forecaster",
    "Layout",
    "LearnedForecaster",
    "Moments",
    "TensorSpec",
    "Window",
    "flatten",
    "has_moments",
    "layout_of",
    "load_vector",
    "pack",
    "read_moments",
    "require_vector",
    "trainable_parameters",
    "unpack",
]

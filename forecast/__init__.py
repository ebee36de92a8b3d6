"""What a trajectory and a forecast are."""

from .cases import Case, cases
from .errors import ForecastError, GraphError, JumpError, LayoutError, NotFittedError, TrajectoryError, WindowError
from .forecaster import Forecast, Forecaster, LearnedForecaster
from .layout import Layout, TensorSpec
from .ledger import Cost, Ledger
from .moments import Moments, has_moments, keeps_moments, raw_moments, read_moments
from .packing import flatten, layout_of, load_vector, pack, require_vector, trainable_parameters, unpack
from .records import Event, Scalars
from .skill import HorizonSkill, score
from .stream import Stream
from .trajectory import Trajectory
from .window import Window

__all__ = [
    "Case",
    "Cost",
    "Event",
    "Forecast",
    "ForecastError",
    "Forecaster",
    "GraphError",
    "HorizonSkill",
    "JumpError",
    "Layout",
    "LayoutError",
    "LearnedForecaster",
    "Ledger",
    "Moments",
    "NotFittedError",
    "Scalars",
    "Stream",
    "TensorSpec",
    "Trajectory",
    "TrajectoryError",
    "Window",
    "WindowError",
    "cases",
    "flatten",
    "has_moments",
    "keeps_moments",
    "layout_of",
    "load_vector",
    "pack",
    "raw_moments",
    "read_moments",
    "require_vector",
    "score",
    "trainable_parameters",
    "unpack",
]

"""What a trajectory and a forecast are.

Names are looked up when they are first used. So whoever reads a trajectory loads numpy, and neither torch nor what
needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .case import Case, cases
    from .compacting import compact
    from .errors import ForecastError, GraphError, JumpError, LayoutError, NotFittedError, TrajectoryError, WindowError
    from .forecaster import Forecast, Forecaster, LearnedForecaster
    from .layout import Layout, TensorSpec
    from .ledger import Cost, Ledger
    from .moments import Moments, has_moments, keeps_moments, raw_moments, read_moments
    from .packing import flatten, layout_of, load_vector, pack, require_vector, trainable_parameters, unpack
    from .records import Event, Scalars
    from .remote import download
    from .selection import Selection
    from .skill import HorizonSkill, score
    from .stream import Stream
    from .tiers import Tier
    from .trajectory import Trajectory
    from .window import Window
    from .writer import TrajectoryWriter

_HOME = {
    name: module
    for module, names in {
        "case": "Case cases",
        "compacting": "compact",
        "errors": "ForecastError GraphError JumpError LayoutError NotFittedError TrajectoryError WindowError",
        "forecaster": "Forecast Forecaster LearnedForecaster",
        "layout": "Layout TensorSpec",
        "ledger": "Cost Ledger",
        "moments": "Moments has_moments keeps_moments raw_moments read_moments",
        "packing": "flatten layout_of load_vector pack require_vector trainable_parameters unpack",
        "records": "Event Scalars",
        "remote": "download",
        "selection": "Selection",
        "skill": "HorizonSkill score",
        "stream": "Stream",
        "tiers": "Tier",
        "trajectory": "Trajectory",
        "window": "Window",
        "writer": "TrajectoryWriter",
    }.items()
    for name in names.split()
}

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
    "Selection",
    "Stream",
    "TensorSpec",
    "Tier",
    "Trajectory",
    "TrajectoryError",
    "TrajectoryWriter",
    "Window",
    "WindowError",
    "cases",
    "compact",
    "download",
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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value

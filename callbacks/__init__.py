"""Where a running Lightning Trainer meets recorder, forecasters, jumps and codec."""

from .compression import GradientCompression
from .errors import CallbackError, CallbackOptionError, ResumeError, UnsupportedTrainerError
from .local_steps import LocalSteps
from .online import OnlineForecaster, OnlineScore
from .recorder import TrajectoryRecorder
from .skip_ahead import SkipAhead
from .strategy import CompressedDDP, HookedDDP

__all__ = [
    "CallbackError",
    "CallbackOptionError",
    "CompressedDDP",
    "GradientCompression",
    "HookedDDP",
    "LocalSteps",
    "OnlineForecaster",
    "OnlineScore",
    "ResumeError",
    "SkipAhead",
    "TrajectoryRecorder",
    "UnsupportedTrainerError",
]

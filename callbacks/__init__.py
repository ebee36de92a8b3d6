"""Where a running Lightning Trainer meets recorder, forecasters, jumps and codec."""

from .compression import GradientCompression
from .errors import CallbackError, CallbackOptionError, ResumeError, UnsupportedTrainerError
from .online import OnlineForecaster, OnlineScore
from .recorder import TrajectoryRecorder
from .skip_ahead import SkipAhead

__all__ = [
    "CallbackError",
    "CallbackOptionError",
    "GradientCompression",
    "OnlineForecaster",
    "OnlineScore",
    "ResumeError",
    "SkipAhead",
    "TrajectoryRecorder",
    "UnsupportedTrainerError",
]

"""Where a running Lightning Trainer meets recorder, forecasters, jumps and codec."""

from .compression import GradientCompression
from .errors import CallbackError, ResumeError, UnsupportedTrainerError
from .online import OnlineForecaster, OnlineScore
from .recorder import TrajectoryRecorder
from .skip_ahead import SkipAhead

__all__ = [
    "CallbackError",
    "GradientCompression",
    "OnlineForecaster",
    "OnlineScore",
    "ResumeError",
    "SkipAhead",
    "TrajectoryRecorder",
    "UnsupportedTrainerError",
]

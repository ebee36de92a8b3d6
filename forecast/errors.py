"""What can go wrong with layouts, trajectories and forecasts."""


class ForecastError(Exception):
    """Base of every error that `deadreckon.forecast` and `deadreckon.models` raise on purpose."""


class LayoutError(ForecastError, ValueError):
    """A vector, a module or a stored description does not fit the layout it is used with."""


class WindowError(ForecastError, ValueError):
    """A window is too short, unevenly spaced, or of the wrong stream for what is asked of it."""


class NotFittedError(ForecastError, RuntimeError):
    """A learned forecaster was asked for a forecast before it was fitted or loaded."""


class TrajectoryError(ForecastError, OSError):
    """A trajectory store cannot be made, opened, read or appended to."""


class JumpError(ForecastError, ValueError):
    """A jump, its probe or its controller is configured in a way that cannot work."""


class GraphError(ForecastError, ValueError):
    """A neural graph cannot be traced, read, or used with what it is given."""

"""What can go wrong when forecasters are made, fitted, saved and loaded."""

from ..forecast.errors import ForecastError


class ModelError(ForecastError, ValueError):
    """There is no forecaster of that name, or it cannot take the options it was given."""


class FittingError(ForecastError, RuntimeError):
    """A learned forecaster cannot be fitted to the cases it was given; it is as it was before."""


class ModelFileError(ForecastError, OSError):
    """A saved forecaster cannot be written, or what was read is not one."""

"""What can go wrong with options, data sets and results."""


class ExperimentError(Exception):
    """Base of every error that `deadreckon.experiments` raises on purpose; the command prints it as one line."""


class OptionError(ExperimentError, ValueError):
    """An option has a value that cannot work."""


class DataError(ExperimentError, OSError):
    """A data set cannot be found, fetched or read."""


class ResultError(ExperimentError, ValueError):
    """A result file cannot be read, or is not what it should be."""

"""Forecasters as plain values, for options that hold other forecasters."""

from .closed_form import ClosedForm
from .fitting import FittableForecaster


def describe(forecaster: ClosedForm | FittableForecaster) -> dict[str, object]:
    """Name and options, from which `make_forecaster` makes an equal one; what was learned is not among them."""
    return {"name": forecaster.name, "options": forecaster.options}

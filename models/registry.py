"""Forecasters by name."""

import inspect

from .closed_form import ClosedForm
from .errors import ModelError
from .fitting import FittableForecaster
from .hold import Hold
from .learned_linear import LearnedLinear
from .linear import Linear
from .neural_ode import NeuralODE
from .optimizer_moments import OptimizerMoments
from .quadratic import Quadratic

CLOSED_FORMS: tuple[type[ClosedForm], ...] = (Hold, Linear, Quadratic, OptimizerMoments)
LEARNED: tuple[type[FittableForecaster], ...] = (LearnedLinear, NeuralODE)


def forecaster_names() -> tuple[str, ...]:
    """All names that `make_forecaster` takes."""
    return closed_form_names() + learned_names()


def closed_form_names() -> tuple[str, ...]:
    """The names of forecasters that are formulas."""
    return tuple(kind.name for kind in CLOSED_FORMS)


def learned_names() -> tuple[str, ...]:
    """The names of forecasters that have to be fitted before use."""
    return tuple(kind.name for kind in LEARNED)


def make_forecaster(name: str, **options: object) -> ClosedForm | FittableForecaster:
    """A new forecaster.

    Args:
        name: one of `forecaster_names()`.
        options: arguments of its constructor, as listed in its class; defaults for the rest.

    Raises:
        ModelError: if there is no such name or option, or an option's value is refused; it lists what there is.

    Example:
        >>> make_forecaster("linear", history=8, stream="gradients").options
        {'history': 8, 'stream': 'gradients'}
    """
    kinds = {kind.name: kind for kind in (*CLOSED_FORMS, *LEARNED)}
    if name not in kinds:
        raise ModelError(f"There is no forecaster {name!r}. There are: {', '.join(kinds)}.")
    known = list(inspect.signature(kinds[name]).parameters)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ModelError(f"{name!r} has no option {unknown[0]!r}. It has: {', '.join(known)}.")
    if not isinstance(stream := options.get("stream", "weights"), str) or not stream:
        raise ModelError(f"`stream` must be the name of a stream, got {stream!r}.")
    return kinds[name](**options)  # type: ignore[arg-type]  # each constructor checks its own values

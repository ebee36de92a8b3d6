"""Forecasters by name."""

import inspect
from collections.abc import Mapping
from typing import get_args

from .closed_form import ClosedForm
from .errors import ModelError
from .fitting import FittableForecaster
from .hold import Hold
from .learned_linear import LearnedLinear
from .linear import Linear
from .neural_ode import NeuralODE
from .optimizer_moments import OptimizerMoments
from .quadratic import Quadratic
from .wrapper import Member, Members, Wrapper

CLOSED_FORMS: tuple[type[ClosedForm], ...] = (
    Hold,
    Linear,
    Quadratic,
    OptimizerMoments,
)
LEARNED: tuple[type[FittableForecaster], ...] = (
    LearnedLinear,
    NeuralODE,
)
WRAPPERS: tuple[type[Wrapper], ...] = ()
MAX_DEPTH = 4  # of wrappers within wrappers; a file that asks for more is damaged or hostile


def forecaster_names() -> tuple[str, ...]:
    """All names that `make_forecaster` takes."""
    return closed_form_names() + learned_names() + wrapper_names()


def closed_form_names() -> tuple[str, ...]:
    """The names of forecasters that are formulas."""
    return tuple(kind.name for kind in CLOSED_FORMS)


def learned_names() -> tuple[str, ...]:
    """The names of forecasters that have to be fitted before use."""
    return tuple(kind.name for kind in LEARNED)


def wrapper_names() -> tuple[str, ...]:
    """The names of forecasters that change or combine what others say."""
    return tuple(kind.name for kind in WRAPPERS)


def make_forecaster(name: str, **options: object) -> ClosedForm | FittableForecaster:
    """A new forecaster.

    Args:
        name: one of `forecaster_names()`.
        options: arguments of its constructor, as listed in its class; defaults for the rest. Where a wrapper takes
            another forecaster, a name, or a mapping of `name` and `options`, makes that one too.

    Raises:
        ModelError: if there is no such name or option, or an option's value is refused; it lists what there is.

    Example:
        >>> make_forecaster("linear", history=8, stream="gradients").options
        {'history': 8, 'stream': 'gradients'}
        >>> make_forecaster("damped", member={"name": "linear", "options": {"history": 8}}, factor=0.5).history
        8
    """
    return _make(name, options, MAX_DEPTH)


def _make(name: str, options: Mapping[str, object], depth: int) -> ClosedForm | FittableForecaster:
    kinds = {kind.name: kind for kind in (*CLOSED_FORMS, *LEARNED, *WRAPPERS)}
    if name not in kinds:
        raise ModelError(f"There is no forecaster {name!r}. There are: {', '.join(kinds)}.")
    parameters = inspect.signature(kinds[name]).parameters
    unknown = [option for option in options if option not in parameters]
    if unknown:
        raise ModelError(f"{name!r} has no option {unknown[0]!r}. It has: {', '.join(parameters)}.")
    if not isinstance(stream := options.get("stream", "weights"), str) or not stream:
        raise ModelError(f"`stream` must be the name of a stream, got {stream!r}.")
    built = dict(options)
    for option, value in options.items():
        annotation = parameters[option].annotation
        if annotation is Member or Member in get_args(annotation):
            built[option] = _member(option, value, depth)
        elif annotation is Members or Members in get_args(annotation):
            built[option] = _members(option, value, depth)
    return kinds[name](**built)  # type: ignore[arg-type]  # each constructor checks its own values


def _member(option: str, value: object, depth: int) -> object:
    """What describes a forecaster, as one; anything else as it is, for the wrapper to judge."""
    if depth == 0:
        raise ModelError(f"`{option}` is nested deeper than {MAX_DEPTH} wrappers.")
    if isinstance(value, str):
        return _make(value, {}, depth - 1)
    if isinstance(value, Mapping):
        name, inner = value.get("name"), value.get("options", {})
        if set(value) - {"name", "options"} or not isinstance(name, str) or not isinstance(inner, Mapping):
            raise ModelError(f"`{option}` must be a name, or a mapping of `name` and `options`, got {dict(value)!r}.")
        if not all(isinstance(key, str) for key in inner):
            raise ModelError(f"`options` of {name!r} must have names, got {list(inner)}.")
        return _make(name, inner, depth - 1)
    return value


def _members(option: str, value: object, depth: int) -> object:
    if isinstance(value, Mapping) and not ("name" in value and set(value) <= {"name", "options"}):
        return {key: _member(option, entry, depth) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_member(option, entry, depth) for entry in value)
    return value

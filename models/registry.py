"""Forecasters by name."""

import inspect
from collections.abc import Mapping, Sequence
from typing import get_args, get_origin

from .adaptive_linear import AdaptiveLinear
from .anderson import Anderson
from .best_of import BestOf
from .blended import Blended
from .closed_form import ClosedForm
from .damped import Damped
from .dmd import DMD
from .ema import EMA
from .errors import ModelError
from .exponential import Exponential
from .fitting import FittableForecaster
from .flow_matching import FlowMatching
from .hold import Hold
from .introspection import Introspection
from .lawa import LAWA
from .learned_linear import LearnedLinear
from .lfd2 import LFD2
from .linear import Linear
from .lookahead import Lookahead
from .neural_ode import NeuralODE
from .nino import NiNo
from .nino_released import ReleasedNiNo
from .optimizer_moments import OptimizerMoments
from .outer_momentum import OuterMomentum
from .per_kind import PerKind
from .quadratic import Quadratic
from .scalar_extrapolation import ScalarExtrapolation
from .trust_region import TrustRegion
from .tuned_line import TunedLine
from .with_graph import WithGraph
from .wnn import WNN
from .wnn_plus import WNNPlus
from .wrapper import Wrapper

CLOSED_FORMS: tuple[type[ClosedForm], ...] = (
    Hold,
    Linear,
    Quadratic,
    Exponential,
    EMA,
    LAWA,
    Lookahead,
    OuterMomentum,
    Anderson,
    DMD,
    OptimizerMoments,
)
LEARNED: tuple[type[FittableForecaster], ...] = (
    ScalarExtrapolation,
    TunedLine,
    LFD2,
    LearnedLinear,
    AdaptiveLinear,
    NeuralODE,
    FlowMatching,
    Introspection,
    WNN,
    WNNPlus,
    NiNo,
)
# Of no use without a file or a graph: not among the names, but saved and loaded like the others.
UNLISTED: tuple[type[FittableForecaster], ...] = (ReleasedNiNo, WithGraph)
WRAPPERS: tuple[type[Wrapper], ...] = (
    Damped,
    TrustRegion,
    PerKind,
    Blended,
    BestOf,
)
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

    Examples:
        >>> make_forecaster("linear", history=8, stream="gradients").options
        {'history': 8, 'stream': 'gradients'}
        >>> make_forecaster("damped", member={"name": "linear", "options": {"history": 8}}, factor=0.5).history
        8
    """
    return _make(name, options, MAX_DEPTH)


def _make(name: str, options: Mapping[str, object], depth: int) -> ClosedForm | FittableForecaster:
    kinds = {kind.name: kind for kind in (*CLOSED_FORMS, *LEARNED, *WRAPPERS, *UNLISTED)}
    if name not in kinds:
        raise ModelError(f"There is no forecaster {name!r}. There are: {', '.join(forecaster_names())}.")
    parameters = inspect.signature(kinds[name]).parameters
    unknown = [option for option in options if option not in parameters]
    if unknown:
        raise ModelError(f"{name!r} has no option {unknown[0]!r}. It has: {', '.join(parameters)}.")
    if not isinstance(stream := options.get("stream", "weights"), str) or not stream:
        raise ModelError(f"`stream` must be the name of a stream, got {stream!r}.")
    needed = [option for option, entry in parameters.items() if entry.default is entry.empty and option not in options]
    if needed:
        raise ModelError(f"{name!r} needs `{needed[0]}`. It takes: {', '.join(parameters)}.")
    built = dict(options)
    for option, value in options.items():
        kinds_taken = get_args(parameters[option].annotation)
        if ClosedForm in kinds_taken:
            built[option] = _member(option, value, depth)
        elif any(get_origin(kind) is Sequence for kind in kinds_taken):
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

"""What `CodecConfig(predictor=...)` may be: names, forecasters, and tuples of them."""

import hashlib
import json
from functools import cache

from ..forecast import Forecaster, Layout, LearnedForecaster
from ..models import closed_form_names, make_forecaster
from ..models.with_graph import bound_graphs
from .coefficients import MAX_BASIS
from .errors import ConfigError
from .predictors import (
    AdaptiveMomentum,
    Combination,
    Ef21,
    Fitted,
    Forecasting,
    Lagged,
    Momentum,
    MomentumNorm,
    MomentumProjected,
    NoPrediction,
    Predictor,
    Previous,
)

_RULES: dict[str, type[Predictor]] = {
    "none": NoPrediction,
    "previous": Previous,
    "momentum": Momentum,
    "momentum_norm": MomentumNorm,
    "momentum_projected": MomentumProjected,
    "fitted": Fitted,
    "adaptive_momentum": AdaptiveMomentum,
    "ef21": Ef21,
}
_LAGS = {"second_last": 2, "third_last": 3, "fourth_last": 4}  # of use beside the last one only
_MEMBERS = ("previous", *_LAGS, "momentum")  # the rules that a combination may have, beside forecasters

Choice = str | Forecaster | tuple[str | Forecaster, ...]  # what `CodecConfig(predictor=...)` takes


@cache
def predictor_names() -> tuple[str, ...]:
    """Names that `CodecConfig(predictor=...)` takes: the rules here, and the closed-form forecasters of any stream."""
    return (*_RULES, *_forecaster_names())


@cache
def member_names() -> tuple[str, ...]:
    """Names that a tuple of predictors may hold: those that make one prediction, weighed for each tensor."""
    return (*_MEMBERS, *_forecaster_names())


def _forecaster_names() -> tuple[str, ...]:
    return tuple(name for name in closed_form_names() if not make_forecaster(name).needs_moments)


def check_predictor(predictor: object) -> None:
    """Refuse what is not a `Choice`.

    Raises:
        ConfigError: for unknown names, other objects, and tuples of none, too many, equal or unsuitable ones.
    """
    if isinstance(predictor, tuple):
        if not 1 <= len(predictor) <= MAX_BASIS:
            raise ConfigError(f"`predictor` must combine 1 to {MAX_BASIS} predictions, got {len(predictor)}.")
        names = [member for member in predictor if isinstance(member, str)]
        if unknown := [name for name in names if name not in member_names()]:
            raise ConfigError(f"A combination of predictors may have {member_names()}, got {unknown[0]!r}.")
        if len(set(names)) < len(names):
            raise ConfigError(f"`predictor` must not name a prediction twice, got {names}.")
    elif isinstance(predictor, str) and predictor not in predictor_names():
        raise ConfigError(f"`predictor` must be one of {predictor_names()}, got {predictor!r}.")
    for member in predictor if isinstance(predictor, tuple) else (predictor,):
        if not isinstance(member, str | Forecaster):
            raise ConfigError(f"`predictor` must be a name or a Forecaster, got {type(member).__name__}.")


def make_predictor(predictor: Choice, layout: Layout, stream: str) -> Predictor:
    """The rule behind a configuration's `predictor`.

    Raises:
        ConfigError: if a forecaster forecasts another stream, needs moments or a neural graph, is bound to the graph of
            another network, or has not been fitted.
    """
    if isinstance(predictor, tuple):
        return Combination(layout, [make_predictor(member, layout, stream) for member in predictor])
    if isinstance(predictor, str):
        if predictor in _LAGS:
            return Lagged(layout, _LAGS[predictor])
        if predictor in _RULES:
            return _RULES[predictor](layout)
        predictor = make_forecaster(predictor, stream=stream)
    if predictor.stream != stream:
        raise ConfigError(
            f"A codec of {stream!r} needs a forecaster of {stream!r}, got {predictor.name!r} of {predictor.stream!r}."
        )
    if predictor.needs_moments:
        raise ConfigError(f"{predictor.name!r} needs the optimiser's moments, which the decoder does not have.")
    if predictor.needs_graph:
        raise ConfigError(
            f"{predictor.name!r} needs the network's neural graph, which the decoder does not have. Bind it to one "
            "with `WithGraph(forecaster, graph)`."
        )
    if any(graph.layout_digest != layout.digest for graph in bound_graphs(predictor)):
        raise ConfigError(
            f"{predictor.name!r} is bound to the neural graph of another network. Trace the module whose layout is "
            "coded, with the same names of parameters, and bind the forecaster to that graph."
        )
    if not predictor.fitted:
        raise ConfigError(f"{predictor.name!r} has not been fitted. Fit or load it before making a codec.")
    return Forecasting(layout, predictor)


def predictor_digest(predictor: Choice) -> str | list[str]:
    """What a configuration's digest says of its predictor: names as they are, forecasters by `forecaster_digest`."""
    if isinstance(predictor, tuple):
        return [member if isinstance(member, str) else forecaster_digest(member) for member in predictor]
    return predictor if isinstance(predictor, str) else forecaster_digest(predictor)


def forecaster_digest(forecaster: Forecaster) -> str:
    """SHA-256, in hexadecimal, of a forecaster's name, options and everything it has learned."""
    options = getattr(forecaster, "options", {})
    text = json.dumps([forecaster.name, forecaster.stream, forecaster.history, options], sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode())
    if isinstance(forecaster, LearnedForecaster):
        for name, value in sorted(forecaster.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

"""What is subtracted before coding: basis vectors from shared state, and how the encoder weighs them.

Both ends compute the basis from their equal states; only the encoder sees the vector, computes the coefficients and
sends them. prediction = sum over the basis of coefficient times vector, for each block of coordinates.
"""

import abc
import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from ..forecast import Forecaster, Layout, LearnedForecaster, Window, WindowError
from ..models import closed_form_names, make_forecaster
from .coefficients import Coefficients, FloatVector, fit, quantise
from .errors import ConfigError
from .state import SharedState


class Predictor(abc.ABC):
    """A rule that turns shared state into basis vectors, and a vector into coefficients.

    Attributes:
        num_rows: decoded vectors that the shared state must keep for it.
        uses_momentum: whether the shared state must keep a running mean of them.
    """

    num_rows: int = 0
    uses_momentum: ClassVar[bool] = False

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def spans(self) -> tuple[slice, ...]:
        """The blocks that have coefficients of their own: by default each tensor that is not empty."""
        return tuple(spec.span for spec in self._layout if spec.numel)

    @abc.abstractmethod
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        """The basis vectors for a vector of `step`, each `[param]`; the same on both ends. Their number may grow."""

    @abc.abstractmethod
    def coefficients(
        self, vector: FloatVector, basis: Sequence[FloatVector], width: float, dead_zone: float
    ) -> Coefficients:
        """How much of each basis vector to take, `[block, basis]`. Called by the encoder only.

        Args:
            vector: what is coded, `[param]`, finite.
            basis: of `basis`.
            width: of a cell, about.
            dead_zone: of the quantiser.
        """


class _FittedPredictor(Predictor):
    """Least squares for each tensor, zero where it does not pay; see `coefficients.fit`."""

    @override
    def coefficients(
        self, vector: FloatVector, basis: Sequence[FloatVector], width: float, dead_zone: float
    ) -> Coefficients:
        return fit(vector, basis, self.spans, width, dead_zone)


class _WholeVectorPredictor(Predictor):
    """One coefficient of the momentum for the whole vector."""

    uses_momentum: ClassVar[bool] = True

    @property
    @override
    def spans(self) -> tuple[slice, ...]:
        return (slice(0, self._layout.size),)

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        return (state.momentum.numpy(),) if state.num_updates else ()

    @override
    def coefficients(
        self, vector: FloatVector, basis: Sequence[FloatVector], width: float, dead_zone: float
    ) -> Coefficients:
        units = [
            quantise(_ratio(self._scale(vector.astype(np.float64), column.astype(np.float64)))) for column in basis
        ]
        return np.array([units], np.int16).reshape(1, len(basis))

    @abc.abstractmethod
    def _scale(self, vector: npt.NDArray[np.float64], momentum: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Numerator and denominator of the coefficient."""


def _ratio(fraction: tuple[float, float]) -> float:
    numerator, denominator = fraction
    quotient = numerator / denominator if denominator > 0 else 0.0
    return quotient if math.isfinite(quotient) else 0.0


@final
class NoPrediction(Predictor):
    """Nothing is subtracted: the reference."""

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        return ()

    @override
    def coefficients(
        self, vector: FloatVector, basis: Sequence[FloatVector], width: float, dead_zone: float
    ) -> Coefficients:
        return np.zeros((len(self.spans), 0), np.int16)


@final
class Previous(_FittedPredictor):
    """The last decoded vector, with a coefficient for each tensor."""

    num_rows = 1

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        return tuple(row.numpy() for row in state.rows[-1:])


@final
class Fitted(_FittedPredictor):
    """The last decoded vector and the momentum, with jointly fitted coefficients for each tensor.

    On the first packet after a key frame the two are parallel; the momentum is offered from the second on.
    """

    num_rows = 1
    uses_momentum: ClassVar[bool] = True

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        previous = tuple(row.numpy() for row in state.rows[-1:])
        return (*previous, state.momentum.numpy()) if state.num_updates > 1 else previous


@final
class MomentumNorm(_WholeVectorPredictor):
    """||g|| m / ||m||, the founding note's formula, with the norm sent as one coefficient.

    Leaves ||r||^2 / ||g||^2 = 2 (1 - c), c the cosine of g and m: worse than no prediction below c = 1/2. It is here to
    be compared. The coefficient saturates at 128, where g is 128 times as long as m.
    """

    @override
    def _scale(self, vector: npt.NDArray[np.float64], momentum: npt.NDArray[np.float64]) -> tuple[float, float]:
        return math.sqrt(vector @ vector), math.sqrt(momentum @ momentum)


@final
class MomentumProjected(_WholeVectorPredictor):
    """<g, m> m / ||m||^2: the projection on the momentum, with one coefficient.

    Leaves ||r||^2 / ||g||^2 = 1 - c^2, never more than no prediction.
    """

    @override
    def _scale(self, vector: npt.NDArray[np.float64], momentum: npt.NDArray[np.float64]) -> tuple[float, float]:
        return float(vector @ momentum), float(momentum @ momentum)


@final
class Forecasting(_FittedPredictor):
    """A forecaster's mean for the coded step, with a coefficient for each tensor.

    Until the state holds the rows it needs, and where it refuses them (`WindowError`: some forecasters need even
    spacing, which a skipped packet breaks), the last decoded vector stands in. Rows and steps decide that, which both
    ends share.

    Args:
        layout: of the coded vector.
        forecaster: of the coded stream.
    """

    def __init__(self, layout: Layout, forecaster: Forecaster) -> None:
        super().__init__(layout)
        self._forecaster = forecaster
        self.num_rows = forecaster.history

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        if len(state.rows) < self.num_rows:
            return tuple(row.numpy() for row in state.rows[-1:])
        steps = torch.tensor(state.row_steps, dtype=torch.int64)
        window = Window(torch.stack(state.rows), steps, self._layout, self._forecaster.stream)
        try:
            with torch.no_grad():
                forecast = next(iter(self._forecaster.forecast(window, [step - state.row_steps[-1]])))
        except WindowError:
            return (state.rows[-1].numpy(),)
        return (forecast.mean.to("cpu", torch.float32).contiguous().numpy(),)


_RULES: dict[str, type[Predictor]] = {
    "none": NoPrediction,
    "previous": Previous,
    "momentum_norm": MomentumNorm,
    "momentum_projected": MomentumProjected,
    "fitted": Fitted,
}


@cache
def predictor_names() -> tuple[str, ...]:
    """Names that `CodecConfig(predictor=...)` takes: the rules here, and the closed-form forecasters of any stream."""
    forecasters = (name for name in closed_form_names() if not make_forecaster(name).needs_moments)
    return (*_RULES, *forecasters)


def make_predictor(predictor: str | Forecaster, layout: Layout, stream: str) -> Predictor:
    """The rule behind a configuration's `predictor`.

    Raises:
        ConfigError: if a forecaster forecasts another stream, needs moments, or has not been fitted.
    """
    if isinstance(predictor, str):
        if predictor in _RULES:
            return _RULES[predictor](layout)
        predictor = make_forecaster(predictor, stream=stream)
    if predictor.stream != stream:
        raise ConfigError(
            f"A codec of {stream!r} needs a forecaster of {stream!r}, got {predictor.name!r} of {predictor.stream!r}."
        )
    if predictor.needs_moments:
        raise ConfigError(f"{predictor.name!r} needs the optimiser's moments, which the decoder does not have.")
    if not predictor.fitted:
        raise ConfigError(f"{predictor.name!r} has not been fitted. Fit or load it before making a codec.")
    return Forecasting(layout, predictor)


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

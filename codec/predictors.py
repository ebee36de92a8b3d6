"""What is subtracted before coding: basis vectors from shared state, and how the encoder weighs them.

Both ends compute the basis from their equal states; only the encoder sees the vector, computes the coefficients and
sends them. prediction = sum over the basis of coefficient times vector, for each block of coordinates.
"""

import abc
import math
from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from typing_extensions import override

from ..forecast import Forecaster, Layout, Window, WindowError
from .coefficients import UNIT, Coefficients, Cost, FloatVector, combine, fit, quantise
from .state import SharedState, running_mean


class Predictor(abc.ABC):
    """A rule that turns shared state into basis vectors, and a vector into coefficients.

    Attributes:
        num_rows: decoded vectors that the shared state must keep for it.
        uses_momentum: whether the shared state must keep a running mean of them.
    """

    num_rows: int = 0
    uses_momentum: bool = False

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
    def coefficients(self, vector: FloatVector, basis: Sequence[FloatVector], cost: Cost) -> Coefficients:
        """How much of each basis vector to take, `[block, basis]`. Called by the encoder only.

        Args:
            vector: what is coded, `[param]`, finite.
            basis: of `basis`.
            cost: about how many bits residuals take.
        """

    def memory(
        self, state: SharedState, decoded: FloatVector, coefficients: Coefficients | None, decay: float
    ) -> FloatVector:
        """What the state's `momentum` becomes after a packet, `[param]`: a running mean of decoded vectors.

        Both ends call it, so it may use elementwise float32 operations only. Not called where `uses_momentum` is false.

        Args:
            state: what the packet was coded against.
            decoded: its vector, `[param]`, finite.
            coefficients: what it was predicted with, `[block, basis]`; `None` for a raw packet.
            decay: of the running mean.
        """
        return running_mean(state, decoded, coefficients, decay)


class _FittedPredictor(Predictor):
    """Least squares for each tensor, zero where it does not pay; see `coefficients.fit`."""

    @override
    def coefficients(self, vector: FloatVector, basis: Sequence[FloatVector], cost: Cost) -> Coefficients:
        return fit(vector, basis, self.spans, cost)


class _WholeVectorPredictor(Predictor):
    """One coefficient of the momentum for the whole vector."""

    uses_momentum = True

    @property
    @override
    def spans(self) -> tuple[slice, ...]:
        return (slice(0, self._layout.size),)

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        return (state.momentum.numpy(),) if state.num_updates else ()

    @override
    def coefficients(self, vector: FloatVector, basis: Sequence[FloatVector], cost: Cost) -> Coefficients:
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
    def coefficients(self, vector: FloatVector, basis: Sequence[FloatVector], cost: Cost) -> Coefficients:
        return np.zeros((len(self.spans), 0), np.int16)


@final
class Previous(_FittedPredictor):
    """The last decoded vector, with a coefficient for each tensor."""

    num_rows = 1

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        return tuple(row.numpy() for row in state.rows[-1:])


@final
class Lagged(_FittedPredictor):
    """The decoded vector some packets back, where there is one, with a coefficient for each tensor.

    Args:
        layout: of the coded vector.
        lag: how many packets back; 1 is the last one.
    """

    def __init__(self, layout: Layout, lag: int) -> None:
        super().__init__(layout)
        self.num_rows = lag

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        return (state.rows[-self.num_rows].numpy(),) if len(state.rows) >= self.num_rows else ()


@final
class Momentum(_FittedPredictor):
    """The running mean of decoded vectors, with a coefficient for each tensor."""

    uses_momentum = True

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        return (state.momentum.numpy(),) if state.num_updates else ()


class _PreviousAndMomentum(_FittedPredictor):
    """The last decoded vector and what the state's momentum holds, with jointly fitted coefficients for each tensor.

    On the first packet after a key frame the two are parallel; the momentum is offered from the second on.
    """

    num_rows = 1
    uses_momentum = True

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        previous = tuple(row.numpy() for row in state.rows[-1:])
        return (*previous, state.momentum.numpy()) if state.num_updates > 1 else previous


@final
class Fitted(_PreviousAndMomentum):
    """The last decoded vector and their running mean of a given decay."""


@final
class AdaptiveMomentum(_PreviousAndMomentum):
    """The last decoded vector and the last prediction: a memory whose decay is fitted anew for each packet and tensor.

        P_t = a_t d_{t-1} + b_t P_{t-1}

    with d decoded, and a, b by least squares, quantised and sent. Where a packet sent no coefficient for a tensor, its
    memory takes a step of the plain running mean, P_t = decay P_{t-1} + (1 - decay) d_t, so that it goes on growing
    until it pays. Both ends make it from what was sent and decoded, by elementwise operations.

    For a signal that follows an AR(1) process, seen in white noise, this recursion with constant a and b is the best
    linear predictor from all of the past (steady Kalman filter; a is its gain and a + b the signal's correlation). What
    is fitted is each packet's own coefficients with the memory as it stands, not the best ones in the long run.

    Adaptive Memory chooses the decay of an optimiser's momentum like this from a model of two planes, one of the
    gradient and one of the memory. There gradient and memory share a weight of 1; here each has a weight of its own.

    When not to use it: the memory of a tensor forgets all that a coefficient of zero leaves out, so that one packet
    like the last one (b = 0) ends a long memory. `fitted` keeps its own, at a decay that has to be given.

    References:
        Topollai and Choromanska 2025, "Adaptive Memory Momentum via a Model-Based Framework for Deep Learning
        Optimization", arXiv 2510.04988.
    """

    @override
    def memory(
        self, state: SharedState, decoded: FloatVector, coefficients: Coefficients | None, decay: float
    ) -> FloatVector:
        memory = super().memory(state, decoded, coefficients, decay)
        if coefficients is None or not coefficients.any():
            return memory
        prediction = combine(coefficients, self.basis(state, state.last_step + 1), self.spans, len(decoded))
        for span, units in zip(self.spans, coefficients, strict=True):
            if units.any():
                memory[span] = prediction[span]
        return memory


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
class Ef21(Predictor):
    """The last decoded vector with coefficient 1: error feedback of the EF21 kind.

    h_t = h_{t-1} + C(g_t - h_{t-1}), and h_t is what is decoded: what was lost stays in the difference and is coded
    later, so no other feedback may be added. Contracts whatever the error, but tracks a noisy vector no better than its
    neighbours resemble each other: below a cosine of 1/2 the difference is longer than the vector.

    References:
        Richtarik, Sokolov, Fatkhullin. EF21, 2021, arXiv:2106.05203, algorithm 1.
    """

    num_rows = 1

    @property
    @override
    def spans(self) -> tuple[slice, ...]:
        return (slice(0, self._layout.size),)

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        return tuple(row.numpy() for row in state.rows[-1:])

    @override
    def coefficients(self, vector: FloatVector, basis: Sequence[FloatVector], cost: Cost) -> Coefficients:
        return np.full((1, len(basis)), UNIT, np.int16)


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
        rows, row_steps = state.rows[-self.num_rows :], state.row_steps[-self.num_rows :]
        if len(rows) < self.num_rows:
            return tuple(row.numpy() for row in rows[-1:])
        steps = torch.tensor(row_steps, dtype=torch.int64)
        window = Window(torch.stack(rows), steps, self._layout, self._forecaster.stream)
        try:
            with torch.no_grad():
                forecast = next(iter(self._forecaster.forecast(window, [step - row_steps[-1]])))
        except WindowError:
            return (rows[-1].numpy(),)
        return (forecast.mean.to("cpu", torch.float32).contiguous().numpy(),)


@final
class Combination(_FittedPredictor):
    """The predictions of several rules, with jointly fitted coefficients for each tensor.

    Rules that say the same (early on most do) cost one bit a tensor each: the fit takes one of them.

    Against `fitted`, `("previous", "second_last", "third_last", "momentum")` took 0.72 to 1.00 times the bits on eight
    pairs of stream and error of Adam's updates (geometric mean 0.91), and 0.94 to 1.00 times on eight of gradients
    (0.97); four small nets, batches of 32 and 128, NMSE 0.1 and 0.5, tables by tensor. Each member takes a pass over
    the vector on both ends, two on the encoder's, and a row of memory.

    Args:
        layout: of the coded vector.
        members: rules of one prediction each.
    """

    def __init__(self, layout: Layout, members: Sequence[Predictor]) -> None:
        super().__init__(layout)
        self._members = tuple(members)
        self.num_rows = max(member.num_rows for member in members)
        self.uses_momentum = any(member.uses_momentum for member in members)

    @override
    def basis(self, state: SharedState, step: int) -> tuple[FloatVector, ...]:
        return tuple(column for member in self._members for column in member.basis(state, step))

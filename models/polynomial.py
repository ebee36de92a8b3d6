"""Extrapolation by a polynomial in time, fitted to each coordinate by least squares."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, cast

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Window
from .closed_form import ClosedForm
from .motion import deviations, root_sum_of_squares
from .options import require_integer


class Design(NamedTuple):
    """The least-squares problem of one set of steps; the same for every coordinate.

    With X the powers of time at the rows and X = Q R, the fit's value at time u is c . rows with c = Q R^-T x_u.

    Attributes:
        orthonormal: Q, `[time, degree + 1]`, float64.
        triangular: R, `[degree + 1, degree + 1]`, float64.
        complement: an orthonormal basis of what no such polynomial can express, `[time - degree - 1, time]`.
        span: optimiser steps from the oldest to the newest row; the unit of time, which is 0 at the middle.
    """

    orthonormal: Tensor
    triangular: Tensor
    complement: Tensor
    span: float

    @classmethod
    def of(cls, steps: Tensor, degree: int) -> "Design":
        """The problem of rows at `steps`, `[time]`, evenly spaced or not."""
        back = (steps - steps[-1]).to(device="cpu", dtype=torch.float64)
        span = float(-back[0]) or 1.0  # one row has no span; any unit will do
        powers = _powers(back / span + 0.5, degree + 1)
        everything, triangular = torch.linalg.qr(powers, mode="complete")
        num_terms = degree + 1
        return cls(everything[:, :num_terms], triangular[:num_terms], everything[:, num_terms:].T, span)

    def weights(self, horizon: int) -> Tensor:
        """What each row counts for in the value `horizon` steps after the newest, `[time]`, float64; their sum is 1."""
        time = torch.tensor([horizon / self.span + 0.5], dtype=torch.float64)
        powers = _powers(time, len(self.triangular)).T
        return (self.orthonormal @ torch.linalg.solve_triangular(self.triangular.T, powers, upper=False)).squeeze(1)


def _powers(time: Tensor, num_terms: int) -> Tensor:
    """1, t, t^2, ..., `[time, num_terms]`."""
    return time.unsqueeze(1) ** torch.arange(num_terms)


class PolynomialFit:
    """The polynomials through one window; `at` gives the forecast of one horizon.

    Args:
        window: evenly spaced or not, at least `degree + 1` rows.
        degree: of the polynomials.
    """

    def __init__(self, window: Window, degree: int) -> None:
        self.window = window
        self.degree = degree
        self.design = Design.of(window.steps, degree)
        self.deviations = deviations(window)

    def _combine(self, weights: Tensor) -> Tensor:
        """Rows of weights, `[..., time]`, applied to the rows; the newest row's own deviation is zero."""
        return weights[..., :-1].to(self.deviations) @ self.deviations

    @cached_property
    def _noise(self) -> Tensor | None:
        """s, the standard deviation of a row about the fit, `[param]`; None where the fit goes through every row."""
        freedom = len(self.design.complement)
        if freedom == 0:
            return None
        return root_sum_of_squares(self._combine(self.design.complement)) / freedom**0.5

    def at(self, horizon: int) -> Forecast:
        """The forecast `horizon` steps after the window."""
        weights = self.design.weights(horizon)
        mean = self.window.last.to(self.deviations) + self._combine(weights)
        if self._noise is not None:
            scale = self._noise * float(1 + weights @ weights) ** 0.5  # c.c = x_u' (X'X)^-1 x_u
        else:
            lower = Design.of(self.window.steps, self.degree - 1).weights(horizon)
            scale = self._combine(weights - lower).abs()
        dtype = self.window.values.dtype
        return Forecast(horizon, mean.to(dtype), scale.to(dtype))


class PolynomialForecaster(ClosedForm):
    """Least-squares polynomials of degree `order`, one a coordinate, over rows of any spacing.

    mean = last + sum_i c_i (row_i - last). The weights c depend on the steps only and are computed in float64, so the
    cost for each coordinate is one short inner product.

    scale = s sqrt(1 + x' (X'X)^-1 x), the standard error of prediction of least squares, with s^2 = RSS / (rows -
    order - 1). It takes the rows' noise as independent and the polynomial as true: expect it too small at long
    horizons, where curvature dominates. With exactly `order + 1` rows nothing is left to estimate noise from; then
    scale = |difference from the fit of one degree less|, as in the embedded pairs of ODE solvers.

    Args:
        history: rows in the window, at least `order + 1`. More rows average noise away but follow curvature later.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
    """

    def __init__(self, history: int = 5, stream: str = "weights") -> None:
        super().__init__(stream)
        self.history = require_integer("history", history, self._degree + 1)

    @property
    def _degree(self) -> int:
        return cast(int, self.order)  # every subclass sets it

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"history": self.history, "stream": self.stream}

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        fit = PolynomialFit(window, self._degree)
        for horizon in horizons:
            yield fit.at(horizon)

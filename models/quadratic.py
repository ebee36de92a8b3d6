"""Parabolas through the recent past."""

from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from .options import require_integer, require_positive
from .polynomial import PolynomialFit, PolynomialForecaster
from .rows import gram


@final
class Quadratic(PolynomialForecaster):
    """A least-squares parabola for each coordinate; see `PolynomialForecaster` for formulas and scale.

    It pays on smooth curves only: the noise of the curvature grows with the horizon squared. With the default five rows
    and a horizon of one spacing the weights' squares sum to 4.6, against 1.1 for the line.

    The curvature of a tensor can be limited, as in Leap+Verify (McEntire 2026, arXiv 2602.19580), whose code allows its
    norm half of the velocity's. Here, with v the slope of the least-squares line and a the second derivative of the
    parabola, both `[param]`, and D the mean number of steps between rows, the forecast of each tensor is

        line + f (parabola - line),    f = min(1, curvature_limit |v| / (|a| D)),

    so that the change of velocity over one row is at most that multiple of the velocity. Where the limit does not bind
    the parabola is exact; as it tightens, the forecast becomes `linear`'s. (Leap+Verify takes velocities from
    neighbouring rows, which three rows allow and more rows do not need.) The scale is the unlimited parabola's, plus
    nothing for what was cut off.

    Args:
        history: rows in the window, at least 3. More rows average noise away but follow curvature later.
        curvature_limit: most of the velocity that its change per row may be, for each tensor; None for no limit.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
    """

    name: ClassVar[str] = "quadratic"
    order: int | None = 2

    def __init__(self, history: int = 5, curvature_limit: float | None = None, stream: str = "weights") -> None:
        super().__init__(history, stream)
        self.history = require_integer("history", history, 3)
        self.curvature_limit = None if curvature_limit is None else require_positive("curvature_limit", curvature_limit)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"history": self.history, "curvature_limit": self.curvature_limit, "stream": self.stream}

    @override
    def _coefficients(self, fit: PolynomialFit, horizon: int) -> Tensor:
        parabola = fit.coefficients(horizon)
        if self.curvature_limit is None:
            return parabola
        line = fit.lower_coefficients(horizon)
        share = _share_of_curvature(fit, self.curvature_limit)
        return line + share.unsqueeze(1) * (parabola - line)


def _share_of_curvature(fit: PolynomialFit, limit: float) -> Tensor:
    """f for each tensor, `[tensor]`, float64; 1 where there is no curvature."""
    window = fit.window
    spacing = float(window.steps[-1] - window.steps[0]) / (len(window) - 1)
    # v D and a D^2, from the values of line and parabola at the newest row and one row to either side of it.
    velocity = fit.lower_coefficients(spacing) - fit.lower_coefficients(0.0)
    later, now, sooner = (fit.coefficients(time) for time in (spacing, 0.0, -spacing))
    products = gram(window)
    speed, bend = (((c @ products) @ c).clamp(min=0).sqrt() for c in (velocity, later - 2 * now + sooner))
    return torch.where(bend > limit * speed, limit * speed / bend, 1.0)

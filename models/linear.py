"""Straight lines through the recent past."""

from typing import ClassVar, final

from .polynomial import PolynomialForecaster


@final
class Linear(PolynomialForecaster):
    """A least-squares line for each coordinate; see `PolynomialForecaster` for formulas, scale and options.

    The usual reference among weight nowcasters ("linear curve fit" in Jang et al. 2023, ICML, table 4). On noisy
    weights it can lose to persistence, because the slope's noise is multiplied by the horizon: use more history, or
    rows further apart.
    """

    name: ClassVar[str] = "linear"
    order: int | None = 1

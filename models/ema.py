"""Exponential averaging of the rows, and its trend."""

from collections.abc import Callable
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Window
from .options import require_flag, require_integer, require_positive, require_share
from .row_combination import RowCombination


@final
class EMA(RowCombination):
    """Rows averaged with weights that fall by `decay` from row to row into the past; with a trend if asked for.

    Row i, n - 1 - i rows before the newest, has weight p_i = decay^(n - 1 - i).

    * Without extrapolation, mean = sum_i p_i row_i / sum_i p_i: the exponential moving average, started at the window's
      oldest row without the bias of a start at zero. It lags behind on a drift and proposes the same point for every
      horizon.
    * With extrapolation, the value at the horizon of the line with the least squares weighted by p. That is Brown's
      double exponential smoothing (Brown 1963, "Smoothing, Forecasting and Prediction of Discrete Time Series", chapter
      9: discounted least squares) on a history of finite length. Level and trend by the usual recursions are its limit
      for an infinite one; from a short start they are exact on no line, and this is on every one, for rows evenly
      spaced or not. With decay 1 it is `linear`.

    The scale is that of `RowCombination`.

    Tuning: a smaller decay follows faster and averages less. The sum of the weights, at most 1 / (1 - decay), is the
    number of rows that count; rows further back than three times that may as well be left out of `history`.

    Args:
        decay: of the weight per row, above 0 and at most 1.
        extrapolate: whether to continue the trend.
        history: rows in the window, at least 2.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
    """

    name: ClassVar[str] = "ema"

    def __init__(
        self, decay: float = 0.7, extrapolate: bool = False, history: int = 5, stream: str = "weights"
    ) -> None:
        super().__init__(stream)
        self.decay = require_share("decay", require_positive("decay", decay))
        self.extrapolate = require_flag("extrapolate", extrapolate)
        self.history = require_integer("history", history, 2)
        self.order = int(self.extrapolate)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "decay": self.decay,
            "extrapolate": self.extrapolate,
            "history": self.history,
            "stream": self.stream,
        }

    @override
    def _rule(self, window: Window) -> Callable[[int], Tensor]:
        age = torch.arange(len(window) - 1, -1, -1, dtype=torch.float64)
        share = self.decay**age
        share = share / share.sum()
        if not self.extrapolate:
            return lambda horizon: share[:-1]
        time = (window.steps - window.steps[-1]).to(device="cpu", dtype=torch.float64)
        middle = share @ time
        centred = time - middle
        slope = share * centred / (share @ centred.square())
        return lambda horizon: (share + slope * (horizon - middle))[:-1]

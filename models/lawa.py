"""The mean of the latest rows, and the line through the means of their halves."""

from collections.abc import Callable
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Window
from .options import require_flag, require_integer
from .row_combination import RowCombination


@final
class LAWA(RowCombination):
    """Latest weight averaging: all rows of the window count the same; with a trend if asked for.

    * Without extrapolation, mean = the mean of the rows (Kaddour 2022, "Stop Wasting My Time! Saving Days of ImageNet
      and BERT Training with Latest Weight Averaging", arXiv 2209.14981: the latest six epochs). It lags behind on a
      drift by half the window and proposes the same point for every horizon.
    * With extrapolation, the line through the means of the newest and of the oldest half, at the horizon: mean of the
      newest half + slope (horizon + its mean age). Exact on lines, for rows evenly spaced or not; the middle one of an
      odd number of rows does not count. (Wald 1940, Annals of Mathematical Statistics 11(3), 284-300, fits lines like
      this.) Its slope has a third more noise variance than that of least squares.

    The scale is that of `RowCombination`.

    Tuning: more rows average more noise away and lag further behind; in the paper 6 were best and more than 16 harmful,
    a row being an epoch. Early in training averaging hurts.

    Args:
        extrapolate: whether to continue the trend.
        history: how many rows to average, at least 2.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
    """

    name: ClassVar[str] = "lawa"

    def __init__(self, extrapolate: bool = False, history: int = 6, stream: str = "weights") -> None:
        super().__init__(stream)
        self.extrapolate = require_flag("extrapolate", extrapolate)
        self.history = require_integer("history", history, 2)
        self.order = int(self.extrapolate)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"extrapolate": self.extrapolate, "history": self.history, "stream": self.stream}

    @override
    def _rule(self, window: Window) -> Callable[[int], Tensor]:
        num_rows = len(window)
        if not self.extrapolate:
            uniform = torch.full((num_rows - 1,), 1 / num_rows, dtype=torch.float64)
            return lambda horizon: uniform
        half = num_rows // 2
        newest, oldest = torch.zeros(2, num_rows, dtype=torch.float64)
        newest[-half:] = oldest[:half] = 1 / half
        time = (window.steps - window.steps[-1]).to(device="cpu", dtype=torch.float64)
        slope = (newest - oldest) / ((newest - oldest) @ time)
        return lambda horizon: (newest + slope * (horizon - newest @ time))[:-1]

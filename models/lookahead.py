"""Lookahead: part of the way from slow to fast weights."""

from collections.abc import Callable
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Window
from .options import require_integer, require_positive
from .row_combination import RowCombination


@final
class Lookahead(RowCombination):
    """slow + alpha (fast - slow), the newest row being the fast weights and the oldest the slow ones.

    Lookahead (Zhang, Lucas, Hinton and Ba 2019, "Lookahead Optimizer: k steps forward, 1 step back", arXiv 1907.08610,
    algorithm 1) lets an inner optimiser make k steps, then takes its weights back to this point and goes on from
    there. Here it is a proposal: the window is one round, and k the steps from its oldest to its newest row.

    It proposes the same point for every horizon: it tells where to go on from, not where training will be. The scale,
    see `RowCombination`, grows with the horizon all the same.

    Tuning: alpha below 1 averages noise away (0.5 in the paper, 0.8 in the authors' code), alpha = 1 changes nothing,
    alpha above 1 extrapolates the round's displacement. `outer_momentum` adds a memory of earlier rounds.

    Args:
        alpha: the step from slow to fast, above 0.
        history: rows in the window, at least 2; those between the oldest and the newest change only the scale.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
    """

    name: ClassVar[str] = "lookahead"
    order: int | None = 0

    def __init__(self, alpha: float = 0.5, history: int = 2, stream: str = "weights") -> None:
        super().__init__(stream)
        self.alpha = require_positive("alpha", alpha)
        self.history = require_integer("history", history, 2)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"alpha": self.alpha, "history": self.history, "stream": self.stream}

    @override
    def _rule(self, window: Window) -> Callable[[int], Tensor]:
        coefficients = torch.zeros(len(window) - 1, dtype=torch.float64)
        coefficients[0] = 1 - self.alpha
        return lambda horizon: coefficients

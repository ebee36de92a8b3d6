"""How good forecasts are, measured against doing nothing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cases import Case
from .errors import WindowError
from .forecaster import Forecaster
from .layout import Layout


@dataclass(frozen=True)
class HorizonSkill:
    """Scores of one forecaster at one horizon.

    Attributes:
        horizon: optimiser steps ahead.
        skill: 1 - MSE / MSE of persistence, over all cases and coordinates. 1 is perfect, 0 is no better than the last
            row, below 0 is worse. -inf where nothing moved and the forecaster moved all the same; 0 where neither did.
        skill_per_tensor: the same within each tensor, by name.
        coverage: share of coordinates whose truth lies within one scale of the mean; 0.68 if errors were Gaussian and
            the scale right. Coordinates that neither moved nor were forecast to move are left out; NaN if none is left.
        num_cases: how many windows were scored.
        seconds_per_forecast: wall-clock seconds for one forecast of this horizon.
    """

    horizon: int
    skill: float
    skill_per_tensor: dict[str, float]
    coverage: float
    num_cases: int
    seconds_per_forecast: float


def score(forecaster: Forecaster, cases: Sequence[Case]) -> list[HorizonSkill]:
    """Skill of a forecaster on cases with known answers, for each horizon of theirs.

    Skill on cases that the forecaster was fitted to is no skill; keep those apart.

    Args:
        forecaster: fitted, of the cases' stream.
        cases: at least one, all with the same horizons and layout.

    Returns:
        One entry a horizon, in ascending order.

    Raises:
        WindowError: if there is no case, or horizons differ between cases.
    """
    if not cases:
        raise WindowError("Skill needs at least one case. Record more rows or ask for shorter horizons.")
    horizons = sorted(cases[0].targets)
    layout = cases[0].window.layout
    tallies = {horizon: _Tally(layout) for horizon in horizons}
    for case in cases:
        if sorted(case.targets) != horizons:
            raise WindowError(f"All cases must have horizons {horizons}, got {sorted(case.targets)}.")
        forecasts = forecaster.forecast(case.window, horizons)
        for horizon in horizons:
            begin = time.perf_counter()
            forecast = next(forecasts)
            seconds = time.perf_counter() - begin
            tallies[horizon].add(case.window.last, forecast.mean, forecast.scale, case.targets[horizon], seconds)
    return [tallies[horizon].result(horizon) for horizon in horizons]


class _Tally:
    """Sums over cases, for each tensor of a layout, in float64."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._error = torch.zeros(len(layout), dtype=torch.float64)
        self._persistence = torch.zeros(len(layout), dtype=torch.float64)
        self._inside = 0
        self._moving = 0
        self._seconds = 0.0
        self._num_cases = 0

    def add(self, last: Tensor, mean: Tensor, scale: Tensor, truth: Tensor, seconds: float) -> None:
        error = (mean - truth).abs()
        moved = (last - truth).abs()
        for index, spec in enumerate(self._layout):
            self._error[index] += error[spec.span].double().square().sum()
            self._persistence[index] += moved[spec.span].double().square().sum()
        moving = (moved > 0) | (error > 0) | (scale > 0)
        self._inside += int(((error <= scale) & moving).sum())
        self._moving += int(moving.sum())
        self._seconds += seconds
        self._num_cases += 1

    def result(self, horizon: int) -> HorizonSkill:
        per_tensor = {
            spec.name: _skill(float(self._error[index]), float(self._persistence[index]))
            for index, spec in enumerate(self._layout)
        }
        return HorizonSkill(
            horizon=horizon,
            skill=_skill(float(self._error.sum()), float(self._persistence.sum())),
            skill_per_tensor=per_tensor,
            coverage=self._inside / self._moving if self._moving else float("nan"),
            num_cases=self._num_cases,
            seconds_per_forecast=self._seconds / self._num_cases,
        )


def _skill(error: float, persistence: float) -> float:
    if persistence > 0:
        return 1.0 - error / persistence
    return 0.0 if error == 0 else float("-inf")

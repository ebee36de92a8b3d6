"""How good forecasts are, measured against doing nothing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .case import Case
from .errors import WindowError
from .forecaster import Forecaster
from .tally import NOTHING, Sums, sums_by_group


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
    names = cases[0].window.layout.names
    totals = {horizon: dict.fromkeys(names, NOTHING) for horizon in horizons}
    seconds = dict.fromkeys(horizons, 0.0)
    for case in cases:
        if sorted(case.targets) != horizons:
            raise WindowError(f"All cases must have horizons {horizons}, got {sorted(case.targets)}.")
        forecasts = forecaster.forecast(case.window, horizons)
        for horizon in horizons:
            begin = time.perf_counter()
            forecast = next(forecasts)
            seconds[horizon] += time.perf_counter() - begin
            for name, sums in sums_by_group(names, forecast, case).items():
                totals[horizon][name] = totals[horizon][name].plus(sums)
    return [_result(horizon, totals[horizon], len(cases), seconds[horizon] / len(cases)) for horizon in horizons]


def _result(horizon: int, sums: dict[str, Sums], num_cases: int, seconds_per_forecast: float) -> HorizonSkill:
    total = NOTHING
    for own in sums.values():
        total = total.plus(own)
    return HorizonSkill(
        horizon=horizon,
        skill=_skill(total.squared_error, total.persistence),
        skill_per_tensor={name: _skill(own.squared_error, own.persistence) for name, own in sums.items()},
        coverage=total.within_one / total.moving if total.moving else float("nan"),
        num_cases=num_cases,
        seconds_per_forecast=seconds_per_forecast,
    )


def _skill(error: float, persistence: float) -> float:
    if persistence > 0:
        return 1.0 - error / persistence
    return 0.0 if error == 0 else float("-inf")

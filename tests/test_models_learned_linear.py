"""The learned linear combination."""

from dataclasses import replace

import pytest
import torch
from problems import cases_of, drifting_rows, flat_layout, small_layout, window_of
from torch import Tensor

from deadreckon.forecast import Case, Layout, score
from deadreckon.forecast.errors import WindowError
from deadreckon.models import Budget, FittingError, LearnedLinear, Linear, fit_forecaster
from deadreckon.models.fitting import FitReport

BUDGET = Budget(iterations=1)


def fit(forecaster: LearnedLinear, cases: list[Case]) -> FitReport:
    return fit_forecaster(forecaster, cases, BUDGET, torch.Generator().manual_seed(0))


def autoregressive_rows(num_rows: int, coefficients: Tensor, num_parameters: int, seed: int = 0) -> Tensor:
    """Rows with row_{t+1} = row_t + sum_i a_i (row_i - row_t), the sum over the `len(a)` rows before row_t."""
    rows = list(torch.randn(len(coefficients) + 1, num_parameters, generator=torch.Generator().manual_seed(seed)))
    while len(rows) < num_rows:
        before = torch.stack(rows[-1 - len(coefficients) : -1]) - rows[-1]
        rows.append(rows[-1] + coefficients.to(before) @ before)
    return torch.stack(rows)


# Roots of modulus below 1 beside the root 1 that every such combination has: oscillates and settles.
KNOWN = torch.tensor([-0.30, 0.55, 0.70])


def test_recovers_a_known_combination() -> None:
    """On rows that follow a linear recursion, the coefficients found at one step ahead are those of the recursion."""
    rows = autoregressive_rows(24, KNOWN, 50)
    forecaster = LearnedLinear(history=4, per="all")
    report = fit(forecaster, cases_of(rows, range(24), 4, [1, 2], flat_layout(50)))
    coefficients = forecaster.state_dict()["coefficients"]
    torch.testing.assert_close(coefficients[0, 0], KNOWN.double(), rtol=0, atol=1e-3)
    assert report.stopped == "solved"
    assert report.iterations == 1
    assert report.validation_error < 1e-6
    for case in cases_of(autoregressive_rows(12, KNOWN, 50, seed=9), range(12), 4, [1, 2], flat_layout(50)):
        for forecast in forecaster.forecast(case.window, [1, 2]):
            torch.testing.assert_close(forecast.mean, case.targets[forecast.horizon], rtol=0, atol=1e-3)


def test_each_tensor_and_kind_finds_its_own_combination() -> None:
    """Tensors that follow unlike recursions are told apart by `tensor`, those of unlike kinds by `kind`."""
    layout = small_layout({"a.weight": (40,), "b.weight": (40,), "c.bias": (40,)})
    other = torch.tensor([0.2, 0.1, 0.5])
    rows = torch.cat([autoregressive_rows(24, KNOWN, 80), autoregressive_rows(24, other, 40)], dim=1)
    cases = cases_of(rows, range(24), 4, [1], layout)
    errors = {}
    for per in ("tensor", "kind", "all"):
        forecaster = LearnedLinear(history=4, per=per)
        errors[per] = fit(forecaster, cases).validation_error
    by_tensor, by_kind = LearnedLinear(history=4, per="tensor"), LearnedLinear(history=4, per="kind")
    fit(by_tensor, cases)
    fit(by_kind, cases)
    torch.testing.assert_close(by_tensor.state_dict()["coefficients"][0, 3], other.double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(by_kind.state_dict()["coefficients"][0, 1], KNOWN.double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(by_kind.state_dict()["coefficients"][0, 2], other.double(), rtol=0, atol=1e-3)
    assert errors["tensor"] < 1e-6
    assert errors["kind"] < 1e-6
    assert errors["all"] > 1e-3


def test_small_and_unknown_tensors_use_the_coefficients_of_all() -> None:
    """A tensor with too few numbers to learn from has no group of its own; nor has one of another network."""
    layout = small_layout({"a.weight": (60,), "b.bias": (2,)})
    rows = drifting_rows(20, 62, torch.Generator().manual_seed(0))
    forecaster = LearnedLinear(history=4)
    fit(forecaster, cases_of(rows, range(20), 4, [1], layout))
    state = forecaster.state_dict()
    assert bytes(state["groups"].tolist()) == b'["", "a.weight"]'
    window = window_of(rows[:4], range(4), small_layout({"other": (62,)}))
    (forecast,) = forecaster.forecast(window, [1])
    expected = rows[3] + state["coefficients"][0, 0].float() @ (rows[:3] - rows[3])
    torch.testing.assert_close(forecast.mean, expected)


def test_beats_hold_and_the_line_on_correlated_increments() -> None:
    """On a random walk with increments correlated by 0.8, skill on later cases is near the best possible."""
    layout = flat_layout(60)
    rows = drifting_rows(120, 60, torch.Generator().manual_seed(1))
    cases = cases_of(rows, range(0, 240, 2), 5, [2, 10], layout)
    forecaster = LearnedLinear()
    report = fit(forecaster, cases[:70])
    # The best forecast of the next increment is 0.8 of the last: 0.64 of its variance.
    one, five = (result.skill for result in score(forecaster, cases[75:]))
    line_one, line_five = (result.skill for result in score(Linear(), cases[75:]))
    assert 0.58 < one < 0.68
    assert one > line_one + 0.05
    assert five > line_five + 0.05
    assert abs(report.validation_error - (1 - (one + five) / 2)) < 0.1


def test_persistence_is_chosen_where_nothing_can_be_learned() -> None:
    """On a pure random walk the coefficients are next to zero: no worse than persistence."""
    layout = flat_layout(40)
    rows = torch.randn(60, 40, generator=torch.Generator().manual_seed(2)).cumsum(0)
    cases = cases_of(rows, range(60), 5, [1, 8], layout)
    forecaster = LearnedLinear()
    fit(forecaster, cases[:30])
    for result in score(forecaster, cases[38:]):
        assert result.skill > -0.02


def test_scale_covers_what_it_says() -> None:
    """On later cases of the same kind about two thirds of the truths lie within one scale, at every horizon."""
    rows = drifting_rows(150, 60, torch.Generator().manual_seed(3))
    cases = cases_of(rows, range(150), 5, [1, 4], flat_layout(60))
    forecaster = LearnedLinear()
    fit(forecaster, cases[:80])
    for result in score(forecaster, cases[84:]):
        assert 0.55 < result.coverage < 0.75


def test_between_trained_horizons_it_interpolates() -> None:
    """Mean and squared scale are linear in the horizon between trained ones, and start from the last row at 0."""
    rows = drifting_rows(60, 30, torch.Generator().manual_seed(4))
    forecaster = LearnedLinear()
    cases = cases_of(rows, range(0, 120, 2), 5, [4, 12], flat_layout(30))
    fit(forecaster, cases)
    window = cases[-1].window
    at = {forecast.horizon: forecast for forecast in forecaster.forecast(window, [1, 4, 6, 12])}
    torch.testing.assert_close(at[1].mean, window.last + (at[4].mean - window.last) / 4)
    torch.testing.assert_close(at[6].mean, at[4].mean * 0.75 + at[12].mean * 0.25)
    torch.testing.assert_close(at[1].scale ** 2, at[4].scale ** 2 / 4)
    torch.testing.assert_close(at[6].scale ** 2, at[4].scale ** 2 * 0.75 + at[12].scale ** 2 * 0.25)


def test_other_spacings_and_longer_horizons_are_refused() -> None:
    """The coefficients hold for the spacing they were fitted at, and up to the largest trained horizon."""
    rows = drifting_rows(40, 30, torch.Generator().manual_seed(5))
    forecaster = LearnedLinear(history=3)
    fit(forecaster, cases_of(rows, range(0, 80, 2), 3, [4], flat_layout(30)))
    with pytest.raises(WindowError, match="Fitted to rows 2 steps apart, got 3 steps. Fit it anew"):
        forecaster.forecast(window_of(rows[:3], [0, 3, 6]), [1])
    with pytest.raises(WindowError, match="evenly spaced"):
        forecaster.forecast(window_of(rows[:3], [0, 2, 6]), [1])
    with pytest.raises(WindowError, match="Fitted up to horizon 4, got 5"):
        forecaster.forecast(window_of(rows[:3], [0, 2, 4]), [1, 5])


def test_cases_of_unlike_spacing_are_refused() -> None:
    """Windows of two spacings cannot be fitted together, and leave the forecaster as it was."""
    rows = drifting_rows(40, 30, torch.Generator().manual_seed(5))
    layout: Layout = flat_layout(30)
    cases = cases_of(rows, range(40), 3, [6], layout)[:8] + cases_of(rows, range(0, 120, 3), 3, [6], layout)[:8]
    forecaster = LearnedLinear(history=3)
    with pytest.raises(FittingError, match=r"equally far apart, got spacings \[1, 3\]"):
        fit(forecaster, cases)
    assert not forecaster.fitted


def test_overflowing_cases_are_refused() -> None:
    """Values whose squares exceed float64 are refused, not fitted to garbage."""
    rows = drifting_rows(20, 10, torch.Generator().manual_seed(6)).double() * 1e200
    forecaster = LearnedLinear(history=3)
    with pytest.raises(FittingError, match="too large to fit"):
        fit(forecaster, cases_of(rows, range(20), 3, [1], flat_layout(10)))
    assert not forecaster.fitted


def test_tensors_that_stand_still_do_no_harm() -> None:
    """A tensor that never moves is forecast to stay, with a scale of zero, and spoils nothing for the others."""
    layout = small_layout({"a.weight": (40,), "b.weight": (40,)})
    rows = drifting_rows(40, 80, torch.Generator().manual_seed(7))
    rows[:, 40:] = 2.0
    cases = cases_of(rows, range(40), 4, [1, 3], layout)
    forecaster = LearnedLinear(history=4)
    assert fit(forecaster, cases[:30]).validation_error < 0.9
    for forecast in forecaster.forecast(cases[-1].window, [1, 2, 3]):
        assert torch.equal(forecast.mean[40:], torch.full((40,), 2.0))
        assert torch.equal(forecast.scale[40:], torch.zeros(40))
        assert bool((forecast.scale[:40] > 0).all())


def test_a_case_counts_the_same_in_any_unit() -> None:
    """Some cases in a unit a thousand times larger change neither coefficients nor errors."""
    rows = drifting_rows(40, 30, torch.Generator().manual_seed(8)).double()
    cases = cases_of(rows, range(40), 4, [1, 3], flat_layout(30))
    large = [
        Case(
            replace(case.window, values=case.window.values * 1000),
            {horizon: target * 1000 for horizon, target in case.targets.items()},
        )
        if index % 2
        else case
        for index, case in enumerate(cases)
    ]
    plain, mixed = LearnedLinear(history=4), LearnedLinear(history=4)
    errors = [fit(plain, cases).validation_error, fit(mixed, large).validation_error]
    assert errors[1] == pytest.approx(errors[0])
    torch.testing.assert_close(mixed.state_dict()["coefficients"], plain.state_dict()["coefficients"])


def test_slow_cases_count_as_much_as_fast_ones() -> None:
    """A run whose later motion is a thousandth of its earlier one is fitted for the later one as well."""
    fast, slow = autoregressive_rows(14, KNOWN, 30), autoregressive_rows(40, torch.tensor([0.2, 0.1, 0.5]), 30) * 1e-3
    layout = flat_layout(30)
    slow_cases = cases_of(slow, range(40), 4, [1], layout)[:18]
    forecaster = LearnedLinear(history=4)
    fit(forecaster, cases_of(fast, range(14), 4, [1], layout) + slow_cases)
    shifted = [replace(case) for case in slow_cases]
    assert score(forecaster, shifted)[0].skill > 0.5

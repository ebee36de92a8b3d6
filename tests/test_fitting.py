"""Fitting learned forecasters: what is refused, what is promised."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from problems import cases_of, drifting_rows, flat_layout, small_layout, window_of

from deadreckon.forecast import Case
from deadreckon.models import (
    Budget,
    FittableForecaster,
    FittingError,
    ModelError,
    fit_forecaster,
    learned_names,
    make_forecaster,
)
from deadreckon.models.fitting import Examples, relative_error

LAYOUT = flat_layout(40)
HISTORY = 12  # rows; more than any of them needs by default
BUDGET = Budget(iterations=10)
every_learned = pytest.mark.parametrize("name", learned_names())


def some_cases(history: int = HISTORY, stream: str = "weights") -> list[Case]:
    rows = drifting_rows(50, 40, torch.Generator().manual_seed(0))
    return cases_of(rows, range(50), history, [1, 4], LAYOUT, stream, with_graph=True)


def make(name: str, **options: object) -> FittableForecaster:
    forecaster = make_forecaster(name, **options)
    assert isinstance(forecaster, FittableForecaster)
    return forecaster


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def _fitted(name: str) -> FittableForecaster:
    forecaster = make(name)
    fit_forecaster(forecaster, some_cases(), BUDGET, seeded())
    return forecaster


def fitted(name: str) -> FittableForecaster:
    """Fitted to `some_cases()` once, and a copy each time."""
    return copy.deepcopy(_fitted(name))


@every_learned
def test_fits_are_reproducible(name: str) -> None:
    """Equal cases, seeds and iterations give bit-equal forecasters and errors."""
    first, second = make(name), make(name)
    reports = [fit_forecaster(forecaster, some_cases(), BUDGET, seeded(3)) for forecaster in (first, second)]
    assert first.state_dict().keys() == second.state_dict().keys()
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    assert reports[0].validation_error == reports[1].validation_error
    assert reports[0].training_error == reports[1].training_error


@every_learned
def test_reports_tell_what_was_spent(name: str) -> None:
    """Seconds are positive, errors are those relative to persistence, and the reason for stopping is named."""
    report = fit_forecaster(make(name), some_cases(), BUDGET, seeded())
    assert report.wall_seconds > 0
    assert report.cpu_seconds > 0
    assert 0 < report.training_error < 1
    assert 0 < report.validation_error < 1.5
    assert (report.stopped, report.iterations) in (("solved", 1), ("iterations", 10))


@every_learned
def test_fitting_works_where_gradients_are_off(name: str) -> None:
    """Under `no_grad` and inference mode, as in a callback, a fit gives what it gives outside."""
    plain = fitted(name)
    modes: list[Callable[[], torch.no_grad | torch.inference_mode]] = [torch.no_grad, torch.inference_mode]
    for mode in modes:
        inside = make(name)
        with mode():
            fit_forecaster(inside, some_cases(), BUDGET, seeded())
        for key, value in plain.state_dict().items():
            assert torch.equal(value, inside.state_dict()[key])


@every_learned
def test_the_newest_cases_validate(name: str) -> None:
    """Garbage in the targets of the newest quarter changes the validation error, not the training error."""
    cases = some_cases()
    spoilt = [
        case
        if index < len(cases) * 0.75
        else Case(case.window, {horizon: -target for horizon, target in case.targets.items()})
        for index, case in enumerate(cases)
    ]
    examples = Examples.of(spoilt, make(name))
    assert examples.num_training == len(cases) - round(len(cases) / 4)
    report = fit_forecaster(make(name), spoilt, BUDGET, seeded())
    assert report.validation_error > 0.9


def spoil(change: Callable[[Case], Case], index: int = 3) -> list[Case]:
    cases = some_cases()
    return [*cases[:index], change(cases[index]), *cases[index + 1 :]]


def not_a_number(case: Case) -> Case:
    values = case.window.values.clone()
    values[-2, 2] = torch.nan
    return Case(replace(case.window, values=values), case.targets)


def infinite_target(case: Case) -> Case:
    return Case(case.window, case.targets | {4: torch.full((40,), torch.inf)})


def still(cases: list[Case]) -> list[Case]:
    return [Case(replace(case.window, values=torch.ones_like(case.window.values)), case.targets) for case in cases]


BAD_CASES = {
    "too few": (some_cases()[:3], "needs at least 4 cases, got 3"),
    "none": ([], "needs at least 4 cases, got 0"),
    "no targets": ([Case(case.window, {}) for case in some_cases()], "The cases have no targets"),
    "another stream": (some_cases(stream="gradients"), "Case 0 is of 'gradients', expected 'weights'"),
    "too short": (some_cases(history=1), "Case 0 has 1 rows, .* are needed"),
    "other horizons": (
        spoil(lambda case: Case(case.window, {1: case.targets[1]})),
        r"Case 3 has horizons \[1\], the first has \[1, 4\]",
    ),
    "nan": (spoil(not_a_number), "Case 3, at step 14, holds values that are not finite"),
    "infinite target": (spoil(infinite_target), "Case 3, at step 14, holds values that are not finite"),
    "standing still": (still(some_cases()), "Nothing moves in any of the .* training cases"),
    "standing still at the end": (some_cases()[:12] + still(some_cases()[12:16]), "in any of the 4 validation cases"),
}


@every_learned
@pytest.mark.parametrize("problem", BAD_CASES)
def test_cases_that_do_not_do_are_refused(name: str, problem: str) -> None:
    """Each way in which cases can be unfit is named, and leaves the forecaster as it was, fitted or not."""
    cases, message = BAD_CASES[problem]
    fresh, used = make(name), fitted(name)
    before = used.state_dict()
    for forecaster in (fresh, used):
        with pytest.raises(FittingError, match=message):
            fit_forecaster(forecaster, cases, BUDGET, seeded())
    assert not fresh.fitted
    for key, value in used.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    "options", [{"name": "learned_linear", "per": "tensor"}, {"name": "neural_ode", "coordinates": "pca"}]
)
def test_what_is_bound_to_one_network_refuses_others(options: dict) -> None:
    """Coefficients by a tensor's name and principal components of one path are fitted to one layout only."""
    forecaster = make(**options)
    with pytest.raises(FittingError, match="Case 3 has another layout than the first. .* bound to one network"):
        fit_forecaster(forecaster, spoil(of_another_network), BUDGET, seeded())
    assert not forecaster.fitted


@pytest.mark.parametrize(
    "options",
    [
        {"name": "learned_linear", "per": "kind"},
        {"name": "learned_linear", "per": "all"},
        {"name": "adaptive_linear"},
        {"name": "flow_matching"},
        {"name": "neural_ode", "coordinates": "window"},
    ],
)
def test_what_is_shared_by_networks_is_fitted_to_all_of_them(options: dict) -> None:
    """What is learned for kinds of tensors takes cases of several layouts, and forecasts for either."""
    forecaster = make(**options)
    cases = spoil(of_another_network)
    assert fit_forecaster(forecaster, cases, BUDGET, seeded()).validation_error < 1
    for case in cases[2:4]:
        (forecast,) = forecaster.forecast(case.window, [2])
        assert forecast.mean.shape == (case.window.layout.size,)


def of_another_network(case: Case) -> Case:
    layout = small_layout({"one.weight": (5, 3), "one.bias": (5,)})
    targets = {horizon: target[:20] for horizon, target in case.targets.items()}
    return Case(replace(case.window, values=case.window.values[:, :20], layout=layout, graph=None), targets)


def test_some_still_cases_do_no_harm() -> None:
    """Cases in which nothing moves count nothing, and the others are fitted as without them."""
    cases = some_cases()
    mixed = [cases[0], *still(cases[1:3]), *cases[3:]]
    assert Examples.of(mixed, make("learned_linear")).weights[1:3].tolist() == [0.0, 0.0]
    assert fit_forecaster(make("learned_linear"), mixed, BUDGET, seeded()).validation_error < 1


def test_closed_forms_have_nothing_to_fit() -> None:
    """A closed form is refused by name."""
    with pytest.raises(ModelError, match="'linear' has nothing to fit"):
        fit_forecaster(make_forecaster("linear"), some_cases(), BUDGET, seeded())


def test_budgets_are_checked() -> None:
    """A budget allows at least one iteration and some time."""
    with pytest.raises(ModelError, match="`iterations` must be at least 1, got 0"):
        Budget(iterations=0)
    with pytest.raises(ModelError, match="`seconds` must be above 0 or None, got 0"):
        Budget(seconds=0.0)


def test_relative_error_where_nothing_moved() -> None:
    """A horizon without motion counts as one, the others as the quotient."""
    found = relative_error(torch.tensor([1.0, 5.0]), torch.tensor([4.0, 0.0]))
    assert float(found) == (0.25 + 1.0) / 2


def test_longer_windows_are_cut() -> None:
    """Cases with more history than needed are fitted as if they had just enough."""
    exact, longer = make("learned_linear", history=3), make("learned_linear", history=3)
    fit_forecaster(longer, some_cases(history=5), BUDGET, seeded())
    fit_forecaster(exact, some_cases(history=3)[2:], BUDGET, seeded())
    torch.testing.assert_close(longer.state_dict(), exact.state_dict(), rtol=0, atol=0)
    (forecast,) = longer.forecast(window_of(drifting_rows(9, 40, seeded(1))), [2])
    assert bool(torch.isfinite(forecast.mean).all())

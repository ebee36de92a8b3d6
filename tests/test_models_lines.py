"""Fitted scalar extrapolation and the tuned line, against their formulas done by hand."""

import pytest
import torch
from problems import cases_of, drifting_rows, flat_layout, small_layout, window_of
from torch import Tensor

from deadreckon.forecast.errors import NotFittedError, WindowError
from deadreckon.models import Budget, FittingError, ScalarExtrapolation, TunedLine, fit_forecaster
from deadreckon.models.fitting import Examples
from deadreckon.models.motion import random_walk

LAYOUT = small_layout()
HORIZONS = [10, 30, 60]


def rows(seed: int = 0, num_rows: int = 40) -> Tensor:
    return drifting_rows(num_rows, LAYOUT.size, torch.Generator().manual_seed(seed))


def some_cases(history: int, seed: int = 0) -> list:
    return cases_of(rows(seed), range(0, 400, 10), history, HORIZONS, LAYOUT)


def fit(forecaster: ScalarExtrapolation | TunedLine, cases: list | None = None, validation: list | None = None):
    cases = some_cases(forecaster.history) if cases is None else cases
    return fit_forecaster(forecaster, cases, Budget(), torch.Generator(), validation)


def weighted_errors(forecaster, examples: Examples, part: slice) -> tuple[Tensor, Tensor]:
    """Squared errors and those of persistence, summed over cases with their weights, `[horizon]` each."""
    wrong, moved = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for case, weight in zip(examples.cases[part], examples.weights[part], strict=True):
        for index, forecast in enumerate(forecaster.forecast(case.window, HORIZONS)):
            truth = case.targets[forecast.horizon].double()
            wrong[index] += weight * (forecast.mean.double() - truth).square().sum()
            moved[index] += weight * (case.window.last.double() - truth).square().sum()
    return wrong, moved


def test_scalar_extrapolation_is_weighted_least_squares() -> None:
    """Each s is the regression of targets on displacements, cases weighted, as a plain loop finds it."""
    forecaster = ScalarExtrapolation(history=4)
    cases = some_cases(4)
    fit(forecaster, cases)
    examples = Examples.of(cases, forecaster)
    shares = forecaster.state_dict()["shares"]
    for index, horizon in enumerate(HORIZONS):
        above = below = 0.0
        for case, weight in zip(examples.cases[: examples.num_training], examples.weights, strict=False):
            direction = (case.window.last - case.window.values[0]).double()
            above += float(weight * (direction @ (case.targets[horizon] - case.window.last).double()))
            below += float(weight * (direction @ direction))
        assert abs(float(shares[index]) - above / below) < 1e-5


def test_scalar_extrapolation_between_horizons_is_linear() -> None:
    """A horizon between trained ones takes the share between theirs; beyond the longest it refuses."""
    forecaster = ScalarExtrapolation()
    fit(forecaster)
    window = some_cases(5)[0].window
    found = {forecast.horizon: forecast.mean for forecast in forecaster.forecast(window, [10, 20, 30])}
    torch.testing.assert_close(found[20], (found[10] + found[30]) / 2)
    with pytest.raises(WindowError, match="Fitted up to horizon 60, got 61"):
        forecaster.forecast(window, [61])
    stretched = window_of(window.values, range(0, 100, 20), LAYOUT)
    with pytest.raises(WindowError, match="Fitted to rows 10 steps apart, got 20"):
        forecaster.forecast(stretched, [10])


@pytest.mark.parametrize("kind", [ScalarExtrapolation, TunedLine])
def test_lines_are_continued_exactly(kind: type[ScalarExtrapolation] | type[TunedLine]) -> None:
    """Fitted to straight motion, both continue straight motion exactly, with a scale of nothing."""
    speed = torch.linspace(-1, 1, 8)
    straight = torch.arange(40.0).unsqueeze(1) * speed
    cases = cases_of(straight, range(0, 400, 10), 5, HORIZONS, flat_layout(8))
    forecaster = kind()
    report = fit(forecaster, cases)
    assert report.validation_error < 1e-9
    for forecast in forecaster.forecast(cases[0].window, [10, 45]):
        torch.testing.assert_close(forecast.mean, straight[4] + forecast.horizon / 10 * speed, rtol=1e-5, atol=1e-5)
        assert float(forecast.scale.max()) < 1e-3


def test_tuned_line_recovers_gain_and_power() -> None:
    """Motion that follows gain u^power times the slope is found out, to the resolution of the grid."""
    generator = torch.Generator().manual_seed(2)
    cases = []
    for case in some_cases(5):
        slope = torch.randn(LAYOUT.size, generator=generator)
        values = case.window.last + torch.arange(-4.0, 1.0).unsqueeze(1) * slope
        targets = {horizon: values[-1] + 0.7 * (horizon / 10) ** 0.4 * slope for horizon in HORIZONS}
        cases.append(type(case)(window_of(values, case.window.steps.tolist(), LAYOUT), targets))
    forecaster = TunedLine()
    assert fit(forecaster, cases).validation_error < 1e-8
    state = forecaster.state_dict()
    assert abs(float(state["gain"]) - 0.7) < 1e-4
    assert abs(float(state["power"]) - 0.4) < 1e-9


def test_tuned_line_is_the_best_pair() -> None:
    """No other gain or power has a smaller training error, by forecasting with each."""
    forecaster = TunedLine()
    cases = some_cases(5)
    report = fit(forecaster, cases)
    examples = Examples.of(cases, forecaster)
    state = forecaster.state_dict()
    for name, change in (("gain", 0.02), ("gain", -0.02), ("power", 0.05), ("power", -0.05)):
        forecaster.load_state_dict({**state, name: state[name] + change})
        wrong, moved = weighted_errors(forecaster, examples, examples.training)
        assert float((wrong / moved).mean()) > report.training_error


@pytest.mark.parametrize("kind", [ScalarExtrapolation, TunedLine])
def test_reported_errors_are_those_of_forecasts(kind: type[ScalarExtrapolation] | type[TunedLine]) -> None:
    """Training and validation error are what forecasting every case gives."""
    forecaster = kind()
    cases, others = some_cases(5), some_cases(5, seed=9)
    report = fit(forecaster, cases, others)
    examples = Examples.of(cases, forecaster, others)
    for part, reported in ((examples.training, report.training_error), (examples.validation, report.validation_error)):
        wrong, moved = weighted_errors(forecaster, examples, part)
        assert abs(float((wrong / moved).mean()) - reported) < 1e-5


def test_one_horizon_leaves_the_power_at_one() -> None:
    """With one horizon every power fits alike; the line is kept a line."""
    forecaster = TunedLine()
    fit(forecaster, cases_of(rows(), range(0, 400, 10), 5, [30], LAYOUT))
    assert float(forecaster.state_dict()["power"]) == 1.0


@pytest.mark.parametrize("kind", [ScalarExtrapolation, TunedLine])
def test_scale_has_the_size_of_validation_errors(kind: type[ScalarExtrapolation] | type[TunedLine]) -> None:
    """Over the validation cases, squared errors and squared scales have equal sums for each kind and horizon."""
    forecaster = kind()
    cases, others = some_cases(5), some_cases(5, seed=9)
    fit(forecaster, cases, others)
    examples = Examples.of(cases, forecaster, others)
    for wanted in ("weight", "bias"):
        spans = [spec.span for spec in LAYOUT if spec.kind == wanted]
        error = scale = 0.0
        for case, weight in zip(
            examples.cases[examples.validation], examples.weights[examples.validation], strict=True
        ):
            (forecast,) = forecaster.forecast(case.window, [30])
            for span in spans:
                error += float(weight * (forecast.mean - case.targets[30])[span].double().square().sum())
                scale += float(weight * forecast.scale[span].double().square().sum())
        assert abs(scale / error - 1) < 1e-3
    assert float(random_walk(cases[0].window).min()) > 0


def test_other_runs_may_validate_and_other_networks_train() -> None:
    """Cases of two layouts fit together; a kind that was not there is given the scale of all."""
    other = flat_layout(7)
    more = cases_of(drifting_rows(40, 7, torch.Generator().manual_seed(3)), range(0, 400, 10), 5, HORIZONS, other)
    forecaster = TunedLine()
    fit(forecaster, some_cases(5) + more, more)
    strange = small_layout({"first.norm": (7,)})
    (forecast,) = forecaster.forecast(window_of(more[0].window.values, range(0, 50, 10), strange), [10])
    assert bool((forecast.scale > 0).all())


def test_a_kind_that_stood_still_is_given_the_scale_of_all() -> None:
    """Biases that do not move in the validation cases say nothing about how wrong their forecasts are."""
    cases, others = some_cases(5), some_cases(5, seed=9)
    spans = [spec.span for spec in LAYOUT if spec.kind == "bias"]
    for case in others:
        for span in spans:
            case.window.values[:, span] = case.window.values[0, span].clone()
            for row in case.targets.values():
                row[span] = case.window.values[0, span]
    forecaster = TunedLine()
    fit(forecaster, cases, others)
    variance = forecaster.state_dict()["scale.variance"]  # of all, biases and weights
    assert torch.equal(variance[:, 1], variance[:, 0])
    assert bool((variance[:, 1] > 0).all())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale.groups", torch.tensor(list(b'["a"'), dtype=torch.uint8), "not a list of names"),
        ("scale.groups", torch.tensor(list(b'["a"]'), dtype=torch.uint8), "must name each of"),
        ("scale.variance", torch.full((3, 3), -1.0, dtype=torch.float64), "must be at least 0"),
        ("scale.horizons", torch.tensor([30, 20, 10]), "must be positive and ascending"),
        ("gain", torch.tensor(float("nan"), dtype=torch.float64), "not finite"),
        ("gain", torch.zeros(2, dtype=torch.float64), "must be torch.float64 of shape"),
        ("more", torch.zeros(2), "has the tensors"),
    ],
)
def test_damaged_states_are_refused(name: str, value: Tensor, message: str) -> None:
    """Each way in which a state can be damaged is named, and leaves the forecaster as it was."""
    forecaster = TunedLine()
    fit(forecaster)
    before = forecaster.state_dict()
    with pytest.raises(NotFittedError, match=message):
        forecaster.load_state_dict({**before, name: value})
    after = forecaster.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_cases_that_do_not_move_are_refused() -> None:
    """Targets that stand still give nothing to divide by."""
    cases = [type(case)(case.window, dict.fromkeys(HORIZONS, case.window.last)) for case in some_cases(5)]
    with pytest.raises(FittingError, match="Nothing moves up to some horizon"):
        fit(TunedLine(), cases)

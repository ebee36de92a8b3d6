"""What every forecaster must do; a new one is covered as soon as it has a name."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from problems import drifting_rows, fitted, small_layout, some_moments, window_of

from deadreckon.forecast import Forecast, Window
from deadreckon.forecast.errors import NotFittedError, WindowError
from deadreckon.models import (
    FittableForecaster,
    forecaster_names,
    learned_names,
    load_forecaster,
    make_forecaster,
    save_forecaster,
)
from deadreckon.models.closed_form import ClosedForm

LAYOUT = small_layout()
SPACING = 2
every_forecaster = pytest.mark.parametrize("name", forecaster_names())


@cache
def ready(name: str) -> ClosedForm | FittableForecaster:
    """One for all tests: a forecaster keeps nothing between forecasts, which is a part of the contract."""
    return fitted(make_forecaster(name), LAYOUT, SPACING)


def moving_window(forecaster: ClosedForm | FittableForecaster, dtype: torch.dtype = torch.float32) -> Window:
    generator = torch.Generator().manual_seed(3)
    rows = drifting_rows(forecaster.history + 2, LAYOUT.size, generator).to(dtype)
    moments = some_moments(LAYOUT.size, generator) if forecaster.needs_moments else None
    steps = range(100, 100 + SPACING * len(rows), SPACING)
    return window_of(rows, steps, LAYOUT, forecaster.stream, moments, forecaster.needs_graph)


def constant_window(forecaster: ClosedForm | FittableForecaster) -> Window:
    generator = torch.Generator().manual_seed(4)
    # Widely different sizes: a mean over rows that is right to rounding only would show here.
    row = torch.randn(LAYOUT.size, generator=generator) * torch.logspace(-20, 15, LAYOUT.size)
    moments = some_moments(LAYOUT.size, generator, size=0.0) if forecaster.needs_moments else None
    steps = range(100, 100 + SPACING * forecaster.history, SPACING)
    rows = row.repeat(forecaster.history, 1)
    return window_of(rows, steps, LAYOUT, forecaster.stream, moments, forecaster.needs_graph)


def same(first: Forecast, second: Forecast) -> bool:
    return (
        first.horizon == second.horizon
        and torch.equal(first.mean, second.mean)
        and torch.equal(first.scale, second.scale)
    )


@every_forecaster
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_forecasts_have_the_windows_shape_and_type(name: str, dtype: torch.dtype) -> None:
    """Each horizon gives one forecast, in order, with mean and scale like a row, finite, the scale not negative."""
    forecaster = ready(name)
    horizons = [3, 1, 12]
    found = list(forecaster.forecast(moving_window(forecaster, dtype), horizons))
    assert [forecast.horizon for forecast in found] == horizons
    for forecast in found:
        for part in (forecast.mean, forecast.scale):
            assert part.shape == (LAYOUT.size,)
            assert part.dtype == dtype
            assert bool(torch.isfinite(part).all())
            assert not part.requires_grad
        assert bool((forecast.scale >= 0).all())
        assert bool((forecast.scale > 0).any())


@every_forecaster
def test_equal_windows_give_equal_forecasts(name: str) -> None:
    """A forecast depends on window and horizon only: not on what was asked before, nor on other horizons."""
    forecaster = ready(name)
    window = moving_window(forecaster)
    (alone,) = forecaster.forecast(window, [5])
    *_, among = forecaster.forecast(window, [12, 2, 5])
    assert same(alone, among)


@every_forecaster
def test_only_the_newest_rows_count(name: str) -> None:
    """A longer window gives the same forecast as its newest `history` rows."""
    forecaster = ready(name)
    window = moving_window(forecaster)
    (longer,) = forecaster.forecast(window, [4])
    (exact,) = forecaster.forecast(window.tail(forecaster.history), [4])
    assert same(longer, exact)


@every_forecaster
def test_the_window_is_not_touched(name: str) -> None:
    """Neither forecasting nor writing into a forecast changes the window."""
    forecaster = ready(name)
    window = moving_window(forecaster)
    rows, steps = window.values.clone(), window.steps.clone()
    for forecast in forecaster.forecast(window, [1, 6]):
        forecast.mean.zero_()
        forecast.scale.zero_()
    assert torch.equal(window.values, rows)
    assert torch.equal(window.steps, steps)
    if window.moments is not None:
        fresh = moving_window(forecaster).moments
        assert fresh is not None
        assert torch.equal(window.moments.exp_avg, fresh.exp_avg)
        assert torch.equal(window.moments.exp_avg_sq, fresh.exp_avg_sq)


@every_forecaster
def test_what_stands_still_is_forecast_to_stand_still(name: str) -> None:
    """A constant trajectory is continued bit for bit, with a scale of zero."""
    forecaster = ready(name)
    window = constant_window(forecaster)
    for forecast in forecaster.forecast(window, [1, 3, 12]):
        assert torch.equal(forecast.mean, window.last)
        assert torch.equal(forecast.scale, torch.zeros(LAYOUT.size))


@every_forecaster
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_coordinates_that_are_not_finite_are_held(name: str, bad: float) -> None:
    """They keep their last value at an infinite scale; all others are forecast as if those stood still at zero."""
    forecaster = ready(name)
    window = moving_window(forecaster)
    broken = torch.tensor([1, 20])
    values, still = window.values.clone(), window.values.clone()
    values[-1, broken[0]] = bad
    values[-2, broken[1]] = -bad
    still[:, broken] = 0.0
    moments, calm = window.moments, window.moments
    if moments is not None and calm is not None:
        moments = replace(moments, exp_avg=moments.exp_avg.index_fill(0, broken, bad))
        calm = replace(calm, exp_avg=calm.exp_avg.index_fill(0, broken, 0.0))
        calm = replace(calm, exp_avg_sq=calm.exp_avg_sq.index_fill(0, broken, 0.0))
    others = torch.ones(LAYOUT.size, dtype=torch.bool).index_fill(0, broken, False)
    given, quiet = replace(window, values=values, moments=moments), replace(window, values=still, moments=calm)
    for found, expected in zip(forecaster.forecast(given, [2, 6]), forecaster.forecast(quiet, [2, 6]), strict=True):
        torch.testing.assert_close(found.mean[broken], values[-1, broken], rtol=0, atol=0, equal_nan=True)
        assert bool(torch.isinf(found.scale[broken]).all())
        assert torch.equal(found.mean[others], expected.mean[others])
        assert torch.equal(found.scale[others], expected.scale[others])


@every_forecaster
def test_forecasts_follow_the_unit_of_the_values(name: str) -> None:
    """Values multiplied by a power of two give means and scales multiplied by it, also where squares would overflow."""
    forecaster = ready(name)
    if name in ("optimizer_moments", "neural_ode"):
        pytest.skip("depends on absolute positions or on moments, not on the rows alone")
    window = moving_window(forecaster)
    factor = 2.0**80
    scaled = replace(window, values=window.values * factor)
    for plain, large in zip(forecaster.forecast(window, [1, 6]), forecaster.forecast(scaled, [1, 6]), strict=True):
        torch.testing.assert_close(large.mean / factor, plain.mean, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(large.scale / factor, plain.scale, rtol=1e-6, atol=1e-7)


@every_forecaster
def test_forecasts_are_made_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking one forecast does not make the next."""
    forecaster = ready(name)
    made: list[int] = []
    original = Forecast.__init__

    def counted(self: Forecast, horizon: int, *rest: torch.Tensor) -> None:
        made.append(horizon)
        original(self, horizon, *rest)

    monkeypatch.setattr(Forecast, "__init__", counted)
    forecasts = forecaster.forecast(moving_window(forecaster), [1, 2, 3])
    assert isinstance(forecasts, Iterator)
    assert made == []
    next(forecasts)
    assert set(made) == {1}  # wrappers make those of their members as well
    next(forecasts)
    assert set(made) == {1, 2}


@every_forecaster
def test_saved_and_loaded_it_forecasts_the_same(name: str, tmp_path: Path) -> None:
    """A forecaster read from a file has the same options and gives the same forecasts to the last bit."""
    forecaster = ready(name)
    save_forecaster(forecaster, tmp_path / "one.safetensors")
    loaded = load_forecaster(tmp_path / "one.safetensors")
    assert type(loaded) is type(forecaster)
    assert loaded.options == forecaster.options
    window = moving_window(forecaster)
    before, after = forecaster.forecast(window, [1, 5, 12]), loaded.forecast(window, [1, 5, 12])
    assert all(same(first, second) for first, second in zip(before, after, strict=True))


@every_forecaster
def test_options_rebuild_it(name: str) -> None:
    """`make_forecaster(name, **options)` gives a forecaster of equal options, name and stream."""
    forecaster = make_forecaster(name)
    again = make_forecaster(name, **forecaster.options)
    assert again.options == forecaster.options
    assert (again.name, again.stream, again.history) == (name, forecaster.stream, forecaster.history)


@every_forecaster
def test_windows_that_do_not_fit_are_refused(name: str) -> None:
    """Another stream, too few rows and a horizon below 1 are errors at the call, before any forecast is taken."""
    forecaster = ready(name)
    window = moving_window(forecaster)
    other = Window(window.values, window.steps, LAYOUT, "gradients", moments=window.moments)
    with pytest.raises(WindowError, match=f"'{name}' forecasts 'weights', got a window of 'gradients'"):
        forecaster.forecast(other, [1])
    if forecaster.history > 1:
        with pytest.raises(WindowError, match=f"needs {forecaster.history} rows of history, got 1"):
            forecaster.forecast(window.tail(1), [1])
    with pytest.raises(WindowError, match="Horizons must be at least 1, got 0"):
        forecaster.forecast(window, [2, 0])


@pytest.mark.parametrize("name", learned_names())
def test_unfitted_forecasters_say_so(name: str) -> None:
    """A learned forecaster refuses to forecast before it is fitted, and has no state then."""
    forecaster = make_forecaster(name)
    assert isinstance(forecaster, FittableForecaster)
    assert not forecaster.fitted
    assert forecaster.state_dict() == {}
    with pytest.raises(NotFittedError, match="has not been fitted"):
        forecaster.forecast(moving_window(forecaster), [1])


@pytest.mark.parametrize("name", [name for name in forecaster_names() if make_forecaster(name).needs_moments])
def test_missing_moments_are_refused(name: str) -> None:
    """A forecaster that needs moments refuses a window without them."""
    forecaster = make_forecaster(name)
    with pytest.raises(WindowError, match="needs the optimiser's moments"):
        forecaster.forecast(window_of(torch.zeros(3, LAYOUT.size), layout=LAYOUT), [1])


@pytest.mark.parametrize("name", [name for name in forecaster_names() if make_forecaster(name).needs_graph])
def test_missing_graphs_are_refused(name: str) -> None:
    """A forecaster that needs a graph refuses a window without one, and says how to make it."""
    window = replace(moving_window(ready(name)), graph=None)
    with pytest.raises(WindowError, match="needs the network's neural graph.* Make one with `trace_graph"):
        ready(name).forecast(window, [1])


@every_forecaster
def test_grad_mode_and_random_state_are_left_as_found(name: str) -> None:
    """Making, fitting and forecasting draw nothing from the global generator and leave grad mode alone."""
    state = torch.random.get_rng_state()
    forecaster = fitted(make_forecaster(name), LAYOUT, SPACING)
    for _ in forecaster.forecast(moving_window(forecaster), [1, 2]):
        assert torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), state)

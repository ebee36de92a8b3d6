"""The adaptive linear forecaster, and what it shares with the others that see Gram matrices only."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from problems import cases_of, drifting_rows, flat_layout, small_layout, window_of
from torch import Tensor

from deadreckon.forecast import Case, Layout, score
from deadreckon.forecast.errors import WindowError
from deadreckon.models import (
    AdaptiveLinear,
    Budget,
    FittingError,
    FlowMatching,
    LearnedLinear,
    ModelError,
    ModelFileError,
    NeuralODE,
    fit_forecaster,
    load_forecaster,
    make_forecaster,
    save_forecaster,
)
from deadreckon.models.fitting import Examples, FittableForecaster
from deadreckon.models.normal_equations import CaseSums

HISTORY, HORIZONS = 6, (2, 8)
LAYOUT = small_layout({"a.weight": (8, 5), "b.bias": (30,)})
GRAM_FORECASTERS = ["adaptive_linear", "flow_matching", "neural_ode"]
every_gram_forecaster = pytest.mark.parametrize("name", GRAM_FORECASTERS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixed_cases(num_runs: int, seed: int, layout: Layout = LAYOUT) -> list[Case]:
    """Cases of runs that either go straight on with little noise, or wander about without direction."""
    generator = seeded(seed)
    found: list[Case] = []
    for run in range(num_runs):
        noise = torch.randn(30, layout.size, generator=generator)
        if run % 2 == 0:
            rows = 0.3 * noise + torch.arange(30).unsqueeze(1) * torch.randn(1, layout.size, generator=generator)
        else:
            rows = noise.cumsum(0)
        found += cases_of(rows, range(0, 60, 2), HISTORY, HORIZONS, layout)
    return found


def make(name: str = "adaptive_linear") -> FittableForecaster:
    forecaster = make_forecaster(name, history=HISTORY)
    assert isinstance(forecaster, FittableForecaster)
    return forecaster


def trained(name: str = "adaptive_linear", iterations: int = 10) -> FittableForecaster:
    forecaster = make(name)
    fit_forecaster(forecaster, mixed_cases(4, 1), Budget(iterations=iterations), seeded(), mixed_cases(2, 2))
    return forecaster


# --- adaptive_linear


def test_training_begins_at_the_learned_linear_forecast() -> None:
    """Before the first iteration the validation error is that of `learned_linear` by kind, fitted to the same cases."""
    cases, validation = mixed_cases(4, 1), mixed_cases(2, 2)
    linear = fit_forecaster(LearnedLinear(HISTORY, "kind"), cases, Budget(), seeded(), validation)
    forecaster = AdaptiveLinear(HISTORY)
    examples = Examples.of(cases, forecaster, validation)
    network = forecaster.network(examples, seeded())
    error = forecaster.mean_error(network, forecaster.items(examples, examples.validation, seeded()))
    assert float(error) == pytest.approx(linear.validation_error)


def test_it_tells_straight_paths_from_wandering_ones() -> None:
    """On a mixture of both it errs less than the best fixed combination on either, and holds where nothing is known.

    Wandering paths cannot be forecast: a relative error of 1 there is the best possible.
    """
    adaptive, fixed = AdaptiveLinear(HISTORY), LearnedLinear(HISTORY, "kind")
    for forecaster in (adaptive, fixed):
        fit_forecaster(forecaster, mixed_cases(8, 1), Budget(iterations=100), seeded(), mixed_cases(4, 2))
    cases = mixed_cases(2, 3)
    size = len(cases) // 2
    for part, bound in ((cases[:size], 0.7), (cases[size:], 0.98)):
        for ours, theirs in zip(score(adaptive, part), score(fixed, part), strict=True):
            assert 1 - ours.skill < bound * (1 - theirs.skill)
    assert all(result.skill > -0.03 for result in score(adaptive, cases[size:]))


def test_the_scale_follows_how_a_tensor_moves() -> None:
    """Straight paths get a far smaller scale than wandering ones of equal steps, and both cover what they say."""
    forecaster = AdaptiveLinear(HISTORY)
    fit_forecaster(forecaster, mixed_cases(8, 1), Budget(iterations=50), seeded(), mixed_cases(8, 2))
    cases = mixed_cases(2, 3)
    size = len(cases) // 2
    for part in (cases[:size], cases[size:]):
        assert all(0.55 < result.coverage < 0.9 for result in score(forecaster, part))
    scales = [next(forecaster.forecast(case.window, [8])).scale.mean() for case in (cases[0], cases[size])]
    assert float(scales[0]) < 0.4 * float(scales[1])


def test_between_trained_horizons_it_interpolates() -> None:
    """The mean is linear in the horizon between trained ones and from the newest row on."""
    forecaster = trained()
    window = mixed_cases(1, 5)[0].window
    near, trained_one, between, far = (forecast.mean for forecast in forecaster.forecast(window, [1, 2, 5, 8]))
    torch.testing.assert_close(near, (window.last + trained_one) / 2)
    torch.testing.assert_close(between, (trained_one + far) / 2)


# --- all of them


@every_gram_forecaster
def test_forecasts_follow_the_coordinates(name: str) -> None:
    """Permuting coordinates within tensors, and mirroring all, permutes and mirrors the forecast."""
    forecaster = trained(name)
    window = mixed_cases(1, 5)[0].window
    order = torch.cat([spec.offset + torch.randperm(spec.numel, generator=seeded(3)) for spec in LAYOUT])
    plain = list(forecaster.forecast(window, [2, 5]))
    changed = forecaster.forecast(replace(window, values=-window.values[:, order]), [2, 5])
    for one, other in zip(plain, changed, strict=True):
        torch.testing.assert_close(other.mean, -one.mean[order], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other.scale, one.scale[order], rtol=1e-4, atol=1e-4)


@every_gram_forecaster
def test_other_networks_are_forecast_alike(name: str) -> None:
    """A network of another layout is forecast, each tensor the same whatever is beside it."""
    forecaster = trained(name)
    rows = drifting_rows(HISTORY, 100, seeded(6))
    wide = window_of(rows, range(0, 12, 2), small_layout({"x.weight": (60,), "y.norm": (40,)}))
    narrow = window_of(rows[:, :60], range(0, 12, 2), small_layout({"x.weight": (60,)}))
    for both, alone in zip(forecaster.forecast(wide, [3, 8]), forecaster.forecast(narrow, [3, 8]), strict=True):
        torch.testing.assert_close(both.mean[:60], alone.mean)
        torch.testing.assert_close(both.scale[:60], alone.scale)
        assert bool((both.scale > 0).all())


@every_gram_forecaster
def test_a_tensor_that_stands_still_does_no_harm(name: str) -> None:
    """It is continued bit for bit at scale zero, in a window whose other tensors move, and spoils no fit."""
    cases = mixed_cases(4, 1)
    for case in cases:
        case.window.values[:, 40:] = 2.0
        for target in case.targets.values():
            target[40:] = 2.0
    forecaster = make(name)
    assert fit_forecaster(forecaster, cases, Budget(iterations=10), seeded(), cases[:20]).validation_error < 1
    for forecast in forecaster.forecast(cases[0].window, [1, 8]):
        assert torch.equal(forecast.mean[40:], torch.full((30,), 2.0))
        assert torch.equal(forecast.scale[40:], torch.zeros(30))
        assert bool((forecast.scale[:40] > 0).all())


@every_gram_forecaster
def test_a_second_fit_goes_on_from_the_first(name: str) -> None:
    """On equal kinds, horizons and spacing it starts from the present network; on other horizons anew."""
    forecaster = trained(name)
    state = forecaster.state_dict()
    again = Examples.of(mixed_cases(4, 1), forecaster, mixed_cases(2, 2))
    going_on = forecaster.network(again, seeded(1)).state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(state[f"network.{key}"], value) for key, value in going_on.items())
    nearer = [Case(case.window, {2: case.targets[2]}) for case in mixed_cases(4, 1)]
    fresh = make(name)
    for each in (forecaster, fresh):
        fit_forecaster(each, nearer, Budget(iterations=3), seeded(2))
    torch.testing.assert_close(forecaster.state_dict(), fresh.state_dict(), rtol=0, atol=0)


@every_gram_forecaster
def test_windows_of_another_spacing_are_refused(name: str) -> None:
    """What was learned of rows two steps apart says nothing of rows three steps apart, or uneven ones."""
    forecaster = trained(name, 1)
    rows = drifting_rows(HISTORY, LAYOUT.size, seeded())
    with pytest.raises(WindowError, match="Fitted to rows 2 steps apart, got 3 steps. Fit it anew"):
        forecaster.forecast(window_of(rows, range(0, 18, 3), LAYOUT), [1])
    with pytest.raises(WindowError, match="evenly spaced"):
        forecaster.forecast(window_of(rows, [0, 2, 4, 6, 8, 11], LAYOUT), [1])


@pytest.mark.parametrize("name", ["adaptive_linear", "flow_matching"])
def test_longer_horizons_are_refused(name: str) -> None:
    """Beyond the longest trained horizon nothing was learned."""
    with pytest.raises(WindowError, match="Fitted up to horizon 8, got 9. Fit it to longer horizons"):
        trained(name, 1).forecast(mixed_cases(1, 5)[0].window, [1, 9])


@every_gram_forecaster
def test_values_that_overflow_are_refused(name: str) -> None:
    """Squares beyond float64 are an error by name, in a fit and in a forecast, never a forecast of garbage."""
    forecaster = trained(name, 1)
    huge = drifting_rows(30, LAYOUT.size, seeded()).double() * 1e200
    with pytest.raises(WindowError, match="values at step 10 are too large: their squares overflow"):
        list(forecaster.forecast(window_of(huge[:HISTORY], range(0, 12, 2), LAYOUT), [1]))
    with pytest.raises(FittingError, match="too large to fit|Nothing moves"):
        fit_forecaster(make(name), cases_of(huge, range(0, 60, 2), HISTORY, HORIZONS, LAYOUT), Budget(), seeded())


@every_gram_forecaster
def test_damaged_states_are_refused(name: str, tmp_path: Path) -> None:
    """A tensor that is missing, unknown, of another type or shape, not finite or impossible is named."""
    forecaster = trained(name, 1)
    state, path = forecaster.state_dict(), tmp_path / "one"
    about = {"format": "deadreckon.forecaster", "version": 1, "name": name, "options": forecaster.options}

    def load(changed: dict[str, Tensor]) -> None:
        safetensors.torch.save_file(changed, path, {"deadreckon": json.dumps(about)})
        load_forecaster(path)

    for key, value in state.items():
        with pytest.raises(ModelFileError, match=f"'{name}'"):
            load({other: entry for other, entry in state.items() if other != key})
        with pytest.raises(ModelFileError, match=f"'{name}' must be torch"):
            load({**state, key: value.to(torch.float16)})
        if value.ndim and key != "scale.groups":
            with pytest.raises(ModelFileError, match="must be torch|has the tensors|must name each"):
                load({**state, key: torch.stack([value, value])})
        if value.is_floating_point():
            with pytest.raises(ModelFileError, match="not finite"):
                load({**state, key: torch.full_like(value, torch.nan)})
    for key, value, message in (
        ("extra", torch.zeros(1), "has the tensors"),
        ("spacing", torch.tensor(0), "'spacing' of .* must be at least 1"),
        ("network.spread", -state["network.spread"], "'spread' above 0"),
        ("correction.limits", state["correction.limits"].flip(1).clone(), "'correction.limits' of .* must ascend"),
        ("scale.horizons", state["scale.horizons"].flip(0), "'horizons' must be positive and ascending"),
    ):
        with pytest.raises(ModelFileError, match=message):
            load({**state, key: value})
    about["options"] = forecaster.options | {"width": 10**9}
    with pytest.raises(ModelFileError, match="must be torch.float64 of shape .1000000000, "):
        load(state)


def test_options_are_checked() -> None:
    """The rank has to fit into the history, and there must be something to see."""
    for kind in (FlowMatching, NeuralODE):
        with pytest.raises(ModelError, match="`rank` must be below `history`, which is 4, got 4"):
            kind(history=4, rank=4)
    for name in GRAM_FORECASTERS:
        with pytest.raises(ModelError, match="`history` must be a whole number of at least 3, got 2"):
            make_forecaster(name, history=2)
    with pytest.raises(ModelError, match="`noise` must be a finite number above 0, got 0"):
        FlowMatching(noise=0)


def test_files_are_small(tmp_path: Path) -> None:
    """Fitted with defaults it takes less than 100 kB, so that it can be shipped."""
    forecaster = AdaptiveLinear()
    cases = cases_of(drifting_rows(40, 50, seeded()), range(40), 10, [1, 5, 20], flat_layout(50))
    fit_forecaster(forecaster, cases, Budget(iterations=1), seeded())
    save_forecaster(forecaster, tmp_path / "one")
    assert (tmp_path / "one").stat().st_size < 100_000


@every_gram_forecaster
def test_parameters_are_read_once_in_a_fit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network, training items, validation items and scale are all made from one pass over the cases."""
    read: list[Case] = []
    original = CaseSums.of

    def counted(case: Case, horizons: Sequence[int]) -> CaseSums:
        read.append(case)
        return original(case, horizons)

    monkeypatch.setattr(CaseSums, "of", counted)
    cases = mixed_cases(2, seed=3)
    fit_forecaster(make(name), cases, Budget(iterations=2), seeded())
    assert len(read) == len(cases)

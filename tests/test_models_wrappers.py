"""Forecasters made of other forecasters."""

from pathlib import Path

import pytest
import torch
from problems import cases_of, drifting_rows, flat_layout, small_layout, window_of
from torch import Tensor

from deadreckon.forecast import Case, Window
from deadreckon.forecast.errors import NotFittedError
from deadreckon.models import (
    BestOf,
    Blended,
    Budget,
    Damped,
    FittingError,
    Hold,
    LearnedLinear,
    Linear,
    ModelError,
    PerKind,
    Quadratic,
    TrustRegion,
    TunedLine,
    Wrapper,
    fit_forecaster,
    load_forecaster,
    make_forecaster,
    save_forecaster,
)
from deadreckon.models.blended import mix
from deadreckon.models.fitting import Examples

LAYOUT = small_layout()
HORIZONS = [10, 40]


def some_cases(seed: int = 0, history: int = 6) -> list[Case]:
    values = drifting_rows(24, LAYOUT.size, torch.Generator().manual_seed(seed))
    return cases_of(values, range(0, 240, 10), history, HORIZONS, LAYOUT)


def some_window() -> Window:
    return some_cases(7)[3].window


def fit(forecaster: Wrapper, seed: int = 0):
    return fit_forecaster(forecaster, some_cases(seed), Budget(), torch.Generator(), some_cases(1))


def one(forecaster, window: Window, horizon: int) -> tuple[Tensor, Tensor]:
    (forecast,) = forecaster.forecast(window, [horizon])
    return forecast.mean, forecast.scale


# --- damped, trust region


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_damped_by_hand(factor: float) -> None:
    """The step is shortened by the factor, and what is left out is added to the scale in quadrature."""
    window = some_window()
    mean, scale = one(Linear(), window, 20)
    damped, wider = one(Damped(factor=factor), window, 20)
    step = mean - window.last
    torch.testing.assert_close(damped, window.last + factor * step, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(wider, (scale**2 + ((1 - factor) * step) ** 2).sqrt(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("radius", [0.01, 1.0, 100.0])
def test_trust_region_by_hand(radius: float) -> None:
    """Each tensor's step is cut to radius |step| / |scale| of itself, where that is below 1."""
    window = some_window()
    mean, scale = one(Quadratic(), window, 30)
    cut, wider = one(TrustRegion(Quadratic(), radius=radius), window, 30)
    rhos = []
    for spec in LAYOUT:
        step, noise = (mean - window.last)[spec.span], scale[spec.span]
        rhos.append(min(1.0, radius * float(step.norm()) / float(noise.norm())))
        expected = window.last[spec.span] + rhos[-1] * step
        torch.testing.assert_close(cut[spec.span], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(wider[spec.span], (noise**2 + ((1 - rhos[-1]) * step) ** 2).sqrt())
    assert min(rhos) < 0.5 if radius == 0.01 else min(rhos) == 1.0 or radius == 1.0


# --- per kind


def test_per_kind_gives_each_kind_its_forecaster() -> None:
    """Biases are held, everything else follows the line, scales included."""
    window = some_window()
    mean, scale = one(PerKind(), window, 20)
    for spec in LAYOUT:
        expected = one(Hold() if spec.kind == "bias" else Linear(), window, 20)
        torch.testing.assert_close(mean[spec.span], expected[0][spec.span])
        torch.testing.assert_close(scale[spec.span], expected[1][spec.span])


def test_per_kind_fits_each_member_to_its_own_tensors() -> None:
    """A tuned line for biases learns the same as one that is fitted to the biases alone."""
    wrapper = PerKind({"bias": TunedLine()}, default=TunedLine())
    fit(wrapper)
    spans = [spec.span for spec in LAYOUT if spec.kind == "bias"]
    layout = small_layout({name: shape for name, shape in (("first.bias", (4,)), ("second.bias", (5,)))})

    def only(cases: list[Case]) -> list[Case]:
        return [
            Case(
                window_of(torch.cat([c.window.values[:, s] for s in spans], 1), c.window.steps.tolist(), layout),
                {horizon: torch.cat([row[s] for s in spans]) for horizon, row in c.targets.items()},
            )
            for c in cases
        ]

    alone = TunedLine()
    fit_forecaster(alone, only(some_cases()), Budget(), torch.Generator(), only(some_cases(1)))
    state = wrapper.members[1].state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(state[key], value) for key, value in alone.state_dict().items())
    assert not torch.equal(wrapper.members[0].state_dict()["gain"], state["gain"])  # type: ignore[union-attr]


def test_per_kind_hands_over_moments() -> None:
    """Members that need moments get those of their coordinates, learning rates per coordinate included."""
    from problems import some_moments

    from deadreckon.models import OptimizerMoments

    moments = some_moments(LAYOUT.size, torch.Generator().manual_seed(1))
    rates = torch.linspace(0.001, 0.1, LAYOUT.size)
    moments = type(moments)(**{**moments.__dict__, "learning_rate": rates})
    window = window_of(some_window().values, range(0, 60, 10), LAYOUT, moments=moments)
    wrapper = PerKind({"bias": OptimizerMoments()}, default=Hold())
    assert wrapper.needs_moments
    mean, _ = one(wrapper, window, 5)
    whole, _ = one(OptimizerMoments(), window, 5)
    for spec in LAYOUT:
        expected = whole if spec.kind == "bias" else window.last
        assert torch.equal(mean[spec.span], expected[spec.span])


# --- best of


def test_best_of_takes_the_winner_of_each_horizon() -> None:
    """The choice is the member with the smallest error on the validation cases, found here by a plain loop."""
    members = (Hold(), Linear(history=3), TunedLine())
    wrapper = BestOf(members)
    fit(wrapper)
    validation = some_cases(1)
    weights = Examples.of(validation, wrapper, validation).weights[len(validation) :]
    for horizon in HORIZONS:
        errors = [0.0] * len(members)
        for case, weight in zip(validation, weights.tolist(), strict=True):
            for position, member in enumerate(members):
                wrong = one(member, case.window, horizon)[0] - case.targets[horizon]
                errors[position] += float(wrong.double().square().sum()) * weight
        assert wrapper.choice(horizon) is members[errors.index(min(errors))]
    window = some_window()
    for horizon, trained in ((5, 10), (11, 40), (100, 40)):
        expected = wrapper.choice(trained)
        if expected.name != "tuned_line" or horizon <= 40:
            assert torch.equal(one(wrapper, window, horizon)[0], one(expected, window, horizon)[0])


def test_best_of_can_choose_differently_by_horizon() -> None:
    """A path that goes straight and then returns is best followed for a short while and held for a long one."""
    time = torch.arange(80.0)
    saw = (time % 8 - 4).abs().unsqueeze(1) * torch.linspace(1, 2, 6)
    cases = cases_of(saw, range(80), 3, [1, 8], flat_layout(6))
    wrapper = BestOf((Hold(), Linear(history=2)))
    fit_forecaster(wrapper, cases, Budget(), torch.Generator())
    assert [wrapper.choice(horizon).name for horizon in (1, 8)] == ["linear", "hold"]


# --- blended


def test_mix_is_the_minimum() -> None:
    """No point of a fine grid over the simplex is better than the exact solution."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 21, dtype=torch.float64)] * 3)
    grid = grid[grid.sum(dim=1) <= 1 + 1e-12]
    on_edge = 0
    for _ in range(30):
        factor = torch.randn(3, 3, generator=generator, dtype=torch.float64)
        gram, cross = factor @ factor.T, torch.randn(3, generator=generator, dtype=torch.float64) * 2
        found = mix(gram, cross)
        assert bool((found >= 0).all())
        assert float(found.sum()) <= 1 + 1e-9

        def value(point: Tensor, gram: Tensor = gram, cross: Tensor = cross) -> Tensor:
            return torch.einsum("...i,ij,...j->...", point, gram, point) - 2 * point @ cross

        assert float(value(found)) <= float(value(grid).min()) + 1e-9
        on_edge += abs(float(found.sum()) - 1) < 1e-9
    assert 3 < on_edge < 27  # both sides of the constraint were met


def test_mix_of_equal_members_shares_between_them() -> None:
    """Members that say the same make the problem singular; the mixture is as good as one of them."""
    found = mix(torch.ones(2, 2, dtype=torch.float64), torch.full((2,), 0.6, dtype=torch.float64))
    assert abs(float(found.sum()) - 0.6) < 1e-9


@pytest.mark.slow
def test_blended_is_no_worse_than_its_members() -> None:
    """On the cases it was mixed on, its error is at most that of the best member, of the best damped one even."""
    members = (Linear(), Quadratic(), TunedLine())
    wrapper = Blended(members)
    report = fit(wrapper)
    for member in members:
        single = Blended((member,))
        assert report.validation_error <= fit(single).validation_error + 1e-9
    window = some_window()
    mean, scale = one(wrapper, window, 10)
    shares = wrapper.mixture(10).tolist()
    expected = window.last + sum(
        share * (one(member, window, 10)[0] - window.last) for share, member in zip(shares, members, strict=True)
    )
    torch.testing.assert_close(mean, expected)
    assert bool((scale > 0).all())
    assert 0 < sum(shares) <= 1 + 1e-9


# --- all of them


def test_nested_options_build_nested_forecasters(tmp_path: Path) -> None:
    """Wrappers within wrappers are made, described, saved and loaded with everything learned."""
    wrapper = make_forecaster(
        "best_of",
        members=[
            "hold",
            {"name": "damped", "options": {"member": {"name": "learned_linear", "options": {"history": 4}}}},
            {"name": "blended", "options": {"members": ["linear", "tuned_line"]}},
        ],
    )
    assert isinstance(wrapper, BestOf)
    assert wrapper.history == 5
    assert not wrapper.fitted
    assert wrapper.state_dict() == {}
    fit(wrapper)
    assert {key.split(".")[0] for key in wrapper.state_dict()} == {"1", "2", "own"}
    save_forecaster(wrapper, tmp_path / "nested")
    loaded = load_forecaster(tmp_path / "nested")
    assert loaded.options == wrapper.options
    window = some_window()
    for horizon in (10, 25, 40):
        for first, second in zip(one(wrapper, window, horizon), one(loaded, window, horizon), strict=True):
            assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"member": "cubic"}, "There is no forecaster 'cubic'"),
        ({"member": {"name": "linear", "history": 3}}, "`member` must be a name, or a mapping of `name` and `options`"),
        ({"member": {"name": "linear", "options": {"length": 3}}}, "'linear' has no option 'length'"),
        ({"member": {"name": "linear", "options": {"stream": "gradients"}}}, "but 'linear' forecasts 'gradients'"),
        ({"member": 3}, "is made of forecasters, got 3"),
        ({"factor": 1.5}, "`factor` must be a number from 0 to 1, got 1.5"),
        ({"factor": True}, "`factor` must be a number from 0 to 1, got True"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    """Whatever is wrong with a member or an option is named."""
    with pytest.raises(ModelError, match=message):
        make_forecaster("damped", **options)


def test_wrong_members_are_refused() -> None:
    """No members, too many, and members for kinds that do not exist."""
    with pytest.raises(ModelError, match="needs at least one forecaster"):
        BestOf([])
    with pytest.raises(ModelError, match="at most 6 forecasters, got 7"):
        Blended([Hold()] * 7)
    with pytest.raises(ModelError, match="There is no kind of tensor 'kernel'"):
        PerKind({"kernel": Hold()})
    with pytest.raises(ModelError, match="must name the forecaster for each kind"):
        PerKind([Hold()])


def test_wrappers_are_not_nested_without_end() -> None:
    """A description that nests too deeply, as a hostile file might, is refused."""
    deep: object = "linear"
    for _ in range(6):
        deep = {"name": "damped", "options": {"member": deep}}
    with pytest.raises(ModelError, match="nested deeper than 4 wrappers"):
        make_forecaster("damped", member=deep)


@pytest.mark.parametrize("make", [lambda: BestOf((Hold(), TunedLine())), lambda: Blended((LearnedLinear(),))])
def test_unfitted_and_half_fitted_wrappers_say_so(make) -> None:
    """Before it is fitted a wrapper refuses, has no state, and takes no state that lacks a part."""
    wrapper = make()
    with pytest.raises(NotFittedError, match="has not been fitted"):
        wrapper.forecast(some_window(), [10])
    with pytest.raises(NotFittedError, match="has not been fitted"):
        (wrapper.choice if isinstance(wrapper, BestOf) else wrapper.mixture)(10)
    other = make()
    fit(other)
    state = other.state_dict()
    for part in ("own", "0", "1"):
        rest = {key: value for key, value in state.items() if not key.startswith(part)}
        if len(rest) < len(state):
            with pytest.raises(NotFittedError, match=r"lacks that of one of its members|has not|The state of"):
                wrapper.load_state_dict(rest)
    with pytest.raises(NotFittedError, match="no learned member 'x'"):
        wrapper.load_state_dict({**state, "x.y": torch.zeros(1)})
    assert not wrapper.fitted
    assert wrapper.state_dict() == {}


def test_a_failed_load_leaves_everything_as_it_was() -> None:
    """Members that were loaded already are put back when a later part of the state is damaged."""
    wrapper, other = Blended((TunedLine(),)), Blended((TunedLine(),))
    fit(wrapper)
    fit(other, seed=4)
    before, damaged = wrapper.state_dict(), other.state_dict()
    assert not torch.equal(before["0.gain"], damaged["0.gain"])
    damaged["own.mixture"] = -damaged["own.mixture"]
    with pytest.raises(NotFittedError, match="'mixture' of 'blended' must not be negative"):
        wrapper.load_state_dict(damaged)
    after = wrapper.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_failed_fit_leaves_everything_as_it_was() -> None:
    """If the second member cannot be fitted, the first is put back, and so is the wrapper."""
    wrapper = Blended((TunedLine(), LearnedLinear(per="tensor")))
    fit(wrapper)
    before = wrapper.state_dict()
    layout = flat_layout(5)
    strange = cases_of(drifting_rows(40, 5, torch.Generator().manual_seed(3)), range(0, 400, 10), 6, HORIZONS, layout)
    with pytest.raises(FittingError, match="layout"):
        fit_forecaster(wrapper, some_cases() + strange, Budget(), torch.Generator(), some_cases(1))
    after = wrapper.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_nothing_to_fit_is_no_error() -> None:
    """Fitting a wrapper of formulas measures it; there is nothing to save."""
    wrapper = Damped(factor=0.5)
    report = fit(wrapper)
    assert report.stopped == "solved"
    assert wrapper.state_dict() == {}
    assert fit(Damped(factor=0.0)).validation_error == pytest.approx(1.0)
    assert report.validation_error != pytest.approx(1.0)

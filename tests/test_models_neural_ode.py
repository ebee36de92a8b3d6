"""The neural differential equation."""

from dataclasses import replace

import pytest
import torch
from problems import cases_of, drifting_rows, flat_layout, relaxing_rows, small_layout, window_of

from deadreckon.forecast import Case, score
from deadreckon.forecast.errors import LayoutError
from deadreckon.models import Budget, FittingError, Linear, NeuralODE, fit_forecaster
from deadreckon.models.fitting import Examples
from deadreckon.models.gram_forecaster import GramNetwork
from deadreckon.models.latent_frame import Frame, Latents
from deadreckon.models.neural_ode import Coordinates
from deadreckon.models.tensor_items import Seen
from deadreckon.models.window_frame import WindowFrame

NUM_PARAMETERS = 200
LAYOUT = flat_layout(NUM_PARAMETERS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pca(rank: int, **options: object) -> NeuralODE:
    return NeuralODE(**{"coordinates": "pca", "rank": rank, "history": 5, "step_size": 2.0} | options)  # type: ignore[arg-type]


def relaxing_cases(noise: float = 0.0, history: int = 5) -> list[Case]:
    rows = relaxing_rows(60, NUM_PARAMETERS, 3, seeded(7))
    rows = rows + noise * torch.randn(rows.shape, generator=seeded(1))
    return cases_of(rows, range(0, 120, 2), history, [2, 10, 20], LAYOUT)


# --- the frame


def test_frame_expresses_low_rank_motion_completely() -> None:
    """On motion in three directions, three components leave nothing outside, and displacements decode to the truth."""
    examples = Examples.of(relaxing_cases(), pca(3))
    frame = Frame.of(examples, 3)
    latents = Latents.of(examples, examples.validation, frame)
    assert float((latents.outside / latents.persistence).max()) < 1e-5
    case = examples.cases[examples.num_training]
    decoded = case.window.last + latents.targets[0, 2].float() @ frame.basis
    torch.testing.assert_close(decoded, case.targets[20], rtol=0, atol=1e-5)
    assert frame.spacing == 2.0


def test_velocity_is_the_slope_per_training_spacing() -> None:
    """A line of known slope has that slope times the training spacing as velocity, at any spacing of its own rows."""
    frame = Frame.of(Examples.of(relaxing_cases(), pca(2)), 2)
    slope = 0.1 * frame.basis[0] - 0.2 * frame.basis[1]
    for steps in ([0, 2, 4, 6, 8], [0, 1, 5, 6, 20]):
        rows = torch.tensor(steps).unsqueeze(1) * slope
        _, velocity = frame.encode(window_of(rows, steps, LAYOUT))
        torch.testing.assert_close(velocity, torch.tensor([0.2, -0.4], dtype=torch.float64), rtol=0, atol=1e-5)


def test_a_new_frame_lies_close_to_the_previous_one() -> None:
    """Refitted on the same rows, a frame turned away by a rotation is turned back to the previous one."""
    examples = Examples.of(relaxing_cases(), pca(3))
    frame = Frame.of(examples, 3)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=seeded(5)))[0]
    turned = frame._replace(basis=rotation @ frame.basis)
    torch.testing.assert_close(Frame.of(examples, 3, turned).basis, turned.basis, rtol=0, atol=1e-4)


def test_too_many_components_are_refused() -> None:
    """Rows that vary in three directions only cannot give eight components."""
    rows = relaxing_rows(60, NUM_PARAMETERS, 3, seeded(7)).double()
    cases = cases_of(rows, range(0, 120, 2), 5, [2], LAYOUT)
    with pytest.raises(FittingError, match=r"No 8 principal components: .*Lower `rank`"):
        fit_forecaster(pca(8), cases, Budget(iterations=1), seeded())
    with pytest.raises(FittingError, match=r"No 8 principal components: .*time > 8"):
        fit_forecaster(pca(8), cases[:5], Budget(iterations=1), seeded())


# --- the forecaster


@pytest.mark.slow
def test_recovers_a_damped_flow() -> None:
    """Trained on noisy rows of a motion slowed by friction, it forecasts what comes next better than line and hold.

    On the cases that it was trained on, without noise, hardly any error is left.
    """
    clean, noisy = relaxing_cases(), relaxing_cases(noise=0.01)
    forecaster = pca(3)
    report = fit_forecaster(forecaster, noisy[:30], Budget(iterations=60), seeded())
    assert report.validation_error < 0.7
    for learned, line in zip(score(forecaster, noisy[36:])[1:], score(Linear(), noisy[36:])[1:], strict=True):
        assert 1 - learned.skill < 0.4 * (1 - line.skill), (learned.horizon, learned.skill, line.skill)
        assert learned.skill > 0.1, (learned.horizon, learned.skill)
    forecaster = pca(3)
    report = fit_forecaster(forecaster, clean[:30], Budget(iterations=100), seeded())
    assert report.training_error < 0.03
    line_errors = [1 - result.skill for result in score(Linear(), clean[:22])]
    assert report.training_error < 0.06 * sum(line_errors) / len(line_errors)


def test_a_trained_equation_keeps_what_stands_still() -> None:
    """Also with an acceleration that is far from zero, a constant window is continued bit for bit, with scale 0."""
    forecaster = pca(3)
    cases = relaxing_cases()
    fit_forecaster(forecaster, cases, Budget(iterations=30), seeded())
    assert float(forecaster.state_dict()["acceleration.outer.weight"].abs().max()) > 0.01
    last = cases[3].window.last
    for forecast in forecaster.forecast(window_of(last.repeat(5, 1), range(5), LAYOUT), [1, 40]):
        assert torch.equal(forecast.mean, last)
        assert torch.equal(forecast.scale, torch.zeros(NUM_PARAMETERS))


def test_what_the_components_cannot_express_is_held() -> None:
    """A window moving at right angles to the components is forecast to stand still, with a scale above zero."""
    forecaster = pca(3)
    fit_forecaster(forecaster, relaxing_cases(), Budget(iterations=5), seeded())
    basis = forecaster.state_dict()["basis"]
    other = torch.randn(NUM_PARAMETERS, generator=seeded(8))
    other -= basis.T @ (basis @ other)
    rows = torch.arange(5.0).unsqueeze(1) * other
    (forecast,) = forecaster.forecast(window_of(rows, range(0, 10, 2), LAYOUT), [10])
    torch.testing.assert_close(forecast.mean, rows[-1], rtol=0, atol=1e-4)
    assert bool((forecast.scale > 0).all())


def test_scale_between_and_beyond_trained_horizons() -> None:
    """The squared scale is linear between trained horizons and grows with the horizon's square beyond them."""
    forecaster = pca(3)
    cases = relaxing_cases()
    fit_forecaster(forecaster, cases, Budget(iterations=5), seeded())
    scales = [forecast.scale for forecast in forecaster.forecast(cases[0].window, [1, 2, 6, 10, 20, 60])]
    torch.testing.assert_close(scales[0] ** 2, scales[1] ** 2 / 2)
    torch.testing.assert_close(scales[2] ** 2, (scales[1] ** 2 + scales[3] ** 2) / 2)
    torch.testing.assert_close(scales[5], scales[4] * 3)


def test_scale_covers_what_it_says() -> None:
    """On later cases of the same kind about two thirds of the truths lie within one scale."""
    layout = small_layout()
    rows = drifting_rows(150, layout.size, seeded(3))
    cases = cases_of(rows, range(150), 5, [1, 4], layout)
    forecaster = pca(4)
    fit_forecaster(forecaster, cases[:80], Budget(iterations=20), seeded())
    for result in score(forecaster, cases[84:]):
        assert 0.5 < result.coverage < 0.8


def test_a_second_fit_goes_on_from_the_first() -> None:
    """Fitted again, it starts from the present weights: never worse on the same cases, and unlike a fresh start."""
    cases = relaxing_cases()
    forecaster, fresh = pca(3), pca(3)
    first = fit_forecaster(forecaster, cases[:30], Budget(iterations=30), seeded())
    second = fit_forecaster(forecaster, cases[:30], Budget(iterations=5), seeded())
    cold = fit_forecaster(fresh, cases[:30], Budget(iterations=5), seeded())
    assert second.validation_error <= first.validation_error * 1.01
    assert second.validation_error < 0.5 * cold.validation_error


def test_another_network_starts_anew() -> None:
    """Fitted to another layout, nothing of the first network remains, and windows of the first are refused."""
    cases = relaxing_cases()[:30]
    other = small_layout({"a": (150,), "b": (50,)})
    moved = [Case(replace(case.window, layout=other), case.targets) for case in cases]
    forecaster, fresh = pca(3), pca(3)
    fit_forecaster(forecaster, cases, Budget(iterations=30), seeded())
    assert float(forecaster.state_dict()["acceleration.outer.weight"].abs().max()) > 0.01
    fit_forecaster(forecaster, moved, Budget(iterations=5), seeded())
    fit_forecaster(fresh, moved, Budget(iterations=5), seeded())
    torch.testing.assert_close(forecaster.state_dict(), fresh.state_dict(), rtol=0, atol=0)
    with pytest.raises(LayoutError, match="layout is not the one that 'neural_ode' was fitted to"):
        forecaster.forecast(cases[0].window, [1])


@pytest.mark.parametrize(
    "options", [pytest.param({"method": "dopri5"}, marks=pytest.mark.slow), {"adjoint": True}, {"step_size": 0.5}]
)
def test_solver_options_give_nearly_the_same_forecaster(options: dict) -> None:
    """Solver, step and kind of gradient change the cost of a fit, not what it finds."""
    cases = relaxing_cases()[:40]
    plain, other = pca(2, width=8), pca(2, width=8, **options)
    for forecaster in (plain, other):
        fit_forecaster(forecaster, cases, Budget(iterations=4), seeded())
    for one, two in zip(
        plain.forecast(cases[-1].window, [2, 20]), other.forecast(cases[-1].window, [2, 20]), strict=True
    ):
        moved = float((one.mean - cases[-1].window.last).norm())
        torch.testing.assert_close(two.mean, one.mean, rtol=0, atol=1e-3 * moved)


def test_time_is_kept() -> None:
    """With seconds in the budget, training stops soon after them and says so."""
    report = fit_forecaster(pca(3), relaxing_cases(), Budget(iterations=10**6, seconds=0.3), seeded())
    assert report.stopped == "seconds"
    assert report.wall_seconds < 10


# --- window coordinates


@pytest.mark.slow
def test_window_coordinates_recover_a_damped_flow() -> None:
    """Fitted to motions slowed by friction, it forecasts one of another network far better than a line."""
    others = [
        cases_of(relaxing_rows(60, size, 3, seeded(size)), range(0, 120, 2), 8, [2, 10, 20], flat_layout(size))[:30]
        for size in (60, 80, 200)
    ]
    forecaster = NeuralODE(rank=3)
    report = fit_forecaster(forecaster, others[0], Budget(iterations=60), seeded(), others[1])
    assert report.validation_error < 0.2
    for learned, line in zip(score(forecaster, others[2]), score(Linear(), others[2]), strict=True):
        assert 1 - learned.skill < 0.4 * (1 - line.skill), (learned.horizon, learned.skill, line.skill)


def test_unfitted_window_coordinates_go_straight() -> None:
    """Before training, displacements are the velocity along the line times the time."""
    cases = relaxing_cases(history=8)
    forecaster = NeuralODE()
    examples = Examples.of(cases, forecaster)
    network = forecaster.network(examples, seeded())
    features, group, gram, *_ = forecaster.items(examples, examples.training, seeded()).items
    seen, units = Seen(features, group, gram), torch.tensor([1.0, 7.0], dtype=torch.float64)
    assert isinstance(network, GramNetwork)
    frame = WindowFrame(gram, 2)
    with torch.no_grad():
        found = network.coefficients(seen, units)
    torch.testing.assert_close(found, frame.coefficients(units[:, None] * frame.velocity[:, None]))


def test_window_coordinates_answer_longer_horizons() -> None:
    """Beyond the longest trained horizon the equation goes on, and the scale grows in proportion."""
    forecaster = NeuralODE()
    cases = relaxing_cases(history=8)
    fit_forecaster(forecaster, cases, Budget(iterations=5), seeded())
    near, far = forecaster.forecast(cases[0].window, [20, 60])
    torch.testing.assert_close(far.scale, near.scale * 3)
    assert float((far.mean - near.mean).norm()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("coordinates", ["window", "pca"])
def test_the_jacobian_penalty_makes_the_field_gentler(coordinates: Coordinates) -> None:
    """Trained with it, the field's Jacobian along the paths is less than half as large as without."""
    steepness = []
    for penalty in (0.0, 3.0):
        forecaster = NeuralODE(coordinates, rank=2, width=8, jacobian_penalty=penalty)
        examples = Examples.of(relaxing_cases(noise=0.01, history=8), forecaster)
        network = forecaster.network(examples, seeded())
        items = forecaster.items(examples, examples.training, seeded())
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(40):
            optimizer.zero_grad()
            forecaster.training_error(network, items).backward()
            optimizer.step()
        forecaster._parts.jacobian_penalty = 1.0  # what was learned stays; only the measure counts from here
        watched = forecaster._parts.training_error(network, items) - forecaster.relative_error(network, items)
        steepness.append(watched.item())
    assert 0 < steepness[1] < 0.5 * steepness[0]


def test_a_diverging_fit_leaves_the_forecaster_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """When training fails half way, a fitted forecaster still gives its old forecasts."""
    cases = relaxing_cases()
    forecaster = pca(3)
    fit_forecaster(forecaster, cases, Budget(iterations=5), seeded())
    before = forecaster.state_dict()
    monkeypatch.setattr(NeuralODE, "learning_rate", float("nan"))
    with pytest.raises((FittingError, ValueError), match="diverged|Invalid learning rate"):
        fit_forecaster(forecaster, cases, Budget(iterations=20), seeded())
    torch.testing.assert_close(forecaster.state_dict(), before, rtol=0, atol=0)

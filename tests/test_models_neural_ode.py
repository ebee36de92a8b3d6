"""The neural differential equation."""

from dataclasses import replace

import pytest
import torch
from problems import cases_of, drifting_rows, flat_layout, relaxing_rows, small_layout, window_of
from torch import Tensor

from deadreckon.forecast import Case, score
from deadreckon.forecast.errors import LayoutError
from deadreckon.models import Budget, FittingError, Linear, NeuralODE, fit_forecaster
from deadreckon.models.fitting import Examples
from deadreckon.models.latent_flow import Acceleration, Flow, _grid, integrate
from deadreckon.models.latent_frame import Frame, Latents
from deadreckon.models.threads import one_thread
from deadreckon.models.training import train

NUM_PARAMETERS = 200
LAYOUT = flat_layout(NUM_PARAMETERS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relaxing_cases(noise: float = 0.0) -> list[Case]:
    rows = relaxing_rows(60, NUM_PARAMETERS, 3, seeded(7))
    rows = rows + noise * torch.randn(rows.shape, generator=seeded(1))
    return cases_of(rows, range(0, 120, 2), 5, [2, 10, 20], LAYOUT)


def linear_flow(damping: float, start: Tensor) -> Flow:
    """A flow with u' = -damping u but for tanh's curvature, which small inner weights make negligible."""
    rank = start.shape[-1]
    acceleration = Acceleration(rank, rank)
    small = 1e-4
    with torch.no_grad():
        acceleration.inner.weight[:, rank:] = small * torch.eye(rank)
        acceleration.hidden.weight.copy_(torch.eye(rank))
        acceleration.outer.weight.copy_(-damping / small * torch.eye(rank))
    return Flow(acceleration, start, torch.ones_like(start))


def random_flow(num_cases: int = 6, rank: int = 3) -> Flow:
    generator = seeded(2)
    acceleration = Acceleration(rank, 8, generator)
    with torch.no_grad():
        acceleration.outer.weight.copy_(0.5 * torch.randn(rank, 8, generator=generator))
    start = torch.randn(num_cases, rank, generator=generator, dtype=torch.float64)
    return Flow(acceleration, start, torch.full_like(start, 0.3))


def unit_rows(num_cases: int = 6, rank: int = 3) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(num_cases, rank, generator=seeded(3), dtype=torch.float64), dim=1)


# --- the equation and its solution


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_friction_is_integrated_exactly(method: str) -> None:
    """Under friction the displacement is u0 (1 - exp(-c t)) / c, at times that are no multiples of the step too."""
    flow = linear_flow(0.2, torch.zeros(1, 2, dtype=torch.float64))
    direction = torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    times = torch.tensor([0.3, 1.0, 5.5, 20.0], dtype=torch.float64)
    with torch.no_grad():
        found = integrate(flow, direction, times, "rk4" if method == "rk4" else "dopri5")
    expected = (1 - torch.exp(-0.2 * times)).view(-1, 1, 1) / 0.2 * direction
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_springs_are_integrated_exactly() -> None:
    """With u' = -p in normalised coordinates p = start + gain x, motion is that of a spring of stiffness `gain`."""
    start = torch.tensor([[0.7, -0.2]], dtype=torch.float64)
    acceleration = Acceleration(2, 2)
    small, gain = 1e-4, 0.25
    with torch.no_grad():
        acceleration.inner.weight[:, :2] = small * torch.eye(2)
        acceleration.hidden.weight.copy_(torch.eye(2))
        acceleration.outer.weight.copy_(-torch.eye(2) / small)
        direction = torch.tensor([[0.6, -0.8]], dtype=torch.float64)
        times = torch.tensor([1.0, 7.0], dtype=torch.float64)
        flow = Flow(acceleration, start, torch.full_like(start, gain))
        found = integrate(flow, direction, times, "rk4", step_size=0.1)
    phase = times.view(-1, 1, 1) * gain**0.5
    expected = (torch.cos(phase) - 1) * start / gain + torch.sin(phase) * direction / gain**0.5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_unfitted_acceleration_is_zero() -> None:
    """Before training, motion is a straight line: displacement is direction times time."""
    acceleration = Acceleration(3, 8, seeded())
    start = torch.randn(6, 3, generator=seeded(1), dtype=torch.float64)
    times = torch.tensor([0.5, 4.0], dtype=torch.float64)
    with torch.no_grad():
        found = integrate(Flow(acceleration, start, torch.ones_like(start)), unit_rows(), times)
    torch.testing.assert_close(found, times.view(-1, 1, 1) * unit_rows(), rtol=1e-12, atol=1e-12)


def test_both_solvers_agree() -> None:
    """Small fixed steps and error-controlled steps give the same displacements of a non-linear flow."""
    times = torch.tensor([1.0, 2.5, 6.0], dtype=torch.float64)
    with torch.no_grad():
        fixed = integrate(random_flow(), unit_rows(), times, "rk4", step_size=0.05)
        adaptive = integrate(random_flow(), unit_rows(), times, "dopri5")
    torch.testing.assert_close(fixed, adaptive, rtol=1e-5, atol=1e-5)


def test_the_solver_is_of_fourth_order() -> None:
    """Halving rk4's step divides its error by about sixteen."""
    times = torch.tensor([4.0], dtype=torch.float64)
    with torch.no_grad():
        exact = integrate(random_flow(), unit_rows(), times, "rk4", step_size=0.01)
        errors = [
            float((integrate(random_flow(), unit_rows(), times, "rk4", step_size=step) - exact).norm())
            for step in (1.0, 0.5, 0.25)
        ]
    orders = torch.tensor(errors).log2().diff().neg()
    assert bool(((orders > 3.4) & (orders < 5)).all()), orders


def test_adjoint_and_direct_gradients_agree() -> None:
    """Gradients by the adjoint equation equal those through the solver, for every parameter."""
    times = torch.tensor([1.0, 4.0], dtype=torch.float64)
    gradients = []
    for adjoint in (False, True):
        flow = random_flow()
        integrate(flow, unit_rows(), times, "rk4", step_size=0.1, adjoint=adjoint).square().sum().backward()
        gradients.append([value.grad for value in flow.parameters()])
    for direct, by_adjoint in zip(*gradients, strict=True):
        torch.testing.assert_close(by_adjoint, direct, rtol=1e-4, atol=1e-5)


def test_times_lie_on_the_grid() -> None:
    """Every time asked for is a grid point, and no step is longer than allowed."""
    grid, positions = _grid([0.0, 0.3, 2.3, 2.4], 1.0)
    assert [grid[position] for position in positions] == [0.3, 2.3, 2.4]
    assert grid == pytest.approx([0.0, 0.3, 1.3, 2.3, 2.4])


# --- the frame


def test_frame_expresses_low_rank_motion_completely() -> None:
    """On motion in three directions, three components leave nothing outside, and displacements decode to the truth."""
    examples = Examples.of(relaxing_cases(), NeuralODE(rank=3))
    frame = Frame.of(examples, 3)
    latents = Latents.of(examples, examples.validation, frame)
    assert float((latents.outside / latents.targets.square().sum(-1)).max()) < 1e-5
    case = examples.cases[examples.num_training]
    decoded = case.window.last + latents.targets[2, 0].float() @ frame.basis
    torch.testing.assert_close(decoded, case.targets[20], rtol=0, atol=1e-5)
    assert frame.spacing == 2.0


def test_velocity_is_the_slope_per_training_spacing() -> None:
    """A line of known slope has that slope times the training spacing as velocity, at any spacing of its own rows."""
    frame = Frame.of(Examples.of(relaxing_cases(), NeuralODE(rank=2)), 2)
    slope = 0.1 * frame.basis[0] - 0.2 * frame.basis[1]
    for steps in ([0, 2, 4, 6, 8], [0, 1, 5, 6, 20]):
        rows = torch.tensor(steps).unsqueeze(1) * slope
        _, velocity = frame.encode(window_of(rows, steps, LAYOUT))
        torch.testing.assert_close(velocity, torch.tensor([0.2, -0.4], dtype=torch.float64), rtol=0, atol=1e-5)


def test_a_new_frame_lies_close_to_the_previous_one() -> None:
    """Refitted on the same rows, a frame turned away by a rotation is turned back to the previous one."""
    examples = Examples.of(relaxing_cases(), NeuralODE(rank=3))
    frame = Frame.of(examples, 3)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=seeded(5)))[0]
    turned = frame._replace(basis=rotation @ frame.basis)
    torch.testing.assert_close(Frame.of(examples, 3, turned).basis, turned.basis, rtol=0, atol=1e-4)


def test_too_many_components_are_refused() -> None:
    """Rows that vary in three directions only cannot give eight components."""
    rows = relaxing_rows(60, NUM_PARAMETERS, 3, seeded(7)).double()
    cases = cases_of(rows, range(0, 120, 2), 5, [2], LAYOUT)
    with pytest.raises(FittingError, match=r"No 8 principal components: .*Lower `rank`"):
        fit_forecaster(NeuralODE(rank=8), cases, Budget(iterations=1), seeded())
    with pytest.raises(FittingError, match=r"No 8 principal components: .*time > 8"):
        fit_forecaster(NeuralODE(rank=8), cases[:5], Budget(iterations=1), seeded())


# --- the forecaster


def test_recovers_a_damped_flow() -> None:
    """Trained on noisy rows of a motion slowed by friction, it forecasts what comes next better than line and hold.

    On the cases that it was trained on, without noise, hardly any error is left.
    """
    clean, noisy = relaxing_cases(), relaxing_cases(noise=0.01)
    forecaster = NeuralODE(rank=3)
    report = fit_forecaster(forecaster, noisy[:30], Budget(iterations=100), seeded())
    assert report.validation_error < 0.7
    for learned, line in zip(score(forecaster, noisy[36:])[1:], score(Linear(), noisy[36:])[1:], strict=True):
        assert 1 - learned.skill < 0.4 * (1 - line.skill), (learned.horizon, learned.skill, line.skill)
        assert learned.skill > 0.1, (learned.horizon, learned.skill)
    forecaster = NeuralODE(rank=3)
    report = fit_forecaster(forecaster, clean[:30], Budget(iterations=150), seeded())
    assert report.training_error < 0.03
    line_errors = [1 - result.skill for result in score(Linear(), clean[:22])]
    assert report.training_error < 0.06 * sum(line_errors) / len(line_errors)


def test_a_trained_equation_keeps_what_stands_still() -> None:
    """Also with an acceleration that is far from zero, a constant window is continued bit for bit, with scale 0."""
    forecaster = NeuralODE(rank=3)
    cases = relaxing_cases()
    fit_forecaster(forecaster, cases, Budget(iterations=100), seeded())
    assert float(forecaster.state_dict()["acceleration.outer.weight"].abs().max()) > 0.01
    last = cases[3].window.last
    for forecast in forecaster.forecast(window_of(last.repeat(5, 1), range(5), LAYOUT), [1, 40]):
        assert torch.equal(forecast.mean, last)
        assert torch.equal(forecast.scale, torch.zeros(NUM_PARAMETERS))


def test_what_the_components_cannot_express_is_held() -> None:
    """A window moving at right angles to the components is forecast to stand still, with a scale above zero."""
    forecaster = NeuralODE(rank=3)
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
    forecaster = NeuralODE(rank=3)
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
    forecaster = NeuralODE(rank=4)
    fit_forecaster(forecaster, cases[:80], Budget(iterations=20), seeded())
    for result in score(forecaster, cases[84:]):
        assert 0.5 < result.coverage < 0.8


def test_a_second_fit_goes_on_from_the_first() -> None:
    """Fitted again, it starts from the present weights: never worse on the same cases, and unlike a fresh start."""
    cases = relaxing_cases()
    forecaster, fresh = NeuralODE(rank=3), NeuralODE(rank=3)
    first = fit_forecaster(forecaster, cases[:30], Budget(iterations=60), seeded())
    second = fit_forecaster(forecaster, cases[:30], Budget(iterations=5), seeded())
    cold = fit_forecaster(fresh, cases[:30], Budget(iterations=5), seeded())
    assert second.validation_error <= first.validation_error * 1.01
    assert second.validation_error < 0.5 * cold.validation_error


def test_another_network_starts_anew() -> None:
    """Fitted to another layout, nothing of the first network remains, and windows of the first are refused."""
    cases = relaxing_cases()[:30]
    other = small_layout({"a": (150,), "b": (50,)})
    moved = [Case(replace(case.window, layout=other), case.targets) for case in cases]
    forecaster, fresh = NeuralODE(rank=3), NeuralODE(rank=3)
    fit_forecaster(forecaster, cases, Budget(iterations=100), seeded())
    assert float(forecaster.state_dict()["acceleration.outer.weight"].abs().max()) > 0.01
    fit_forecaster(forecaster, moved, Budget(iterations=5), seeded())
    fit_forecaster(fresh, moved, Budget(iterations=5), seeded())
    torch.testing.assert_close(forecaster.state_dict(), fresh.state_dict(), rtol=0, atol=0)
    with pytest.raises(LayoutError, match="layout is not the one that 'neural_ode' was fitted to"):
        forecaster.forecast(cases[0].window, [1])


@pytest.mark.parametrize("options", [{"method": "dopri5"}, {"adjoint": True}, {"step_size": 0.5}])
def test_solver_options_give_nearly_the_same_forecaster(options: dict) -> None:
    """Solver, step and kind of gradient change the cost of a fit, not what it finds."""
    cases = relaxing_cases()[:40]
    plain, other = NeuralODE(rank=2, width=8), NeuralODE(rank=2, width=8, **options)
    for forecaster in (plain, other):
        fit_forecaster(forecaster, cases, Budget(iterations=4), seeded())
    for one, two in zip(
        plain.forecast(cases[-1].window, [2, 20]), other.forecast(cases[-1].window, [2, 20]), strict=True
    ):
        moved = float((one.mean - cases[-1].window.last).norm())
        torch.testing.assert_close(two.mean, one.mean, rtol=0, atol=1e-3 * moved)


def test_time_is_kept() -> None:
    """With seconds in the budget, training stops soon after them and says so."""
    report = fit_forecaster(NeuralODE(rank=3), relaxing_cases(), Budget(iterations=10**6, seconds=0.3), seeded())
    assert report.stopped == "seconds"
    assert report.wall_seconds < 10


# --- training


def test_threads_are_restored() -> None:
    """Inside there is one thread; afterwards as many as before, on an error too."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(KeyError, match="inside"), one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError("inside")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


class Quartic(torch.nn.Module):
    """One number, to be moved from 1 towards 0."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))


def test_training_keeps_the_best_and_stops_when_it_no_longer_improves() -> None:
    """With a validation error that is least half way, the parameters from there are kept and training ends early."""
    module = Quartic()
    iterations, best, stopped = train(
        module, lambda: module.value**2, lambda: (module.value - 0.5) ** 2, num_iterations=10**5, deadline=None
    )
    assert stopped == "converged"
    assert iterations < 300
    assert abs(float(module.value) - 0.5) < 0.05
    assert best == float((module.value - 0.5) ** 2)
    assert not module.value.requires_grad


def test_training_that_diverges_is_an_error() -> None:
    """An error that is not finite ends the fit; the iteration is named."""
    module = Quartic()
    with pytest.raises(FittingError, match="Training diverged: the error is nan in iteration 5"):
        train(module, lambda: module.value * torch.nan, lambda: module.value**2, 50, None)
    module = Quartic()
    with pytest.raises(FittingError, match="Training diverged: the error is inf in iteration 0"):
        train(module, lambda: module.value, lambda: module.value * torch.inf, 50, None)


def test_a_diverging_fit_leaves_the_forecaster_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """When training fails half way, a fitted forecaster still gives its old forecasts."""
    cases = relaxing_cases()
    forecaster = NeuralODE(rank=3)
    fit_forecaster(forecaster, cases, Budget(iterations=5), seeded())
    before = forecaster.state_dict()
    monkeypatch.setattr("deadreckon.models.training.LEARNING_RATE", float("nan"))
    with pytest.raises((FittingError, ValueError), match="diverged|Invalid learning rate"):
        fit_forecaster(forecaster, cases, Budget(iterations=20), seeded())
    torch.testing.assert_close(forecaster.state_dict(), before, rtol=0, atol=0)

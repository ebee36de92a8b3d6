"""Equations of motion in few coordinates, and how they are solved."""

import pytest
import torch
from torch import Tensor

from deadreckon.models.latent_flow import Flow, Method, Solver, integrate, integrate_penalised
from deadreckon.models.small_network import SmallNetwork
from deadreckon.models.solver import time_grid


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_flow(damping: float, start: Tensor) -> Flow:
    """A flow with u' = -damping u but for tanh's curvature, which small inner weights make negligible."""
    rank = start.shape[-1]
    acceleration = SmallNetwork(2 * rank, rank, rank)
    small = 1e-4
    with torch.no_grad():
        acceleration.inner.weight[:, rank:] = small * torch.eye(rank)
        acceleration.hidden.weight.copy_(torch.eye(rank))
        acceleration.outer.weight.copy_(-damping / small * torch.eye(rank))
    return Flow(acceleration, start, torch.ones_like(start))


def random_flow(num_cases: int = 6, rank: int = 3) -> Flow:
    generator = seeded(2)
    acceleration = SmallNetwork(2 * rank, 8, rank)
    acceleration.initialise(generator)
    with torch.no_grad():
        acceleration.outer.weight.copy_(0.5 * torch.randn(rank, 8, generator=generator))
    start = torch.randn(num_cases, rank, generator=generator, dtype=torch.float64)
    return Flow(acceleration, start, torch.full_like(start, 0.3))


def unit_rows(num_cases: int = 6, rank: int = 3) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(num_cases, rank, generator=seeded(3), dtype=torch.float64), dim=1)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_friction_is_integrated_exactly(method: Method) -> None:
    """Under friction the displacement is u0 (1 - exp(-c t)) / c, at times that are no multiples of the step too."""
    flow = linear_flow(0.2, torch.zeros(1, 2, dtype=torch.float64))
    direction = torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    times = torch.tensor([0.3, 1.0, 5.5, 20.0], dtype=torch.float64)
    with torch.no_grad():
        found = integrate(flow, direction, times, Solver(method))
    expected = (1 - torch.exp(-0.2 * times)).view(-1, 1, 1) / 0.2 * direction
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_springs_are_integrated_exactly() -> None:
    """With u' = -p in normalised coordinates p = start + gain x, motion is that of a spring of stiffness `gain`."""
    start = torch.tensor([[0.7, -0.2]], dtype=torch.float64)
    acceleration = SmallNetwork(4, 2, 2)
    small, gain = 1e-4, 0.25
    with torch.no_grad():
        acceleration.inner.weight[:, :2] = small * torch.eye(2)
        acceleration.hidden.weight.copy_(torch.eye(2))
        acceleration.outer.weight.copy_(-torch.eye(2) / small)
        direction = torch.tensor([[0.6, -0.8]], dtype=torch.float64)
        times = torch.tensor([1.0, 7.0], dtype=torch.float64)
        flow = Flow(acceleration, start, torch.full_like(start, gain))
        found = integrate(flow, direction, times, Solver(step_size=0.1))
    phase = times.view(-1, 1, 1) * gain**0.5
    expected = (torch.cos(phase) - 1) * start / gain + torch.sin(phase) * direction / gain**0.5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_unfitted_acceleration_is_zero() -> None:
    """Before training, motion is a straight line: displacement is direction times time."""
    acceleration = SmallNetwork(6, 8, 3)
    acceleration.initialise(seeded())
    start = torch.randn(6, 3, generator=seeded(1), dtype=torch.float64)
    times = torch.tensor([0.5, 4.0], dtype=torch.float64)
    with torch.no_grad():
        found = integrate(Flow(acceleration, start, torch.ones_like(start)), unit_rows(), times, Solver())
    torch.testing.assert_close(found, times.view(-1, 1, 1) * unit_rows(), rtol=1e-12, atol=1e-12)


def test_both_solvers_agree() -> None:
    """Small fixed steps and error-controlled steps give the same displacements of a non-linear flow."""
    times = torch.tensor([1.0, 2.5, 6.0], dtype=torch.float64)
    with torch.no_grad():
        fixed = integrate(random_flow(), unit_rows(), times, Solver(step_size=0.05))
        adaptive = integrate(random_flow(), unit_rows(), times, Solver("dopri5"))
    torch.testing.assert_close(fixed, adaptive, rtol=1e-5, atol=1e-5)


def test_the_solver_is_of_fourth_order() -> None:
    """Halving rk4's step divides its error by about sixteen."""
    times = torch.tensor([4.0], dtype=torch.float64)
    with torch.no_grad():
        exact = integrate(random_flow(), unit_rows(), times, Solver(step_size=0.01))
        errors = [
            float((integrate(random_flow(), unit_rows(), times, Solver(step_size=step)) - exact).norm())
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
        integrate(flow, unit_rows(), times, Solver(step_size=0.1, adjoint=adjoint)).square().sum().backward()
        gradients.append([value.grad for value in flow.parameters()])
    for direct, by_adjoint in zip(*gradients, strict=True):
        torch.testing.assert_close(by_adjoint, direct, rtol=1e-4, atol=1e-5)


def test_steepness_is_the_jacobians_norm_along_the_path() -> None:
    """Averaged over probes it is |J|_F^2, J by finite differences of the field, averaged over the path."""
    flow, times, solver = random_flow(2), torch.tensor([3.0], dtype=torch.float64), Solver(step_size=0.5)
    start = unit_rows(2)
    probes = torch.tensor([[1.0, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1]], dtype=torch.float64)  # all, up to sign
    found = torch.stack(
        [integrate_penalised(flow, start, times, solver, probe.expand(2, 3))[1].detach() for probe in probes]
    ).mean(dim=0)
    fine = torch.linspace(0, 3, 61, dtype=torch.float64)
    with torch.no_grad():
        path = [torch.zeros(2, 3, dtype=torch.float64), *integrate(flow, start, fine[1:], Solver(step_size=0.05))]
        speeds = torch.stack(path).diff(dim=0) / 0.05
        states = torch.cat(((torch.stack(path[1:]) + torch.stack(path[:-1])) / 2, speeds), dim=-1)
        norms = torch.zeros(60, 2, dtype=torch.float64)
        for axis in range(6):
            nudge = torch.zeros(6, dtype=torch.float64)
            nudge[axis] = 1e-5
            for index, state in enumerate(states):
                slope = (flow.change(state + nudge) - flow.change(state - nudge)) / 2e-5
                norms[index] += slope.square().sum(dim=1)
    torch.testing.assert_close(found, norms.mean(dim=0), rtol=2e-3, atol=0)


def test_penalised_paths_are_those_without_penalty() -> None:
    """Watching the Jacobian changes neither displacements nor their gradients, directly or by the adjoint equation."""
    times, probe = torch.tensor([1.0, 4.0], dtype=torch.float64), torch.ones(6, 3, dtype=torch.float64)
    plain = random_flow()
    expected = integrate(plain, unit_rows(), times, Solver(step_size=0.1))
    expected.square().sum().backward()
    steepness = []
    for adjoint in (False, True):
        flow = random_flow()
        found, steep = integrate_penalised(flow, unit_rows(), times, Solver(step_size=0.1, adjoint=adjoint), probe)
        torch.testing.assert_close(found, expected)
        alone = torch.autograd.grad(found.square().sum(), list(flow.parameters()), retain_graph=True)
        for one, two in zip(alone, plain.parameters(), strict=True):
            torch.testing.assert_close(one, two.grad, rtol=1e-4, atol=1e-5)
        gradients = torch.autograd.grad(found.square().sum() + steep.sum(), list(flow.parameters()))
        steepness.append([one - two.grad for one, two in zip(gradients, plain.parameters(), strict=True)])  # type: ignore[operator]
    for direct, by_adjoint in zip(*steepness, strict=True):
        torch.testing.assert_close(by_adjoint, direct, rtol=1e-3, atol=1e-4)
    assert max(float(part.abs().max()) for part in steepness[0]) > 1e-3


def test_times_lie_on_the_grid() -> None:
    """Every time asked for is a grid point, and no step is longer than allowed."""
    grid, positions = time_grid([0.0, 0.3, 2.3, 2.4], 1.0)
    assert [grid[position] for position in positions] == [0.3, 2.3, 2.4]
    assert grid == pytest.approx([0.0, 0.3, 1.3, 2.3, 2.4])

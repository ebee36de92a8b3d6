"""Flow matching on trajectories."""

from itertools import pairwise

import pytest
import torch
from problems import cases_of, drifting_rows, flat_layout, relaxing_rows
from torch import Tensor

from deadreckon.forecast import Case, score
from deadreckon.models import Budget, FlowMatching, Linear, fit_forecaster
from deadreckon.models.conditioned import Conditioned
from deadreckon.models.fitting import Examples
from deadreckon.models.flow_matching import NUM_TIMES
from deadreckon.models.small_network import SmallNetwork
from deadreckon.models.solver import time_grid
from deadreckon.models.trainable import TrainingItems
from deadreckon.models.window_frame import WindowFrame

HISTORY, HORIZONS = 6, (2, 10, 20)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relaxing_cases(seed: int = 7) -> list[Case]:
    return cases_of(relaxing_rows(60, 80, 3, seeded(seed)), range(0, 120, 2), HISTORY, HORIZONS, flat_layout(80))


def prepared(forecaster: FlowMatching, cases: list[Case]) -> tuple[torch.nn.Module, TrainingItems]:
    """A new network and the training items."""
    examples = Examples.of(cases, forecaster)
    generator = seeded()
    return forecaster.network(examples, generator), forecaster.items(examples, examples.training, generator)


def with_constant_velocity(network: torch.nn.Module, velocity: Tensor) -> None:
    """Let a fresh network say `velocity`, in units of the tensor's step over the root of one plus time."""
    with torch.no_grad():
        network.get_parameter("velocity.outer.bias").copy_(velocity)


def test_training_begins_at_persistence() -> None:
    """Before the first iteration the forecast's error is that of standing still."""
    forecaster = FlowMatching(HISTORY)
    network, items = prepared(forecaster, relaxing_cases())
    assert float(forecaster.mean_error(network, items)) == pytest.approx(1)


def test_the_solution_of_a_known_field() -> None:
    """With v = a / sqrt(1 + t) along the first direction, z is 2 a (sqrt(1 + t) - 1) there at every horizon."""
    forecaster = FlowMatching(HISTORY, rank=2, step_size=0.5)
    network, items = prepared(forecaster, relaxing_cases())
    with_constant_velocity(network, torch.tensor([0.3, 0.0]))
    _, _, gram, cross, persistence, *_ = items.items
    errors = forecaster.squared_errors(network, items.items)
    time = torch.tensor(HORIZONS, dtype=torch.float64) / 2
    inside = WindowFrame(gram, 2).project(cross)[..., 0]
    moved = 0.6 * ((1 + time).sqrt() - 1)
    torch.testing.assert_close(errors, persistence - 2 * moved * inside + moved**2, rtol=1e-5, atol=1e-5)


def test_the_loss_is_that_of_the_pieces_of_the_path() -> None:
    """For a field that says nothing the loss is the sum of squared displacements of the pieces, whatever the noise.

    With the mean velocity of all paths it is smaller, and with noise in the target's place it would not be so.
    """
    small, large = (FlowMatching(HISTORY, rank=5, noise=noise) for noise in (1e-3, 10.0))
    losses = []
    for forecaster in (small, large):
        network, items = prepared(forecaster, relaxing_cases())
        losses.append(forecaster.training_error(network, items).item())
    assert losses[0] == pytest.approx(losses[1])
    network, items = prepared(small, relaxing_cases())
    case_paths = [[case.window.last, *(case.targets[horizon] for horizon in HORIZONS)] for case in relaxing_cases()][
        : len(items)
    ]
    pieces = torch.stack([torch.stack(path).diff(dim=0).double().square().sum(dim=1) for path in case_paths])
    units = torch.stack([case.window.values.double().diff(dim=0).square().sum(1).mean() for case in relaxing_cases()])
    expected = float((items.share * pieces / units[: len(items), None]).mean())
    assert losses[0] == pytest.approx(expected, rel=1e-3)
    with_constant_velocity(network, torch.tensor([0.5, 0.0, 0.0, 0.0, 0.0]))
    assert small.training_error(network, items).item() < losses[0]


def test_the_loss_of_a_known_field() -> None:
    """It is how far off the field's velocity at the drawn times is, over the length of each piece, by hand."""
    forecaster = FlowMatching(HISTORY, rank=2)
    network, items = prepared(forecaster, relaxing_cases())
    with_constant_velocity(network, torch.tensor([0.3, -0.1]))
    _, _, gram, cross, _, share, _ = items.items
    points = WindowFrame(gram, 2).project(cross)
    expected = 0.0
    for piece, (begin, end) in enumerate(((0.0, 1.0), (1.0, 5.0), (5.0, 10.0))):
        moved = points[:, piece] - (points[:, piece - 1] if piece else 0.0)
        for draw in range(share.shape[1]):
            time = begin + share[:, draw, piece] * (end - begin)
            said = torch.tensor([0.3, -0.1]) / (1 + time).sqrt()[:, None] * (end - begin)
            off = (said - moved).square().sum(dim=1)
            expected += float((items.share[:, piece] * off).mean()) / share.shape[1] / 3
    assert forecaster.training_error(network, items).item() == pytest.approx(expected, rel=1e-6)


def test_recovers_a_damped_flow() -> None:
    """Fitted to motion slowed by friction, it forecasts what comes next far better than hold and line."""
    forecaster = FlowMatching(HISTORY, rank=3)
    cases = relaxing_cases()
    fit_forecaster(forecaster, cases[:30], Budget(iterations=200), seeded(), relaxing_cases(8)[:30])
    for learned, line in zip(
        score(forecaster, relaxing_cases(9)[:30]), score(Linear(), relaxing_cases(9)[:30]), strict=True
    ):
        assert 1 - learned.skill < 0.5 * (1 - line.skill), (learned.horizon, learned.skill, line.skill)
        assert learned.skill > 0.8


def test_time_is_continuous() -> None:
    """Between trained horizons it lies on the path of its equation: close to the chord, but not on it."""
    forecaster = FlowMatching(HISTORY, rank=3)
    cases = relaxing_cases()
    fit_forecaster(forecaster, cases, Budget(iterations=50), seeded())
    early, middle, late = (forecast.mean for forecast in forecaster.forecast(cases[0].window, [10, 15, 20]))
    bend = float((middle - (early + late) / 2).norm() / (late - early).norm())
    assert 1e-3 < bend < 0.2


def test_the_step_does_not_matter() -> None:
    """Eight times as many steps of the solver give nearly the same forecast."""
    means = []
    for step_size in (4.0, 0.5):
        forecaster = FlowMatching(HISTORY, rank=3, step_size=step_size)
        fit_forecaster(forecaster, relaxing_cases(), Budget(iterations=30), seeded())
        window = relaxing_cases()[0].window
        means.append(next(forecaster.forecast(window, [20])).mean - window.last)
    assert float((means[0] - means[1]).norm()) < 0.02 * float(means[1].norm())


def test_paths_and_noise_are_drawn_once() -> None:
    """Items hold their times and noises, of the standard deviation asked for; equal generators give equal ones."""
    _, items = prepared(FlowMatching(HISTORY, noise=0.5), relaxing_cases())
    _, again = prepared(FlowMatching(HISTORY, noise=0.5), relaxing_cases())
    share, noise = items.items[-2:]
    assert 0 <= float(share.min()) < 0.1 < 0.9 < float(share.max()) <= 1
    assert float(noise.std()) == pytest.approx(0.5, rel=0.1)
    assert torch.equal(noise, again.items[-1])
    assert torch.equal(share, again.items[-2])


def test_conditions_are_looked_at_once_and_count_as_inputs() -> None:
    """A network with its condition's part computed beforehand gives what it gives for state and condition together."""
    network = SmallNetwork(3 + NUM_TIMES + 4, 6, 3)
    network.initialise(seeded())
    torch.nn.init.normal_(network.outer.weight, generator=seeded(1))
    state = torch.randn(7, 2, 3 + NUM_TIMES, generator=seeded(2), dtype=torch.float64)
    condition = torch.randn(7, 1, 4, generator=seeded(3), dtype=torch.float64)
    together = network(torch.cat((state, condition.expand(-1, 2, -1)), dim=-1))
    torch.testing.assert_close(Conditioned(network, condition)(state), together)


def test_the_grid_hits_every_time() -> None:
    """Every time asked for is a grid point and no step is longer than allowed."""
    grid, wanted = time_grid([0.0, 1.0, 5.0, 20.0], 4.0)
    assert [grid[index] for index in wanted] == [1.0, 5.0, 20.0]
    assert max(b - a for a, b in pairwise(grid)) <= 4.0


def test_skill_and_scale_on_noisy_rows() -> None:
    """On drifting rows it beats persistence on later cases, and covers about what it says."""
    layout = flat_layout(60)
    cases = cases_of(drifting_rows(150, 60, seeded(3)), range(150), HISTORY, [1, 4], layout)
    forecaster = FlowMatching(HISTORY, noise=0.3)
    fit_forecaster(forecaster, cases[:80], Budget(iterations=40), seeded())
    for result in score(forecaster, cases[84:]):
        assert result.skill > 0.2
        assert 0.5 < result.coverage < 0.85

"""Parabolas whose curvature is limited."""

import numpy as np
import pytest
import torch
from problems import small_layout, window_of
from torch import Tensor

from deadreckon.forecast import Window
from deadreckon.models import Linear, Quadratic

EVEN = [100, 110, 120, 130, 140]
UNEVEN = [3, 4, 9, 11, 30]
spacings = pytest.mark.parametrize("steps", [EVEN, UNEVEN], ids=["even", "uneven"])


def one(forecaster: Linear | Quadratic, window: Window, horizon: int) -> tuple[Tensor, Tensor]:
    (forecast,) = forecaster.forecast(window, [horizon])
    return forecast.mean, forecast.scale


def test_a_curvature_limit_that_does_not_bind_changes_nothing() -> None:
    """Parabolas are continued exactly while the velocity changes by less than the limit per row."""
    time = torch.arange(6, dtype=torch.float64).unsqueeze(1)
    rows = 3 + 10 * time + 0.5 * time**2  # slope of the line at the middle of five rows: 12; change per row: 1
    window = window_of(rows[:-1], [10 * step for step in range(5)])
    for limit in (None, 1 / 12 + 1e-9):
        mean, _ = one(Quadratic(curvature_limit=limit), window, 10)
        torch.testing.assert_close(mean, rows[-1], rtol=1e-12, atol=0)


@spacings
@pytest.mark.parametrize("horizon", [1, 25])
def test_a_curvature_limit_that_binds_scales_the_curvature_of_a_tensor(steps: list[int], horizon: int) -> None:
    """Tensor by tensor, what the parabola adds to the line shrinks by limit |v| / (|a| D); polyfit's v and a."""
    layout = small_layout()
    rows = torch.randn(5, layout.size, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    calm = layout["second.weight"].span  # there the limit does not bind
    rows[:, calm] = 0.01 * rows[:, calm] + torch.arange(5.0, dtype=torch.float64).unsqueeze(1)
    if steps == UNEVEN:
        rows[:, calm] = 0.01 * rows[:, calm] + torch.tensor(steps, dtype=torch.float64).unsqueeze(1)
    window = window_of(rows, steps, layout)
    limited, scale = one(Quadratic(curvature_limit=0.5), window, horizon)
    plain, unlimited_scale = one(Quadratic(), window, horizon)
    line, _ = one(Linear(), window, horizon)
    time = np.asarray(steps, dtype=np.float64) - steps[-1]
    slope, bend = np.polyfit(time, rows.numpy(), 1)[0], 2 * np.polyfit(time, rows.numpy(), 2)[0]
    spacing = (steps[-1] - steps[0]) / 4
    shares = []
    for spec in layout:
        share = 0.5 * np.linalg.norm(slope[spec.span]) / (np.linalg.norm(bend[spec.span]) * spacing)
        shares.append(min(1.0, share))
        expected = line[spec.span] + shares[-1] * (plain - line)[spec.span]
        torch.testing.assert_close(limited[spec.span], expected, rtol=1e-9, atol=1e-9)
    assert shares[2] == 1.0
    assert max(shares[:2]) < 1.0
    assert torch.equal(scale, unlimited_scale)


def test_without_velocity_no_curvature_is_allowed() -> None:
    """A parabola about its apex has no slope; with a limit it is continued as the line, its mean."""
    rows = torch.tensor([[4.0], [1.0], [0.0], [1.0], [4.0]])
    mean, _ = one(Quadratic(curvature_limit=100.0), window_of(rows, EVEN), 10)
    torch.testing.assert_close(mean, torch.tensor([2.0]))

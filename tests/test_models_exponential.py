"""Exponentials for each coordinate."""

import pytest
import torch
from problems import window_of
from torch import Tensor

from deadreckon.forecast.errors import WindowError
from deadreckon.models import Exponential, Hold, Linear
from deadreckon.models.geometric import geometric_sum
from deadreckon.models.motion import random_walk


def mean_of(rows: Tensor, horizon: int, spacing: int = 10) -> Tensor:
    window = window_of(rows, range(0, spacing * len(rows), spacing))
    (forecast,) = Exponential(history=len(rows)).forecast(window, [horizon])
    torch.testing.assert_close(forecast.scale, random_walk(window) * horizon**0.5)
    return forecast.mean


@pytest.mark.parametrize("num_rows", [3, 5, 9])
@pytest.mark.parametrize("horizon", [1, 10, 25, 400])
def test_exact_on_exponentials(num_rows: int, horizon: int) -> None:
    """a + b lambda^t is continued exactly, each coordinate at its own rate, for horizons between rows too."""
    start = torch.tensor([0.0, 3.0, -1e3, 1e-6, 1e5, 2.0], dtype=torch.float64)
    size = torch.tensor([1.0, -2.0, 5.0, 1e-6, 1e-3, 1e-12], dtype=torch.float64)
    rate = torch.tensor([0.5, 0.9, 0.999, 0.01, 0.97, 1.0], dtype=torch.float64)
    time = torch.cat([torch.arange(num_rows).double(), torch.tensor([num_rows - 1 + horizon / 10])]).unsqueeze(1)
    rows = start + size * rate**time
    rows[:, -1] = start[-1] + time[:, 0]  # rate 1 is a line
    torch.testing.assert_close(mean_of(rows[:-1], horizon), rows[-1], rtol=1e-7, atol=1e-9)


def test_growing_motion_is_continued_as_a_line() -> None:
    """From ratio 1 on, the slope is the mean difference of the rows."""
    rows = torch.tensor([[0.0, 0.0], [1.0, -1.0], [3.0, -2.5], [7.0, -4.75]])
    torch.testing.assert_close(mean_of(rows, 30), torch.tensor([7 + 3 * 7 / 3, -4.75 - 3 * 4.75 / 3]))


def test_alternating_and_constant_coordinates_are_held() -> None:
    """Up to ratio 0, and where nothing moves, the mean is the last row itself; neighbours are not affected."""
    rows = torch.tensor([[0.0, 5.0, 1.0], [1.0, 5.0, 0.5], [0.2, 5.0, 0.25], [0.9, 5.0, 0.125]])
    mean = mean_of(rows, 10)
    assert torch.equal(mean[:2], rows[-1, :2])
    torch.testing.assert_close(mean[2], torch.tensor(0.0625))


def test_limits_are_approached_continuously() -> None:
    """Just inside (0, 1) the forecast is close to what it is outside."""
    for ratio, width in ((1.0, 1e-7), (0.0, 1e-7)):
        around = torch.tensor([ratio - width, ratio + width], dtype=torch.float64)
        differences = torch.stack([torch.ones(2, dtype=torch.float64), around])
        rows = torch.cat([torch.zeros(1, 2, dtype=torch.float64), differences.cumsum(0)])
        below, above = mean_of(rows, 50) - rows[-1]
        assert abs(float(below - above)) < 1e-5


def test_ratio_and_size_are_least_squares() -> None:
    """On noisy rows, rate and newest difference are those of numpy-style sums written out."""
    rows = torch.randn(7, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0).cumsum(0)
    found = mean_of(rows, 30)
    for index, row in enumerate(rows.T):
        d = row.diff()
        rate = min(max(float((d[1:] * d[:-1]).sum() / d[:-1].square().sum()), 0.0), 1.0)
        powers = rate ** torch.arange(6).double()
        newest = float((powers * d).sum() / powers.square().sum() * powers[-1])
        expected = float(row[-1]) + newest * (rate + rate**2 + rate**3)
        assert float(found[index]) == pytest.approx(expected, rel=1e-9)


def test_measured_order() -> None:
    """On a smooth decaying curve the error falls with the cube of the step, a line's with the square."""
    slopes = {}
    for name, forecaster in (("exponential", Exponential(3)), ("linear", Linear(2))):
        errors = []
        for step in (0.02, 0.01, 0.005):
            rows = 1 / (1 + torch.arange(-2, 2, dtype=torch.float64).unsqueeze(1) * step)
            (forecast,) = forecaster.forecast(window_of(rows[:-1], [0, 10, 20]), [10])
            errors.append(float((forecast.mean - rows[-1]).abs()))
        slopes[name] = torch.tensor(errors).log2().diff()
    torch.testing.assert_close(slopes["exponential"], torch.tensor([-3.0, -3.0]), rtol=0, atol=0.1)
    torch.testing.assert_close(slopes["linear"], torch.tensor([-2.0, -2.0]), rtol=0, atol=0.1)


def test_on_pure_noise_it_loses_little() -> None:
    """Around a constant with independent noise, the mean squared error is far below the line's, near persistence's."""
    rows = torch.randn(6, 20_000, generator=torch.Generator().manual_seed(1))
    window = window_of(rows[:-1], range(0, 50, 10))
    errors = {}
    for forecaster in (Hold(5), Linear(5), Exponential(5)):
        (forecast,) = forecaster.forecast(window, [10])
        errors[forecaster.name] = float((forecast.mean - rows[-1]).square().mean())
    assert errors["exponential"] < 1.1 * errors["hold"]


def test_uneven_rows_are_refused() -> None:
    """A ratio from row to row needs equal spacing; the error comes at the call."""
    with pytest.raises(WindowError, match="must be evenly spaced"):
        Exponential(3).forecast(window_of(torch.zeros(3, 2), [0, 1, 3]), [1])


def test_geometric_sums() -> None:
    """Sums over whole numbers of terms, real and complex, near 1, at 1 and at 0."""
    real = torch.tensor([0.0, 1e-9, 0.3, 1 - 1e-12, 1.0], dtype=torch.float64)
    complex_ones = torch.tensor([0, -1, 1j, 1, 0.9 + 0.1j, 1 + 1e-12j], dtype=torch.complex128)
    for ratio in (real, complex_ones):
        terms = ratio.unsqueeze(1) ** torch.arange(1, 8)
        torch.testing.assert_close(geometric_sum(ratio, 7.0), terms.sum(dim=1), rtol=1e-12, atol=1e-12)
    halves = geometric_sum(torch.tensor([0.25], dtype=torch.float64), 0.5)
    torch.testing.assert_close(halves, torch.tensor([0.25 * (1 - 0.5) / 0.75], dtype=torch.float64))

"""Dynamic mode decomposition on linear systems with known answers."""

import pytest
import torch
from problems import drifting_rows, small_layout, window_of
from torch import Tensor

from deadreckon.forecast.errors import WindowError
from deadreckon.models import DMD

LAYOUT = small_layout()


def mean_of(forecaster: DMD, rows: Tensor, horizon: int, spacing: int = 10) -> Tensor:
    steps = range(0, spacing * len(rows), spacing)
    layout = LAYOUT if rows.shape[1] == LAYOUT.size else None
    (forecast,) = forecaster.forecast(window_of(rows, steps, layout), [horizon])
    return forecast.mean


def system(rates: list[complex], num_parameters: int = 12) -> tuple[Tensor, Tensor]:
    """A real map whose eigenvalues, beside zeros, are these and their conjugates; and a shift."""
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for rate in rates:
        if isinstance(rate, complex):
            blocks.append(torch.tensor([[rate.real, rate.imag], [-rate.imag, rate.real]], dtype=torch.float64))
        else:
            blocks.append(torch.tensor([[rate]], dtype=torch.float64))
    core = torch.block_diag(*blocks)
    basis = torch.linalg.qr(torch.randn(num_parameters, len(core), generator=generator, dtype=torch.float64))[0]
    shift = basis @ torch.randn(len(core), generator=generator, dtype=torch.float64)
    return basis @ core @ basis.T, shift


def run(step: Tensor, shift: Tensor, num_rows: int) -> Tensor:
    rows = [torch.zeros(len(step), dtype=torch.float64)]
    for _ in range(num_rows - 1):
        rows.append(step @ rows[-1] + shift)
    return torch.stack(rows)


@pytest.mark.parametrize(
    "rates", [[0.9], [0.95, 0.5], [0.9 + 0.3j], [0.98, -0.4], [1.0, 0.7], [0.99, 0.8 + 0.5j]], ids=str
)
@pytest.mark.parametrize("ahead", [1, 3, 40])
def test_exact_on_linear_systems(rates: list[complex], ahead: int) -> None:
    """w' = A w + b is continued exactly from rank + 2 rows on: decaying, oscillating, alternating, drifting."""
    rank = sum(2 if isinstance(rate, complex) else 1 for rate in rates)
    step, shift = system(rates)
    for num_rows in (rank + 2, rank + 5):
        rows = run(step, shift, num_rows + ahead)
        found = mean_of(DMD(rank, num_rows), rows[:num_rows], 10 * ahead)
        torch.testing.assert_close(found, rows[-1], rtol=0, atol=1e-6)


def test_each_tensor_has_its_own_system() -> None:
    """Tensors that move at different rates are continued exactly with one mode each."""
    rates = torch.cat([torch.full((spec.numel,), 0.9 - 0.2 * index) for index, spec in enumerate(LAYOUT)]).double()
    sizes = torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = sizes * rates ** torch.arange(9).unsqueeze(1)
    torch.testing.assert_close(mean_of(DMD(1, 5), rows[:5], 40), rows[-1], rtol=0, atol=1e-9)


def test_horizons_between_rows() -> None:
    """Half a spacing is a square root of the system: decay and rotation at half the rate."""
    half = torch.tensor([[0.9, 0.3], [-0.3, 0.9]], dtype=torch.float64)
    rows = run(half, torch.ones(2).double(), 14)
    torch.testing.assert_close(mean_of(DMD(2, 6), rows[:11:2], 15), rows[13], rtol=0, atol=1e-9)


def test_order_one() -> None:
    """Lines are continued exactly also when more modes are allowed than there are; nothing moves where nothing did."""
    slopes = torch.randn(LAYOUT.size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows = 5 + slopes * torch.arange(12).double().unsqueeze(1)
    torch.testing.assert_close(mean_of(DMD(4, 8), rows[:8], 40), rows[-1], rtol=1e-9, atol=0)
    assert torch.equal(mean_of(DMD(4, 8), rows[:8], 40), mean_of(DMD(1, 8), rows[:8], 40))
    constant = rows[:1].expand(8, -1).contiguous()
    assert torch.equal(mean_of(DMD(2, 8), constant, 70), rows[0])


def test_modes_that_grow_are_clipped() -> None:
    """A rate of 1.3 is continued as rate 1: a line with the newest difference, not an explosion."""
    rows = 1.3 ** torch.arange(8.0, dtype=torch.float64).unsqueeze(1) * torch.tensor([1.0, -2.0]).double()
    expected = rows[-1] + 100 * (rows[-1] - rows[-2])
    torch.testing.assert_close(mean_of(DMD(1, 8), rows, 1000), expected, rtol=1e-9, atol=0)


def test_noise_does_not_explode() -> None:
    """On a random walk with as many modes as rows allow, 10,000 rows ahead lie within the size of linear growth."""
    for seed in range(20):
        rows = torch.randn(8, LAYOUT.size, generator=torch.Generator().manual_seed(seed)).cumsum(0)
        moved = mean_of(DMD(6, 8), rows, 100_000) - rows[-1]
        assert bool(torch.isfinite(moved).all())
        assert float(moved.norm()) < 10_000 * 20 * float(rows.diff(dim=0).norm())


def test_equal_rates_fall_back_to_fewer_modes() -> None:
    """Parabolas have one rate twice and too few eigenvectors: what is left is the forecast with one mode."""
    time = torch.arange(9, dtype=torch.float64).unsqueeze(1)
    rows = torch.cat([time**2 - 30 * time, 1e-3 * time**2 + time], dim=1)
    found = mean_of(DMD(3, 8), rows[:8], 10)
    assert torch.equal(found, mean_of(DMD(1, 8), rows[:8], 10))
    assert float((found - rows[8]).norm()) < 0.5 * float((rows[7] - rows[8]).norm())


def test_tensors_too_large_to_square_are_held() -> None:
    """Where squares overflow float64 the tensor stands still and the others do not notice."""
    rows = drifting_rows(8, LAYOUT.size, torch.Generator().manual_seed(3)).double()
    plain = mean_of(DMD(2, 8), rows, 30)
    span = LAYOUT["second.bias"].span
    rows[:, span] *= 1e200
    found = mean_of(DMD(2, 8), rows, 30)
    assert torch.equal(found[span], rows[-1, span])
    assert torch.equal(found[: span.start], plain[: span.start])


def test_uneven_rows_are_refused() -> None:
    """A map from row to row needs equal spacing; the error comes at the call."""
    with pytest.raises(WindowError, match="must be evenly spaced"):
        DMD(1, 3).forecast(window_of(torch.zeros(3, 2), [0, 1, 3]), [1])

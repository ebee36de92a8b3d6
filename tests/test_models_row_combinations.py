"""Lookahead, outer momentum, Anderson acceleration, EMA and LAWA, against their formulas done by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from problems import drifting_rows, small_layout, some_moments, window_of
from torch import Tensor

from deadreckon.forecast import Window
from deadreckon.models import (
    EMA,
    LAWA,
    Anderson,
    Linear,
    Lookahead,
    ModelError,
    OuterMomentum,
    closed_form_names,
    make_forecaster,
)
from deadreckon.models.motion import random_walk, walk_factor
from deadreckon.models.pieces import PIECE
from deadreckon.models.row_combination import RowCombination

EVEN = [0, 10, 20, 30, 40, 50]
UNEVEN = [3, 4, 9, 11, 30, 32]
LAYOUT = small_layout()
LARGE = small_layout({"first.weight": (2 * PIECE + 7,), "first.bias": (3,)})


def mean_of(forecaster: RowCombination | Linear, window: Window, horizon: int = 10) -> Tensor:
    (forecast,) = forecaster.forecast(window, [horizon])
    return forecast.mean


def noisy(num_rows: int, num_parameters: int = LAYOUT.size) -> Tensor:
    return torch.randn(num_rows, num_parameters, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


# --- what all share


def test_scale_is_that_of_the_sum_on_a_random_walk() -> None:
    """On Brownian motion the errors of any weighted sum of rows have a mean square of one in units of `walk_factor`."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.tensor([0, 1, 5, 6, 16])
    paths = torch.randn(30, 20_000, generator=generator, dtype=torch.float64).cumsum(0)
    rows = paths[steps]
    coefficients = torch.tensor([[0.5, -1.0, 0.3, 0.2], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    forecasts = rows[-1] + coefficients @ (rows[:-1] - rows[-1])
    for horizon in (1, 10):
        errors = paths[16 + horizon] - forecasts
        factors = walk_factor(steps, coefficients, horizon)
        torch.testing.assert_close(errors.square().mean(dim=1).sqrt(), factors, rtol=0.02, atol=0)
        assert float(factors[1]) == pytest.approx(horizon**0.5)


def test_the_scale_is_motion_times_the_factor() -> None:
    """Lookahead's scale is sigma sqrt(horizon + (1 - alpha)^2 steps between slow and fast)."""
    window = window_of(noisy(2), [0, 10], LAYOUT)
    (forecast,) = Lookahead(alpha=0.5).forecast(window, [30])
    torch.testing.assert_close(forecast.scale, random_walk(window) * (30 + 0.25 * 10) ** 0.5)


@pytest.mark.parametrize("name", closed_form_names())
def test_permuted_coordinates_give_permuted_forecasts(name: str) -> None:
    """Closed forms do not care about the order of coordinates within a tensor, nor where pieces of work end."""
    forecaster = make_forecaster(name)
    generator = torch.Generator().manual_seed(1)
    rows = drifting_rows(forecaster.history, LARGE.size, generator)
    moments = some_moments(LARGE.size, generator)
    order = torch.cat([spec.offset + torch.randperm(spec.numel, generator=generator) for spec in LARGE])
    permuted = some_moments(LARGE.size, generator)
    permuted.exp_avg.copy_(moments.exp_avg[order])
    permuted.exp_avg_sq.copy_(moments.exp_avg_sq[order])
    steps = range(0, 2 * forecaster.history, 2)
    (plain,) = forecaster.forecast(window_of(rows, steps, LARGE, moments=moments), [7])
    (moved,) = forecaster.forecast(window_of(rows[:, order].contiguous(), steps, LARGE, moments=permuted), [7])
    torch.testing.assert_close(moved.mean, plain.mean[order], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(moved.scale, plain.scale[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["hold", "linear", "quadratic", "exponential", "ema", "lawa", "lookahead", "outer_momentum"]
)
def test_coordinates_do_not_depend_on_each_other(name: str) -> None:
    """The last coordinates of a large network are forecast as if they were alone."""
    forecaster = make_forecaster(name)
    rows = drifting_rows(forecaster.history, LARGE.size, torch.Generator().manual_seed(2))
    (among,) = forecaster.forecast(window_of(rows, layout=LARGE), [3])
    (alone,) = forecaster.forecast(window_of(rows[:, -5:].contiguous()), [3])
    torch.testing.assert_close(among.mean[-5:], alone.mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(among.scale[-5:], alone.scale, rtol=1e-6, atol=0)


def test_declared_orders() -> None:
    """What each says about the polynomials that it continues."""
    found = {name: make_forecaster(name).order for name in closed_form_names()}
    assert {name for name, order in found.items() if order == 0} == {
        *("hold", "ema", "lawa", "lookahead", "outer_momentum", "anderson")
    }
    assert {name for name, order in found.items() if order == 1} == {"linear", "exponential", "dmd"}


# --- Lookahead and outer momentum


def test_lookahead_by_hand() -> None:
    """slow + alpha (fast - slow), whatever lies between and whatever the horizon; alpha = 1 is where one is."""
    window = window_of(torch.tensor([[1.0, 0.0], [99.0, 99.0], [3.0, -4.0]]))
    for horizon in (1, 100):
        torch.testing.assert_close(mean_of(Lookahead(0.8, 3), window, horizon), torch.tensor([2.6, -3.2]))
    assert torch.equal(mean_of(Lookahead(1.0, 3), window), window.last)


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_outer_momentum_equals_the_loop(mu: float) -> None:
    """The closed form is that of momentum updated round by round."""
    rows = noisy(6)
    momentum = torch.zeros(LAYOUT.size, dtype=torch.float64)
    for earlier, later in pairwise(rows):
        momentum = mu * momentum + (later - earlier)
    expected = rows[-2] + 0.7 * (mu * momentum + rows[-1] - rows[-2])
    window = window_of(rows, EVEN, LAYOUT)
    for horizon in (1, 100):
        torch.testing.assert_close(mean_of(OuterMomentum(0.7, mu, 6), window, horizon), expected, rtol=0, atol=1e-12)


def test_outer_momentum_without_momentum_is_lookahead() -> None:
    """mu = 0 gives lookahead over the newest round, alpha being eta."""
    window = window_of(noisy(5), EVEN[:5], LAYOUT)
    torch.testing.assert_close(mean_of(OuterMomentum(eta=0.7, mu=0.0), window), mean_of(Lookahead(0.7), window))


# --- Anderson


def slow_anderson(rows: Tensor, regularization: float) -> Tensor:
    """The published recipe, dense, on the rows of one tensor."""
    steps = rows.diff(dim=0).T
    products = steps.T @ steps
    products = products / torch.linalg.matrix_norm(products, 2)
    identity = torch.eye(len(products), dtype=torch.float64)
    z = torch.linalg.solve(products + regularization * identity, identity.sum(dim=0))
    return rows[1:].T @ (z / z.sum())


@pytest.mark.parametrize("regularization", [1e-6, 1e-2, 10.0])
def test_anderson_equals_the_dense_recipe(regularization: float) -> None:
    """For each tensor, or for all at once, it is what the published formula gives."""
    rows = noisy(6)
    window = window_of(rows, EVEN, LAYOUT)
    expected = torch.cat([slow_anderson(rows[:, spec.span], regularization) for spec in LAYOUT])
    tolerance = 1e-13 / regularization
    for horizon in (1, 100):
        found = mean_of(Anderson(regularization), window, horizon)
        torch.testing.assert_close(found, expected, rtol=0, atol=max(tolerance, 1e-12))
    whole = mean_of(Anderson(regularization, per="all"), window)
    torch.testing.assert_close(whole, slow_anderson(rows, regularization), rtol=0, atol=max(tolerance, 1e-12))


def test_anderson_finds_the_fixed_point_of_a_contraction() -> None:
    """On w' = A w + b with four rates, six rows give the fixed point, far from which the newest row still is."""
    generator = torch.Generator().manual_seed(2)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))[0]
    contraction = turn @ torch.diag(torch.tensor([0.98, 0.9, 0.7, -0.5]).double()) @ turn.T
    fixed = torch.randn(4, generator=generator, dtype=torch.float64)
    rows = [fixed + torch.ones(4).double()]
    for _ in range(5):
        rows.append(fixed + contraction @ (rows[-1] - fixed))
    found = mean_of(Anderson(regularization=1e-14), window_of(torch.stack(rows), EVEN))
    assert float((rows[-1] - fixed).norm()) > 0.5
    torch.testing.assert_close(found, fixed, rtol=0, atol=1e-3)


def test_anderson_holds_what_it_cannot_square() -> None:
    """Where squares of differences overflow float64, the tensor is held and others are not affected."""
    rows = noisy(6)
    rows[:, LAYOUT["second.bias"].span] *= 1e200
    found = mean_of(Anderson(), window_of(rows, EVEN, LAYOUT))
    span = LAYOUT["second.bias"].span
    assert torch.equal(found[span], rows[-1, span])
    first = LAYOUT["first.weight"].span
    torch.testing.assert_close(found[first], slow_anderson(rows[:, first], 1e-2))


# --- averages


def test_averages_by_hand() -> None:
    """EMA's weights are powers of its decay, LAWA's are equal; neither asks for the horizon."""
    window = window_of(torch.tensor([[1.0], [2.0], [4.0]]))
    for horizon in (1, 100):
        torch.testing.assert_close(mean_of(EMA(0.5, history=3), window, horizon), torch.tensor([5.25 / 1.75]))
        torch.testing.assert_close(mean_of(LAWA(history=3), window, horizon), torch.tensor([7 / 3]))
    torch.testing.assert_close(mean_of(EMA(1.0, history=3), window), torch.tensor([7 / 3]))


def test_lawa_with_extrapolation_by_hand() -> None:
    """The line through the means of the halves (1.5 at 0.5, 8 at 3.5); the middle one of five rows does not count."""
    rows = torch.tensor([[1.0], [2.0], [50.0], [6.0], [10.0]])
    found = mean_of(LAWA(extrapolate=True, history=5), window_of(rows), 3)
    torch.testing.assert_close(found, torch.tensor([8 + 6.5 / 3 * 3.5]))


@pytest.mark.parametrize("steps", [EVEN, UNEVEN])
@pytest.mark.parametrize("decay", [0.1, 0.7, 1.0])
def test_ema_with_extrapolation_is_discounted_least_squares(steps: list[int], decay: float) -> None:
    """It is numpy's weighted least-squares line; polyfit's weights multiply residuals, hence the root."""
    rows = noisy(6)
    found = mean_of(EMA(decay, True, 6), window_of(rows, steps, LAYOUT), 15)
    root = decay ** (np.arange(5, -1, -1) / 2)
    slope, start = np.polyfit(np.array(steps, dtype=float) - steps[-1], rows.numpy(), 1, w=root)
    torch.testing.assert_close(found, torch.from_numpy(start + 15 * slope), rtol=0, atol=1e-9)
    if decay == 1.0:
        torch.testing.assert_close(found, mean_of(Linear(6), window_of(rows, steps, LAYOUT), 15))


def test_brown_s_recursions_are_its_limit() -> None:
    """After a long history, level and trend of Brown's double smoothing give the same forecast."""
    rows = noisy(120, 5).cumsum(0)
    decay, single, double = 0.7, rows[0], rows[0]
    for row in rows[1:]:
        single = decay * single + (1 - decay) * row
        double = decay * double + (1 - decay) * single
    expected = 2 * single - double + 4 * (1 - decay) / decay * (single - double)
    window = window_of(rows, range(0, 1200, 10))
    torch.testing.assert_close(mean_of(EMA(decay, True, 120), window, 40), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [EVEN, UNEVEN])
@pytest.mark.parametrize("kind", [EMA, LAWA])
@pytest.mark.parametrize("extrapolate", [False, True])
def test_declared_orders_of_averages(steps: list[int], kind: type[EMA] | type[LAWA], extrapolate: bool) -> None:
    """Constants are continued always, lines with extrapolation and only then, parabolas never."""
    forecaster = kind(extrapolate=extrapolate, history=6)
    assert forecaster.order == int(extrapolate)
    time = torch.tensor([*steps, steps[-1] + 7], dtype=torch.float64).unsqueeze(1)
    for degree in range(3):
        rows = time**degree
        exact = torch.allclose(mean_of(forecaster, window_of(rows[:-1], steps), 7), rows[-1], rtol=1e-12)
        assert exact == (degree <= int(extrapolate))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lookahead", {"alpha": 0}, "`alpha` must be a finite number above 0, got 0"),
        ("lookahead", {"history": 1}, "`history` must be a whole number of at least 2, got 1"),
        ("outer_momentum", {"eta": -1.0}, "`eta` must be a finite number above 0, got -1.0"),
        ("outer_momentum", {"mu": 1.5}, "`mu` must be a number from 0 to 1, got 1.5"),
        ("anderson", {"regularization": 0.0}, "`regularization` must be a finite number above 0, got 0.0"),
        ("anderson", {"per": "kind"}, "`per` must be one of 'tensor', 'all', got 'kind'"),
        ("anderson", {"history": 2}, "`history` must be a whole number of at least 3, got 2"),
        ("ema", {"decay": 0.0}, "`decay` must be a finite number above 0, got 0.0"),
        ("ema", {"decay": 1.1}, "`decay` must be a number from 0 to 1, got 1.1"),
        ("ema", {"extrapolate": 1}, "`extrapolate` must be true or false, got 1"),
        ("lawa", {"history": 1}, "`history` must be a whole number of at least 2, got 1"),
        ("exponential", {"history": 2}, "`history` must be a whole number of at least 3, got 2"),
        ("quadratic", {"curvature_limit": 0.0}, "`curvature_limit` must be a finite number above 0, got 0.0"),
        ("dmd", {"rank": 0}, "`rank` must be a whole number of at least 1, got 0"),
        ("dmd", {"rank": 11}, "`history` must be a whole number of at least 13, got 12"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict[str, object], message: str) -> None:
    """An option of the wrong type or out of range is named with its value."""
    with pytest.raises(ModelError, match=message):
        make_forecaster(name, **options)

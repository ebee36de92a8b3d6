"""Forecasters that are formulas, against those formulas done by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import golden_folder
from problems import flat_layout, small_layout, some_moments, window_of
from torch import Tensor

from deadreckon.forecast import Moments, Window, read_moments
from deadreckon.forecast.packing import pack
from deadreckon.models import Hold, Linear, ModelError, OptimizerMoments, Quadratic
from deadreckon.models.motion import random_walk, root_sum_of_squares
from deadreckon.models.pieces import PIECE
from deadreckon.models.polynomial import Design, PolynomialForecaster

EVEN = [100, 110, 120, 130, 140]
UNEVEN = [3, 4, 9, 11, 30]
spacings = pytest.mark.parametrize("steps", [EVEN, UNEVEN], ids=["even", "uneven"])
polynomials = pytest.mark.parametrize("kind", [Linear, Quadratic])


def one(forecaster: Hold | PolynomialForecaster | OptimizerMoments, window: Window, horizon: int) -> tuple:
    (forecast,) = forecaster.forecast(window, [horizon])
    return forecast.mean, forecast.scale


def powers(steps: list[int], degree: int) -> Tensor:
    """t^degree at some steps, three coordinates of different sizes, with t = 0 at the last step and a unit of 10."""
    time = (torch.tensor(steps, dtype=torch.float64) - steps[-1]) / 10
    return time.unsqueeze(1) ** degree * torch.tensor([1.0, -3.0, 1e4], dtype=torch.float64)


# --- persistence


def test_hold_returns_the_last_row_bit_for_bit() -> None:
    """Persistence's mean is the last row itself, signed zeros and subnormal numbers included."""
    rows = torch.tensor([[1.0, 2.0, 3.0], [-0.0, 1e-42, 1e30]])
    mean, _ = one(Hold(), window_of(rows), 7)
    assert mean.numpy().tobytes() == rows[-1].numpy().tobytes()


def test_hold_scale_is_that_of_a_random_walk() -> None:
    """On Brownian motion seen at uneven steps, errors over the scale have a mean square of one at every horizon."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.tensor([0, 1, 5, 6, 16, 20, 30])
    paths = torch.randn(51, 4000, generator=generator).mul(0.3).cumsum(0)
    window = window_of(paths[steps], steps.tolist())
    for horizon in (1, 20):
        mean, scale = one(Hold(history=7), window, horizon)
        mean_square = float((paths[30 + horizon] - mean).square().mean() / scale.square().mean())
        assert abs(mean_square - 1) < 0.1


def test_hold_scale_by_hand() -> None:
    """sigma^2 is the mean of difference^2 / spacing, and the scale sigma sqrt(horizon)."""
    window = window_of(torch.tensor([[0.0], [2.0], [5.0]]), [0, 1, 10])
    _, scale = one(Hold(history=3), window, 4)
    torch.testing.assert_close(scale, torch.tensor([((4 / 1 + 9 / 9) / 2) ** 0.5 * 2]))


def test_motion_neither_overflows_nor_underflows() -> None:
    """The motion of a window follows its unit from 1e-30 to 1e30, and an empty layout has none."""
    rows = torch.tensor([[0.0, 1.0], [3.0, 1.0], [3.0, 5.0]])
    for unit in (1e-30, 1.0, 1e30):
        torch.testing.assert_close(random_walk(window_of(rows * unit)) / unit, torch.tensor([3.0, 4.0]) / 2**0.5)
    assert root_sum_of_squares(torch.zeros(3, 0)).shape == (0,)


# --- polynomials


@polynomials
@spacings
@pytest.mark.parametrize("horizon", [1, 10, 60])
def test_polynomials_equal_polyfit(kind: type[PolynomialForecaster], steps: list[int], horizon: int) -> None:
    """The mean is that of numpy's least-squares polynomial in float64, on noisy rows of any spacing."""
    rows = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    forecaster = kind()
    mean, _ = one(forecaster, window_of(rows, steps), horizon)
    time = np.asarray(steps, dtype=np.float64) - steps[-1]
    fit = np.polyfit(time, rows.double().numpy(), int(forecaster.order or 0))
    expected = torch.from_numpy(np.stack([np.polyval(fit[:, index], horizon) for index in range(40)])).float()
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@polynomials
@spacings
def test_scale_is_the_standard_error_on_brownian_motion(kind: type[PolynomialForecaster], steps: list[int]) -> None:
    """The scale is sqrt(q Var): q from the increments' regression on the polynomial's, Var by summing covariances."""
    rows = torch.randn(5, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    forecaster = kind()
    degree = int(forecaster.order or 0)
    _, scale = one(forecaster, window_of(rows, steps), 8)
    time = torch.tensor([*steps, steps[-1] + 8], dtype=torch.float64) - steps[0]
    root = time[:-1].diff().sqrt().unsqueeze(1)
    design = (time[:-1].unsqueeze(1) ** torch.arange(1, degree + 1)).diff(dim=0) / root
    increments = rows.diff(dim=0) / root
    residual = increments - design @ torch.linalg.lstsq(design, increments).solution
    variance = residual.square().sum(0) / (4 - degree)
    weights = Design.of(torch.tensor(steps), degree).weights(8)
    signed = torch.cat([weights, torch.tensor([-1.0], dtype=torch.float64)])  # of the rows and of the truth
    covariance = torch.minimum(time.unsqueeze(0), time.unsqueeze(1))
    torch.testing.assert_close(scale, (variance * (signed @ covariance @ signed)).sqrt(), rtol=1e-9, atol=0)


@polynomials
@pytest.mark.parametrize("horizon", [1, 20, 60])
def test_scale_covers_two_thirds_of_drifting_random_walks(kind: type[PolynomialForecaster], horizon: int) -> None:
    """On a polynomial of the right degree plus Brownian motion, about 68 % of truths lie within one scale."""
    generator = torch.Generator().manual_seed(3)
    steps = [0, 5, 10, 20, 30, 40, 45, 50, 60, 80, 100, 110, 120]
    paths = torch.randn(200, 5000, generator=generator, dtype=torch.float64).cumsum(0)
    paths += powers(list(range(200)), kind().order or 0)[:, :1]
    mean, scale = one(kind(history=13), window_of(paths[steps], steps), horizon)
    covered = float(((paths[120 + horizon] - mean).abs() <= scale).double().mean())
    assert 0.62 < covered < 0.70


@polynomials
def test_without_spare_rows_the_scale_is_the_difference_from_one_degree_less(kind: type[PolynomialForecaster]) -> None:
    """With exactly `order + 1` rows, the scale is how far the next lower degree's forecast is away."""
    degree = int(kind().order or 0)
    rows = torch.randn(degree + 1, 10, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    steps = UNEVEN[: degree + 1]
    mean, scale = one(kind(history=degree + 1), window_of(rows, steps), 5)
    time = np.asarray(steps, dtype=np.float64)
    lower = np.polyfit(time, rows.numpy(), degree - 1)
    expected = np.stack([np.polyval(lower[:, index], steps[-1] + 5) for index in range(10)])
    torch.testing.assert_close(scale, (mean - torch.from_numpy(expected)).abs(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("forecaster", [Hold(), Linear(), Quadratic()], ids=lambda forecaster: forecaster.name)
@spacings
def test_order(forecaster: Hold | PolynomialForecaster, steps: list[int]) -> None:
    """Powers of time up to `order` are continued exactly; on the next one the error grows as that power of the horizon.

    Rows and horizon are stretched together, as when the same curve is seen at a finer and finer cadence.
    """
    order = forecaster.order
    assert order is not None
    for degree in range(order + 1):
        rows = powers([*steps, steps[-1] + 15], degree)
        mean, _ = one(forecaster, window_of(rows[:-1], steps), 15)
        torch.testing.assert_close(mean, rows[-1], rtol=1e-10, atol=1e-10 * float(rows.abs().max()))
    errors = []
    for stretch in (1, 2, 4, 8):
        stretched = [step * stretch for step in steps]
        horizon = 5 * stretch
        rows = powers([*stretched, stretched[-1] + horizon], order + 1)
        # t = 0 at the window's end, so that lower powers, which are exact, do not hide the one in question.
        rows = rows - rows[-2]
        mean, _ = one(forecaster, window_of(rows[:-1], stretched), horizon)
        errors.append(float((mean - rows[-1])[0].abs()))
    measured = torch.tensor(errors).log2().diff()
    torch.testing.assert_close(measured, torch.full((3,), order + 1.0), rtol=0, atol=1e-3)


def test_declared_orders() -> None:
    """Persistence continues constants, the line and the parabola what their names say; moments promise nothing."""
    assert [kind.order for kind in (Hold, Linear, Quadratic, OptimizerMoments)] == [0, 1, 2, None]


def test_weights_of_rows_sum_to_one() -> None:
    """The weights of a prediction sum to one for every degree, spacing and horizon, also of a window of one row."""
    for steps, degree in ((EVEN, 0), (EVEN, 2), (UNEVEN, 1), ([5], 0), ([2**40, 2**40 + 3, 2**41], 2)):
        for horizon in (1, 1000):
            weights = Design.of(torch.tensor(steps), degree).weights(horizon)
            torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-6)


def test_large_offsets_do_not_cancel() -> None:
    """A small slope on a large constant is continued as exactly as float32 can hold it."""
    rows = 1e6 + torch.arange(5.0).unsqueeze(1) * 0.25
    mean, _ = one(Linear(), window_of(rows, EVEN), 20)
    assert float(mean) == 1e6 + 6 * 0.25


@polynomials
def test_too_little_history_is_refused(kind: type[PolynomialForecaster]) -> None:
    """Fewer rows than coefficients, and history that is no whole number, are refused by the constructor."""
    order = int(kind().order or 0)
    with pytest.raises(ModelError, match=f"`history` must be a whole number of at least {order + 1}, got {order}"):
        kind(history=order)
    with pytest.raises(ModelError, match="whole number of at least 2, got True"):
        Hold(history=True)


@pytest.mark.golden
@polynomials
def test_polynomials_of_a_real_network_equal_polyfit(kind: type[PolynomialForecaster]) -> None:
    """On five recorded states of a convolutional network the mean is numpy's least-squares fit, within 1e-5."""
    folder = golden_folder("golden_cnn_fm16.pt")
    golden = torch.load(f"{folder}/golden_cnn_fm16.pt", weights_only=True)
    history = golden["history"]
    layout = small_layout({name: tuple(rows.shape[1:]) for name, rows in history.items()})
    rows = torch.cat([values.reshape(5, -1) for values in history.values()], dim=1)
    assert layout.size == golden["param_count"]
    steps = golden["history_steps"]
    forecaster = kind()
    time = (np.asarray(steps, dtype=np.float64) - steps[-1]) / 20
    fit = np.polyfit(time, rows.double().numpy(), int(forecaster.order or 0))
    for horizon in (20, 100):
        mean, scale = one(forecaster, window_of(rows, steps, layout), horizon)
        expected = torch.from_numpy(np.vander([horizon / 20], len(fit)) @ fit).float()[0]
        torch.testing.assert_close(mean, expected, rtol=0, atol=1e-5)
        assert bool((scale > 0).any())


# --- Adam's moments


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("horizon", [1, 30])
def test_frozen_moments_equal_adam_under_a_constant_gradient(weight_decay: float, horizon: int) -> None:
    """While the gradient stays constant, so do the corrected moments: the forecast is what Adam(W) does."""
    layer = torch.nn.Linear(4, 3)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for value in layer.parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3, weight_decay=weight_decay)
    gradients = [torch.randn(value.shape, generator=generator) for value in layer.parameters()]

    def train(num_steps: int) -> None:
        for _ in range(num_steps):
            for value, gradient in zip(layer.parameters(), gradients, strict=True):
                value.grad = gradient.clone()
            optimizer.step()

    train(10)
    vector, layout = pack(layer)
    moments = read_moments(optimizer, layer, layout)
    mean, scale = one(OptimizerMoments(), Window(vector[None], torch.tensor([10]), layout, moments=moments), horizon)
    train(horizon)
    moved = float((pack(layer)[0] - vector).abs().max())
    torch.testing.assert_close(mean, pack(layer)[0], rtol=0, atol=2e-5 * moved + 1e-6)
    # vhat - mhat^2 is zero but for rounding when the gradient never changed.
    assert bool((scale <= 2e-3 * 3e-3 * horizon**0.5).all())


def test_moments_scale_by_hand() -> None:
    """The scale is lr sqrt(h) sqrt(vhat - mhat^2) / (sqrt(vhat) + eps), and zero where vhat is below mhat^2."""
    moments = Moments(
        exp_avg=torch.tensor([0.19, 1.9]),  # mhat = 1 and 10 after two updates at beta1 = 0.9
        exp_avg_sq=torch.tensor([0.75 * 5, 0.75]),  # vhat = 5 and 1 at beta2 = 0.5
        num_updates=2,
        learning_rate=torch.tensor([0.1, 0.1]),
        beta1=0.9,
        beta2=0.5,
        eps=0.0,
        weight_decay=0.0,
    )
    mean, scale = one(OptimizerMoments(), window_of(torch.zeros(1, 2), moments=moments), 9)
    torch.testing.assert_close(scale, torch.tensor([0.1 * 3 * 2 / 5**0.5, 0.0]))
    torch.testing.assert_close(mean, torch.tensor([-0.9 / 5**0.5, -9.0]))


def test_beta_of_zero_needs_no_correction() -> None:
    """Without a first moment's memory, m is the last gradient itself."""
    moments = some_moments(2, torch.Generator().manual_seed(0))
    plain = Moments(moments.exp_avg, moments.exp_avg_sq, 3, torch.tensor(0.1), 0.0, 0.0, 0.0, 0.0)
    mean, _ = one(OptimizerMoments(), window_of(torch.zeros(1, 2), moments=plain), 1)
    torch.testing.assert_close(mean, -0.1 * plain.exp_avg / plain.exp_avg_sq.sqrt())


def test_tiny_second_moments_do_not_blow_up() -> None:
    """Second moments that half precision would round to zero (1e-12) give updates of the learning rate's size."""
    gradient = torch.full((4,), 1e-6)
    moments = Moments(0.1 * gradient, 1e-3 * gradient**2, 1, torch.tensor(1e-3), 0.9, 0.999, 1e-8, 0.0)
    mean, _ = one(OptimizerMoments(), Window(torch.zeros(1, 4), torch.tensor([1]), flat_layout(4), moments=moments), 1)
    torch.testing.assert_close(mean, torch.full((4,), -1e-3), rtol=0.02, atol=0)


def test_each_coordinate_has_its_own_rate() -> None:
    """Rates that differ between coordinates, with decay, give what each rate alone gives, also in large networks."""
    size = PIECE + 3
    plain = some_moments(size, torch.Generator().manual_seed(1))
    rates = torch.linspace(1e-4, 1e-2, size)
    window = window_of(torch.ones(1, size), moments=replace(plain, learning_rate=rates, weight_decay=0.1))
    mean, scale = one(OptimizerMoments(), window, 20)
    for index in (0, PIECE - 1, PIECE, size - 1):
        same = replace(plain, learning_rate=rates[index], weight_decay=0.1)
        own_mean, own_scale = one(OptimizerMoments(), window_of(torch.ones(1, size), moments=same), 20)
        torch.testing.assert_close(mean[index], own_mean[index], rtol=1e-6, atol=0)
        torch.testing.assert_close(scale[index], own_scale[index], rtol=1e-6, atol=0)


def test_moments_forecast_weights_only() -> None:
    """Another stream is refused by the constructor."""
    with pytest.raises(ModelError, match="forecasts the stream 'weights' only, got 'gradients'"):
        OptimizerMoments(stream="gradients")

"""Limits: rate-distortion functions, water-filling and prediction against closed forms and the literature."""

import math

import numpy as np
import pytest

from deadreckon.codec import ConfigError
from deadreckon.codec.limits import (
    Component,
    GeneralisedGaussian,
    causal_rate,
    curve,
    fit,
    fitted_components,
    prediction_gain,
    scalar_rate,
    scale_components,
    shannon_lower_bound,
    space_filling_loss,
    water_filling,
)
from deadreckon.codec.limits.marginals import shapes
from deadreckon.codec.limits.rate_distortion import CURVES, computed_curve

GAUSS, LAPLACE, PEAKY = GeneralisedGaussian(2.0), GeneralisedGaussian(1.0), GeneralisedGaussian(0.5)


def gaussian_rate(distortion):
    return 0.5 * math.log2(1 / distortion)


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0, 3.0])
def test_a_marginal_has_mass_and_variance_1_and_samples_fit_it(shape):
    """Its density integrates to 1 with variance 1 and the entropy it claims, and samples are fitted to their shape."""
    marginal = GeneralisedGaussian(shape)
    values = np.linspace(0, 60, 2_000_001)
    density = marginal.density(values)
    step = 2 * (values[1] - values[0])
    assert density.sum() * step - density[0] * step / 2 == pytest.approx(1, abs=2e-4)
    assert (density * values**2).sum() * step == pytest.approx(1, abs=1e-3)
    entropy = -(density * np.log2(np.maximum(density, 1e-300))).sum() * step
    assert entropy == pytest.approx(marginal.entropy, abs=2e-3)
    assert fit(3 * marginal.sample(np.random.default_rng(0), 200_000)).shape == pytest.approx(shape, abs=0.11)


def test_deficits_are_those_of_the_literature():
    """A Gaussian has none, Laplace 1/2 log2(pi / e) = 0.104 bit, shape 1/2 0.615."""
    assert GAUSS.deficit == pytest.approx(0, abs=1e-12)
    assert LAPLACE.deficit == pytest.approx(0.5 * math.log2(math.pi / math.e))
    assert PEAKY.deficit == pytest.approx(0.615, abs=1e-3)


def test_the_iteration_finds_the_gaussians_closed_form():
    """Blahut and Arimoto's curve of a shape next to 2 is 1/2 log2(1 / D) within 0.002 bit."""
    found = curve(GeneralisedGaussian(1.9999))
    for distortion in (0.95, 0.7, 0.4, 0.1, 0.02, 0.004, 0.001):
        assert found.rate(distortion) == pytest.approx(gaussian_rate(distortion), abs=0.002)
        assert curve(GAUSS).rate(distortion) == pytest.approx(gaussian_rate(distortion), abs=1e-9)


def test_laplace_meets_shannons_lower_bound_at_low_distortion_only():
    """Laplace's curve is its lower bound at D = 0.01 within 0.002 bit and above it at D = 0.7, never far below."""
    found = curve(LAPLACE)
    assert found.rate(0.01) == pytest.approx(shannon_lower_bound(LAPLACE.entropy, 0.01), abs=0.002)
    assert found.rate(0.7) > shannon_lower_bound(LAPLACE.entropy, 0.7) + 0.03
    for distortion in np.geomspace(0.0005, 0.99, 30):
        assert found.rate(distortion) > shannon_lower_bound(LAPLACE.entropy, distortion) - 0.001
        assert found.rate(distortion) <= gaussian_rate(distortion) + 1e-9


def test_curves_fall_to_zero_bits_and_never_rise():
    """At D = 1 nothing is sent; rates rise as distortions fall, through the end of the grid as well."""
    for marginal in (GAUSS, LAPLACE):
        found = curve(marginal)
        rates = [found.rate(distortion) for distortion in np.geomspace(1, 1e-5, 200)]
        assert rates[0] == found.rate(2.0) == 0
        assert (np.diff(rates) > 0).all()


def test_slopes_are_slopes():
    """Between points of a curve, bits change with the distortion as the slopes at its points say."""
    found = curve(LAPLACE)
    chords = -np.diff(found.rates) / np.diff(found.distortions)
    assert (chords[1:] > found.slopes[1:-1] * 0.995).all()
    assert (chords[1:] < found.slopes[2:] * 1.005).all()


def test_committed_curves_are_what_the_iteration_gives():
    """A curve of the file is the computed one, to the float32 that it is kept in."""
    computed = computed_curve(PEAKY)
    for kept, new in zip(curve(PEAKY)[:3], computed[:3], strict=True):
        np.testing.assert_allclose(kept, new, rtol=1e-4, atol=1e-6)
    with np.load(CURVES, allow_pickle=False) as file:
        assert sorted(file) == sorted(f"{shape:g}" for shape in shapes())


def test_water_filling_of_gaussians_is_the_textbooks():
    """Sources below the water level get nothing, the others 1/2 log2(variance / level)."""
    parts = [Component(100, 4.0, GAUSS), Component(300, 1.0, GAUSS), Component(600, 0.01, GAUSS)]
    level = 0.25
    nmse = (400 * level + 600 * 0.01) / (400 + 300 + 6)
    expected = (100 * gaussian_rate(level / 4) + 300 * gaussian_rate(level)) / 1000
    assert water_filling(parts, nmse) == pytest.approx(expected, abs=2e-3)
    assert water_filling(parts, 1.0) == 0


def test_knowing_scales_never_costs_bits():
    """The bound for a mixture's parts is below that of the whole, and equal where all parts are alike."""
    generator = np.random.default_rng(0)
    scales = np.repeat([0.1, 1.0, 5.0], 20_000)
    values = scales * generator.standard_normal(60_000)
    for nmse in (0.5, 0.1):
        apart = water_filling(scale_components(values, scales), nmse)
        together = water_filling(fitted_components([values]), nmse)
        assert apart < together - 0.01
    alike = [Component(10, 2.0, LAPLACE), Component(5, 2.0, LAPLACE)]
    assert water_filling(alike, 0.2) == pytest.approx(curve(LAPLACE).rate(0.2), abs=2e-3)


def test_parts_without_energy_cost_nothing():
    """A tensor of zeros lowers the mean by its share and changes nothing else; empty parts are left out."""
    values = np.random.default_rng(1).standard_normal(5000)
    alone = water_filling(fitted_components([values]), 0.1)
    parts = fitted_components([values, np.zeros(5000), np.zeros(0)])
    assert len(parts) == 2
    assert water_filling(parts, 0.1) == pytest.approx(alone / 2)
    assert scalar_rate(parts, 0.1) == pytest.approx(scalar_rate(fitted_components([values]), 0.1) / 2)


def test_prediction_saves_what_the_causal_bound_says():
    """The bound is the memoryless one without correlation; the gains of AR(1) streams are those of the literature."""
    assert causal_rate(0.0, 0.2) == pytest.approx(gaussian_rate(0.2))
    assert causal_rate(0.5, 1.0) == prediction_gain(0.5, 1.5) == 0
    for correlation, distortion, gain in ((0.5, 0.5, 0.096), (0.9, 0.1, 0.942), (0.99, 0.01, 2.537)):
        assert prediction_gain(correlation, distortion) == pytest.approx(gain, abs=1e-3)
    assert prediction_gain(0.9, 1e-9) == pytest.approx(0.5 * math.log2(1 / (1 - 0.81)), abs=1e-3)


def test_losses_of_cells_are_the_literatures():
    """Z loses 0.2546 bit, A2 0.2268, D4 0.1939, E8 0.1460, Leech 0.0839; trellises less."""
    losses = {"Z": 0.2546, "A2": 0.2268, "D4": 0.1939, "E8": 0.1460, "Leech": 0.0839}
    for name, loss in losses.items():
        assert space_filling_loss(name) == pytest.approx(loss, abs=1e-4)
    assert space_filling_loss("T64") < space_filling_loss("T8") < losses["Leech"]


def test_ideal_scalar_quantising_is_the_literatures():
    """Entropy-coded Z lies 0.2546 bit above the bound at high rate, and as far as a search found at low rates."""
    for marginal in (GAUSS, LAPLACE):
        alone = [Component(1, 7.0, marginal)]
        assert scalar_rate(alone, 1e-5) - shannon_lower_bound(marginal.entropy, 1e-5) == pytest.approx(0.2546, abs=0.01)
    for marginal, nmse, rate in ((GAUSS, 0.5, 0.697), (GAUSS, 0.1, 1.915), (LAPLACE, 0.3, 0.890), (PEAKY, 0.5, 0.208)):
        assert scalar_rate([Component(1, 0.3, marginal)], nmse) == pytest.approx(rate, abs=0.012)


def test_bad_input_is_refused():
    """Shapes, errors and components out of range raise, and say what was wrong."""
    with pytest.raises(ConfigError, match=r"must be 0\.2 to 4\.0, got 0\.1"):
        GeneralisedGaussian(0.1)
    with pytest.raises(ConfigError, match="not all 0"):
        fit(np.zeros(3))
    with pytest.raises(ConfigError, match="`distortion` must be above 0"):
        curve(GAUSS).rate(0.0)
    with pytest.raises(ConfigError, match="`correlation` must be between"):
        causal_rate(1.0, 0.1)
    with pytest.raises(ConfigError, match="`distortion` must be above 0"):
        causal_rate(0.5, 0.0)
    with pytest.raises(ConfigError, match="number above 0"):
        Component(0, 1.0, GAUSS)
    with pytest.raises(ConfigError, match="needs energy"):
        water_filling([Component(1, 0.0, GAUSS)], 0.1)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        scalar_rate([Component(1, 1.0, GAUSS)], 1.5)
    with pytest.raises(ConfigError, match="must be one of"):
        space_filling_loss("F4")

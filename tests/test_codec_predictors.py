"""What predictors leave, when they pay, and which are refused."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from
from torch import Tensor
from torch.testing import assert_close
from typing_extensions import override

from deadreckon.codec import Codec, CodecConfig, ConfigError
from deadreckon.forecast import Forecast, Forecaster, Window
from deadreckon.models import make_forecaster

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]


def same_bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


def _pair(cosine: float) -> tuple[Tensor, Tensor]:
    """Two vectors of equal length at a given angle."""
    generator = torch.Generator().manual_seed(0)
    first, other = torch.randn(2, MIXED.size, generator=generator, dtype=torch.float64)
    first /= first.norm()
    other -= (other @ first) * first
    other /= other.norm()
    return first.float(), (cosine * first + math.sqrt(1 - cosine**2) * other).float()


@pytest.mark.parametrize("cosine", [-0.4, 0.0, 0.2, 0.5, 0.9, 0.99])
def test_momentum_predictors_leave_the_energy_of_the_note(cosine):
    """Forced norm leaves 2 (1 - c) of the energy of g, projection 1 - c^2, c the cosine of g and momentum."""
    first, second = _pair(cosine)
    expected = {"momentum_norm": 2 * (1 - cosine), "momentum_projected": 1 - cosine**2}
    for predictor, ratio in expected.items():
        encoder = Codec(MIXED, CodecConfig(predictor, nmse=1e-8)).encoder()
        encoder.encode(first, 0)
        encoder.encode(second, 1)
        assert_close(encoder.last_report.residual_ratio, ratio, rtol=1e-3, atol=1e-4)
        assert encoder.last_report.coefficients.shape == (1, 1)


def test_fitted_finds_the_combination():
    """A tensor that is 0.5 previous + 2 momentum gets those coefficients; one that is noise gets zeros."""
    layout = layout_from({"a": (64, 64), "b": (64, 64)})
    encoder = Codec(layout, CodecConfig("fitted", nmse=1e-7)).encoder()
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        encoder.encode(torch.randn(layout.size, generator=generator), step)
    state = encoder.state_dict()
    target = 0.5 * state["rows"][-1] + 2 * state["momentum"]
    target[layout["b"].span] = torch.randn(64 * 64, generator=generator)
    encoder.encode(target, 3)
    np.testing.assert_allclose(encoder.last_report.coefficients, [[0.5, 2.0], [0.0, 0.0]], atol=1 / 128)


@pytest.mark.parametrize("nmse", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("predictor", ["previous", "fitted", "linear"])
def test_fitting_never_costs_much(predictor, nmse):
    """On gradients, AR(1) streams and white noise, fitting takes at most 1 % and 4 bytes a packet more than `none`."""
    streams = [gradient_stream(30), gradient_stream(30, batch=4)]
    large = LAYOUTS["one tensor"]
    streams += [(ar1_stream(large, 20, correlation=correlation), large) for correlation in (0.0, 0.5, 0.95)]
    for rows, layout in streams:
        num_bytes = {}
        for name in ("none", predictor):
            encoder = Codec(layout, CodecConfig(name, nmse=nmse)).encoder()
            num_bytes[name] = sum(len(encoder.encode(row, step)) for step, row in enumerate(rows))
        assert num_bytes[predictor] <= 1.01 * num_bytes["none"] + 4 * len(rows)


def test_prediction_saves_bits_on_a_correlated_stream():
    """On an AR(1) stream with correlation 0.95 at NMSE 0.01, prediction saves most of what theory allows."""
    layout = LAYOUTS["one tensor"]
    rows = ar1_stream(layout, 40, correlation=0.95)
    bits = {}
    for predictor in ("none", "previous"):
        encoder = Codec(layout, CodecConfig(predictor, nmse=0.01)).encoder()
        bits[predictor] = sum(8 * len(encoder.encode(row, step)) for step, row in enumerate(rows)) / len(rows)
    saved = (bits["none"] - bits["previous"]) / layout.size
    residual = 1 - 0.95**2
    causal_limit = -0.5 * math.log2(residual + 0.95**2 * 0.01)  # at high rate: residual energy, quantisation included
    assert 0.85 * causal_limit < saved < 1.1 * causal_limit


def test_a_forecaster_object_predicts_as_its_name_does():
    """A forecaster instance gives the decoded vectors of the predictor of the same name and options."""
    rows = ar1_stream(MIXED, 8)
    by_name = Codec(MIXED, CodecConfig("linear")).encoder()
    by_object = Codec(MIXED, CodecConfig(make_forecaster("linear", stream="gradients"))).encoder()
    for step, row in enumerate(rows):
        by_name.encode(row, step)
        by_object.encode(row, step)
        assert same_bits(by_name.reconstruction, by_object.reconstruction)


def test_unfit_forecasters_are_refused():
    """A forecaster of another stream, one that needs moments, and one that is not fitted are refused by name."""
    with pytest.raises(ConfigError, match="needs a forecaster of 'gradients', got 'linear' of 'weights'"):
        Codec(MIXED, CodecConfig(make_forecaster("linear")))
    with pytest.raises(ConfigError, match="needs the optimiser's moments"):
        Codec(MIXED, CodecConfig(make_forecaster("optimizer_moments")), stream="weights")
    with pytest.raises(ConfigError, match="has not been fitted"):
        Codec(MIXED, CodecConfig(make_forecaster("learned_linear", stream="gradients")))


def test_impossible_codecs_are_refused():
    """A layout beyond a packet's size, and a key of a wrong length, are refused."""
    with pytest.raises(ConfigError, match=r"at most 1073741824 coordinates.*Layout\.slice"):
        Codec(layout_from({"w": (2**31,)}))
    for key in (b"", b"k" * 65):
        with pytest.raises(ConfigError, match="1 to 64 bytes"):
            Codec(MIXED, key=key)


class _EvenlySpaced(Forecaster):
    """Continues the last difference, and refuses uneven windows."""

    name = "evenly_spaced"
    history = 3

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        slope = (window.values[-1] - window.values[-2]) / window.spacing
        for horizon in horizons:
            yield Forecast(horizon, window.last + horizon * slope, torch.zeros_like(window.last))


def test_the_last_vector_stands_in_where_a_forecaster_refuses():
    """After a gap in the steps, a forecaster that needs even spacing is replaced by the last vector, on both ends."""
    codec = Codec(MIXED, CodecConfig(_EvenlySpaced("gradients"), nmse=0.01))
    encoder, decoder = codec.encoder(), codec.decoder()
    previous = Codec(MIXED, CodecConfig("previous", nmse=0.01)).encoder()
    rows = ar1_stream(MIXED, 9, correlation=0.99)
    ratios = []
    for step, row in zip((0, 1, 2, 3, 7, 8, 9, 10, 11), rows, strict=True):
        assert same_bits(decoder.decode(encoder.encode(row, step)), encoder.reconstruction)
        previous.encode(row, step)
        ratios.append(encoder.last_report.residual_ratio == previous.last_report.residual_ratio)
    assert ratios[:3] == [True, True, True]  # too few rows
    assert not ratios[3]
    assert same_bits(decoder.state_dict()["row_steps"].float(), torch.tensor([9.0, 10.0, 11.0]))

"""What predictors leave, when they pay, and which are refused."""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from
from torch import Tensor
from torch.testing import assert_close
from typing_extensions import override

from deadreckon.codec import Codec, CodecConfig, ConfigError
from deadreckon.codec.coefficients import UNIT, fit
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
        encoder = Codec(MIXED, CodecConfig(predictor, "Z", nmse=1e-8)).encoder()
        encoder.encode(first, 0)
        encoder.encode(second, 1)
        assert_close(encoder.last_report.residual_ratio, ratio, rtol=1e-3, atol=1e-4)
        assert encoder.last_report.coefficients.shape == (1, 1)


def test_fitted_finds_the_combination():
    """A tensor that is 0.5 previous + 2 momentum gets those coefficients; one that is noise gets zeros."""
    layout = layout_from({"a": (64, 64), "b": (64, 64)})
    encoder = Codec(layout, CodecConfig("fitted", "Z", nmse=1e-7)).encoder()
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        encoder.encode(torch.randn(layout.size, generator=generator), step)
    state = encoder.state_dict()
    target = 0.5 * state["rows"][-1] + 2 * state["momentum"]
    target[layout["b"].span] = torch.randn(64 * 64, generator=generator)
    encoder.encode(target, 3)
    np.testing.assert_allclose(encoder.last_report.coefficients, [[0.5, 2.0], [0.0, 0.0]], atol=1 / 128)


@cache
def _num_bytes(predictor: str | tuple[str, ...], nmse: float) -> list[int]:
    """What four streams of 16 rows take."""
    large = LAYOUTS["one tensor"]
    streams = [gradient_stream(16), gradient_stream(16, batch=4)]
    streams += [(ar1_stream(large, 16, correlation=correlation), large) for correlation in (0.0, 0.95)]
    encoders = [Codec(layout, CodecConfig(predictor, "Z", nmse=nmse)).encoder() for _, layout in streams]
    return [
        sum(len(encoder.encode(row, step)) for step, row in enumerate(rows))
        for encoder, (rows, _) in zip(encoders, streams, strict=True)
    ]


@pytest.mark.parametrize("nmse", [0.5, 0.01])
@pytest.mark.parametrize(
    "predictor", ["fitted", "adaptive_momentum", ("previous", "second_last", "momentum", "linear")]
)
def test_fitting_never_costs_much(predictor, nmse):
    """On gradients, AR(1) streams and white noise, fitting takes at most 1 % and 4 bytes a packet more than `none`."""
    for found, without in zip(_num_bytes(predictor, nmse), _num_bytes("none", nmse), strict=True):
        assert found <= 1.01 * without + 4 * 16


def test_prediction_saves_bits_on_a_correlated_stream():
    """On an AR(1) stream with correlation 0.95 at NMSE 0.01, prediction saves most of what theory allows."""
    layout = LAYOUTS["one tensor"]
    rows = ar1_stream(layout, 40, correlation=0.95)
    bits = {}
    for predictor in ("none", "previous"):
        encoder = Codec(layout, CodecConfig(predictor, "Z", nmse=0.01)).encoder()
        bits[predictor] = sum(8 * len(encoder.encode(row, step)) for step, row in enumerate(rows)) / len(rows)
    saved = (bits["none"] - bits["previous"]) / layout.size
    residual = 1 - 0.95**2
    causal_limit = -0.5 * math.log2(residual + 0.95**2 * 0.01)  # at high rate: residual energy, quantisation included
    assert 0.85 * causal_limit < saved < 1.1 * causal_limit


def test_a_forecaster_object_predicts_as_its_name_does():
    """A forecaster instance gives the decoded vectors of the predictor of the same name and options."""
    rows = ar1_stream(MIXED, 8)
    by_name = Codec(MIXED, CodecConfig("linear", "Z")).encoder()
    by_object = Codec(MIXED, CodecConfig(make_forecaster("linear", stream="gradients"), "Z")).encoder()
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


def _signal_in_noise(correlation: float, ratio: float, length: int) -> list[Tensor]:
    """An AR(1) signal of energy `ratio`, Gaussian, in white noise of energy 1."""
    size = LAYOUTS["one tensor"].size
    generator = torch.Generator().manual_seed(0)
    signal, rows = torch.randn(size, generator=generator), []
    for _ in range(length):
        rows.append(math.sqrt(ratio) * signal + torch.randn(size, generator=generator))
        signal = correlation * signal + math.sqrt(1 - correlation**2) * torch.randn(size, generator=generator)
    return rows


def _best_error(correlation: float, ratio: float) -> float:
    """What the best linear predictor of `_signal_in_noise` leaves of its energy: the steady state of Kalman's filter.

    p = correlation^2 p / (p + 1) + (1 - correlation^2) ratio is the signal's variance before each row; the noise is 1.
    """
    variance = ratio
    for _ in range(1000):
        variance = correlation**2 * variance / (variance + 1) + (1 - correlation**2) * ratio
    return (variance + 1) / (ratio + 1)


@pytest.mark.parametrize("ratio", [3.0, 10.0])
def test_adaptive_momentum_nears_the_best_linear_predictor(ratio):
    """On an AR(1) signal in noise it leaves at most 6 % more than Kalman's filter; `fitted`, `previous` leave more."""
    left = {}
    for predictor in ("previous", "fitted", "adaptive_momentum"):
        config = CodecConfig(predictor, nmse=0.001, entropy="tensor_tables")
        encoder = Codec(LAYOUTS["one tensor"], config).encoder()
        ratios = []
        for step, row in enumerate(_signal_in_noise(0.95, ratio, 60)):
            encoder.encode(row, step)
            ratios.append(encoder.last_report.residual_ratio)
        left[predictor] = sum(ratios[20:]) / 40
    best = _best_error(0.95, ratio)
    assert 0.97 * best < left["adaptive_momentum"] < 1.06 * best
    assert left["adaptive_momentum"] < 0.98 * left["fitted"] < 0.98 * left["previous"]


def test_the_memory_is_the_last_prediction_where_there_was_one():
    """A tensor's memory is what was predicted where coefficients were sent, else a step of the running mean."""
    layout = layout_from({"predictable": (64, 64), "noise": (64, 64)})
    predictable, noise = layout["predictable"].span, layout["noise"].span
    codec = Codec(layout, CodecConfig("adaptive_momentum", "Z", nmse=0.01, momentum=0.75))
    encoder, decoder = codec.encoder(), codec.decoder()
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(64 * 64, generator=generator)
    expected = torch.zeros(layout.size)
    used = []
    for step in range(6):
        before = encoder.state_dict()
        row = torch.randn(layout.size, generator=generator)
        row[predictable] = signal + 0.3 * row[predictable]
        decoder.decode(encoder.encode(row, step))
        found = torch.from_numpy(encoder.last_report.coefficients).float()
        expected = 0.75 * before["momentum"] + 0.25 * encoder.reconstruction
        if len(found) and found[0].any():
            basis = torch.stack([before["rows"][-1], before["momentum"]])[: found.shape[1]]
            expected[predictable] = (found[0] @ basis)[predictable]
        used.append(found.shape[1] == 2 and bool(found[0].all()))
        assert not found[1:].any()
        memory = encoder.state_dict()["momentum"]
        assert_close(memory[noise], expected[noise])
        assert_close(memory[predictable], expected[predictable])
        assert same_bits(memory, decoder.state_dict()["momentum"])
    assert any(used)
    encoder.encode(torch.ones(layout.size) * 1e-3, 6, key_frame=True)
    assert_close(encoder.state_dict()["momentum"], 0.25 * encoder.reconstruction)


def test_a_raw_packet_takes_a_step_of_the_running_mean():
    """A vector that is sent as it is has no coefficients; the memory then moves as a running mean does."""
    encoder = Codec(MIXED, CodecConfig("adaptive_momentum", "Z", nmse=1e-15, momentum=0.75)).encoder()
    expected = torch.zeros(MIXED.size)
    for step, row in enumerate(torch.randn(3, MIXED.size, generator=torch.Generator().manual_seed(0))):
        encoder.encode(row, step)
        assert encoder.last_report.raw_bits == 32 * MIXED.size
        expected = 0.75 * expected + 0.25 * row
        assert_close(encoder.state_dict()["momentum"], expected)


def _no_choice(vector: Tensor, basis: Sequence[Tensor], layout) -> np.ndarray:
    """Coefficients where a coordinate costs as many bits as the logarithm of its energy says."""

    def cost(places: np.ndarray, residual: np.ndarray) -> float:
        return len(residual) / 2 * math.log2(float(residual @ residual) / len(residual) + 1e-12) + 10 * len(residual)

    spans = [spec.span for spec in layout if spec.numel]
    return fit(vector.numpy(), [column.numpy() for column in basis], spans, cost) / UNIT


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_several_predictions_get_their_least_squares(number):
    """Each of up to four correlated predictions gets the coefficient that a plain solver gives it, to rounding."""
    layout = layout_from({"a": (50, 50), "b": (2000,)})
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(layout.size, generator=generator)
    basis = [common + torch.randn(layout.size, generator=generator) for _ in range(number)]
    truth = torch.tensor([[1.5, -0.75, 0.5, 1.0], [-0.5, 1.0, 2.0, 0.25]])[:, :number]
    vector = torch.cat([truth[block] @ torch.stack(basis)[:, spec.span] for block, spec in enumerate(layout)])
    vector += 0.1 * torch.randn(layout.size, generator=generator)
    found = _no_choice(vector, basis, layout)
    for block, spec in enumerate(layout):
        columns = torch.stack(basis, 1)[spec.span].double()
        solved = torch.linalg.lstsq(columns, vector[spec.span].double().unsqueeze(1)).solution.squeeze(1)
        np.testing.assert_allclose(found[block], solved.numpy(), atol=0.5 / UNIT + 1e-9)


def test_predictions_that_do_not_help_get_zeros():
    """Of four predictions where one helps, one is noise and two are copies of others, one gets its coefficient."""
    layout = layout_from({"a": (50, 50)})
    generator = torch.Generator().manual_seed(0)
    useful, noise, more = torch.randn(3, layout.size, generator=generator)
    found = _no_choice(0.75 * useful + 0.1 * more, [noise, useful, useful, 2 * noise], layout)
    assert np.count_nonzero(found) == 1
    assert_close(found.sum(), 0.75, atol=1 / 128, rtol=0.0)


def test_tuples_combine_their_predictions():
    """A tensor that is 0.5 previous + 2 momentum - 0.25 line gets those coefficients from a tuple of the three."""
    layout = layout_from({"a": (64, 64), "b": (64, 64)})
    line = make_forecaster("linear", history=3, stream="gradients")
    codec = Codec(layout, CodecConfig(("previous", "momentum", line), nmse=1e-7))
    encoder, decoder = codec.encoder(), codec.decoder()
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        decoder.decode(encoder.encode(torch.randn(layout.size, generator=generator), step))
    state = encoder.state_dict()
    assert state["rows"].shape[0] == 3
    window = Window(state["rows"], state["row_steps"], layout, "gradients")
    target = 0.5 * state["rows"][-1] + 2 * state["momentum"] - 0.25 * next(line.forecast(window, [1])).mean
    assert same_bits(decoder.decode(encoder.encode(target, 4)), encoder.reconstruction)
    np.testing.assert_allclose(encoder.last_report.coefficients, [[0.5, 2.0, -0.25]] * 2, atol=1 / 128)


def test_each_lag_is_the_vector_that_many_packets_back():
    """A vector that is 0.5 last + second last - 0.25 fourth last gets those coefficients."""
    layout = layout_from({"a": (64, 64)})
    names = ("previous", "second_last", "third_last", "fourth_last")
    encoder = Codec(layout, CodecConfig(names, "Z", nmse=1e-7)).encoder()
    for step, row in enumerate(torch.randn(5, layout.size, generator=torch.Generator().manual_seed(0))):
        encoder.encode(row, step)
    fourth, _, second, last = encoder.state_dict()["rows"]
    encoder.encode(0.5 * last + second - 0.25 * fourth, 5)
    np.testing.assert_allclose(encoder.last_report.coefficients, [[0.5, 1.0, 0.0, -0.25]], atol=1 / 128)


def test_older_vectors_help_where_a_stream_has_more_than_one_pole():
    """On an AR(2) stream of Gaussian noise, the last two vectors leave little but the noise; the last one more."""
    layout = LAYOUTS["one tensor"]
    generator = torch.Generator().manual_seed(0)
    rows = [torch.zeros(layout.size)] * 2
    for _ in range(30):
        rows.append(1.2 * rows[-1] - 0.6 * rows[-2] + torch.randn(layout.size, generator=generator))
    left = {}
    for predictor in (("previous",), ("previous", "second_last")):
        codec = Codec(layout, CodecConfig(predictor, nmse=0.001, entropy="tensor_tables"))
        encoder, decoder = codec.encoder(), codec.decoder()
        ratios = []
        for step, row in enumerate(rows[10:]):
            assert same_bits(decoder.decode(encoder.encode(row, step)), encoder.reconstruction)
            ratios.append(encoder.last_report.residual_ratio)
        left[predictor] = sum(ratios[3:]) / len(ratios[3:])
    np.testing.assert_allclose(encoder.last_report.coefficients, [[1.2, -0.6]], atol=0.05)
    energy = (1 + 0.6) / ((1 - 0.6) * ((1 + 0.6) ** 2 - 1.2**2))  # of the stream; that of its noise is 1
    assert_close(left[("previous", "second_last")], 1 / energy, rtol=0.05, atol=0.0)
    assert_close(left[("previous",)], 1 - (1.2 / 1.6) ** 2, rtol=0.05, atol=0.0)


def test_tuples_with_forecasters_keep_in_step_across_gaps():
    """Members of different histories, a gap in the steps and a key frame: both ends decode the same bits."""
    codec = Codec(MIXED, CodecConfig(("previous", "linear", _EvenlySpaced("gradients"), "momentum"), nmse=0.01))
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(MIXED, 10, correlation=0.99)
    for step, row in zip((0, 1, 2, 3, 7, 8, 9, 10, 11, 12), rows, strict=True):
        assert same_bits(decoder.decode(encoder.encode(row, step, key_frame=step == 11)), encoder.reconstruction)
        assert encoder.last_report.coefficients.shape[1] == (0 if step in (0, 11) else 4)


def test_one_prediction_in_a_tuple_is_that_prediction():
    """A tuple of one name codes as the name does."""
    rows = ar1_stream(MIXED, 6)
    alone, within = (Codec(MIXED, CodecConfig(chosen, "Z")).encoder() for chosen in ("momentum", ("momentum",)))
    for step, row in enumerate(rows):
        alone.encode(row, step)
        within.encode(row, step)
        assert same_bits(alone.reconstruction, within.reconstruction)
        assert alone.last_report.num_bits == within.last_report.num_bits


@pytest.mark.parametrize(
    ("predictor", "message"),
    [
        ((), "must combine 1 to 4 predictions, got 0"),
        (("previous", "momentum", "hold", "linear", "ema"), "must combine 1 to 4 predictions, got 5"),
        (("previous", "previous"), "must not name a prediction twice"),
        (("previous", "fitted"), "A combination of predictors may have .*, got 'fitted'"),
        (("previous", "adaptive_momentum"), "A combination of predictors may have .*, got 'adaptive_momentum'"),
        ("second_last", "`predictor` must be one of"),
        (("previous", 3), "must be a name or a Forecaster, got int"),
        (["previous"], "must be a name or a Forecaster, got list"),
    ],
)
def test_unsuitable_tuples_are_refused(predictor, message):
    """Tuples of none, too many, equal or unsuitable members are refused, and so is a list."""
    with pytest.raises(ConfigError, match=message):
        CodecConfig(predictor)


def test_tuples_are_plain_data_and_have_digests():
    """Tuples of names survive JSON; order and each forecaster's options change the digest; objects are not written."""
    config = CodecConfig(("previous", "linear"))
    assert CodecConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    choices = [("previous", "linear"), ("linear", "previous"), ("previous",), "previous"]
    choices += [("previous", make_forecaster("linear", history=history, stream="gradients")) for history in (3, 4)]
    assert len({CodecConfig(chosen).digest for chosen in choices}) == 6
    with pytest.raises(ConfigError, match="Linear object cannot be written"):
        CodecConfig(choices[-1]).to_dict()


@pytest.mark.parametrize("nmse", [0.5, 0.1])
@pytest.mark.parametrize("correlation", [0.5, 0.9])
def test_the_fitted_coefficient_is_the_correlation(correlation, nmse):
    """Centroids are shrunk already: on AR(1) the coefficient is rho, not rho (1 - D), and 1 - rho^2 (1 - D) is left."""
    layout = LAYOUTS["one tensor"]
    generator = torch.Generator().manual_seed(0)
    encoder = Codec(layout, CodecConfig("previous", nmse=nmse, entropy="tensor_tables")).encoder()
    row, found, left = torch.randn(layout.size, generator=generator), [], []
    for step in range(40):
        encoder.encode(row, step)
        found.append(encoder.last_report.coefficients.sum())
        left.append(encoder.last_report.residual_ratio)
        row = correlation * row + math.sqrt(1 - correlation**2) * torch.randn(layout.size, generator=generator)
    assert_close(float(np.mean(found[5:])), correlation, rtol=0.0, atol=0.03)
    assert_close(float(np.mean(left[5:])), 1 - correlation**2 * (1 - nmse), rtol=0.03, atol=0.0)


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
    codec = Codec(MIXED, CodecConfig(_EvenlySpaced("gradients"), "Z", nmse=0.01))
    encoder, decoder = codec.encoder(), codec.decoder()
    previous = Codec(MIXED, CodecConfig("previous", "Z", nmse=0.01)).encoder()
    rows = ar1_stream(MIXED, 9, correlation=0.99)
    ratios = []
    for step, row in zip((0, 1, 2, 3, 7, 8, 9, 10, 11), rows, strict=True):
        assert same_bits(decoder.decode(encoder.encode(row, step)), encoder.reconstruction)
        previous.encode(row, step)
        ratios.append(encoder.last_report.residual_ratio == previous.last_report.residual_ratio)
    assert ratios[:3] == [True, True, True]  # too few rows
    assert not ratios[3]
    assert same_bits(decoder.state_dict()["row_steps"].float(), torch.tensor([9.0, 10.0, 11.0]))

"""Unbiased rounding, and errors as Adam's step feels them."""

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from

from deadreckon.codec import Codec, CodecConfig, ConfigError
from deadreckon.codec.metric import floor_exponent, power, scale_of, updated_moment

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]
LAYOUT = layout_from({"w": (40, 50)})


def decoded_by(seed: int, rows: list[torch.Tensor], **options) -> list[torch.Tensor]:
    codec = Codec(LAYOUT, CodecConfig("none", rounding="stochastic", **options))
    encoder, decoder = codec.encoder(seed), codec.decoder()
    found = []
    for step, row in enumerate(rows):
        found.append(decoder.decode(encoder.encode(row, step)))
        assert torch.equal(found[-1], encoder.reconstruction)
    return found


@pytest.mark.parametrize("entropy", ["scale_classes", "tensor_tables"])
def test_the_mean_of_workers_is_the_vector(entropy):
    """The error of a mean of 60 encoders is a 60th of one's, which is `nmse`: no bias is left."""
    rows = ar1_stream(LAYOUT, 2)
    runs = [decoded_by(seed, rows, nmse=0.5, entropy=entropy) for seed in range(60)]
    for step, row in enumerate(rows):
        energy = row.double().square().sum()
        each = [float((run[step] - row).double().square().sum() / energy) for run in runs]
        together = torch.stack([run[step] for run in runs]).double().mean(0)
        assert np.mean(each) == pytest.approx(0.5, rel=0.05)
        assert float((together - row).square().sum() / energy) == pytest.approx(0.5 / 60, rel=0.2)


def test_random_numbers_belong_to_seed_and_step():
    """Equal seeds give equal packets, other seeds and steps others; a saved encoder goes on as it would have."""
    rows = [ar1_stream(LAYOUT, 1)[0]] * 3
    first, again, other = (decoded_by(seed, rows, nmse=0.3) for seed in (1, 1, 2))
    assert all(torch.equal(mine, yours) for mine, yours in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])
    codec = Codec(LAYOUT, CodecConfig("none", nmse=0.3, rounding="stochastic"))
    encoder = codec.encoder(1)
    encoder.encode(rows[0], 0)
    resumed = codec.encoder(1)
    resumed.load_state_dict(encoder.state_dict())
    assert resumed.encode(rows[1], 1) == encoder.encode(rows[1], 1)


def test_what_makes_it_biased_is_refused():
    """Stochastic rounding with a dead zone, error feedback, runs or another lattice raises."""
    for options in ({"dead_zone": 0.2}, {"feedback": "classic"}, {"entropy": "runs"}, {"lattice": "E8"}):
        with pytest.raises(ConfigError, match="Stochastic rounding is for lattice Z"):
            CodecConfig.from_dict({"rounding": "stochastic", **options})
    with pytest.raises(ConfigError, match="`rounding` must be one of"):
        CodecConfig(rounding="up")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_zeros_and_odd_layouts_survive_stochastic_rounding(layout):
    """Every layout round-trips; zeros decode to zeros."""
    codec = Codec(layout, CodecConfig("none", nmse=0.5, rounding="stochastic"))
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, row in enumerate([*ar1_stream(layout, 3), torch.zeros(layout.size)]):
        decoded = decoder.decode(encoder.encode(row, step))
        assert torch.equal(decoded, encoder.reconstruction)
        assert row.any() or not decoded.any()


# --- the metric


def slow_moments(vectors: list[torch.Tensor], decay: float) -> torch.Tensor:
    """The bias-corrected second moment, in float64."""
    moment = torch.zeros(len(vectors[0]), dtype=torch.float64)
    for vector in vectors:
        moment = decay * moment + (1 - decay) * vector.double().square()
    return moment / (1 - decay ** len(vectors))


@pytest.mark.parametrize("entropy", ["scale_classes", "runs"])
def test_the_weighted_error_keeps_the_bound(entropy):
    """After the first packet sum (g - decoded)^2 / (v + floor) is at most `nmse` of sum g^2 / (v + floor)."""
    rows, layout = gradient_stream(10)
    codec = Codec(layout, CodecConfig(nmse=0.2, metric="adam", metric_decay=0.9, entropy=entropy))
    encoder, decoder = codec.encoder(), codec.decoder()
    vectors: list[torch.Tensor] = []
    plain = []
    for step, row in enumerate(rows):
        decoded = decoder.decode(encoder.encode(row, step))
        assert torch.equal(decoded, encoder.reconstruction)
        error = (decoded - row).double().square()
        if vectors:
            moment = slow_moments(vectors, 0.9)
            size = float(moment.square().mean().sqrt())
            weighted = [
                float((error / (moment + floor)).sum() / (row.double().square() / (moment + floor)).sum())
                for floor in 2.0 ** (np.floor(np.log2(size)) + np.arange(-7, -3))
            ]
            assert min(abs(found - encoder.last_report.nmse) for found in weighted) < 1e-4
            assert encoder.last_report.nmse <= 0.2
        plain.append(float(error.sum() / row.double().square().sum()))
        vectors.append(decoded)
    assert plain[0] == pytest.approx(0.2, rel=0.05)  # nothing to weigh by yet
    assert all(abs(found - 0.2) > 1e-3 for found in plain[1:])


def test_the_moment_travels_in_checkpoints():
    """A resumed pair goes on with the same packets; a negative moment is refused."""
    rows = ar1_stream(MIXED, 6)
    codec = Codec(MIXED, CodecConfig(nmse=0.2, metric="adam"))
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, row in enumerate(rows[:3]):
        decoder.decode(encoder.encode(row, step))
    second, reader = codec.encoder(), codec.decoder()
    second.load_state_dict(encoder.state_dict())
    reader.load_state_dict(decoder.state_dict())
    for step, row in enumerate(rows[3:], 3):
        packet = encoder.encode(row, step)
        assert second.encode(row, step) == packet
        assert torch.equal(reader.decode(packet), encoder.reconstruction)
    damaged = encoder.state_dict()
    damaged["moment"][0] = -1
    with pytest.raises(ValueError, match="no codec can reach"):
        second.load_state_dict(damaged)


def test_scales_are_finite_for_every_float():
    """Huge, denormal and zero vectors give scales between the floor's root and 2^63.5, none of them infinite."""
    for value in (0.0, 1e-45, 1e-20, 1.0, 1e20, 3e38):
        moment = np.zeros(4, np.float32)
        for _ in range(3):
            moment = updated_moment(moment, np.array([value, 0, -value, value / 3], np.float32), 0.98)
        scale = scale_of(moment, 1 - 0.98**3, floor_exponent(moment, 1 - 0.98**3))
        assert np.isfinite(scale).all()
        assert (scale > 0).all()
        assert scale.max() < 2.0**64


@pytest.mark.parametrize("exponent", [0, 1, 2, 7, 1000, 10**9])
def test_powers_are_products(exponent):
    """Powers by squaring are those of the definition, to rounding, and vanish instead of failing."""
    assert power(0.98, exponent) == pytest.approx(0.98**exponent, rel=1e-12, abs=1e-300)

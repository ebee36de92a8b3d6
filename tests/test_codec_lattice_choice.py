"""The lattice of each packet where the configuration leaves it open: which one wins, when, and what a trial leaves."""

import functools
import math

import numpy as np
import pytest
import torch
from codec_streams import layout_from

from deadreckon.codec import Codec, CodecConfig, StateError
from deadreckon.codec import encoder as encoder_module
from deadreckon.codec.lattice_choice import (
    APART,
    TAUGHT,
    TRIALS,
    Attempt,
    advantage,
    allowance,
    chosen,
    is_trial,
    updated,
)
from deadreckon.codec.limits import GeneralisedGaussian

LAYOUT = layout_from({"w": (64, 64)})


def gaussian(length, seed=0):
    """Rows of independent Gaussian coordinates, for which E8 has the better cells."""
    rows = np.random.default_rng(seed).normal(size=(length, LAYOUT.size))
    return list(torch.from_numpy(rows.astype(np.float32)))


def spikes(length, seed=0):
    """Rows with few coordinates that are not zero, anywhere, for which each vector of E8 pays for seven zeros."""
    generator = np.random.default_rng(seed)
    rows = np.zeros((length, LAYOUT.size), np.float32)
    for row in rows:
        places = generator.choice(LAYOUT.size, 60, replace=False)
        row[places] = generator.choice([-1, 1], 60) * generator.uniform(0.9, 1.1, 60)
    return list(torch.from_numpy(rows))


def encoded(rows, **settings):
    """Packets and their lattices, each packet decoded to what the encoder says."""
    codec = Codec(LAYOUT, CodecConfig(predictor="none", **settings))
    encoder, decoder = codec.encoder(), codec.decoder()
    packets, lattices = [], []
    for step, row in enumerate(rows):
        packets.append(encoder.encode(row, step))
        lattices.append(encoder.last_report.lattice)
        assert torch.equal(decoder.decode(packets[-1]), encoder.reconstruction)
    return packets, lattices


@functools.cache
def adapted_bits(kind, lattice):
    rows, nmse = (gaussian(8), 0.05) if kind == "gaussian" else (spikes(12), 0.3)
    return 8 * sum(len(packet) for packet in encoded(rows, lattice=lattice, nmse=nmse)[0][4:])


@pytest.mark.parametrize(("kind", "better"), [("gaussian", "E8"), ("spikes", "Z")])
def test_auto_is_as_good_as_the_better_lattice(kind, better):
    """Once tables have adapted, bits are within 4 % of the better lattice's, on a stream for each of the two.

    The bit that says which lattice it is can take a byte, a fiftieth of a packet of spikes.
    """
    bits = {lattice: adapted_bits(kind, lattice) for lattice in ("Z", "E8", "auto")}
    assert bits[better] < 0.97 * bits[{"Z": "E8", "E8": "Z"}[better]]
    assert bits["auto"] < 1.04 * bits[better]


@pytest.mark.parametrize("settings", [{}, {"hold": "mean_error"}, {"hold": "mean_rate", "bits": 0.15}])
def test_the_better_lattice_is_found_whatever_is_held(settings):
    """With a bound, a mean error and a mean rate packets are in E8 for Gaussians, and soon in Z for spikes."""
    assert set(encoded(spikes(10), lattice="auto", nmse=0.3, **settings)[1][7:]) == {"Z"}
    if "bits" in settings:
        settings = {**settings, "bits": 2.0}
    assert set(encoded(gaussian(7), lattice="auto", nmse=0.05, **settings)[1]) == {"E8"}


def test_the_lattice_follows_the_stream():
    """When spikes give way to Gaussians, the next trial takes E8; between trials the lattice stays what it was."""
    lattices = encoded([*spikes(12), *gaussian(8)], lattice="auto", nmse=0.2)[1]
    assert lattices == ["E8", *["Z"] * 14, *["E8"] * 5]


def test_a_trial_leaves_nothing_of_the_loser(monkeypatch):
    """Packets are byte for byte those of an encoder that takes the same lattices without a trial."""
    for rows, nmse in ((gaussian(5), 0.05), (spikes(5), 0.3)):
        packets, lattices = encoded(rows, lattice="auto", nmse=nmse)
        numbers = [("Z", "E8").index(lattice) for lattice in lattices]
        with monkeypatch.context() as patch:
            patch.setattr(encoder_module, "is_trial", lambda num_updates: False)
            patch.setattr(encoder_module, "chosen", lambda lead, place, numbers=numbers: numbers[place])
            assert encoded(rows, lattice="auto", nmse=nmse)[0] == packets


def test_what_was_learned_of_the_lattices_is_saved_and_taken_back():
    """A loaded encoder goes on in the lattice of the saved one, `abort` takes a trial back, `reset` forgets it."""
    rows = spikes(8)
    codec = Codec(LAYOUT, CodecConfig("none", "auto", nmse=0.3))
    encoder, again = codec.encoder(), codec.encoder()
    for step in (0, 1, 2):
        encoder.encode(rows[step], step)
    lead = encoder.state_dict()["lead"]
    assert lead > TAUGHT  # else the packets below would be in E8
    again.load_state_dict(encoder.state_dict())
    encoder.encode(gaussian(1)[0], 3)  # the fourth packet is a trial
    assert encoder.state_dict()["lead"] < lead
    encoder.abort()
    assert encoder.state_dict()["lead"] == lead
    for step in (3, 4, 5, 6):
        assert again.encode(rows[step], step) == encoder.encode(rows[step], step)
        assert again.last_report.lattice == "Z"
    again.reset()
    assert again.state_dict()["lead"] == 0


@pytest.mark.parametrize(
    "lead",
    [None, torch.tensor(float("nan"), dtype=torch.float64), torch.tensor(0.0), torch.zeros(1, dtype=torch.float64)],
)
def test_a_damaged_lead_is_refused(lead):
    """A lead that is missing, not finite, of another dtype or shape raises, and nothing changes."""
    encoder = Codec(LAYOUT, CodecConfig(lattice="auto")).encoder()
    saved = encoder.state_dict()
    bad = {name: value for name, value in saved.items() if name != "lead"} | ({} if lead is None else {"lead": lead})
    with pytest.raises(StateError, match="`lead` of an encoder's state"):
        encoder.load_state_dict(bad)
    assert encoder.state_dict()["lead"] == 0


def test_where_e8_is_too_coarse_z_is_taken():
    """A bound that needs more than 2^29 steps, which only Z has, is kept in Z rather than sent raw."""
    layout = layout_from({"w": (1000,)})
    row = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32) * np.float32(2.0**-27)
    row[0] = 1.0
    encoder = Codec(layout, CodecConfig("none", "auto", nmse=1e-16)).encoder()
    encoder.encode(torch.from_numpy(row), 0)
    assert encoder.last_report.lattice == "Z"
    assert encoder.last_report.nmse <= 1e-16
    only_e8 = Codec(layout, CodecConfig("none", "E8", nmse=1e-16)).encoder()
    only_e8.encode(torch.from_numpy(row), 0)
    assert only_e8.last_report.lattice == "raw"


def test_key_frames_are_in_e8():
    """The first packet after a key frame is in E8, also where Z leads, so that E8's tables have seen something."""
    encoder = Codec(LAYOUT, CodecConfig("none", "auto", nmse=0.3)).encoder()
    lattices = []
    for step, row in enumerate(spikes(7)):
        encoder.encode(row, step, key_frame=step == 4)
        lattices.append(encoder.last_report.lattice)
    assert lattices == ["E8", "Z", "Z", "Z", "E8", "Z", "Z"]


def test_other_lattices_are_reported():
    """A report names the packet's lattice, `raw` for a vector that is not finite."""
    for lattice in ("Z", "D4", "E8", "raw"):
        encoder = Codec(LAYOUT, CodecConfig(lattice=lattice)).encoder()
        encoder.encode(gaussian(1)[0], 0)
        assert encoder.last_report.lattice == lattice
        encoder.encode(gaussian(1)[0] / 0, 1)
        assert encoder.last_report.lattice == "raw"


def test_trials_become_rare():
    """Packets 2, 4, 8 and 16 after a key frame are trials, then every thirty-second."""
    assert [number for number in range(1, 130) if is_trial(number - 1)] == [*TRIALS, 32, 64, 96, 128]


def test_z_has_to_lead_by_what_packets_in_e8_teach():
    """E8 is taken at equal prices and at the threshold, Z above it, but not in the first packet."""
    assert [chosen(lead, 5) for lead in (-1.0, 0.0, TAUGHT, 1.01 * TAUGHT)] == [1, 1, 1, 0]
    assert chosen(1.0, 0) == 1
    assert updated(0.06, 0.02) == pytest.approx(0.04)
    assert [updated(0.0, trial) for trial in (-3.0, 3.0)] == [-0.05, 0.05]


def test_where_neighbours_are_not_alike_z_needs_a_smaller_lead():
    """Below 1.3 bit independent and opposite neighbours have an allowance, equal ones have not; only where Z won."""
    values = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    assert [allowance(values, bits) for bits in (5199, 5200)] == [APART, 0.0]
    assert [allowance(one, 10) for one in (values, np.repeat(values, 4), np.tile([1, -1], 9).astype(np.float32))] == [
        APART,
        0.0,
        APART,
    ]
    assert updated(0.0, 0.01, APART) == pytest.approx((0.01 + APART) / 2)
    assert updated(0.0, -0.01, APART) == updated(0.0, -0.01) == -0.005
    assert updated(0.0, 0.09, APART) == 0.05
    lead = 0.0
    for _ in range(10):
        lead = updated(lead, math.log2(1.006), APART)
    assert chosen(lead, 5) == 0


@pytest.mark.parametrize("nmse", [0.7, 0.3])
def test_peaky_coordinates_at_low_rate_are_soon_in_z(nmse):
    """Independent coordinates of a generalised Gaussian of shape 0.7 are in Z from the ninth packet on."""
    generator = np.random.default_rng(0)
    marginal = GeneralisedGaussian(0.7)
    rows = [torch.from_numpy(marginal.sample(generator, LAYOUT.size).astype(np.float32)) for _ in range(10)]
    assert encoded(rows, nmse=nmse)[1][8:] == ["Z", "Z"]


def test_a_price_is_bits_and_error():
    """Less error in as many bits is cheaper, fewer bits at equal error too; twice all of it is one octave."""
    z = Attempt(1000, 50.0, 20480)  # cells of width 1
    assert advantage(z, z) == 0
    assert advantage(z, z._replace(error=40.0)) < 0 < advantage(z, z._replace(num_bits=1001))
    assert advantage(z, z._replace(num_bits=2000, error=100.0)) == pytest.approx(1.0)
    assert advantage(z, z._replace(error=100.0)) == pytest.approx(np.log2(1 + 50 * 11.6 / (1000 + 50 * 11.6)))

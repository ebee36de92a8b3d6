"""The round-trip suite that every configuration passes, and what the encoder and decoder promise."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from deadreckon.codec import (
    Codec,
    CodecConfig,
    ConfigError,
    EncodeError,
    OutOfStepError,
    PacketError,
    StateError,
    lattice_names,
    predictor_names,
)
from deadreckon.codec.config import ENTROPY_NAMES, HOLD_NAMES
from deadreckon.codec.feedback import feedback_names
from deadreckon.codec.modes import Annulus, RateDistortion, Scalar
from deadreckon.forecast import Layout, LayoutError

# A new predictor, lattice, policy or rule comes in by its name, or is one line here.
FAST = CodecConfig(entropy="tensor_tables")
CONFIGS = {predictor: replace(FAST, predictor=predictor) for predictor in predictor_names()}
CONFIGS |= {lattice: CodecConfig(lattice=lattice) for lattice in lattice_names() if lattice != "T64"}
CONFIGS |= {entropy: CodecConfig("previous", "Z", nmse=0.01, entropy=entropy) for entropy in ENTROPY_NAMES}
CONFIGS |= {hold: replace(FAST, hold=hold, bits=1.5 if hold == "mean_rate" else None) for hold in HOLD_NAMES}
CONFIGS |= {f"feedback {rule}": replace(FAST, nmse=0.4, feedback=rule) for rule in feedback_names()}
CONFIGS |= {
    "combination": CodecConfig(("previous", "momentum", "linear"), "Z"),
    "adam's metric": replace(FAST, metric="adam"),
    "stochastic": replace(FAST, rounding="stochastic"),
    "dead zone 0": CodecConfig(lattice="Z", dead_zone=0.0),
    "dead zone 0.45": replace(FAST, dead_zone=0.45),
    "scalar": CodecConfig("momentum_projected", "Z", nmse=0.3, modes=Scalar()),
    "annulus": CodecConfig(lattice="Z", modes=Annulus(level=2)),
    "rate-distortion": CodecConfig(lattice="Z", modes=RateDistortion()),
    "everything": CodecConfig(
        "adaptive_momentum", hold="mean_rate", bits=0.7, modes=RateDistortion(), feedback="leaky", momentum=0.5
    ),
}
HEAVY = ("D4", "T8", "Leech")  # seconds each; other files try them by default


def marked(names: Iterable[str]) -> list[Any]:
    """Names of configurations; those that take long as slow ones."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in names]


NAMES = marked(CONFIGS)
STATEFUL = ["fitted", "linear", "raw", "Z", "mean_error", "feedback classic", "everything"]
STATEFUL += [
    "runs",
    "adam's metric",
    "hold",
    "momentum_norm",
    "combination",
    "annulus",
    *(name for name in lattice_names() if len(name) == 2),
]
MIXED = LAYOUTS["large, small, empty and 0-d tensors"]
SMALL = layout_from({"w": (17, 20), "bias": (17,), "empty": (0, 3), "scale": (), "small": (8, 9), "last": (5,)})
ROUND_TRIP_LAYOUTS = {name: layout for name, layout in LAYOUTS.items() if name != "one tensor"}


def _is_quick(layout: Layout, name: str) -> bool:
    """Whether a round trip is tried by default: every configuration on one layout, the main ones on all."""
    return name not in HEAVY and (layout is MIXED or name in ("raw", "E8", *ENTROPY_NAMES, *HOLD_NAMES))


def same_bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name].nan_to_num(-1.0), second[name].nan_to_num(-1.0)) for name in first
    )


def shared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What an encoder's state has in common with a decoder's: not its error feedback, rate control and trials."""
    own = ("control", "lead")
    return {name: value for name, value in state.items() if name not in own and not name.startswith("feedback.")}


def relative_error(vector: Tensor, decoded: Tensor) -> float:
    wide = vector.double()
    return float((wide - decoded.double()).square().sum() / wide.square().sum())


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        pytest.param(layout, name, marks=[] if _is_quick(layout, name) else pytest.mark.slow, id=f"{of}-{name}")
        for of, layout in ROUND_TRIP_LAYOUTS.items()
        for name in CONFIGS
    ],
)
def test_decoder_returns_the_encoders_reconstruction(name, layout):
    """Over a stream with skipped steps, zeros, NaN and a key frame, both ends hold equal bits and equal states."""
    config = CONFIGS[name]
    codec = Codec(layout, config)
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(layout, 11)
    rows[5] = torch.zeros(layout.size)
    rows[7] = torch.full((layout.size,), math.nan)
    for number, row in enumerate(rows):
        step = number + 300 * (number > 4)
        decoded = decoder.decode(encoder.encode(row, step, key_frame=number == 9))
        assert same_bits(decoded, encoder.reconstruction)
        assert same_state(shared(encoder.state_dict()), decoder.state_dict())
        if not bool(row.isfinite().all()) or config.lattice == "raw":
            assert same_bits(decoded, row)


@pytest.mark.parametrize("nmse", [0.9, 0.5, 0.1, 0.01, 1e-4, 1e-6, 1e-9, 1e-13])
@pytest.mark.parametrize("name", ["none", "fitted", "linear", "Z", "dead zone 0", "dead zone 0.45"])
def test_error_bound_holds(name, nmse):
    """No packet's squared error exceeds the asked share of the vector's energy, and the report says what it is."""
    codec = Codec(MIXED, replace(CONFIGS[name], nmse=nmse))
    encoder = codec.encoder()
    for step, row in enumerate(ar1_stream(MIXED, 4)):
        encoder.encode(row, step)
        error = relative_error(row, encoder.reconstruction)
        assert error <= nmse
        assert_close(encoder.last_report.nmse, error)


def test_cells_are_as_coarse_as_the_bound_allows():
    """The error comes within 3 % of the bound, so that no bits are spent on exactness nobody asked for."""
    rows, layout = gradient_stream(6)
    for nmse in (0.3, 0.1, 0.01):
        encoder = Codec(layout, CodecConfig("none", "Z", nmse=nmse)).encoder()
        for step, row in enumerate(rows):
            encoder.encode(row, step)
            assert encoder.last_report.nmse > 0.97 * nmse


def test_report_accounts_for_every_bit():
    """The parts of a report add up to eight times the packet's length, for coded, raw and non-finite packets."""
    encoder = Codec(MIXED, CodecConfig(nmse=1e-5)).encoder()
    raw = Codec(MIXED, CodecConfig(lattice="raw")).encoder()
    rows = ar1_stream(MIXED, 3)
    rows[1] = rows[1] / 0
    for step, row in enumerate(rows):
        for end in (encoder, raw):
            packet = end.encode(row, step)
            report = end.last_report
            parts = report.header_bits + report.quantiser_bits + report.level_bits + report.coefficient_bits
            parts += report.symbol_bits + report.raw_bits
            assert report.num_bits == parts == 8 * len(packet)
    assert encoder.last_report.symbol_bits > 0
    assert encoder.last_report.raw_bits == 0
    assert raw.last_report.raw_bits == 32 * MIXED.size


awkward = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-40, 3.4e38, -3.4e38, 1.0, math.nan, math.inf, -math.inf]),
    st.floats(-1.0, 1.0, width=32),
)
TINY = layout_from({"w": (3, 4), "s": (), "e": (0,), "b": (7,)})


@given(
    rows=st.lists(st.lists(awkward, min_size=TINY.size, max_size=TINY.size), min_size=1, max_size=5),
    predictor=st.sampled_from(predictor_names()),
    name=st.sampled_from(["Z", "runs", "mean_error", "mean_rate", "annulus", "rate-distortion", "adam's metric"]),
    nmse=st.sampled_from([0.5, 1e-2, 1e-7]),
    tile=st.sampled_from([1, 20]),
)
def test_any_float32_vector_survives(rows, predictor, name, nmse, tile):
    """Whatever float32 holds, the decoder gets the encoder's reconstruction, within the bound, exact if not finite."""
    layout = layout_from({f"{spec.name}{k}": spec.shape for k in range(tile) for spec in TINY})
    config = replace(CONFIGS[name], predictor=predictor, nmse=nmse)
    codec = Codec(layout, config)
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, values in enumerate(rows):
        row = torch.tensor(values * tile, dtype=torch.float32)
        decoded = decoder.decode(encoder.encode(row, step))
        assert same_bits(decoded, encoder.reconstruction)
        if bool(row.isfinite().all()):
            assert bool(decoded.isfinite().all())
            if not bool(row.any()):
                assert config.hold != "bound" or not bool(decoded.any())
            elif config.hold == "bound" and config.metric == "plain":
                assert relative_error(row, decoded) <= nmse
        else:
            assert same_bits(decoded, row)


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e-20, 1e20, 3e37])
def test_scale_does_not_matter(scale):
    """Denormal and huge vectors are coded as the plain ones are, without overflow of their squares."""
    encoder = Codec(MIXED, CodecConfig(nmse=0.1)).encoder()
    for step, row in enumerate(ar1_stream(MIXED, 4)):
        vector = (row.double() / row.abs().max() * scale).float()
        encoder.encode(vector, step)
        assert relative_error(vector, encoder.reconstruction) <= 0.1
        assert encoder.last_report.raw_bits == 0


def test_adams_metric_survives_squares_beyond_float32():
    """The running mean of squares stays finite where squares are not, and later packets are coded as they should."""
    codec = Codec(MIXED, CONFIGS["adam's metric"])
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, row in enumerate(ar1_stream(MIXED, 6)):
        vector = row / row.abs().max() * (1e37 if step == 1 else 1.0)
        decoded = decoder.decode(encoder.encode(vector, step))
        assert same_bits(decoded, encoder.reconstruction)
        assert float(decoder.state_dict()["moment"].max()) <= 2.0**126
        decoder.load_state_dict(decoder.state_dict())  # which refuses what is not finite


def test_a_prediction_that_overflows_is_dropped():
    """Where float32 cannot hold vector minus prediction, the vector is coded without one, and not sent raw."""
    encoder = Codec(MIXED, CodecConfig("momentum_norm", "Z")).encoder()
    row = ar1_stream(MIXED, 1)[0]
    huge = row / row.abs().max() * 3e38
    for step, vector in enumerate((huge, -huge)):
        encoder.encode(vector, step)
        assert relative_error(vector, encoder.reconstruction) <= 0.1
        assert encoder.last_report.raw_bits == 0
    assert encoder.last_report.coefficients.tolist() == [[0.0]]


@pytest.mark.parametrize("jump", [1e-12, 1e12])
def test_a_sudden_change_of_scale_is_followed(jump):
    """The search for the cell width finds its way from any start."""
    encoder = Codec(MIXED, CodecConfig("none", "Z", nmse=0.1)).encoder()
    for step, row in enumerate(ar1_stream(MIXED, 6)):
        vector = row * (jump if step >= 3 else 1.0)
        encoder.encode(vector, step)
        assert 0.095 < encoder.last_report.nmse <= 0.1


@pytest.mark.parametrize("entropy", ENTROPY_NAMES)
def test_zero_vectors_cost_next_to_nothing(entropy):
    """An all-zero vector decodes to zeros, from less than a tenth of a plain one's bytes, and the seventh from 64."""
    codec = Codec(MIXED, CodecConfig(lattice="Z", entropy=entropy))
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = [ar1_stream(MIXED, 1)[0], *[torch.zeros(MIXED.size)] * 6]
    packets = [encoder.encode(row, step) for step, row in enumerate(rows)]
    decoded = [decoder.decode(packet) for packet in packets]
    assert same_bits(decoded[1], rows[1])
    assert same_bits(decoded[6], rows[6])
    assert len(packets[6]) <= len(packets[1]) < 0.1 * len(packets[0])
    assert len(packets[6]) < 64


def test_vectors_may_come_in_any_floating_type():
    """Tensors and arrays of other floating types give the packet of their float32 version; the input is untouched."""
    row = ar1_stream(MIXED, 1)[0].to(torch.bfloat16)
    expected = Codec(MIXED).encoder().encode(row.float(), 0)
    for given_vector in (row, row.double(), row.float().numpy(), row.double().numpy(), row.float().requires_grad_()):
        before = torch.as_tensor(given_vector).detach().double().clone()
        assert Codec(MIXED).encoder().encode(given_vector, np.int64(0)) == expected
        assert torch.equal(torch.as_tensor(given_vector).detach().double(), before)


def test_results_do_not_alias_the_state():
    """Writing into what encode was given, or what decode and reconstruction returned, leaves both ends in step."""
    for layout, lattice in ((MIXED, "Z"), (MIXED, "raw"), (LAYOUTS["one element"], "Z")):
        codec = Codec(layout, CodecConfig("previous", lattice, nmse=1e-3, feedback="classic"))
        encoder, decoder = codec.encoder(), codec.decoder()
        for step, row in enumerate(ar1_stream(layout, 5)):
            given_vector = row / (step != 2)  # infinities in the third
            decoded = decoder.decode(encoder.encode(given_vector, step))
            expected = decoded.clone()
            for tensor in (given_vector, decoded, encoder.reconstruction):
                tensor.fill_(math.nan)
            assert same_bits(encoder.reconstruction, expected)
        assert same_state(shared(encoder.state_dict()), decoder.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_abort_undoes_encode_exactly(name):
    """After encode and abort, the encoder's state and all later packets are those of one that never encoded."""
    codec = Codec(SMALL, CONFIGS[name])
    straight, disturbed = codec.encoder(), codec.encoder()
    rows = ar1_stream(SMALL, 7)
    for step, row in enumerate(rows):
        before = disturbed.state_dict()
        disturbed.encode(row * 3 if step % 2 else torch.full_like(row, math.inf), step, key_frame=step == 5)
        disturbed.abort()
        assert same_state(disturbed.state_dict(), before)
        assert disturbed.encode(row, step) == straight.encode(row, step)


def test_abort_works_once():
    """A second abort, or one before any packet or after loading a state, is refused."""
    encoder = Codec(MIXED).encoder()
    with pytest.raises(EncodeError, match="no packet to take back"):
        encoder.abort()
    encoder.encode(torch.ones(MIXED.size), 0)
    encoder.abort()
    with pytest.raises(EncodeError, match="no packet to take back"):
        encoder.abort()
    encoder.encode(torch.ones(MIXED.size), 0)
    encoder.load_state_dict(encoder.state_dict())
    with pytest.raises(EncodeError, match="no packet to take back"):
        encoder.abort()


def test_nothing_to_report_before_the_first_packet():
    """Reconstruction and report exist only once something has been encoded, and not after an abort."""
    encoder = Codec(MIXED).encoder()
    for _ in range(2):
        with pytest.raises(EncodeError, match="Nothing has been encoded"):
            _ = encoder.reconstruction
        with pytest.raises(EncodeError, match="Nothing has been encoded"):
            _ = encoder.last_report
        encoder.encode(torch.ones(MIXED.size), 0)
        encoder.abort()


@pytest.mark.parametrize("name", NAMES)
def test_a_key_frame_heals_a_lost_packet(name):
    """A decoder that missed packets refuses what follows, and is back in step with the next key frame."""
    codec = Codec(SMALL, CONFIGS[name])
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(SMALL, 8)
    packets = [encoder.encode(row, step, key_frame=step == 5) for step, row in enumerate(rows)]
    for packet in packets[:3]:
        decoder.decode(packet)
    with pytest.raises(OutOfStepError, match=r"Packet 3 \(modulo 256\) is due, got packet 4: .*key frame"):
        decoder.decode(packets[4])
    decoded = [decoder.decode(packet) for packet in packets[5:]]
    assert same_bits(decoded[-1], encoder.reconstruction)
    assert same_state(shared(encoder.state_dict()), decoder.state_dict())
    newcomer = codec.decoder()
    newcomer.decode(packets[5])
    newcomer.decode(packets[6])


def test_repeated_reordered_and_foreign_packets_are_refused():
    """A sound packet that does not follow the last one raises, says what to do, and leaves the state untouched."""
    codec = Codec(MIXED)
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(MIXED, 6)
    packets = [encoder.encode(row, step) for step, row in enumerate(rows)]
    with pytest.raises(OutOfStepError, match="first packet must be a key frame.*key_frame=True"):
        decoder.decode(packets[1])
    for packet in packets[:3]:
        decoder.decode(packet)
    before = decoder.state_dict()
    with pytest.raises(OutOfStepError, match="repeated or late"):
        decoder.decode(packets[0])
    for packet in (packets[1], packets[2], packets[4], packets[5]):
        with pytest.raises(OutOfStepError, match="packets were lost, repeated or reordered"):
            decoder.decode(packet)
    other = codec.encoder()
    foreign = [other.encode(row * 2, step) for step, row in enumerate(rows)]
    with pytest.raises(PacketError, match="another history.*key frame"):
        decoder.decode(foreign[3])
    assert same_state(decoder.state_dict(), before)
    decoder.decode(packets[3])


@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_an_end_that_was_restarted_is_noticed(which):
    """Where one end starts again and the other does not, decode raises and says what to do; a reset of both heals."""
    codec = Codec(MIXED)
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(MIXED, 6)
    for step, row in enumerate(rows[:3]):
        decoder.decode(encoder.encode(row, step))
    if which == "encoder":
        encoder = codec.encoder()
        with pytest.raises(OutOfStepError, match="is of step 0, but step 2 has been decoded.*call `reset` first"):
            decoder.decode(encoder.encode(rows[0], 0))
        with pytest.raises(OutOfStepError, match="packets were lost, repeated or reordered.*key frame"):
            decoder.decode(encoder.encode(rows[1], 1))
        decoder.reset()
        with pytest.raises(OutOfStepError, match="first packet must be a key frame"):
            decoder.decode(encoder.encode(rows[2], 2))
    else:
        decoder = codec.decoder()
        with pytest.raises(OutOfStepError, match="first packet must be a key frame.*key_frame=True"):
            decoder.decode(encoder.encode(rows[3], 3))
    packet = encoder.encode(rows[4], 4, key_frame=True)
    assert same_bits(decoder.decode(packet), encoder.reconstruction)
    assert same_bits(decoder.decode(encoder.encode(rows[5], 5)), encoder.reconstruction)
    assert same_state(shared(encoder.state_dict()), decoder.state_dict())


def test_reset_starts_again():
    """After reset both ends behave like new ones, so a restarted sender can be followed from an earlier step."""
    codec = Codec(MIXED, CONFIGS["everything"])
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(MIXED, 3)
    first = [encoder.encode(row, step) for step, row in enumerate(rows)]
    for packet in first:
        decoder.decode(packet)
    encoder.reset()
    decoder.reset()
    assert [encoder.encode(row, step) for step, row in enumerate(rows)] == first
    for packet in first:
        decoder.decode(packet)
    assert decoder.last_step == 2


def test_steps_must_increase():
    """Steps that do not increase, or are no whole numbers, are refused and change nothing."""
    encoder = Codec(MIXED).encoder()
    row = ar1_stream(MIXED, 1)[0]
    for step in (-1, 1.0, True, 2**62 + 1, "1"):
        with pytest.raises(EncodeError, match="`step` must be a whole number"):
            encoder.encode(row, step)  # pyright: ignore[reportArgumentType]
    encoder.encode(row, 7)
    before = encoder.state_dict()
    for step in (7, 6):
        with pytest.raises(EncodeError, match="`step` must increase: the last packet was of step 7"):
            encoder.encode(row, step, key_frame=True)
    assert same_state(encoder.state_dict(), before)


def test_wrong_vectors_are_refused():
    """Vectors of another length or of whole numbers are refused by name."""
    encoder = Codec(MIXED).encoder()
    for wrong in (torch.zeros(3), torch.zeros(1, MIXED.size), np.zeros(MIXED.size + 1, np.float32)):
        with pytest.raises(LayoutError, match="must have shape"):
            encoder.encode(wrong, 0)
    with pytest.raises(EncodeError, match="floating-point"):
        encoder.encode(torch.zeros(MIXED.size, dtype=torch.int64), 0)


@pytest.mark.parametrize("name", marked(STATEFUL))
def test_vectors_that_are_not_finite_leave_no_trace(name):
    """A packet with NaN or infinity leaves all as it was but chain and counts of packets; coding goes on as before."""
    codec = Codec(MIXED, CONFIGS[name])
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(MIXED, 5)
    for step, row in enumerate(rows[:4]):
        decoder.decode(encoder.encode(row, step))
    before = encoder.state_dict()
    bad = rows[4].clone()
    bad[[0, 5, -1]] = torch.tensor([math.nan, math.inf, -math.inf])
    assert same_bits(decoder.decode(encoder.encode(bad, 4)), bad)
    after = encoder.state_dict()
    for kept in before.keys() - {"numbers", "chain"}:
        assert_close(after[kept], before[kept], rtol=0, atol=0, equal_nan=True)
    assert after["numbers"].tolist()[:3] == before["numbers"].tolist()[:3]
    assert same_bits(decoder.decode(encoder.encode(rows[4], 5)), encoder.reconstruction)


def test_incompressible_vectors_are_sent_as_they_are():
    """Where the coded form would be longer than float32 the packet is raw and exact, and still enters the state."""
    layout = layout_from({"w": (3,)})
    codec = Codec(layout, CodecConfig("previous", "Z", nmse=1e-12))
    encoder, decoder = codec.encoder(), codec.decoder()
    row = torch.tensor([1.0, -2.5, 1e-9])
    assert same_bits(decoder.decode(encoder.encode(row, 0)), row)
    assert encoder.last_report.raw_bits == 96
    assert_close(encoder.state_dict()["rows"], row[None], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_equals_uninterrupted(name, tmp_path):
    """States survive a file read with `weights_only=True`; both ends go on with the same packets and bits."""
    codec = Codec(SMALL, CONFIGS[name])
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(SMALL, 10)
    for step, row in enumerate(rows[:5]):
        decoder.decode(encoder.encode(row, step))
    torch.save([encoder.state_dict(), decoder.state_dict()], tmp_path / "state.pt")
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    encoder_again, decoder_again = codec.encoder(), codec.decoder()
    encoder_again.load_state_dict(states[0])
    decoder_again.load_state_dict(states[1])
    for step, row in enumerate(rows[5:], 5):
        packet = encoder.encode(row, step)
        assert encoder_again.encode(row, step) == packet
        assert same_bits(decoder_again.decode(packet), decoder.decode(packet))


def test_damaged_states_are_refused():
    """A state of another codec, or with a wrong name, shape, type or value, is refused and changes nothing."""
    encoder = Codec(MIXED).encoder()
    for step, row in enumerate(ar1_stream(MIXED, 3)):
        encoder.encode(row, step)
    good = encoder.state_dict()
    wrong = {
        "another codec": Codec(MIXED, CodecConfig(nmse=0.2)).encoder().state_dict(),
        "must have the tensors": {name: value for name, value in good.items() if name != "chain"},
        "`control` of an encoder's state must be three": good | {"control": torch.zeros(2)},
        "names cell width 38400": good | {"control": torch.tensor([0.0, 38400.0, 1.0], dtype=torch.float64)},
        "names cell width 0.5": good | {"control": torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)},
        "`residual` of error feedback must be": good | {"feedback.residual": torch.zeros(3)},
        "`rows` of a codec's state must be": good | {"rows": torch.zeros(1, 3)},
        "`counts` of a codec's state must be": good | {"counts": good["counts"].float()},
        "`row_steps` of a codec's state must be": good | {"row_steps": torch.tensor(3)},
    }
    no_codec_can = [
        {"counts": good["counts"] - 2**20},
        {"counts": good["counts"] + 2**60},
        {"activity": good["activity"] - 2**26 - 1},
        {"activity": good["activity"] + 2**26},
        {"numbers": torch.tensor([3, 3, 10**6, 2, 3])},
        {"numbers": torch.tensor([3, 3, 5, 2, 2**40])},
        {"numbers": torch.tensor([3, 3, 5, 2**62 + 1, 3])},
        {"numbers": torch.tensor([3, 4, 5, 2, 3])},
        {"numbers": torch.tensor([0, 0, 5, 2, 3])},
        {"row_steps": torch.tensor([9])},
        {"rows": good["rows"] * math.nan},
        {"momentum": good["momentum"] / 0},
    ]
    for message, state in (*wrong.items(), *(("no codec can reach", good | change) for change in no_codec_can)):
        with pytest.raises(StateError, match=message):
            encoder.load_state_dict(state)
        assert same_state(encoder.state_dict(), good)


# --- error feedback inside the encoder


def feedback_codec(lattice: str = "Z", **settings) -> Codec:
    return Codec(MIXED, CodecConfig(lattice=lattice, nmse=0.5, feedback="classic", **settings))


@pytest.mark.parametrize("hold", HOLD_NAMES)
def test_what_is_decoded_and_owed_adds_up_to_what_came_in(hold):
    """The sum of decoded vectors and the residual is the sum of the vectors, and much of it is owed at times."""
    encoder = feedback_codec(hold=hold, bits=0.5 if hold == "mean_rate" else None).encoder()
    rows = ar1_stream(MIXED, 12)
    decoded = torch.zeros(MIXED.size, dtype=torch.float64)
    for step, row in enumerate(rows):
        encoder.encode(row, step, key_frame=step == 6)
        decoded += encoder.reconstruction
    total = torch.stack(rows).double().sum(0)
    owed = encoder.state_dict()["feedback.residual"]
    assert_close(decoded + owed, total, rtol=1e-5, atol=1e-5)
    assert float(owed.norm()) > 0.1 * float(rows[-1].norm())


def test_feedback_follows_the_learning_rate():
    """With a changing learning rate the applied updates and the last debt add up to rate times vector."""
    encoder = feedback_codec().encoder()
    rows = ar1_stream(MIXED, 8)
    rates = [0.1, 0.1, 0.05, 0.2, 0.0, 0.2, 0.01, 0.02]
    applied = torch.zeros(MIXED.size, dtype=torch.float64)
    for step, (row, rate) in enumerate(zip(rows, rates, strict=True)):
        encoder.encode(row, step, learning_rate=rate)
        applied += rate * encoder.reconstruction.double()
    expected = sum(rate * row.double() for row, rate in zip(rows, rates, strict=True))
    state = encoder.state_dict()
    assert float(state["feedback.learning_rate"]) == 0.02
    assert_close(applied + 0.02 * state["feedback.residual"].double(), expected, rtol=1e-5, atol=1e-6)


def test_the_bound_is_on_what_is_coded():
    """With feedback `nmse` bounds the error of vector and debt together, and the report says so."""
    encoder = feedback_codec().encoder()
    owed = torch.zeros(MIXED.size)
    for step, row in enumerate(ar1_stream(MIXED, 5)):
        encoder.encode(row, step)
        error = relative_error(row + owed, encoder.reconstruction)
        assert_close(encoder.last_report.nmse, error, rtol=1e-4, atol=0)
        assert error <= 0.5
        owed = encoder.state_dict()["feedback.residual"]


def test_refused_and_foreign_vectors_leave_the_debt():
    """A vector that is not finite, a sum beyond float32 and a bad learning rate leave what is owed as it was."""
    encoder = feedback_codec().encoder()
    rows = ar1_stream(MIXED, 3)
    encoder.encode(rows[0], 0)
    before = encoder.state_dict()
    encoder.encode(rows[1] / 0, 1, learning_rate=0.1)
    assert_close(encoder.state_dict()["feedback.residual"], before["feedback.residual"], rtol=0, atol=0)
    assert bool(encoder.state_dict()["feedback.learning_rate"].isnan())
    before = encoder.state_dict()
    with pytest.raises(EncodeError, match="`learning_rate` must be a finite number"):
        encoder.encode(rows[2], 2, learning_rate=-1.0)
    assert same_state(encoder.state_dict(), before)
    huge = feedback_codec().encoder()
    huge.encode(rows[0] / rows[0].abs().max() * 3.3e38, 0, learning_rate=1.0)
    before = huge.state_dict()
    with pytest.raises(EncodeError, match=r"beyond float32\. Lower the learning rate"):
        huge.encode(rows[1] / rows[1].abs().max() * 3.3e38, 1, learning_rate=1e-6)
    assert same_state(huge.state_dict(), before)


def test_decoders_know_nothing_of_feedback():
    """A decoder's state has no debt, rate control or lead of Z, and what an encoder saved does not load into it."""
    codec = feedback_codec("auto")
    encoder, decoder = codec.encoder(), codec.decoder()
    decoder.decode(encoder.encode(ar1_stream(MIXED, 1)[0], 0))
    assert encoder.state_dict().keys() - decoder.state_dict().keys() == {
        "control",
        "feedback.residual",
        "feedback.learning_rate",
        "lead",
    }
    with pytest.raises(StateError, match="must have the tensors"):
        decoder.load_state_dict(encoder.state_dict())
    with pytest.raises(StateError, match="must be"):
        encoder.load_state_dict(decoder.state_dict())


def test_ef21_and_feedback_are_refused_together():
    """Both would claim the same error."""
    for rule in ("classic", "leaky"):
        with pytest.raises(ConfigError, match="`ef21` already makes up for"):
            CodecConfig("ef21", feedback=rule)


@pytest.mark.parametrize("config", [CodecConfig.fast(0.5), CodecConfig(lattice="Z"), CodecConfig(lattice="raw")])
def test_adding_what_was_decoded_is_decoding_and_adding(config):
    """Both ends add a share of the very vector that `decode` returns; a packet that is refused adds nothing."""
    rows, layout = gradient_stream(4)
    codec = Codec(layout, config)
    encoder, decoder, other = codec.encoder(), codec.decoder(), codec.decoder()
    total, own = torch.ones(layout.size), torch.ones(layout.size)
    packet = b""
    for step, row in enumerate(rows):
        packet = encoder.encode(row, step)
        decoded = decoder.decode(packet)
        expected = total + decoded * 0.25
        other.add_decoded(packet, total, 0.25)
        encoder.add_decoded(own, 0.25)
        assert torch.equal(total, expected)
        assert torch.equal(own, expected)
    with pytest.raises(OutOfStepError):
        other.add_decoded(packet, total, 0.25)
    assert torch.equal(total, own)
    with pytest.raises(EncodeError, match="Nothing has been encoded"):
        codec.encoder().add_decoded(total)

"""The fast coding: distances and values."""

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from

from deadreckon.codec import Codec, CodecConfig, PacketError
from deadreckon.codec.groups import Groups
from deadreckon.codec.run_coding import RunCoding, Runs, _pop_numbers, _push_numbers, _symbols_of
from deadreckon.codec.symbol_coder import CoderState, empty_stack, uniform
from deadreckon.codec.symbols import NUM_SYMBOLS

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]


def fresh(coding: RunCoding) -> CoderState:
    return CoderState(np.zeros((coding.num_tables, NUM_SYMBOLS), np.int64), np.zeros(0, np.int32), 0, 0)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("nmse", [0.7, 0.1, 1e-5])
@pytest.mark.parametrize("predictor", ["none", "fitted"])
def test_decoder_returns_the_encoders_reconstruction(layout, nmse, predictor):
    """Over a stream with zeros and a key frame both ends hold equal bits, and the bound is kept."""
    codec = Codec(layout, CodecConfig(predictor, nmse=nmse, entropy="runs"))
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(layout, 4)
    for step, row in enumerate([*rows, torch.zeros(layout.size), rows[0]]):
        decoded = decoder.decode(encoder.encode(row, step, key_frame=step == 3))
        assert torch.equal(decoded, encoder.reconstruction)
        error, energy = ((decoded - row).double().square().sum(), row.double().square().sum())
        assert error <= nmse * energy * (1 + 1e-12)


@pytest.mark.parametrize(("bits", "feedback"), [(0.3, "leaky"), (1.0, "classic")])
def test_the_fast_settings_hold_their_rate_and_owe_their_error(bits, feedback):
    """Over 60 packets the mean rate is as asked within 6 %, nothing is predicted, and errors are owed."""
    rows, layout = gradient_stream(60)
    config = CodecConfig.fast(bits, feedback)
    encoder = Codec(layout, config).encoder()
    total = sum(8 * len(encoder.encode(row, step)) for step, row in enumerate(rows))
    assert total / len(rows) / layout.size == pytest.approx(bits, rel=0.06)
    assert (config.entropy, config.predictor, config.lattices) == ("runs", "none", ("Z",))
    assert encoder.state_dict()["feedback.residual"].abs().sum() > 0


def test_points_round_trip_whatever_they_are():
    """Places and values of every size come back, from both ends of tensors and of groups."""
    coding = RunCoding(MIXED, None)
    generator = np.random.default_rng(0)
    for share in (0.0, 0.001, 0.1, 1.0):
        places = np.flatnonzero(generator.random(MIXED.size) < share)
        values = generator.choice([-1, 1, 2, -15, 40, -(2**31) + 1, 2**31 - 1], len(places)).astype(np.int32)
        stack = empty_stack()
        after = coding.push(stack, Runs(places, values), fresh(coding), 0, np.zeros(5, np.uint8))
        back, state = coding.pop(stack, fresh(coding), 0, np.zeros(5, np.uint8))
        assert stack.is_empty()
        order = np.argsort(back.places)
        np.testing.assert_array_equal(back.places[order], places)
        np.testing.assert_array_equal(back.values[order], values)
        np.testing.assert_array_equal(state.counts, after.counts)


def test_distances_have_the_documented_symbols():
    """Below 8 a symbol each, then two an octave, the last two octaves one each."""
    distances = np.array([0, 7, 8, 11, 12, 15, 16, 2**28 - 1, 2**28, 2**29, 2**30 - 1])
    assert _symbols_of(distances).tolist() == [0, 7, 8, 8, 9, 9, 10, 57, 58, 59, 59]


@pytest.mark.parametrize("width", [1, 15, 16, 17, 29])
def test_raw_numbers_round_trip(width):
    """Numbers of up to 29 bits come back."""
    numbers = np.array([0, 1, 2**width - 1, 2 ** (width - 1)], np.int64)
    stack = empty_stack()
    _push_numbers(stack, numbers, width)
    np.testing.assert_array_equal(_pop_numbers(stack, 4, width), numbers)


def test_bits_are_those_of_tables_on_independent_coordinates():
    """Where zeros are independent, runs take at most 2 % more bits than a symbol for every coordinate."""
    layout = layout_from({"w": (300, 200)})
    generator = np.random.default_rng(0)
    total = {}
    for entropy in ("runs", "tensor_tables"):
        generator = np.random.default_rng(0)
        encoder = Codec(layout, CodecConfig("none", nmse=0.5, entropy=entropy)).encoder()
        lengths = [len(encoder.encode(generator.laplace(size=layout.size), step)) for step in range(8)]
        total[entropy] = sum(lengths[3:])
    assert total["runs"] < 1.02 * total["tensor_tables"]


def test_idle_rows_cost_less_than_with_tables():
    """Real gradients have units that are idle for a whole batch; their runs save at least a twentieth at NMSE 0.1."""
    rows, layout = gradient_stream(12)
    total = {}
    for entropy in ("runs", "tensor_tables"):
        encoder = Codec(layout, CodecConfig("none", nmse=0.1, entropy=entropy)).encoder()
        total[entropy] = sum(len(encoder.encode(row, step)) for step, row in enumerate(rows))
    assert total["runs"] < 0.95 * total["tensor_tables"]


def test_bad_runs_are_refused():
    """More values than coordinates, a place beyond its tensor, and a value of 0 raise."""
    layout = layout_from({"w": (4, 3)})
    coding = RunCoding(layout, None)
    assert Groups(layout).sizes == (12,)
    levels = np.zeros(1, np.uint8)
    stack = empty_stack()
    _push_numbers(stack, np.array([13]), 32)
    with pytest.raises(PacketError, match="more values than coordinates"):
        coding.pop(stack, fresh(coding), 0, levels)
    stack = empty_stack()
    coding.push(stack, Runs(np.array([12]), np.ones(1, np.int32)), fresh(coding), 0, levels)
    stack = empty_stack()
    wide = RunCoding(layout_from({"w": (40, 3)}), None)
    wide.push(stack, Runs(np.array([50]), np.ones(1, np.int32)), fresh(wide), 0, levels)
    with pytest.raises(PacketError, match="beyond its tensor"):
        coding.pop(stack, fresh(coding), 0, levels)
    stack = empty_stack()
    stack.encode_reverse(np.array([5], np.int32), uniform(60))
    with pytest.raises(PacketError, match=r"beyond its tensor|value of 0|more values"):
        for _ in range(200):
            coding.pop(stack, fresh(coding), 0, levels)
            stack.encode_reverse(np.array([59] * 3, np.int32), uniform(60))

"""Scale classes: exact integer states, equal on every machine, and what they save."""

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deadreckon.codec import Codec, CodecConfig
from deadreckon.codec.activity import (
    MAGNITUDES,
    MAX_ACTIVITY,
    expected_logs,
    log2,
    log_of_cell,
    matrices,
    rescaled,
    updated,
)
from deadreckon.codec.lattice import NUM_WIDTHS
from deadreckon.codec.modes import Annulus
from deadreckon.codec.passes import PASSES, Geometry
from deadreckon.codec.scale_classes import (
    DECAY_SHIFT,
    NUM_CLASSES,
    ScaleClasses,
    class_of,
    class_priors,
    log_of_class,
)
from deadreckon.codec.symbol_coder import NO_VECTOR, CoderState, empty_stack, stack_from_bytes, stack_to_bytes
from deadreckon.codec.symbols import NUM_SYMBOLS
from deadreckon.codec.tables import COUNT_UNIT, MAX_COUNT, TOTAL
from deadreckon.forecast import Layout

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]
SMALL = layout_from({"w": (7, 5), "e": (0, 4), "b": (6,), "c": (3, 2, 2), "s": ()})
ACTIVITIES = st.one_of(st.integers(0, MAX_ACTIVITY), st.sampled_from([0, 1, 5000, MAX_ACTIVITY]))
CELLS = st.integers(0, NUM_WIDTHS - 1)


# --- exact references: Python's integers and fractions, rounded by hand


def rounded(value: Fraction, digits: int) -> Fraction:
    """The nearest binary floating-point number of so many digits, ties to even; exponents have no limits."""
    if not value:
        return value
    exponent = value.numerator.bit_length() - value.denominator.bit_length() - digits  # or one less
    if abs(value) >= Fraction(2) ** (exponent + digits):
        exponent += 1
    return round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent  # `round` takes ties to even


def exact_log(value: Fraction) -> int:
    """log2 in sixteenths, piecewise linear, plus 2032."""
    value = rounded(value, 24)
    octave = value.numerator.bit_length() - value.denominator.bit_length()
    if value < Fraction(2) ** octave:
        octave -= 1
    return 16 * (octave + 127) + math.floor((value / Fraction(2) ** octave - 1) * 16)


def exact_expected_logs(activity: list[int], num_updates: int, layout: Layout) -> list[int]:
    """The definition, with each float64 operation rounded by hand."""

    def wide(value: Fraction) -> Fraction:
        return rounded(value, 53)

    own_share = Fraction(min(num_updates, 5), 8)
    logs = []
    for part in matrices(layout):
        own = activity[part.span]
        total = max(sum(own), 1)
        for row in range(part.num_rows):
            for column in range(part.num_columns):
                of_row = sum(own[row * part.num_columns : (row + 1) * part.num_columns])
                of_column = sum(own[column :: part.num_columns])
                share = wide(of_column * wide((1 - own_share) / total))
                mixed = wide(of_row * share)
                mixed = wide(mixed + wide(own[row * part.num_columns + column] * own_share))
                logs.append(exact_log(wide(mixed + 1)))
    return logs


@given(st.lists(ACTIVITIES, min_size=SMALL.size, max_size=SMALL.size), st.integers(0, 9))
def test_expected_logs_equal_exact_arithmetic(activity, num_updates):
    """Expected logs are those of fractions rounded by hand: no machine's arithmetic can say otherwise."""
    fast = expected_logs(np.array(activity, np.int32), num_updates, matrices(SMALL))
    assert fast.tolist() == exact_expected_logs(activity, num_updates, SMALL)


@given(st.one_of(st.integers(1, 2**53), st.floats(1e-30, 1e30)))
def test_logs_equal_exact_arithmetic(value):
    """log2 reads exponent and four bits of mantissa, after rounding to float32."""
    found = int(log2(np.array([value]))[0])
    assert found == exact_log(Fraction(value))
    assert found == struct.unpack("<i", struct.pack("<f", value))[0] >> 19
    assert abs((found - 2032) / 16 - math.log2(value)) < 0.15


@given(st.lists(ACTIVITIES, min_size=1, max_size=20), CELLS, CELLS)
def test_rescaling_equals_exact_arithmetic(activity, before, after):
    """Activity in another octave's units is divided or multiplied by a power of two, rounded down, and clipped."""
    octaves = after // 128 - before // 128
    scale = Fraction(2) ** -octaves
    expected = [math.floor(value * scale) for value in activity]
    if octaves < 0:
        most = MAX_ACTIVITY >> min(-octaves, 26) << min(-octaves, 26)
        expected = [min(value, most) for value in expected] if -octaves <= 26 else [most * bool(v) for v in activity]
    assert rescaled(np.array(activity, np.int32), before, after).tolist() == expected


@given(
    st.lists(st.tuples(ACTIVITIES, st.integers(0, NUM_SYMBOLS - 1)), min_size=1, max_size=20),
    st.integers(0, 40),
    CELLS,
    st.integers(0, 2),
)
def test_activity_equals_its_definition_and_stays_in_its_bounds(pairs, num_updates, index, level):
    """Activity moves towards what was seen by a share of 1, 1/2, ... down to 1/16, rounded down, within 0 to 2^26."""
    expected = []
    for activity, symbol in pairs:
        value = symbol - 14 if symbol <= 28 else 14 + int(1.5 * 2 ** (symbol - 29))
        cells = min(abs(value), 4096) * 2**level
        seen = min(cells * 32 * (128 + index % 128), MAX_ACTIVITY)
        rate = Fraction(1, 2 ** min(int(math.log2(num_updates + 1)), 4))
        expected.append(activity + math.floor((seen - activity) * rate))
    activity, symbols = np.array(pairs).T
    found = updated(activity.astype(np.int32), symbols, num_updates, index, level)
    assert found.tolist() == expected
    assert found.min() >= 0
    assert found.max() <= MAX_ACTIVITY


def test_magnitudes_are_those_of_the_symbols():
    """A direct symbol stands for its own magnitude, an escape for the middle of its bucket, up to 4096."""
    assert MAGNITUDES[:29].tolist() == [abs(value) for value in range(-14, 15)]
    for bucket in range(31):
        low, high = 14 + 2**bucket, 14 + 2 ** (bucket + 1) - 1
        assert min(low, 4096) <= MAGNITUDES[29 + bucket] <= min(high, 4096)


def test_classes_are_half_octaves():
    """A class spans half an octave of expected magnitude, from 2^-10 cells; its middle belongs to it."""
    for which in range(NUM_CLASSES):
        assert class_of(np.array([log_of_class(which)], np.int32)).tolist() == [which]
    logs = np.arange(-400, 400, dtype=np.int32)
    expected = [min(max(math.floor((log + 160) / 8), 0), 33) for log in logs.tolist()]
    assert class_of(logs).tolist() == expected
    for index in (0, 127, 19_200, NUM_WIDTHS - 1):
        assert log_of_cell(index) == exact_log(Fraction(32 * (128 + index % 128)))


def test_priors_are_tables():
    """One committed table for each class: positive, symmetric, summing to 2^22, of growing mean magnitude.

    What rounding left went to the largest count, which need not be that of 0.
    """
    tables = class_priors()
    assert tables.shape == (NUM_CLASSES, NUM_SYMBOLS)
    assert tables.min() >= 1
    assert set(tables.sum(axis=1).tolist()) == {TOTAL}
    assert np.abs(tables[:, :14] - tables[:, 15:29][:, ::-1]).max() < NUM_SYMBOLS
    means = tables @ MAGNITUDES / TOTAL
    assert (np.diff(means) > 0).all()


# --- passes


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_passes_partition_the_layout(layout):
    """Every coordinate is in exactly one pass, in layout order, with the row and column where it lies."""
    geometry = Geometry(layout)
    places = np.concatenate([part.places for part in geometry.passes])
    np.testing.assert_array_equal(np.sort(places), np.arange(layout.size))
    for part in geometry.passes:
        assert (np.diff(part.places) > 0).all()
        matrix = geometry.matrix_of_row[part.rows]
        np.testing.assert_array_equal(matrix, geometry.matrix_of_column[part.columns])
        for place, row, column in zip(part.places[:50], part.rows, part.columns, strict=False):
            which = int(geometry.matrix_of_row[row])
            own = geometry.parts[which]
            first_row = sum(other.num_rows for other in geometry.parts[:which])
            first_column = sum(other.num_columns for other in geometry.parts[:which])
            assert place == own.span.start + (row - first_row) * own.num_columns + column - first_column


def test_slots_follow_the_r2_sequence():
    """The slot of row i and column j is floor(16 (a i + b j mod 1)), a and b in 32 bits, in large tensors too."""
    shape = (4100, 300)
    geometry = Geometry(layout_from({"w": shape}))
    found = np.zeros(shape[0] * shape[1], np.int64)
    for number, part in enumerate(geometry.passes):
        found[part.places] = number
    plastic = 1.32471795724474602596
    for place in np.random.default_rng(0).integers(0, len(found), 3000).tolist():
        row, column = divmod(place, shape[1])
        slot = (3242174889 * row + 2447445414 * column) % 2**32 // 2**28
        assert found[place] == int(math.log2(max(slot, 1))) + (slot > 0)
        exact = (row / plastic + column / plastic**2) % 1 * 16
        assert abs(exact - slot - 0.5) < 0.501 or abs(exact - slot) > 15.99


@pytest.mark.parametrize("shape", [(200, 300), (64, 576), (1, 5000), (5000, 1), (10, 84), (256, 256)])
def test_passes_are_even_over_rows_and_columns(shape):
    """Each pass holds its share of every row and column, give or take five coordinates, and of rectangles."""
    geometry = Geometry(layout_from({"w": shape}))
    for number, part in enumerate(geometry.passes):
        share = float((PASSES == number).mean())
        assert len(part.places) == pytest.approx(share * math.prod(shape), abs=3 + 0.002 * math.prod(shape))
        for lines, length, other in ((part.rows, shape[0], shape[1]), (part.columns, shape[1], shape[0])):
            counts = np.bincount(lines, minlength=length)
            assert np.abs(counts - share * other).max() <= 5.0
        if min(shape) >= 64:
            grid = np.zeros(shape)
            grid[part.rows, part.columns] = 1
            blocks = grid[: shape[0] // 16 * 16, : shape[1] // 16 * 16]
            blocks = blocks.reshape(shape[0] // 16, 16, -1, 16).sum((1, 3))
            assert np.abs(blocks / 256 - share).max() < 0.04


def test_passes_leave_out_what_has_no_vector():
    """Coordinates of a matrix without a vector are in no pass, all others are where they were."""
    geometry = Geometry(SMALL)
    levels = np.array([0, NO_VECTOR, 1, 2], np.uint8)
    left_out = geometry.parts[1].span
    for part, whole in zip(geometry.coded_passes(levels), geometry.passes, strict=True):
        kept = (whole.places < left_out.start) | (whole.places >= left_out.stop)
        for mine, all_of_them in zip(part, whole, strict=True):
            np.testing.assert_array_equal(mine, all_of_them[kept])


# --- the coder


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.1, 1.0, 30.0, 1e8]),
    st.integers(0, 6),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_symbols_round_trip(seed, spread, num_updates, levels):
    """Any symbols come back in any state, and both ends reach the same one, with counts as documented."""
    generator = np.random.default_rng(seed)
    coder = ScaleClasses(SMALL)
    given_levels = np.array(levels, np.uint8)
    values = np.rint(np.clip(generator.standard_t(1, SMALL.size) * spread, -(2**31) + 1, 2**31 - 1)).astype(np.int64)
    symbols = np.where(np.abs(values) <= 14, values + 14, 29 + np.log2(np.maximum(np.abs(values) - 14, 1)).astype(int))
    symbols = np.minimum(symbols, NUM_SYMBOLS - 1).astype(np.int32)
    for part, level in zip(matrices(SMALL), levels, strict=True):
        if level == NO_VECTOR:
            symbols[part.span] = 14
    counts = generator.integers(0, 10 ** int(generator.integers(1, 10)), (NUM_CLASSES, NUM_SYMBOLS))
    activity = (MAX_ACTIVITY * generator.random(SMALL.size) ** 9).astype(np.int32) * (num_updates > 0)
    state = CoderState(counts, activity, num_updates, int(generator.integers(NUM_WIDTHS)))
    index = int(np.clip(state.cell_index + generator.integers(-2000, 2000), 0, NUM_WIDTHS - 1))
    stack = empty_stack()
    after = coder.push(stack, symbols, state, index, given_levels)
    stack = stack_from_bytes(stack_to_bytes(stack))
    back, after_too = coder.pop(stack, state, index, given_levels)
    assert stack.is_empty()
    np.testing.assert_array_equal(back, symbols)
    np.testing.assert_array_equal(after.counts, after_too.counts)
    np.testing.assert_array_equal(after.activity, after_too.activity)
    assert after[2:] == after_too[2:] == (num_updates + 1, index)
    coded = np.concatenate([part.places for part in Geometry(SMALL).coded_passes(given_levels)])
    seen = (after.counts - counts + (counts >> DECAY_SHIFT)).sum(0)
    np.testing.assert_array_equal(seen, COUNT_UNIT * np.bincount(symbols[coded], minlength=NUM_SYMBOLS))
    for part, level in zip(matrices(SMALL), levels, strict=True):
        before = rescaled(activity, state.cell_index, index)[part.span]
        expected = before if level == NO_VECTOR else updated(before, symbols[part.span], num_updates, index, level)
        np.testing.assert_array_equal(after.activity[part.span], expected)


def test_a_tensor_without_a_vector_takes_no_bits():
    """Symbols of a matrix without a vector cost nothing at all once there is a past."""
    coder, generator = ScaleClasses(MIXED), np.random.default_rng(0)
    state = CoderState(
        generator.integers(0, 10**6, (NUM_CLASSES, NUM_SYMBOLS)), np.full(MIXED.size, 10**6, np.int32), 3, 20_000
    )
    levels = np.full(len(matrices(MIXED)), NO_VECTOR, np.uint8)
    stack = empty_stack()
    coder.push(stack, np.full(MIXED.size, 14, np.int32), state, 20_000, levels)
    assert stack_to_bytes(stack) == b""


def bits_of(rows: list[Tensor], layout: Layout, config: CodecConfig, skip: int) -> int:
    encoder, bits = Codec(layout, config).encoder(), 0
    for step, row in enumerate(rows):
        encoder.encode(row, step)
        bits += encoder.last_report.num_bits if step >= skip else 0
    return bits


def test_scale_classes_save_a_tenth_of_the_bits():
    """On gradients of a small net at NMSE 0.1 they take at most 0.9 times the bits of tables for each tensor.

    Measured: 0.77 from the sixth packet on.
    """
    rows, layout = gradient_stream(16)
    bits = {
        entropy: bits_of(rows, layout, CodecConfig("none", entropy=entropy), skip=5)
        for entropy in ("scale_classes", "tensor_tables")
    }
    assert bits["scale_classes"] < 0.9 * bits["tensor_tables"]


def test_idle_rows_cost_little():
    """Rows that are zero in this packet, and were not before, show in the first passes and cost little after them."""
    layout = layout_from({"w": (64, 256)})
    generator = np.random.default_rng(0)
    bits = {}
    for what in ("all rows", "half of them"):
        encoder = Codec(layout, CodecConfig("none", nmse=0.01)).encoder()
        for step in range(8):
            values = generator.standard_normal((64, 256)).astype(np.float32)
            if what == "half of them":
                values[generator.permutation(64)[:32]] = 0
            encoder.encode(values.reshape(-1), step)
        bits[what] = encoder.last_report.symbol_bits
    assert bits["half of them"] < 0.56 * bits["all rows"]


# --- extremes


def _extreme_rows(layout: Layout, length: int, seed: int) -> list[Tensor]:
    """Vectors whose scales leap by up to 70 powers of ten, between tensors too, with zeros and denormals."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(length):
        row = generator.standard_t(1, layout.size)
        for part in matrices(layout):
            row[part.span] *= 10.0 ** generator.uniform(-44, 37)
        row[generator.random(layout.size) < generator.choice([0.0, 0.5, 0.99])] = 0
        rows.append(torch.from_numpy(np.clip(row, -3.4e38, 3.4e38).astype(np.float32)))
    return rows


def _follow_extremes(config: CodecConfig, length: int) -> None:
    """Both ends hold equal bits and sound states; the bound holds where there is one."""
    codec = Codec(SMALL, config)
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, row in enumerate(_extreme_rows(SMALL, length, seed=length)):
        decoded = decoder.decode(encoder.encode(row, step, key_frame=step % 1000 == 999))
        assert torch.equal(decoded.view(torch.int32), encoder.reconstruction.view(torch.int32))
        assert bool(decoded.isfinite().all())
        if config.hold == "bound":
            wide = row.double()
            assert float((wide - decoded.double()).square().sum()) <= config.nmse * float(wide.square().sum())
        if step % 50 == 0:
            state = decoder.state_dict()
            assert 0 <= int(state["activity"].min()) <= int(state["activity"].max()) <= MAX_ACTIVITY
            assert 0 <= int(state["counts"].min()) <= int(state["counts"].max()) < MAX_COUNT
            decoder.load_state_dict(state)  # which checks all of it


EXTREME_CONFIGS = [
    CodecConfig("fitted"),
    CodecConfig("adaptive_momentum", nmse=1e-5, modes=Annulus(level=2)),
    CodecConfig("none", hold="mean_error"),
    CodecConfig("previous", hold="mean_rate", bits=2.0),
]


@pytest.mark.parametrize("config", EXTREME_CONFIGS, ids=lambda config: f"{config.predictor}-{config.hold}")
def test_leaping_scales_are_followed(config):
    """Huge values, denormals and leaps between them decode to equal bits on both ends, and states stay in bounds."""
    _follow_extremes(config, 100)


@pytest.mark.slow
@pytest.mark.parametrize("config", EXTREME_CONFIGS, ids=lambda config: f"{config.predictor}-{config.hold}")
def test_many_leaping_packets_are_followed(config):
    """The same over 2 000 packets."""
    _follow_extremes(config, 2_000)


def test_counts_stay_below_their_limit():
    """The counts of the largest vector there may be, packet after packet, settle below what a state may hold."""
    counts, largest = 0, 2**30
    for _ in range(400):
        counts = counts - (counts >> DECAY_SHIFT) + COUNT_UNIT * largest
    assert counts <= MAX_COUNT


def test_ar1_streams_of_one_scale_cost_no_more():
    """Where every coordinate has its tensor's scale, classes cost at most 2 % more than tables for each tensor."""
    layout = layout_from({"w": (80, 60)})
    rows = ar1_stream(layout, 25, correlation=0.0)
    bits = {
        entropy: bits_of(rows, layout, CodecConfig("none", entropy=entropy, dead_zone=0.2), skip=10)
        for entropy in ("scale_classes", "tensor_tables")
    }
    assert bits["scale_classes"] < 1.02 * bits["tensor_tables"]

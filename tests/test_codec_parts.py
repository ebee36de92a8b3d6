"""The codec's parts, each against its definition."""

import itertools
import math

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, layout_from
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.codec import PacketError, coefficients
from deadreckon.codec.body import Body, read_body, write_body
from deadreckon.codec.entropy import decode_symbols, encode_symbols
from deadreckon.codec.groups import MERGE_BELOW, Groups
from deadreckon.codec.lattice import NUM_WIDTHS, Quantiser, cell_index, cell_width, reconstruct
from deadreckon.codec.symbols import NUM_DIRECT, NUM_SYMBOLS, escape_bits, read_escapes, to_symbols
from deadreckon.codec.tables import (
    ADAPTIVE,
    COUNT_UNIT,
    FIRST_PRESET,
    NUM_CHOICES,
    NUM_PRESETS,
    SKIP,
    TOTAL,
    adaptive_table,
    choice_table,
    preset_tables,
    updated_counts,
)
from deadreckon.codec.varint import read_varint, write_varint

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]


# --- whole numbers


@given(st.integers(0, 2**63 - 1))
def test_varints_round_trip(value):
    """Every number below 2^63 comes back, and the place after it."""
    data = write_varint(value)
    assert read_varint(b"x" + data + b"y", 1) == (value, 1 + len(data))


def test_bad_varints_are_refused():
    """A number that is cut, not in its shortest form, or too long raises."""
    for data, message in (
        (b"", "ends within"),
        (b"\x80", "ends within"),
        (b"\x80\x00", "shortest"),
        (b"\xff" * 10, "long"),
    ):
        with pytest.raises(PacketError, match=message):
            read_varint(data, 0)


# --- symbols


@given(st.lists(st.one_of(st.integers(-40, 40), st.integers(-(2**31) + 1, 2**31 - 1)), max_size=60))
def test_symbols_and_escapes_round_trip(values):
    """Symbols and raw bits give back every 32-bit integer, and each symbol is within the alphabet."""
    array = np.array(values, np.int32)
    symbols, escaped = to_symbols(array)
    assert ((symbols >= 0) & (symbols < NUM_SYMBOLS)).all()
    back = symbols.astype(np.int64) - 14
    data = np.packbits(escape_bits(escaped)).tobytes()
    back[symbols >= NUM_DIRECT] = read_escapes(symbols[symbols >= NUM_DIRECT], data)
    np.testing.assert_array_equal(back, array)


def test_escape_bits_are_as_documented():
    """-15 is escape 0 with its sign; 20 is x = 6 = 2^2 + 2: escape 2 with bits 0 10."""
    symbols, escaped = to_symbols(np.array([-15, 3, 20, -14], np.int32))
    assert symbols.tolist() == [29, 17, 31, 0]
    assert escape_bits(escaped).tolist() == [1, 0, 1, 0]


def test_bad_escape_bits_are_refused():
    """Too many or too few bytes, or padding that is not zero, raise."""
    symbols = np.array([31], np.int32)
    for data in (b"", b"\0\0"):
        with pytest.raises(PacketError, match="3 escape bits are due"):
            read_escapes(symbols, data)
    with pytest.raises(PacketError, match="padding of its escape bits"):
        read_escapes(symbols, b"\x01")


# --- tables


def test_presets_are_tables():
    """63 committed tables of positive integers, each summing to 2^22, from nearly all zeros to wide ones."""
    tables = preset_tables()
    assert tables.shape == (NUM_PRESETS, NUM_SYMBOLS)
    assert tables.min() >= 1
    assert set(tables.sum(axis=1).tolist()) == {TOTAL}
    assert tables[:, 14].max() > 0.9999 * TOTAL
    assert tables[:, 14].min() < 0.01 * TOTAL
    np.testing.assert_array_equal(tables[:, :14], tables[:, 15:29][:, ::-1])


def test_choices_are_a_table():
    """The choice of a table has a probability table as well: skip a quarter, adaptive half."""
    table = choice_table()
    assert table.sum() == TOTAL
    assert table[SKIP] == TOTAL // 4
    assert abs(int(table[ADAPTIVE]) - TOTAL // 2) < NUM_PRESETS
    assert len(table) == NUM_CHOICES == FIRST_PRESET + NUM_PRESETS


@given(st.lists(st.integers(0, 2**36), min_size=NUM_SYMBOLS, max_size=NUM_SYMBOLS))
def test_adaptive_tables_are_tables(counts):
    """Any counts make a table of positive integers that sums to 2^22 and ranks symbols as the counts do."""
    array = np.array(counts, np.int64)
    table = adaptive_table(array)
    assert int(table.sum()) == TOTAL
    assert table.min() >= 1
    assert table[array.argmax()] >= table.max() - NUM_SYMBOLS  # what rounding left may go to one that ties with it


def test_counts_settle():
    """Counts of a steady source settle at four packets' worth; those of symbols that stopped fade away."""
    seen = np.zeros(NUM_SYMBOLS, np.int64)
    seen[14] = 1000
    counts = updated_counts(np.zeros(NUM_SYMBOLS, np.int64), np.ones(NUM_SYMBOLS, np.int64))
    for _ in range(60):
        counts = updated_counts(counts, seen)
    assert 3.9 * 1000 * COUNT_UNIT < counts[14] <= 4 * 1000 * COUNT_UNIT
    assert counts[0] < COUNT_UNIT


# --- groups


def test_groups_partition_the_layout():
    """Every coordinate is in exactly one group; large tensors stand alone, small ones are merged by dimension."""
    for layout in LAYOUTS.values():
        groups = Groups(layout)
        seen = np.zeros(layout.size, np.int64)
        for group in range(len(groups)):
            groups.scatter(seen, group, groups.gather(seen, group) + group + 1)
        places = [np.flatnonzero(seen == group + 1) for group in range(len(groups))]
        assert sum(map(len, places)) == layout.size
        assert tuple(map(len, places)) == groups.sizes
    mixed = Groups(MIXED)
    assert MIXED["large"].numel >= MERGE_BELOW
    assert mixed.sizes == (4200, 72, 60 + 1 + 5)


def test_groups_do_not_depend_on_kind():
    """`kind` is not in the layout's digest, so it must not decide anything both ends need to agree on."""
    assert Groups(layout_from({"a": (5,), "b": (6, 7)})).spans == ((slice(5, 47),), (slice(0, 5),))


# --- entropy coding


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 1.0, 40.0, 1e6]))
def test_symbols_round_trip_through_ans(seed, spread):
    """Any symbols come back, and both sides count the same occurrences."""
    generator = np.random.default_rng(seed)
    groups = Groups(MIXED)
    values = np.clip(np.rint(generator.laplace(scale=max(spread, 1e-9), size=MIXED.size)), -(2**31) + 1, 2**31 - 1)
    symbols, _ = to_symbols(values.astype(np.int32))
    counts = generator.integers(0, 1000, (len(groups), NUM_SYMBOLS))
    coded = encode_symbols(symbols, groups, counts)
    back, seen = decode_symbols(coded.words, groups, counts)
    np.testing.assert_array_equal(back, symbols)
    np.testing.assert_array_equal(seen, coded.seen)
    assert seen.sum() == MIXED.size


def test_adaptive_tables_come_close_to_the_entropy():
    """Once counts have seen the source, symbols take at most 2 % more than their empirical entropy."""
    layout = LAYOUTS["one tensor"]
    groups = Groups(layout)
    generator = np.random.default_rng(0)
    counts = np.zeros((1, NUM_SYMBOLS), np.int64)
    rows = [np.rint(generator.laplace(scale=1.5, size=layout.size)).astype(np.int32) for _ in range(10)]
    for values in rows:
        counts = updated_counts(counts, encode_symbols(to_symbols(values)[0], groups, counts).seen)
    coded = encode_symbols(to_symbols(rows[-1])[0], groups, counts)
    share = coded.seen[coded.seen > 0] / layout.size
    entropy = -layout.size * float(share @ np.log2(share))
    assert 8 * len(coded.words) < 1.02 * entropy + 32


def test_all_zero_groups_cost_nothing():
    """A vector of zeros takes no word, whatever its size: skipping leaves the coder's initial state as it is."""
    coded = encode_symbols(np.full(MIXED.size, 14, np.int32), Groups(MIXED), np.zeros((3, NUM_SYMBOLS), np.int64))
    assert coded.words == b""


def test_bad_words_are_refused():
    """Words that end with a zero word, or hold more than the symbols take, raise."""
    groups, counts = Groups(MIXED), np.zeros((3, NUM_SYMBOLS), np.int64)
    with pytest.raises(PacketError, match="empty word"):
        decode_symbols(b"\x01\0\0\0" + b"\0" * 4, groups, counts)
    coded = encode_symbols(np.full(MIXED.size, 14, np.int32), groups, counts)
    with pytest.raises(PacketError, match="more than its symbols"):
        decode_symbols(coded.words + b"\x01\0\0\0" * 3, groups, counts)


# --- the lattice


def test_widths_are_dyadic_and_grow():
    """Neighbouring cell widths differ by less than 1 %, each is exact, and `cell_index` inverts them."""
    widths = [cell_width(index) for index in range(NUM_WIDTHS)]
    assert all(1 < second / first < 1.008 for first, second in itertools.pairwise(widths))
    assert widths[128 * 160] == 1.0
    for index in range(0, NUM_WIDTHS, 97):
        assert cell_index(widths[index]) == index
    assert cell_index(1e-300) == 0
    assert cell_index(1e300) == NUM_WIDTHS - 1


def slow_quantise(residual: np.ndarray, width: float, dead_zone: float) -> list[int]:
    """The definition, one coordinate at a time."""
    return [
        int(math.copysign(math.floor(abs(float(value)) / width + 0.5 - dead_zone), float(value))) for value in residual
    ]


@pytest.mark.parametrize("dead_zone", [0.0, 0.2, 0.45])
@pytest.mark.parametrize("share", [0.7, 0.1, 1e-3])
def test_quantiser_equals_its_definition(dead_zone, share):
    """Values, error and centroids of the fast quantiser are those of the loop, and the bound holds tightly."""
    residual = ar1_stream(MIXED, 1)[0].numpy()
    quantiser = Quantiser(residual, dead_zone)
    trial = quantiser.coarsest(share * quantiser.energy, start=20_000)
    assert trial is not None
    values = quantiser.values(trial)
    width = cell_width(trial.cell_index)
    assert values.tolist() == slow_quantise(residual, width, dead_zone)
    back = reconstruct(*to_symbols(values), trial.offsets, trial.cell_index)
    error = float(np.square(residual.astype(np.float64) - back).sum())
    np.testing.assert_allclose(trial.error, error, rtol=1e-5)
    assert 0.95 * share * quantiser.energy < error <= share * quantiser.energy
    for kind, offset in enumerate(trial.offsets, 1):
        members = (np.abs(values) == kind) if kind < 3 else (np.abs(values) >= 3)
        if members.any():
            mean = float((np.abs(residual[members]) / width - np.abs(values[members])).mean())
            assert abs(mean - offset / 128) <= 0.51 / 128 or abs(offset) >= 127
    following = quantiser.trial(trial.cell_index + 1)
    assert following.error > share * quantiser.energy


def test_reconstruction_is_as_documented():
    """sign(q) (|q| + offset) width, with the offset of magnitude 1, 2, or more; escapes too."""
    offsets = np.array([-16, 32, 64], np.int8)
    index = cell_index(0.5)
    symbols, escaped = to_symbols(np.array([0, 1, -2, 3, -100, 14], np.int32))
    expected = [0.0, 0.5 * (1 - 0.125), -0.5 * 2.25, 0.5 * 3.5, -0.5 * 100.5, 0.5 * 14.5]
    assert reconstruct(symbols, escaped, offsets, index).tolist() == expected


def test_an_impossible_bound_has_no_cell():
    """No width leaves an error of zero, and one that needs integers beyond 32 bits is not taken either."""
    quantiser = Quantiser(np.array([1.0, 1 / 3], np.float32), 0.2)
    assert quantiser.coarsest(0.0, 20_000) is None
    assert quantiser.coarsest(1e-40, 20_000) is None


# --- coefficients


@given(st.lists(st.integers(-32767, 32767), min_size=0, max_size=40), st.booleans())
def test_coefficients_round_trip(units, two):
    """Every 16-bit coefficient comes back, zeros included."""
    flat = np.array(units[: len(units) // 2 * 2], np.int16)
    matrix = flat.reshape(-1, 2) if two else flat.reshape(-1, 1)
    data = b"head" + coefficients.write(matrix) + b"tail"
    back, place = coefficients.read(data, 4, (matrix.shape[0], matrix.shape[1]))
    np.testing.assert_array_equal(back, matrix)
    assert data[place:] == b"tail"


def test_bad_coefficients_are_refused():
    """A cut list, padding, a zero that claims to be present, and a number beyond 16 bits raise."""
    bad = {
        "ends within its coefficients": (b"", (3, 1)),
        "ends within a number": (b"\x80", (1, 1)),
        "padding of its coefficients": (b"\x01", (1, 1)),
        "coefficient of 0 units": (b"\x80\x00", (1, 1)),
        "coefficient of 32768 units": (b"\x80" + write_varint(65536), (1, 1)),
    }
    for message, (data, shape) in bad.items():
        with pytest.raises(PacketError, match=message):
            coefficients.read(data, 0, shape)


def test_coefficients_saturate():
    """A coefficient beyond 16 bits is clipped to about 128, not wrapped."""
    assert coefficients.quantise(1e9) == 32767
    assert coefficients.quantise(-1e9) == -32767
    assert coefficients.quantise(0.501) == 128


def test_combine_equals_its_definition():
    """The prediction is the float32 sum of float32 products; terms with coefficient 0 are left out, even infinite."""
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 10)).astype(np.float32)
    second[:5] = np.inf
    units = np.array([[300, 0], [-77, 256]], np.int16)
    prediction = coefficients.combine(units, [first, second], [slice(0, 5), slice(5, 10)], 10)
    expected = np.float32(300 / 256) * first
    expected[5:] = np.float32(-77 / 256) * first[5:] + second[5:]
    np.testing.assert_array_equal(prediction, expected)


def test_coefficients_of_overflowed_predictions_are_zero():
    """A basis vector with infinities in a tensor gets no weight there."""
    column = np.full(10, np.inf, np.float32)
    fitted = coefficients.fit(np.ones(10, np.float32), [column], [slice(0, 10)], 0.1, 0.2)
    assert fitted.tolist() == [[0]]


# --- the body


def _body(values: np.ndarray) -> Body:
    symbols, escaped = to_symbols(values.astype(np.int32))
    offsets = np.array([1, -2, 3], np.int8)
    return Body(777, offsets, np.array([[1, 0], [0, -300]], np.int16), symbols, escaped)


def test_bodies_round_trip_and_their_bits_add_up():
    """A body comes back whole, and the parts' bits sum to its length."""
    groups, counts = Groups(MIXED), np.zeros((3, NUM_SYMBOLS), np.int64)
    values = np.rint(np.random.default_rng(0).laplace(scale=5.0, size=MIXED.size))
    body = _body(values)
    data, bits, seen = write_body(body, groups, counts)
    assert sum(bits) == 8 * len(data)
    back, seen_again = read_body(data, groups, counts, (2, 2))
    assert back.cell_index == 777
    np.testing.assert_array_equal(seen, seen_again)
    for mine, theirs in zip(body[1:], back[1:], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_bad_bodies_are_refused():
    """A body that ends within a part, or names a cell width that does not exist, raises."""
    groups, counts = Groups(MIXED), np.zeros((3, NUM_SYMBOLS), np.int64)
    data, _, _ = write_body(_body(np.arange(MIXED.size) % 5), groups, counts)
    bad = {
        "ends within its quantiser": data[:4],
        "cell width 65535 of 38400": b"\xff\xff" + data[2:],
        "ends within its symbols": data[:-1],
        "0 escape bits are due": data + b"\0",
    }
    for message, wrong in bad.items():
        with pytest.raises(PacketError, match=message):
            read_body(wrong, groups, counts, (2, 2))


def test_prediction_state_of_torch_and_numpy_agree():
    """The running mean is m <- b m + (1 - b) v in float32, as torch computes it without fusing."""
    from deadreckon.codec import Codec, CodecConfig

    encoder = Codec(MIXED, CodecConfig("momentum_projected")).encoder()
    mean = torch.zeros(MIXED.size)
    decay = torch.tensor(0.9)
    for step, row in enumerate(ar1_stream(MIXED, 5)):
        encoder.encode(row, step)
        mean = mean * decay + encoder.reconstruction * (1 - decay)
        assert torch.equal(encoder.state_dict()["momentum"], mean)

"""The codec's parts, each against its definition. Scale classes have a file of their own."""

import itertools
import math

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, layout_from
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.codec import Codec, CodecConfig, PacketError, coefficients
from deadreckon.codec.activity import matrices
from deadreckon.codec.bits import BitReader, BitWriter
from deadreckon.codec.body import FIRST_CELL, Body, Context, read_body, write_body
from deadreckon.codec.coding import Integers, Quantised, ScalarCoding
from deadreckon.codec.groups import MERGE_BELOW, Groups
from deadreckon.codec.lattice import LARGEST_VALUE, NUM_WIDTHS, Quantiser, cell_index, cell_width, reconstruct
from deadreckon.codec.symbol_coder import (
    CoderState,
    empty_stack,
    pop_bytes,
    push_bytes,
    stack_from_bytes,
    stack_to_bytes,
)
from deadreckon.codec.symbols import NUM_DIRECT, NUM_SYMBOLS, escape_bits, num_escape_bits, read_escapes, to_symbols
from deadreckon.codec.tables import (
    ADAPTIVE,
    COUNT_UNIT,
    FIRST_PRESET,
    MAX_COUNT,
    NUM_CHOICES,
    NUM_PRESETS,
    SKIP,
    TOTAL,
    adaptive_table,
    as_table,
    as_tables,
    choice_table,
    preset_tables,
    updated_counts,
)
from deadreckon.codec.tensor_tables import TensorTables
from deadreckon.codec.varint import read_varint, write_varint

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]
NUM_MATRICES = len(matrices(MIXED))
PLAIN = np.zeros(NUM_MATRICES, np.uint8)


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


@given(st.lists(st.tuples(st.integers(-(2**33), 2**33), st.integers(0, 8)), max_size=20), st.binary(max_size=5))
def test_numbers_round_trip_as_bits(numbers, rest):
    """Numbers of any size, sign and order come back, and so do the bytes behind them."""
    writer = BitWriter()
    for value, order in numbers:
        writer.write_number(value, order)
    data = writer.to_bytes()
    assert len(data) == -(-len(writer) // 8)
    reader = BitReader(data + rest)
    assert [reader.read_number(order) for _, order in numbers] == [value for value, _ in numbers]
    assert reader.finish() == rest


@pytest.mark.parametrize(
    ("value", "order", "digits"),
    [(0, 0, "1"), (-1, 0, "010"), (1, 0, "011"), (-2, 0, "00100"), (0, 2, "100"), (-1, 2, "101"), (2, 2, "01000")],
)
def test_numbers_are_coded_as_documented(value, order, digits):
    """Zeros, then the zigzag number plus 2^order in binary."""
    writer = BitWriter()
    writer.write_number(value, order)
    assert "".join(f"{byte:08b}" for byte in writer.to_bytes())[: len(writer)] == digits


def test_bad_bits_are_refused():
    """Bits that end too early, a number of more than 40 leading zeros, and padding that is not zero raise."""
    with pytest.raises(PacketError, match="ends within its parameters"):
        BitReader(b"\0").read(9)
    with pytest.raises(PacketError, match="ends within its parameters"):
        BitReader(b"\0").read_number(3)
    with pytest.raises(PacketError, match="a number is too long"):
        BitReader(bytes(5) + b"\x7f" + bytes(50)).read_number(0)
    assert BitReader(bytes(5) + b"\x80" + bytes(50)).read_number(0) == -(2**39)  # 40 zeros are allowed
    reader = BitReader(b"\x01")
    reader.read(3)
    with pytest.raises(PacketError, match="padding of its parameters"):
        reader.finish()


# --- symbols


@given(st.lists(st.one_of(st.integers(-40, 40), st.integers(-LARGEST_VALUE, LARGEST_VALUE)), max_size=60))
def test_symbols_and_escapes_round_trip(values):
    """Symbols and raw bits give back every 32-bit integer, and each symbol is within the alphabet."""
    array = np.array(values, np.int32)
    symbols, escaped = to_symbols(array)
    assert ((symbols >= 0) & (symbols < NUM_SYMBOLS)).all()
    back = symbols.astype(np.int64) - 14
    bits = escape_bits(escaped)
    escapes = symbols[symbols >= NUM_DIRECT]
    assert num_escape_bits(escapes) == len(bits)
    back[symbols >= NUM_DIRECT] = read_escapes(escapes, np.packbits(bits))
    np.testing.assert_array_equal(back, array)


def test_escape_bits_are_as_documented():
    """-15 is escape 0 with its sign; 20 is x = 6 = 2^2 + 2: escape 2 with bits 0 10."""
    symbols, escaped = to_symbols(np.array([-15, 3, 20, -14], np.int32))
    assert symbols.tolist() == [29, 17, 31, 0]
    assert escape_bits(escaped).tolist() == [1, 0, 1, 0]


def test_bad_escape_bits_are_refused():
    """Padding that is not zero raises; the largest escape is within 33 bits whatever its bits are."""
    with pytest.raises(PacketError, match="padding of its escape bits"):
        read_escapes(np.array([31], np.int32), np.array([1], np.uint8))
    largest = read_escapes(np.array([NUM_SYMBOLS - 1], np.int32), np.array([255, 255, 255, 254], np.uint8))
    assert largest.tolist() == [-(2**31 - 1 + 14)]


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


@given(st.lists(st.one_of(st.integers(0, MAX_COUNT), st.just(0)), min_size=NUM_SYMBOLS, max_size=NUM_SYMBOLS))
def test_adaptive_tables_are_tables(counts):
    """Any counts make a table of positive integers that sums to 2^22 and follows the counts in proportion."""
    table = adaptive_table(np.array(counts, np.int64))
    assert int(table.sum()) == TOTAL
    assert table.min() >= 1
    weights = [count + 1 for count in counts]
    shift = max(sum(weights).bit_length() - 40, 0)
    weights = [weight >> shift for weight in weights]
    exact = [1 + weight * (TOTAL - NUM_SYMBOLS) // sum(weights) for weight in weights]
    exact[exact.index(max(exact))] += TOTAL - sum(exact)
    assert table.tolist() == exact


def test_tables_of_huge_counts_do_not_overflow():
    """Weights that are all as large as a state may hold, times the prior's share, stay proportions."""
    table = as_table(np.full(NUM_SYMBOLS, MAX_COUNT << 10, np.int64))
    assert int(table.sum()) == TOTAL
    assert table.max() - table.min() <= NUM_SYMBOLS


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


# --- entropy coding with a table for each tensor


def fresh(num_tables: int, counts: np.ndarray | None = None) -> CoderState:
    """A state without activity."""
    zeros = np.zeros((num_tables, NUM_SYMBOLS), np.int64)
    return CoderState(zeros if counts is None else counts, np.zeros(0, np.int32), 0, 0)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 1.0, 40.0, 1e6]), st.binary(max_size=9))
def test_symbols_round_trip_through_ans(seed, spread, below):
    """Any symbols come back, both ends get the same counts, and what lay below on the stack is untouched."""
    generator = np.random.default_rng(seed)
    coder = TensorTables(MIXED)
    values = np.clip(np.rint(generator.laplace(scale=max(spread, 1e-9), size=MIXED.size)), -(2**31) + 1, 2**31 - 1)
    symbols, _ = to_symbols(values.astype(np.int32))
    state = fresh(coder.num_tables, generator.integers(0, 1000, (coder.num_tables, NUM_SYMBOLS)))
    stack = empty_stack()
    push_bytes(stack, np.frombuffer(below, np.uint8))
    after = coder.push(stack, symbols, state, 0, PLAIN)
    stack = stack_from_bytes(stack_to_bytes(stack))
    back, after_too = coder.pop(stack, state, 0, PLAIN)
    assert pop_bytes(stack, len(below)).tobytes() == below
    assert stack.is_empty()
    np.testing.assert_array_equal(back, symbols)
    np.testing.assert_array_equal(after.counts, after_too.counts)
    groups = Groups(MIXED)
    seen = np.stack([np.bincount(groups.gather(symbols, which), minlength=NUM_SYMBOLS) for which in range(len(groups))])
    np.testing.assert_array_equal(after.counts, updated_counts(state.counts, seen))


def test_adaptive_tables_come_close_to_the_entropy():
    """Once counts have seen the source, symbols take at most 2 % more than their empirical entropy."""
    layout = LAYOUTS["one tensor"]
    coder, generator = TensorTables(layout), np.random.default_rng(0)
    state, levels = fresh(1), np.zeros(1, np.uint8)
    symbols, stack = np.zeros(0, np.int32), empty_stack()
    for _ in range(10):
        values = np.rint(generator.laplace(scale=1.5, size=layout.size)).astype(np.int32)
        symbols, stack = to_symbols(values)[0], empty_stack()
        state = coder.push(stack, symbols, state, 0, levels)
    number = np.bincount(symbols)
    share = number[number > 0] / layout.size
    entropy = -layout.size * float(share @ np.log2(share))
    assert 8 * len(stack_to_bytes(stack)) < 1.02 * entropy + 32


def test_all_zero_groups_cost_nothing():
    """A vector of zeros takes no word, whatever its size: skipping leaves the coder's initial state as it is."""
    stack = empty_stack()
    TensorTables(MIXED).push(stack, np.full(MIXED.size, 14, np.int32), fresh(3), 0, PLAIN)
    assert stack_to_bytes(stack) == b""


def test_bad_words_are_refused():
    """Words that end with an empty byte raise."""
    for data in (b"\x01\0", b"\x01\0\0\0\0\0\0\0", b"\0"):
        with pytest.raises(PacketError, match="empty byte"):
            stack_from_bytes(data)
    assert stack_to_bytes(stack_from_bytes(b"\x07\1\2\3\4\5")) == b"\x07\1\2\3\4\5"


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


def slow_quantise(residual: np.ndarray, widths: np.ndarray, dead_zones: np.ndarray) -> list[int]:
    """The definition, one coordinate at a time."""
    return [
        int(math.copysign(max(math.floor(abs(float(value)) / width + 0.5 - zone), 0), float(value)))
        for value, width, zone in zip(residual, widths, dead_zones, strict=True)
    ]


@pytest.mark.parametrize("with_levels", [False, True])
@pytest.mark.parametrize("dead_zone", [0.0, 0.25, 0.4375, None])
@pytest.mark.parametrize("share", [0.7, 0.1, 1e-3])
def test_quantiser_equals_its_definition(dead_zone, share, with_levels):
    """Values, error and centroids of the fast quantiser are those of the loop, and the bound holds tightly.

    One dead zone or one for each coordinate, beyond a half too; with cells of one width or of three.
    """
    residual = ar1_stream(MIXED, 1)[0].numpy()
    zones = np.full(MIXED.size, dead_zone, np.float32)
    if dead_zone is None:
        zones = np.random.default_rng(1).choice(np.array([0.0, 0.25, 0.75], np.float32), MIXED.size)
    levels = np.random.default_rng(0).integers(0, 3, MIXED.size).astype(np.uint8) if with_levels else None
    quantiser = Quantiser(residual, zones if dead_zone is None else dead_zone, levels)
    trial = quantiser.coarsest(share * quantiser.energy, start=20_000)
    assert trial is not None
    values = quantiser.values(trial)
    widths = cell_width(trial.cell_index) * (np.ones(MIXED.size) if levels is None else 2.0**levels)
    assert values.tolist() == slow_quantise(residual, widths, zones)
    back = reconstruct(*to_symbols(values), trial.offsets, trial.cell_index, levels)
    error = float(np.square(residual.astype(np.float64) - back).sum())
    np.testing.assert_allclose(trial.error, error, rtol=1e-5)
    assert 0.95 * share * quantiser.energy < error <= share * quantiser.energy
    for kind, offset in enumerate(trial.offsets, 1):
        members = (np.abs(values) == kind) if kind < 3 else (np.abs(values) >= 3)
        if members.any():
            excess = np.abs(residual[members]) / widths[members] - np.abs(values[members])
            mean = np.average(excess, weights=widths[members] ** 2)
            assert abs(mean - offset / 128) <= 0.51 / 128 or abs(offset) >= 127
    following = quantiser.trial(trial.cell_index + 1)
    assert following.error > share * quantiser.energy


@given(st.integers(0, 2**32 - 1), st.integers(-200, 200))
def test_the_search_finds_its_way_from_any_start(seed, octaves):
    """Wherever the search for the coarsest cells begins, the bound holds there and breaks at the next width."""
    generator = np.random.default_rng(seed)
    residual = generator.standard_t(2, size=300).astype(np.float32)
    quantiser = Quantiser(residual, 0.2)
    bound = quantiser.energy * 10.0 ** generator.uniform(-6, -0.1)
    trial = quantiser.coarsest(bound, int(np.clip(cell_index(1.0) + 128 * octaves, 0, NUM_WIDTHS - 1)))
    assert trial is not None
    assert trial.error <= bound < quantiser.trial(trial.cell_index + 1).error


def test_reconstruction_is_as_documented():
    """sign(q) (|q| + offset) width, with the offset of magnitude 1, 2, or more; escapes too; doubled with levels."""
    offsets = np.array([-16, 32, 64], np.int8)
    index = cell_index(0.5)
    symbols, escaped = to_symbols(np.array([0, 1, -2, 3, -100, 14], np.int32))
    expected = [0.0, 0.5 * (1 - 0.125), -0.5 * 2.25, 0.5 * 3.5, -0.5 * 100.5, 0.5 * 14.5]
    assert reconstruct(symbols, escaped, offsets, index).tolist() == expected
    levels = np.array([2, 1, 0, 2, 1, 0], np.uint8)
    doubled = [value * 2 ** int(level) for value, level in zip(expected, levels, strict=True)]
    assert reconstruct(symbols, escaped, offsets, index, levels).tolist() == doubled


def test_coarse_points_are_fine_points():
    """What a coarser level can say without centroids, every finer one can: cells are nested."""
    points = {}
    for level in (0, 1, 2):
        symbols, escaped = to_symbols(np.arange(-40, 41, dtype=np.int32))
        levels = np.full(81, level, np.uint8)
        points[level] = set(reconstruct(symbols, escaped, np.zeros(3, np.int8), 20_001, levels).tolist())
    assert {point for point in points[2] if abs(point) <= max(points[1])} <= points[1]
    assert {point for point in points[1] if abs(point) <= max(points[0])} <= points[0]


def test_an_impossible_bound_has_no_cell():
    """No width leaves an error of zero, and one that needs integers beyond 32 bits is not taken either."""
    quantiser = Quantiser(np.array([1.0, 1 / 3], np.float32), 0.2)
    assert quantiser.coarsest(0.0, 20_000) is None
    assert quantiser.coarsest(1e-40, 20_000) is None


# --- coefficients


def written(matrix: np.ndarray) -> bytes:
    bits = BitWriter()
    coefficients.write(matrix, bits)
    return bits.to_bytes()


@given(st.lists(st.integers(-32767, 32767), min_size=0, max_size=40), st.booleans())
def test_coefficients_round_trip(units, two):
    """Every 16-bit coefficient comes back, zeros included."""
    flat = np.array(units[: len(units) // 2 * 2], np.int16)
    matrix = flat.reshape(-1, 2) if two else flat.reshape(-1, 1)
    bits = BitReader(written(matrix) + b"tail")
    np.testing.assert_array_equal(coefficients.read(bits, (matrix.shape[0], matrix.shape[1])), matrix)
    assert bits.finish() == b"tail"


def test_no_coefficients_take_one_bit():
    """Coefficients that are all zero take one bit, and none at all where there is no basis."""
    for matrix, length in ((np.zeros((50, 2), np.int16), 1), (np.zeros((50, 0), np.int16), 0)):
        bits = BitWriter()
        coefficients.write(matrix, bits)
        assert len(bits) == length


def test_bad_coefficients_are_refused():
    """A cut list, a zero that claims to be present, and a number beyond 16 bits raise."""
    zero, large = BitWriter(), BitWriter()
    for bits, unit in ((zero, 0), (large, -32768)):
        bits.write(0b11, 2)
        bits.write_number(unit, coefficients.ORDER)
    bad = {
        "ends within its parameters": (b"\xff", (8, 1)),
        "coefficient of 0 units": (zero.to_bytes(), (1, 1)),
        "coefficient of -32768 units": (large.to_bytes(), (1, 1)),
    }
    for message, (data, shape) in bad.items():
        with pytest.raises(PacketError, match=message):
            coefficients.read(BitReader(data), shape)


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


# --- the body


def _context(
    offsets: tuple[int, int, int] = (0, 0, 0), state: CoderState | None = None, weighted: bool = False
) -> Context:
    coder = TensorTables(MIXED)
    coding = ScalarCoding(coder, matrices(MIXED), 0.2)
    return Context((coding,), state or fresh(coder.num_tables), np.array(offsets, np.int8), NUM_MATRICES, weighted)


def _body(values: np.ndarray, levels: np.ndarray = PLAIN, floor: int = 0) -> Body:
    symbols, escaped = to_symbols(values.astype(np.int32))
    quantised = Quantised(777, np.array([1, -128, 127], np.int8), Integers(symbols, escaped))
    return Body(levels, np.array([[1, 0], [0, -300]], np.int16), quantised, floor)


@pytest.mark.parametrize("levels", [PLAIN, np.array([0, 1, 2, 3, 0], np.uint8)])
@pytest.mark.parametrize("offsets", [(0, 0, 0), (127, -128, 5)])
@pytest.mark.parametrize("floor", [None, -126, 126])
def test_bodies_round_trip_and_their_bits_add_up(offsets, levels, floor):
    """A body comes back whole, whatever came before it, and the parts' bits sum to its length."""
    values = np.rint(np.random.default_rng(0).laplace(scale=5.0, size=MIXED.size))
    body, context = _body(values, levels, floor or 0), _context(offsets, weighted=floor is not None)
    data, bits, state = write_body(body, context)
    assert sum(bits) == 8 * len(data)
    assert bits.levels == 1 + 2 * NUM_MATRICES * bool(levels.any())
    back, state_again = read_body(data, context, (2, 2))
    np.testing.assert_array_equal(state.counts, state_again.counts)
    assert (state.cell_index, state_again.cell_index, back.quantised.cell_index) == (777, 777, 777)
    assert back.floor == (floor or 0)
    np.testing.assert_array_equal(back.levels, levels)
    np.testing.assert_array_equal(back.coefficients, body.coefficients)
    np.testing.assert_array_equal(back.quantised.offsets, body.quantised.offsets)
    for mine, theirs in zip(body.quantised.points, back.quantised.points, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_steady_quantiser_takes_twelve_bits():
    """Cell width and centroids are told apart from the last packet's: those that stay take 12 bits, not 40."""
    body = _body(np.arange(MIXED.size) % 5)
    known = fresh(3)._replace(cell_index=777, num_updates=1)
    steady = _context((1, -128, 127), known)
    assert write_body(body, steady)[1].quantiser == 6 + 3 * 3
    assert write_body(body, _context())[1].quantiser > 40


def _parameters(cell: int, offsets: tuple[int, ...] = (0, 0, 0), bits: str = "00", floor: int | None = None) -> bytes:
    writer = BitWriter()
    writer.write_number(cell - FIRST_CELL, 5)
    for offset in offsets:
        writer.write_number(offset, 2)
    if floor is not None:
        writer.write_number(floor, 5)
    for bit in bits:
        writer.write(int(bit), 1)
    return writer.to_bytes()


def test_bad_bodies_are_refused():
    """A body that ends within a part, or names a cell, a centroid or levels that cannot be, raises."""
    context = _context()
    data, _, _ = write_body(_body(np.arange(MIXED.size) % 5), context)
    bad = {
        "ends within its parameters": data[:1],
        "cell width 38400 of 38400": _parameters(38400),
        "cell width -1 of 38400": _parameters(-1),
        r"centroids at \[0, 128, 0\] of 128": _parameters(777, (0, 128, 0)),
        r"centroids at \[0, 0, -129\] of 128": _parameters(777, (0, 0, -129)),
        "levels that are all 0": _parameters(777, bits="1" + "00" * NUM_MATRICES),
        "ends with an empty byte": data + b"\0",
        "more than its symbols": data + b"\1" * 9,
    }
    for message, wrong in bad.items():
        with pytest.raises(PacketError, match=message):
            read_body(wrong, context, (2, 2))
    for floor in (-127, 127):
        with pytest.raises(PacketError, match=rf"a floor of 2\^{floor}"):
            read_body(_parameters(777, floor=floor), _context(weighted=True), (2, 2))
    assert read_body(_parameters(38399), context, (2, 2))[0].quantised.cell_index == 38399


def test_prediction_state_of_torch_and_numpy_agree():
    """The running mean is m <- b m + (1 - b) v in float32, as torch computes it without fusing."""
    encoder = Codec(MIXED, CodecConfig("momentum_projected")).encoder()
    mean = torch.zeros(MIXED.size)
    decay = torch.tensor(0.9)
    for step, row in enumerate(ar1_stream(MIXED, 5)):
        encoder.encode(row, step)
        mean = mean * decay + encoder.reconstruction * (1 - decay)
        assert torch.equal(encoder.state_dict()["momentum"], mean)


def test_many_tables_are_each_the_one():
    """`as_tables` gives each row what `as_table` gives it, whatever the weights' sizes."""
    generator = np.random.default_rng(0)
    weights = (2.0 ** generator.uniform(0, 46, (40, 1)) * generator.random((40, NUM_SYMBOLS))).astype(np.int64) + 1
    np.testing.assert_array_equal(as_tables(weights), np.stack([as_table(row) for row in weights]))

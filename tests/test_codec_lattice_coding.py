"""The lattices D4 and E8 in the codec: what a packet keeps, what both ends hold, and what a lattice saves."""

import functools
from functools import partial

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_reference import cost, nearest_by_trying
from typing_extensions import override

from deadreckon.codec import Codec, CodecConfig, CodecError, ConfigError, PacketError, StateError
from deadreckon.codec.coding import Search
from deadreckon.codec.lattice import widest
from deadreckon.codec.lattice_coding import LatticeCoding
from deadreckon.codec.lattice_contexts import LAST, NEXT_TO_LAST, Port, Reader, Tables, Writer, exchange_points, folded
from deadreckon.codec.lattice_points import nearest
from deadreckon.codec.modes import Annulus, RateDistortion
from deadreckon.codec.scale_classes import NUM_CLASSES, class_priors
from deadreckon.codec.symbol_coder import NO_VECTOR, CoderState, empty_stack, stack_from_bytes
from deadreckon.codec.symbols import MAX_DIRECT, NUM_DIRECT, NUM_SYMBOLS

NAMES = ("D4", "E8")
CODECS = (*NAMES, "auto", "T8")
WITH_LEECH = (
    *NAMES,
    "auto",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("T8", "Leech")),
)  # see their files
SIZE = {"D4": 4, "E8": 8}
SMALL = layout_from({"w": (12, 9), "b": (9,), "v": (7, 12)})


def ends(config, layout):
    codec = Codec(layout, config)
    return codec.encoder(), codec.decoder()


def send(encoder, decoder, vector, step, **options):
    """The packet of one vector, after it was decoded to what the encoder says."""
    packet = encoder.encode(vector, step, **options)
    decoded = decoder.decode(packet)
    np.testing.assert_array_equal(decoded.numpy().view(np.int32), encoder.reconstruction.numpy().view(np.int32))
    return packet


def nmse(vector, decoded):
    wide = vector.double()
    return float((wide - decoded.double()).square().sum() / wide.square().sum())


def in_lattice(name, doubled):
    """Whether all vectors are points: whole numbers, in E8 or all halves, of even sum."""
    odd = doubled & 1
    cosets = ~odd.any(axis=1) | (odd.all(axis=1) & (name == "E8"))
    return bool((cosets & (doubled.sum(axis=1) % 4 == 0)).all())


def bits_of(stream, layout, **settings):
    """Bits a coordinate of each packet."""
    encoder, decoder = ends(CodecConfig(predictor="none", **settings), layout)
    return [8 * len(send(encoder, decoder, row, step)) / layout.size for step, row in enumerate(stream)]


# --- packets


@pytest.mark.parametrize("name", WITH_LEECH)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("error", [0.5, 0.05, 1e-9])
def test_every_packet_decodes_to_the_encoders_vector_within_the_bound(name, layout, error):
    """Both ends hold the same vector and the same state after each packet, and its error is what was asked for."""
    encoder, decoder = ends(CodecConfig(lattice=name, nmse=error), layout)
    for step, row in enumerate(ar1_stream(layout, 3)):
        send(encoder, decoder, row, step, key_frame=step == 2)
        if layout.size:
            assert nmse(row, encoder.reconstruction) <= error * (1 + 1e-9)
        ours, theirs = encoder.state_dict(), decoder.state_dict()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize("name", WITH_LEECH)
def test_gradients_of_a_network_keep_the_bound_without_wasting_it(name):
    """On real gradients the error lies below the bound and within 3 % of it."""
    rows, layout = gradient_stream(3)
    encoder, decoder = ends(CodecConfig(lattice=name, nmse=0.1), layout)
    for step, row in enumerate(rows):
        send(encoder, decoder, row, step)
        assert 0.097 < nmse(row, encoder.reconstruction) <= 0.1


@pytest.mark.parametrize("name", WITH_LEECH)
def test_extreme_vectors(name):
    """Zeros, NaN, infinities, denormals, the largest floats and single spikes all arrive as the encoder says."""
    encoder, decoder = ends(CodecConfig(lattice=name, nmse=0.1), SMALL)
    generator = np.random.default_rng(0)
    plain = generator.normal(size=SMALL.size).astype(np.float32)
    rows = [np.zeros(SMALL.size, np.float32), plain, 0 * plain, plain * np.float32(1e-44), plain * np.float32(1e38)]
    for value in (np.nan, np.inf, 3.4e38, 1e-45):
        row = plain.copy()
        row[5] = value
        rows.append(row)
    spike = np.zeros(SMALL.size, np.float32)
    spike[-1] = -2.5
    rows += [spike, plain, 1e-30 * plain]
    for step, row in enumerate(rows):
        send(encoder, decoder, torch.from_numpy(row.astype(np.float32)), step)
        if np.isfinite(row).all() and row.any():
            assert nmse(torch.from_numpy(row), encoder.reconstruction) <= 0.1


@settings(max_examples=20)
@given(
    st.sampled_from(CODECS),
    st.lists(st.floats(width=32, allow_nan=True), min_size=1, max_size=30),
    st.sampled_from([0.6, 0.05, 1e-6]),
)
def test_any_vector_round_trips(name, values, error):
    """Whatever float32 vectors come, two packets of them decode to what the encoder says."""
    encoder, decoder = ends(CodecConfig(lattice=name, nmse=error), layout_from({"a": (len(values),), "b": ()}))
    for step in range(2):
        send(encoder, decoder, torch.tensor([*values, 0.5]), step)


@pytest.mark.parametrize("name", WITH_LEECH)
@pytest.mark.parametrize(
    "modes", [Annulus(0.0, 2.0, adaptive=False, level=2), RateDistortion()], ids=lambda modes: modes.name
)
def test_levels_keep_the_bound(name, modes):
    """Tensors with wider cells or no vector arrive as the encoder says, within the bound."""
    layout = LAYOUTS["large, small, empty and 0-d tensors"]
    rows = ar1_stream(layout, 3)
    encoder, decoder = ends(CodecConfig(lattice=name, nmse=0.2, modes=modes), layout)
    level_bits = []
    for step, row in enumerate(rows):
        send(encoder, decoder, row, step)
        assert nmse(row, encoder.reconstruction) <= 0.2
        assert encoder.last_report.raw_bits == 0
        level_bits.append(encoder.last_report.level_bits)
    assert max(level_bits) > 1


@pytest.mark.parametrize("name", WITH_LEECH)
def test_a_mean_rate_is_held(name):
    """With given cells, without a search, the mean over packets follows the bits asked for."""
    layout = LAYOUTS["one tensor"]
    rows = ar1_stream(layout, 24, correlation=0.0)
    encoder, decoder = ends(CodecConfig(lattice=name, predictor="none", hold="mean_rate", bits=1.5), layout)
    bits = [8 * len(send(encoder, decoder, row, step)) / layout.size for step, row in enumerate(rows)]
    assert abs(np.mean(bits[8:]) - 1.5) < 0.05


@pytest.mark.parametrize("name", WITH_LEECH)
def test_abort_takes_a_packet_back(name):
    """After `abort` the next packet is byte for byte what it would have been without the lost one."""
    layout = LAYOUTS["large, small, empty and 0-d tensors"]
    rows = ar1_stream(layout, 5)
    straight, _ = ends(CodecConfig(lattice=name), layout)
    broken, _ = ends(CodecConfig(lattice=name), layout)
    for step, row in enumerate(rows):
        broken.encode(rows[0] - 2 * row, step, key_frame=step == 3)
        broken.abort()
        assert broken.encode(row, step) == straight.encode(row, step)


@pytest.mark.parametrize("name", WITH_LEECH)
def test_saved_and_loaded_equals_uninterrupted(name):
    """Both ends go on from a checkpoint with the same packets and vectors; one of another lattice is refused."""
    layout = LAYOUTS["large, small, empty and 0-d tensors"]
    rows = ar1_stream(layout, 5)
    encoder, decoder = ends(CodecConfig(lattice=name), layout)
    for step, row in enumerate(rows[:3]):
        send(encoder, decoder, row, step)
    again, peer = ends(CodecConfig(lattice=name), layout)
    again.load_state_dict(encoder.state_dict())
    peer.load_state_dict(decoder.state_dict())
    for step, row in enumerate(rows[3:], start=3):
        assert send(again, peer, row, step) == send(encoder, decoder, row, step)
    for lattice in {"Z", *CODECS} - {name}:
        other, _ = ends(CodecConfig(lattice=lattice), layout)
        with pytest.raises(StateError, match="another codec"):
            other.load_state_dict(encoder.state_dict())


@pytest.mark.parametrize("name", ["Leech", *(name for name in CODECS if name != "auto")])
def test_one_table_per_tensor_is_refused(name):
    """Only `scale_classes` has tables for vectors."""
    with pytest.raises(ConfigError, match="scale_classes"):
        CodecConfig(lattice=name, entropy="tensor_tables")


# --- coding


def fresh(coding, layout):
    return CoderState(np.zeros((coding.num_tables, NUM_SYMBOLS), np.int64), np.zeros(layout.size, np.int32), 0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_any_words_give_points_or_a_codec_error(name):
    """Random words become points of the lattice, or a `CodecError`, never anything else."""
    layout = LAYOUTS["large, small, empty and 0-d tensors"]
    coding = LatticeCoding(layout, name, None)
    generator = np.random.default_rng(0)
    levels = np.array([0, 1, 0, NO_VECTOR, 0], np.uint8)
    read = 0
    for seed in range(12):
        state = fresh(coding, layout)
        if seed % 2:  # large expected magnitudes: many escapes
            state = state._replace(activity=np.full(layout.size, 2**26, np.int32), num_updates=3)
        data = generator.integers(1, 256, generator.integers(0, 4000), dtype=np.uint8).tobytes()
        try:
            points, _ = coding.pop(stack_from_bytes(data), state, 100, levels)
        except CodecError:
            continue
        read += 1
        assert in_lattice(name, points)
        assert points.any()
    assert read


class Saying(Port):
    """A port that reads the same number everywhere, but another coset."""

    def __init__(self, name, coset, digit):
        counts = np.zeros((LatticeCoding(SMALL, name, None).num_tables, NUM_SYMBOLS), np.int64)
        super().__init__(Tables(counts, partial(folded, size=SIZE[name])))
        self.answers = [coset] if name == "E8" else []
        self.digit = digit

    @override
    def exchange(self, which, values):
        return np.full(len(values), self.answers.pop() if self.answers else self.digit)


@pytest.mark.parametrize("name", NAMES)
def test_what_no_encoder_writes_is_refused(name):
    """A coordinate that int32 cannot hold and a third coset are errors; the largest coordinate is none."""
    points = np.zeros((3, SIZE[name]), np.int32)
    classes, of_vectors = np.zeros(points.shape, np.int64), np.zeros(3, np.int64)
    for digit in (2**30, -(2**30), 2**31 + MAX_DIRECT):
        with pytest.raises(PacketError, match="beyond 1073741823 steps"):
            exchange_points(Saying(name, 0, digit), points, classes, of_vectors)
    read = exchange_points(Saying(name, 1, 2**29 - 1), points, classes, of_vectors)
    assert np.abs(read[:, :-1] >> 1).min() >= 2**29 - 1
    if name == "E8":
        with pytest.raises(PacketError, match="cosets 0 and 1, got 2"):
            exchange_points(Saying(name, 2, 0), points, classes, of_vectors)


@pytest.mark.parametrize("name", NAMES)
def test_escapes_of_any_size_round_trip(name):
    """Points with coordinates up to the largest are read as written, whatever class was expected."""
    generator = np.random.default_rng(1)
    size = SIZE[name]
    scales = 2.0 ** generator.uniform(-3, 29, (400, 1))
    points = nearest(name, generator.uniform(-1, 1, (400, size)) * scales)
    classes = generator.integers(0, NUM_CLASSES, points.shape)
    of_vectors = generator.integers(0, NUM_CLASSES, len(points))
    counts = np.zeros((LatticeCoding(SMALL, name, None).num_tables, NUM_SYMBOLS), np.int64)
    writer = Writer(Tables(counts, partial(folded, size=size)))
    np.testing.assert_array_equal(exchange_points(writer, points, classes, of_vectors), points)
    stack = empty_stack()
    writer.flush(stack)
    reader = Reader(Tables(counts, partial(folded, size=size)), stack)
    np.testing.assert_array_equal(exchange_points(reader, np.zeros_like(points), classes, of_vectors), points)
    np.testing.assert_array_equal(reader.tables.seen(), writer.tables.seen())
    assert stack.is_empty()


@pytest.mark.parametrize("name", NAMES)
def test_tensors_without_a_vector_take_no_symbols(name):
    """A tensor at `NO_VECTOR` adds nothing to the stack, decodes to zeros and keeps its activity."""
    both, alone = layout_from({"w": (40, 30), "v": (40, 30)}), layout_from({"w": (40, 30)})
    values = np.random.default_rng(2).normal(size=1200).astype(np.float32)
    lengths = []
    for layout, levels in ((both, np.array([0, NO_VECTOR], np.uint8)), (alone, np.zeros(1, np.uint8))):
        coding = LatticeCoding(layout, name, None)
        residual = np.zeros(layout.size, np.float32)
        residual[:1200] = values
        state = fresh(coding, layout)._replace(num_updates=2, activity=np.full(layout.size, 5000, np.int32))
        energy = float(residual.astype(np.float64) @ residual)
        quantised = coding.quantise(Search(residual, energy, 0.1 * energy, 20000, False, levels, state))
        assert quantised is not None
        stack = empty_stack()
        after = coding.push(stack, quantised.points, state._replace(cell_index=20000), 20000, levels)
        lengths.append(stack.num_bits())
        points, _ = coding.pop(stack, state._replace(cell_index=20000), 20000, levels)
        decoded = coding.reconstruct(points, quantised.offsets, quantised.cell_index, levels)
        assert not decoded[1200:].any()
        assert (after.activity[1200:] == 5000).all()
        assert not (after.activity[:1200] == 5000).all()
    assert lengths[0] == pytest.approx(lengths[1], rel=0.01)


def test_a_census_folded_is_bayes_rule():
    """The digit before the last and the last one's half follow from independent digits whose sum is even."""
    values = np.arange(-MAX_DIRECT, MAX_DIRECT + 1)
    census = class_priors()[18:19]
    single = census[0, :NUM_DIRECT] / census[0, :NUM_DIRECT].sum()
    contexts = folded(census, 4)[0].astype(float)
    for odd in (0, 1):
        last = np.array([single[(values + value + odd) % 2 == 0].sum() for value in values])
        table = contexts[NEXT_TO_LAST + 3 * odd, :NUM_DIRECT]
        np.testing.assert_allclose(table / table.sum(), single * last / (single * last).sum(), atol=1e-3)
        half = contexts[LAST + 3 * odd]
        inside = np.abs(2 * values + odd) <= MAX_DIRECT
        expected = single[2 * values[inside] + odd + MAX_DIRECT]
        np.testing.assert_allclose(half[:NUM_DIRECT][inside] / census[0, :NUM_DIRECT].sum(), expected, atol=1e-9)


@settings(max_examples=20)
@given(st.sampled_from(NAMES), st.lists(st.floats(-4, 4), min_size=8, max_size=8), st.integers(0, 1000))
def test_a_bias_of_its_own_for_each_coordinate(name, values, seed):
    """No point around a vector costs less than the one found where every coordinate is pulled differently."""
    vector = np.array(values[: SIZE[name]])
    bias = np.random.default_rng(seed).uniform(0, 0.5, SIZE[name])
    found = nearest(name, vector[None], bias[None])[0]
    best = nearest_by_trying(name, vector, bias[:, None])
    np.testing.assert_allclose(cost(vector, found, bias), cost(vector, best, bias), rtol=0, atol=1e-12)


@given(st.integers(0, 400), st.integers(-50, 450), st.sampled_from([0.5, 2.0]))
def test_the_widest_cells_are_found_from_any_start(wanted, start, slope):
    """The bound is kept at the index found and broken at the next; none is found where the finest breaks it."""

    def error_at(index):
        return 2.0 ** (slope * index / 128)

    assert widest(error_at, error_at(wanted), start, 0, 400) == wanted
    assert widest(error_at, error_at(-1), start, 0, 400) is None


# --- what it saves


@functools.cache
def gaussian(lattice):
    layout = layout_from({"w": (256, 256)})
    generator = np.random.default_rng(3)
    rows = [torch.from_numpy(generator.normal(size=layout.size).astype(np.float32)) for _ in range(3)]
    return np.mean(bits_of(rows, layout, lattice=lattice, nmse=0.08)[1:])


def test_lattices_save_what_their_shape_promises():
    """On Gaussian coordinates at about two bits E8 saves at least 0.08 bit against Z, and D4 half of that."""
    assert 1.9 < gaussian("Z") < 2.2
    assert gaussian("E8") < gaussian("Z") - 0.08
    assert gaussian("D4") < gaussian("Z") - 0.04


def test_neighbours_of_like_signs_are_cheaper():
    """Signs that follow their neighbours save at least an eighth of the bits of the same magnitudes' random signs."""
    layout = layout_from({"w": (128, 256)})
    generator = np.random.default_rng(4)
    magnitude = np.abs(generator.normal(size=(3, layout.size)))
    alike = np.repeat(generator.choice([-1, 1], (3, layout.size // 16)), 16, axis=1)
    random = generator.choice([-1, 1], (3, layout.size))
    bits = [
        np.mean(bits_of(torch.from_numpy((magnitude * signs).astype(np.float32)), layout, lattice="E8", nmse=0.1)[1:])
        for signs in (alike, random)
    ]
    assert bits[0] < 7 / 8 * bits[1]

"""The Leech lattice in the codec: its order, biased search, tables, what it refuses and what it saves."""

from functools import cache

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from
from reference_decoder import GOLAY_LINES
from typing_extensions import override

from deadreckon.codec import Codec, CodecConfig, CodecError, EncodeError, PacketError
from deadreckon.codec.lattice import cell_index
from deadreckon.codec.lattice_contexts import LARGEST_DIGIT, Port, Reader, Tables, Writer
from deadreckon.codec.lattice_leech import golay_words, nearest
from deadreckon.codec.lattice_leech_coding import LeechCoding, nearest_points
from deadreckon.codec.lattice_leech_contexts import (
    COSET,
    HALF,
    LAST,
    NUM_CONTEXTS,
    checks,
    exchange_words,
    folded_to_words,
    systematic,
)
from deadreckon.codec.scale_classes import NUM_CLASSES, class_priors
from deadreckon.codec.symbol_coder import NO_VECTOR, CoderState, empty_stack, stack_from_bytes
from deadreckon.codec.symbols import MAX_DIRECT, NUM_DIRECT, NUM_SYMBOLS
from deadreckon.codec.tables import TOTAL

NO_COUNTS = np.zeros((NUM_CLASSES * (1 + NUM_CONTEXTS), NUM_SYMBOLS), np.int64)


@cache
def words():
    """The words of the code as packets have them, from the format's table and not from the library's."""
    lines = np.array([[int(digit) for digit in line] for line in GOLAY_LINES])
    first = np.array([[place >> bit & 1 for bit in range(12)] for place in range(4096)])
    return np.concatenate([first, first @ lines % 2], axis=1)


def are_points(doubled):
    """Whether all vectors are points in the order of packets, by the definition."""
    known = {row.tobytes() for row in words().astype(np.uint8)}
    m = doubled & 1
    digits = doubled >> 1
    spelled = all(row.tobytes() in known for row in (digits & 1).astype(np.uint8))
    return spelled and bool((m == m[:, :1]).all() and ((digits >> 1).sum(axis=1) % 2 == m[:, 0]).all())


def least_costs(vectors, bias):
    """The least |v - x|^2 + 2 bias |x|_1 of any point: all words, and of each residue every integer around v and 0."""
    least = np.full(len(vectors), np.inf)
    tried = np.arange(-24, 25)
    costs = np.square(vectors[..., None] - tried) + 2 * bias[..., None] * np.abs(tried)
    for m in (0, 1):
        both = np.array(
            [[np.where((tried - m - 2 * c - 4 * z) % 8 == 0, costs, np.inf).min(-1) for z in (0, 1)] for c in (0, 1)]
        )
        better, turn = both.min(axis=1), np.abs(both[:, 0] - both[:, 1])
        parity = both[:, 1] < both[:, 0]
        for word in golay_words():
            bit = word.astype(bool)
            wrong = np.where(bit, parity[1], parity[0]).sum(axis=1) % 2 != m
            cost = np.where(bit, better[1], better[0]).sum(axis=1)
            least = np.minimum(least, cost + wrong * np.where(bit, turn[1], turn[0]).min(axis=1))
    return least


def cheapest_are_cheapest(number, seed):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(number, 24)) * generator.choice([0.7, 2.0, 4.0], (number, 1))
    bias = generator.uniform(0, 1, (number, 24)) * generator.choice([0.0, 0.3, 1.0, 8.0], (number, 1))
    points = nearest(vectors, bias)
    costs = (np.square(vectors - points) + 2 * bias * np.abs(points)).sum(axis=1)
    np.testing.assert_allclose(costs, least_costs(vectors, bias), rtol=0, atol=1e-9)


def test_the_order_is_that_of_the_format():
    """The first twelve bits of a word are any and say the others by the page's lines; coordinates change places."""
    assert sorted(systematic()) == list(range(24))
    assert ["".join(map(str, row)) for row in checks()] == GOLAY_LINES
    ours = golay_words()[:, systematic()]
    assert {row.tobytes() for row in ours} == {row.tobytes() for row in words().astype(np.uint8)}


def test_biased_points_are_the_cheapest():
    """With a pull towards zero of its own for each coordinate no point costs less, by trying all 8192 cosets."""
    cheapest_are_cheapest(24, 0)


@pytest.mark.slow
def test_biased_points_are_the_cheapest_at_length():
    """The same for five hundred vectors."""
    cheapest_are_cheapest(500, 1)


def test_points_are_in_the_order_of_packets():
    """What the quantiser finds are points by the page's lines, near zero and far away; too large ones are refused."""
    generator = np.random.default_rng(2)
    for scale in (0.6, 5.0, 2.0**27):
        points = nearest_points(generator.uniform(-scale, scale, (60, 24)), np.full((60, 24), 0.1))
        assert are_points(points)
        assert len({row.tobytes() for row in points & 1}) == 2 or scale < 1
    with pytest.raises(EncodeError, match="must be at most"):
        nearest_points(np.full((1, 24), 2.0**30), np.zeros((1, 24)))


def test_cells_are_as_large_as_those_of_z():
    """At one cell index the error of fine cells is the literature's second moment, 0.0658 squared widths."""
    coding = LeechCoding(layout_from({"w": (24 * 2000,)}), 0.0)
    values = np.random.default_rng(3).uniform(-50, 50, (2000, 24)).astype(np.float32)
    points = nearest_points(values / np.float32(181 / 256), np.zeros((2000, 24), np.float32))
    decoded = coding.reconstruct(points, np.zeros(6, np.int8), cell_index(1.0), np.zeros(1, np.uint8))
    np.testing.assert_allclose(np.square(decoded - values.reshape(-1)).mean(), 0.065771, rtol=0.015)


def test_the_census_gives_weights_for_all_contexts():
    """Weights are at least 0 and not all 0; m shares the total; halves and quarters are those of the digits."""
    census = class_priors()
    weights = folded_to_words(census)
    assert weights.shape == (NUM_CLASSES, NUM_CONTEXTS, NUM_SYMBOLS)
    assert (weights >= 0).all()
    assert (weights.sum(axis=2) > 0).all()
    odd = weights[:, COSET, MAX_DIRECT + 1] / TOTAL
    assert (weights[:, COSET].sum(axis=1) == TOTAL).all()
    assert (np.diff(odd) >= 0).all()
    assert odd[0] < 0.01 < odd[-1] == 0.5
    assert weights[20, HALF + 3, MAX_DIRECT - 1] == census[20, MAX_DIRECT - 1]  # digit -1 is 2 (-1) + 1
    for residue, digit in ((0, 4), (1, 5), (2, 6), (3, 7)):
        assert weights[20, LAST + residue, MAX_DIRECT + 1] == census[20, MAX_DIRECT + digit]
    is_odd = np.arange(-MAX_DIRECT, MAX_DIRECT + 1) % 2 == 1
    zeros = weights[:, :6, :NUM_DIRECT]
    shares = zeros[..., is_odd].sum(axis=2) / zeros.sum(axis=2)
    assert (shares[:, 0] >= shares[:, 1]).all()
    assert (shares[:, 4] > 0.37).all()


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0**20])
def test_points_round_trip(spread):
    """Points of any size are read as written, whatever class was expected, and both ends count the same."""
    generator = np.random.default_rng(4)
    points = nearest_points(generator.normal(size=(300, 24)) * spread, np.zeros((300, 24)))
    classes = generator.integers(0, NUM_CLASSES, points.shape)
    writer = Writer(Tables(NO_COUNTS, folded_to_words))
    np.testing.assert_array_equal(exchange_words(writer, points, classes, classes[:, 0]), points)
    stack = empty_stack()
    writer.flush(stack)
    reader = Reader(Tables(NO_COUNTS, folded_to_words), stack)
    np.testing.assert_array_equal(exchange_words(reader, np.zeros_like(points), classes, classes[:, 0]), points)
    np.testing.assert_array_equal(reader.tables.seen(), writer.tables.seen())
    assert stack.is_empty()


class Saying(Port):
    """Reads given values in turn, then the last one for ever."""

    def __init__(self, *values):
        super().__init__(Tables(NO_COUNTS, folded_to_words))
        self.values = list(values)

    @override
    def exchange(self, which, values):
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        return np.full(len(which), value) if np.isscalar(value) else value


def test_what_no_encoder_writes_is_refused():
    """A third m, and a coordinate that int32 cannot hold, raise."""
    points, classes = np.zeros((3, 24), np.int32), np.full((3, 24), 10)
    for m in (2, -1):
        with pytest.raises(PacketError, match=f"cosets 0 and 1, got {m}"):
            exchange_words(Saying(m), points, classes, classes[:, 0])
    for digit in (LARGEST_DIGIT + 1, -LARGEST_DIGIT - 1):
        with pytest.raises(PacketError, match="beyond 1073741823 steps"):
            exchange_words(Saying(0, digit), points, classes, classes[:, 0])


def test_whatever_is_read_is_a_point():
    """Any integers at any place make points of the lattice: no symbol is spent on others."""
    generator = np.random.default_rng(5)
    classes = generator.integers(0, NUM_CLASSES, (40, 24))
    said = [generator.integers(0, 2, 40), *generator.integers(-9, 10, (24, 40))]
    assert are_points(exchange_words(Saying(*said), np.zeros((40, 24), np.int32), classes, classes[:, 0]))


def test_any_words_give_points_or_a_codec_error():
    """Random bytes become points of the lattice, or a `CodecError`, never anything else."""
    layout = LAYOUTS["large, small, empty and 0-d tensors"]
    coding = LeechCoding(layout, None)
    generator = np.random.default_rng(6)
    state = CoderState(NO_COUNTS, np.full(layout.size, 2**14, np.int32), 3, 0)
    read = 0
    for _ in range(4):
        data = generator.integers(1, 256, generator.integers(0, 3000), dtype=np.uint8).tobytes()
        try:
            points, _ = coding.pop(stack_from_bytes(data), state, 100, np.array([0, 1, 0, NO_VECTOR, 0], np.uint8))
        except CodecError:
            continue
        read += 1
        assert are_points(points)
        assert points.any()
    assert read


@pytest.mark.slow
def test_gradients_keep_the_bound():
    """Both ends hold the same vector, within the error asked for and near it."""
    rows, layout = gradient_stream(2)
    codec = Codec(layout, CodecConfig(lattice="Leech", nmse=0.1))
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, row in enumerate(rows):
        assert torch.equal(decoder.decode(encoder.encode(row, step)), encoder.reconstruction)
        assert 0.095 < encoder.last_report.nmse <= 0.1


def test_levels_and_tensors_without_a_vector_arrive():
    """Of a layout with small, empty and 0-d tensors all packets decode to what the encoder says."""
    layout = LAYOUTS["large, small, empty and 0-d tensors"]
    codec = Codec(layout, CodecConfig("none", "Leech", nmse=1e-3))
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, row in enumerate(ar1_stream(layout, 2)):
        assert torch.equal(decoder.decode(encoder.encode(row, step)), encoder.reconstruction)
        assert encoder.last_report.nmse <= 1e-3


@pytest.mark.slow
def test_it_saves_what_its_cells_do():
    """Of Gaussian coordinates Leech takes at least 0.04 bit less than E8 at two bits, and no more at half a bit."""
    layout = layout_from({"w": (256, 512)})
    saved = []
    for nmse in (0.0625, 0.5):
        bits = []
        for lattice in ("E8", "Leech"):
            generator = np.random.default_rng(0)
            encoder = Codec(layout, CodecConfig("none", lattice, nmse=nmse)).encoder()
            rows = torch.from_numpy(generator.normal(size=(4, layout.size)).astype(np.float32))
            sizes = [len(encoder.encode(row, step)) for step, row in enumerate(rows)]
            bits.append(8 * sizes[-1] / layout.size)
        saved.append(bits[0] - bits[1])
    assert saved[0] > 0.04
    assert saved[1] > 0.01


def test_the_word_of_zeros_is_nearly_free():
    """Vectors of zeros, once seen, take less than a hundredth of a bit a coordinate, though each tells its word."""
    classes = np.zeros((400, 24), np.int64)
    points = np.zeros((400, 24), np.int32)
    writer = Writer(Tables(NO_COUNTS, folded_to_words))
    exchange_words(writer, points, classes, classes[:, 0])
    counts = NO_COUNTS + writer.tables.seen()
    again = Writer(Tables(counts, folded_to_words))
    exchange_words(again, points, classes, classes[:, 0])
    stack = empty_stack()
    again.flush(stack)
    assert stack.num_bits() < 0.01 * points.size

"""Trellis-coded quantisation: paths of least cost, what the coder makes of them, and how near the bound they come."""

from itertools import product

import numpy as np
import pytest
import torch
from codec_streams import layout_from
from typing_extensions import override

from deadreckon.codec import Codec, CodecConfig, CodecError, ConfigError, PacketError
from deadreckon.codec.coding import Search
from deadreckon.codec.lattice_contexts import Port, Reader, Tables, Writer
from deadreckon.codec.scale_classes import NUM_CLASSES
from deadreckon.codec.symbol_coder import NO_VECTOR, CoderState, empty_stack, stack_from_bytes
from deadreckon.codec.symbols import MAX_DIRECT, NUM_SYMBOLS
from deadreckon.codec.trellis import ODD as ODD_STATE
from deadreckon.codec.trellis import best_path, make_trellis, trellis_names
from deadreckon.codec.trellis_coding import TrellisCoding, branches
from deadreckon.codec.trellis_contexts import DIMENSION, NUM_CONTEXTS, Part, Paths, folded_to_quantisers, num_paths

ODD = layout_from({"w": (30, 13), "e": (0,), "s": (), "v": (5, 7)})


def on_paths(trellis, doubled):
    """Whether rows of doubled values keep to the quantisers that their own parities lead to."""
    for row in doubled:
        state = 0
        for value in row:
            if value and value % 2 != state % 2:
                return False
            state = trellis.next[state, (abs(value) + 1) // 2 % 2]
    return True


@pytest.mark.parametrize("name", trellis_names())
def test_every_state_has_two_ways_in_and_zeros_lead_home(name):
    """Transitions and their inverses agree, and from every state zeros lead back to state 0, which they never leave."""
    trellis = make_trellis(name)
    for state, (before, parities) in enumerate(zip(trellis.before, trellis.parities, strict=True)):
        assert [trellis.next[b, p] for b, p in zip(before, parities, strict=True)] == [state, state]
    assert trellis.next[0, 0] == 0
    assert len({tuple(way) for way in np.stack([trellis.before, trellis.parities], -1).reshape(-1, 2).tolist()}) == (
        2 * len(trellis.next)
    )


def test_two_paths_that_part_stay_apart():
    """The squared distance of any two paths that part and meet again is at least that of Ungerboeck's codes: 10, 14."""
    for name, least in (("T8", 10), ("T64", 14)):
        trellis = make_trellis(name)
        # Values modulo 4 of the subset that a way is labelled with; the distance of subsets is that of their nearest.
        label = {(state, parity): state % 2 + 2 * parity for state in range(len(trellis.next)) for parity in (0, 1)}
        near = {difference: min(difference % 4, -difference % 4) ** 2 for difference in range(-3, 4)}
        together, best = {(s, s): 0 for s in range(len(trellis.next))}, np.inf
        apart = {}
        for state, _ in together:
            pair = (int(trellis.next[state, 0]), int(trellis.next[state, 1]))
            apart[pair] = near[label[state, 0] - label[state, 1]]
        for _ in range(40):
            further = {}
            for (one, other), distance in apart.items():
                for p, q in product((0, 1), repeat=2):
                    pair = int(trellis.next[one, p]), int(trellis.next[other, q])
                    total = distance + near[label[one, p] - label[other, q]]
                    if pair[0] == pair[1]:
                        best = min(best, total)
                    elif total < further.get(pair, np.inf):
                        further[pair] = total
            apart = further
        assert best == least, name


@pytest.mark.parametrize("name", trellis_names())
def test_the_best_path_is_the_best_of_all(name):
    """Viterbi's path costs exactly as much as the cheapest of all paths, each tried, for paths of unequal length."""
    trellis = make_trellis(name)
    generator = np.random.default_rng(0)
    widths = [3, 3, 2, 3, 1, 3, 3, 3, 2]
    costs = generator.integers(0, 1000, (6, sum(widths))).astype(np.float32)
    found = best_path(trellis, costs, widths)
    for path in range(3):
        steps, start = [], 0
        for width in widths:
            if path < width:
                steps.append(start + path)
            start += width
        least = np.inf
        for parities in product((0, 1), repeat=len(steps)):
            state, total = 0, 0.0
            for step, parity in zip(steps, parities, strict=True):
                total += costs[2 * trellis.kinds[state] + parity, step]
                state = trellis.next[state, parity]
            least = min(least, total)
        state = 0
        for step in steps:
            assert found[step] // 2 == trellis.kinds[state]
            state = trellis.next[state, found[step] % 2]
        assert costs[found[steps], steps].sum() == least


def test_the_best_path_of_nothing():
    """No coordinates have no path."""
    assert len(best_path(make_trellis("T8"), np.zeros((6, 0), np.float32), [])) == 0


def test_branches_take_the_cheapest_value_of_each_quantiser_and_parity():
    """Without a price of bits each branch is the nearest value of its parity; with one, none tried is cheaper."""
    generator = np.random.default_rng(1)
    scaled = generator.normal(size=500) * 3
    classes = generator.integers(0, NUM_CLASSES, 500).astype(np.uint8)
    free = np.zeros((3 * NUM_CLASSES, MAX_DIRECT + 2), np.float32)
    linear = np.array([[0.1], [0.2], [0.3]], np.float32) * np.arange(MAX_DIRECT + 2, dtype=np.float32)
    for bits in (free, np.tile(linear, (NUM_CLASSES, 1))):
        found = branches(scaled, classes, bits)
        for branch in range(6):
            kind, parity = divmod(branch, 2)
            tried = np.arange(parity, 40, 2)
            values = np.where(tried > 0, tried - (kind == ODD_STATE) / 2, 0)
            prices = (np.abs(scaled)[:, None] - values) ** 2 + bits[kind][np.minimum(tried, MAX_DIRECT + 1)]
            np.testing.assert_allclose(found.costs[branch], prices.min(axis=1), rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(found.magnitudes[branch], tried[prices.argmin(axis=1)])


def test_an_unknown_trellis_is_refused():
    """Only trellises that the format names exist."""
    with pytest.raises(ConfigError, match="must be one of"):
        make_trellis("T9")


# --- coding


def fresh(coding, layout):
    return CoderState(np.zeros((coding.num_tables, NUM_SYMBOLS), np.int64), np.zeros(layout.size, np.int32), 0, 0)


@pytest.mark.parametrize("name", trellis_names())
@pytest.mark.parametrize("dead_zone", [None, 0.2])
def test_quantised_vectors_lie_on_paths_and_are_read_as_written(name, dead_zone):
    """What the quantiser finds is what the coder reads back, tensors of odd sizes and without a vector included."""
    coding = TrellisCoding(ODD, name, dead_zone)
    residual = np.random.default_rng(3).normal(size=ODD.size).astype(np.float32)
    residual[-35:] = 0
    energy = float(residual.astype(np.float64) @ residual)
    for levels in (np.zeros(3, np.uint8), np.array([1, 0, NO_VECTOR], np.uint8)):
        state = fresh(coding, ODD)
        quantised = coding.quantise(Search(residual, energy, 0.1 * energy, 20000, False, levels, state))
        assert quantised is not None
        stack = empty_stack()
        coding.push(stack, quantised.points, state, quantised.cell_index, levels)
        points, _ = coding.pop(stack, state, quantised.cell_index, levels)
        assert stack.is_empty()
        np.testing.assert_array_equal(points, quantised.points)
        decoded = coding.reconstruct(points, quantised.offsets, quantised.cell_index, levels)
        assert float(np.square(residual - decoded, dtype=np.float64).sum()) <= 0.1 * energy * (1 + 1e-6)


def test_values_lie_in_the_quantisers_of_their_states():
    """Along each path every value is in the quantiser that the parities before it lead to."""
    layout = layout_from({"w": (3, 8)})  # one path of three vectors
    coding = TrellisCoding(layout, "T8", None)
    residual = (np.random.default_rng(4).normal(size=24) * 5).astype(np.float32)
    search = Search(residual, 1.0, 1.0, 19200 + 128 * 10, True, np.zeros(1, np.uint8), fresh(coding, layout))
    quantised = coding.quantise(search)
    assert quantised is not None
    order = coding.schedule(search).slots
    row = quantised.points.reshape(-1)[order]
    assert on_paths(make_trellis("T8"), [row])
    assert (row % 2 != 0).any()


def test_any_words_give_values_or_a_codec_error():
    """Random words become values of the quantisers, or a `CodecError`, never anything else."""
    coding = TrellisCoding(ODD, "T8", None)
    generator = np.random.default_rng(0)
    levels = np.array([0, 1, NO_VECTOR], np.uint8)
    read = 0
    for seed in range(12):
        state = fresh(coding, ODD)
        if seed % 2:  # large expected magnitudes: many escapes
            state = state._replace(activity=np.full(ODD.size, 2**26, np.int32), num_updates=3)
        data = generator.integers(1, 256, generator.integers(0, 2000), dtype=np.uint8).tobytes()
        try:
            points, _ = coding.pop(stack_from_bytes(data), state, 100, levels)
        except CodecError:
            continue
        read += 1
        assert points.any()
        assert not points[-5:].any()  # of the tensor without a vector
    assert read


class Saying(Port):
    """A port that reads the same number everywhere."""

    def __init__(self, digit):
        counts = np.zeros((NUM_CLASSES * (1 + NUM_CONTEXTS), NUM_SYMBOLS), np.int64)
        super().__init__(Tables(counts, folded_to_quantisers))
        self.digit = digit

    @override
    def exchange(self, which, values):
        return np.full(len(values), self.digit)


def test_a_coordinate_that_int32_cannot_hold_is_refused():
    """Magnitudes of 2^30 and more are errors; the largest below is none."""
    points = np.zeros((3, DIMENSION), np.int32)
    part = Part(points, np.zeros(points.shape, np.int64), np.full(3, DIMENSION))
    for digit in (2**30, -(2**30), 2**31 + MAX_DIRECT):
        with pytest.raises(PacketError, match="beyond 1073741823 steps"):
            Paths(make_trellis("T8"), 3).exchange(Saying(digit), part)
    read = Paths(make_trellis("T8"), 3).exchange(Saying(2**30 - 1), part)
    assert np.abs(read).min() >= 2**31 - 3


def test_escapes_of_any_size_round_trip():
    """Values up to the largest are read as written, whatever class was expected, over many paths and rounds."""
    generator = np.random.default_rng(1)
    number = 100
    counts = np.zeros((NUM_CLASSES * (1 + NUM_CONTEXTS), NUM_SYMBOLS), np.int64)
    magnitudes = (2.0 ** generator.uniform(-2, 29.9, (number, DIMENSION))).astype(np.int64)
    digits = magnitudes * generator.choice([-1, 1], magnitudes.shape)
    trellis = make_trellis("T64")
    paths = num_paths(number)
    states, points = np.zeros(paths, np.int64), np.zeros((number, DIMENSION), np.int32)
    for first in range(0, number, paths):
        some = slice(first, min(first + paths, number))
        own = states[: some.stop - some.start]
        for place in range(DIMENSION):
            k = digits[some, place]
            points[some, place] = 2 * k - np.sign(k) * (own & 1)
            own[:] = trellis.next[own, k & 1]
    part = Part(points, generator.integers(0, NUM_CLASSES, points.shape), np.full(number, DIMENSION))
    writer = Writer(Tables(counts, folded_to_quantisers))
    np.testing.assert_array_equal(Paths(trellis, number).exchange(writer, part), points)
    stack = empty_stack()
    writer.flush(stack)
    reader = Reader(Tables(counts, folded_to_quantisers), stack)
    unread = part._replace(points=np.zeros_like(points))
    np.testing.assert_array_equal(Paths(trellis, number).exchange(reader, unread), points)
    assert stack.is_empty()


# --- what it saves


def late_gap(lattice, nmse, size, packets=3):
    """Bits a coordinate above the bound of Gaussian coordinates, in the last of some packets."""
    generator = np.random.default_rng(5)
    layout = layout_from({"w": (size // 256, 256)})
    codec = Codec(layout, CodecConfig(predictor="none", lattice=lattice, nmse=nmse))
    encoder = codec.encoder()
    packet = b""
    for step in range(packets):
        packet = encoder.encode(torch.from_numpy(generator.standard_normal(layout.size).astype(np.float32)), step)
    return 8 * len(packet) / layout.size - 0.5 * np.log2(1 / encoder.last_report.nmse)


def test_trellises_come_closer_to_the_bound_than_lattices():
    """On Gaussian coordinates at two bits T8 beats E8, which beats Z, each by what theory says within 0.02 bit."""
    gaps = {name: late_gap(name, 0.05, 2**15) for name in ("Z", "E8", "T8")}
    assert gaps["Z"] - gaps["E8"] == pytest.approx(0.109, abs=0.02)
    assert gaps["E8"] - gaps["T8"] == pytest.approx(0.03, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("nmse", [0.5, 0.3, 0.004])
def test_the_best_mode_is_near_the_bound(nmse):
    """Whole packets of 64 states lie within 0.12 bit a coordinate of a Gaussian source's bound."""
    assert late_gap("T64", nmse, 2**17, packets=10) < 0.12

"""The lattice A2 in the codec: nearest pairs, tables, and what it saves."""

import numpy as np
import pytest
import torch
from codec_streams import layout_from
from typing_extensions import override

from deadreckon.codec import Codec, CodecConfig, EncodeError, PacketError
from deadreckon.codec.lattice import cell_index
from deadreckon.codec.lattice_contexts import LARGEST_DIGIT, Port, Tables
from deadreckon.codec.lattice_hexagonal import AXIS_RATIO, nearest, nearest_pairs, points_of
from deadreckon.codec.lattice_hexagonal_coding import NUM_CONTEXTS, SCALES, HexagonalCoding, folded_to_pairs
from deadreckon.codec.scale_classes import NUM_CLASSES, class_priors
from deadreckon.codec.symbols import NUM_SYMBOLS
from deadreckon.codec.tables import TOTAL

LENGTHS = np.array([1.0, AXIS_RATIO])


def pairs_around(center, reach=3):
    """All points of A2 whose coordinates are within some steps of a pair, not doubled."""
    whole = np.arange(-reach, reach + 1)
    found = []
    for shift in (0.0, 0.5):
        x, y = np.meshgrid(np.rint(center[0]) + whole + shift, np.rint(center[1]) + whole + shift)
        found.append(np.stack([x.ravel(), y.ravel()], axis=1))
    return np.concatenate(found)


@pytest.mark.parametrize("bias", [0.0, (0.1, 0.1), (0.4, 0.15)])
def test_pairs_are_the_cheapest_around(bias):
    """No point of the neighbourhood costs less, with a pull towards zero and without."""
    vectors = np.random.default_rng(0).normal(size=(400, 2)) * 2
    pull = np.broadcast_to(np.asarray(bias), (2,))
    for vector, point in zip(vectors, nearest_pairs(vectors, np.broadcast_to(pull, (400, 2))) / 2, strict=True):
        assert (point % 1 == point[0] % 1).all()

        def cost(tried, vector=vector):
            return ((np.square(vector - tried) + 2 * pull * np.abs(tried)) * LENGTHS**2).sum(axis=-1)

        assert cost(point) <= cost(pairs_around(vector)).min() + 1e-12


def test_pairs_are_the_points_of_the_hexagonal_lattice():
    """Without a bias they are the rows and columns of `nearest`, but at boundaries, where the ratio is rounded."""
    vectors = np.random.default_rng(1).uniform(-5, 5, (20_000, 2))
    pairs = nearest_pairs(vectors / [1, np.sqrt(3)]) / 2 * [1, np.sqrt(3)]
    differ = np.abs(pairs - points_of(nearest(vectors))).max(axis=1) > 1e-9
    assert differ.mean() < 2e-3
    error = np.square(nearest_pairs(vectors) / 2 - vectors) @ LENGTHS**2 / 2
    moment = error.mean() / (AXIS_RATIO / 2)  # the cell has half the volume of a rectangle
    np.testing.assert_allclose(moment, 5 / (36 * np.sqrt(3)), rtol=0.01)
    np.testing.assert_allclose(SCALES[0] * SCALES[1] / 2, 1.0, rtol=0.005)


def test_coordinates_that_are_too_large_are_refused():
    """Magnitudes beyond 2^29 steps, and NaN, raise."""
    for value in (2.0**30, np.nan):
        with pytest.raises(EncodeError, match="Coordinates must be at most"):
            nearest_pairs(np.array([[0.0, value]]))


def test_the_census_gives_weights_for_all_contexts():
    """Weights are at least 0, whole digits begin as the census, and cosets share the total; coarse pairs are whole."""
    weights = folded_to_pairs(class_priors())
    assert weights.shape == (NUM_CLASSES, NUM_CONTEXTS, NUM_SYMBOLS)
    assert (weights >= 0).all()
    assert np.array_equal(weights[:, 0], class_priors())
    assert (weights[:, -1].sum(axis=1) == TOTAL).all()
    halves = weights[:, -1, 15] / TOTAL
    assert (np.diff(halves) >= 0).all()
    assert halves[0] < 0.01 < 0.49 < halves[-1]


class Damaged(Port):
    """Reads one value everywhere, from the call of a number on."""

    def __init__(self, value, first):
        super().__init__(Tables(np.zeros((NUM_CLASSES * (1 + NUM_CONTEXTS), NUM_SYMBOLS), np.int64), folded_to_pairs))
        self.value, self.first, self.calls = value, first, 0

    @override
    def exchange(self, which, values):
        self.calls += 1
        return np.full(len(which), self.value if self.calls > self.first else 0)


@pytest.mark.parametrize(
    ("value", "first", "message"),
    [(2, 0, "cosets 0 and 1"), (-1, 0, "cosets 0 and 1"), (LARGEST_DIGIT + 1, 1, "a lattice coordinate beyond")],
)
def test_what_no_encoder_writes_is_refused(value, first, message):
    """A coset that does not exist, and a digit that int32 would not hold, raise."""
    exchanger = HexagonalCoding(layout_from({"w": (6,)}), None)._exchanger(Damaged(value, first))
    classes = np.full((3, 2), 10)
    with pytest.raises(PacketError, match=message):
        exchanger.exchange(np.zeros((3, 2), np.int32), classes, classes[:, 0], np.full(3, 2))


def test_it_saves_what_its_cells_do():
    """Of Gaussian coordinates at 3 bits A2 takes 0.015 to 0.03 bit less than Z, once tables have adapted."""
    layout = layout_from({"w": (128, 256)})
    bits = {}
    for lattice in ("Z", "A2"):
        generator = np.random.default_rng(0)
        encoder = Codec(layout, CodecConfig("none", lattice, nmse=0.02)).encoder()
        for step in range(5):
            row = torch.from_numpy(generator.normal(size=layout.size).astype(np.float32))
            bits[lattice] = 8 * len(encoder.encode(row, step)) / layout.size
            assert encoder.last_report.nmse <= 0.02
    assert 0.015 < bits["Z"] - bits["A2"] < 0.03


def test_cells_are_as_large_as_those_of_z():
    """At one cell index the error of fine cells is that of Z times the ratio of second moments."""
    coding = HexagonalCoding(layout_from({"w": (60_000,)}), 0.0)
    values = np.random.default_rng(0).uniform(-50, 50, (30_000, 2)).astype(np.float32)
    index = cell_index(1.0)
    points = nearest_pairs(values / np.array(SCALES))
    decoded = coding.reconstruct(points, np.zeros(12, np.int8), index, np.zeros(1, np.uint8))
    error = np.square(decoded - values.reshape(-1)).mean()
    np.testing.assert_allclose(error, 5 / (36 * np.sqrt(3)), rtol=0.015)

"""The lattices D4 and E8 of the codec, each part against its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_reference import cost, nearest_by_trying

from deadreckon.codec import EncodeError
from deadreckon.codec.lattice import Quantiser, cell_index, cell_width
from deadreckon.codec.lattice_points import (
    LARGEST_COORDINATE,
    cell_scale,
    fit_offsets,
    nearest,
    num_offsets,
    reconstruct,
    vector_lattice_names,
)

NAMES = vector_lattice_names()
SIZE = {"D4": 4, "E8": 8}
EIGHTHS = st.integers(-48, 48).map(lambda number: number / 8)  # many ties, all sums exact


def random_points(name, number, spread, seed=0):
    """Points of a lattice, of both cosets."""
    generator = np.random.default_rng(seed)
    return nearest(name, generator.normal(scale=spread, size=(number, SIZE[name])))


# --- nearest points


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_points_of_the_lattice(name):
    """D4: integers of even sum. E8: all integers or all halves, of even sum. Checked by the definition."""
    for spread, bias in ((0.4, 0.0), (3.0, 0.2), (1e6, 0.0)):
        generator = np.random.default_rng(0)
        points = nearest(name, generator.normal(scale=spread, size=(5000, SIZE[name])), bias) / 2
        assert (points.sum(axis=1) % 2 == 0).all()
        halves = (points % 1 == 0.5).all(axis=1)
        assert (halves | (points % 1 == 0).all(axis=1)).all()
        assert halves.any() == (name == "E8")


@settings(max_examples=100)
@given(
    st.sampled_from(NAMES),
    st.lists(st.one_of(EIGHTHS, st.floats(-6, 6)), min_size=8, max_size=8),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([np.float32, np.float64]),
)
def test_nearest_equals_trying_all(name, values, bias, dtype):
    """No point around a vector costs less than the one found, with and without a bias, ties included."""
    vector = np.array(values[: SIZE[name]], dtype)
    found = nearest(name, vector[None], bias)[0]
    wide = vector.astype(np.float64)
    best = nearest_by_trying(name, wide, bias)
    atol = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(cost(wide, found, bias), cost(wide, best, bias), rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nearest_is_the_reference_point_where_there_is_one(name):
    """On random vectors, whose nearest point is unique, fast and slow search find the same one."""
    generator = np.random.default_rng(1)
    for bias in (0.0, 0.15):
        vectors = generator.normal(scale=1.2, size=(60, SIZE[name]))
        expected = np.stack([nearest_by_trying(name, vector, bias) for vector in vectors])
        np.testing.assert_array_equal(nearest(name, vectors, bias), expected)


@pytest.mark.parametrize("name", NAMES)
def test_translation_by_points_commutes(name):
    """nearest(x + p) = nearest(x) + p for points p near and far, in float64."""
    generator = np.random.default_rng(2)
    vectors = generator.integers(-(2**22), 2**22, (4000, SIZE[name])) / 2**20
    for spread in (5.0, 1e6):
        points = random_points(name, len(vectors), spread, seed=3)
        np.testing.assert_array_equal(nearest(name, vectors + points / 2), nearest(name, vectors) + points)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bias", [0.0, 0.2])
def test_chunks_do_not_matter(name, bias):
    """Each vector's point is its own: one at a time, or many, or none, the points are the same."""
    generator = np.random.default_rng(4)
    vectors = generator.normal(size=(5000, SIZE[name])).astype(np.float32)
    points = nearest(name, vectors, bias)
    np.testing.assert_array_equal(points[[0, 4095, 4096, 4999]], nearest(name, vectors[[0, 4095, 4096, 4999]], bias))
    assert points.dtype == np.int32
    assert nearest(name, vectors[:0], bias).shape == (0, SIZE[name])


def test_ties_are_as_documented():
    """Rounding goes away from zero, the first of equal coordinates moves, E8 prefers whole numbers."""
    for vector, point in (
        ([0.5, 0.5, 0, 0], [1, 1, 0, 0]),
        ([-0.5, 0.5, 0.5, 0], [0, 1, 1, 0]),  # three rounded up; the first goes back
        ([1, 0, 0, 0], [2, 0, 0, 0]),
        ([0, -3, 0, 0], [1, -3, 0, 0]),
    ):
        assert nearest("D4", np.array([vector], np.float64)).tolist() == [[2 * value for value in point]]
    assert nearest("E8", np.full((1, 8), 0.25)).tolist() == [[0] * 8]
    assert nearest("E8", np.full((1, 8), 0.26)).tolist() == [[1] * 8]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_coordinates_are_exact_and_larger_ones_refused(name, dtype):
    """Points up to 2^29 steps are their own nearest points, also in float32; beyond, and for NaN, it raises."""
    for size in (2**23 - 1, 2**23 + 1, 2**24 - 1, LARGEST_COORDINATE):
        vector = np.zeros((1, SIZE[name]), dtype)
        vector[0, :2] = size, -size
        np.testing.assert_array_equal(nearest(name, vector), 2 * vector)
    for bad in (2.0 * LARGEST_COORDINATE, np.inf, np.nan):
        vector[0, 0] = bad
        with pytest.raises(EncodeError, match="Take wider cells"):
            nearest(name, vector)


def test_a_bias_is_the_dead_zone_of_the_integer_lattice():
    """Where no parity has to be mended, a whole coordinate is floor(|x| + 1/2 - bias) with the sign of x."""
    generator = np.random.default_rng(5)
    vectors = generator.normal(scale=2, size=(20_000, 4))
    for bias in (0.0, 0.1, 0.4):
        rounded = np.sign(vectors) * np.floor(np.abs(vectors) + 0.5 - bias)
        even = rounded.sum(axis=1) % 2 == 0
        assert even.any()
        np.testing.assert_array_equal(nearest("D4", vectors, bias)[even], 2 * rounded[even])


@pytest.mark.parametrize(("name", "moment"), [("Z", 1 / 12), ("D4", 0.076603), ("E8", 0.071682)])
def test_the_error_is_the_second_moment_of_the_cell(name, moment):
    """On uniform vectors the error is G w^2 a coordinate for cell width w, with Conway and Sloane's G: to 1 %.

    So it is also in the same width's units for all lattices: the cells have equal volume.
    """
    generator = np.random.default_rng(6)
    index = cell_index(0.01)
    width = cell_width(index)
    if name == "Z":
        vector = generator.uniform(0, 2, 2**18).astype(np.float32)
        quantiser = Quantiser(vector, dead_zone=0.0)
        error = vector - width * quantiser.values(quantiser.trial(index))
    else:
        vector = generator.uniform(0, 2, (2**18 // SIZE[name], SIZE[name]))
        points = nearest(name, vector / (width * cell_scale(name)))
        error = vector - reconstruct(name, points, np.zeros(num_offsets(name), np.int8), index)
    np.testing.assert_allclose(np.square(error).mean() / width**2, moment, rtol=0.01)


# --- what points stand for


@pytest.mark.parametrize("name", NAMES)
def test_fitted_offsets_give_the_error_they_claim(name):
    """The error of `fit_offsets` is that of `reconstruct`, below that of plain points and of any offset beside it."""
    generator = np.random.default_rng(8)
    index = cell_index(0.37)
    step = cell_width(index) * cell_scale(name)
    vectors = generator.laplace(size=(3000, SIZE[name]))
    vectors[0] *= 50  # beyond what is looked up
    points = nearest(name, vectors, 0.1)
    offsets, error = fit_offsets(name, vectors, points)
    assert offsets.dtype == np.int8
    assert offsets.shape == (num_offsets(name),)

    def error_with(tried):
        return float(np.square(vectors * step - reconstruct(name, points, tried, index)).sum() / step**2)

    np.testing.assert_allclose(error_with(offsets), error, rtol=1e-5)
    assert error < cost(vectors, points, 0.0).sum()
    for place in range(len(offsets)):
        for change in (-2, 2):
            beside = offsets.copy()
            beside[place] += change
            assert error_with(beside) > error


def test_offsets_are_taken_by_magnitude():
    """1, 2, 3 and above, then 1/2, 3/2, 5/2 and above, each shifted away from zero by its offset in 1/128 step."""
    offsets = np.array([1, 2, 3, 4, 5, 6], np.int8)
    index = cell_index(128.0)
    whole = np.array([[0, 2, -4, 6, 8, 100, 2000, -2000]], np.int32)
    halves = np.array([[1, -1, 3, -3, 5, 7, 101, -2001]], np.int32)
    assert cell_width(index) == 128
    assert reconstruct("E8", whole, offsets, index).tolist() == [[0, 129, -258, 387, 515, 6403, 128003, -128003]]
    assert reconstruct("E8", halves, offsets, index).tolist() == [[68, -68, 197, -197, 326, 454, 6470, -128070]]
    d4 = reconstruct("D4", np.array([[0, 2, 4, -6]], np.int32), offsets[:3], index)
    assert d4.tolist() == [[0, 129 * 215 / 256, 258 * 215 / 256, -387 * 215 / 256]]


def test_values_beyond_float32_become_infinite():
    """What float32 cannot hold is infinite, for the caller to refuse, and no warning."""
    points = np.full((1, 4), 2**20, np.int32)
    assert np.isinf(reconstruct("D4", points, np.zeros(3, np.int8), cell_index(2.0**120))).all()

"""Nearest points of all lattices against slow searches, and the shape of their cells against the literature."""

from itertools import product

import numpy as np
import pytest
import torch

from deadreckon.codec import ConfigError, EncodeError
from deadreckon.codec.lattice_hexagonal import VOLUME, points_of
from deadreckon.codec.lattice_hexagonal import nearest as nearest_a2
from deadreckon.codec.lattice_kernels import KERNELS, compiled
from deadreckon.codec.lattice_leech import golay_words
from deadreckon.codec.lattice_leech import nearest as nearest_leech
from deadreckon.codec.lattice_points import nearest
from deadreckon.codec.limits import SECOND_MOMENTS

DIMENSION = {"D4": 4, "E8": 8}
ROOTS = {"D4": 24, "E8": 240}


def by_cosets(vectors):
    """The slow search in the Leech lattice: every word of the code, the parity of z repaired where that is cheapest.

    Returns:
        The points and their squared distances.
    """
    least, found = np.full(len(vectors), np.inf), np.zeros(vectors.shape, np.int64)
    every = np.arange(len(vectors))
    for m in (0, 1):
        for word in golay_words().astype(np.int64):
            residue = m + 2 * word
            z = np.rint((vectors - residue) / 4)
            left = vectors - residue - 4 * z
            wrong = (z.sum(axis=1) - m) % 2 != 0
            place = np.abs(left).argmax(axis=1)  # moving it to the next value costs 16 - 8 |left|, least there
            most = left[every, place]
            cost = np.square(left).sum(axis=1) + np.where(wrong, 16 - 8 * np.abs(most), 0)
            z[every, place] += np.where(wrong, np.where(most < 0, -1, 1), 0)
            better = cost < least
            least = np.where(better, cost, least)
            found[better] = (residue + 4 * z[better]).astype(np.int64)
    return found, least


def in_leech(points):
    """Whether whole vectors are points, by the definition."""
    words = {tuple(word) for word in golay_words().tolist()}
    m = points[:, :1] & 1
    same = ((points & 1) == m).all(axis=1)
    bits = (points - m) // 2 % 2
    z = (points - m - 2 * bits) // 4
    return same & [tuple(row) in words for row in bits.tolist()] & (z.sum(axis=1) % 2 == m[:, 0])


def relevant(name):
    """The vectors that bound the cell of D4 or E8 about 0, doubled: those of squared length 2, and 4 in E8."""
    size = DIMENSION[name]
    tried = np.array(list(product((-2, 0, 2), repeat=size)), np.int64)
    if name == "E8":
        halves = np.array(list(product((-1, 1), repeat=size)), np.int64)
        wider = [np.where(np.arange(size) == place, 3 * halves, halves) for place in range(size)]
        single = 4 * np.eye(size, dtype=np.int64)
        tried = np.concatenate([tried, halves, *wider, single, -single])
    squares = (tried * tried).sum(axis=1)
    even = tried.sum(axis=1) % 4 == 0
    return tried[even & ((squares == 8) | ((squares == 16) & (name == "E8")))]


def outside_their_cells(name, vectors, points):
    """The largest amount by which a vector lies beyond a face of its point's cell: above 0 only by rounding."""
    faces = relevant(name) / 2
    half = np.square(faces).sum(axis=1) / 2
    return float(((vectors - points / 2) @ faces.T - half).max())


def test_the_golay_code_is_the_golay_code():
    """4096 words, closed under addition, 759 octads, 2576 dodecads, none below 8: there is only one such code."""
    words = golay_words()
    kept = {tuple(word) for word in words.tolist()}
    assert len(kept) == 4096
    assert {size: int(number) for size, number in enumerate(np.bincount(words.sum(axis=1))) if number} == {
        0: 1,
        8: 759,
        12: 2576,
        16: 759,
        24: 1,
    }
    generator = np.random.default_rng(0)
    for one, other in generator.integers(0, 4096, (500, 2)):
        assert tuple((words[one] ^ words[other]).tolist()) in kept


def test_leech_points_are_the_nearest():
    """The fast search finds points as near as those of all 8192 cosets, near 0 and far away, in either precision."""
    generator = np.random.default_rng(1)
    vectors = np.concatenate([generator.normal(size=(12, 24)) * scale for scale in (0.5, 3, 100)])
    found, least = by_cosets(vectors)
    for dtype, slack in ((np.float64, 1e-9), (np.float32, 1e-3)):
        points = nearest_leech(vectors.astype(dtype))
        assert in_leech(points).all()
        np.testing.assert_allclose(np.square(vectors - points).sum(axis=1), least, atol=slack, rtol=slack)
    np.testing.assert_array_equal(nearest_leech(vectors), found)


def test_leech_points_are_their_own_nearest():
    """Every point is found where it is, and moving a vector by a point moves its nearest point alike."""
    generator = np.random.default_rng(2)
    vectors = generator.normal(size=(40, 24)) * 5
    points = nearest_leech(vectors)
    np.testing.assert_array_equal(nearest_leech(points.astype(np.float64)), points)
    moved = nearest_leech(vectors + points[::-1])
    np.testing.assert_array_equal(moved, points + points[::-1])


def test_ties_are_decided_alike():
    """Where many points are equally near the same one is found alone, among others and in either order."""
    vectors = np.zeros((700, 24))
    vectors[:, 0] = 4.0  # a deep hole's neighbourhood: 0 and many minimal vectors are equally near
    alone = nearest_leech(vectors[:1])
    np.testing.assert_array_equal(nearest_leech(vectors), np.repeat(alone, 700, axis=0))
    hexagon = np.array([[0.5, 0.0], [0.25, np.sqrt(3) / 4]])
    np.testing.assert_array_equal(nearest_a2(hexagon[::-1])[::-1], nearest_a2(hexagon))


def test_hexagonal_points_are_the_nearest():
    """No point of A2 in the neighbourhood is nearer than the one that is found."""
    vectors = np.random.default_rng(3).uniform(-20, 20, (3000, 2))
    integers = nearest_a2(vectors)
    least = np.square(vectors - points_of(integers)).sum(axis=1)
    for row, column in product(range(-2, 3), repeat=2):
        tried = np.square(vectors - points_of(integers + np.array([row, column]))).sum(axis=1)
        assert (least <= tried + 1e-12).all()


@pytest.mark.parametrize("name", ["D4", "E8"])
def test_relevant_vectors_are_all_there(name):
    """D4's cell has 24 faces, E8's 240 and 2160."""
    assert len(relevant(name)) == {"D4": 24, "E8": 2400}[name]


@pytest.mark.parametrize("name", ["D4", "E8"])
def test_kernels_give_the_codecs_points(name):
    """What is compiled is, before it is, the codec's search without a bias, and stays within the cell of its point."""
    vectors = np.random.default_rng(4).normal(size=(4000, DIMENSION[name])).astype(np.float32) * 3
    points = KERNELS[name](torch.from_numpy(np.ascontiguousarray(vectors.T))).T.numpy()
    np.testing.assert_array_equal(points, nearest(name, vectors))
    assert outside_their_cells(name, vectors.astype(np.float64), points) < 1e-5


@pytest.mark.parametrize("name", ["A2", "D4", "E8", "Leech"])
def test_cells_have_the_literatures_second_moment(name):
    """The mean squared error of uniform vectors, a coordinate and at volume 1 a coordinate, within 1 %."""
    generator = np.random.default_rng(5)
    size = {"A2": 2, "Leech": 24}.get(name) or DIMENSION[name]
    vectors = generator.uniform(-64, 64, (2**16 // size, size))
    if name == "A2":
        left, volume = vectors - points_of(nearest_a2(vectors)), VOLUME
    elif name == "Leech":
        left, volume = vectors - nearest_leech(vectors), 2.0**36
    else:
        left, volume = vectors - nearest(name, vectors) / 2, {"D4": 2.0, "E8": 1.0}[name]
    assert np.square(left).mean() / volume ** (2 / size) == pytest.approx(SECOND_MOMENTS[name], rel=0.01)


def test_bad_input_is_refused():
    """What int32 cannot hold, what is no number and lattices without a kernel raise."""
    with pytest.raises(EncodeError, match="must be at most"):
        nearest_leech(np.full((1, 24), 2.0**30))
    with pytest.raises(EncodeError, match="must be at most"):
        nearest_leech(np.full((1, 24), np.nan))
    with pytest.raises(ConfigError, match="fused kernels"):
        compiled("Leech")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["D4", "E8"])
def test_a_million_points_are_the_nearest(name):
    """A million vectors all lie within the cells of their points: no face of any has them beyond it."""
    generator = np.random.default_rng(6)
    for _ in range(256):
        vectors = generator.normal(size=(2**12, DIMENSION[name])) * 2.0 ** generator.uniform(-2, 8)
        assert outside_their_cells(name, vectors, nearest(name, vectors)) < 1e-6


@pytest.mark.slow
def test_leech_points_are_the_nearest_at_length():
    """The same as for few vectors, for four thousand of them: a hundred thousand coordinates."""
    vectors = np.random.default_rng(7).normal(size=(4096, 24)) * 4
    np.testing.assert_array_equal(nearest_leech(vectors), by_cosets(vectors)[0])

"""Which table each k of a trellis path is coded with: by its class, the kind of state, what its vector has shown.

For each kind of state a class has three tables, by the sum of the magnitudes |k| before it in the vector: 0, 1, more.
(To tell home from the other even states saves 64 states 0.006 bit a Gaussian coordinate below one bit; telling all
states apart would save 0.001 more.) As in `lattice_contexts` the class is corrected by what the vector has shown, k is
turned round where the coordinates before lean to the negative side, and all tables of a class begin as its census.

A path goes through vectors of all passes: those of a pass are dealt out, one for each path, until none are left. So as
many coordinates are decoded at once as there are paths. What fills up a vector is a zero that takes no bits.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .activity import MAX_MAGNITUDE
from .errors import PacketError
from .lattice_contexts import CONFIDENCE, LARGEST_DIGIT, Integers, Port, corrected, next_lean
from .scale_classes import MEAN_UNIT
from .symbols import MAX_DIRECT, NUM_DIRECT
from .trellis import NUM_KINDS, ODD, Trellis

DIMENSION = 8  # coordinates of a vector
SUMS = 3
NUM_CONTEXTS = NUM_KINDS * SUMS
ROUNDS = 16  # vectors of a path


def num_paths(num_vectors: int) -> int:
    """Paths of so many vectors."""
    return max(-(-num_vectors // ROUNDS), 1)


def rounds(number: int, paths: int) -> Iterator[slice]:
    """The vectors of a pass that are coded at the same time."""
    for start in range(0, number, paths):
        yield slice(start, min(start + paths, number))


def folded_to_quantisers(census: Integers) -> Integers:
    """What a class's distribution of single integers says of each context.

    In the odd quantiser k lies between the integers k - 1 and k, and zero is taken about five times in eight.

    Args:
        census: tables, `[class, symbol]`.

    Returns:
        `[class, context, symbol]`, weights of no particular sum.
    """
    odd = census.copy()
    zero = census[:, MAX_DIRECT]
    above, below = census[:, MAX_DIRECT + 1 : NUM_DIRECT], census[:, :MAX_DIRECT]
    odd[:, MAX_DIRECT] = (zero >> 1) + (zero >> 3)
    odd[:, MAX_DIRECT + 1 : NUM_DIRECT] = above >> 1
    odd[:, MAX_DIRECT + 2 : NUM_DIRECT] += above[:, :-1] >> 1
    odd[:, :MAX_DIRECT] = below >> 1
    odd[:, : MAX_DIRECT - 1] += below[:, 1:] >> 1
    odd[:, MAX_DIRECT + 1] += (zero >> 3) + (zero >> 4)
    odd[:, MAX_DIRECT - 1] += (zero >> 3) + (zero >> 4)
    return np.stack([census] * (2 * SUMS) + [odd] * SUMS, axis=1)


class Paths:
    """Where all paths of a packet are.

    Args:
        trellis: of the states.
        num_vectors: of the packet.
    """

    def __init__(self, trellis: Trellis, num_vectors: int) -> None:
        self._trellis = trellis
        self.states = np.zeros(num_paths(num_vectors), np.int64)

    def exchange(self, port: Port, part: "Part") -> npt.NDArray[np.int32]:
        """The vectors of a pass through a port: those given when writing, those of the packet when reading.

        Args:
            port: which end this is.
            part: of the packet.

        Returns:
            `[vector, dimension]`, doubled; values of the quantisers, whatever was read.

        Raises:
            PacketError: if a value is too large.
        """
        found = np.empty_like(part.points)
        for here in rounds(len(part.points), len(self.states)):
            found[here] = self._exchange(port, Part(part.points[here], part.classes[here], part.numbers[here]))
        return found

    def _exchange(self, port: Port, part: "Part") -> npt.NDArray[np.int32]:
        number, size = part.points.shape
        points, classes = part.points.T.astype(np.int64), part.classes.T
        means = port.tables.census.means[classes]
        states = self.states[:number]
        total, lean = np.zeros(number, np.int64), np.zeros(number, np.int64)
        expected = CONFIDENCE + means.sum(axis=0) // size
        shown = expected.copy()
        whole = bool((part.numbers == size).all())
        for place in range(size):
            kinds = self._trellis.kinds[states]
            odd = kinds == ODD
            sign = np.where(lean < 0, -1, 1)
            which = corrected(classes[place], shown, expected) * NUM_CONTEXTS + SUMS * kinds + total
            given = sign * np.sign(points[place]) * ((np.abs(points[place]) + 1) >> 1)
            if whole:
                digit = port.exchange(which, given)
            else:
                stands = part.numbers > place
                digit = np.zeros(number, np.int64)
                digit[stands] = port.exchange(which[stands], given[stands])
            magnitude = np.abs(digit)
            if magnitude.max(initial=0) > LARGEST_DIGIT:
                raise PacketError(f"The packet is damaged: a coordinate beyond {LARGEST_DIGIT} steps.")
            doubled = 2 * magnitude - odd * (magnitude > 0)
            points[place] = np.where(digit < 0, -sign, sign) * doubled
            total = np.minimum(total + magnitude, SUMS - 1)
            lean = next_lean(lean, points[place])
            expected += means[place]
            shown += np.minimum(doubled, 2 * MAX_MAGNITUDE) * (MEAN_UNIT // 2)
            states[:] = self._trellis.next[states, magnitude & 1]
        return points.T.astype(np.int32)


class Part(NamedTuple):
    """Vectors of a pass.

    Attributes:
        points: `[vector, dimension]`, doubled; any when reading.
        classes: of the coordinates, `[vector, dimension]`.
        numbers: how many coordinates of each vector stand for something, `[vector]`.
    """

    points: npt.NDArray[np.int32]
    classes: Integers
    numbers: npt.NDArray[np.integer]

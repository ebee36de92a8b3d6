"""Trellis-coded quantisation: two quantisers, and a path through states that says which one each coordinate takes.

Values are multiples of half a cell width w. The *even* quantiser holds the whole multiples of w, the *odd* one the odd
multiples of w / 2, and zero:

    even: k -> k w            odd: k -> sign(k) (|k| - 1/2) w

Both have the spacing w, so that a coordinate takes about as many bits as in Z with cells of that width; but the encoder
has a choice, which the decoder knows without a word: the *state* says which quantiser a coordinate is in, and the
parity of k says which of two states comes next. So the encoder looks for the path of least cost, squared error plus
what the bits are worth (Viterbi 1967). At high rate cells of such a path fill space better than those of any lattice in
24 dimensions: 8 states come within 0.08 bit a coordinate of the bound, 64 within 0.05, where Z leaves 0.255, E8 0.146
and the Leech lattice 0.084.

States are shift registers of v bits. The first bit, z0, is the quantiser; z1 is the parity of k. Bit i of the next
state is bit i + 1 of this one, exclusive or h0_i z0, exclusive or h1_i z1: Ungerboeck's systematic codes for amplitude
modulation, of largest free distance. Every path begins in state 0, *home*. Zeros lead back there, so that what is all
zero stays in the even quantiser. Where a path is at home it is often because the coordinates are small; so the entropy
coder tells three *kinds* of state apart: home, the other even ones, and the odd ones.

References:
    M. W. Marcellin, T. R. Fischer. Trellis coded quantization of memoryless and Gauss-Markov sources. IEEE Transactions
    on Communications 38(1), 1990. G. Ungerboeck. Channel coding with multilevel/phase signals. IEEE Transactions on
    Information Theory 28(1), 1982, table I. R. L. Joshi, V. J. Crump, T. R. Fischer. Image subband coding using
    arithmetic coded trellis coded quantization. IEEE Transactions on Circuits and Systems for Video Technology 5(6),
    1995: quantisers that are symmetric about zero. H. Schwarz et al. Hybrid video coding with trellis-coded
    quantization. Data Compression Conference 2019: zero in both quantisers, for low rates.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import ConfigError

_POLYNOMIALS = {"T8": (3, 0o13, 0o04), "T64": (6, 0o103, 0o024)}  # bits of a state, h0, h1
HOME, EVEN, ODD = range(3)
NUM_KINDS = 3
_CACHED = 2**18  # bytes of costs at a time, so that they stay in the cache
NEVER = np.float32(1e18)  # the cost of what is not allowed

Costs = npt.NDArray[np.float32]


def trellis_names() -> tuple[str, ...]:
    """Names of the trellises, by their number of states."""
    return tuple(_POLYNOMIALS)


class Trellis(NamedTuple):
    """States and their transitions.

    Attributes:
        next: the state that follows each, for k even and k odd, `[state, parity]`.
        before: the two states that lead to each, `[state, way]`.
        parities: of k, on those ways, `[state, way]`.
        kinds: of the states, `[state]`: `HOME`, `EVEN` or `ODD`.
    """

    next: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]
    parities: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]


@cache
def make_trellis(name: str) -> Trellis:
    """The trellis of a name.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in _POLYNOMIALS:
        raise ConfigError(f"A trellis must be one of {trellis_names()}, got {name!r}.")
    num_bits, h0, h1 = _POLYNOMIALS[name]
    states = np.arange(2**num_bits)
    following = np.stack([(states >> 1) ^ (h0 >> 1) * (states & 1) ^ (h1 >> 1) * parity for parity in (0, 1)], axis=1)
    ways = [
        [(state, parity) for state in states for parity in (0, 1) if following[state, parity] == to] for to in states
    ]
    before, parities = np.moveaxis(np.array(ways, np.int64), 2, 0)
    kinds = np.where(states & 1, ODD, EVEN)
    kinds[0] = HOME
    return Trellis(following.astype(np.int64), before, parities, kinds)


def best_path(trellis: Trellis, costs: Costs, widths: Sequence[int]) -> npt.NDArray[np.uint8]:
    """The paths of least total cost, one for each of several rows of coordinates that step together.

    Ties: the state of smaller number comes first, as the last and before each.

    Args:
        trellis: of the states.
        costs: of the best k in each kind of state and of either parity, `[2 kind + parity, coordinate]`; the
            coordinates of the first step first.
        widths: how many paths step at each step, the first ones; the largest is the number of paths.

    Returns:
        2 kind + parity of each coordinate, `[coordinate]`.
    """
    branches = np.empty(costs.shape[1], np.uint8)
    at_once = max(_CACHED // (4 * len(trellis.next)), 1)
    starts = np.cumsum([0, *widths])[:-1]
    for first in range(0, max(widths, default=0), at_once):
        steps = [
            slice(int(start) + first, int(start) + min(first + at_once, width))
            for start, width in zip(starts, widths, strict=True)
            if width > first
        ]
        _best_path(trellis, costs, steps, branches)
    return branches


def _best_path(trellis: Trellis, costs: Costs, steps: Sequence[slice], branches: npt.NDArray[np.uint8]) -> None:
    """`best_path` of some paths, each step a slice of the coordinates."""
    widest = max(step.stop - step.start for step in steps)
    num_states = len(trellis.next)
    from_first, from_second = trellis.before[:, 0], trellis.before[:, 1]
    branch = 2 * trellis.kinds[trellis.before] + trellis.parities
    total = np.full((num_states, widest), NEVER, np.float32)
    total[0] = 0
    seconds = []
    for step in steps:
        here, width = costs[:, step], step.stop - step.start
        one = total[from_first, :width]
        one += here[branch[:, 0]]
        other = total[from_second, :width]
        other += here[branch[:, 1]]
        seconds.append(other < one)
        np.minimum(one, other, out=total[:, :width])
    state = total.argmin(axis=0)
    every = np.arange(widest)
    for step, second in zip(reversed(steps), reversed(seconds), strict=True):
        width = step.stop - step.start
        way = second[state[:width], every[:width]].astype(np.intp)
        branches[step] = branch[state[:width], way]
        state[:width] = trellis.before[state[:width], way]

"""Which lattice each packet is in where the configuration leaves it open (`lattice="auto"`): Z or E8, found by trying.

Now and then the encoder codes a packet both ways and compares their prices; the packets until the next trial are in the
lattice that is ahead, and each says in one bit which one it is in. The lattices share all state but E8's contexts:
activity is in cells of equal volume, and the census of E8 is the tables of Z. So the encoder may switch at any packet.
What E8 has to have seen are its contexts: the first packet after a key frame is always in E8.

What a trial cannot see is what packets teach. Those in E8 show more of how large a small coordinate and its neighbours
are, and make the packets after them cheaper, in either lattice: one stream took 0.84 times the bits of Z while single
trials said 1.00. So Z has to be ahead by `TAUGHT` to be taken. Trials on a state of its own for each lattice would see
it, but take a second encoder for many packets.

That holds where neighbours are alike. Where they are not, packets in E8 teach nothing about them, and on independent
peaky coordinates below one bit single trials showed Z ahead by 0.01 to 0.07 octaves where it was by 0.03 to 0.26. There
`APART` is added to what a trial says that Z won, which leaves half a percent of the margin.

On 34 streams at NMSE 0.5, 0.1 and 0.01 Z was better by more than 1 % six times, at packets below a hundred bytes. D4 is
not tried: on 18 of them it was never the best of the three, and took 0 to 49 % more bits than the best, 6 % at the
median. Nor is Leech: a trial of it would take as long as five packets in E8.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .lattice import cell_width
from .symbol_coder import ERROR_BITS

CHOICES = ("Z", "E8")  # in the order of the bit
TRIALS = (2, 4, 8, 16)  # packets since the key frame, counted from 1
TRIAL_EVERY = 32  # packets after those
TAUGHT = math.log2(1.03)
ALIKE = 0.15  # correlation of neighbours: 0.2 to 0.7 in three streams of networks that look at images, below 0 in text
LOW_RATE = 1.3  # bits a coordinate, above which E8 is the better one for all but the peakiest sources
APART = TAUGHT - math.log2(1.005)
DECAY = 0.5  # of the lead: at small packets single trials are off by 5 %
LARGEST = 0.1  # that a trial counts, in octaves, so that a change is followed within two of them


class Attempt(NamedTuple):
    """What one lattice gives.

    Attributes:
        num_bits: of the body.
        error: squared.
        cell_index: of the cells.
    """

    num_bits: int
    error: float
    cell_index: int


def is_trial(num_updates: int) -> bool:
    """Whether the packet after so many coded ones since the key frame is coded in both lattices."""
    number = num_updates + 1
    return number in TRIALS or number % TRIAL_EVERY == 0


def chosen(lead: float, num_updates: int) -> int:
    """The lattice of a packet, its place in `CHOICES`.

    Args:
        lead: of Z, decayed mean of the trials' `advantage`.
        num_updates: coded packets since the key frame.
    """
    return int(lead <= TAUGHT or not num_updates)


def advantage(z: Attempt, e8: Attempt) -> float:
    """log2 of the price in E8 over that in Z; a price is bits and error, the error at the slope of a uniform quantiser.

    Where a bound is kept, errors are nearly equal and bits decide. Where the cells are given, E8 leaves less error in
    about the same bits, so that bits alone would say nothing.
    """
    slope = ERROR_BITS / cell_width(z.cell_index) ** 2
    return math.log2((e8.num_bits + slope * e8.error) / (z.num_bits + slope * z.error))


def allowance(residual: npt.NDArray[np.float32], num_bits: int) -> float:
    """What is added to the advantage of a trial that Z won: nothing above `LOW_RATE` or with like neighbours.

    Args:
        residual: what was coded, `[param]`, finite.
        num_bits: that it took in Z.

    Returns:
        0 or `APART`.
    """
    if num_bits >= LOW_RATE * len(residual):
        return 0.0
    own = np.einsum("i,i->", residual, residual, dtype=np.float64)
    next_ones = np.einsum("i,i->", residual[:-1], residual[1:], dtype=np.float64)
    return 0.0 if next_ones >= ALIKE * own else APART


def updated(lead: float, trial: float, allowed: float = 0.0) -> float:
    """The lead after one more trial.

    Args:
        lead: before it.
        trial: its advantage.
        allowed: its allowance, which counts only where Z won.
    """
    if trial > 0:
        trial += allowed
    return DECAY * lead + (1 - DECAY) * min(max(trial, -LARGEST), LARGEST)

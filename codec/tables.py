"""Integer probability tables: the committed family, and those that adapt to what was decoded.

All are integer counts that sum to `TOTAL`, at least 1 for each symbol. Nothing here is a floating-point computation, so
both ends of a link hold the same table, whatever machine they are. Only the encoder's choice between tables uses
logarithms, and the choice is sent.
"""

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

TOTAL = 2**22  # below constriction's 24 bits; at 2^16 the counts of 1 alone would cost 0.0013 bit a coordinate
NUM_PRESETS = 63
COUNT_UNIT = 16  # what one decoded symbol adds to its count, so that the constant 1 stands for a 16th of a symbol

MAX_COUNT = 2**37  # above what 2^30 coordinates add up to, below what `adaptive_table` can multiply

# The choice of a table is itself coded, with these shares of `TOTAL`.
SKIP, ADAPTIVE, FIRST_PRESET = 0, 1, 2
NUM_CHOICES = FIRST_PRESET + NUM_PRESETS


@cache
def preset_tables() -> npt.NDArray[np.int64]:
    """The committed tables, `[preset, symbol]`: three shapes of generalised Gaussian at 21 scales each."""
    tables = np.loadtxt(Path(__file__).with_name("preset_tables.txt"), dtype=np.int64)
    tables.setflags(write=False)
    return tables


@cache
def preset_costs() -> npt.NDArray[np.float64]:
    """Bits that a symbol takes under each committed table, `[preset, symbol]`; for the encoder's choice only."""
    return np.log2(float(TOTAL)) - np.log2(preset_tables())


@cache
def choice_table() -> npt.NDArray[np.int64]:
    """Counts of the choices, `[choice]`: skip a quarter, adaptive half, the presets share the rest."""
    table = np.full(NUM_CHOICES, TOTAL // 4 // NUM_PRESETS, np.int64)
    table[SKIP] = TOTAL // 4
    table[ADAPTIVE] = TOTAL - int(table.sum()) + int(table[ADAPTIVE])
    table.setflags(write=False)
    return table


def adaptive_table(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The table that a group's counts stand for.

    Args:
        counts: `[symbol]`, as `updated_counts` keeps them.

    Returns:
        `[symbol]`, sums to `TOTAL`. What rounding leaves goes to the most frequent symbol.
    """
    return as_table(counts + 1)


def as_table(weights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Integer probabilities in proportion to weights: at least 1 each, sum `TOTAL`.

    Args:
        weights: `[symbol]`, at least 0 and not all 0. What rounding leaves goes to the largest.
    """
    weights = weights >> max(int(weights.sum()).bit_length() - 40, 0)  # so that the product fits 64 bits
    table = 1 + weights * (TOTAL - len(weights)) // int(weights.sum())
    table[int(table.argmax())] += TOTAL - int(table.sum())
    return table


def as_tables(weights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`as_table` of each row, `[table, symbol]`; sums of rows must be below 2^53."""
    num_bits = np.frexp(weights.sum(1).astype(np.float64))[1]  # exact for such sums
    weights = weights >> np.maximum(num_bits - 40, 0)[:, None]  # so that the product fits 64 bits
    tables = 1 + weights * (TOTAL - weights.shape[1]) // weights.sum(1)[:, None]
    tables[np.arange(len(tables)), tables.argmax(1)] += TOTAL - tables.sum(1)
    return tables


def updated_counts(counts: npt.NDArray[np.int64], seen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A group's counts after one more packet: the old ones decay by a quarter, the new symbols come in.

    On gradients of two Fashion-MNIST nets decays of 1/8, 1/4 and 1/2 and no memory at all differ by less than 0.5 %.

    Args:
        counts: `[symbol]`.
        seen: how often each symbol was decoded now, `[symbol]`.
    """
    return counts - (counts >> 2) + COUNT_UNIT * seen

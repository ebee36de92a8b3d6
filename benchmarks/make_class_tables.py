"""Writes `codec/class_tables.txt`: what the tables of the scale classes begin with.

Run once, by hand, from the repository root: `python benchmarks/make_class_tables.py`. The file is data from then on;
another file is another packet format.

For each class, quantised Laplacian values with the class's mean magnitude, magnitude j >= 1 being the cell from j - 0.3
to j + 0.7; of that, 2 % or less are taken by a geometric tail with a ratio of one half, because residuals of one class
are a mixture of scales. Tables counted on the gradients of five small nets instead differed by less than 0.5 % of the
bits after ten packets.
"""

from pathlib import Path

import numpy as np

from deadreckon.codec.scale_classes import CLASSES_PER_OCTAVE, LOWEST_OCTAVE, NUM_CLASSES
from deadreckon.codec.symbols import MAX_DIRECT, NUM_BUCKETS, NUM_DIRECT, NUM_SYMBOLS
from deadreckon.codec.tables import as_table

EDGE = 0.3  # how far below a magnitude its cell begins
TAIL_SHARE = 0.02


def scale_for(mean: float) -> float:
    """The Laplacian scale, in cells, whose quantised magnitudes have this mean: sum over j of exp(-(j - EDGE) / b)."""
    low, high = 1e-3, 1e4
    for _ in range(100):
        middle = (low * high) ** 0.5
        found = np.exp(-(np.arange(1, 4000) - EDGE) / middle).sum()
        low, high = (middle, high) if found < mean else (low, middle)
    return low


def probabilities(mean: float) -> np.ndarray:
    """Of each symbol."""
    scale = scale_for(mean)
    edges = np.concatenate(
        [[0.0], np.arange(1, MAX_DIRECT + 1) - EDGE, MAX_DIRECT + 2.0 ** np.arange(NUM_BUCKETS + 1) - EDGE]
    )
    survival = np.exp(-edges / scale)
    share = survival[:-1] - survival[1:]
    core, tail = np.zeros(NUM_SYMBOLS), np.zeros(NUM_SYMBOLS)
    core[MAX_DIRECT], tail[MAX_DIRECT] = share[0], 0.5
    for magnitude in range(1, MAX_DIRECT + 1):
        for symbol in (MAX_DIRECT - magnitude, MAX_DIRECT + magnitude):
            core[symbol] = share[magnitude] / 2
            tail[symbol] = 0.2 * 2.0**-magnitude
    core[NUM_DIRECT:] = share[MAX_DIRECT + 1 :]
    tail[NUM_DIRECT:] = 0.05 * 2.0 ** -np.arange(NUM_BUCKETS)
    mixed = (1 - TAIL_SHARE) * core + TAIL_SHARE * min(1.0, mean) * tail
    mixed[MAX_DIRECT] += 1 - mixed.sum()
    return mixed


def main() -> None:
    means = 2.0 ** (LOWEST_OCTAVE + (np.arange(NUM_CLASSES) + 0.5) / CLASSES_PER_OCTAVE)
    rows = [as_table((probabilities(mean) * 2.0**40).astype(np.int64)) for mean in means]
    target = Path(__file__).parent.parent / "codec" / "class_tables.txt"
    target.write_text("\n".join(" ".join(map(str, row)) for row in rows) + "\n")
    print(f"{len(rows)} tables of {NUM_SYMBOLS} counts in {target}")


if __name__ == "__main__":
    main()

"""Writes `codec/preset_tables.txt`: integer probability tables of quantised generalised Gaussians.

Run once, by hand, from the repository root: `python benchmarks/make_preset_tables.py`. The file is data from then on;
another file is another packet format. Needs scipy, which the library does not.

Density: b / (2 a Gamma(1/b)) exp(-(|x|/a)^b), with x in cells. P(|x| > t) = Q(1/b, (t/a)^b), Q the regularised upper
incomplete gamma function. Magnitude j >= 1 is the cell from j - 1/2 + z to j + 1/2 + z, z the dead zone.
"""

from pathlib import Path

import numpy as np
from scipy.special import gammaincc, gammaln

from deadreckon.codec.symbols import MAX_DIRECT, NUM_BUCKETS, NUM_SYMBOLS
from deadreckon.codec.tables import TOTAL

DEAD_ZONE = 0.2  # the default of CodecConfig
SHAPES = (0.45, 0.8, 1.5)  # gradients of small nets: 0.25 over a whole net, 0.9 to 1.5 within a tensor
NUM_SCALES = 21
FEWEST = 2.0**-15  # share of non-zeros in the sparsest table
WIDEST = 512.0  # standard deviation, in cells, of the widest


def tail(shape: float, scale: float, edge: np.ndarray) -> np.ndarray:
    return gammaincc(1 / shape, (edge / scale) ** shape)


def integer_table(shape: float, scale: float) -> np.ndarray:
    edges = np.arange(1, MAX_DIRECT + 2) - 0.5 + DEAD_ZONE
    outside = tail(shape, scale, edges)
    magnitudes = outside[:-1] - outside[1:]
    bucket_edges = MAX_DIRECT + 2.0 ** np.arange(NUM_BUCKETS + 1) - 0.5 + DEAD_ZONE
    beyond = tail(shape, scale, bucket_edges)
    beyond[-1] = 0.0
    buckets = beyond[:-1] - beyond[1:]
    probabilities = np.concatenate([magnitudes[::-1] / 2, [1 - outside[0]], magnitudes / 2, buckets])
    table = 1 + np.floor(probabilities * (TOTAL - NUM_SYMBOLS)).astype(np.int64)
    table[table.argmax()] += TOTAL - table.sum()
    return table


def scales(shape: float) -> np.ndarray:
    per_deviation = np.exp(0.5 * (gammaln(1 / shape) - gammaln(3 / shape)))
    low, high = 1e-9, WIDEST * per_deviation
    for _ in range(200):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if tail(shape, middle, np.array(0.5 + DEAD_ZONE)) < FEWEST else (low, middle)
    return np.geomspace(low, WIDEST * per_deviation, NUM_SCALES)


def main() -> None:
    lines = [
        " ".join(str(count) for count in integer_table(shape, scale)) for shape in SHAPES for scale in scales(shape)
    ]
    target = Path(__file__).parent.parent / "codec" / "preset_tables.txt"
    target.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} tables of {NUM_SYMBOLS} counts in {target}")


if __name__ == "__main__":
    main()

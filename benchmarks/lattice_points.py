"""Whether the fast nearest-point searches find the nearest points: a million vectors of each lattice, tried slowly.

The slow search tries every coset of a lattice of which a vector's nearest point is known by rounding, and looks for no
structure among them: of A2 the 25 points around, of D4 and E8 all 8 and 256 cosets of the even whole numbers, of Leech
all 8192 words, each with the parity of z repaired where that costs least. Compared are squared distances in float64:
"farther" counts vectors whose fast point is farther away than the slow one, beyond rounding (1e-9), "nearer" the other
way round, which would be an error of the slow search, "elsewhere" those where both are equally far but not one point,
which are ties. What is found is checked to be a point by the definition of the lattice.

Run: `python benchmarks/lattice_points.py --rows rows.jsonl --text lattice_points.txt`; it goes on where it stopped, in
pieces of 2^14 vectors, each with a seed of its own.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from codec_tables import provenance, report
from lattice_rows import Row, measure_missing

from deadreckon.codec.lattice_hexagonal import nearest as rows_and_columns
from deadreckon.codec.lattice_hexagonal import points_of
from deadreckon.codec.lattice_leech import golay_words
from deadreckon.codec.lattice_leech import nearest as nearest_leech
from deadreckon.codec.lattice_points import nearest

Vectors = npt.NDArray[np.float64]
PIECE = 2**14
NUM_VECTORS = 10**6
AT_ONCE = 128  # vectors of Leech, so that tables of all bytes stay in the cache
SLACK = 1e-9
SPREADS = (0.5, 1.0, 2.0, 4.0, 16.0)  # of the coordinates, by turns, in units of the lattice


def around(vectors: Vectors) -> Vectors:
    """The nearest points of A2, among the 25 whose rows and columns are next to the rounded ones."""
    height = np.sqrt(3) / 2
    row = np.rint(vectors[:, 1] / height)
    column = np.rint(vectors[:, 0] - (row % 2) / 2)
    best, least = np.zeros_like(vectors), np.full(len(vectors), np.inf)
    for down, right in product(range(-2, 3), repeat=2):
        tried = np.stack([column + right + ((row + down) % 2) / 2, (row + down) * height], axis=1)
        cost = np.square(vectors - tried).sum(axis=1)
        best, least = np.where((cost < least)[:, None], tried, best), np.minimum(cost, least)
    return best


def by_parities(vectors: Vectors, halves: bool) -> Vectors:
    """The nearest points of D4 or E8: every pattern of parities of even weight, shifted by halves too in E8."""
    size = vectors.shape[1]
    patterns = np.array([word for word in product((0, 1), repeat=size) if sum(word) % 2 == 0])
    best, least = np.zeros_like(vectors), np.full(len(vectors), np.inf)
    for pattern in patterns:
        for shift in (0.0, 0.5) if halves else (0.0,):
            tried = pattern + shift + 2 * np.rint((vectors - pattern - shift) / 2)
            cost = np.square(vectors - tried).sum(axis=1)
            best, least = np.where((cost < least)[:, None], tried, best), np.minimum(cost, least)
    return best


def by_words(vectors: Vectors) -> Vectors:
    """The nearest points of the Leech lattice: every word for m = 0 and 1, and z's parity repaired where it is wrong.

    What a word costs is added up from three tables, of all patterns of its bytes: cost, parity of z, and the least that
    a change of parity costs.
    """
    found = [_by_words(vectors[start : start + AT_ONCE]) for start in range(0, len(vectors), AT_ONCE)]
    return np.concatenate(found)


def _by_words(vectors: Vectors) -> Vectors:
    words = golay_words().astype(np.int64)
    every = np.arange(len(vectors))
    in_bytes = words.reshape(-1, 3, 8) @ (1 << np.arange(8))
    bits = np.array([[place >> bit & 1 for bit in range(8)] for place in range(256)])
    best, least = np.zeros_like(vectors), np.full(len(vectors), np.inf)
    for m in (0, 1):
        residues = m + 2 * np.arange(2)[:, None, None]
        z = np.rint((vectors - residues) / 4)  # [c, vector, coordinate]
        left = np.abs(vectors - residues - 4 * z)
        costs, repairs, odd = np.square(left), 16 - 8 * left, (z.astype(np.int64) & 1).astype(np.uint8)
        total = np.zeros((len(words), len(vectors)))
        parity = np.full((len(words), len(vectors)), m, np.uint8)  # 1 where z's sum is of the wrong one
        repair = np.full((len(words), len(vectors)), np.inf)
        for byte in range(3):
            here = np.arange(8 * byte, 8 * byte + 8)
            own = in_bytes[:, byte]
            total += costs[bits, :, here].sum(axis=1)[own]
            parity ^= np.bitwise_xor.reduce(odd[bits, :, here], axis=1)[own]
            np.minimum(repair, repairs[bits, :, here].min(axis=1)[own], out=repair)
        repair *= parity
        total += repair
        word = total.argmin(axis=0)
        cost = total[word, every]
        residue = m + 2 * words[word]
        z = np.rint((vectors - residue) / 4)
        change = vectors - residue - 4 * z
        place = np.abs(change).argmax(axis=1)
        wrong = z.sum(axis=1) % 2 != m
        z[every, place] += np.where(wrong, np.where(change[every, place] < 0, -1, 1), 0)
        best = np.where((cost < least)[:, None], residue + 4 * z, best)
        least = np.minimum(cost, least)
    return best


def in_a2(points: Vectors) -> npt.NDArray[np.bool_]:
    """Whether these are whole rows, every other one shifted by half."""
    row = points[:, 1] / (np.sqrt(3) / 2)
    column = points[:, 0] - (np.rint(row) % 2) / 2
    return (np.abs(row - np.rint(row)) < SLACK) & (np.abs(column - np.rint(column)) < SLACK)


def in_checkerboard(points: Vectors, halves: bool) -> npt.NDArray[np.bool_]:
    """Whether these are whole numbers, or halves where they may be, of even sum."""
    doubled = np.rint(2 * points).astype(np.int64)
    odd = doubled & 1
    return ((odd == odd[:, :1]).all(axis=1) & (halves | (odd[:, 0] == 0))) & (doubled.sum(axis=1) % 4 == 0)


def in_leech(points: Vectors) -> npt.NDArray[np.bool_]:
    """Whether these are m + 2 c + 4 z, c a word, the sum of z of m's parity."""
    known = {word.tobytes() for word in golay_words()}
    whole = points.astype(np.int64)
    m = whole[:, :1] & 1
    bits = (whole - m) // 2 & 1
    z = (whole - m - 2 * bits) // 4
    spelled = np.array([row.tobytes() in known for row in bits.astype(np.uint8)])
    return spelled & ((whole & 1) == m).all(axis=1) & (z.sum(axis=1) % 2 == m[:, 0])


class Lattice(NamedTuple):
    """Both searches of a lattice, `[vector, dimension]` to points of the same shape, and the definition."""

    dimension: int
    fast: Callable[[Vectors], Vectors]
    slow: Callable[[Vectors], Vectors]
    contains: Callable[[Vectors], npt.NDArray[np.bool_]]


LATTICES = {
    "A2": Lattice(2, lambda vectors: points_of(rows_and_columns(vectors)), around, in_a2),
    "D4": Lattice(
        4,
        lambda vectors: nearest("D4", vectors) / 2,
        partial(by_parities, halves=False),
        partial(in_checkerboard, halves=False),
    ),
    "E8": Lattice(
        8,
        lambda vectors: nearest("E8", vectors) / 2,
        partial(by_parities, halves=True),
        partial(in_checkerboard, halves=True),
    ),
    "Leech": Lattice(24, lambda vectors: nearest_leech(vectors).astype(np.float64), by_words, in_leech),
}


def compare(lattice: str, piece: int) -> Row:
    """What a piece of vectors shows."""
    dimension, search, slow_search, contains = LATTICES[lattice]
    generator = np.random.default_rng([dimension, piece])
    number = min(PIECE, NUM_VECTORS - piece * PIECE)
    spread = SPREADS[piece % len(SPREADS)] * (2 if lattice == "Leech" else 1)
    vectors = generator.normal(size=(number, dimension)) * spread
    begin = time.process_time()
    fast = search(vectors)
    middle = time.process_time()
    slow = slow_search(vectors)
    end = time.process_time()
    difference = np.square(vectors - fast).sum(axis=1) - np.square(vectors - slow).sum(axis=1)
    return {
        "vectors": number,
        "farther": int((difference > SLACK).sum()),
        "nearer": int((difference < -SLACK).sum()),
        "elsewhere": int(((np.abs(difference) <= SLACK) & (np.abs(fast - slow).max(axis=1) > SLACK)).sum()),
        "no point": int((~contains(fast)).sum()),
        "fast seconds": middle - begin,
        "slow seconds": end - middle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Fast nearest points against slow ones.")
    parser.add_argument("--rows", type=Path, required=True, help="file of JSON lines that is kept")
    parser.add_argument("--minutes", type=float, default=1e9, help="after which no new piece is begun")
    parser.add_argument("--text", type=Path, help="where the table goes")
    arguments = parser.parse_args()
    pieces = range(-(-NUM_VECTORS // PIECE))
    cases = [{"lattice": name, "piece": piece} for name in LATTICES for piece in pieces]
    rows = measure_missing(arguments.rows, cases, compare, arguments.minutes)
    columns = ("vectors", "farther", "nearer", "elsewhere", "no point", "fast seconds", "slow seconds")
    lines = [
        "fast and slow nearest points of random vectors, float64",
        "",
        f"{'':6}" + "".join(f"{name:>14}" for name in columns),
    ]
    for name in LATTICES:
        sums = [sum(row[column] for row in rows if row["lattice"] == name) for column in columns]
        lines.append(
            f"{name:6}"
            + "".join(
                f"{value:14.1f}" if "seconds" in column else f"{value:14d}"
                for column, value in zip(columns, sums, strict=True)
            )
        )
    report(lines, provenance(), arguments.text)


if __name__ == "__main__":
    main()

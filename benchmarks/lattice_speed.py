"""Coordinates a second of each nearest-point search, on one thread: slow, eager, fused, the codec's, and trellises.

`eager` is plain torch, pass by pass; `fused` the same compiled. `codec` is what the quantisers call, in numpy. The slow
search in the Leech lattice tries all 8192 cosets. Trellises include the choice of candidates, with prices of bits.
Below that, what packets take, search for the width and entropy coding included: seconds a million coordinates of a
Gaussian vector, without prediction, medians over packets after the first.

Run: `python benchmarks/lattice_speed.py --text lattice_speed.txt`. The first run compiles, which takes minutes.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from codec_tables import provenance, report
from numpy.typing import NDArray

from deadreckon.codec import Codec, CodecConfig
from deadreckon.codec.lattice_hexagonal import nearest as nearest_a2
from deadreckon.codec.lattice_kernels import KERNELS, compiled
from deadreckon.codec.lattice_leech import golay_words
from deadreckon.codec.lattice_leech import nearest as nearest_leech
from deadreckon.codec.lattice_points import dimension, nearest
from deadreckon.codec.scale_classes import NUM_CLASSES
from deadreckon.codec.symbols import MAX_DIRECT
from deadreckon.codec.trellis import NUM_KINDS, best_path, make_trellis, trellis_names
from deadreckon.codec.trellis_coding import branches
from deadreckon.forecast import Layout, TensorSpec

SIZE = 2**22
PACKET, NUM_PACKETS = 2**18, 4
STEPS = 128
REFERENCE = {"D4": 50.0, "E8": 25.0, "Leech": 0.009}  # Mcoordinates/s of eager or slow searches, measured before


def all_cosets(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Least squared distances to the Leech lattice, eagerly: every coset, with the parity of z repaired."""
    least = np.full(len(vectors), np.inf, np.float32)
    for m in (0, 1):
        for word in golay_words():
            residue = (m + 2 * word.astype(np.float32)).astype(np.float32)
            z = np.rint((vectors - residue) / 4)
            left = np.abs(vectors - residue - 4 * z)
            wrong = (z.sum(axis=1).astype(np.int32) - m) & 1
            np.minimum(least, (left * left).sum(axis=1) + wrong * (16 - 8 * left.max(axis=1)), out=least)
    return least


def rate(function: Callable[[], object], size: int, goes: int = 5) -> float:
    """Millions of coordinates a second of CPU time, the best of some goes."""
    best = np.inf
    for _ in range(goes):
        begin = time.process_time()
        function()
        best = min(best, time.process_time() - begin)
    return size / best / 1e6


def trellis(name: str, scaled: NDArray[np.float32], classes: NDArray[np.uint8], bits: NDArray[np.float32]) -> None:
    """Candidates and paths of many coordinates."""
    best_path(make_trellis(name), branches(scaled, classes, bits).costs, [len(scaled) // STEPS] * STEPS)


def packets(name: str, nmse: float, values: NDArray[np.float32]) -> tuple[float, float]:
    """Seconds of CPU time to encode and to decode a million coordinates."""
    layout = Layout((TensorSpec("all", (PACKET // 512, 512), "float32", 0, "other"),))
    codec = Codec(layout, CodecConfig("none", name, nmse=nmse))
    encoder, decoder = codec.encoder(), codec.decoder()
    seconds: list[tuple[float, float]] = []
    for step in range(NUM_PACKETS):
        vector = torch.from_numpy(values[step * PACKET : (step + 1) * PACKET])
        begin = time.process_time()
        packet = encoder.encode(vector, step)
        middle = time.process_time()
        decoder.decode(packet)
        seconds.append((middle - begin, time.process_time() - middle))
    encode, decode = np.median(np.array(seconds[1:]), axis=0) * 1e6 / PACKET
    return float(encode), float(decode)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of nearest-point searches.")
    parser.add_argument("--text", type=Path, help="where the table goes")
    parser.add_argument("--fused", nargs="*", default=tuple(KERNELS), choices=tuple(KERNELS), help="what to compile")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    values = (2 * generator.standard_normal(SIZE)).astype(np.float32)
    rows: list[tuple[str, str, float]] = []

    def add(name: str, way: str, function: Callable[[], object], size: int, goes: int = 5) -> None:
        rows.append((name, way, rate(function, size, goes)))
        print(*rows[-1], flush=True)

    add("Z", "codec", lambda: np.rint(values), SIZE)
    add("A2", "fast", partial(nearest_a2, values.reshape(-1, 2)), SIZE, 3)
    leech = 4 * values[: 24 * 2**12].reshape(-1, 24)
    add("Leech", "slow", partial(all_cosets, leech[:256]), 24 * 256, 2)
    add("Leech", "fast", partial(nearest_leech, leech), leech.size)
    bits = np.tile(0.1 * np.arange(MAX_DIRECT + 2, dtype=np.float32), (NUM_KINDS * NUM_CLASSES, 1))
    for name in trellis_names():
        classes = np.zeros(2**20, np.uint8)
        add(name, "codec", partial(trellis, name, values[: 2**20], classes, bits), 2**20, 3)
    columns = {name: torch.from_numpy(values.reshape(dimension(name), -1)) for name in KERNELS}
    for name in KERNELS:
        small = values[: 2**20].reshape(-1, dimension(name))
        add(name, "codec", partial(nearest, name, small), 2**20)
        add(name, "eager", partial(KERNELS[name], columns[name]), SIZE)
    for name in arguments.fused:
        kernel = compiled(name)
        if not torch.equal(kernel(columns[name]), KERNELS[name](columns[name])):
            raise AssertionError(f"The fused kernel of {name} differs from the eager one.")
        add(name, "fused", partial(kernel, columns[name]), SIZE)
    lines = ["million coordinates a second of CPU time, one thread", ""]
    lines += [f"{name:6} {way:6} {speed:10.3f}" for name, way, speed in rows]
    speeds = {(name, way): speed for name, way, speed in rows}
    lines += [
        "",
        "over the eager or slow search of this run, and over the one that was measured when the codec was designed",
    ]
    pairs = [(name, "fused", "eager") for name in arguments.fused] + [("Leech", "fast", "slow")]
    for name, way, base in pairs:
        speed = speeds[name, way]
        lines.append(f"{name:6} {speed / speeds[name, base]:8.1f} {speed / REFERENCE[name]:8.1f}")
    lines += [
        "",
        "packets: seconds a million coordinates, to encode and to decode",
        "       NMSE 0.5        0.1            0.01",
    ]
    for name in ("Z", "A2", "D4", "E8", "Leech", "T8", "T64"):
        cells = "".join("{:7.2f}{:7.2f}".format(*packets(name, nmse, values)) for nmse in (0.5, 0.1, 0.01))
        lines.append(f"{name:6}{cells}")
        print(lines[-1], flush=True)
    report(lines, provenance(), arguments.text)


if __name__ == "__main__":
    main()

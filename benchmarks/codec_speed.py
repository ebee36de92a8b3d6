"""Time and memory of one codec on one core: megabytes of float32 a second, both ways, and scratch in vectors.

Vectors of 10 M coordinates, Laplacian with a scale of its own for each of 24 tensors, as many packets as asked for; the
first three are left out. The decoder is another object that never saw the vectors. Memory is the peak of what numpy and
torch allocate during one call beyond what was held before it (tracemalloc sees numpy; torch is not used on this way),
in float32 vectors; the result itself is one of them.

Then one more packet of each is profiled: where the time goes, by function, in its own time without what it calls.

Run: `python benchmarks/codec_speed.py --text FILE`
"""

import argparse
import cProfile
import pstats
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from codec_tables import provenance, report

from deadreckon.codec import Codec, CodecConfig
from deadreckon.forecast import Layout, TensorSpec

CONFIGS: dict[str, dict[str, Any]] = {
    "fast": {"predictor": "none", "entropy": "runs", "nmse": 0.43, "hold": "mean_rate", "bits": 0.5},
    "fast, bound": {"predictor": "none", "entropy": "runs", "nmse": 0.43},
    "fast, previous": {"predictor": "previous", "entropy": "runs", "nmse": 0.43, "hold": "mean_rate", "bits": 0.5},
    "tables": {"lattice": "Z", "nmse": 0.43, "hold": "mean_rate", "bits": 0.5},
}
PROFILED = ("fast", "tables")
NUM_FUNCTIONS = 10  # shown of a profile


def layout_of_size(size: int) -> Layout:
    """24 matrices and as many biases."""
    columns = 1024
    rows = size // 24 // columns
    specs, offset = [], 0
    for index in range(24):
        for name, shape in ((f"{index}.weight", (rows, columns)), (f"{index}.bias", (rows,))):
            specs.append(TensorSpec(name, shape, "float32", offset, "other"))
            offset += int(np.prod(shape))
    return Layout(tuple(specs))


def vectors(layout: Layout, number: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    scales = np.concatenate([np.full(spec.numel, 2.0 ** generator.uniform(-1, 1), np.float32) for spec in layout])
    return [generator.laplace(size=layout.size).astype(np.float32) * scales for _ in range(number)]


def measure(config: CodecConfig, layout: Layout, rows: list[np.ndarray]) -> dict[str, float]:
    codec = Codec(layout, config)
    encoder, decoder = codec.encoder(), codec.decoder()
    megabytes, encoding, decoding, bits, errors = 4 * layout.size / 1e6, [], [], [], []
    scratch = {"encode": 0.0, "decode": 0.0}
    for step, row in enumerate(rows):
        last = step == len(rows) - 1
        begin = time.process_time()
        if last:
            tracemalloc.start()
        packet = encoder.encode(row, step)
        if last:
            scratch["encode"] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        middle = time.process_time()
        if last:
            tracemalloc.start()
        decoded = decoder.decode(packet)
        if last:
            scratch["decode"] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        end = time.process_time()
        if not torch.equal(decoded, encoder.reconstruction):
            raise AssertionError("The decoder's vector is not the encoder's.")
        if 3 <= step and not last:
            encoding.append(middle - begin)
            decoding.append(end - middle)
            bits.append(8 * len(packet) / layout.size)
            errors.append(encoder.last_report.nmse)
    return {
        "encode MB/s": megabytes / float(np.median(encoding)),
        "decode MB/s": megabytes / float(np.median(decoding)),
        "bits": float(np.mean(bits)),
        "nmse": float(np.mean(errors)),
        "encode scratch": scratch["encode"] / (4 * layout.size),
        "decode scratch": scratch["decode"] / (4 * layout.size),
    }


def shares(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a call returns, and the functions with the largest share of its time as lines."""
    profile = cProfile.Profile()
    result = profile.runcall(call)
    rows = [
        (own, f"{Path(file).name}:{name}" if file != "~" else name)
        for (file, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items()  # pyright: ignore
    ]
    whole = sum(own for own, _ in rows)
    best = sorted(rows, reverse=True)[:NUM_FUNCTIONS]
    return result, [f"{100 * own / whole:6.1f} %  {name}" for own, name in best]


def profile_text(config: CodecConfig, layout: Layout, rows: list[np.ndarray]) -> Iterator[str]:
    """Where the time of the last packet goes, both ways."""
    codec = Codec(layout, config)
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, row in enumerate(rows[:-1]):
        decoder.decode(encoder.encode(row, step))
    packet, lines = shares(lambda: encoder.encode(rows[-1], len(rows)))
    yield from ["encode", *lines]
    _, lines = shares(lambda: decoder.decode(packet))
    yield from ["decode", *lines]


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory of the codec on one core.")
    parser.add_argument("--size", type=int, default=10_000_000)
    parser.add_argument("--packets", type=int, default=10)
    parser.add_argument("--configs", nargs="+", choices=tuple(CONFIGS), default=tuple(CONFIGS))
    parser.add_argument("--text", type=Path, help="file for the table, which is printed anyway")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    layout = layout_of_size(arguments.size)
    rows = vectors(layout, arguments.packets)
    lines: list[str] = []
    for name in arguments.configs:
        row = measure(CodecConfig(**CONFIGS[name]), layout, rows)
        lines.append(f"{name:16s} " + "  ".join(f"{key} {value:.3g}" for key, value in row.items()))
    for name in PROFILED:
        lines += [
            "",
            f"Where the time of {name!r} goes:",
            *profile_text(CodecConfig(**CONFIGS[name]), layout, rows[:5]),
        ]
    report(lines, provenance(), arguments.text)


if __name__ == "__main__":
    main()

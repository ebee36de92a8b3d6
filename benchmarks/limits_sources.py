"""How far whole packets lie from the rate-distortion function, on sources drawn from each model.

Independent coordinates of variance 1, without prediction, at errors where the model's bound is 0.1 to 4 bits. Bits are
lengths of packets, headers included, over the last half of the packets, which is what a long run pays; the first packet
of a link has to tell more. The gap is bits less the bound at the error made.

Run: `python benchmarks/limits_sources.py --rows rows.jsonl --text limits_sources.txt`; it goes on where it stopped.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from codec_tables import provenance, report
from lattice_rows import Row, measure_missing, rows_of

from deadreckon.codec import Codec, CodecConfig
from deadreckon.codec.limits import GeneralisedGaussian, curve, space_filling_loss
from deadreckon.forecast import Layout, TensorSpec

SHAPES = (2.0, 1.0, 0.7, 0.5)
RATES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
ORDER = (0.5, 1.0, 4.0, 0.1, 2.0, 0.25)  # the hardest rates first
LATTICES = ("auto", "Z", "A2", "E8", "Leech", "T8", "T64")
SIZE, COLUMNS = 2**18, 512
NUM_PACKETS = 8
LAYOUT = Layout((TensorSpec("all", (SIZE // COLUMNS, COLUMNS), "float32", 0, "other"),))


def error_at(marginal: GeneralisedGaussian, rate: float) -> float:
    """The distortion at which the bound is a rate."""
    low, high = 1e-6, 1.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if curve(marginal).rate(middle) > rate else (low, middle)
    return low


def measure(shape: float, rate: float, lattice: str) -> Row:
    """The mean gap of the last packets."""
    marginal = GeneralisedGaussian(shape)
    nmse = error_at(marginal, rate)
    codec = Codec(LAYOUT, CodecConfig(predictor="none", lattice=lattice, nmse=nmse))
    encoder, decoder = codec.encoder(), codec.decoder()
    generator = np.random.default_rng(0)
    gaps, bits = [], []
    for step in range(NUM_PACKETS):
        vector = torch.from_numpy(marginal.sample(generator, SIZE).astype(np.float32))
        packet = encoder.encode(vector, step)
        assert torch.equal(decoder.decode(packet), encoder.reconstruction)
        bits.append(8 * len(packet) / SIZE)
        gaps.append(bits[-1] - curve(marginal).rate(encoder.last_report.nmse))
    late = NUM_PACKETS // 2
    return {"nmse": nmse, "bits": float(np.mean(bits[late:])), "gap": float(np.mean(gaps[late:])), "first_gap": gaps[0]}


def text_of(rows: list[Row], lattices: tuple[str, ...]) -> list[str]:
    """The tables."""
    lines = ["bits a coordinate above the rate-distortion function, last half of the packets", ""]
    for shape in SHAPES:
        marginal = GeneralisedGaussian(shape)
        lines.append(f"{marginal.name}")
        lines.append("  bound    NMSE " + "".join(f"{name:>9}" for name in lattices))
        for rate in RATES:
            here = {row["lattice"]: row for row in rows if (row["shape"], row["rate"]) == (shape, rate)}
            if here:
                gaps = "".join(f"{here[name]['gap']:9.4f}" if name in here else " " * 9 for name in lattices)
                lines.append(f"{rate:7.2f} {next(iter(here.values()))['nmse']:7.4f} {gaps}")
        lines.append("")
    losses = "".join(" " * 9 if name == "auto" else f"{space_filling_loss(name):9.4f}" for name in lattices)
    lines.append(f"  cells at high {losses}  (theory)")
    lines += ["", "largest gap of any source and rate"]
    for name in lattices:
        gaps = [(row["gap"], row["shape"], row["rate"]) for row in rows if row["lattice"] == name]
        if gaps:
            gap, shape, rate = max(gaps)
            lines.append(f"{name:>6} {gap:.4f}  ({GeneralisedGaussian(shape).name} at {rate:g} bit)")
    lines += ["", "first packet, which tells scales and has no tables yet: mean over sources and rates"]
    for name in lattices:
        first = [row["first_gap"] for row in rows if row["lattice"] == name]
        if first:
            lines.append(f"{name:>6} {np.mean(first):.4f}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Bits of whole packets above the rate-distortion function.")
    parser.add_argument("--rows", type=Path, required=True, help="file of JSON lines that is kept")
    parser.add_argument("--minutes", type=float, default=1e9, help="after which no new case is begun")
    parser.add_argument("--lattices", nargs="+", default=LATTICES)
    parser.add_argument("--rates", nargs="+", type=float, default=ORDER, help="of the bound, in this order")
    parser.add_argument("--text", type=Path, help="where the tables go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [
        {"shape": shape, "rate": rate, "lattice": name}
        for rate in arguments.rates
        for shape in SHAPES
        for name in arguments.lattices
    ]
    measure_missing(arguments.rows, cases, measure, arguments.minutes)
    rows = rows_of(arguments.rows)
    about = provenance()
    heading = [f"{NUM_PACKETS} packets of {SIZE} coordinates, predictor none; what is blank was not measured", ""]
    report([*heading, *text_of(rows, LATTICES)], about, arguments.text)


if __name__ == "__main__":
    main()

"""What each lattice takes on recorded gradients and pseudo-gradients at equal error, and how far that is from a bound.

Every stream is replayed at four errors in every lattice, with the default prediction. Bits are lengths of packets, all
of them, headers and key frame included. The bound is that of a named model of the vectors, known to both ends for
nothing, without prediction: for each tensor a generalised Gaussian of its own variance and shape (`tensors`); or one
for each class of half an octave of the running root mean square of the vectors before (`scales`). A codec that knows
more than the model may need fewer bits than its bound.

Run: `python benchmarks/lattice_streams.py --streams FOLDER --rows rows.jsonl --text lattice_streams.txt`, where FOLDER
was made by `record_streams.py`; it goes on where it stopped.
"""

import argparse
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from codec_replay import steps_of
from codec_tables import provenance, report
from lattice_rows import Row, measure_missing, rows_of
from record_streams import RecordedWindow, recorded_windows

from deadreckon.codec import Codec, CodecConfig
from deadreckon.codec.limits import fitted_components, scale_components, water_filling

STREAMS = "(mlp|conv|shakespeare|wikitext)-adam-128-late"
KINDS = ("gradients", "pseudo_gradients")
ERRORS = (0.5, 0.3, 0.1, 0.01)
LATTICES = ("Z", "auto", "A2", "D4", "E8", "Leech", "T8", "T64")
NUM_PACKETS = 14  # of pseudo-gradients there are 16
BOUNDS = ("tensors", "scales")
DECAY = 0.9  # of the running mean square


@cache
def windows(folder: Path) -> dict[str, RecordedWindow]:
    """The recorded windows, by name."""
    return {window.name: window for window in recorded_windows(folder, STREAMS)}


def bound(window: RecordedWindow, kind: str, nmse: float, model: str) -> float:
    """Mean bits a coordinate of a model's bound, over the packets."""
    vectors = np.asarray(window.load(kind)[:NUM_PACKETS], np.float32)
    spans = [spec.span for spec in window.layout if spec.numel]
    rates, mean = [], np.square(vectors[0], dtype=np.float64)
    for vector in vectors[1:] if model == "scales" else vectors:
        if model == "tensors":
            parts = fitted_components([vector[span] for span in spans])
        else:
            parts = scale_components(vector, np.sqrt(mean))
            mean = DECAY * mean + (1 - DECAY) * np.square(vector, dtype=np.float64)
        rates.append(water_filling(parts, nmse))
    return float(np.mean(rates))


def measure(folder: str, stream: str, kind: str, nmse: float, lattice: str) -> Row:
    """Bits a coordinate of a lattice, or of a model's bound."""
    window = windows(Path(folder))[stream]
    if lattice in BOUNDS:
        return {"bits": bound(window, kind, nmse, lattice)}
    vectors = window.load(kind)[:NUM_PACKETS]
    encoder = Codec(window.layout, CodecConfig(lattice=lattice, nmse=nmse)).encoder()
    num_bytes, symbol_bits = 0, 0
    for step, vector in zip(steps_of(window, kind), vectors, strict=False):
        num_bytes += len(encoder.encode(torch.from_numpy(np.asarray(vector, np.float32)), int(step)))
        assert encoder.last_report.nmse <= nmse * (1 + 1e-6)
        symbol_bits += encoder.last_report.symbol_bits
    number = len(vectors) * window.layout.size
    return {"bits": 8 * num_bytes / number, "symbol_bits": symbol_bits / number}


def text_of(rows: list[Row]) -> list[str]:
    """The tables."""
    lines: list[str] = []
    others = [name for name in LATTICES if name != "Z"]
    for kind in KINDS:
        lines += [f"{kind}: bits a coordinate of Z, of the two bounds, and of each lattice as a share of Z's", ""]
        for nmse in ERRORS:
            lines.append(f"NMSE {nmse:g}".ljust(28) + "".join(f"{name:>9}" for name in ("Z", *BOUNDS, *others)))
            shares: dict[str, list[float]] = {}
            here = [row for row in rows if (row["kind"], row["nmse"]) == (kind, nmse)]
            for stream in sorted({row["stream"] for row in here}):
                bits = {row["lattice"]: row["bits"] for row in here if row["stream"] == stream}
                if not {"Z", "E8"} <= set(bits):
                    continue
                cells = "".join(f"{bits[name]:9.4f}" if name in bits else " " * 9 for name in ("Z", *BOUNDS))
                for name in others:
                    if name in bits:
                        shares.setdefault(name, []).append(bits[name] / bits["Z"])
                cells += "".join(f"{bits[name] / bits['Z']:9.3f}" if name in bits else " " * 9 for name in others)
                lines.append(f"  {stream:26}{cells}")
            every = max((len(found) for found in shares.values()), default=0)
            means = "".join(
                f"{np.exp(np.mean(np.log(shares[name]))):9.3f}" if len(shares.get(name, ())) == every else " " * 9
                for name in others
            )
            lines += [f"  {'geometric mean of all':26}{' ' * 27}{means}".rstrip(), ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Bits of lattices on recorded streams, at equal error, and bounds.")
    parser.add_argument("--streams", type=Path, required=True, help="folder of recorded streams")
    parser.add_argument("--rows", type=Path, required=True, help="file of JSON lines that is kept")
    parser.add_argument("--minutes", type=float, default=1e9, help="after which no new case is begun")
    parser.add_argument("--only", default="", help="regular expression on the names of streams to measure now")
    parser.add_argument("--lattices", nargs="+", default=("Z", "E8", "T8", "tensors", "T64", "D4", "scales"))
    parser.add_argument("--text", type=Path, help="where the tables go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [
        {"folder": str(arguments.streams), "stream": name, "kind": kind, "nmse": nmse, "lattice": lattice}
        for lattice in arguments.lattices
        for nmse in ERRORS
        for name, window in windows(arguments.streams).items()
        for kind in KINDS
        if kind in window.kinds and re.search(arguments.only, name)
    ]
    measure_missing(arguments.rows, cases, measure, arguments.minutes)
    rows = rows_of(arguments.rows)
    heading = [f"up to {NUM_PACKETS} packets of each stream, predictor fitted", ""]
    report([*heading, *text_of(rows)], provenance(), arguments.text)


if __name__ == "__main__":
    main()

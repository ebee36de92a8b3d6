"""Bits of our codec and of compressors from the literature, at equal error, on recorded streams.

`alone`: each baseline replays a stream, without error feedback, at whatever error it has; then our codec replays the
same stream at that error (the mean over packets, as the bound of each). Only errors below 1 can be asked for, so noisy
unbiased methods are not in this table.

`mean`: unbiased against unbiased. Eight workers send the gradients of eight batches at the same weights, each with
randomness of its own, and what counts is the error of the mean, ||mean decoded - mean g||^2 / ||mean g||^2. Ours is
measured at several errors, and its bits at the baseline's error are read off the line between neighbours on
logarithmic scales. `slope` is <mean decoded, mean g> / ||mean g||^2: 1 for what is unbiased, less for what shrinks.

All packets are decoded in another process, as in `codec_rate.py`. Packets of baselines carry no checksum and no
digests, ours do. Ratios are ours over theirs, a geometric mean over streams; below 1 ours needs fewer bits.

Run: `python benchmarks/codec_baselines.py --streams FOLDER --json rows.json --text table.txt`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from codec_rate import CONTESTANTS, DEFAULT_KINDS, contestant_named
from codec_replay import Contestant, Link, Receiver, Sender, replay, spread, steps_of
from codec_tables import geometric_mean, parser_with_streams, provenance, report, write
from record_streams import RecordedWindow, recorded_windows

from deadreckon.codec import Codec, CodecConfig
from deadreckon.codec.baselines import Baseline, make_baseline
from deadreckon.forecast import Layout

OFF = {"feedback": "off"}  # one packet's error is compared; feedback is a matter of training, see `codec_accuracy.py`
ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "eden 1 bit": ("eden", {"bits": 1, "scale": "mse"}),
    "eden 2 bits": ("eden", {"bits": 2, "scale": "mse"}),
    "eden 4 bits": ("eden", {"bits": 4, "scale": "mse"}),
    "sign": ("sign", OFF),
    "top-k 1 %": ("topk", {"fraction": 0.01, "values": "float16", **OFF}),
    "powersgd rank 1": ("powersgd", {"rank": 1, **OFF}),
    "powersgd rank 4": ("powersgd", {"rank": 4, **OFF}),
    "dithered Z": ("dithered", {"lattice": "Z", "nmse": 0.1, "wiener": True}),
    "dithered A2": ("dithered", {"lattice": "A2", "nmse": 0.1, "wiener": True}),
    "int8": ("int8", {}),
    "bfloat16": ("bfloat16", {}),
}
UNBIASED: dict[str, tuple[str, dict[str, Any]]] = {
    "eden 1 bit": ("eden", {"bits": 1}),
    "eden 2 bits": ("eden", {"bits": 2}),
    "eden 4 bits": ("eden", {"bits": 4}),
    "qsgd 1": ("qsgd", {"levels": 1}),
    "qsgd 7": ("qsgd", {"levels": 7}),
    "terngrad": ("terngrad", {"clip": None}),
    "dithered Z": ("dithered", {"lattice": "Z", "nmse": 0.5}),
    "dithered A2": ("dithered", {"lattice": "A2", "nmse": 0.5}),
}
CURVE = (0.9, 0.7, 0.5, 0.35, 0.2, 0.1, 0.05, 0.02, 0.005)  # errors at which ours is measured for `mean`
WORKER = "#"  # between a baseline's name and the worker that it belongs to


def ours_unbiased(layout: Layout, nmse: float, worker: int) -> Link:
    """Our codec for means of workers: rounding at random, each worker with randomness of its own."""
    return Seeded(Codec(layout, CodecConfig(nmse=nmse, rounding="stochastic")), worker)


class Seeded(NamedTuple):
    """A codec whose encoder has a seed."""

    codec: Codec
    seed: int

    def encoder(self) -> Sender:
        """With the seed."""
        return self.codec.encoder(self.seed)

    def decoder(self) -> Receiver:
        """As any."""
        return self.codec.decoder()


class BaselineLink(NamedTuple):
    """A baseline and a layout."""

    baseline: Baseline
    layout: Layout

    def encoder(self) -> Sender:
        """A new one."""
        return self.baseline.encoder(self.layout)

    def decoder(self) -> Receiver:
        """A new one."""
        return self.baseline.decoder(self.layout)


def baseline_link(layout: Layout, nmse: float, name: str, options: dict[str, Any]) -> Link:
    """A baseline; it has the error that it has."""
    return BaselineLink(make_baseline(name, **options), layout)


def baseline_alone(name: str) -> Contestant:
    """An entry of `ALONE`."""
    kind, options = ALONE[name]
    return partial(baseline_link, name=kind, options=options)


def baseline_of_worker(name: str) -> Contestant:
    """An entry of `UNBIASED`, as `name#worker`."""
    entry, _, worker = name.partition(WORKER)
    kind, options = UNBIASED[entry]
    return partial(baseline_link, name=kind, options={**options, "seed": int(worker)})


def ours_of_worker(name: str) -> Contestant:
    """`ours_unbiased`, as `#worker`."""
    return partial(ours_unbiased, worker=int(name.removeprefix(WORKER)))


@dataclass(frozen=True)
class Row:
    """A baseline and our codec at its error, on one stream.

    Attributes:
        stream: name of the window.
        kind: of stream; `workers` for the mean of eight.
        baseline: its name.
        ours: name of our contestant.
        size: coordinates of a vector.
        packets: of one sender.
        bits: a coordinate, the baseline's.
        nmse: the baseline's, mean over packets; of the mean of the workers where there are several.
        our_bits: a coordinate, at that error; None where ours cannot be asked for it.
        our_nmse: that ours reached.
        slope: the baseline's, of the mean of the workers.
        our_slope: ours, at the error measured next to the baseline's.
    """

    stream: str
    kind: str
    baseline: str
    ours: str
    size: int
    packets: int
    bits: float
    nmse: float
    our_bits: float | None = None
    our_nmse: float | None = None
    slope: float | None = None
    our_slope: float | None = None


class Alone(NamedTuple):
    """One comparison of one sender."""

    window: RecordedWindow
    kind: str
    baseline: str
    ours: str
    num_packets: int


def compare_alone(case: Alone) -> Row:
    """The baseline, then ours at its error."""
    window = case.window
    vectors = window.load(case.kind)[: case.num_packets]

    def rates(name: str, nmse: float, lookup: Callable[[str], Contestant]) -> tuple[float, float]:
        found = replay(vectors, steps_of(window, case.kind), window.layout, name, nmse, lookup)
        packets = [packet for packet, _ in found]
        bits = sum(packet.num_bits for packet in packets) / (len(packets) * window.layout.size)
        return bits, sum(packet.nmse for packet in packets) / len(packets)

    bits, nmse = rates(case.baseline, 0.0, baseline_alone)
    row = Row(window.name, case.kind, case.baseline, case.ours, window.layout.size, len(vectors), bits, nmse)
    if not 0 < nmse < 1:
        return row
    our_bits, our_nmse = rates(case.ours, nmse, contestant_named)
    return Row(**{**asdict(row), "our_bits": our_bits, "our_nmse": our_nmse})


class Mean(NamedTuple):
    """One stream of eight workers."""

    window: RecordedWindow
    num_packets: int


class Point(NamedTuple):
    """Bits a coordinate of each worker, error of the mean, and slope."""

    bits: float
    nmse: float
    slope: float


def compare_mean(case: Mean) -> list[Row]:
    """All unbiased baselines, each with ours at its error."""
    window = case.window
    vectors = window.load("workers")[: case.num_packets]  # [time, worker, param]
    size = window.layout.size
    wanted = vectors.astype(np.float64).mean(1)

    def point(prefix: str, nmse: float, lookup: Callable[[str], Contestant]) -> Point:
        total, num_bits = np.zeros_like(wanted), 0
        for worker in range(vectors.shape[1]):
            name = f"{prefix}{WORKER}{worker}"
            found = replay(vectors[:, worker], steps_of(window, "workers"), window.layout, name, nmse, lookup)
            for time, (packet, decoded) in enumerate(found):
                total[time] += decoded.numpy()
                num_bits += packet.num_bits
        mean = total / vectors.shape[1]
        energy = np.square(wanted).sum(1)
        error = (np.square(mean - wanted).sum(1) / energy).mean()
        slope = ((mean * wanted).sum(1) / energy).mean()
        return Point(num_bits / vectors.size, float(error), float(slope))

    ours = [point("", nmse, ours_of_worker) for nmse in CURVE]
    rows: list[Row] = []
    for name in UNBIASED:
        theirs = point(name, 0.0, baseline_of_worker)
        row = Row(window.name, "workers", name, "ours_unbiased", size, len(vectors), theirs.bits, theirs.nmse)
        nearest = min(ours, key=lambda mine: abs(math.log(mine.nmse / theirs.nmse)))
        added = {
            "slope": theirs.slope,
            "our_bits": bits_at(ours, theirs.nmse),
            "our_nmse": theirs.nmse,
            "our_slope": nearest.slope,
        }
        rows.append(Row(**{**asdict(row), **added}))
    return rows


def bits_at(curve: Sequence[Point], nmse: float) -> float | None:
    """Bits where a curve passes an error, straight between neighbours on logarithmic scales; None outside of it."""
    points = sorted(curve, key=lambda point: point.nmse)
    for low, high in itertools.pairwise(points):
        if low.nmse <= nmse <= high.nmse and low.nmse < high.nmse:
            share = math.log(nmse / low.nmse) / math.log(high.nmse / low.nmse)
            return math.exp((1 - share) * math.log(low.bits) + share * math.log(high.bits))
    return None


def table_text(rows: Sequence[Row]) -> Iterator[str]:
    """The table of one kind of stream, line by line."""
    with_slope = rows[0].slope is not None
    names = list(dict.fromkeys(row.baseline for row in rows))
    width = max(len(name) for name in names)
    yield f"{rows[0].kind}: {len({row.stream for row in rows})} streams; ours is {rows[0].ours}"
    heads = ("NMSE", "bits", "ours", "ratio", "largest", "streams", *(("slope", "ours") if with_slope else ()))
    yield f"{'':{width}s} " + " ".join(f"{head:>9s}" for head in heads)
    for name in names:
        mine = [row for row in rows if row.baseline == name]
        both = [(row.our_bits, row.bits) for row in mine if row.our_bits]
        ratios = [ours / theirs for ours, theirs in both]
        cells = [
            f"{geometric_mean([row.nmse for row in mine if row.nmse]):9.2g}",
            f"{geometric_mean([row.bits for row in mine]):9.3f}",
            f"{geometric_mean([ours for ours, _ in both]):9.3f}",
            f"{geometric_mean(ratios):9.3f}",
            f"{max(ratios, default=math.nan):9.3f}",
            f"{len(ratios):9d}",
        ]
        for values in ([row.slope for row in mine], [row.our_slope for row in mine]) if with_slope else ():
            known = [value for value in values if value is not None]
            cells.append(f"{sum(known) / len(known) if known else math.nan:9.3f}")
        yield f"{name:{width}s} " + " ".join(cells)


def main() -> None:
    parser = parser_with_streams("Bits of our codec and of compressors from the literature, at equal error.")
    parser.add_argument("--ours", default="fitted", choices=tuple(CONTESTANTS), help="our contestant of `alone`")
    parser.add_argument(
        "--kinds", nargs="+", choices=DEFAULT_KINDS, default=DEFAULT_KINDS, help="kinds of stream of `alone`"
    )
    parser.add_argument("--parts", nargs="+", choices=("alone", "mean"), default=("alone", "mean"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    windows = recorded_windows(arguments.streams, arguments.only)
    alone = [
        Alone(window, kind, name, arguments.ours, arguments.packets)
        for kind in arguments.kinds
        for window in windows
        if kind in window.kinds
        for name in ALONE
    ]
    means = [Mean(window, arguments.packets) for window in windows if "workers" in window.kinds]
    rows: list[Row] = []
    if "alone" in arguments.parts:
        rows += spread(compare_alone, alone, arguments.jobs)
    if "mean" in arguments.parts:
        rows += [row for found in spread(compare_mean, means, arguments.jobs) for row in found]
    about = provenance()
    write({**about, "rows": [asdict(row) for row in rows]}, arguments.json)
    lines: list[str] = []
    for kind in (*arguments.kinds, "workers"):
        of_kind = [row for row in rows if row.kind == kind]
        lines += [*table_text(of_kind), "", ""] if of_kind else []
    report(lines, about, arguments.text)


if __name__ == "__main__":
    main()

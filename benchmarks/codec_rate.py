"""Bits of codecs on recorded streams, at equal error: the table that the codec's claims are made from.

Every stream is replayed as packets by every contestant at every error. The encoder runs here; the decoder runs in
another process, which is given the layout, the name of the contestant and the packets, and never a vector. What it
decodes must be equal, bit for bit, to what the encoder believes, and within the error asked for. Bits are the length of
packets, headers and key frame included; beside that they are counted without the first ten packets, which is what a
long run pays.

Ratios are to `REFERENCE` on the same stream at the same error, averaged as a geometric mean. Below 1 is a saving.

Run: `python benchmarks/codec_rate.py --streams FOLDER --json rows.json --text table.txt`, where FOLDER was made by
`record_streams.py`.
"""

import argparse
import contextlib
import datetime
import hashlib
import itertools
import json
import math
import multiprocessing
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from record_streams import RecordedWindow, recorded_windows
from torch import Tensor

from deadreckon.codec import Annulus, Codec, CodecConfig, RateDistortion, Scalar
from deadreckon.forecast import Layout, TensorSpec


class Sender(Protocol):
    """The encoder's side of a link."""

    def encode(self, vector: Tensor, step: int, /) -> bytes:
        """One vector as a packet."""
        ...

    @property
    def reconstruction(self) -> Tensor:
        """What the decoder makes of the last packet."""
        ...


class Receiver(Protocol):
    """The decoder's side of a link."""

    def decode(self, packet: bytes, /) -> Tensor:
        """The vector of a packet."""
        ...


class Link(Protocol):
    """Makes both sides."""

    def encoder(self) -> Sender:
        """A new one."""
        ...

    def decoder(self) -> Receiver:
        """A new one."""
        ...


Contestant = Callable[[Layout, float], Link]


def codec(layout: Layout, nmse: float, **options: Any) -> Link:
    """Our codec."""
    return Codec(layout, CodecConfig(nmse=nmse, **options))


def as_one_tensor(layout: Layout) -> Layout:
    """A layout of as many coordinates that says nothing about tensors."""
    return Layout((TensorSpec("all", (layout.size,), "float32", 0, "other"),))


REFERENCE = "none"
CONTESTANTS: dict[str, Contestant] = {
    REFERENCE: partial(codec, predictor="none", entropy="tensor_tables"),
    "one_table": lambda layout, nmse: codec(as_one_tensor(layout), nmse, predictor="none", entropy="tensor_tables"),
    "tables_fitted": partial(codec, predictor="fitted", entropy="tensor_tables"),
    "classes": partial(codec, predictor="none", dead_zone=0.2),
    "classes_rdo": partial(codec, predictor="none"),
    "previous": partial(codec, predictor="previous"),
    "momentum_norm": partial(codec, predictor="momentum_norm"),
    "momentum_projected": partial(codec, predictor="momentum_projected"),
    "fitted": partial(codec, predictor="fitted"),
    "linear": partial(codec, predictor="linear"),
    "adaptive_momentum": partial(codec, predictor="adaptive_momentum"),
    "four_rows": partial(codec, predictor=("previous", "second_last", "third_last", "momentum")),
    "rate_distortion": partial(codec, predictor="fitted", modes=RateDistortion()),
    "annulus": partial(codec, predictor="fitted", modes=Annulus()),
    "scalar": partial(codec, predictor="fitted", modes=Scalar()),
    "runs": partial(codec, predictor="none", entropy="runs"),
    "e8": partial(codec, predictor="fitted", lattice="E8"),
}
ERRORS = (0.5, 0.1, 0.01)
KINDS = ("gradients", "updates", "pseudo_gradients")
WARM_UP = 10  # packets that the second count leaves out
SLACK = 1e-9  # of the check of the error, for sums in another order


class Case(NamedTuple):
    """One replay; `contestant` names an entry of a table of this module."""

    window: RecordedWindow
    kind: str
    contestant: str
    nmse: float
    num_packets: int


@dataclass(frozen=True)
class Row:
    """What one replay cost.

    Attributes:
        stream: name of the window.
        workload: network and data.
        optimizer: that trained it.
        batch: samples.
        phase: of the training.
        kind: of stream.
        contestant: its name.
        nmse: asked for.
        size: coordinates of a vector.
        packets: replayed.
        bits: of all packets.
        late_bits: of all packets but the first `WARM_UP`.
        mean_nmse: that was reached, over packets.
        worst_nmse: of a packet.
        encode_seconds: of a packet, wall-clock.
    """

    stream: str
    workload: str
    optimizer: str
    batch: int
    phase: str
    kind: str
    contestant: str
    nmse: float
    size: int
    packets: int
    bits: int
    late_bits: int
    mean_nmse: float
    worst_nmse: float
    encode_seconds: float


class Packet(NamedTuple):
    """What one packet of a replay cost and gave."""

    num_bits: int
    nmse: float
    seconds: float


def digest_of(vector: Tensor) -> bytes:
    """Of a vector's float32 bytes."""
    return hashlib.sha256(vector.numpy().astype("<f4").tobytes()).digest()


def serve(pipe: Connection, lookup: Callable[[str], Contestant]) -> None:
    """The decoding process: for each replay the link's terms, then packets, then digests of what they decode to."""
    torch.set_num_threads(1)
    with contextlib.suppress(
        EOFError, ConnectionError
    ):  # the other process has ended, perhaps in the middle of a replay
        while True:
            layout, contestant, nmse = pipe.recv()
            decoder = lookup(contestant)(Layout.from_dict(layout), nmse).decoder()
            pipe.send([digest_of(decoder.decode(packet)) for packet in iter(pipe.recv_bytes, b"")])


def contestant_named(name: str) -> Contestant:
    """An entry of `CONTESTANTS`."""
    return CONTESTANTS[name]


@cache
def decoding_process(lookup: Callable[[str], Contestant]) -> Connection:
    """The pipe to this process's own decoding process, which ends with it."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=serve, args=(there, lookup), daemon=True).start()
    there.close()
    return here


def replay(
    vectors: Iterable[NDArray[np.float32]],
    steps: Iterable[int],
    layout: Layout,
    contestant: str,
    nmse: float,
    lookup: Callable[[str], Contestant] = contestant_named,
) -> Iterator[tuple[Packet, Tensor]]:
    """Send vectors to the decoding process; what each cost, and what was decoded.

    Raises:
        AssertionError: after the last one, if something was decoded to other bits than the encoder believes.
    """
    pipe = decoding_process(lookup)
    pipe.send((layout.to_dict(), contestant, nmse))
    encoder = lookup(contestant)(layout, nmse).encoder()
    digests: list[bytes] = []
    for vector, step in zip(vectors, steps, strict=False):
        given = torch.from_numpy(np.array(vector))
        began = time.perf_counter()
        packet = encoder.encode(given, step)
        seconds = time.perf_counter() - began
        pipe.send_bytes(packet)
        decoded = encoder.reconstruction
        digests.append(digest_of(decoded))
        energy = float(given.double().square().sum())
        error = float((decoded.double() - given.double()).square().sum())
        yield Packet(8 * len(packet), error / energy if energy else 0.0, seconds), decoded
    pipe.send_bytes(b"")
    if pipe.recv() != digests:
        raise AssertionError(f"{contestant} at NMSE {nmse}: the decoder's vectors are not the encoder's.")


def steps_of(window: RecordedWindow, kind: str) -> Iterator[int]:
    """The optimiser steps of a window's vectors."""
    return itertools.count(window.metadata.first_step, window.metadata.local_steps if kind == "pseudo_gradients" else 1)


def row_of(case: Case, packets: Sequence[Packet]) -> Row:
    """The sums of a replay."""
    about = case.window.metadata
    errors = [packet.nmse for packet in packets]
    return Row(
        stream=case.window.name,
        workload=about.workload,
        optimizer=about.optimizer,
        batch=about.batch_size,
        phase=about.phase,
        kind=case.kind,
        contestant=case.contestant,
        nmse=case.nmse,
        size=about.size,
        packets=len(packets),
        bits=sum(packet.num_bits for packet in packets),
        late_bits=sum(packet.num_bits for packet in packets[WARM_UP:]),
        mean_nmse=sum(errors) / len(errors),
        worst_nmse=max(errors),
        encode_seconds=sum(packet.seconds for packet in packets) / len(packets),
    )


def measure(case: Case) -> Row:
    """Replay one case and check the error of every packet."""
    vectors = case.window.load(case.kind)[: case.num_packets]
    steps = steps_of(case.window, case.kind)
    found = replay(vectors, steps, case.window.layout, case.contestant, case.nmse)
    packets: list[Packet] = []
    for packet, _ in found:
        packets.append(packet)
        if packet.nmse > case.nmse * (1 + SLACK):
            raise AssertionError(
                f"{case.contestant} did not keep NMSE {case.nmse} on {case.window.name}, {case.kind}, packet "
                f"{len(packets) - 1}: {packet.nmse}."
            )
    return row_of(case, packets)


def geometric_mean(ratios: Sequence[float]) -> float:
    """NaN of nothing."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


class Table:
    """Ratios of bits to the reference's.

    Args:
        rows: of one kind of stream.
        late: whether the first packets are left out.
    """

    def __init__(self, rows: Sequence[Row], late: bool = False) -> None:
        def bits(row: Row) -> int:
            return row.late_bits if late else row.bits

        reference = {(row.stream, row.nmse): bits(row) for row in rows if row.contestant == REFERENCE}
        # A stream no longer than the warm-up has no late bits.
        with_ratio = [row for row in rows if reference.get((row.stream, row.nmse))]
        self._ratios = [(row, bits(row) / reference[row.stream, row.nmse]) for row in with_ratio]

    def ratios(self, contestant: str, nmse: float, **having: Any) -> list[float]:
        """Of the streams whose attributes are as given."""
        return [
            ratio
            for row, ratio in self._ratios
            if row.contestant == contestant
            and row.nmse == nmse
            and all(getattr(row, name) == value for name, value in having.items())
        ]


def table_text(rows: Sequence[Row], errors: Sequence[float]) -> Iterator[str]:
    """The tables of one kind of stream, line by line.

    `all` counts every packet, `largest` is the worst stream's ratio of `all`, `reached` the share of the error asked
    for that was used up, `ms` the time of an encoding; the last two over all errors. Breakdowns are of `all`.
    """
    whole, late = Table(rows), Table(rows, late=True)
    contestants = list(dict.fromkeys(row.contestant for row in rows))
    width = max(len(name) for name in contestants)
    streams = {row.stream for row in rows}
    reference = [row for row in rows if row.contestant == REFERENCE]
    yield f"{rows[0].kind}: {len(streams)} streams, {min(row.packets for row in rows)} packets or more each"
    for nmse in errors:
        rates = [row.bits / (row.packets * row.size) for row in reference if row.nmse == nmse]
        if rates:
            mean, low, high = geometric_mean(rates), min(rates), max(rates)
            yield f"  NMSE {nmse:g}: {REFERENCE} {mean:.4f} bits a coordinate ({low:.4f} to {high:.4f})"
    yield ""
    cells = [("all", whole, geometric_mean), (f"after {WARM_UP}", late, geometric_mean), ("largest", whole, max)]
    yield f"{'':{width}s}  " + "  ".join(f"{f'NMSE {nmse:g}':26s}" for nmse in errors) + "  reached  ms"
    yield f"{'':{width}s}  " + "  ".join(" ".join(f"{name:>8s}" for name, _, _ in cells) for _ in errors)
    for name in contestants:
        groups: list[str] = []
        for nmse in errors:
            values = [(reduce, table.ratios(name, nmse)) for _, table, reduce in cells]
            groups.append(" ".join(f"{reduce(ratios) if ratios else math.nan:8.4f}" for reduce, ratios in values))
        mine = [row for row in rows if row.contestant == name]
        reached = geometric_mean([row.mean_nmse / row.nmse for row in mine if row.mean_nmse])
        milliseconds = 1000 * sum(row.encode_seconds for row in mine) / len(mine)
        yield f"{name:{width}s}  " + "  ".join(groups) + f"  {reached:7.3f} {milliseconds:3.0f}"
    for attribute in ("workload", "batch", "phase", "optimizer"):
        values = sorted({getattr(row, attribute) for row in rows}, key=_in_order)
        if len(values) == 1:
            continue
        columns = 12 * len(values) - 1
        yield ""
        yield f"{'by ' + attribute:{width}s}  " + "  ".join(f"{f'NMSE {nmse:g}':{columns}s}" for nmse in errors)
        yield f"{'':{width}s}  " + "  ".join(" ".join(f"{value!s:>11s}" for value in values) for _ in errors)
        for name in contestants:
            groups = []
            for nmse in errors:
                means = [geometric_mean(whole.ratios(name, nmse, **{attribute: value})) for value in values]
                groups.append(" ".join(f"{mean:11.4f}" for mean in means))
            yield f"{name:{width}s}  " + "  ".join(groups)


def _in_order(value: Any) -> Any:
    phases = ("early", "middle", "late")
    return (phases.index(value), "") if value in phases else (0, value)


def provenance() -> dict[str, str]:
    """When, where and with what something was measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": ", ".join(f"{name} {version(name)}" for name in ("deadreckon", "torch", "numpy", "constriction")),
        "machine": f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, one thread each",
    }


def write(data: dict[str, Any], path: Path | None) -> None:
    """As JSON, if there is a path."""
    if path is not None:
        path.write_text(json.dumps(data, indent=1) + "\n")


def spread(function: Callable[[Any], Any], cases: Sequence[Any], jobs: int) -> Iterator[Any]:
    """Results in order of cases, from this process or from several."""
    if jobs == 1:
        yield from map(function, cases)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from pool.map(function, cases)


def parser_with_streams(description: str) -> argparse.ArgumentParser:
    """The options that say which streams, how much of them, and where the results go."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--streams", type=Path, required=True, help="folder of `record_streams.py`")
    parser.add_argument("--only", default="", help="regular expression on names of streams")
    parser.add_argument("--packets", type=int, default=10**9, help="at most this many of each stream")
    parser.add_argument("--jobs", type=int, default=1, help="encoding processes, each with a decoding one")
    parser.add_argument("--json", type=Path, help="file for all rows")
    parser.add_argument("--text", type=Path, help="file for the table, which is printed anyway")
    return parser


def report(lines: Iterable[str], about: dict[str, str], path: Path | None) -> None:
    """Print a table under its provenance, and write it to a file, if there is one."""
    text = "\n".join(
        [
            f"{about['date']}, {about['versions']}",
            about["machine"],
            about["command"],
            "",
            *(line.rstrip() for line in lines),
        ]
    )
    print(text)
    if path is not None:
        path.write_text(text.rstrip() + "\n")


def main() -> None:
    parser = parser_with_streams("Bits of codecs on recorded streams, at equal error.")
    parser.add_argument(
        "--contestants", default="", help="regular expression on their names; the reference always runs"
    )
    parser.add_argument("--nmse", type=float, nargs="+", default=ERRORS, help="errors")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="kinds of stream")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in CONTESTANTS if name == REFERENCE or re.search(arguments.contestants, name)]
    windows = recorded_windows(arguments.streams, arguments.only)
    cases = [
        Case(window, kind, name, nmse, arguments.packets)
        for kind in arguments.kinds
        for window in windows
        if kind in window.kinds
        for nmse in arguments.nmse
        for name in names
    ]
    rows: list[Row] = []
    for row in spread(measure, cases, arguments.jobs):
        rows.append(row)
        rate = row.bits / (row.packets * row.size)
        text = f"{len(rows)}/{len(cases)} {row.stream} {row.kind} {row.nmse:g} {row.contestant}: {rate:.4f}"
        print(text, file=sys.stderr, flush=True)
    about = provenance()
    write({**about, "rows": [asdict(row) for row in rows]}, arguments.json)
    lines: list[str] = []
    for kind in arguments.kinds:
        of_kind = [row for row in rows if row.kind == kind]
        lines += [*table_text(of_kind, arguments.nmse), "", ""] if of_kind else []
    report(lines, about, arguments.text)


if __name__ == "__main__":
    main()

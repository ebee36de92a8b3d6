"""What a replay cost, as rows, tables of ratios, and files under the date and the versions that made them.

Ratios are to `REFERENCE` on the same stream at the same error, averaged as a geometric mean. Below 1 is a saving.
"""

import argparse
import datetime
import json
import math
import platform
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

REFERENCE = "none"
WARM_UP = 10  # packets that the second count leaves out


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
        sent_nmse: mean over packets of the error against what was to be sent; with error feedback that is not the
            vector that was coded, which the two before are about.
        sum_nmse: the error of the sum of all decoded vectors, against the sum of all that were to be sent.
        motion_nmse: mean over packets but the first of the error over the energy of the difference to the vector
            before.
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
    sent_nmse: float = math.nan
    sum_nmse: float = math.nan
    motion_nmse: float = math.nan


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

    def moved(nmse: float) -> str:
        if rows[0].kind != "weights":
            return ""
        shares = [row.motion_nmse for row in reference if row.nmse == nmse]
        return f"; {geometric_mean(shares):.3g} of the movement's energy ({min(shares):.2g} to {max(shares):.2g})"

    yield f"{rows[0].kind}: {len(streams)} streams, {min(row.packets for row in rows)} packets or more each"
    for nmse in errors:
        rates = [row.bits / (row.packets * row.size) for row in reference if row.nmse == nmse]
        if rates:
            mean, low, high = geometric_mean(rates), min(rates), max(rates)
            yield f"  NMSE {nmse:g}: {REFERENCE} {mean:.4f} bits a coordinate ({low:.4f} to {high:.4f}){moved(nmse)}"
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

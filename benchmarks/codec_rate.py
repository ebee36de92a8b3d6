"""Bits of codecs on recorded streams, at equal error: the tables that the codec's claims are made from.

Every stream is replayed as packets by every contestant at every error. The encoder runs here; the decoder runs in
another process, which is given the layout, the name of the contestant and the packets, and never a vector. What it
decodes must be equal, bit for bit, to what the encoder believes, and within the error asked for. Bits are the length of
packets, headers and key frame included; beside that they are counted without the first ten packets, which is what a
long run pays.

Run: `python benchmarks/codec_rate.py --streams FOLDER --json rows.json --text table.txt`, where FOLDER was made by
`record_streams.py`.
"""

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from codec_replay import Contestant, Link, Packet, replay, spread, steps_of
from codec_tables import REFERENCE, WARM_UP, Row, parser_with_streams, provenance, report, table_text, write
from numpy.typing import NDArray
from record_streams import RecordedWindow, recorded_windows

from deadreckon.codec import Annulus, Codec, CodecConfig, RateDistortion, Scalar
from deadreckon.forecast import Layout, TensorSpec
from deadreckon.models import load_forecaster


def codec(layout: Layout, nmse: float, **options: Any) -> Link:
    """Our codec, in Z if nothing else is said."""
    return Codec(layout, CodecConfig(**{"lattice": "Z", "nmse": nmse, **options}))


def as_one_tensor(layout: Layout) -> Layout:
    """A layout of as many coordinates that says nothing about tensors."""
    return Layout((TensorSpec("all", (layout.size,), "float32", 0, "other"),))


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
    "auto": partial(codec, predictor="fitted", lattice="auto"),
    "ef21": partial(codec, predictor="ef21"),
    "feedback_classic": partial(codec, predictor="fitted", feedback="classic"),
    "feedback_leaky": partial(codec, predictor="fitted", feedback="leaky"),
}
OWED = {"feedback_classic": 1.0, "feedback_leaky": 0.9}  # the share of an error that enters the next vector
FILE = "@"  # between the name of a learned contestant and the file of its forecaster
ERRORS = (0.5, 0.1, 0.01)
KINDS = ("gradients", "updates", "pseudo_gradients", "weights")
DEFAULT_KINDS = KINDS[:3]  # weights want errors of their own, see `codec_rate_weights.txt`
SLACK = 1e-9  # of the check of the error, for sums in another order
FEEDBACK_SLACK = 1e-5  # there the codec adds what is owed in float32, the check in float64

Vector = NDArray[Any]


class Case(NamedTuple):
    """One replay; `contestant` names an entry of `CONTESTANTS`, or is what `learned` takes."""

    window: RecordedWindow
    kind: str
    contestant: str
    nmse: float
    num_packets: int


def learned(layout: Layout, nmse: float, path: str) -> Link:
    """Our codec behind a forecaster that was fitted before, from `save_forecaster`'s file."""
    forecaster = load_forecaster(path)
    return Codec(layout, CodecConfig(lattice="Z", nmse=nmse, predictor=forecaster), stream=forecaster.stream)


def contestant_named(name: str) -> Contestant:
    """An entry of `CONTESTANTS`; or `any name@file` for `learned`."""
    _, separator, path = name.partition(FILE)
    return partial(learned, path=path) if separator else CONTESTANTS[name]


class Errors:
    """The errors of a replay, counted apart from the codec.

    Args:
        owed_share: of an error that enters the next vector, 0 without error feedback.
    """

    def __init__(self, owed_share: float = 0.0) -> None:
        self.coded: list[float] = []
        self.sent: list[float] = []
        self.motion: list[float] = []
        self._share = owed_share
        self._owed: Vector | float = 0.0
        self._sums: tuple[Vector, Vector] | None = None
        self._last: Vector | None = None

    def add(self, given: Vector, decoded: Vector) -> None:
        """Count one packet: what was to be sent, and what was decoded."""
        given, decoded = given.astype(np.float64), decoded.astype(np.float64)
        coded = given + self._owed
        error = _energy(decoded - given)
        self.coded.append(_ratio(_energy(decoded - coded), _energy(coded)))
        self.sent.append(_ratio(error, _energy(given)))
        if self._last is not None:
            self.motion.append(_ratio(error, _energy(given - self._last)))
        if self._share:
            self._owed = self._share * (coded - decoded)
        wanted, got = self._sums if self._sums else (0.0, 0.0)
        self._sums = wanted + given, got + decoded
        self._last = given

    @property
    def of_sum(self) -> float:
        """||sum of decoded - sum of given||^2 / ||sum of given||^2."""
        if self._sums is None:
            return math.nan
        wanted, got = self._sums
        return _ratio(_energy(got - wanted), _energy(wanted))


def _energy(vector: Vector) -> float:
    return float(vector @ vector)


def _ratio(error: float, energy: float) -> float:
    return error / energy if energy else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def row_of(case: Case, packets: Sequence[Packet], errors: Errors) -> Row:
    """The sums of a replay."""
    about = case.window.metadata
    return Row(
        stream=case.window.name,
        workload=about.workload,
        optimizer=about.optimizer,
        batch=about.batch_size,
        phase=about.phase,
        kind=case.kind,
        contestant=case.contestant.partition(FILE)[0],
        nmse=case.nmse,
        size=about.size,
        packets=len(packets),
        bits=sum(packet.num_bits for packet in packets),
        late_bits=sum(packet.num_bits for packet in packets[WARM_UP:]),
        mean_nmse=_mean(errors.coded),
        worst_nmse=max(errors.coded),
        encode_seconds=_mean([packet.seconds for packet in packets]),
        sent_nmse=_mean(errors.sent),
        sum_nmse=errors.of_sum,
        motion_nmse=_mean(errors.motion),
    )


def measure(case: Case) -> Row:
    """Replay one case and check the error of every packet."""
    vectors = case.window.load(case.kind)[: case.num_packets]
    steps = steps_of(case.window, case.kind)
    owed = OWED.get(case.contestant, 0.0)
    slack = FEEDBACK_SLACK if owed else SLACK
    errors, packets = Errors(owed), list[Packet]()
    found = replay(vectors, steps, case.window.layout, case.contestant, case.nmse, contestant_named)
    for (packet, decoded), vector in zip(found, vectors, strict=True):
        packets.append(packet)
        errors.add(vector, decoded.numpy())
        if errors.coded[-1] > case.nmse * (1 + slack):
            raise AssertionError(
                f"{case.contestant} did not keep NMSE {case.nmse} on {case.window.name}, {case.kind}, packet "
                f"{len(packets) - 1}: {errors.coded[-1]}."
            )
    return row_of(case, packets, errors)


def measure_all(cases: Sequence[Case], jobs: int) -> list[Row]:
    """The rows of all cases, in order; tells the standard error stream how far it is."""
    rows: list[Row] = []
    for row in spread(measure, cases, jobs):
        rows.append(row)
        rate = row.bits / (row.packets * row.size)
        text = f"{len(rows)}/{len(cases)} {row.stream} {row.kind} {row.nmse:g} {row.contestant}: {rate:.4f}"
        print(text, file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = parser_with_streams("Bits of codecs on recorded streams, at equal error.")
    parser.add_argument(
        "--contestants", default="", help="regular expression on their names; the reference always runs"
    )
    parser.add_argument("--nmse", type=float, nargs="+", default=ERRORS, help="errors")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=DEFAULT_KINDS, help="kinds of stream")
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
    rows = measure_all(cases, arguments.jobs)
    about = provenance()
    write({**about, "rows": [asdict(row) for row in rows]}, arguments.json)
    lines: list[str] = []
    for kind in arguments.kinds:
        of_kind = [row for row in rows if row.kind == kind]
        lines += [*table_text(of_kind, arguments.nmse), "", ""] if of_kind else []
    report(lines, about, arguments.text)


if __name__ == "__main__":
    main()

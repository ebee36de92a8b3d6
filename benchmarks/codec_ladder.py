"""What each part of the codec saves on recorded streams, at equal error: one rung after the other in one table.

From the bottom: one probability table for all coordinates (`one_table`), a table for each tensor and no prediction
(`none`, to which all ratios are), tables by expected scale with plain rounding (`classes`) and with rounding that knows
what symbols cost (`classes_rdo`). On top of that, one prediction at a time; on top of the prediction `fitted`, one mode
policy, one lattice or one rule of error feedback at a time.

`learned_linear` and `neural_ode` are forecasters of the coded stream. They are fitted to the true vectors of another
window of the same run, `FITTED_TO`, and never see a vector that is coded.

With error feedback the vector that is coded is not the one that was to be sent, and it is the coded one whose error is
asked for. So three errors are shown: `coded`, of the vector that was coded; `sent`, against the one that was to be
sent; `sum`, of the sum of all decoded vectors against that of all that were to be sent. Without feedback the first two
are the same. They are geometric means over streams of the mean over packets.

Run: `python benchmarks/codec_ladder.py --streams FOLDER --only early --packets 12 --json rows.json --text table.txt`,
where FOLDER was made by `record_streams.py`.
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from codec_rate import CONTESTANTS, DEFAULT_KINDS, ERRORS, FILE, Case, measure_all
from codec_replay import steps_of
from codec_tables import REFERENCE, Row, Table, geometric_mean, parser_with_streams, provenance, report, write
from record_streams import RecordedWindow, recorded_windows

from deadreckon.forecast import Window
from deadreckon.forecast.case import Case as Exercise
from deadreckon.models import Budget, fit_forecaster, make_forecaster, save_forecaster
from deadreckon.models.fitting import FittableForecaster

LEARNED: dict[str, dict[str, Any]] = {"learned_linear": {"history": 5}, "neural_ode": {"history": 4}}
FITTED_TO = "middle"  # phase of the window that they learn from
NUM_FITTED = 20  # vectors of that window
BUDGET = Budget(iterations=200)
RUNGS = (
    "one_table",
    REFERENCE,
    "classes",
    "classes_rdo",
    "previous",
    "momentum_projected",
    "adaptive_momentum",
    "fitted",
    "four_rows",
    *LEARNED,
    "scalar",
    "annulus",
    "rate_distortion",
    "e8",
    "auto",
    "feedback_classic",
    "feedback_leaky",
)


def exercises(window: RecordedWindow, kind: str, history: int, num_vectors: int) -> list[Exercise]:
    """Cases with the answer one packet ahead, from the first vectors of a window's stream."""
    values = torch.from_numpy(window.load(kind)[:num_vectors].copy())
    steps = torch.tensor([step for step, _ in zip(steps_of(window, kind), values, strict=False)])
    return [
        Exercise(
            Window(values[end - history : end], steps[end - history : end], window.layout, kind),
            {int(steps[end] - steps[end - 1]): values[end]},
        )
        for end in range(history, len(values))
    ]


def fit(name: str, window: RecordedWindow, kind: str, path: Path) -> None:
    """Fit a learned forecaster to a window's stream, and save it."""
    forecaster = make_forecaster(name, stream=kind, **LEARNED[name])
    assert isinstance(forecaster, FittableForecaster)
    cases = exercises(window, kind, forecaster.history, NUM_FITTED)
    found = fit_forecaster(forecaster, cases, BUDGET, torch.Generator().manual_seed(0))
    save_forecaster(forecaster, path)
    print(f"{name} of {window.name}: validation error {found.validation_error:.3f}", file=sys.stderr, flush=True)


def cases_of(
    windows: Sequence[RecordedWindow],
    teachers: dict[str, RecordedWindow],
    kind: str,
    names: Sequence[str],
    errors: Sequence[float],
    num_packets: int,
    folder: Path,
) -> list[Case]:
    """All replays of one kind of stream; learned forecasters are fitted on the way and saved in a folder."""
    cases: list[Case] = []
    for window in windows:
        if kind not in window.kinds:
            continue
        for name in names:
            contestant = name
            if name in LEARNED:
                about = window.metadata
                teacher = teachers.get(f"{about.workload}-{about.optimizer}-{about.batch_size}-{FITTED_TO}")
                if teacher is None or teacher.name == window.name:
                    continue
                path = folder / f"{name}-{kind}-{teacher.name}.safetensors"
                if not path.exists():
                    fit(name, teacher, kind, path)
                contestant = f"{name}{FILE}{path}"
            cases += [Case(window, kind, contestant, nmse, num_packets) for nmse in errors]
    return cases


def ladder_text(rows: Sequence[Row], errors: Sequence[float]) -> Iterator[str]:
    """The table of one kind of stream, line by line.

    `ratio` is of bits to `REFERENCE` on the same streams, `rate` the bits a coordinate, a geometric mean over streams,
    `saved` the bits a coordinate that are fewer than the reference's, an arithmetic mean.
    """
    table = Table(rows)
    reference = {(row.stream, row.nmse): row for row in rows if row.contestant == REFERENCE}
    names = list(dict.fromkeys(row.contestant for row in rows))
    width = max(len(name) for name in names)
    streams = {row.stream for row in rows}
    yield f"{rows[0].kind}: {len(streams)} streams, {min(row.packets for row in rows)} packets or more each"
    yield ""
    heads = " ".join(f"{name:>7s}" for name in ("ratio", "rate", "saved", "coded", "sent", "sum"))
    yield f"{'':{width}s}  " + "  ".join(f"{f'NMSE {nmse:g}':47s}" for nmse in errors) + "  streams  ms"
    yield f"{'':{width}s}  " + "  ".join(heads for _ in errors)
    for name in names:
        groups: list[str] = []
        for nmse in errors:
            mine = [row for row in rows if row.contestant == name and row.nmse == nmse]
            saved = [
                (reference[row.stream, nmse].bits - row.bits) / (row.packets * row.size)
                for row in mine
                if (row.stream, nmse) in reference
            ]
            measured = [
                geometric_mean([value for row in mine if (value := getattr(row, attribute)) > 0])
                for attribute in ("mean_nmse", "sent_nmse", "sum_nmse")
            ]
            mean_saved = sum(saved) / len(saved) if saved else float("nan")
            rate = geometric_mean([row.bits / (row.packets * row.size) for row in mine])
            values = [geometric_mean(table.ratios(name, nmse)), rate, mean_saved, *measured]
            groups.append(" ".join(f"{value:7.4f}" for value in values))
        mine = [row for row in rows if row.contestant == name]
        milliseconds = 1000 * sum(row.encode_seconds for row in mine) / len(mine)
        yield f"{name:{width}s}  " + "  ".join(groups) + f"  {len({row.stream for row in mine}):7d} {milliseconds:3.0f}"


def main() -> None:
    parser = parser_with_streams("What each part of the codec saves on recorded streams, at equal error.")
    parser.add_argument(
        "--contestants", default="", help="regular expression on their names; the reference always runs"
    )
    parser.add_argument("--nmse", type=float, nargs="+", default=ERRORS, help="errors")
    parser.add_argument("--kinds", nargs="+", choices=DEFAULT_KINDS, default=("gradients",), help="kinds of stream")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [
        name
        for name in RUNGS
        if name == REFERENCE or (re.search(arguments.contestants, name) and (name in CONTESTANTS or name in LEARNED))
    ]
    windows = recorded_windows(arguments.streams, arguments.only)
    teachers = {window.name: window for window in recorded_windows(arguments.streams, f"-{FITTED_TO}$")}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            cases = cases_of(windows, teachers, kind, names, arguments.nmse, arguments.packets, Path(folder))
            rows += measure_all(cases, arguments.jobs)
    about = provenance()
    write({**about, "rows": [asdict(row) for row in rows]}, arguments.json)
    lines: list[str] = []
    for kind in arguments.kinds:
        of_kind = [row for row in rows if row.kind == kind]
        lines += [*ladder_text(of_kind, arguments.nmse), "", ""] if of_kind else []
    report(lines, about, arguments.text)


if __name__ == "__main__":
    main()

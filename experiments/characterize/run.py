"""Everything that is measured of one run, as plain rows for the result file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...forecast import Trajectory
from .advice import advise, check, setting_text
from .marginals import FAMILIES, blurred, judge, tails
from .options import CharacterizeOptions
from .rows import PHASES, Rows, open_folder, read_phases, streams_of
from .scales import TEST, TRAIN, ladder, thirds
from .space import space
from .time import cross_cosine, dependence

TABLES = ("marginals", "scales", "time", "space", "drift", "advice", "checks", "heat", "densities")
MIN_SIZE = 32  # coordinates of a tensor that gets fits of its own
TENSOR_SHARE = 4  # fewer samples for one tensor
GRADIENTS, UPDATES = "gradients", "updates"
SHOWN = np.linspace(-8, 8, 65)  # edges of a histogram, in root mean squares
FACTS = ("task", "network", "width", "optimizer", "learning_rate", "batch_size", "init", "seed")

Table = dict[str, list[dict[str, Any]]]


def measure_run(folder: Path, number: int, options: CharacterizeOptions) -> tuple[dict[str, Any], Table]:
    """What a run is, and the rows of every table about it; no rows where it has none of the streams.

    Args:
        folder: of the run.
        number: that the rows tell the run by.
        options: of the command.

    Raises:
        TrajectoryError: if the trajectory is damaged.
    """
    generator = np.random.default_rng([options.seed, number])
    tables: Table = {name: [] for name in TABLES}
    with open_folder(folder) as trajectory:
        about = _facts(trajectory, folder)
        for stream in streams_of(trajectory, options.streams):
            key = {"run": number, "stream": stream}
            _measure_stream(trajectory, stream, key, about, options, generator, tables)
    return about, tables


def _facts(trajectory: Trajectory, folder: Path) -> dict[str, Any]:
    told: Mapping[str, Any] = trajectory.metadata
    about: dict[str, Any] = {"folder": str(folder), "num_parameters": trajectory.layout.size}
    for name in FACTS:
        value = told.get(name)
        about[name] = value if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    about["batch_size"] = about["batch_size"] if isinstance(about["batch_size"], int) else None
    for name in ("task", "network", "optimizer", "init"):
        about[name] = str(about[name]).lower() if about[name] is not None else None
    return about


def _measure_stream(
    trajectory: Trajectory,
    stream: str,
    key: Mapping[str, Any],
    about: Mapping[str, Any],
    options: CharacterizeOptions,
    generator: np.random.Generator,
    tables: Table,
) -> None:
    ladders, times, spaces = [], [], []
    scales: dict[str, np.ndarray] = {}
    last: Rows | None = None
    updates: Mapping[str, Rows] = {}
    if stream == GRADIENTS and UPDATES in trajectory.streams:
        updates = {item.phase: item for item in read_phases(trajectory, UPDATES, options.rows, options.local_rows)}
    for rows in read_phases(trajectory, stream, options.rows, options.local_rows):
        here = {**key, "phase": rows.phase}
        tables["marginals"] += _marginals(rows, here, options.samples, generator)
        if not any(item["run"] == key["run"] and item["stream"] == stream for item in tables["densities"]):
            tables["densities"].append({**here, **_density(rows, options.samples, generator)})
        ladders.append(ladder(rows, options.samples, options.nmse, generator))
        tables["scales"] += [{**here, **asdict(rung)} for rung in ladders[-1]]
        times.append(dependence(rows, options.lags, about["batch_size"] if stream == GRADIENTS else None))
        tables["time"].append({**here, **_time_row(rows, times[-1], updates.get(rows.phase))})
        spaces.append(space(rows))
        bits = {"value_bits": spaces[-1].value_bits, "sign_bits": spaces[-1].sign_bits}
        tables["space"].append({**here, **asdict(spaces[-1]), **bits})
        tables["heat"].append({**here, "steps": times[-1].steps.tolist(), "cosines": times[-1].cosines.tolist()})
        scales[rows.phase] = _tensor_scales(rows)
        last = rows
    if last is None:
        return
    tables["drift"] += [{**key, **row} for row in _drift(last, scales)]
    advice = advise(ladders, times, spaces, options.nmse)
    told = {"config": advice.config.to_dict(), "setting": setting_text(advice.config)}
    found = {"mean_bits": advice.mean_bits, "scale_bits": advice.scale_bits, "neighbours": advice.neighbours}
    tables["advice"].append({**key, **told, **found})
    if options.packets is not None:
        values, steps = last.values[-options.packets :], last.steps[-options.packets :].tolist()
        for item in check(advice, last.layout, stream, values, steps):
            row = {name: getattr(item, name) for name in ("name", "bits", "nmse", "seconds", "packets")}
            tables["checks"].append({**key, **row, "setting": setting_text(item.config)})


def _groups(rows: Rows) -> list[tuple[str, str, np.ndarray]]:
    """What gets fits of its own: everything, each kind of tensor, each tensor; with its coordinates."""
    specs = [spec for spec in rows.layout if spec.numel]
    places = {spec.name: np.arange(spec.offset, spec.offset + spec.numel) for spec in specs}
    groups = [("all", "all", np.arange(rows.layout.size))]
    for kind in dict.fromkeys(spec.kind for spec in specs):
        own = [places[spec.name] for spec in specs if spec.kind == kind]
        groups.append(("kind", kind, np.concatenate(own)))
    return groups + [("tensor", spec.name, places[spec.name]) for spec in specs if spec.numel >= MIN_SIZE]


def _split(
    rows: Rows, part: np.ndarray, columns: np.ndarray, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Values to fit to, of even rows, and to judge by, of odd rows and other coordinates."""
    found = []
    for parity, share in ((0, TRAIN), (1, TEST)):
        lines = np.arange(parity, len(rows), 2)
        own = columns[part[columns] == share]
        found.append(rows.values[generator.choice(lines, count), generator.choice(own, count)].astype(np.float64))
    return found[0], found[1]


def _marginals(
    rows: Rows, here: Mapping[str, Any], samples: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    part = thirds(rows.layout.size, generator)
    table: list[dict[str, Any]] = []
    for group, name, columns in _groups(rows):
        values = rows.values[:, columns]
        unit = math.sqrt(float(np.mean(np.square(values, dtype=np.float64))))
        if unit == 0 or any(not (part[columns] == share).any() for share in (TRAIN, TEST)):
            continue
        count = samples if group != "tensor" else max(100, samples // TENSOR_SHARE)
        train, test = _split(rows, part, columns, count, generator)
        found = judge(blurred(train, unit, generator), blurred(test, unit, generator))
        table.append(
            {
                **here,
                "group": group,
                "name": name,
                "size": len(columns),
                "rms": unit,
                "best": found.best,
                "gap": found.gap,
                "bits": found.bits,
                "shapes": found.shapes,
                "p_gaussian": found.p_gaussian,
                "p_best": found.p_best,
                **asdict(tails(values)),
            }
        )
    return table


def _density(rows: Rows, samples: int, generator: np.random.Generator) -> dict[str, Any]:
    """A histogram of all values over their root mean square, and the fitted densities at its bins."""
    part = thirds(rows.layout.size, generator)
    unit = math.sqrt(float(np.mean(np.square(rows.values, dtype=np.float64))))
    train, _ = _split(rows, part, np.arange(rows.layout.size), samples, generator)
    fitted = blurred(train, unit, generator)
    centres = (SHOWN[1:] + SHOWN[:-1]) / 2
    counts, _ = np.histogram(rows.values / np.float32(unit), SHOWN)
    fits = {name: fit(fitted).density for name, fit in FAMILIES.items()}
    # Means over bins, as the histogram has them.
    width = SHOWN[1] - SHOWN[0]
    return {
        "at": centres.tolist(),
        "measured": (counts / rows.values.size / width).tolist(),
        "fits": {name: (np.diff(density.cdf(SHOWN)) / width).tolist() for name, density in fits.items()},
    }


def _time_row(rows: Rows, found: Any, updates: Rows | None) -> dict[str, Any]:
    noise = found.noise
    row: dict[str, Any] = {
        "every": rows.every,
        "momentum": found.momentum,
        "nmse": found.nmse,
        "bits": found.bits,
        "noise_batch": noise.batch if noise else None,
        "noise_predicted": noise.predicted if noise else None,
        "noise_measured": noise.measured if noise else None,
        "own_update": None,
        "last_update": None,
        "lags": [asdict(lag) for lag in found.lags],
    }
    if updates is not None:  # an update goes against the gradient
        for name, shift in (("own_update", 0), ("last_update", 1)):
            cosine = cross_cosine(rows, updates, shift)
            row[name] = -cosine if cosine is not None else None
    return row


def _tensor_scales(rows: Rows) -> np.ndarray:
    energy = np.mean(np.square(rows.values, dtype=np.float64), axis=0)
    return np.array([math.sqrt(float(energy[spec.span].mean())) for spec in rows.layout if spec.numel])


def _drift(rows: Rows, scales: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Root mean squares of each tensor by phase, and the bits that a table of the first phase loses in the last.

    That is the divergence of two Gaussians, (r - 1 - ln r) / (2 ln 2) with r the ratio of their variances.
    """
    phases = [phase for phase in PHASES if phase in scales]
    if len(phases) < 2:
        return []
    table: list[dict[str, Any]] = []
    for place, spec in enumerate(spec for spec in rows.layout if spec.numel):
        first, final = (float(scales[phase][place]) for phase in (phases[0], phases[-1]))
        if first > 0 and final > 0:
            ratio = (final / first) ** 2
            lost = (ratio - 1 - math.log(ratio)) / (2 * math.log(2))
            by_phase = {phase: float(scales[phase][place]) for phase in phases}
            row = {"tensor": spec.name, "kind": spec.kind, "size": spec.numel, "scales": by_phase}
            table.append({**row, "octaves": math.log2(final / first), "bits": lost})
    return table


def merged(tables: Sequence[Table]) -> Table:
    """The rows of several runs, table by table."""
    return {name: [row for item in tables for row in item[name]] for name in TABLES}

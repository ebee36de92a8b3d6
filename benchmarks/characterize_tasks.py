"""The page `docs/gradients.md` with its figures: what gradients, updates and pseudo-gradients of our tasks are like.

Two sets of runs, each kept as trajectories of three windows of consecutive rows, early, middle and late:

    tasks     streams of `record_streams.py`: three workloads with Adam at batches of 32, 128 and 1024 and with SGD at
              32, and a fourth with Adam at 32
    variants  batch 64, an mlp on Fashion-MNIST and a small conv net on the digits: five ways in which the weights
              begin, with Adam; and four optimisers (Adam, SGD, Adan, Muon), with PyTorch's own initialisation

Both are characterised by `deadreckon characterize`, whose sentences and figures the page consists of. What exists is
not made again, so an interrupted run goes on where it stopped.

Run: `DEADRECKON_DATA=... python benchmarks/characterize_tasks.py --streams FOLDER --out FOLDER --docs docs`. Where the
streams are not there yet, they are recorded, which takes an hour or two; the rest takes half an hour.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from characterize_page import make_page
from numpy.typing import NDArray
from record_streams import ORDER, WIDTH, WORKLOADS, RecordedWindow, Run, gradient_of, recorded_windows, save, windows_of

from deadreckon.experiments.characterize.command import assembled
from deadreckon.experiments.characterize.options import CharacterizeOptions
from deadreckon.experiments.characterize.rows import run_folders
from deadreckon.experiments.characterize.run import Table, measure_run
from deadreckon.experiments.files import write_whole
from deadreckon.experiments.initialisation import init_names, initialise
from deadreckon.experiments.race.optimizers import make_race_optimizer
from deadreckon.experiments.results import Result, read_result, write_result
from deadreckon.experiments.tasks import Batches, load_task, make_network
from deadreckon.forecast import Layout, Trajectory, flatten, layout_of, trainable_parameters
from deadreckon.models.threads import one_thread

BATCH_SIZE = 64
STARTS = {"early": 10, "middle": 200, "late": 560}
LENGTH = 40
RATES: Mapping[str, Mapping[str, float]] = {
    "adam": {"rate": 0.003},
    "sgd": {"rate": 0.03},
    "adan": {"rate": 0.003},
    "muon": {"rate": 0.01, "adam_rate": 0.003},
}
SETTINGS = (("adam", 32), ("sgd", 32), ("adam", 128), ("adam", 1024))
ROWS, SAMPLES, PACKETS = 24, 4000, 10  # fewer than the command's defaults: many runs say more than many rows
TASKS = [Run(workload, *rest) for rest in ORDER if rest in SETTINGS for workload in WORKLOADS if workload != "wikitext"]
TASKS.insert(3, Run("wikitext", "adam", 32))
STREAMS = ("gradients", "updates", "pseudo_gradients")


class Variant(NamedTuple):
    """One run of the second set."""

    network: str
    optimizer: str
    init: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.network}-{self.optimizer}-{self.init}"


NETWORKS = {"mlp": "fashion_mnist", "conv": "digits"}  # and the task that each of them learns
VARIANTS = [Variant(network, "adam", init) for network in NETWORKS for init in init_names()]
VARIANTS += [Variant(network, name, "default") for network in NETWORKS for name in RATES if name != "adam"]


@dataclass
class Recorded:
    """Rows of a run's streams by optimiser step."""

    layout: Layout
    metadata: dict[str, Any]
    rows: dict[int, dict[str, NDArray[np.float32]]]


def store(recorded: Recorded, folder: Path) -> None:
    """Write a run as a trajectory; it has its name only once it is whole."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    streams = tuple(name for name in STREAMS if any(name in row for row in recorded.rows.values()))
    with Trajectory.create(part / "trajectory", recorded.layout, streams, recorded.metadata) as trajectory:
        for step, row in sorted(recorded.rows.items()):
            trajectory.append(step, row)
    part.rename(folder)


def of_windows(windows: Sequence[RecordedWindow]) -> Recorded:
    """The run that some windows of `record_streams.py` belong to."""
    ordered = sorted(windows, key=lambda window: window.metadata.first_step)
    about = ordered[0].metadata
    workload = WORKLOADS[about.workload]
    metadata = {
        "task": workload.task,
        "network": workload.network,
        "width": WIDTH,
        "optimizer": about.optimizer,
        "learning_rate": about.learning_rate,
        "schedule": "constant",
        "batch_size": about.batch_size,
        "init": "default",
        "seed": about.seed,
    }
    rows: dict[int, dict[str, NDArray[np.float32]]] = {}
    for window in ordered:
        for name in STREAMS:
            if name in window.kinds:
                every = about.local_steps if name == "pseudo_gradients" else 1
                for number, values in enumerate(window.load(name)):
                    rows.setdefault(window.metadata.first_step + (number + 1) * every, {})[name] = values
    return Recorded(ordered[0].layout, metadata, rows)


def record_variant(variant: Variant) -> Recorded:
    """Train one run of the second set and keep its windows."""
    task = load_task(NETWORKS[variant.network])
    network = make_network(variant.network, task, 0)
    initialise(network, variant.init, 0)
    layout = layout_of(network)
    num_steps = max(STARTS.values()) + LENGTH
    optimizer = make_race_optimizer(variant.optimizer, network, dict(RATES[variant.optimizer]), num_steps)
    batches = Batches(task.train, BATCH_SIZE, num_steps, 0)
    rows: dict[int, dict[str, NDArray[np.float32]]] = {}

    def weights() -> torch.Tensor:
        return flatten({name: value.detach() for name, value in trainable_parameters(network).items()}, layout)

    for step in range(num_steps):
        kept = any(start <= step < start + LENGTH for start in STARTS.values())
        gradient, _ = gradient_of(network, layout, batches[step])
        before = weights()
        optimizer.step()
        if kept:
            rows[step + 1] = {"gradients": gradient.numpy(), "updates": (weights() - before).numpy()}
    metadata = {
        "task": task.name,
        "network": variant.network,
        "width": 1.0,
        "optimizer": variant.optimizer,
        "learning_rate": RATES[variant.optimizer]["rate"],
        "schedule": "constant",
        "batch_size": BATCH_SIZE,
        "init": variant.init,
        "seed": 0,
    }
    return Recorded(layout, metadata, rows)


def missing_streams(folder: Path) -> Iterator[Run]:
    """Runs of `record_streams.py` of which a window is missing."""
    for run in TASKS:
        if any(not (folder / run.name(phase)).exists() for phase in run.starts):
            yield run


def measured(run: Path, part: Path, options: CharacterizeOptions) -> None:
    """Characterise one run and keep the rows in a file of its own, whole or not at all."""
    about, tables = measure_run(run, 0, options)
    write_whole(part, json.dumps([about | {"folder": run.name}, tables]))


def result_of(parts: Sequence[Path], folder: Path, options: CharacterizeOptions) -> Result:
    """The result file of a set of runs, made of the rows of each."""
    found: list[tuple[dict[str, Any], Table]] = []
    for number, path in enumerate(parts):
        about, tables = json.loads(path.read_text())
        found.append((about, {name: [row | {"run": number} for row in rows] for name, rows in tables.items()}))
    write_result(folder, "characterize", assembled(found, options))
    return read_result(folder)


def steps(arguments: argparse.Namespace) -> Iterator[str]:
    """Do what is missing, one thing after the other, and tell what was done."""
    for run in missing_streams(arguments.streams):
        for phase, window, layout in windows_of(run):
            if not (arguments.streams / run.name(phase)).exists():
                save(arguments.streams, run, phase, window, layout)
        yield f"recorded {run.workload} {run.optimizer} {run.batch_size}"
    for run in TASKS:
        place = arguments.out / "tasks" / f"{run.workload}-{run.optimizer}-{run.batch_size}"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            names = [run.name(phase) for phase in run.starts]
            store(of_windows([item for item in recorded_windows(arguments.streams) if item.name in names]), place)
            yield f"stored {place.name}"
    for variant in VARIANTS:
        if not (arguments.out / "variants" / variant.name).exists():
            store(record_variant(variant), arguments.out / "variants" / variant.name)
            yield f"recorded {variant.name}"
    results: dict[str, Result] = {}
    for name in ("tasks", "variants"):
        place = arguments.out / name
        options = CharacterizeOptions(
            name, str(place), rows=ROWS, samples=SAMPLES, packets=PACKETS, logger="none", progress=False
        )
        parts: list[Path] = []
        for folder in run_folders([str(place)]):
            parts.append(arguments.out / "parts" / name / f"{folder.name}.json")
            if not parts[-1].exists():
                measured(folder, parts[-1], options)
                yield f"measured {folder.name}"
        results[name] = result_of(parts, arguments.out / f"{name}_result", options)
    if arguments.docs is not None:
        write_whole(arguments.docs / "gradients.md", make_page(results, arguments.docs / "figures"))
        yield "written"


def main() -> None:
    parser = argparse.ArgumentParser(description="Characterise the streams of our tasks and write the page about it.")
    parser.add_argument("--streams", type=Path, required=True, help="windows of record_streams.py, made if need be")
    parser.add_argument("--out", type=Path, required=True, help="where trajectories and results go")
    parser.add_argument("--docs", type=Path, help="where gradients.md and figures go; without it nothing is written")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing new after so many seconds")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with one_thread():
        for done in steps(arguments):
            seconds = time.perf_counter() - began
            print(f"{seconds:6.0f} s  {done}", flush=True)
            if seconds > arguments.seconds:
                break


if __name__ == "__main__":
    main()

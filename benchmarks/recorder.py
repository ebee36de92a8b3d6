"""What recording costs: the training thread's time, the writer beside others, and reads before and after `compact`.

Three parts, each beside its rivals in one run, in turns, so that a busy machine slows all of them:

* `training`: a multilayer perceptron of 10 million parameters under Lightning, without a recorder, with a row every
  10th step and with a row at every step, for several lengths of a step.
* `writing`: rows of 40 MB by `Trajectory.append`, by one plain file written on and on, and by zarr-python.
* `reading`: 10,000 neighbouring coordinates over 200 rows, before and after `compact`, with the files dropped from the
  page cache first, and with them in it. Rows have 2.5 million coordinates: as many files are touched as with rows of
  10 million, and the disk of the machine that this was run on takes too long for 16 GB.

Run as `python benchmarks/recorder.py PART FOLDER`; the folder's disk is what is measured. `reading` needs 4 GB there.
"""

import logging
import os
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import zarr
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from deadreckon.callbacks import TrajectoryRecorder
from deadreckon.forecast import Layout, TensorSpec, Trajectory, compact

SIZE, READ_SIZE = 10_000_000, 2_500_000
STEPS, WARM = 30, 4
LAYOUT = Layout((TensorSpec("w", (SIZE,), "float32", 0, "weight"),))


class Net(pl.LightningModule):
    """Ten million parameters in 12 matrices."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        inner = [layer for _ in range(10) for layer in (nn.Linear(980, 980), nn.ReLU())]
        self.network = nn.Sequential(nn.Linear(400, 980), nn.ReLU(), *inner, nn.Linear(980, 10))
        self.begun: list[float] = []

    @override
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.begun.append(time.perf_counter())
        return self.network(batch).square().mean()

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-4)


def train(batch_size: int, recorder: TrajectoryRecorder | None) -> float:
    """Seconds a step, of all steps but the first few; with a recorder until everything is on its way."""
    module = Net()
    callbacks: list[pl.Callback] = [] if recorder is None else [recorder]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = [torch.randn(batch_size, 400)] * STEPS
    trainer.fit(module, DataLoader(batches, batch_size=None))  # pyright: ignore[reportArgumentType]
    return (module.begun[-1] - module.begun[WARM]) / (len(module.begun) - 1 - WARM)


def training(folder: Path) -> None:
    """The training thread's time."""
    print(f"{'step':>8} {'rows':>10} {'longer by':>10} {'copy, ms/row':>13} {'waiting, ms/row':>16}")
    for batch_size in (24, 96, 288):
        seconds: dict[int, list[float]] = {0: [], 10: [], 1: []}
        copying: dict[int, list[float]] = {10: [], 1: []}
        waiting: dict[int, list[float]] = {10: [], 1: []}
        for _ in range(2):
            for every, found in seconds.items():
                recorder = TrajectoryRecorder(folder / "run", every) if every else None
                found.append(train(batch_size, recorder))
                if recorder is not None:
                    shutil.rmtree(folder / "run")
                    costs, count = recorder.ledger.activities, STEPS // every + 1
                    copying[every].append(1e3 * costs["recording"].wall_seconds / count)
                    waited = costs.get("waiting for the writer")
                    waiting[every].append(1e3 * waited.wall_seconds / count if waited else 0.0)
        plain = min(seconds[0])
        for every in (10, 1):
            longer = min(seconds[every]) / plain - 1
            name = "every 10th" if every == 10 else "every step"
            print(
                f"{1e3 * plain:5.0f} ms {name:>10} {longer:>10.1%} {min(copying[every]):>13.1f} "
                f"{min(waiting[every]):>16.1f}",
                flush=True,
            )


def copying(folder: Path) -> None:
    """The copy of one row alone, in the training thread."""
    from deadreckon.callbacks.recorded_streams import RecordedStreams, choose

    module = Net()
    plan = RecordedStreams(
        module, [torch.optim.SGD(module.parameters(), lr=0.1)], ("weights",), 1, choose(module, "*", None, 0)
    )
    size = plan.selection.layout.size
    rows = [np.zeros(size, np.float32) for _ in range(2)]
    times: list[float] = []
    for turn in range(40):
        begin = time.perf_counter()
        plan.take("weights", 0, rows[turn % 2])
        times.append(1e3 * (time.perf_counter() - begin))
    print(
        f"copy of a row of {4 * size / 1e6:.0f} MB: median {statistics.median(times):.1f} ms, best {min(times):.1f} ms"
    )


def writing(folder: Path) -> None:
    """The writer beside a plain file and zarr-python."""
    row = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    per_turn, turns = 6, 5
    trajectory = Trajectory.create(folder / "ours", LAYOUT)
    plain = open(folder / "plain", "wb", buffering=0)
    array = zarr.create_array(
        str(folder / "zarr"), shape=(0, SIZE), chunks=(1, 2**20), dtype="float32", compressors=None, zarr_format=3
    )
    step = 0

    def ours() -> None:
        trajectory.append(step, {"weights": row})

    def file() -> None:
        plain.write(row.data.cast("B"))

    def by_zarr() -> None:
        array.resize((array.shape[0] + 1, SIZE))
        array[-1] = row

    writers: dict[str, Callable[[], None]] = {"Trajectory": ours, "plain file": file, "zarr-python": by_zarr}
    speeds: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(turns):
        for name, write in writers.items():
            os.sync()  # nobody pays for the others' pages
            begin = time.perf_counter()
            for _ in range(per_turn):
                step += 1
                row[0] = step
                write()
            speeds[name].append(per_turn * row.nbytes / 1e6 / (time.perf_counter() - begin))
    trajectory.close()
    plain.close()
    for name, found in speeds.items():
        print(
            f"{name:>12}: median {statistics.median(found):6.0f} MB/s, best {max(found):6.0f}, worst {min(found):6.0f}"
        )
    ratios = [
        (mine / other, mine / third) for mine, other, third in zip(*(speeds[name] for name in writers), strict=True)
    ]
    print(f"Trajectory beside the plain file, median of turns: {statistics.median(r for r, _ in ratios):.2f}")
    print(f"Trajectory beside zarr-python, median of turns: {statistics.median(r for _, r in ratios):.1f}")


def drop(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def reading(folder: Path) -> None:
    """Reads of a few coordinates before and after `compact`."""
    row = np.random.default_rng(0).standard_normal(READ_SIZE).astype(np.float32)
    with Trajectory.create(
        folder / "run", Layout((TensorSpec("w", (READ_SIZE,), "float32", 0, "weight"),))
    ) as trajectory:
        for step in range(200):
            row[step::997] += 1
            trajectory.append(step, {"weights": row})
    begin = time.perf_counter()
    compact(folder / "run", folder / "compact")
    print(f"compact: {time.perf_counter() - begin:.0f} s for {200 * row.nbytes / 1e9:.0f} GB", flush=True)
    for path in (folder / "run", folder / "compact"):
        drop(path)
    times: dict[tuple[str, str], list[float]] = {}
    for start in (100_000, 900_000, 1_500_000, 1_777_777, 2_300_000):
        values: list[Any] = []
        for name in ("run", "compact"):
            stream = Trajectory.open(folder / name).stream("weights")
            for kind in ("cold", "warm"):
                begin = time.perf_counter()
                values.append(stream.read(slice(None), start, start + 10_000))
                times.setdefault((name, kind), []).append(1e3 * (time.perf_counter() - begin))
        assert all(np.array_equal(values[0], other) for other in values)
    for (name, kind), found in times.items():
        print(f"{name:>8}, {kind}: median {statistics.median(found):6.1f} ms")
    for kind in ("cold", "warm"):
        ratio = statistics.median(times["run", kind]) / statistics.median(times["compact", kind])
        print(f"after compact, {kind}: {ratio:.1f} times faster")


PARTS = {"training": training, "copying": copying, "writing": writing, "reading": reading}

if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    part, place = sys.argv[1], Path(sys.argv[2])
    place.mkdir(parents=True)
    print(f"{part}: {time.strftime('%F %T')}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}", flush=True)
    try:
        PARTS[part](place)
    finally:
        shutil.rmtree(place)

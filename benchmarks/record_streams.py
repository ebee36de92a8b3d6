"""Real streams for the codec's benchmarks: gradients, updates, pseudo-gradients and weights of networks in training.

Every run trains one network on one workload with one optimiser and one batch size, and keeps three windows of 40
consecutive gradients: early, middle and late. A window is a folder `<workload>-<optimizer>-<batch>-<phase>` of

    gradients.npy          [40, param]    of the loss of each batch
    updates.npy            [40, param]    parameters after the optimiser's step less those before; Adam only
    pseudo_gradients.npy   [16, param]    parameters before 20 local steps less those after, 16 times in a row
    weights.npy            [17, param]    parameters before the first and after each of those 16 rounds
    moments.npy            [2, param]     Adam's running means of gradients and of squares, before the first step of it
    workers.npy            [6, 8, param]  gradients of 8 workers' batches at the same weights; two runs only
    layout.json            names, shapes and order of the tensors, `Layout.to_dict`
    metadata.json          where it comes from, and the loss

all float32, without pickle. Training goes on by the first worker's gradient. A window that exists is not made again,
and a folder has its name only once it is whole.

At batch 1024 there are no rounds, so neither pseudo-gradients nor weights, and training is shorter: `late` begins at
step 300 for the network without convolution or attention. The other three take seconds for a step; they have 20
gradients, early and late, and late begins at step 50, after twice the samples of step 800 at batch 32. `first_step` in
metadata.json says where each window begins.

Run: `DEADRECKON_DATA=... python benchmarks/record_streams.py FOLDER`
"""

import argparse
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from deadreckon.experiments.optimizers import make_optimizer
from deadreckon.experiments.tasks import Batches, TaskData, load_task, make_network
from deadreckon.experiments.tasks.shakespeare import CONTEXT, split_text
from deadreckon.forecast import Layout, flatten, layout_of, trainable_parameters
from deadreckon.models.threads import one_thread

KINDS = ("gradients", "updates", "pseudo_gradients", "weights", "moments", "workers")
LENGTH = 40  # gradients in a window
COSTLY_LENGTH = 20  # of runs that are costly
LOCAL_STEPS, NUM_ROUNDS = 20, 16  # of pseudo-gradients
NUM_WORKERS, NUM_WORKER_STEPS = 8, 6
LARGE_BATCH = 1024
STARTS = {"early": 10, "middle": 200, "late": 800}
LARGE_BATCH_STARTS = {"early": 10, "middle": 100, "late": 300}
COSTLY_STARTS = {"early": 10, "late": 50}
CHEAP_NETWORKS = ("mlp",)  # at the large batch; a step of the others takes seconds
WIDTH = 2.0  # 56,394 (conv) to 118,269 parameters
SEED = 0
WIKITEXT = "wikitext2_valid.txt"


class Workload(NamedTuple):
    """A task, a network and learning rates at which it trains."""

    task: str
    network: str
    learning_rates: dict[str, float]


WORKLOADS = {
    "mlp": Workload("fashion_mnist", "mlp", {"adam": 0.003, "sgd": 0.02}),
    "conv": Workload("fashion_mnist", "conv", {"adam": 0.003, "sgd": 0.05}),
    "shakespeare": Workload("shakespeare", "transformer", {"adam": 0.002, "sgd": 0.05}),
    "wikitext": Workload("wikitext2", "transformer", {"adam": 0.002, "sgd": 0.05}),
}
# Something of everything first.
ORDER = (("adam", 32), ("sgd", 32), ("adam", 128), ("sgd", 128), ("adam", 1024), ("sgd", 1024))
WITH_WORKERS = {("mlp", "adam", 32), ("shakespeare", "adam", 32)}


class Run(NamedTuple):
    """One training run."""

    workload: str
    optimizer: str
    batch_size: int

    def name(self, phase: str) -> str:
        """Of a window's folder."""
        return f"{self.workload}-{self.optimizer}-{self.batch_size}-{phase}"

    @property
    def is_costly(self) -> bool:
        """Whether it is cut short, because a step takes seconds."""
        return self.batch_size >= LARGE_BATCH and WORKLOADS[self.workload].network not in CHEAP_NETWORKS

    @property
    def starts(self) -> dict[str, int]:
        """First step of each window."""
        if self.batch_size < LARGE_BATCH:
            return STARTS
        return COSTLY_STARTS if self.is_costly else LARGE_BATCH_STARTS

    @property
    def length(self) -> int:
        """Gradients in a window."""
        return COSTLY_LENGTH if self.is_costly else LENGTH

    @property
    def num_rounds(self) -> int:
        """Pseudo-gradients in a window."""
        return 0 if self.batch_size >= LARGE_BATCH else NUM_ROUNDS

    @property
    def num_worker_steps(self) -> int:
        """Steps of a window with the gradients of all workers."""
        return NUM_WORKER_STEPS if tuple(self) in WITH_WORKERS else 0

    @property
    def steps_per_window(self) -> int:
        """Training steps that a window needs."""
        return max(self.length, LOCAL_STEPS * self.num_rounds)


@dataclass
class Window:
    """What has been kept of one window so far."""

    gradients: list[Tensor] = field(default_factory=list)
    updates: list[Tensor] = field(default_factory=list)
    pseudo_gradients: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    moments: list[Tensor] = field(default_factory=list)
    workers: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Metadata:
    """Where a window comes from.

    Attributes:
        workload: one of `WORKLOADS`.
        optimizer: `adam` or `sgd`, the latter with momentum 0.9.
        batch_size: samples in a batch.
        phase: `early`, `middle` or `late`.
        first_step: the window's first step; steps count from 0.
        learning_rate: constant.
        size: number of parameters.
        loss: mean over the window's gradients.
        losses: each.
        local_steps: between two pseudo-gradients.
        seed: of weights and batches.
        torch: version that trained it.
    """

    workload: str
    optimizer: str
    batch_size: int
    phase: str
    first_step: int
    learning_rate: float
    size: int
    loss: float
    losses: list[float]
    local_steps: int = LOCAL_STEPS
    seed: int = SEED
    torch: str = torch.__version__


class RecordedWindow(NamedTuple):
    """A window on disk."""

    folder: Path
    metadata: Metadata
    layout: Layout

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.folder.name

    @property
    def kinds(self) -> list[str]:
        """The kinds of stream that it has."""
        return [kind for kind in KINDS if (self.folder / f"{kind}.npy").exists()]

    def load(self, kind: str) -> NDArray[np.float32]:
        """One stream, `[time, param]`; `workers` is `[time, worker, param]`."""
        return np.load(self.folder / f"{kind}.npy", allow_pickle=False)


def recorded_windows(folder: Path, pattern: str = "") -> list[RecordedWindow]:
    """The windows in a folder whose names contain a match of a regular expression, by name."""
    found: list[RecordedWindow] = []
    for path in sorted(folder.glob("*/metadata.json")):
        if path.parent.name.endswith(".part") or not re.search(pattern, path.parent.name):
            continue
        layout = Layout.from_dict(json.loads((path.parent / "layout.json").read_text()))
        found.append(RecordedWindow(path.parent, Metadata(**json.loads(path.read_text())), layout))
    return found


def load_workload(name: str) -> tuple[TaskData, str]:
    """A workload's task and the name of its network."""
    workload = WORKLOADS[name]
    if workload.task != "wikitext2":
        return load_task(workload.task), workload.network
    text = (Path(os.environ["DEADRECKON_DATA"]) / WIKITEXT).read_bytes()
    train, verify, tune, test = split_text(text)
    num_symbols = len(set(text))
    task = TaskData("wikitext2", train, verify, tune, test, num_symbols, (CONTEXT,), "WikiText-2", num_symbols)
    return task, workload.network


def gradient_of(network: nn.Module, layout: Layout, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
    """The gradient of a batch's cross-entropy, `[param]`, and the loss; leaves `.grad` set."""
    network.zero_grad()
    loss = functional.cross_entropy(network(batch[0]), batch[1])
    loss.backward()
    parameters = trainable_parameters(network)
    return flatten({name: value.grad for name, value in parameters.items()}, layout), float(loss.detach())


def moments_of(optimizer: torch.optim.Optimizer, network: nn.Module, layout: Layout) -> list[Tensor]:
    """Adam's running means of gradients and of their squares, `[param]` each; zeros before its first step."""
    found: list[Tensor] = []
    for moment in ("exp_avg", "exp_avg_sq"):
        values = {
            name: optimizer.state[value].get(moment, torch.zeros_like(value)).detach().clone()
            for name, value in trainable_parameters(network).items()
        }
        found.append(flatten(values, layout))
    return found


def windows_of(run: Run) -> Iterator[tuple[str, Window, Layout]]:
    """Train, and give each window as soon as it is whole."""
    task, network_name = load_workload(run.workload)
    network = make_network(network_name, task, SEED, WIDTH)
    layout = layout_of(network)
    optimizer = make_optimizer(
        run.optimizer, network.parameters(), WORKLOADS[run.workload].learning_rates[run.optimizer]
    )
    num_steps = max(run.starts.values()) + run.steps_per_window
    batches = Batches(task.train, run.batch_size, num_steps, SEED)
    others = [Batches(task.train, run.batch_size, num_steps, SEED + 1 + k) for k in range(NUM_WORKERS - 1)]

    def weights() -> Tensor:
        return flatten({name: value.detach() for name, value in trainable_parameters(network).items()}, layout)

    windows = {phase: Window() for phase in run.starts}
    for step in range(num_steps):
        active = {
            phase: step - start for phase, start in run.starts.items() if 0 <= step - start < run.steps_per_window
        }
        wants_workers = any(position < run.num_worker_steps for position in active.values())
        rows = [gradient_of(network, layout, other[step])[0] for other in others] if wants_workers else []
        gradient, loss = gradient_of(network, layout, batches[step])
        before = weights() if active else None
        for phase, position in active.items():
            if position == 0 and run.optimizer == "adam":
                windows[phase].moments = moments_of(optimizer, network, layout)
        optimizer.step()
        for phase, position in active.items():
            window = windows[phase]
            assert before is not None
            if position < run.length:
                window.gradients.append(gradient)
                window.losses.append(loss)
                if run.optimizer == "adam":
                    window.updates.append(weights() - before)
            if position < run.num_worker_steps:
                window.workers.append(torch.stack([gradient, *rows]))
            if position < LOCAL_STEPS * run.num_rounds:
                if position == 0:
                    window.weights.append(before)
                if position % LOCAL_STEPS == LOCAL_STEPS - 1:
                    window.weights.append(weights())
                    window.pseudo_gradients.append(window.weights[-2] - window.weights[-1])
            if position == run.steps_per_window - 1:
                yield phase, windows.pop(phase), layout


def save(folder: Path, run: Run, phase: str, window: Window, layout: Layout) -> None:
    """Write a window's folder under another name, and give it its own when it is whole."""
    target = folder / run.name(phase)
    part = folder / f"{run.name(phase)}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for kind in KINDS:
        rows: list[Tensor] = getattr(window, kind)
        if rows:
            np.save(part / f"{kind}.npy", torch.stack(rows).numpy(), allow_pickle=False)
    learning_rate = WORKLOADS[run.workload].learning_rates[run.optimizer]
    mean = sum(window.losses) / len(window.losses)
    metadata = Metadata(*run, phase, run.starts[phase], learning_rate, layout.size, mean, window.losses)
    (part / "layout.json").write_text(json.dumps(layout.to_dict()))
    (part / "metadata.json").write_text(json.dumps(asdict(metadata), indent=1))
    part.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description="Record streams for the codec's benchmarks.")
    parser.add_argument("folder", type=Path, help="where windows go")
    parser.add_argument("--only", default="", help="regular expression on names of windows")
    arguments = parser.parse_args()
    with one_thread():
        for optimizer, batch_size in ORDER:
            for workload in WORKLOADS:
                run = Run(workload, optimizer, batch_size)
                wanted = {phase for phase in run.starts if re.search(arguments.only, run.name(phase))}
                missing = {phase for phase in wanted if not (arguments.folder / run.name(phase)).exists()}
                if not missing:
                    continue
                began = time.perf_counter()
                for phase, window, layout in windows_of(run):
                    loss = sum(window.losses) / len(window.losses)
                    if phase in missing:
                        save(arguments.folder, run, phase, window, layout)
                    seconds = time.perf_counter() - began
                    print(f"{run.name(phase):32s} {layout.size:7d} loss {loss:6.3f} {seconds:6.0f} s", flush=True)


if __name__ == "__main__":
    main()

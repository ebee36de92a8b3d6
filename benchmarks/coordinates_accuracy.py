"""Accuracy against size on Fashion-MNIST: networks as a few coordinates and a seed, beside the network itself and LoRA.

One network, 784-32-10 with ReLU, Adam, batches of 64, cosine schedule, the same batches for all arms of a seed. The
matrices are expressed; the 42 biases are trained as they are. Size is the length of the file in bytes, with seeds,
layout, biases and digest; the accuracy, on the published test set, is that of a network read back from this file. The
learning rate of each kind of coordinates was chosen by the accuracy on the `tune` samples with seed 100, which is not
used otherwise, out of `RATES`. Uncompressed: float32 as safetensors, and the same without loss (`compress_tensors`).

Supermasks are no coordinates: all weights are fixed and the scores of a mask are trained, in a network without biases.
The numbers trained are the scores, and the file holds a bit for each.

Results are appended to a file as they come, and a second call goes on where the first ended.

Run: `DEADRECKON_DATA=... python benchmarks/coordinates_accuracy.py --results FILE [--minutes 4] [--text FILE]`
"""

import argparse
import copy
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from codec_tables import provenance, report
from torch import Tensor, nn
from torch.nn import functional

from deadreckon.experiments.tasks import Batches, Split, TaskData, load_task
from deadreckon.forecast import Layout
from deadreckon.models.coordinates import (
    MCNC,
    NOLA,
    PRANC,
    LoRA,
    ReducedModule,
    SeededCoordinates,
    SeededStart,
    Supermasks,
    choose_layout,
    compress_tensors,
    load_reduced,
    load_supermasks,
    save_reduced,
    save_supermasks,
)

WIDTH = 32
BATCH = 64
TUNING_SEED = 100
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)


class Arm(NamedTuple):
    """One way to express the network."""

    kind: str
    options: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kind} {self.options}".strip()

    def coordinates(self, layout: Layout, seed: int) -> SeededCoordinates | None:
        """The coordinates; None for the network itself and for masks."""
        given: dict[str, Any] = json.loads(self.options or "{}")
        match self.kind:
            case "pranc":
                return PRANC(layout, seed=seed, **given)
            case "subspace":
                return PRANC(layout, seed=seed, start=SeededStart(seed), **given)
            case "lora":
                return LoRA(layout, start=SeededStart(seed), **given)
            case "nola":
                return NOLA(layout, seed=seed, start=SeededStart(seed), **given)
            case "mcnc":
                return MCNC(layout, seed=seed, start=SeededStart(seed), **given)
        return None


def _arms(kind: str, *options: dict[str, Any]) -> list[Arm]:
    return [Arm(kind, json.dumps(given)) for given in options]


ARMS = [
    Arm("plain", ""),
    *_arms("lora", *({"rank": rank} for rank in (1, 2, 4))),
    *_arms("pranc", *({"num_coefficients": number} for number in (100, 300, 1000, 3000))),
    *_arms("subspace", *({"num_coefficients": number} for number in (100, 300, 1000, 3000))),
    *_arms("nola", *({"num_coefficients": number} for number in (25, 75, 250, 750))),
    *_arms("mcnc", *({"num_inputs": 9, "chunk": chunk} for chunk in (2500, 800, 256, 80))),
    *_arms("subspace", *({"num_coefficients": 100, "basis": basis} for basis in ("sign", "gaussian"))),
    *_arms("mcnc", *({"num_inputs": 9, "chunk": 256, "frequency": frequency} for frequency in (0.3, 3.0))),
    *_arms("supermasks", *({"kept": kept} for kept in (0.1, 0.25, 0.5, 0.75))),
]
TUNED = {
    "plain": ARMS[0],
    "lora": Arm("lora", '{"rank": 2}'),
    "pranc": Arm("pranc", '{"num_coefficients": 300}'),
    "subspace": Arm("subspace", '{"num_coefficients": 300}'),
    "nola": Arm("nola", '{"num_coefficients": 75}'),
    "mcnc": Arm("mcnc", '{"num_inputs": 9, "chunk": 800}'),
    "supermasks": Arm("supermasks", '{"kept": 0.5}'),
}


@cache
def task() -> TaskData:
    return load_task("fashion_mnist")


def network(seed: int, biases: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, WIDTH, biases), nn.ReLU(), nn.Linear(WIDTH, 10, biases))


def accuracy(module: nn.Module, split: Split) -> float:
    with torch.no_grad():
        hits = [(module(part[0]).argmax(1) == part[1]).float().sum() for part in _parts(split)]
    return float(sum(hits)) / len(split.labels)


def _parts(split: Split) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(split.inputs.split(1000), split.labels.split(1000), strict=True)


def train(arm: Arm, seed: int, rate: float, num_steps: int) -> tuple[nn.Module, float]:
    """The trained network and the seconds of processor time a step."""
    module: nn.Module = network(seed, arm.kind != "supermasks")
    coordinates = arm.coordinates(choose_layout(module, num_axes=2), seed)
    if coordinates is not None:
        module = ReducedModule(module, coordinates, coordinates.initial(seed))
    elif arm.kind == "supermasks":
        module = Supermasks(module, choose_layout(module, num_axes=2), seed=seed, **json.loads(arm.options))
        module.begin_task(seed)
    optimizer = torch.optim.Adam(module.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    began = time.process_time()
    for inputs, labels in Batches(task().train, BATCH, num_steps, seed):
        optimizer.zero_grad()
        functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
        schedule.step()
    return module, (time.process_time() - began) / num_steps


def stored(module: nn.Module) -> tuple[nn.Module, dict[str, int]]:
    """The network read back from its file, and sizes in bytes."""
    if isinstance(module, Supermasks):
        return _stored_mask(module)
    if not isinstance(module, ReducedModule):
        tensors = {name: value.detach() for name, value in module.state_dict().items()}
        return module, {
            "bytes": len(safetensors.torch.save(tensors)),
            "lossless_bytes": len(compress_tensors(tensors)),
            "numbers": sum(value.numel() for value in tensors.values()),
        }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save_reduced(module, path)
        back = load_reduced(path, network(0))
        trained = sum(value.numel() for value in module.parameters() if value.requires_grad)
        return back, {"bytes": path.stat().st_size, "numbers": trained}


def _stored_mask(module: Supermasks) -> tuple[nn.Module, dict[str, int]]:
    module.remember()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks.safetensors"
        save_supermasks(module, path)
        back = load_supermasks(path, network(0, biases=False))
        sizes = {"bytes": path.stat().st_size, "numbers": module.layout.size}
    # Scores that make the remembered mask: they are not in the file.
    with torch.no_grad():
        back.scores.copy_(back.masks()[0].float())
    return back, sizes


def run(arm: Arm, seed: int, rate: float, num_steps: int) -> dict[str, Any]:
    module, seconds = train(arm, seed, rate, num_steps)
    back, sizes = stored(module)
    split = task().tune if seed == TUNING_SEED else task().test
    return {
        "kind": arm.kind,
        "options": arm.options,
        "seed": seed,
        "rate": rate,
        "steps": num_steps,
        "accuracy": accuracy(copy.deepcopy(back), split),
        "step_seconds": seconds,
        **sizes,
    }


def table(rows: list[dict[str, Any]], num_steps: int) -> Iterator[str]:
    rates = best_rates(rows)
    chosen = ", ".join(f"{kind} {rate:g}" for kind, rate in rates.items())
    yield f"{num_steps} steps of {BATCH} samples. Learning rates chosen: {chosen}."
    yield ""
    yield "| coordinates | numbers trained | bytes | share of float32 | test accuracy, % | +- | seeds | ms a step |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    whole = next((row["bytes"] for row in rows if row["kind"] == "plain"), math.nan)
    for arm in ARMS:
        mine = [row for row in rows if (row["kind"], row["options"]) == arm and row["seed"] != TUNING_SEED]
        if not mine:
            continue
        values = [100 * row["accuracy"] for row in mine]
        spread = f"{statistics.stdev(values):.2f}" if len(values) > 1 else ""
        size = statistics.mean(row["bytes"] for row in mine)
        yield (
            f"| {arm.name} | {mine[0]['numbers']} | {size:.0f} | {size / whole:.3f} | {statistics.mean(values):.2f} | "
            f"{spread} | {len(values)} | {1000 * statistics.median(row['step_seconds'] for row in mine):.1f} |"
        )
        if arm.kind == "plain":
            size = statistics.mean(row["lossless_bytes"] for row in mine)
            yield f"| plain, without loss | {mine[0]['numbers']} | {size:.0f} | {size / whole:.3f} | the same | | | |"


def best_rates(rows: list[dict[str, Any]]) -> dict[str, float]:
    tuning = [row for row in rows if row["seed"] == TUNING_SEED]
    return {
        kind: max((row for row in tuning if row["kind"] == kind), key=lambda row: row["accuracy"])["rate"]
        for kind in TUNED
        if any(row["kind"] == kind for row in tuning)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no run begins after so long")
    parser.add_argument("--text", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    began = time.monotonic()

    def want(arm: Arm, seed: int, rate: float) -> None:
        key = (arm.kind, arm.options, seed, rate)
        if any((row["kind"], row["options"], row["seed"], row["rate"]) == key for row in rows):
            return
        if time.monotonic() - began > 60 * given.minutes:
            raise TimeoutError
        rows.append(run(arm, seed, rate, given.steps))
        with given.results.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")

    try:
        for arm in TUNED.values():
            for rate in RATES:
                want(arm, TUNING_SEED, rate)
        for seed in range(given.seeds):
            for arm in ARMS:
                want(arm, seed, best_rates(rows)[arm.kind])
    except TimeoutError:
        pass
    report(table(rows, given.steps), provenance(), given.text)


if __name__ == "__main__":
    main()

"""Forecasts and packets in reduced coordinates against full ones, on Fashion-MNIST.

The network and its training are those of coordinates_accuracy.py, with a constant learning rate. `subspace k` is PRANC
from a seeded start with k coefficients; `nola` has 250 for each factor of the two matrices, `mcnc` 9 + 1 for each 256
weights; the 42 biases are trained, recorded, forecast and sent as they are.

Forecasts: weights are recorded every 10 steps. Forecasters are fitted to the first 60 % of a run, where they are fitted
at all, and scored on the rest. Skill is 1 - MSE / MSE of standing still, in the coordinates that are forecast. Jump
value: the fall of the loss of 1000 held-out images from the last row to the forecast, over the fall to the row that
really came, summed over cases; 1 is as good as training on, nan where the steps really taken did not lower it. Seconds
are of one forecast, processor time.

Packets: every gradient is coded, and the optimiser works with what is decoded, as one link would do. Bits are the
length of all packets until the mean test accuracy of three evaluations in a row, one every 25 steps, reaches the
target: geometric means over seeds, the least and the most in brackets. `float32` sends 32 bits a number.

Run: `DEADRECKON_DATA=... python benchmarks/coordinates_runs.py [--text FILE]`
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from codec_tables import provenance, report
from coordinates_accuracy import BATCH, network, task
from torch import nn
from torch.nn import functional

from deadreckon.callbacks import TrajectoryRecorder
from deadreckon.codec import Codec, CodecConfig
from deadreckon.experiments.classifier import Classifier
from deadreckon.experiments.tasks import Batches
from deadreckon.experiments.training import quiet_lightning
from deadreckon.forecast import (
    Case,
    Forecaster,
    Trajectory,
    cases,
    flatten,
    layout_of,
    load_vector,
    score,
    trainable_parameters,
    unpack,
)
from deadreckon.models import Budget, FlowMatching, NeuralODE, fit_forecaster, make_forecaster
from deadreckon.models.coordinates import MCNC, NOLA, PRANC, ReducedModule, SeededStart, choose_layout

CADENCE = 10
HORIZONS = (10, 50)
ROWS = 8
TARGETS = (0.70, 0.75, 0.78, 0.80)
EVERY = 25


class Arm(NamedTuple):
    """Full coordinates or others, of so many numbers; with the learning rate that coordinates_accuracy.py chose."""

    kind: str
    number: int
    rate: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kind} {self.number}" if self.kind == "subspace" else self.kind

    def module(self, seed: int) -> nn.Module:
        """A new network."""
        plain = network(seed)
        if self.kind == "full":
            return plain
        layout, start = choose_layout(plain, num_axes=2), SeededStart(seed)
        if self.kind == "nola":
            coordinates = NOLA(layout, self.number, seed=seed, start=start)
        elif self.kind == "mcnc":
            coordinates = MCNC(layout, 9, chunk=self.number, seed=seed, start=start)
        else:
            coordinates = PRANC(layout, self.number, seed, start=start)
        return ReducedModule(plain, coordinates, coordinates.initial(seed))


ARMS = (
    Arm("full", 0, 0.003),
    Arm("subspace", 1000, 0.1),
    Arm("subspace", 300, 0.1),
    Arm("nola", 250, 0.1),
    Arm("mcnc", 256, 0.3),
)


def losses(module: nn.Module, rows: Sequence[torch.Tensor]) -> list[float]:
    """Held-out loss of each row of weights."""
    inputs, labels = task().verify.inputs[:1000], task().verify.labels[:1000]
    layout, found = layout_of(module), []
    with torch.no_grad():
        for row in rows:
            load_vector(module, row, layout)
            found.append(float(functional.cross_entropy(module(inputs), labels)))
    return found


def forecasters() -> list[Forecaster]:
    return [
        make_forecaster("linear", history=ROWS),
        NeuralODE("pca", rank=4, history=ROWS),
        NeuralODE("window", rank=2, history=ROWS),
        FlowMatching(history=ROWS, rank=4),
    ]


def forecast_lines(arms: Sequence[Arm], seed: int, num_steps: int, iterations: int) -> Iterator[str]:
    yield "| coordinates | numbers | forecaster | horizon | skill | jump value | s a forecast | s to fit |"
    yield "|---|---:|---|---:|---:|---:|---:|---:|"
    for arm in arms:
        module = Classifier(arm.module(seed), "adam", arm.rate, "constant", num_steps)
        with tempfile.TemporaryDirectory() as folder, quiet_lightning():
            recorder = TrajectoryRecorder(Path(folder) / "t", CADENCE)
            trainer = pl.Trainer(
                max_steps=num_steps,
                accelerator="cpu",
                callbacks=[recorder],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, Batches(task().train, BATCH, num_steps, seed))
            with Trajectory.open(Path(folder) / "t") as trajectory:
                cut = num_steps * 6 // 10
                early = cases(trajectory, "weights", ROWS, HORIZONS, last_step=cut)
                late = cases(trajectory, "weights", ROWS, HORIZONS, first_step=cut)
        size = layout_of(module).size
        for forecaster in forecasters():
            began = time.process_time()
            if forecaster.name != "linear":
                generator = torch.Generator().manual_seed(seed)
                split = len(early) * 4 // 5
                fit_forecaster(forecaster, early[:split], Budget(iterations), generator, early[split:])
            fitting = time.process_time() - began
            for found in score(forecaster, late):
                value, seconds = jump_value(module, forecaster, late[:: max(1, len(late) // 8)], found.horizon)
                yield (
                    f"| {arm.name} | {size} | {_name(forecaster)} | {found.horizon} | {found.skill:+.2f} | "
                    f"{value:+.2f} | {seconds:.4f} | {fitting:.1f} |"
                )


def _name(forecaster: Forecaster) -> str:
    return f"neural_ode {forecaster.coordinates}" if isinstance(forecaster, NeuralODE) else forecaster.name


def jump_value(module: nn.Module, forecaster: Forecaster, given: Sequence[Case], horizon: int) -> tuple[float, float]:
    """Gain of the jumps over gain of the steps, and seconds a forecast."""
    jumped = stepped = seconds = 0.0
    for case in given:
        began = time.process_time()
        (forecast,) = forecaster.forecast(case.window, [horizon])
        seconds += time.process_time() - began
        last, guessed, came = losses(module, [case.window.last, forecast.mean, case.targets[horizon]])
        jumped, stepped = jumped + last - guessed, stepped + last - came
    return jumped / stepped if stepped > 0 else float("nan"), seconds / len(given)


def send(arm: Arm, seed: int, num_steps: int, nmse: float | None) -> tuple[int, list[tuple[float, float]]]:
    """Numbers sent a step, and (bits so far, test accuracy) as training went on."""
    module = arm.module(seed)
    layout = layout_of(module)
    codec = Codec(layout, CodecConfig("none", entropy="runs", nmse=nmse or 0.5))
    encoder, decoder = codec.encoder(), codec.decoder()
    optimizer = torch.optim.Adam(module.parameters(), arm.rate)
    bits, found = 0, []
    for step, (inputs, labels) in enumerate(Batches(task().train, BATCH, num_steps, seed)):
        optimizer.zero_grad()
        functional.cross_entropy(module(inputs), labels).backward()
        parameters = trainable_parameters(module)
        if nmse is None:
            bits += 32 * layout.size
        else:
            packet = encoder.encode(flatten({name: value.grad for name, value in parameters.items()}, layout), step)
            bits += 8 * len(packet)
            received = unpack(decoder.decode(packet), layout)
            for name, value in parameters.items():
                value.grad = received[name].clone()
        optimizer.step()
        if (step + 1) % EVERY == 0:
            with torch.no_grad():
                hits = module(task().test.inputs[:5000]).argmax(1) == task().test.labels[:5000]
            found.append((bits, float(hits.float().mean())))
    return layout.size, found


def bits_until(found: Sequence[tuple[float, float]], target: float) -> float | None:
    """Bits when the mean of three accuracies in a row first reaches a target."""
    for index in range(2, len(found)):
        if sum(accuracy for _, accuracy in found[index - 2 : index + 1]) / 3 >= target:
            return found[index][0]
    return None


def cell(reached: Sequence[float | None]) -> str:
    """Megabits over seeds, or how many seeds got there."""
    there = [bits / 1e6 for bits in reached if bits is not None]
    if len(there) < len(reached):
        return f"{len(there)} of {len(reached)}"
    ends = f" [{min(there):.3g}, {max(there):.3g}]" if len(there) > 1 else ""
    return f"{statistics.geometric_mean(there):.3g}{ends}"


def packet_lines(
    arms: Sequence[Arm], seeds: Sequence[int], num_steps: int, errors: Sequence[float | None]
) -> Iterator[str]:
    wanted = " | ".join(f"to {100 * target:.0f} %" for target in TARGETS)
    yield "Megabits of all packets until a test accuracy was reached; how many seeds reached it where not all did:"
    yield ""
    yield f"| coordinates | numbers | sent as | bits a number | best accuracy, % | {wanted} |"
    yield "|---|---:|---|---:|---:|" + "---:|" * len(TARGETS)
    for arm in arms:
        for nmse in errors:
            runs = [send(arm, seed, num_steps, nmse) for seed in seeds]
            size = runs[0][0]
            cells = " | ".join(cell([bits_until(found, target) for _, found in runs]) for target in TARGETS)
            how = "float32" if nmse is None else f"codec, NMSE {nmse:g}"
            best = statistics.mean(100 * max(accuracy for _, accuracy in found) for _, found in runs)
            bits = statistics.mean(found[-1][0] / num_steps / size for _, found in runs)
            yield f"| {arm.name} | {size} | {how} | {bits:.2f} | {best:.2f} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--iterations", type=int, default=150, help="of a fit")
    parser.add_argument("--nmse", type=float, nargs="+", default=[0.1, 0.5, 0.8])
    parser.add_argument("--seeds", type=int, default=5, help="for packets; forecasts are of the first")
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS], help="all if not given")
    parser.add_argument("--only", choices=["forecasts", "packets"])
    parser.add_argument("--text", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    arms = [arm for arm in ARMS if given.arms is None or arm.name in given.arms]

    def lines() -> Iterator[str]:
        number = given.seeds if given.only == "packets" else 1
        yield f"Seeds: {number}. {given.steps} steps of {BATCH} samples."
        yield ""
        if given.only != "packets":
            yield f"Fits of at most {given.iterations} iterations."
            yield ""
            yield from forecast_lines(arms, 0, given.steps, given.iterations)
            yield ""
        if given.only != "forecasts":
            yield from packet_lines(arms, range(given.seeds), given.steps, [None, *given.nmse])

    report(lines(), provenance(), given.text)


if __name__ == "__main__":
    main()

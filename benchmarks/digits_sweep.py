"""Tune the baseline of the digits race: learning rate and schedule, on the `tune` set and on seeds that never race.

A race against an untuned baseline proves nothing. This sweeps both, measures how soon the held-out loss reaches a
target, and prints a table; `configs/race.yaml` takes the winner. Run: `python benchmarks/digits_sweep.py`.
"""

import statistics
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from deadreckon.experiments.classifier import evaluate
from deadreckon.experiments.tasks import TaskData, load_task
from deadreckon.experiments.training import make_classifier, train
from deadreckon.models.threads import one_thread

RATES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
SCHEDULES = ("constant", "linear", "cosine")
SEEDS = (100, 101, 102)
NUM_STEPS = 600
EVERY = 10
TARGETS = (0.90, 0.94, 0.96)


class Curve(pl.Callback):
    """Accuracy on the `tune` set every few steps."""

    def __init__(self, task: TaskData) -> None:
        self.task = task
        self.accuracy: list[tuple[int, float]] = []

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step % EVERY == 0:
            self.accuracy.append((trainer.global_step, evaluate(pl_module, self.task.tune).accuracy))


def steps_to(curve: list[tuple[int, float]], target: float) -> int:
    """The first measured step at the target; twice the run for never, so that failures count."""
    return next((step for step, value in curve if value >= target), 2 * NUM_STEPS)


def main() -> None:
    task = load_task("digits")
    header = " ".join(f"to {target:.2f}" for target in TARGETS)
    print(f"{'schedule':9s} {'rate':>6s}  {header}  final accuracy, loss (medians over {len(SEEDS)} seeds)")
    with one_thread():
        for schedule in SCHEDULES:
            for rate in RATES:
                curves, finals = [], []
                for seed in SEEDS:
                    module = make_classifier(task, "mlp", "adam", rate, schedule, NUM_STEPS, seed)
                    curve = Curve(task)
                    train(module, task, 64, NUM_STEPS, seed, [curve])
                    curves.append(curve.accuracy)
                    finals.append(evaluate(module, task.tune))
                times = [statistics.median(steps_to(curve, target) for curve in curves) for target in TARGETS]
                accuracy = statistics.median(final.accuracy for final in finals)
                loss = statistics.median(final.loss for final in finals)
                columns = " ".join(f"{value:7.0f}" for value in times)
                print(f"{schedule:9s} {rate:6.3f}  {columns}  {accuracy:.4f} {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()

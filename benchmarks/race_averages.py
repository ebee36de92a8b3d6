"""Does an extrapolated average of the weights get to a loss sooner than the average? On the `tune` set, one seed.

For each optimiser one run of the MLP on Fashion-MNIST at a constant rate (or with linear decay). At every 60th step
several things made of its weights so far are evaluated; training sees none of them.

* `ema`: a <- lerp(a, w, 1 - min(0.98, (1 + k) / (10 + k)));
* `poly`: a <- lerp(a, w, min(1, 5 / (4 + k))), a mean with weights that grow as the fourth power of the step, roughly;
* `2 poly - poly of poly`: a + q (a - b) with b the same average of a, for q = 1, and `half` for q = 0.5: the average,
  moved on by how far it lags behind itself.

    python benchmarks/race_averages.py > race_averages.txt
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from deadreckon.experiments.classifier import evaluate
from deadreckon.experiments.race.averages import put, trained
from deadreckon.experiments.race.clock import in_evaluation
from deadreckon.experiments.race.optimizers import make_race_optimizer
from deadreckon.experiments.tasks import Batches, TaskData, load_task, make_network

SEED, STEPS, EVERY, TARGET = 1000, 1200, 60, 0.3308
RUNS: tuple[tuple[str, dict[str, float], int, bool], ...] = (
    ("sgd", {"rate": 0.04}, STEPS, False),
    ("adamw", {"rate": 0.004}, STEPS, False),
    ("adamw", {"rate": 0.008}, STEPS, True),
    ("schedule_free", {"rate": 0.016, "beta": 0.9, "warmup": 0.02}, STEPS, False),
    ("muon", {"rate": 0.008, "adam_rate": 0.008}, 420, False),
    ("muon", {"rate": 0.008, "adam_rate": 0.008}, 420, True),
)
Weights = list[Tensor]


def blend(average: Weights, values: Weights, share: float) -> None:
    for own, value in zip(average, values, strict=True):
        own.lerp_(value, share)


class Averages:
    """All averages of one run."""

    def __init__(self, weights: Weights) -> None:
        self.ema, self.poly, self.twice = ([value.clone() for value in weights] for _ in range(3))

    def see(self, weights: Weights, count: int) -> None:
        """Take in the weights after a step."""
        blend(self.ema, weights, 1 - min(0.98, (1 + count) / (10 + count)))
        blend(self.poly, weights, min(1.0, 5 / (4 + count)))
        blend(self.twice, self.poly, min(1.0, 5 / (4 + count)))

    def extrapolated(self, share: float) -> Weights:
        """The average, moved on by a share of its lag."""
        return [first + share * (first - second) for first, second in zip(self.poly, self.twice, strict=True)]

    def all(self, weights: Weights) -> dict[str, Weights]:
        """What is evaluated, by name."""
        return {
            "weights": weights,
            "ema": self.ema,
            "poly": self.poly,
            "2 poly - poly of poly, half": self.extrapolated(0.5),
            "2 poly - poly of poly": self.extrapolated(1.0),
        }


def run(task: TaskData, name: str, settings: dict[str, float], steps: int, decay: bool) -> dict[str, list[float]]:
    """Losses of everything at every measurement."""
    network: nn.Module = make_network("mlp", task, SEED)
    optimizer: Optimizer = make_race_optimizer(name, network, settings, steps)
    rates: list[float] = [group["lr"] for group in optimizer.param_groups]
    batches = Batches(task.train, 128, steps, SEED)
    averages = Averages(trained(network))
    losses: dict[str, list[float]] = {}
    for step, (inputs, labels) in enumerate(batches, start=1):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - (step - 1) / steps if decay else 1.0)
        optimizer.zero_grad()
        functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
        with in_evaluation(optimizer):
            weights = trained(network)
            averages.see(weights, step)
            if step % EVERY == 0:
                kept = [value.clone() for value in weights]
                for what, values in averages.all(kept).items():
                    put(network, values)
                    losses.setdefault(what, []).append(evaluate(network, task.tune).loss)
                put(network, kept)
    return losses


def first(losses: list[float], reached: Callable[[float], bool]) -> str:
    return next((str(EVERY * (index + 1)) for index, loss in enumerate(losses) if reached(loss)), "never")


def main() -> None:
    torch.set_num_threads(1)
    task = load_task("fashion_mnist")
    for name, settings, steps, decay in RUNS:
        print(f"{name} {settings} {'linear decay' if decay else 'constant'}, {steps} steps", flush=True)
        for what, losses in run(task, name, settings, steps, decay).items():
            marks = " ".join(f"{losses[round(part * len(losses) / 4) - 1]:.4f}" for part in (1, 2, 3, 4))
            reached = first(losses, lambda loss: loss <= TARGET)
            print(f"    {what:28s} to {TARGET}: {reached:>5s} steps; after each quarter {marks}", flush=True)


if __name__ == "__main__":
    main()

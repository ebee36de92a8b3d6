"""What should become of Adam's moments after a jump? Paired seeds, every rule from the same start.

Blind jumps along the line through five rows at the same steps for every rule, and verified ones. Two measures against
`keep` with the same seed: the test loss averaged over the run, which sees what happens after jumps, and at its end.
Run: `python benchmarks/jump_moments.py digits blind`; or `fashion_mnist`, which needs the data; or `verified`.
"""

import statistics
import sys
from typing import Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from deadreckon.callbacks import SkipAhead
from deadreckon.experiments.classifier import evaluate, probe
from deadreckon.experiments.tasks import Split, TaskData, load_task, sequential_batches
from deadreckon.experiments.training import make_classifier, train
from deadreckon.forecast.jump import JumpPolicy

RULES = ("keep", "rescale", "transport", "reset")
# network, batch, learning rate, steps, jump every, horizons of a blind jump, of verified ones, seeds
SETTINGS: dict[str, tuple[str, int, float, int, int, int, tuple[int, ...], int]] = {
    "digits": ("mlp", 64, 0.004, 400, 40, 8, (4, 8, 16, 32), 8),
    "fashion_mnist": ("conv", 128, 0.006, 320, 40, 8, (4, 8, 16, 32), 4),
}


class Curve(pl.Callback):
    """Test loss every ten steps, on a part of the test set."""

    def __init__(self, task: TaskData) -> None:
        self.losses: list[float] = []
        self._split = Split(task.test.inputs[:500], task.test.labels[:500])

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step % 10 == 0:
            self.losses.append(evaluate(pl_module, self._split).loss)


def run(name: str, rule: str, blind: bool, seed: int) -> tuple[float, float, int]:
    """Mean and last test loss, and how many jumps were kept."""
    network, batch_size, rate, steps, every, horizon, horizons, _ = SETTINGS[name]
    task = load_task(name)
    verify = Split(task.verify.inputs[:1024], task.verify.labels[:1024])
    skip_ahead = SkipAhead(
        "linear",
        every,
        (horizon,) if blind else horizons,
        probe,
        sequential_batches(verify, 128),
        policy=JumpPolicy("always" if blind else "strict"),
        moments=rule,  # pyright: ignore[reportArgumentType]
        cost_share=None,
        spacing=4,
        cool_down=0,
    )
    curve = Curve(task)
    module = make_classifier(task, network, "adam", rate, "constant", steps, seed)
    train(module, task, batch_size, steps, seed, [skip_ahead, curve])
    kept = sum(jump.outcome.kept for jump in skip_ahead.jumps)
    return statistics.mean(curve.losses), statistics.mean(curve.losses[-5:]), kept


def main(name: str, kind: str) -> None:
    torch.set_num_threads(1)
    num_seeds = SETTINGS[name][-1]
    print(f"{name}: {SETTINGS[name][:-1]}, {num_seeds} seeds; ratio to keep, mean +- standard error", flush=True)
    keeps = [run(name, "keep", kind == "blind", seed) for seed in range(num_seeds)]
    for rule in RULES:
        results = keeps if rule == "keep" else [run(name, rule, kind == "blind", seed) for seed in range(num_seeds)]
        texts: list[str] = []
        for measure in (0, 1):
            pairs = zip(results, keeps, strict=True)
            ratios = [float(mine[measure]) / float(kept[measure]) for mine, kept in pairs]
            error = statistics.stdev(ratios) / len(ratios) ** 0.5
            texts.append(f"{statistics.mean(ratios):.4f} +- {error:.4f}")
        kept = statistics.mean(result[2] for result in results)
        print(f"{kind:9s} {rule:10s} over the run {texts[0]}  at the end {texts[1]}  kept {kept:.1f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

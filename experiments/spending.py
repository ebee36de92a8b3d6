"""What a run had cost by each of its steps."""

import time
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

MAX_POINTS = 200


class SpendingClock(pl.Callback):
    """Wall-clock and CPU seconds over a run, with everything that its callbacks do and all threads of the process.

    It must be the last callback of its Trainer, so that what the others do at a step is counted at that step. The
    clocks start in `setup`.

    Args:
        num_steps: of the run; about `MAX_POINTS` of them are noted, and the last one.

    Attributes:
        curve: `[step, wall seconds, CPU seconds]` for each step noted, from the start of training on.
    """

    def __init__(self, num_steps: int) -> None:
        self.curve: list[list[float]] = []
        self._num_steps = num_steps
        self._stride = -(-num_steps // MAX_POINTS)
        self._wall = 0.0
        self._cpu = 0.0

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.curve = []
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step % self._stride == 0 or step == self._num_steps:
            self._note(step)

    def _note(self, step: int) -> None:
        self.curve.append([step, time.perf_counter() - self._wall, time.process_time() - self._cpu])

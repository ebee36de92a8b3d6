"""A progress display for loops and for training."""

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, TypeVar

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor
from typing_extensions import override

_Item = TypeVar("_Item")


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))


def tracked(items: Iterable[_Item], what: str, show: bool, total: int | None = None) -> Iterator[_Item]:
    """The items, with a bar on standard error that says how many of them are done.

    An item counts as done when the next one is asked for. Where items have no length, `total` says how many come.
    """
    if not show:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    with _bar() as progress:
        task = progress.add_task(what, total=total, note="")
        for item in items:
            yield item
            progress.advance(task)


class TrainingProgress(pl.Callback):
    """A bar on standard error: optimiser steps done, and the training loss.

    Args:
        num_steps: optimiser steps of the run.
        every: steps between updates of the loss shown.
    """

    def __init__(self, num_steps: int, every: int = 10) -> None:
        self._num_steps = num_steps
        self._every = every
        self._progress: Progress | None = None
        self._task = TaskID(0)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._progress = _bar()
        self._progress.start()
        self._task = self._progress.add_task("training", total=self._num_steps, note="")

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if self._progress is None or step % self._every:
            return
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        note = f"loss {float(loss):.4f}" if isinstance(loss, Tensor) else ""
        self._progress.update(self._task, completed=step, note=note)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=trainer.global_step)
        self._stop()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

"""A run with jumps, watched: where its weights went, where each verified jump would have led, and the loss around."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from ...callbacks import SkipAhead
from ...forecast import layout_of, pack
from ..plane import losses_on, path_in, plane_of
from ..tasks import TaskData

MAX_NUMBERS = 3e7  # of all rows together


class JumpWatcher(pl.Callback):
    """Keeps rows of the weights, and beginning and end of every jump that is verified.

    It must stand before `SkipAhead` in its Trainer. The end of a jump is what the probe is called with besides the
    present weights; so a jump that is not verified leaves no arrow, and of several candidates the last one does.

    Args:
        skip_ahead: whose probe is watched from now on.
        every: optimiser steps between rows.

    Attributes:
        rows: weights by optimiser step.
        arrows: the jump's number among `SkipAhead.jumps`, the weights before, and those it would lead to.
    """

    def __init__(self, skip_ahead: SkipAhead, every: int) -> None:
        self.rows: dict[int, Tensor] = {}
        self.arrows: list[tuple[int, Tensor, Tensor]] = []
        self._skip_ahead = skip_ahead
        self._every = every
        self._present: Tensor | None = None
        self._candidate: Tensor | None = None
        skip_ahead.probe = self._watching(skip_ahead.probe)

    def _watching(self, probe: Callable[[nn.Module, Any], Tensor]) -> Callable[[nn.Module, Any], Tensor]:
        def watched(module: nn.Module, batch: Any) -> Tensor:
            weights = pack(module)[0]
            if self._present is not None and not torch.equal(weights, self._present):
                self._candidate = weights
            return probe(module, batch)

        return watched

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._see(trainer.global_step, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._see(trainer.global_step, pl_module)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._collect()

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._collect()

    def _see(self, step: int, module: pl.LightningModule) -> None:
        self._present, self._candidate = pack(module)[0], None
        if step % self._every == 0:
            self.rows[step] = self._present

    def _collect(self) -> None:
        """The arrow of the jump that was last tried, once `SkipAhead` has noted what became of it."""
        if self._present is not None and self._candidate is not None and self._skip_ahead.jumps:
            self.arrows.append((len(self._skip_ahead.jumps) - 1, self._present, self._candidate))
        self._candidate = None


def picture_of(watcher: JumpWatcher, module: pl.LightningModule, task: TaskData, skip_ahead: SkipAhead) -> dict | None:
    """What a watched run looks like in its plane, as plain data; `None` where its rows span none.

    Args:
        watcher: after the run.
        module: likewise.
        task: whose verification set the loss around the path is of.
        skip_ahead: the callback that was watched.
    """
    steps = list(watcher.rows)
    rows = torch.stack(list(watcher.rows.values()))
    plane = plane_of(rows)
    if plane is None:
        return None
    ends = [plane.from_parameters(torch.stack(pair)).tolist() for _, *pair in watcher.arrows]
    path = path_in(plane, rows, steps)
    jumps = [skip_ahead.jumps[number] for number, _, _ in watcher.arrows]
    points = [*path["points"], *(point for pair in ends for point in pair)]
    return {
        **path,
        "losses": losses_on(plane, points, rows[-1], module, layout_of(module), task.verify),
        "arrows": [
            {
                "step": jump.step,
                "horizon": jump.horizon,
                "outcome": jump.outcome.name.lower(),
                "start": start,
                "end": end,
            }
            for jump, (start, end) in zip(jumps, ends, strict=True)
        ],
    }

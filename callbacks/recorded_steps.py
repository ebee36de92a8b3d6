"""Take the rows of a run, at each step of its optimisers."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..forecast import TrajectoryWriter, unpack
from .rank_gradients import RankGradients
from .recorded_facts import learning_rates
from .recorded_streams import RANK_STREAM, RecordedStreams
from .recorder_support import loss_scale

_Row = NDArray[np.float32] | None  # None in processes that do not write, which take part in gathering all the same


class StepRecorder:
    """Counts the optimisers' steps and hands the rows that are due at each to the writer.

    Args:
        trainer: with its optimisers.
        plan: which streams there are.
        every: by stream, steps between rows.
        writer: None in processes that do not write.
        charged: a context that charges the time inside.
        step: where to count on from.

    Attributes:
        step: updates so far, of all optimisers together; those that a gradient scaler skipped do not count.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        plan: RecordedStreams,
        every: Mapping[str, int],
        writer: TrajectoryWriter | None,
        charged: Callable[[], AbstractContextManager[None]],
        step: int,
    ) -> None:
        self.step = step
        self._trainer = trainer
        self._plan = plan
        self._every = every
        self._writer = writer
        self._charged = charged
        self._raw: _Row = None  # taken before a step that may yet be skipped
        self._before: _Row = None
        self._ranks: RankGradients | None = None
        if any(name.startswith(RANK_STREAM) for name in every):
            self._ranks = RankGradients(plan.parameters(), plan.selection)
        if "updates" in every and writer is not None:
            self._before = np.zeros(plan.selection.layout.size, np.float32)
        self._handles: list[RemovableHandle] = []
        for number, optimizer in enumerate(trainer.optimizers):
            if "updates" in every:
                self._handles.append(optimizer.register_step_pre_hook(lambda *_: self._before_step()))
            post_hook = optimizer.register_step_post_hook(lambda *_, number=number: self._after_step(number))
            self._handles.append(post_hook)

    @property
    def num_bytes(self) -> int:
        """Memory for rows besides the writer's buffers."""
        before = self._before.nbytes if self._before is not None else 0
        return before + (self._ranks.row.nbytes if self._ranks is not None else 0)

    def due(self, stream: str, step: int) -> bool:
        """Whether a stream has a row at a step."""
        return stream in self._every and step % self._every[stream] == 0

    def first_row(self) -> None:
        """Record the weights that the run starts from."""
        if "weights" in self._every:
            with self._charged():
                self._append({"weights": self._take("weights", 0)}, {})

    def jumped(self, weights: Tensor, details: Mapping[str, object]) -> None:
        """Record that the weights were exchanged; see `TrajectoryRecorder.note_jump`."""
        if self._writer is None:
            return
        with self._charged():
            self._writer.add_event("jump", self.step, breaks=True, **details)
            if "weights" in self._every:
                row = self._writer.buffer("weights")
                self._plan.lay_out(unpack(weights, self._plan.selection.network), row)
                self._append({"weights": row}, {})

    def before_clipping(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradient as it is now, for the step that comes, unless that is skipped."""
        if self.due("raw_gradients", self.step + 1):
            number = next(index for index, item in enumerate(self._trainer.optimizers) if item is optimizer)
            with self._charged():
                if self._raw is None:
                    self._raw = self._buffer("raw_gradients")
                self._plan.take("raw_gradients", number, self._raw)

    def before_backward(self) -> None:
        """Start a new sum of this process' gradients, also where the scaler has skipped the step of the last one."""
        if self._ranks is not None:
            self._ranks.begin(self.due(f"{RANK_STREAM}0", self.step + 1))

    def _before_step(self) -> None:
        if self.due("updates", self.step + 1):
            with self._charged():
                self._plan.take("updates", 0, self._before)

    def _after_step(self, number: int) -> None:
        self.step += 1
        due = [name for name in self._every if self.due(name, self.step)]
        if not due:
            return
        with self._charged():
            rows = {name: self._take(name, number) for name in due if not name.startswith(RANK_STREAM)}
            updates = rows.get("updates")
            if updates is not None:
                assert self._before is not None  # there since the start
                np.subtract(updates, self._before, out=updates)
            if len(rows) < len(due):
                rows |= self._gathered()
            scalars = learning_rates(self._trainer.optimizers)
            if len(self._trainer.optimizers) > 1:
                scalars["optimizer"] = number
            self._append(rows, scalars)

    def _take(self, name: str, number: int) -> _Row:
        if name == "raw_gradients":
            row, self._raw = self._raw, None
            return row
        row = self._buffer(name)
        self._plan.take(name, number, row)
        return row

    def _gathered(self) -> dict[str, _Row]:
        assert self._ranks is not None  # or nothing of it were due
        trainer = self._trainer
        found = self._ranks.gather(loss_scale(trainer), trainer.global_rank, trainer.world_size)
        rows: dict[str, _Row] = {}
        for rank, gradient in enumerate(found or ()):
            row = rows[f"{RANK_STREAM}{rank}"] = self._buffer(f"{RANK_STREAM}{rank}")
            assert row is not None  # only the process that writes has gathered anything
            torch.from_numpy(row).copy_(gradient)
        return rows

    def _buffer(self, name: str) -> _Row:
        return self._writer.buffer(name) if self._writer is not None else None

    def _append(self, rows: Mapping[str, _Row], scalars: Mapping[str, float]) -> None:
        if self._writer is not None:
            taken = {name: row for name, row in rows.items() if row is not None}
            self._writer.append(self.step, taken, scalars)

    def close(self) -> None:
        """Take the hooks away; harmless when repeated."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._ranks is not None:
            self._ranks.close()

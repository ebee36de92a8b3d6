"""Record the trajectory of a training run."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from ..forecast import (
    ForecastError,
    Layout,
    Ledger,
    Trajectory,
    Window,
    flatten,
    has_moments,
    keeps_moments,
    layout_of,
    raw_moments,
    read_moments,
    trainable_parameters,
)
from .errors import CallbackOptionError, ResumeError, UnsupportedTrainerError
from .support import find_callback, require_single_process, require_unchanged, sole_optimizer

StreamName = Literal["weights", "gradients", "updates", "exp_avg", "exp_avg_sq"]
STREAMS: tuple[StreamName, ...] = ("weights", "gradients", "updates", "exp_avg", "exp_avg_sq")


class TrajectoryRecorder(pl.Callback):
    """Writes weights, gradients and more of a real run into a trajectory store, without changing the run.

    Streams, each `[param]` float32, taken in the optimiser's own step hook, so once per real update:

    * `weights`: after the update. The weights at the start of training are recorded too, as step 0.
    * `gradients`: as the optimiser used them: averaged over accumulated batches, after clipping and after
      `GradientCompression`.
    * `updates`: weights after the update minus weights before it.
    * `exp_avg`, `exp_avg_sq`: Adam's moments after the update, not bias-corrected.

    Scalars: `loss` (training loss of each optimiser step), `learning_rate` at every recorded row, `wall_seconds`.

    Works with accumulation, clipping, bf16 precision and resume. `trainer.fit(ckpt_path=...)` goes on in the same
    store: rows after the checkpoint's step are cut, so an interrupted and resumed run leaves the trajectory of an
    uninterrupted one. Not supported, and refused by name: several processes, several optimisers, LBFGS.

    Args:
        path: folder of the store; must not exist yet in a fresh run.
        every: record each stream every so many optimiser steps; one number for all, or one by stream.
        streams: which streams.
        metadata: plain JSON values to keep with the trajectory.

    Attributes:
        ledger: what recording cost.
        trajectory: the open store, from the start of `fit` until its end.
    """

    def __init__(
        self,
        path: str | Path,
        every: int | Mapping[str, int] = 10,
        streams: Sequence[StreamName] = ("weights",),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        unknown = [name for name in streams if name not in STREAMS]
        if not streams or unknown or len(set(streams)) != len(streams):
            raise CallbackOptionError(f"`streams` must be different names from {STREAMS}, got {tuple(streams)}.")
        cadence = {name: every for name in streams} if isinstance(every, int) else dict(every)
        if set(cadence) != set(streams) or not all(type(count) is int and count >= 1 for count in cadence.values()):
            raise CallbackOptionError(
                f"`every` must be a number of steps, at least 1, or one for each of {tuple(streams)}, got {every!r}."
            )
        self.path = Path(path)
        self.every = cadence
        self.streams = tuple(streams)
        self.metadata = dict(metadata or {})
        self.ledger = Ledger()
        self._trajectory: Trajectory | None = None
        self._layout: Layout | None = None
        self._handles: list[RemovableHandle] = []
        self._before: Tensor | None = None
        self._loss: float | None = None
        self._uuid = ""
        self._loss_step = 0
        self._step = 0
        self._seconds = 0.0
        self._began = 0.0
        self._resumed: dict[str, Any] | None = None

    @property
    def trajectory(self) -> Trajectory:
        """The open store.

        Raises:
            RuntimeError: outside of `fit`.
        """
        if self._trajectory is None:
            raise RuntimeError("The trajectory is open during `fit` only; use `Trajectory.open(path)` afterwards.")
        return self._trajectory

    @property
    def layout(self) -> Layout:
        """The layout of the network being recorded."""
        return self.trajectory.layout

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        require_single_process(trainer, type(self).__name__)
        if not pl_module.automatic_optimization:
            raise UnsupportedTrainerError("TrajectoryRecorder supports automatic optimisation only.")
        self._layout = layout_of(pl_module)
        self.ledger, self._seconds, self._uuid, self._resumed = Ledger(), 0.0, "", None

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer = sole_optimizer(trainer, type(self).__name__)
        wants_moments = {"exp_avg", "exp_avg_sq"} & set(self.streams)
        if wants_moments and not keeps_moments(optimizer):
            raise UnsupportedTrainerError(
                f"Streams {sorted(wants_moments)} need torch's Adam or AdamW, got {type(optimizer).__name__}."
            )
        assert self._layout is not None  # set in `setup`, which Lightning runs first
        layout = self._layout
        with self.ledger.charge("recording"):
            if self._resumed is not None:
                self._trajectory = self._reopen(layout)
            else:
                metadata = {**self.metadata, **_optimizer_facts(optimizer)}
                self._trajectory = Trajectory.create(self.path, layout, streams=self.streams, metadata=metadata)
        self._uuid = self._trajectory.uuid
        parameters = trainable_parameters(pl_module)
        if "updates" in self.every:
            self._handles.append(
                optimizer.register_step_pre_hook(lambda *_: self._before_step(trainer, parameters, layout))
            )
        self._handles.append(
            optimizer.register_step_post_hook(lambda *_: self._after_step(trainer, pl_module, optimizer, layout))
        )

    def _reopen(self, layout: Layout) -> Trajectory:
        assert self._resumed is not None
        step, store = int(self._resumed["step"]), str(self._resumed["store"])
        try:
            trajectory = Trajectory.resume(self.path, layout, step)
        except ForecastError as error:
            raise ResumeError(
                f"The checkpoint was recorded into {self.path}, which cannot be continued: {error} "
                "Put the store back, or start a fresh run without the checkpoint."
            ) from error
        if trajectory.uuid != store:
            trajectory.close()
            raise ResumeError(
                f"The store at {self.path} is of another run (it is {trajectory.uuid}, the checkpoint says {store})."
            )
        trajectory.add_event("resume", step, breaks=False)
        return trajectory

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # After Lightning has restored a checkpoint, so that its step counter is right.
        self._step = self._loss_step = trainer.global_step
        self._loss = None
        self._began = time.perf_counter()
        if self._resumed is None and "weights" in self.every:
            with self.ledger.charge("recording"):
                weights = flatten(trainable_parameters(pl_module), self.layout)
                self.trajectory.append(self._step, streams={"weights": weights})

    def _before_step(self, trainer: pl.Trainer, parameters: dict[str, torch.nn.Parameter], layout: Layout) -> None:
        if self._due("updates", trainer.global_step + 1):
            with self.ledger.charge("recording"):
                self._before = flatten(parameters, layout, out=self._before)

    @torch.no_grad()
    def _after_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer, layout: Layout
    ) -> None:
        # Lightning counts the step once this hook has returned.
        self._step = step = trainer.global_step + 1
        due = [name for name in self.streams if self._due(name, step)]
        if not due:
            return
        with self.ledger.charge("recording"):
            parameters = trainable_parameters(module)
            require_unchanged(parameters, layout, type(self).__name__)
            rows: dict[str, Tensor] = {}
            if "weights" in due or "updates" in due:
                weights = flatten(parameters, layout)
                if "weights" in due:
                    rows["weights"] = weights
                if "updates" in due:
                    assert self._before is not None  # copied in `_before_step`
                    rows["updates"] = weights - self._before
            if "gradients" in due:
                rows["gradients"] = flatten({name: value.grad for name, value in parameters.items()}, layout)
            if "exp_avg" in due or "exp_avg_sq" in due:
                moments = raw_moments(optimizer, module, layout)
                rows.update({name: moments[name] for name in due if name.startswith("exp_avg")})
            rate = float(optimizer.param_groups[0]["lr"])
            self.trajectory.append(step, streams=rows, scalars={"learning_rate": rate})

    def _due(self, stream: str, step: int) -> bool:
        return stream in self.every and step % self.every[stream] == 0

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            # Under accumulation each micro-batch brings its share of the step's loss.
            self._loss = (self._loss or 0.0) + float(loss.detach())
        if self._step > self._loss_step:
            with self.ledger.charge("recording"):
                seconds = self._seconds + time.perf_counter() - self._began
                scalars = {"wall_seconds": seconds}
                if self._loss is not None:  # None where `training_step` skipped the batch
                    scalars["loss"] = self._loss
                self.trajectory.append(self._step, scalars=scalars)
            self._loss, self._loss_step = None, self._step

    def note_jump(self, weights: Tensor, **details: Any) -> None:
        """Put a kept jump into the trajectory: an event that no window spans, then the weights the run goes on from.

        Args:
            weights: the jumped weights, `[param]`.
            details: plain JSON values to keep with the event.
        """
        with self.ledger.charge("recording"):
            self.trajectory.add_event("jump", self._step, breaks=True, **details)
            if "weights" in self.every:
                self.trajectory.append(self._step, streams={"weights": weights})

    def window(
        self,
        history: int,
        stream: StreamName = "weights",
        spacing: int | None = None,
        moments_of: tuple[torch.optim.Optimizer, pl.LightningModule] | None = None,
    ) -> Window | None:
        """The newest rows as a window, or `None` while there are too few since the last break in the curve.

        Args:
            history: how many rows.
            stream: of which stream.
            spacing: optimiser steps between rows, a multiple of the stream's cadence, which it is when not given.
            moments_of: attach the moments that this optimiser keeps for this module now.

        Raises:
            CallbackOptionError: if the stream is not recorded or the spacing is no multiple of its cadence.
        """
        if stream not in self.every:
            raise CallbackOptionError(f"{stream!r} is not recorded; recorded are {self.streams}.")
        gap = spacing if spacing is not None else self.every[stream]
        if gap < 1 or gap % self.every[stream]:
            raise CallbackOptionError(f"`spacing` must be a multiple of the cadence {self.every[stream]}, got {gap}.")
        data = self.trajectory.stream(stream)
        if not len(data):
            return None
        segment = data.segments[-1]
        steps = data.steps[segment]
        wanted = [int(steps[-1]) - gap * back for back in range(history - 1, -1, -1)]
        row_of = {int(step): segment.start + row for row, step in enumerate(steps)}
        if not all(step in row_of for step in wanted):
            return None
        values = torch.from_numpy(np.stack([data[row_of[step]] for step in wanted]))
        window = Window(values, torch.tensor(wanted), self.layout, stream)
        if moments_of is None:
            return window
        optimizer, module = moments_of
        return replace(window, moments=read_moments(optimizer, module, self.layout))

    @override
    def state_dict(self) -> dict[str, Any]:
        # Also after the end of `fit`, for checkpoints that are saved then, or because of an exception.
        if not self._uuid:
            return {}
        running = time.perf_counter() - self._began if self._trajectory is not None else 0.0
        return {
            "step": self._step,
            "store": self._uuid,
            "seconds": self._seconds + running,
            "ledger": self.ledger.to_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._resumed = dict(state_dict)
            self._seconds = float(state_dict["seconds"])
            self.ledger = Ledger.from_dict(state_dict["ledger"])

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._resumed = None
        if self._trajectory is not None:
            self._seconds += time.perf_counter() - self._began
            with self.ledger.charge("recording"):
                self._trajectory.close()
            self._trajectory = None


def weights_recorder(trainer: pl.Trainer, who: str) -> TrajectoryRecorder:
    """The Trainer's recorder of weights.

    Raises:
        UnsupportedTrainerError: if it has none.
    """
    recorder = find_callback(trainer, TrajectoryRecorder)
    if recorder is None or "weights" not in recorder.every:
        raise UnsupportedTrainerError(f"{who} needs a TrajectoryRecorder that records 'weights'. Add one.")
    return recorder


def _optimizer_facts(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What a reader of the trajectory needs to know of the optimiser, as plain JSON values."""
    facts: dict[str, Any] = {"optimizer": type(optimizer).__name__}
    if has_moments(optimizer) and len({group["lr"] for group in optimizer.param_groups}) == 1:
        group = optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        decay = float(group["weight_decay"]) if isinstance(optimizer, torch.optim.AdamW) else 0.0
        facts["adam"] = {
            "beta1": float(beta1),
            "beta2": float(beta2),
            "eps": float(group["eps"]),
            "weight_decay": decay,
        }
    return facts

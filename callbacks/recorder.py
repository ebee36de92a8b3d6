"""Record the trajectory of a training run."""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from ..forecast import (
    Cost,
    ForecastError,
    Layout,
    Ledger,
    Tier,
    Trajectory,
    TrajectoryError,
    Window,
    read_moments,
)
from ..forecast.tiers import ROUNDING_LIMIT
from ..forecast.trajectory import Durability
from .errors import CallbackError, CallbackOptionError, UnsupportedTrainerError
from .recorded_facts import batch_length, optimizer_facts
from .recorded_steps import StepRecorder
from .recorded_streams import RecordedStreams, StreamName, choose
from .recorder_forecast import forecast_recording
from .recorder_options import OnError, make_options
from .recorder_store import RecordingStore, load_rank, save_rank
from .recorder_support import require_recordable, require_unscaled
from .recorder_window import newest_window
from .support import find_callback


class TrajectoryRecorder(pl.Callback):
    """Writes weights, gradients and more of a real run into a trajectory store, without changing the run.

    Streams, each `[param]`, taken in the optimiser's own step hook, so once per real update, whatever accumulates,
    optimises by hand or is skipped by a gradient scaler. Steps count those updates, of all optimisers together:

    * `weights`: after the update. The weights at the start of training are recorded too, as step 0.
    * `gradients`: as the optimiser used them: averaged over accumulated batches and processes, unscaled, clipped and
      after `GradientCompression`; zeros for the parameters of other optimisers.
    * `raw_gradients`: the same before clipping. Before `GradientCompression` too, if that is listed later.
    * `rank_gradients`: each process' own, before averaging and clipping, as streams `gradients_of_rank_0` and so on.
    * `updates`: weights after the update minus weights before it.
    * `buffers`: of floating point, such as the running means of BatchNorm, after the update, with their own layout.
    * `moments`: all that the optimisers keep of each parameter, each a stream under the optimiser's own name, after the
      update and not bias-corrected. Single ones can be asked for by name, as `exp_avg`. docs/support-matrix.md says
      what each optimiser keeps.

    Scalars: `loss` (training loss of each optimiser step, of process 0), `wall_seconds`, `samples` seen by all
    processes; at every recorded row the `learning_rate` of each parameter group, and with several optimisers which
    `optimizer` stepped.

    Rows are copied into a fixed number of buffers and written by one thread. Before training starts, one line says
    what the recording will take, and a disk that cannot hold it is refused. `trainer.fit(ckpt_path=...)` goes on in the
    same store: rows after the checkpoint's step are cut, so an interrupted and resumed run leaves the trajectory of an
    uninterrupted one. With several processes the first one writes. What is supported is in docs/support-matrix.md;
    everything else is refused by name.

    Args:
        path: folder of the store, or a URL that fsspec knows; must not exist yet in a fresh run.
        every: record each stream every so many optimiser steps; one number for all, or one by stream, with `scalars`
            for loss, time and samples, which otherwise come at every step.
        streams: which streams.
        metadata: plain JSON values to keep with the trajectory.
        parameters: patterns of names of parameters, as for files; those that match one are recorded.
        sample: record this many coordinates only, drawn once from those parameters. For networks whose rows would not
            fit: 100 000 coordinates tell much of how a large one moves.
        seed: of that draw.
        tier: how numbers are stored, one for all streams or one by stream; see `Trajectory.create`.
        on_error: what a failing disk does to training once it runs: `stop` it with the error, or `continue` without
            recording, with a warning. What was recorded before stays.
        durability: see `Trajectory.create`.
        depth: buffers of each stream; see `TrajectoryWriter`.

    Attributes:
        ledger: what `recording` cost the training thread, `waiting for the writer` of it, and the processor time of
            `writing` by the other thread.
        every: optimiser steps between rows, by stream.
        streams: names of the streams.
        trajectory: the open store, from the start of training until its end.
    """

    def __init__(
        self,
        path: str | Path,
        every: int | Mapping[str, int] = 10,
        streams: Sequence[StreamName] = ("weights",),
        metadata: Mapping[str, Any] | None = None,
        *,
        parameters: str | Sequence[str] = "*",
        sample: int | None = None,
        seed: int = 0,
        tier: Tier | Mapping[str, Tier] = "float32",
        on_error: OnError = "stop",
        durability: Durability = "none",
        depth: int = 2,
    ) -> None:
        self._options = make_options(every, streams, parameters, sample, seed, tier, on_error, durability, depth)
        self.path = path if isinstance(path, str) and "://" in path else Path(path)
        self.every: dict[str, int] = dict(self._options.every)
        self.streams: tuple[str, ...] = self._options.streams
        self.metadata = dict(metadata or {})
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.ledger = Ledger()
        self._plan: RecordedStreams | None = None
        self._steps: StepRecorder | None = None
        self._store: RecordingStore | None = None
        self._rank = 0
        self._uuid = ""
        self._rows: dict[str, int] = {}
        self._loss: float | None = None
        self._loss_step = self._samples = 0
        self._seconds = self._began = 0.0
        self._settled = (0.0, 0)
        self._running = self._failed = self._warned = False
        self._resumed: dict[str, Any] | None = None

    @property
    def trajectory(self) -> Trajectory:
        """The open store, with everything up to now written. Not to be kept: it goes on being written.

        Raises:
            RuntimeError: outside of training, and in processes other than the first.
        """
        if self._store is None or self._store.closed:
            raise RuntimeError(
                "The trajectory is open during `fit` only, in process 0; use `Trajectory.open(path)` afterwards."
            )
        with self._charged():
            self._store.writer.drain()
        return self._store.trajectory

    @property
    def layout(self) -> Layout:
        """The layout of what is recorded of the network's parameters.

        Raises:
            RuntimeError: before `fit`.
        """
        if self._plan is None:
            raise RuntimeError("There is a layout from `fit` on only.")
        return self._plan.selection.layout

    @property
    def is_whole(self) -> bool:
        """Whether all trainable parameters are recorded, and not a part or a sample of them."""
        if self._plan is not None:
            return self._plan.selection.is_everything
        return self._options.sample is None and self._options.parameters == ("*",)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        require_recordable(trainer, type(self).__name__)
        if self._options.needs_backward and not pl_module.automatic_optimization:
            raise UnsupportedTrainerError(
                f"Streams {self._options.needs_backward} need automatic optimisation; this module optimises manually."
            )
        if trainer.world_size > 1 and not isinstance(self.path, Path):
            raise UnsupportedTrainerError("Several processes record into a folder, not a URL. Give a folder.")
        self._begin_anew()

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        who = type(self).__name__
        require_recordable(trainer, who)
        if self._options.of_gradients:
            require_unscaled(trainer, self._options.of_gradients, who)
        selection = choose(pl_module, self._options.parameters, self._options.sample, self._options.seed)
        self._plan = RecordedStreams(
            pl_module, trainer.optimizers, self._options.streams, trainer.world_size, selection
        )
        self.streams = tuple(self._plan.names)
        self.every = {name: self._options.every[asked] for name, asked in self._plan.names.items()}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Here, and not when `fit` starts: a checkpoint has been restored, and how long the run will be is known.
        plan = self._plan
        assert plan is not None  # made in `on_fit_start`
        self._rank = trainer.global_rank
        self._began, self._running = time.perf_counter(), True
        step = trainer.global_step if self._resumed is None else int(self._resumed["step"])
        self._loss_step, self._loss = step, None
        with self._charged():
            forecast = forecast_recording(trainer, plan, self.every, self._options)
            error: CallbackError | ForecastError | None = None
            if self._rank == 0:
                try:
                    if isinstance(self.path, Path):
                        forecast.require_room(self.path.absolute())
                    self._store = self._open(plan, trainer.optimizers, step)
                except (CallbackError, ForecastError) as found:
                    error = found
            known = (self._store.trajectory.uuid if self._store is not None else "", str(error or ""))
            self._uuid, told = trainer.strategy.broadcast(known)
        if error is not None:
            raise error
        if told:
            raise UnsupportedTrainerError(f"Process 0 could not record: {told}")
        rank_zero_info(forecast.line(str(self.path)))
        if self._store is not None and self._store.notice:
            rank_zero_info(self._store.notice)
        writer = self._store.writer if self._store is not None else None
        self._steps = StepRecorder(trainer, plan, self.every, writer, self._charged, step)
        if self._resumed is None:
            self._steps.first_row()
        elif self._rank > 0:
            self._load_rank(step)

    def _open(self, plan: RecordedStreams, optimizers: Sequence[torch.optim.Optimizer], step: int) -> RecordingStore:
        options, path = self._options, str(self.path)
        if self._resumed is not None:
            store = RecordingStore.resume(
                path, plan.selection, self.streams, self._resumed, options.durability, options.depth
            )
            store.writer.add_event("resume", step, breaks=False)
            return store
        tiers: dict[str, Tier] = {
            name: options.tiers[asked] for name, asked in plan.names.items() if asked in options.tiers
        }
        return RecordingStore.create(
            path,
            plan.selection,
            self.streams,
            plan.layouts,
            tiers,
            {**self.metadata, **optimizer_facts(optimizers)},
            options.durability,
            options.depth,
        )

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._steps is not None:
            self._steps.before_clipping(optimizer)

    @override
    def on_before_zero_grad(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if self._steps is not None:
            self._steps.before_backward()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._samples += batch_length(batch) * trainer.world_size
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if isinstance(loss, Tensor):
            # Under accumulation each micro-batch brings its share of the step's loss.
            self._loss = (self._loss or 0.0) + float(loss.detach())
        step = self._steps.step if self._steps is not None else 0
        if step > self._loss_step:
            every = self._options.scalars_every
            if step // every > self._loss_step // every and self._store is not None:
                with self._charged():
                    scalars: dict[str, float] = {"wall_seconds": self._elapsed(), "samples": self._samples}
                    if self._loss is not None:  # None where `training_step` skipped the batch
                        scalars["loss"] = self._loss
                    self._store.writer.append(step, None, scalars)
            self._loss, self._loss_step = None, step
        self._heed()

    def _elapsed(self) -> float:
        return self._seconds + (time.perf_counter() - self._began if self._running else 0.0)

    def _heed(self) -> None:
        """Take over what the writing thread has to say."""
        if self._store is None:
            return
        self._settle()
        writer = self._store.writer
        lost = max(writer.rounding.values(), default=0.0)
        if lost > ROUNDING_LIMIT and not self._warned:
            self._warned = True
            warnings.warn(
                f"Rounding to bfloat16 takes {lost:.0%} of what the weights move between two recorded rows. Record "
                "'weights' in tier 'float32' if differences of rows matter, as they do to forecasters.",
                stacklevel=1,
            )
        if writer.error is not None and not self._failed:
            self._failed = True
            message = f"Recording into {self.path} failed: {writer.error} What was recorded before stays."
            if self._options.on_error == "stop":
                raise TrajectoryError(message) from writer.error
            warnings.warn(f"{message} Training goes on without a recorder.", stacklevel=1)

    def _settle(self) -> None:
        """Charge what the writing thread has done since the last time."""
        assert self._store is not None  # or there is no writer
        cpu, commits = self._store.writer.cpu_seconds, self._store.writer.num_commits
        if not cpu:
            return  # there is no such thread: small rows are written, and charged, by the training thread
        self.ledger.add("writing", Cost(0.0, max(0.0, cpu - self._settled[0]), commits - self._settled[1]))
        self._settled = (cpu, commits)

    @contextmanager
    def _charged(self) -> Iterator[None]:
        """Charge the training thread's time, and of it what was spent waiting."""
        blocked = self._store.writer.blocked_seconds if self._store is not None else 0.0
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
            waited = (self._store.writer.blocked_seconds if self._store is not None else blocked) - blocked
            self.ledger.add("recording", Cost(max(0.0, wall - waited), cpu, 1))
            if waited:
                self.ledger.add("waiting for the writer", Cost(waited, 0.0, 1))

    def note_jump(self, weights: Tensor, **details: Any) -> None:
        """Put a kept jump into the trajectory: an event that no window spans, then the weights the run goes on from.

        Args:
            weights: the jumped weights of all trainable parameters, `[param]`.
            details: plain JSON values to keep with the event.
        """
        if self._steps is not None:
            self._steps.jumped(weights, details)

    def window(
        self,
        history: int,
        stream: StreamName = "weights",
        spacing: int | None = None,
        moments_of: tuple[torch.optim.Optimizer, pl.LightningModule] | None = None,
    ) -> Window | None:
        """The newest rows as a window, or `None` while there are too few since the last break in the curve.

        Waits until the newest row is written.

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
        trajectory = self.trajectory
        with self._charged():
            window = newest_window(trajectory, stream, history, gap)
        if moments_of is None or window is None:
            return window
        optimizer, module = moments_of
        return replace(window, moments=read_moments(optimizer, module, self.layout))

    @override
    def state_dict(self) -> dict[str, Any]:
        # Also after the end of `fit`, for checkpoints that are saved then, or because of an exception.
        if not self._uuid:
            return {}
        if self._store is not None and not self._store.closed:
            with self._charged():
                self._rows = self._store.save()
        step = self._steps.step if self._steps is not None else 0
        state = {
            "step": step,
            "store": self._uuid,
            "rows": dict(self._rows),
            "seconds": self._elapsed(),
            "samples": self._samples,
            "ledger": self.ledger.to_dict(),
        }
        if self._rank > 0:
            save_rank(Path(self.path), self._rank, step, state)
        return state

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self._resumed = dict(state_dict)
            self._seconds = float(state_dict["seconds"])
            self._samples = int(state_dict.get("samples", 0))
            self.ledger = Ledger.from_dict(state_dict["ledger"])

    def _load_rank(self, step: int) -> None:
        """Replace process 0's state, which Lightning gives to all, by this process' own."""
        found = load_rank(Path(self.path), self._rank, step)
        self.ledger = Ledger.from_dict(found["ledger"]) if found is not None else Ledger()
        self._seconds = found["seconds"] if found is not None else self._seconds

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()
        self._heed()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()  # and no word of its errors: they must not hide the exception

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        self._seconds, self._running = self._elapsed(), False
        self._resumed = None
        if self._steps is not None:
            self._steps.close()
        if self._store is not None and not self._store.closed:
            with self._charged():
                self._store.finish()
            self._rows = self._store.rows
            self._settle()


def weights_recorder(trainer: pl.Trainer, who: str) -> TrajectoryRecorder:
    """The Trainer's recorder of weights.

    Raises:
        UnsupportedTrainerError: if it has none, or one that records a part of them.
    """
    recorder = find_callback(trainer, TrajectoryRecorder)
    if recorder is None or "weights" not in recorder.every or not recorder.is_whole:
        raise UnsupportedTrainerError(f"{who} needs a TrajectoryRecorder that records all 'weights'. Add one.")
    return recorder

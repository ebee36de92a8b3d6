"""Jump ahead during training, where held-out data say that it helps."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import Forecaster, LearnedForecaster, Ledger, has_moments, pack
from ..forecast.graph import NeuralGraph
from ..forecast.jump import ControllerState, HorizonController, Jump, JumpPolicy, Outcome, attempt_jump
from ..models import make_forecaster
from .compression import GradientCompression
from .errors import CallbackOptionError, ResumeError, UnsupportedTrainerError
from .graphs import NetworkGraph
from .online import OnlineForecaster
from .recorder import TrajectoryRecorder, weights_recorder
from .support import find_callback, require_plain_training, sole_optimizer


class SkipAhead(pl.Callback):
    """Proposes jumps along the forecast of the weights and keeps those that lower a held-out loss.

    Every `every` optimiser steps: forecast the weights some horizon ahead, measure the loss of the present and of the
    forecast weights on the same held-out batches, and go on from the better ones. A jump that is not kept leaves the
    run bit-equal to one that never proposed it. The optimiser's moments, the learning-rate schedule and `global_step`
    stay as they are. Everything is charged to `ledger`.

    The history comes from a `TrajectoryRecorder` with the stream `weights`, which the Trainer must have as well.

    Supported: 32-bit training, one optimiser, automatic optimisation, resume. Everything else is refused by name in
    `setup`.

    Args:
        forecaster: a name from `deadreckon.models`, a fitted forecaster of the stream `weights`, or `"online"` for
            whichever the Trainer's `OnlineForecaster` finds best at the horizon, as long as that one has any skill.
        every: optimiser steps between opportunities, a multiple of the recorder's cadence.
        horizons: optimiser steps ahead to choose from, increasing; see `HorizonController`.
        probe: `probe(module, batch)` gives losses, one a sample or one a batch. It must not change or log anything.
        batches: held-out batches for `probe`, gone through twice at each verified jump. Keep them apart from training
            data and from the data that measure success.
        patience: see `HorizonController`.
        cool_down: see `HorizonController`.
        policy: when a jump is kept; see `JumpPolicy`.
        batch_size: samples in a training batch, to express verification in gradient evaluations too.
        graph: the network's neural graph, where the forecaster needs one, as from `trace_graph(module, inputs)`. If not
            given, the module is traced once, called with the inputs of the first batch. With `"online"` it is
            `OnlineForecaster` that has the graph.

    Attributes:
        ledger: what `reading history`, `forecasting`, `loading` held-out data, `copying`, `verifying` and `rolling
            back` cost, and `tracing`.
        jumps: a record of every opportunity.
    """

    def __init__(
        self,
        forecaster: str | Forecaster,
        every: int,
        horizons: Sequence[int],
        probe: Callable[[nn.Module, Any], Tensor],
        batches: Iterable[Any],
        patience: int = 2,
        cool_down: int = 2,
        policy: JumpPolicy | None = None,
        batch_size: int | None = None,
        graph: NeuralGraph | None = None,
    ) -> None:
        if every < 1:
            raise CallbackOptionError(f"`every` must be at least 1, got {every}.")
        self._forecaster: Forecaster | None = None
        if isinstance(forecaster, Forecaster):
            self._forecaster = forecaster
        elif forecaster != "online":
            self._forecaster = make_forecaster(forecaster)
        if self._forecaster is not None and self._forecaster.stream != "weights":
            raise CallbackOptionError(
                f"SkipAhead needs a forecaster of 'weights', got one of {self._forecaster.stream!r}."
            )
        if graph is not None and self._forecaster is None:
            raise CallbackOptionError("With forecaster 'online', give `graph` to the OnlineForecaster instead.")
        if isinstance(batches, Iterator):
            raise CallbackOptionError(
                "`batches` is gone through at every jump and must not be an iterator. Give a list or a DataLoader."
            )
        if isinstance(self._forecaster, LearnedForecaster) and not self._forecaster.fitted:
            raise CallbackOptionError(
                f"{self._forecaster.name!r} has not been fitted. Load it, fit it, or train it during the run: "
                "add OnlineForecaster and pass 'online'."
            )
        self.every = every
        self.probe = probe
        self.batches = batches
        self.batch_size = batch_size
        self.policy = policy if policy is not None else JumpPolicy()
        self.controller = HorizonController(horizons, patience, cool_down)
        self.ledger = Ledger()
        self.jumps: list[Jump] = []
        self._state = ControllerState()
        self._graph = NetworkGraph(graph)
        self._recorder: TrajectoryRecorder | None = None
        self._online: OnlineForecaster | None = None
        self._compression: GradientCompression | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        who = type(self).__name__
        require_plain_training(trainer, pl_module, who)
        self._recorder = weights_recorder(trainer, who)
        if self.every % self._recorder.every["weights"]:
            raise UnsupportedTrainerError(
                f"{who}'s `every` must be a multiple of the recorder's cadence {self._recorder.every['weights']}, "
                f"got {self.every}."
            )
        self._online = find_callback(trainer, OnlineForecaster)
        if self._forecaster is None and self._online is None:
            raise UnsupportedTrainerError(f"{who} with forecaster 'online' needs an OnlineForecaster. Add one.")
        if self._forecaster is None and self._online is not None:
            longest = max(self._online.horizons)
            if self.controller.horizons[-1] > longest:
                raise UnsupportedTrainerError(
                    f"{who}'s horizons must not exceed OnlineForecaster's longest, {longest}, "
                    f"got {self.controller.horizons[-1]}."
                )
        self._graph.begin(pl_module, [self._forecaster] if self._forecaster is not None else [], who)
        self._state, self.jumps, self.ledger = ControllerState(), [], Ledger()
        self._compression = find_callback(trainer, GradientCompression)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer = sole_optimizer(trainer, type(self).__name__)
        online = self._online.forecasters.values() if self._online is not None else ()
        for forecaster in online if self._forecaster is None else (self._forecaster,):
            if forecaster.needs_moments and not has_moments(optimizer):
                raise UnsupportedTrainerError(
                    f"{forecaster.name!r} needs torch's Adam or AdamW with the same betas, eps and weight decay in all "
                    f"groups, got {type(optimizer).__name__}."
                )

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._graph.see(pl_module, batch, self.ledger, type(self).__name__)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == 0 or step % self.every or (self.jumps and self.jumps[-1].step == step):
            return
        begin = time.perf_counter()
        jump = self._opportunity(trainer, pl_module, step)
        jump = replace(jump, step=step, wall_seconds=time.perf_counter() - begin)
        self._state = self.controller.update(self._state, jump.outcome)
        self.jumps.append(jump)
        if jump.outcome.kept:
            assert self._recorder is not None  # found in `setup`
            with self.ledger.charge("copying"):
                weights = pack(pl_module)[0]
            self._recorder.note_jump(weights, horizon=jump.horizon, margin=jump.margin)
        if jump.outcome.proposed:
            metrics = {
                "jump/index": float(sum(item.outcome.proposed for item in self.jumps)),
                "jump/horizon": float(jump.horizon),
                "jump/kept": float(jump.outcome.kept),
                "jump/margin": jump.margin,
            }
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=step)

    def _opportunity(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> Jump:
        assert self._recorder is not None  # found in `setup`
        horizon, self._state = self.controller.propose(self._state)
        if horizon is None:
            return Jump(step, 0, Outcome.COOLING_DOWN)
        forecaster = self._forecaster
        if self._online is not None and forecaster is None:
            # Skill may be there at some horizons only; without this a run would wait at one where there is none.
            found = ((item, self._online.best(item)) for item in self.controller.nearby(self._state))
            horizon, forecaster = next(((item, best) for item, best in found if best is not None), (horizon, None))
            self._state = self.controller.at(self._state, horizon)
        if forecaster is None:
            return Jump(step, 0, Outcome.NO_FORECASTER)
        optimizer = trainer.optimizers[0]
        with self.ledger.charge("reading history"):
            window = self._recorder.window(
                forecaster.history, moments_of=(optimizer, module) if forecaster.needs_moments else None
            )
        if window is None or window.last_step != step:
            return Jump(step, 0, Outcome.NO_HISTORY)
        if forecaster.needs_graph:
            own = self._graph if self._forecaster is not None else self._online
            assert own is not None  # whoever has the forecaster has seen a batch
            window = replace(window, graph=own.graph)
        others = self._compression.stateful if self._compression is not None else ()
        return attempt_jump(
            module,
            optimizer,
            forecaster,
            window,
            horizon,
            self.probe,
            self.batches,
            self.policy,
            self.ledger,
            others,
            self.batch_size,
        )

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "controller": list(self._state),
            "jumps": [
                [
                    jump.step,
                    jump.horizon,
                    jump.outcome.name,
                    jump.margin,
                    jump.loss_before,
                    jump.loss_after,
                    jump.wall_seconds,
                ]
                for jump in self.jumps
            ],
            "ledger": self.ledger.to_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = ControllerState(*state_dict["controller"])
        if not 0 <= state.position < len(self.controller.horizons):
            raise ResumeError(
                f"The checkpoint was at horizon number {state.position + 1}, SkipAhead has "
                f"{len(self.controller.horizons)} horizons now. Use those that the run was started with."
            )
        self._state = state
        self.jumps = [
            Jump(step, horizon, Outcome[outcome], margin, before, after, seconds)
            for step, horizon, outcome, margin, before, after, seconds in state_dict["jumps"]
        ]
        self.ledger = Ledger.from_dict(state_dict["ledger"])

"""Jump ahead during training, where held-out data say that it helps."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import Forecaster, Ledger, Window, pack
from ..forecast.graph import NeuralGraph
from ..forecast.jump import (
    CandidateScreen,
    ControllerState,
    HorizonController,
    Jump,
    JumpPolicy,
    JumpSetting,
    MomentName,
    Outcome,
    Progress,
    RegimeTracker,
    RowKeeper,
    WeightSignals,
    attempt_jump,
    moment_rule,
    weight_signals,
)
from ..models import make_forecaster
from .compression import GradientCompression
from .errors import CallbackOptionError, ResumeError, UnsupportedTrainerError
from .graphs import NetworkGraph
from .jump_budget import JumpBudget
from .jump_history import WeightReader, choose_rows, read_window
from .jump_log import jump_metrics, log_jump_table, log_metrics, show_in_progress_bar
from .jump_options import check_options
from .jump_support import Schedules, agreement_of, is_compiled, prepared, require_jumpable, require_optimizers
from .online import OnlineForecaster
from .recorder import TrajectoryRecorder
from .support import find_callback


class SkipAhead(pl.Callback):
    """Proposes jumps along the forecast of the weights and keeps those that lower a held-out loss.

    Every `every` optimiser steps: forecast the weights some horizon ahead, measure the loss of the present and of the
    forecast weights on the same held-out batches, and go on from the better ones. A jump that is not kept leaves the
    run bit-equal to one that never proposed it; so does one that an exception ends. `global_step` counts real steps
    only; `effective_step` adds what the jumps were worth. Everything is charged to `ledger`.

    The history comes from the Trainer's `TrajectoryRecorder` with the stream `weights`, if it has one; else from rows
    that SkipAhead keeps in memory, which costs less.

    Supported: precisions 32-true, 64-true, bf16-mixed and bf16-true, accumulation, clipping, several optimisers, manual
    optimisation, `torch.compile`, DDP (one decision for all processes, from their summed losses), resume. Everything
    else is refused by name in `setup`.

    Args:
        forecaster: a name from `deadreckon.models`, a fitted forecaster of the stream `weights`, or `"online"` for
            whichever the Trainer's `OnlineForecaster` finds best at the horizon, as long as that one has any skill.
        every: optimiser steps between opportunities, a multiple of the recorder's cadence if there is one. With several
            optimisers, or several steps in a batch, a batch counts as one.
        horizons: optimiser steps ahead to choose from, increasing, see `HorizonController`; or a function that gives
            the horizon at a step or `None`, for a published schedule such as `nino_schedule`, without cool-downs.
        probe: `probe(module, batch)` gives losses, one a sample or one a batch. It must not change or log anything.
        batches: held-out batches for `probe`, in a fixed order, gone through until the test can tell. Keep them apart
            from training data and from the data that measure success. Each process has its own.
        patience: see `HorizonController`.
        cool_down: see `HorizonController`.
        policy: when a jump is kept; see `JumpPolicy`.
        batch_size: samples in a training batch, to express verification in gradient evaluations too.
        graph: the network's neural graph, where the forecaster needs one, as from `trace_graph(module, inputs)`. If not
            given, the module is traced once, called with the inputs of the first batch. With `"online"` it is
            `OnlineForecaster` that has the graph.
        moments: what becomes of the optimiser's moments after a jump: `keep`, `rescale`, `transport` or `reset`; see
            `forecast/jump/after.py`. The default measured best (benchmarks/jump_moments.txt); published methods `keep`.
        schedule: whether learning-rate schedules that go by the step `stays` where they are or `advances` by the
            horizon of a kept jump.
        step_scales: what the forecast's step is multiplied by; several are screened on the first held-out batch.
        num_horizons: so many horizons, the proposed one and its neighbours, are tried from one forecast.
        batch_norm_batches: training batches on which the running statistics of batch normalisation are measured anew
            for the forecast weights; `None` leaves them to ordinary training.
        cost_share: opportunities are let pass while SkipAhead's ledger, the next attempt included, exceeds this share
            of the run's CPU seconds. That goes by the clock, so two runs may jump at different steps; with `None` there
            is no limit, `worth_it` counts gradient evaluations only, and a run is repeatable bit for bit.
        start: the first opportunity comes at this step or later.
        spacing: optimiser steps between the rows of its own history; `every` over the rows that the forecaster needs
            when not given.

    Attributes:
        ledger: what `reading history`, `forecasting`, `loading` held-out data, `copying`, `screening`, `verifying`,
            `re-estimating`, `following up` and `rolling back` cost, and `tracing`.
        jumps: a record of every opportunity.
    """

    def __init__(
        self,
        forecaster: str | Forecaster,
        every: int,
        horizons: Sequence[int] | Callable[[int], int | None],
        probe: Callable[[nn.Module, Any], Tensor],
        batches: Iterable[Any],
        patience: int = 2,
        cool_down: int = 2,
        policy: JumpPolicy | None = None,
        batch_size: int | None = None,
        graph: NeuralGraph | None = None,
        moments: MomentName = "rescale",
        schedule: Literal["stays", "advances"] = "stays",
        step_scales: Sequence[float] = (1.0,),
        num_horizons: int = 1,
        batch_norm_batches: Iterable[Any] | None = None,
        cost_share: float | None = 0.02,
        start: int = 0,
        spacing: int | None = None,
    ) -> None:
        self._forecaster: Forecaster | None = None
        if isinstance(forecaster, Forecaster):
            self._forecaster = forecaster
        elif forecaster != "online":
            self._forecaster = make_forecaster(forecaster)
        check_options(self._forecaster, every, batches, batch_norm_batches, graph, schedule, step_scales, num_horizons)
        if start < 0 or (spacing is not None and spacing < 1):
            raise CallbackOptionError(f"`start` must be at least 0 and `spacing` at least 1, got {start}, {spacing}.")
        self.every = every
        self.probe = probe
        self.batches = batches
        self.batch_size = batch_size
        self.policy = policy if policy is not None else JumpPolicy()
        self.moments = moment_rule(moments)
        self.schedule = schedule
        self.step_scales = tuple(step_scales)
        self.num_horizons = num_horizons
        self.batch_norm_batches = batch_norm_batches
        self.cost_share = cost_share
        self.start = start
        self.spacing = spacing
        self._horizon_at = horizons if callable(horizons) else None
        self.controller = HorizonController((1,) if callable(horizons) else horizons, patience, cool_down)
        self.ledger = Ledger()
        self.jumps: list[Jump] = []
        self._graph = NetworkGraph(graph)
        self._recorder: TrajectoryRecorder | None = None
        self._online: OnlineForecaster | None = None
        self._compression: GradientCompression | None = None
        self._setting: JumpSetting | None = None
        self._rows: RowKeeper | None = None
        self._reader: WeightReader
        self._resumed: dict[str, Any] | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.jumps, self.ledger = [], Ledger()
        self._state = ControllerState()
        self._progress, self._regimes = Progress(), RegimeTracker()
        self._budget = JumpBudget(self.cost_share, self.ledger)
        self._signals: WeightSignals | None = None
        self._step = self._global_step = 0

    @property
    def effective_step(self) -> float:
        """Optimiser steps made, and those that kept jumps replaced as far as that was measured."""
        return self._step + sum(jump.credited for jump in self.jumps if math.isfinite(jump.credited))

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        who = type(self).__name__
        require_jumpable(trainer, who)
        self._recorder = find_callback(trainer, TrajectoryRecorder)
        self._online = find_callback(trainer, OnlineForecaster)
        if self._forecaster is None and self._online is None:
            raise UnsupportedTrainerError(f"{who} with forecaster 'online' needs an OnlineForecaster. Add one.")
        if self._forecaster is None and self._online is not None and self._horizon_at is None:
            longest = max(self._online.horizons)
            if self.controller.horizons[-1] > longest:
                raise UnsupportedTrainerError(
                    f"{who}'s horizons must not exceed OnlineForecaster's longest, {longest}, "
                    f"got {self.controller.horizons[-1]}."
                )
        self._graph.begin(pl_module, [self._forecaster] if self._forecaster is not None else [], who)
        self._compression = find_callback(trainer, GradientCompression)
        self._resumed = None
        self._begin_anew()

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        who = type(self).__name__
        if self._forecaster is not None:
            forecasters = (self._forecaster,)
        else:
            forecasters = tuple(self._online.forecasters.values()) if self._online is not None else ()
        optimizers = require_optimizers(trainer, forecasters, who)
        for optimizer in optimizers:
            self.moments.check(optimizer)
        schedules = Schedules(trainer.lr_scheduler_configs if self.schedule == "advances" else ())
        if self.schedule == "advances" and not len(schedules):
            raise UnsupportedTrainerError(
                f"{who} with schedule 'advances' needs a learning-rate schedule with the interval 'step', and there is "
                "none. Use 'stays'."
            )
        self._rows = choose_rows(trainer, self._recorder, forecasters, self.every, self.start, self.spacing, who)
        if self._rows is not None and self._resumed is not None and self._resumed["rows"] is not None:
            self._rows.load_state_dict(self._resumed["rows"])
        others = self._compression.stateful if self._compression is not None else ()
        compiled = is_compiled(pl_module)
        screen = CandidateScreen()
        if compiled:
            screen.one_by_one = "compiled modules are not mapped over weights"
        self._setting = JumpSetting(
            pl_module,
            optimizers,
            self.probe,
            self.batches,
            self.policy,
            self.ledger,
            (*others, schedules),
            self.batch_size,
            self.moments,
            self.batch_norm_batches,
            schedules.advance,
            agreement_of(trainer),
            self._progress,
            # Looking into a compiled network would have it compiled again at every jump.
            None if compiled else self._regimes,
            screen,
            trainer.precision_plugin.forward_context,
            partial(prepared, trainer, pl_module),
            self._budget.step_seconds,
        )

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._global_step = trainer.global_step
        self._step = int(self._resumed["step"]) if self._resumed is not None else trainer.global_step
        self._resumed = None
        self._budget.start(self._step)
        self._reader = WeightReader(pl_module)
        if self._rows is not None and self._rows.due(self._step):
            self._rows.add(self._step, self._reader.read())

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._graph.see(pl_module, batch, self.ledger, type(self).__name__)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._global_step:
            return  # a batch that only added to the gradient
        self._global_step = trainer.global_step
        self._step += 1
        step = self._step
        # While waiting after rejections the next opportunity needs no history.
        if self._rows is not None and self._rows.due(step) and not (self._state.waiting and self._rows.short):
            with self.ledger.charge("reading history"):
                self._rows.add(step, self._reader.read())
        if step % self.every or step < self.start:
            return
        if self._horizon_at is not None and self._horizon_at(step) is None:
            return
        self._budget.now_at(step)
        begin = time.perf_counter()
        jump = self._opportunity(trainer, pl_module, step)
        jump = replace(jump, step=step, wall_seconds=time.perf_counter() - begin)
        if self._horizon_at is None:
            self._state = self.controller.update(self._state, jump.outcome)
        self.jumps.append(jump)
        self._settle_credits()
        if jump.outcome.kept:
            self._note(pl_module, jump)
        if jump.outcome.proposed:
            self._budget.attempted(sum(jump.costs.values()))
            share = self._budget.share
            log_metrics(trainer, jump_metrics(self.jumps, self._signals, self.effective_step, share), step)
            show_in_progress_bar(trainer, pl_module, self.jumps, share)

    def _settle_credits(self) -> None:
        for number, credited in self._progress.credits.items():
            if self.jumps[number].credited != credited:
                self.jumps[number] = replace(self.jumps[number], credited=credited)

    def _note(self, module: pl.LightningModule, jump: Jump) -> None:
        """Tell whoever keeps a history that the curve breaks here."""
        with self.ledger.charge("copying"):
            weights = pack(module)[0]
        if self._rows is not None:
            self._rows.jumped(jump.step, weights)
        if self._recorder is not None and "weights" in self._recorder.every:
            margin = {"margin": jump.margin} if math.isfinite(jump.margin) else {}
            self._recorder.note_jump(weights, horizon=jump.horizon, **margin)

    def _opportunity(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> Jump:
        assert self._setting is not None  # made in `on_fit_start`
        if not self._affordable():
            return Jump(step, 0, Outcome.OVER_BUDGET)
        horizons, forecaster = self._plan(step)
        if not horizons:
            return Jump(step, 0, Outcome.COOLING_DOWN)
        if forecaster is None:
            return Jump(step, 0, Outcome.NO_FORECASTER)
        with self.ledger.charge("reading history"):
            window = self._window(trainer, module, forecaster, step)
            if window is None:
                return Jump(step, 0, Outcome.NO_HISTORY)
            self._signals = weight_signals(window)
            drift = self._setting.agreement.first(torch.tensor(self._signals.drift, dtype=torch.float64))
            self._regimes.see_weights(self._signals._replace(drift=float(drift)))
        regime = self._regimes.regime
        jump = attempt_jump(self._setting, forecaster, window, horizons, self.step_scales, len(self.jumps))
        if self._horizon_at is None and jump.horizon in self.controller.horizons:
            self._state = self.controller.at(self._state, jump.horizon)
        return replace(jump, regime=regime.value if regime is not None else "")

    def _affordable(self) -> bool:
        """Whether the budget allows another attempt; the first process's clock decides for all."""
        assert self._setting is not None
        return bool(self._setting.agreement.first(torch.tensor(self._budget.affordable())))

    def _plan(self, step: int) -> tuple[tuple[int, ...], Forecaster | None]:
        """The horizons to try, none while cooling down, and whose forecast to take."""
        if self._horizon_at is not None:
            horizon = self._horizon_at(step)
            assert horizon is not None  # looked up before
            best = self._online.best(horizon) if self._forecaster is None and self._online is not None else None
            return (horizon,), self._forecaster if self._forecaster is not None else best
        horizon, self._state = self.controller.propose(self._state, self._regimes.regime)
        if horizon is None:
            return (), None
        forecaster = self._forecaster
        if self._online is not None and forecaster is None:
            # Skill may be there at some horizons only; without this a run would wait at one where there is none.
            found = ((item, self._online.best(item)) for item in self.controller.nearby(self._state))
            horizon, forecaster = next(((item, best) for item, best in found if best is not None), (horizon, None))
            self._state = self.controller.at(self._state, horizon)
        return self.controller.nearby(self._state)[: self.num_horizons], forecaster

    def _window(
        self, trainer: pl.Trainer, module: pl.LightningModule, forecaster: Forecaster, step: int
    ) -> Window | None:
        """The history up to now, with what the forecaster needs besides; `None` while it is too short."""
        window = read_window(trainer, module, self._reader, self._rows, self._recorder, forecaster, step)
        if window is not None and forecaster.needs_graph:
            own = self._graph if self._forecaster is not None else self._online
            assert own is not None  # whoever has the forecaster has seen a batch
            window = replace(window, graph=own.graph)
        return window

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        log_jump_table(trainer, self.jumps)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "controller": list(self._state),
            "jumps": [jump.to_dict() for jump in self.jumps],
            "ledger": self.ledger.to_dict(),
            "progress": self._progress.state_dict(),
            "regimes": self._regimes.state_dict(),
            "budget": self._budget.state_dict(),
            "rows": self._rows.state_dict() if self._rows is not None else None,
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
        self._step = int(state_dict["step"])
        self.jumps = [Jump.from_dict(jump) for jump in state_dict["jumps"]]
        self.ledger = Ledger.from_dict(state_dict["ledger"])
        self._progress.load_state_dict(state_dict["progress"])
        self._regimes.load_state_dict(state_dict["regimes"])
        self._budget = JumpBudget(self.cost_share, self.ledger)
        self._budget.load_state_dict(state_dict["budget"])
        self._resumed = state_dict

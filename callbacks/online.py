"""Train forecasters on a run while it runs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from ..forecast import Case, Forecaster, ForecastError, LearnedForecaster, Ledger, cases, score
from ..forecast.graph import NeuralGraph
from ..models import Budget, fit_forecaster, make_forecaster
from .errors import CallbackOptionError, UnsupportedTrainerError
from .graphs import NetworkGraph
from .recorder import TrajectoryRecorder, weights_recorder
from .support import require_plain_training, sole_optimizer


@dataclass(frozen=True)
class OnlineScore:
    """How well a forecaster did on rows that it was not fitted to.

    Attributes:
        step: optimiser step at which it was scored.
        forecaster: its name.
        horizon: optimiser steps ahead.
        skill: 1 - MSE / MSE of persistence.
        fit_seconds: what fitting it took this time; 0 for closed forms.
    """

    step: int
    forecaster: str
    horizon: int
    skill: float
    fit_seconds: float


class OnlineForecaster(pl.Callback):
    """Fits forecasters to what `TrajectoryRecorder` has recorded so far, scores them, and knows which is best.

    Every `every` optimiser steps the newest `window_rows` rows of the weights are cut into cases; the older ones train
    the learned forecasters, the newest ones score all of them. Training and scoring rows do not overlap. `SkipAhead`
    takes its forecasts from here when asked to.

    Fitting and scoring may take `share` of the run's wall-clock time: a fit is put off while that is spent, and ends
    when it is. So with a share set, two runs may fit at different steps. With `share=None` the schedule follows the
    step alone and a run is reproducible bit for bit.

    Supported: 32-bit training, one optimiser, automatic optimisation, resume. Everything else is refused by name in
    `setup`.

    Args:
        forecasters: names from `deadreckon.models`, or forecasters of the stream `weights`.
        horizons: optimiser steps ahead to fit and score; multiples of the recorder's cadence.
        every: optimiser steps between fits.
        share: at most this share of the run's time, 0 to 1; `None` for no limit.
        iterations: gradient steps a fit may take, where it takes any.
        window_rows: how many of the newest rows to use. More rows see more of the run, fewer follow it faster.
        seed: of everything random in a fit.
        graph: the network's neural graph, for forecasters that need one, as from `trace_graph(module, inputs)`. If not
            given, the module is traced once, called with the inputs of the first batch.

    Attributes:
        ledger: what `fitting` and `scoring` cost, and `tracing`.
        scores: all scores so far.
    """

    def __init__(
        self,
        forecasters: Sequence[str | Forecaster] = ("hold", "linear", "learned_linear"),
        horizons: Sequence[int] = (10, 50),
        every: int = 100,
        share: float | None = 0.1,
        iterations: int = 200,
        window_rows: int = 60,
        seed: int = 0,
        graph: NeuralGraph | None = None,
    ) -> None:
        if every < 1 or window_rows < 4:
            raise CallbackOptionError(
                f"`every` must be at least 1 and `window_rows` at least 4, got {every}, {window_rows}."
            )
        if share is not None and not 0 < share <= 1:
            raise CallbackOptionError(f"`share` must be above 0 and at most 1, or None, got {share}.")
        if not horizons or min(horizons) < 1:
            raise CallbackOptionError(
                f"`horizons` must be at least one number of steps, each at least 1, got {list(horizons)}."
            )
        made = [make_forecaster(item) if isinstance(item, str) else item for item in forecasters]
        if not made or len({item.name for item in made}) != len(made):
            raise CallbackOptionError(f"`forecasters` must be different ones, got {[item.name for item in made]}.")
        wrong = [item.name for item in made if item.stream != "weights"]
        if wrong:
            raise CallbackOptionError(f"OnlineForecaster forecasts the stream 'weights'; {wrong} forecast another.")
        self.forecasters: dict[str, Forecaster] = {item.name: item for item in made}
        self.horizons = tuple(sorted(set(horizons)))
        self.every = every
        self.share = share
        self.iterations = iterations
        self.window_rows = window_rows
        self.seed = seed
        self.ledger = Ledger()
        self.scores: list[OnlineScore] = []
        self._graph = NetworkGraph(graph)
        self._recorder: TrajectoryRecorder | None = None
        self._seconds = 0.0
        self._began = 0.0

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        who = type(self).__name__
        require_plain_training(trainer, pl_module, who)
        recorder = weights_recorder(trainer, who)
        cadence = recorder.every["weights"]
        odd = [horizon for horizon in self.horizons if horizon % cadence]
        if odd:
            raise UnsupportedTrainerError(
                f"{who}'s horizons must be multiples of the recorder's cadence {cadence}, got {odd}."
            )
        needy = [name for name, item in self.forecasters.items() if item.needs_moments]
        if needy and not {"exp_avg", "exp_avg_sq"} <= set(recorder.streams):
            raise UnsupportedTrainerError(
                f"{who} with {needy} needs a TrajectoryRecorder that records 'exp_avg' and 'exp_avg_sq' as well."
            )
        self._graph.begin(pl_module, self.forecasters.values(), who)
        self._recorder = recorder
        self.scores, self.ledger, self._seconds = [], Ledger(), 0.0

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sole_optimizer(trainer, type(self).__name__)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = time.perf_counter()

    @property
    def graph(self) -> NeuralGraph | None:
        """The network's neural graph; None where no forecaster needs one, or before the first batch."""
        return self._graph.graph

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
        if step % self.every or step == 0 or not self._seconds_left() > 0:
            return
        fresh = self._fit_and_score(trainer, pl_module, step)
        metrics: dict[str, float] = {"forecast/step": step}
        metrics |= {f"forecast/{item.forecaster}/skill_{item.horizon}": item.skill for item in fresh}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=step)

    def _seconds_left(self) -> float:
        """What may still be spent by now; infinite without a limit."""
        if self.share is None:
            return float("inf")
        elapsed = self._seconds + time.perf_counter() - self._began
        return self.share * elapsed - self.ledger.total.wall_seconds

    def _fit_and_score(self, trainer: pl.Trainer, module: pl.LightningModule, step: int) -> list[OnlineScore]:
        fresh: list[OnlineScore] = []
        for name, forecaster in self.forecasters.items():
            with self.ledger.charge("fitting"):
                training, held_out = self._cases(forecaster)
                begin = time.perf_counter()
                if isinstance(forecaster, LearnedForecaster):
                    if not training:
                        continue
                    # Seeded by the step, so that a resumed run fits exactly as an uninterrupted one.
                    generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
                    try:
                        fit_forecaster(forecaster, training, self._budget(), generator)
                    except ForecastError:
                        # Too few or degenerate cases as yet: it stays as it was, and says so by having no new score.
                        continue
                seconds = time.perf_counter() - begin if isinstance(forecaster, LearnedForecaster) else 0.0
            if not held_out:
                continue
            with self.ledger.charge("scoring"):
                for result in score(forecaster, held_out):
                    fresh.append(OnlineScore(step, name, result.horizon, result.skill, seconds))
        self.scores.extend(fresh)
        return fresh

    def _budget(self) -> Budget:
        """For one fit: at most an equal part of the seconds left."""
        seconds = self._seconds_left()
        if seconds == float("inf"):
            return Budget(iterations=self.iterations)
        learned = sum(isinstance(item, LearnedForecaster) for item in self.forecasters.values())
        return Budget(iterations=self.iterations, seconds=max(seconds / learned, 1e-3))

    def _cases(self, forecaster: Forecaster) -> tuple[list[Case], list[Case]]:
        """Cases to fit to and cases to score with: no row of the second is among the first."""
        assert self._recorder is not None  # found in `setup`
        trajectory = self._recorder.trajectory
        steps = trajectory.stream("weights").steps
        first = int(steps[max(0, len(steps) - self.window_rows)])
        last = int(steps[-1])
        cut = last - (last - first) // 3
        read = partial(
            cases,
            trajectory,
            "weights",
            forecaster.history,
            self.horizons,
            with_moments=forecaster.needs_moments,
            graph=self._graph.graph if forecaster.needs_graph else None,
        )
        training = read(first_step=first, last_step=cut) if isinstance(forecaster, LearnedForecaster) else []
        held_out = read(first_step=cut + 1, last_step=last)
        return training, held_out

    def best(self, horizon: int) -> Forecaster | None:
        """The fitted forecaster with the highest latest skill at a horizon, or `None` while none has skill above 0.

        Of horizons that were not scored, the nearest longer one decides; a longer one than all is not forecast.
        """
        longer = [scored for scored in self.horizons if scored >= horizon]
        if not longer:
            return None
        latest = {item.forecaster: item for item in self.scores if item.horizon == longer[0]}
        ready = [item for item in latest.values() if self.forecasters[item.forecaster].fitted and item.skill > 0]
        if not ready:
            return None
        return self.forecasters[max(ready, key=lambda item: item.skill).forecaster]

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "learned": {
                name: item.state_dict()
                for name, item in self.forecasters.items()
                if isinstance(item, LearnedForecaster)
            },
            "scores": [
                [item.step, item.forecaster, item.horizon, item.skill, item.fit_seconds] for item in self.scores
            ],
            "seconds": self._seconds + time.perf_counter() - self._began,
            "ledger": self.ledger.to_dict(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        learned: Mapping[str, Any] = state_dict["learned"]
        for name, state in learned.items():
            forecaster = self.forecasters.get(name)
            if state and isinstance(forecaster, LearnedForecaster):
                forecaster.load_state_dict(state)
        self.scores = [OnlineScore(*item) for item in state_dict["scores"]]
        self._seconds = float(state_dict["seconds"])
        self.ledger = Ledger.from_dict(state_dict["ledger"])

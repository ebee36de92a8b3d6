"""`deadreckon race`: train to a target with and without jumps, and count everything that either took."""

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from ...callbacks import OnlineForecaster, SkipAhead, TrajectoryRecorder
from ...forecast import Ledger, layout_of
from ...models import make_forecaster
from ...models.threads import one_thread
from ..classifier import Classifier, evaluate, probe
from ..closing import close_run
from ..errors import OptionError
from ..options import RaceOptions
from ..progress import tracked
from ..results import require_new, write_result
from ..run_logger import RunLogger, log_figure, log_table, make_logger
from ..tasks import TaskData, load_task, sequential_batches
from ..training import make_classifier, train
from .figures import jump_timeline, ledger_bars, race_curves
from .picture import MAX_NUMBERS, JumpWatcher, picture_of
from .report import run_grid

PLAIN, JUMPS = "plain", "jumps"
VERIFY_BATCH = 256
COST_SHARE = 0.04  # that jumps may take; twice the usual, which in a run of a second is less than one attempt
PICTURE_SECONDS = 60  # by the clock; an arm that takes longer is not run once more for a picture
FIT_ITERATIONS = 50  # of a gradient-trained forecaster, each time
RESULT_COLUMNS = (
    "name",
    "seed",
    "reached",
    "steps_to_target",
    "cpu_seconds_to_target",
    "wall_seconds_to_target",
    "gradient_evaluations_to_target",
)


class Stopwatch(pl.Callback):
    """Measures a run's cost and its progress on the test set; the measuring itself is charged to nobody.

    The clocks start in `setup`, so that what other callbacks do before training is counted. It must be the last
    callback of its Trainer, so that a jump at a step is measured at that step.

    Args:
        task: whose test set.
        every: optimiser steps between measurements.
        metric: `accuracy` or `loss`.

    Attributes:
        curve: `[step, cpu seconds, wall seconds, gradient evaluations, metric]` for each measurement.
        losses: `[step, loss]` for each measurement, whatever the metric is.
    """

    def __init__(self, task: TaskData, every: int, metric: str) -> None:
        self.curve: list[list[float]] = []
        self.losses: list[list[float]] = []
        self._task = task
        self._every = every
        self._metric = metric
        self._wall = 0.0
        self._cpu = 0.0
        self._skip_ahead: SkipAhead | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        callbacks: list[pl.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        self._skip_ahead = next((item for item in callbacks if isinstance(item, SkipAhead)), None)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measure(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self._every == 0:
            self._measure(trainer, pl_module)

    def _measure(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        jumping = self._skip_ahead.ledger.total.gradient_equivalents if self._skip_ahead is not None else 0.0
        found = evaluate(module, self._task.test)
        self.curve.append(
            [
                trainer.global_step,
                cpu - self._cpu,
                wall - self._wall,
                trainer.global_step + jumping,
                getattr(found, self._metric),
            ]
        )
        self.losses.append([trainer.global_step, found.loss])
        # What the measurement took is taken off by starting the clocks that much later.
        self._wall += time.perf_counter() - wall
        self._cpu += time.process_time() - cpu


@one_thread()
def run(options: RaceOptions) -> None:
    """Race plain training against training with jumps: figures and result.json in `options.out`.

    With `methods`, the grid of them instead: see `race_grid`.

    Raises:
        OptionError: if options contradict each other, or there is such a race already.
    """
    if options.methods:
        run_grid(options)
        return
    out = Path(options.out)
    task = load_task(options.task, options.data)
    if options.jump_every % options.every:
        raise OptionError(f"`jump_every` must be a multiple of `every` {options.every}, got {options.jump_every}.")
    require_new(out / "result.json")
    for seed in options.seeds:
        require_new(out / f"{JUMPS}_{seed}")
    logger = make_logger(options.logger, out, "race", asdict(options), options.wandb_mode)
    # Arms take turns at going first, and a short run before them all pays for what is loaded only once.
    turns = [
        (seed, name)
        for number, seed in enumerate(options.seeds)
        for name in ((PLAIN, JUMPS) if number % 2 == 0 else (JUMPS, PLAIN))
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in (PLAIN, JUMPS):
            _arm(replace(options, steps=2 * options.jump_every), task, name, options.seeds[0], Path(folder))
    arms = [
        _arm(options, task, name, seed, out / f"{name}_{seed}")
        for seed, name in tracked(turns, "racing", options.progress)
    ]
    data = {
        "task": options.task,
        "network": options.network,
        "target": {"metric": options.target_metric, "value": options.target},
        "forecaster": options.forecaster,
        "arms": arms,
        "picture": _picture(options, task, arms),
        "attribution": task.attribution,
        "options": asdict(options),
    }
    write_result(out, "race", data)
    _log_curves(logger, arms, options.target_metric)
    log_table(logger, "race/arms", RESULT_COLUMNS, [[arm[name] for name in RESULT_COLUMNS] for arm in arms])
    for path in (
        race_curves(arms, data["target"], out / "race_curves"),
        ledger_bars(_total_ledger(arms), _total_seconds(arms), out / "ledger_bars"),
        jump_timeline([jump for arm in arms for jump in arm["jumps"]], out / "jump_timeline"),
    ):
        log_figure(logger, f"race/{Path(path).stem}", path)
    close_run(logger, out)


def _picture(options: RaceOptions, task: TaskData, arms: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The arm with jumps once more with the first seed, watched, and with no limit on what jumping may take.

    It is not part of the race: nothing of it is timed. Long runs and large networks are left out.
    """
    arm = next(arm for arm in arms if arm["name"] == JUMPS and arm["seed"] == options.seeds[0])
    module = _module(options, task, options.seeds[0])
    num_numbers = layout_of(module).size * options.steps / options.every
    if arm["curve"][-1][2] > PICTURE_SECONDS or num_numbers > MAX_NUMBERS:
        return None
    with tempfile.TemporaryDirectory() as folder:
        helpers, skip_ahead = _helpers(options, task, Path(folder) / "trajectory")
        skip_ahead.cost_share = None
        watcher = JumpWatcher(skip_ahead, options.every)
        callbacks = [item for item in helpers if item is not skip_ahead]
        train(module, task, options.batch_size, options.steps, options.seeds[0], [*callbacks, watcher, skip_ahead])
    found = picture_of(watcher, module, task, skip_ahead)
    return None if found is None else {"seed": options.seeds[0], **found}


def _log_curves(logger: RunLogger, arms: list[dict[str, Any]], metric: str) -> None:
    """Every measurement of every arm, over optimiser steps."""
    if isinstance(logger, Logger):
        for arm in arms:
            prefix = f"race/{arm['name']}_{arm['seed']}"
            for step, cpu_seconds, _, gradient_evaluations, value in arm["curve"]:
                metrics = {
                    f"{prefix}/test_{metric}": value,
                    f"{prefix}/cpu_seconds": cpu_seconds,
                    f"{prefix}/gradient_evaluations": gradient_evaluations,
                }
                logger.log_metrics(metrics, step=int(step))


def _total_ledger(arms: list[dict[str, Any]]) -> dict[str, Any]:
    return Ledger.merged(Ledger.from_dict(arm["ledger"]) for arm in arms if arm["name"] == JUMPS).to_dict()


def _total_seconds(arms: list[dict[str, Any]]) -> float:
    return sum(arm["curve"][-1][2] for arm in arms if arm["name"] == JUMPS)


def _arm(options: RaceOptions, task: TaskData, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run to the end, with when it reached the target."""
    module = _module(options, task, seed)
    stopwatch = Stopwatch(task, options.eval_every, options.target_metric)
    helpers, skip_ahead = _helpers(options, task, folder / "trajectory") if name == JUMPS else ([], None)
    train(module, task, options.batch_size, options.steps, seed, [*helpers, stopwatch])
    ledger = Ledger.merged(item.ledger for item in helpers if isinstance(item, _LEDGERED))
    sign = 1 if options.target_metric == "accuracy" else -1
    reached = next((row for row in stopwatch.curve if sign * row[4] >= sign * options.target), None)
    final = evaluate(module, task.test)
    return {
        "name": name,
        "seed": seed,
        "reached": reached is not None,
        "steps_to_target": reached[0] if reached else None,
        "cpu_seconds_to_target": reached[1] if reached else None,
        "wall_seconds_to_target": reached[2] if reached else None,
        "gradient_evaluations_to_target": reached[3] if reached else None,
        "final": {"test_loss": final.loss, "test_accuracy": final.accuracy},
        "curve": stopwatch.curve,
        "losses": stopwatch.losses,
        "jumps": [_plain(jump) for jump in skip_ahead.jumps] if skip_ahead is not None else [],
        "ledger": ledger.to_dict(),
    }


def _module(options: RaceOptions, task: TaskData, seed: int) -> Classifier:
    return make_classifier(
        task,
        options.network,
        options.optimizer,
        options.learning_rate,
        options.schedule,
        options.steps,
        seed,
        options.width,
    )


_LEDGERED = (TrajectoryRecorder, OnlineForecaster, SkipAhead)


def _helpers(options: RaceOptions, task: TaskData, folder: Path) -> tuple[list[pl.Callback], SkipAhead]:
    """The callbacks of the arm that jumps."""
    helpers: list[pl.Callback] = []
    learned = not make_forecaster(options.forecaster).fitted
    if learned:
        helpers.append(TrajectoryRecorder(folder, options.every))
        horizons = [horizon for horizon in options.horizons if horizon % options.every == 0]
        # No limit on its share, so that a race can be run again; what fitting costs is charged in any case.
        helpers.append(
            OnlineForecaster(
                [options.forecaster], horizons, every=2 * options.jump_every, share=None, iterations=FIT_ITERATIONS
            )
        )
    skip_ahead = SkipAhead(
        "online" if learned else options.forecaster,
        every=options.jump_every,
        horizons=options.horizons,
        probe=probe,
        batches=sequential_batches(task.verify, VERIFY_BATCH),
        batch_size=options.batch_size,
        cost_share=COST_SHARE,
        spacing=None if learned else options.every,  # rows of its own cost less than a recorder
    )
    helpers.append(skip_ahead)
    return helpers, skip_ahead


def _plain(jump: Any) -> dict[str, Any]:
    return {**asdict(jump), "outcome": jump.outcome.name.lower(), "meaning": jump.outcome.value}

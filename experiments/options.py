"""The options of every subcommand; their docstrings are the command's help. Nothing heavy is imported here."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from .errors import OptionError

TaskName = Literal["digits", "fashion_mnist"]
NetworkName = Literal["mlp", "conv"]
OptimizerName = Literal["adam", "adamw", "sgd"]
ScheduleName = Literal["constant", "linear", "cosine"]
StreamName = Literal["weights", "gradients", "updates", "exp_avg", "exp_avg_sq"]
LoggerName = Literal["wandb", "csv", "none"]
WandbMode = Literal["offline", "online"]
TargetMetric = Literal["accuracy", "loss"]


def _at_least(name: str, value: float, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise OptionError(f"`{name}` must be at least {least}, got {value}.")


def _above(name: str, value: float, limit: float) -> None:
    if not (math.isfinite(value) and value > limit):
        raise OptionError(f"`{name}` must be above {limit}, got {value}.")


def _some(name: str, values: Collection[object]) -> None:
    if not values:
        raise OptionError(f"`{name}` must name at least one.")
    if len(set(values)) != len(values):
        raise OptionError(f"`{name}` must not repeat itself, got {', '.join(map(str, values))}.")


def _folder(name: str, value: str) -> None:
    if not value:
        raise OptionError(f"`{name}` must name a folder, got nothing.")


@dataclass(frozen=True)
class RecordOptions:
    """Train a network and record how its weights and gradients move.

    Args:
        task: what to learn.
        network: what learns it.
        data: a folder with the task's files; without it they are looked for, and fetched if need be.
        out: where everything is written.
        steps: optimiser steps.
        batch_size: samples in a batch.
        optimizer: the rule that turns gradients into steps.
        learning_rate: its learning rate, before the schedule.
        schedule: how the learning rate changes over the run; linear and cosine end at zero.
        seed: of the initial weights and of the order of the batches.
        every: optimiser steps between recorded rows of weights.
        gradient_every: optimiser steps between recorded gradients; 1 if a codec is to be tried on them.
        streams: what to record.
        forecasters: forecasters that are trained and scored while the run goes on; [] for none.
        horizons: how far ahead they look, in optimiser steps.
        fit_every: optimiser steps between fits of these forecasters.
        fit_share: they may take this share of the run's time; null for no limit, which makes runs repeatable.
        codec: train through the codec with this predictor, as over a link; null for none.
        nmse: error that this codec may make, as a share of each gradient's squared norm.
        logger: where metrics go besides the result file.
        wandb_mode: offline needs no account; a run can be sent later with `wandb sync`.
        progress: whether to show a progress bar.
    """

    task: TaskName = "digits"
    network: NetworkName = "mlp"
    data: str | None = None
    out: str = "runs/record"
    steps: int = 600
    batch_size: int = 64
    optimizer: OptimizerName = "adam"
    learning_rate: float = 0.003
    schedule: ScheduleName = "constant"
    seed: int = 0
    every: int = 10
    gradient_every: int = 1
    streams: tuple[StreamName, ...] = ("weights", "gradients")
    forecasters: tuple[str, ...] = ("hold", "linear", "learned_linear", "neural_ode")
    horizons: tuple[int, ...] = (10, 50)
    fit_every: int = 100
    fit_share: float | None = 0.25
    codec: str | None = None
    nmse: float = 0.1
    logger: LoggerName = "wandb"
    wandb_mode: WandbMode = "offline"
    progress: bool = True

    def __post_init__(self) -> None:
        _folder("out", self.out)
        for name in ("steps", "batch_size", "every", "gradient_every"):
            _at_least(name, getattr(self, name), 1)
        _above("learning_rate", self.learning_rate, 0)
        _at_least("seed", self.seed, 0)
        _some("streams", self.streams)
        _check_horizons(self.horizons)
        _at_least("fit_every", self.fit_every, 1)
        if self.fit_share is not None and not 0 < self.fit_share <= 1:
            raise OptionError(f"`fit_share` must be above 0 and at most 1, or null, got {self.fit_share}.")
        if not 0 < self.nmse < 1:
            raise OptionError(f"`nmse` must lie between 0 and 1, got {self.nmse}.")


@dataclass(frozen=True)
class CompareOptions:
    """Replay a recorded stream through the codec, once per predictor, and score the forecasters on it.

    Args:
        trajectory: the recorded trajectory's folder.
        out: where everything is written.
        stream: the stream that is coded.
        predictors: the codec's front-ends; `none` is the reference they have to beat.
        nmse: errors that the codec may make, as shares of the vector's squared norm.
        packets: code at most so many rows, the last ones; null for all.
        forecasters: the forecasters that are scored on the recorded weights; [] for none.
        horizons: how far ahead they look, in optimiser steps.
        seed: of everything that is drawn.
        logger: where metrics go besides the result file.
        wandb_mode: offline needs no account; a run can be sent later with `wandb sync`.
        progress: whether to show a progress bar.
    """

    trajectory: str = "runs/record/trajectory"
    out: str = "runs/compare"
    stream: StreamName = "gradients"
    predictors: tuple[str, ...] = ("none", "previous", "momentum_norm", "momentum_projected", "fitted")
    nmse: tuple[float, ...] = (0.5, 0.1, 0.01)
    packets: int | None = None
    forecasters: tuple[str, ...] = ("hold", "linear", "quadratic", "learned_linear", "neural_ode")
    horizons: tuple[int, ...] = (10, 20, 50, 100)
    seed: int = 0
    logger: LoggerName = "wandb"
    wandb_mode: WandbMode = "offline"
    progress: bool = True

    def __post_init__(self) -> None:
        _folder("trajectory", self.trajectory)
        _folder("out", self.out)
        _some("predictors", self.predictors)
        _some("nmse", self.nmse)
        for value in self.nmse:
            if not 0 < value < 1:
                raise OptionError(f"`nmse` must lie between 0 and 1, got {value}.")
        if self.packets is not None:
            _at_least("packets", self.packets, 1)
        if self.forecasters:
            _some("forecasters", self.forecasters)
        _check_horizons(self.horizons)
        _at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class RaceOptions:
    """Train to a target with and without jumps, and count everything that either took.

    Args:
        task: what to learn.
        network: what learns it.
        data: a folder with the task's files; without it they are looked for, and fetched if need be.
        out: where everything is written.
        seeds: one pair of runs for each.
        steps: optimiser steps at most.
        batch_size: samples in a batch.
        optimizer: the rule that turns gradients into steps.
        learning_rate: its learning rate, before the schedule.
        schedule: how the learning rate changes over the run; linear and cosine end at zero.
        target_metric: what must be reached on the test set, accuracy or loss.
        target: the accuracy to reach from below, or the loss to reach from above.
        eval_every: optimiser steps between measurements on the test set; their cost is charged to neither side.
        forecaster: proposes the jumps.
        every: optimiser steps between recorded rows of weights.
        jump_every: optimiser steps between proposals.
        horizons: how far ahead a jump may go, in optimiser steps.
        logger: where metrics go besides the result file.
        wandb_mode: offline needs no account; a run can be sent later with `wandb sync`.
        progress: whether to show a progress bar.
    """

    task: TaskName = "digits"
    network: NetworkName = "mlp"
    data: str | None = None
    out: str = "runs/race"
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 300
    batch_size: int = 64
    optimizer: OptimizerName = "adam"
    learning_rate: float = 0.016
    schedule: ScheduleName = "linear"
    target_metric: TargetMetric = "accuracy"
    target: float = 0.96
    eval_every: int = 5
    forecaster: str = "linear"
    every: int = 2
    jump_every: int = 10
    horizons: tuple[int, ...] = (2, 4, 8, 16)
    logger: LoggerName = "wandb"
    wandb_mode: WandbMode = "offline"
    progress: bool = True

    def __post_init__(self) -> None:
        _folder("out", self.out)
        _some("seeds", self.seeds)
        for seed in self.seeds:
            _at_least("seeds", seed, 0)
        for name in ("steps", "batch_size", "eval_every", "every", "jump_every"):
            _at_least(name, getattr(self, name), 1)
        _above("learning_rate", self.learning_rate, 0)
        _above("target", self.target, 0)
        if self.target_metric == "accuracy" and self.target > 1:
            raise OptionError(f"`target` must be a share of at most 1 for accuracy, got {self.target}.")
        _check_horizons(self.horizons)


@dataclass(frozen=True)
class ReportOptions:
    """Make one self-contained page out of recorded results.

    Args:
        runs: folders of `record`, `compare` and `race`, each with a result.json.
        out: where report.html and its figures are written.
    """

    runs: tuple[str, ...] = ("runs/record", "runs/compare", "runs/race")
    out: str = "runs/report"

    def __post_init__(self) -> None:
        _some("runs", self.runs)
        for run in self.runs:
            _folder("runs", run)
        _folder("out", self.out)


@dataclass(frozen=True)
class QuickstartOptions:
    """Do all of it on the digits in a few minutes: record, compare, race, report.

    Args:
        out: where everything is written.
        seed: of the recorded run; the race takes this seed and the two after it.
        steps: optimiser steps of the recorded run.
        race_steps: optimiser steps at most of each run of the race.
        forecasters: the forecasters that are trained and scored.
        jump_forecaster: the one that proposes the jumps.
        predictors: the codec's front-ends.
        logger: where metrics go besides the result files.
        progress: whether to show progress.
    """

    out: str = "runs/quickstart"
    seed: int = 0
    steps: int = 600
    race_steps: int = 300
    forecasters: tuple[str, ...] = ("hold", "linear", "quadratic", "learned_linear", "neural_ode")
    jump_forecaster: str = "linear"
    predictors: tuple[str, ...] = ("none", "previous", "momentum_norm", "momentum_projected", "fitted")
    logger: LoggerName = "wandb"
    progress: bool = True

    def __post_init__(self) -> None:
        _folder("out", self.out)
        _at_least("seed", self.seed, 0)
        _at_least("steps", self.steps, 1)
        _at_least("race_steps", self.race_steps, 1)
        _some("forecasters", self.forecasters)
        _some("predictors", self.predictors)


Options = RecordOptions | CompareOptions | RaceOptions | ReportOptions | QuickstartOptions


def _check_horizons(horizons: Collection[int]) -> None:
    _some("horizons", horizons)
    for horizon in horizons:
        _at_least("horizons", horizon, 1)

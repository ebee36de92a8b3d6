"""The options of `fit` and `score`; their docstrings are the command's help. Nothing heavy is imported here."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..errors import OptionError
from ..option_checks import require_above, require_at_least, require_folder, require_horizons, require_some
from ..options import LoggerName, WandbMode


@dataclass(frozen=True)
class FitOptions:
    """Fit one forecaster to stored trajectories of many runs.

    Args:
        runs: trajectories, runs' folders, or folders of such, as `record` and `corpus` write them.
        out: where everything is written; the forecaster as forecaster.safetensors.
        forecaster: its name.
        forecaster_options: arguments of its constructor by name, such as {"per":"kind"}; defaults for the rest.
        horizons: how far ahead it learns to look, in optimiser steps.
        spacing: optimiser steps between rows of its windows; null for the distance at which the runs were recorded.
        cases_per_run: at most so many cases of each run, evenly from beginning to end; null for all there are.
        max_runs: at most so many runs, as equally many of each task as can be; null for all.
        validation_share: share of each task's runs that is kept apart to choose by and to measure with.
        validation_tasks: tasks that are not learned from, only measured and chosen by.
        exclude_tasks: tasks that are not read at all, such as those to score on later.
        iterations: gradient steps at most, where the forecaster takes any.
        batch_size: items in a batch, where it is trained in batches; null for its own choice.
        learning_rate: of its training, where it is trained in batches; null for its own choice.
        check_every: iterations between looks at the validation error; null for its own choice.
        patience: looks without improvement after which training stops early; null for its own choice.
        data: a folder with the tasks' files, where a forecaster needs the neural graph of each run's network and those
            are not found otherwise.
        seed: of everything that is drawn.
        resume: go on from the checkpoint of a fit into the same folder that was interrupted.
        logger: where metrics go besides the result file.
        wandb_mode: offline needs no account; a run can be sent later with `wandb sync`.
        progress: whether to show a progress bar.
    """

    runs: tuple[str, ...] = ("runs/corpus",)
    out: str = "runs/fit"
    forecaster: str = "tuned_line"
    forecaster_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    horizons: tuple[int, ...] = (10, 50, 200)
    spacing: int | None = None
    cases_per_run: int | None = 40
    max_runs: int | None = None
    validation_share: float = 0.2
    validation_tasks: tuple[str, ...] = ()
    exclude_tasks: tuple[str, ...] = ()
    iterations: int = 2000
    batch_size: int | None = None
    learning_rate: float | None = None
    check_every: int | None = None
    patience: int | None = None
    data: str | None = None
    seed: int = 0
    resume: bool = False
    logger: LoggerName = "wandb"
    wandb_mode: WandbMode = "offline"
    progress: bool = True

    def __post_init__(self) -> None:
        require_some("runs", self.runs)
        for run in self.runs:
            require_folder("runs", run)
        require_folder("out", self.out)
        require_horizons(self.horizons)
        for name in ("spacing", "cases_per_run", "batch_size", "check_every", "patience"):
            if getattr(self, name) is not None:
                require_at_least(name, getattr(self, name), 1)
        if self.max_runs is not None:
            require_at_least("max_runs", self.max_runs, 2)
        if not 0 <= self.validation_share < 1:
            raise OptionError(f"`validation_share` must be at least 0 and below 1, got {self.validation_share}.")
        for name in ("validation_tasks", "exclude_tasks"):
            if getattr(self, name):
                require_some(name, getattr(self, name))
        require_at_least("iterations", self.iterations, 1)
        if self.learning_rate is not None:
            require_above("learning_rate", self.learning_rate, 0)
        require_at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class ScoreOptions:
    """Score forecasters on stored runs against standing still, against closed forms and against each other.

    Args:
        runs: trajectories, runs' folders, or folders of such, as `record` and `corpus` write them.
        out: where everything is written.
        forecasters: names, and files or folders that `fit` wrote; hold is always there.
        controls: the same, for simple rules that a learned forecaster should beat, such as tuned_line; [] for none.
        horizons: how far ahead they look, in optimiser steps.
        spacing: optimiser steps between rows of the windows; null for the distance at which the runs were recorded.
        cases_per_run: at most so many cases of each run, evenly from beginning to end; null for all there are.
        fit_in_run: fit those that need it, and were not given as files, to the first part of each run, and score all
            on the rest; without it they are refused.
        only_tasks: score on these tasks only; [] for all.
        exclude_tasks: tasks that are left out, such as those that a forecaster was fitted to.
        resamples: how often the runs are drawn anew for the intervals.
        data: a folder with the tasks' files, where a forecaster needs the neural graph of each run's network and those
            are not found otherwise.
        seed: of everything that is drawn.
        logger: where metrics go besides the result file.
        wandb_mode: offline needs no account; a run can be sent later with `wandb sync`.
        progress: whether to show a progress bar.
    """

    runs: tuple[str, ...] = ("runs/corpus",)
    out: str = "runs/score"
    forecasters: tuple[str, ...] = ("linear", "quadratic", "runs/fit")
    controls: tuple[str, ...] = ()
    horizons: tuple[int, ...] = (10, 50, 200)
    spacing: int | None = None
    cases_per_run: int | None = 20
    fit_in_run: bool = False
    only_tasks: tuple[str, ...] = ()
    exclude_tasks: tuple[str, ...] = ()
    resamples: int = 2000
    data: str | None = None
    seed: int = 0
    logger: LoggerName = "wandb"
    wandb_mode: WandbMode = "offline"
    progress: bool = True

    def __post_init__(self) -> None:
        require_some("runs", self.runs)
        for run in self.runs:
            require_folder("runs", run)
        require_folder("out", self.out)
        require_some("forecasters", self.forecasters)
        if self.controls:
            require_some("controls", self.controls)
        both = sorted(set(self.forecasters) & set(self.controls))
        if both:
            raise OptionError(f"`controls` must not repeat `forecasters`, got {both[0]!r} in both.")
        require_horizons(self.horizons)
        for name in ("spacing", "cases_per_run"):
            if getattr(self, name) is not None:
                require_at_least(name, getattr(self, name), 1)
        for name in ("only_tasks", "exclude_tasks"):
            if getattr(self, name):
                require_some(name, getattr(self, name))
        require_at_least("resamples", self.resamples, 100)
        require_at_least("seed", self.seed, 0)

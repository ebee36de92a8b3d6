"""Fit learned forecasters to recorded cases, in plain torch, within a budget."""

import abc
import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..forecast import Forecaster, Layout, LearnedForecaster
from ..forecast.case import Case
from .errors import FittingError, ModelError
from .motion import random_walk, working_dtype

MIN_CASES = 4
VALIDATION_SHARE = 0.25

Derived = TypeVar("Derived")
Stopped = Literal["solved", "iterations", "seconds", "converged"]


@dataclass(frozen=True)
class Budget:
    """How long a fit may take.

    Attributes:
        iterations: most iterations of a gradient-trained forecaster; closed-form solutions ignore it.
        seconds: wall-clock seconds after which training stops, with the best so far; closed-form solutions ignore it.
            `None` for no such limit: then equal cases and seeds give bit-equal results.

    Raises:
        ModelError: if `iterations` is below 1 or `seconds` is not above 0.
    """

    iterations: int = 500
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ModelError(f"`iterations` must be at least 1, got {self.iterations}.")
        if self.seconds is not None and not self.seconds > 0:
            raise ModelError(f"`seconds` must be above 0 or None, got {self.seconds}.")


@dataclass(frozen=True)
class FitReport:
    """What a fit did and how good it thinks the result is.

    Attributes:
        iterations: how many were made; 1 for a closed-form solution.
        wall_seconds: duration by the clock.
        cpu_seconds: CPU time of this process meanwhile, all threads.
        training_error: mean squared error divided by that of persistence, averaged over horizons, cases counting as
            `Examples.weights` says. Below 1 is better than persistence.
        validation_error: the same on the newest cases. They chose the ridge or the iteration to stop at, so it is
            slightly optimistic; `score` on cases kept apart is not.
        stopped: why it ended: `solved` (closed form), `iterations` or `seconds` (the budget), `converged` (validation
            stopped improving).
    """

    iterations: int
    wall_seconds: float
    cpu_seconds: float
    training_error: float
    validation_error: float
    stopped: Stopped


class FitResult(NamedTuple):
    """The part of a `FitReport` that the forecaster itself knows."""

    iterations: int
    training_error: float
    validation_error: float
    stopped: Stopped


@dataclass(frozen=True)
class Examples:
    """Checked cases, with windows cut to the history that is needed, and how to use them.

    Attributes:
        cases: those that train, then those that validate; windows of exactly the forecaster's history. All have the
            same horizons. They may come from several runs of networks of different layouts, where the forecaster can
            use that (`layout` says so where it cannot).
        horizons: ascending.
        num_training: how many of the first cases train; the others validate.
        weights: what each case's squared error counts for, `[case]`, float64; 0 where its window stands still. One over
            the geometric mean over horizons h of (s + |target - last|^2 / h), s the window's squared motion per step
            (`random_walk`): about one over the squared error of standing still. With it the slow end of a run counts as
            much as its fast beginning, and a run that goes straight for long no more than one that wanders. Dividing by
            the window's motion alone lets the former decide: on runs of a task that was not fitted to, fitted lines
            then had 1.2 times the squared error of standing still 200 steps ahead, against 0.99 so.
    """

    cases: tuple[Case, ...]
    horizons: tuple[int, ...]
    num_training: int
    weights: Tensor
    _derived: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def derived(self, key: Hashable, make: Callable[[], Derived]) -> Derived:
        """What `make` makes of these examples, made once for each key: a fit needs some of it in several of its parts.

        Args:
            key: whose it is and what it depends on, beside the examples.
            make: a function of the examples and the key only.
        """
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    @classmethod
    def of(cls, cases: Sequence[Case], forecaster: Forecaster, validation: Sequence[Case] | None = None) -> "Examples":
        """Check cases for `forecaster`.

        Args:
            cases: of one run, oldest first; or of many runs, with `validation`.
            forecaster: what they are for.
            validation: cases of other runs to choose by. Without it the newest quarter of `cases` validates, because
                forecasts are made for what comes after the data: a random split would test interpolation between
                overlapping windows.

        Raises:
            FittingError: if there are too few, they do not fit the forecaster or each other, hold values that are not
                finite, or do not move.
        """
        if len(cases) < MIN_CASES:
            raise FittingError(f"Fitting needs at least {MIN_CASES} cases, got {len(cases)}. Record more rows.")
        if validation is not None and not validation:
            raise FittingError("There is no validation case. Keep some runs apart, or let a part of each run validate.")
        horizons = tuple(sorted(cases[0].targets))
        if not horizons:
            raise FittingError("The cases have no targets.")
        checked: list[Case] = []
        energies: list[float] = []
        for index, case in enumerate((*cases, *(validation or ()))):
            window = case.window
            if window.stream != forecaster.stream:
                raise FittingError(f"Case {index} is of {window.stream!r}, expected {forecaster.stream!r}.")
            if len(window) < forecaster.history:
                raise FittingError(f"Case {index} has {len(window)} rows, {forecaster.history} are needed.")
            if tuple(sorted(case.targets)) != horizons:
                raise FittingError(f"Case {index} has horizons {sorted(case.targets)}, the first has {list(horizons)}.")
            window = window.tail(forecaster.history)
            if not all(bool(torch.isfinite(part).all()) for part in (window.values, *case.targets.values())):
                raise FittingError(f"Case {index}, at step {window.last_step}, holds values that are not finite.")
            checked.append(Case(window, case.targets))
            motion = float(random_walk(window).double().square().sum())
            energies.append(_expected_error(case, motion, horizons) if motion > 0 else 0.0)
        energy = torch.tensor(energies, dtype=torch.float64)
        kept_apart = max(1, round(len(cases) * VALIDATION_SHARE)) if validation is None else len(validation)
        num_training = len(checked) - kept_apart
        for part, name in ((energy[:num_training], "training"), (energy[num_training:], "validation")):
            if not bool((part > 0).any()):
                raise FittingError(f"Nothing moves in any of the {len(part)} {name} cases.")
        weights = torch.where(energy > 0, 1 / energy, 0.0)
        return cls(tuple(checked), horizons, num_training, weights)

    @property
    def layout(self) -> Layout:
        """The layout of all cases.

        Raises:
            FittingError: if they have more than one; asked for by forecasters that are bound to one network.
        """
        layout = self.cases[0].window.layout
        for index, case in enumerate(self.cases):
            if case.window.layout.digest != layout.digest:
                raise FittingError(
                    f"Case {index} has another layout than the first. A forecaster that is bound to one network is "
                    "fitted to runs of that network only."
                )
        return layout

    @property
    def spacing(self) -> int:
        """Optimiser steps between neighbouring rows, the same in all cases.

        Raises:
            FittingError: if it is not; asked for by forecasters that know no other spacing than they were fitted to.
        """
        spacings = {gap for case in self.cases for gap in case.window.steps.diff().tolist()}
        if len(spacings) != 1:
            raise FittingError(f"All rows must be equally far apart, got spacings {sorted(spacings)}.")
        return spacings.pop()

    @property
    def training(self) -> slice:
        """The cases to learn from."""
        return slice(0, self.num_training)

    @property
    def validation(self) -> slice:
        """The cases to choose by."""
        return slice(self.num_training, None)


def _expected_error(case: Case, motion: float, horizons: tuple[int, ...]) -> float:
    """About the squared error of standing still, per step: the geometric mean over horizons."""
    dtype = working_dtype(case.window.values.dtype)
    last = case.window.last.to(dtype)
    moved = [float((case.targets[horizon].to(dtype) - last).double().square().sum()) for horizon in horizons]
    logarithms = [math.log(motion + far / horizon) for horizon, far in zip(horizons, moved, strict=True)]
    return math.exp(sum(logarithms) / len(logarithms))


class FittableForecaster(LearnedForecaster):
    """A learned forecaster that `fit_forecaster` can fit."""

    @abc.abstractmethod
    def fit_to(self, examples: Examples, budget: Budget, generator: torch.Generator) -> FitResult:
        """Learn from checked examples; called by `fit_forecaster`.

        Must change the forecaster only when everything has succeeded, take randomness from `generator` only, and leave
        the global random state and grad mode as found.

        Raises:
            FittingError: if it cannot be done; the forecaster is as before.
        """


def fit_forecaster(
    forecaster: Forecaster,
    cases: Sequence[Case],
    budget: Budget,
    generator: torch.Generator,
    validation: Sequence[Case] | None = None,
) -> FitReport:
    """Fit a learned forecaster to cases with known answers.

    Validation cases choose the ridge of `learned_linear` and where the training of a network stops, and tell how large
    the errors are. A forecaster that is trained by gradients and was fitted before goes on from there; one that is
    solved in closed form is solved anew.

    Args:
        forecaster: a learned one, e.g. `make_forecaster("learned_linear")`. Changed in place; untouched on failure.
        cases: at least 4, of the forecaster's stream, all with the same horizons: of one run, oldest first; or of many
            runs, if `validation` is given.
        budget: when to stop.
        generator: the only source of randomness.
        validation: cases of other runs; without them the newest quarter of `cases` validates.

    Returns:
        What was done, what it cost, and the errors relative to persistence.

    Raises:
        ModelError: if the forecaster has nothing to fit.
        FittingError: if the cases do not do; see `Examples.of`. Or if training diverges.

    Examples:
        >>> import tempfile
        >>> from deadreckon.forecast import Trajectory, cases, pack
        >>> from deadreckon.models import make_forecaster
        >>> vector, layout = pack(torch.nn.Linear(3, 2))
        >>> with tempfile.TemporaryDirectory() as folder, Trajectory.create(folder + "/run", layout) as trajectory:
        ...     for step in range(20):
        ...         trajectory.append(step, streams={"weights": vector * 0.9**step})
        ...     found = cases(trajectory, "weights", history=3, horizons=[1, 5])
        >>> forecaster = make_forecaster("learned_linear", history=3)
        >>> report = fit_forecaster(forecaster, found, Budget(), torch.Generator().manual_seed(0))
        >>> report.stopped, report.validation_error < 0.01
        ('solved', True)
    """
    if not isinstance(forecaster, FittableForecaster):
        raise ModelError(f"{forecaster.name!r} has nothing to fit; use it as it is.")
    wall, cpu = time.perf_counter(), time.process_time()
    # Callbacks may run under `no_grad` or inference mode; gradients are needed here all the same.
    with torch.inference_mode(False), torch.enable_grad():
        result = forecaster.fit_to(Examples.of(cases, forecaster, validation), budget, generator)
    return FitReport(
        result.iterations,
        time.perf_counter() - wall,
        time.process_time() - cpu,
        result.training_error,
        result.validation_error,
        result.stopped,
    )


def relative_error(squared_errors: Tensor, persistence: Tensor) -> Tensor:
    """The mean over horizons of squared error over that of persistence, a 0-d tensor; both `[horizon]` sums over cases.

    A horizon at which nothing moved counts 1: no forecast can be better than persistence there.
    """
    moved = persistence > 0
    return torch.where(moved, squared_errors / persistence.where(moved, 1.0), 1.0).mean()

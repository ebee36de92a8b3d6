"""One run of the grid: a problem, a method, its settings and a seed."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from ...callbacks import SkipAhead, TrajectoryRecorder
from ...forecast import Forecaster, Ledger
from ...forecast.jump import JumpPolicy, nino_schedule
from ...forecast.jump.batch_norm import norm_buffers
from ...models import load_pretrained, make_forecaster
from ..classifier import Batch, probe
from ..errors import OptionError
from ..tasks import Batches, TaskData, sequential_batches
from ..training import train
from .averages import Average, ExponentialAverage, LatestAverage, OuterStep
from .clock import NORM_BATCHES, RaceClock, spread
from .controls import Controlled, ForecastAverage, OracleJump
from .fine_tuning import race_network
from .methods import LONGEST, PRETRAINED, RELEASED, Jumps, Method, Settings
from .optimizers import make_race_optimizer, make_race_schedule
from .problems import Problem
from .released import race_nino

MEASUREMENTS = 30  # of a run, the one before it begins left out
VERIFY_BATCH = 64
VERIFY_SAMPLES = 512  # at most, of the set that jumps are verified on
JUMPS_A_RUN = 10  # of blind jumps, as published for NiNo
PUBLISHED_FIRST = 40  # row spacings that NiNo's first jump goes
ROWS_A_PERIOD = 5
COST_SHARE = 0.02  # of a run, that verified jumps may cost
NO_LIMIT = 1e9
RATES = ("rate", "adam_rate")  # settings that are learning rates


class RacingNetwork(pl.LightningModule):
    """Cross-entropy training of a network that logs nothing: logging takes time that no method is about.

    Args:
        network: inputs to logits.
        make_optimizer: gives its optimiser.
        schedule: see `rate_factor`.
        num_steps: at whose end the schedule is over.
    """

    def __init__(
        self,
        network: nn.Module,
        make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        schedule: str,
        num_steps: int,
    ) -> None:
        super().__init__()
        self.network = network
        self._make_optimizer = make_optimizer
        self._schedule = schedule
        self._num_steps = num_steps

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inputs, labels = batch
        return functional.cross_entropy(self.network(inputs), labels)

    @override
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = self._make_optimizer(self)
        scheduler = make_race_schedule(self._schedule, optimizer, self._num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@dataclass(frozen=True)
class Entry:
    """What is run.

    Attributes:
        problem: what is learned.
        method: the recipe.
        settings: of the recipe.
        seed: of the initial weights and the order of the batches.
        share: of the problem's steps; below 1 in the first rounds of tuning.
        on: `tune` or `test`: what is measured on.
    """

    problem: Problem
    method: Method
    settings: Settings
    seed: int
    share: float = 1.0
    on: str = "test"

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the run."""
        return max(MEASUREMENTS, round(self.problem.steps * self.share * self.settings.get("horizon", 1.0)))

    @property
    def eval_every(self) -> int:
        """Optimiser steps between measurements: a first part of a run has fewer, of which only the last one counts."""
        return max(1, self.num_steps // max(2, round(MEASUREMENTS * self.share)))


def run_entry(entry: Entry, task: TaskData) -> dict[str, Any]:
    """Train, measure, and give plain data.

    Returns:
        `curve` with rows of `race_clock.COLUMNS`, `diverged`, `jumps`, `ledger`, and what was run.
    """
    problem, method, steps = entry.problem, entry.method, entry.num_steps
    settings = dict(entry.settings)
    for name in RATES:
        if name in settings:
            settings[name] *= problem.rate_unit
    if settings.get("bump"):
        settings["rate"] *= 1 + settings["bump"]
    batches = Batches(task.train, problem.batch_size, max(steps, NORM_BATCHES), entry.seed)
    module = RacingNetwork(
        race_network(problem, task, entry.seed),
        lambda network: make_race_optimizer(method.optimizer, network, settings, steps),
        method.schedule,
        steps,
    )
    norm_batches = [batches[index] for index in range(NORM_BATCHES)] if norm_buffers(module) else []
    with tempfile.TemporaryDirectory() as folder:
        callbacks: list[pl.Callback] = list(_helpers(method, settings, steps))
        average = next((item for item in callbacks if isinstance(item, Average)), None)
        if method.jumps is not None:
            callbacks += _jumping(entry, method.jumps, task, steps, Path(folder), norm_batches)
            average = next((item for item in callbacks if isinstance(item, Average)), average)
        ledgered = [item for item in callbacks if isinstance(item, TrajectoryRecorder | SkipAhead)]
        clock = RaceClock(
            spread(getattr(task, entry.on), problem.test_samples),
            entry.eval_every,
            steps,
            batches[0],
            average,
            ledgered,
            next((item for item in callbacks if isinstance(item, OracleJump)), None),
            norm_batches,
        )
        train(module, task, problem.batch_size, steps, entry.seed, [*callbacks, clock])
    jumps = [jump for item in callbacks if isinstance(item, SkipAhead) for jump in item.jumps]
    return {
        "problem": problem.name,
        "method": method.name,
        "base": method.base,
        "settings": dict(entry.settings),
        "seed": entry.seed,
        "share": entry.share,
        "on": entry.on,
        "steps": steps,
        "diverged": not all(math.isfinite(row[5]) for row in clock.curve),
        "curve": [[float(f"{value:.6g}") for value in row] for row in clock.curve],
        "jumps": _tally(jumps),
        "ledger": Ledger.merged(item.ledger for item in ledgered).to_dict(),
    }


def _helpers(method: Method, settings: Settings, steps: int) -> list[pl.Callback]:
    """What averages and slow steps need."""
    helpers: list[pl.Callback] = []
    if method.outer == "snoo":
        helpers.append(OuterStep(int(settings["outer_every"]), settings["outer_rate"], settings["mu"]))
    if method.average == "ema":
        helpers.append(ExponentialAverage(settings["decay"]))
    elif method.average == "lawa":
        count = 6
        helpers.append(LatestAverage(max(1, round(settings["window"] * steps / count)), count))
    return helpers


def _jumping(
    entry: Entry, jumps: Jumps, task: TaskData, steps: int, folder: Path, norm_batches: list[Batch]
) -> list[pl.Callback]:
    """What a method that jumps needs besides."""
    forecaster = _forecaster(jumps, entry.seed)
    period = blind_period(steps, jumps.row_every, forecaster.history, jumps.published)
    if jumps.kind == "oracle":
        ahead = Batches(task.train, entry.problem.batch_size, 10 * steps, 7919 + entry.seed)
        return [OracleJump(ahead, period, period // 2, jumps.schedule == "advances")]
    if jumps.kind == "evaluated":
        recorder = TrajectoryRecorder(folder / "rows", jumps.row_every)
        return [recorder, ForecastAverage(forecaster, recorder, jumps.horizons[0])]
    blind = jumps.rule == "always"
    held_out = spread(task.verify, VERIFY_SAMPLES)
    skip_ahead = SkipAhead(
        forecaster,
        every=period if blind else jumps.every,
        horizons=blind_schedule(steps, period, jumps.row_every, jumps.longest, jumps.published)
        if blind
        else jumps.horizons,
        probe=probe,
        batches=list(sequential_batches(held_out, VERIFY_BATCH)),
        batch_size=entry.problem.batch_size,
        # Blind is blind: not even the forecast's own doubts count.
        policy=JumpPolicy(
            rule=jumps.rule,  # pyright: ignore[reportArgumentType]
            max_relative_scale=NO_LIMIT if blind else JumpPolicy().max_relative_scale,
        ),
        moments=jumps.moments,  # pyright: ignore[reportArgumentType]
        schedule=jumps.schedule,  # pyright: ignore[reportArgumentType]
        batch_norm_batches=norm_batches or None,
        cost_share=None if blind else COST_SHARE,
        spacing=jumps.row_every,
    )
    return [skip_ahead]


def _forecaster(jumps: Jumps, seed: int) -> Forecaster:
    name = jumps.forecaster
    if name == RELEASED:
        own: Forecaster = race_nino(jumps.row_every)
    elif name.startswith(PRETRAINED):
        own = load_pretrained(name.removeprefix(PRETRAINED))
    else:
        own = make_forecaster(name, **jumps.options)
    if not own.fitted:
        raise OptionError(f"{name!r} has to be fitted first; use `{PRETRAINED}{name}`.")
    return Controlled(own, jumps.control, seed) if jumps.control is not None else own


def blind_period(steps: int, row_every: int, history: int, published: str = "nino") -> int:
    """Steps between blind jumps: what the history after a jump takes, and for `nino` at least a tenth of the run."""
    return (history if published == "wnn" else max(history, steps // JUMPS_A_RUN // row_every)) * row_every


def blind_schedule(
    steps: int, period: int, row_every: int, longest: int = LONGEST, published: str = "nino"
) -> Callable[[int], int | None]:
    """A published schedule of blind jumps, scaled to a run's length; none at its very end, after which nothing comes.

    NiNo's has far jumps first and short ones at the end: a row of `nino_schedule` is a fifth of a period. WNN's (J.
    Jang and others, 2023, Learning to Boost Training by Periodic Nowcasting Near Future Weights, ICML, and its released
    code) goes as far as the last jump lies behind, all along; there rows are an epoch apart. No jump goes further than
    the forecaster knows.

    Args:
        steps: of the run.
        period: optimiser steps between jumps.
        row_every: optimiser steps between rows; horizons are multiples of it.
        longest: optimiser steps that a forecaster knows.
        published: `nino` or `wnn`.
    """
    rows_at = nino_schedule(max(steps, period), period, PUBLISHED_FIRST, spacing=1)

    def horizon_at(step: int) -> int | None:
        rows = rows_at(step)
        if rows is None or step >= steps:
            return None
        wanted = period if published == "wnn" else rows * period // ROWS_A_PERIOD
        return max(row_every, min(longest, wanted) // row_every * row_every)

    return horizon_at


def _tally(jumps: list[Any]) -> dict[str, Any]:
    """How many jumps ended how, and how far the kept ones went."""
    outcomes: dict[str, int] = {}
    for jump in jumps:
        name = jump.outcome.name.lower()
        outcomes[name] = outcomes.get(name, 0) + 1
    kept = [asdict(jump) for jump in jumps if jump.outcome.kept]
    return {"outcomes": outcomes, "ahead": sum(jump["horizon"] for jump in kept)}

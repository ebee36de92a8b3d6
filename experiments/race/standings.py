"""From the runs of the grid: who gets to which target at what cost, against whom, and how sure that is."""

import math
import re
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...forecast import Ledger
from ...models import pretrained_card, pretrained_names
from ..bootstrap import Estimate
from .methods import METHODS, PRETRAINED
from .scores import (
    ACCURACY,
    AXES,
    CPU,
    LOSS,
    TARGETS,
    Curve,
    axis,
    median_gauge,
    penalised,
    stratified_ratio,
    targets_of,
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Times:
    """What the runs of one method on one problem took to one target, by seed.

    Attributes:
        costs: by axis and seed; a run that never got there counts as a penalty, see `race_scores.PENALTY`.
        reached: how many got there.
    """

    costs: Mapping[str, Mapping[int, float]]
    reached: int


@dataclass(frozen=True)
class Standing:
    """One method on one problem.

    Attributes:
        method: its name.
        base: the baseline whose settings it took over; None for baselines.
        times: by target.
        whole: CPU seconds of the whole run by seed, as `race_scores.axis` has them.
        final_loss: median over seeds of the last loss; infinite where more than half diverged.
        final_accuracy: likewise.
        diverged: how many runs did.
        outcomes: of all jumps.
        ledger_share: of the CPU seconds of its runs that the ledger charges to jumping; None where nothing is charged.
    """

    method: str
    base: str | None
    times: Mapping[str, Times]
    whole: Mapping[int, float]
    final_loss: float
    final_accuracy: float
    diverged: int
    outcomes: Mapping[str, int]
    ledger_share: float | None = None

    @property
    def seeds(self) -> list[int]:
        """Seeds that were run."""
        return sorted(self.whole)

    @property
    def jumps(self) -> bool:
        """Whether it is no baseline."""
        return self.base is not None


@dataclass(frozen=True)
class Standings:
    """All methods on one problem.

    Attributes:
        problem: its name.
        decay: the tuned decay that gave the targets.
        targets: losses by name.
        methods: by name.
        gauge_seconds: of the machine that CPU seconds are expressed on.
    """

    problem: str
    decay: str
    targets: Mapping[str, float]
    methods: Mapping[str, Standing]
    gauge_seconds: float

    def ratios(self, method: str, reference: str, target: str = "best", name: str = "cpu") -> dict[int, float]:
        """A method's cost over the reference's, seed by seed."""
        own, other = (self.methods[item].times[target].costs[name] for item in (method, reference))
        return {seed: own[seed] / other[seed] for seed in own if seed in other}

    def best_baseline(self) -> str:
        """The baseline that gets to the hardest target soonest, by the geometric mean over seeds."""
        baselines = [name for name, item in self.methods.items() if not item.jumps]
        return min(baselines, key=lambda name: _log_mean(self.methods[name].times["best"].costs["cpu"]))


def _log_mean(values: Mapping[int, float]) -> float:
    return statistics.fmean(math.log(value) for value in values.values())


def standings(problem: str, decay: str, rows: Sequence[Row]) -> Standings | None:
    """What the runs on one problem say; None while the decay has not run.

    Args:
        problem: its name.
        decay: the tuned decay.
        rows: as `run_entry` gives them, of this problem.
    """
    curves: dict[str, dict[int, Curve]] = {}
    for row in rows:
        curves.setdefault(row["method"], {})[row["seed"]] = row["curve"]
    if decay not in curves:
        return None
    reference = list(curves[decay].values())
    targets = targets_of(reference)
    gauge = median_gauge([curve for own in curves.values() for curve in own.values()])
    limits = {name: statistics.median(axis(curve, name, gauge)[-1] for curve in reference) for name in AXES}
    found: dict[str, Standing] = {}
    for name, own in curves.items():
        mine = [row for row in rows if row["method"] == name]
        outcomes: dict[str, int] = {}
        for row in mine:
            for outcome, count in row["jumps"]["outcomes"].items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        finals = [[value if math.isfinite(value) else math.inf for value in curve[-1]] for curve in own.values()]
        found[name] = Standing(
            name,
            mine[0]["base"],
            {target: _times(own, targets[target], gauge, limits) for target in TARGETS},
            {seed: axis(curve, "cpu", gauge)[-1] for seed, curve in own.items()},
            statistics.median(final[LOSS] for final in finals),
            statistics.median(final[ACCURACY] for final in finals),
            sum(bool(row["diverged"]) for row in mine),
            outcomes,
            _ledger_share(mine),
        )
    return Standings(problem, decay, targets, found, gauge)


def _ledger_share(rows: Sequence[Row]) -> float | None:
    """What jumping took of all CPU seconds, as both were measured; None where no run has a ledger with a charge."""
    charged = sum(Ledger.from_dict(row["ledger"]).total.cpu_seconds for row in rows if row.get("ledger"))
    return charged / sum(row["curve"][-1][CPU] for row in rows) if charged else None


def _times(curves: Mapping[int, Curve], target: float, gauge: float, limits: Mapping[str, float]) -> Times:
    costs: dict[str, dict[int, float]] = {}
    reached = 0
    for name in AXES:
        pairs = {seed: penalised(curve, name, target, gauge, limits[name]) for seed, curve in curves.items()}
        costs[name] = {seed: value for seed, (value, _) in pairs.items()}
        reached = sum(got_there for _, got_there in pairs.values())
    return Times(costs, reached)


def overall(problems: Collection[Standings], method: str, target: str, name: str = "cpu") -> Estimate | None:
    """A method's cost over the tuned decay's, over all problems that both were run on; None where there is none."""
    pairs = {item.problem: item.ratios(method, item.decay, target, name) for item in problems if method in item.methods}
    pairs = {problem: ratios for problem, ratios in pairs.items() if ratios}
    return stratified_ratio(pairs) if pairs else None


@dataclass(frozen=True)
class Safety:
    """What jumping does to one problem at worst: whole runs of the same number of steps, with against without.

    Attributes:
        problem: its name.
        method: what jumps.
        whole: ratio of the CPU seconds of whole runs.
        to_target: ratio of the CPU seconds to the hardest target.
        diverged: runs that did.
        seeds: how many pairs.
        ledger_share: see `Standing`.
    """

    problem: str
    method: str
    whole: Estimate
    to_target: Estimate
    diverged: int
    seeds: int
    ledger_share: float | None


def safety(problems: Collection[Standings]) -> list[Safety]:
    """Every method that jumps against its base, problem by problem."""
    found: list[Safety] = []
    for item in problems:
        for name, own in item.methods.items():
            recipe = METHODS[name].jumps
            if recipe is None or recipe.control is not None or recipe.kind not in ("verified", "blind"):
                continue
            base = item.methods.get(own.base or "")
            if base is None:
                continue
            whole = {seed: own.whole[seed] / base.whole[seed] for seed in own.seeds if seed in base.whole}
            reaching = item.ratios(name, base.method)
            if whole:
                estimates = [stratified_ratio({item.problem: values}) for values in (whole, reaching)]
                found.append(
                    Safety(item.problem, name, estimates[0], estimates[1], own.diverged, len(whole), own.ledger_share)
                )
    return found


def gate(problems: Collection[Standings], method: str) -> Estimate | None:
    """How many times sooner a method is at the hardest target than the best baseline of each problem.

    Above 1 is a gain. The best baseline is picked with the seeds that it is compared on, which favours it slightly.
    None where some problem lacks the method.
    """
    pairs: dict[str, dict[int, float]] = {}
    for item in problems:
        if method not in item.methods:
            return None
        ratios = item.ratios(method, item.best_baseline())
        pairs[item.problem] = {seed: 1 / value for seed, value in ratios.items()}
    return stratified_ratio(pairs) if pairs and all(pairs.values()) else None


def meta_seconds(method: str) -> float | None:
    """CPU seconds that went into a method's forecaster before any race; None where it has not been trained."""
    recipe = METHODS[method].jumps
    name = recipe.forecaster.removeprefix(PRETRAINED) if recipe is not None else ""
    if recipe is None or not recipe.forecaster.startswith(PRETRAINED) or name not in pretrained_names():
        return None
    hours = re.findall(r"took ([\d.]+) CPU hours", pretrained_card(name))
    return 3600 * sum(map(float, hours))

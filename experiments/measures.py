"""Numbers that verdicts rest on: pure functions of checked results (see `deadreckon.experiments.schema`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Data = Mapping[str, Any]

REFERENCE_FORECASTER = "hold"
REFERENCE_PREDICTOR = "none"
OUR_DEFAULT = "default"  # the codec as it is when nothing is configured, among the references
RAW_PREDICTOR = "raw"
REFERENCE_ARM = "plain"
SUMMARY_NMSE = 0.1
MIN_SKILL = 0.01  # a hundredth of persistence's error; less is called no skill
MIN_SAVING = 0.01  # of the bits
MIN_TIME_SAVING = 0.02  # of the seconds, whose noise is larger
KEPT = "kept"
# Names of `Outcome`, which only the tests import.
NOT_PROPOSED = ("no_history", "no_forecaster", "cooling_down", "over_budget")
# Of a ledger; all else in it is what jumps need. Named are those that are not, so that nothing new goes uncounted.
CODEC_ACTIVITIES = ("encoding", "decoding", "exchanging", "comparing")


def best_skill(rows: Sequence[Data], horizon: int) -> tuple[str, float] | None:
    """The forecaster with the highest skill at a horizon, the reference left out; `None` where none was scored."""
    scored = [
        (row["forecaster"], row["skill"])
        for row in rows
        if row["horizon"] == horizon and row["forecaster"] != REFERENCE_FORECASTER and row["skill"] is not None
    ]
    return max(scored, key=lambda pair: pair[1]) if scored else None


def last_scores(online: Sequence[Data]) -> list[Data]:
    """Of the scores taken during a run, the last one of each forecaster at each horizon."""
    last: dict[tuple[str, int], Data] = {}
    for row in online:
        key = (row["forecaster"], row["horizon"])
        if key not in last or row["step"] >= last[key]["step"]:
            last[key] = row
    return list(last.values())


@dataclass(frozen=True)
class BitSaving:
    """The front-end with the fewest bits at one error.

    Attributes:
        predictor: its name.
        bits: bits a coordinate.
        reference_bits: those without prediction; `None` where that was not measured.
        nmse_target: the error asked for.
    """

    predictor: str
    bits: float
    reference_bits: float | None
    nmse_target: float

    @property
    def saving(self) -> float:
        """Share of the reference's bits that is saved; 0 where there is no reference."""
        return 1 - self.bits / self.reference_bits if self.reference_bits else 0.0


def bit_saving(rows: Sequence[Data]) -> BitSaving | None:
    """The cheapest front-end at the measured error closest to `SUMMARY_NMSE`, compared with no prediction."""
    usable = [
        row
        for row in rows
        if row["predictor"] != RAW_PREDICTOR
        and row["bits_per_coordinate"] is not None
        and (row["nmse_target"] or 0) > 0
    ]
    if not usable:
        return None
    target = min((row["nmse_target"] for row in usable), key=lambda value: abs(math.log(value / SUMMARY_NMSE)))
    bits = {row["predictor"]: row["bits_per_coordinate"] for row in usable if row["nmse_target"] == target}
    best = min(bits, key=lambda name: (bits[name], name != REFERENCE_PREDICTOR))
    return BitSaving(best, bits[best], bits.get(REFERENCE_PREDICTOR), target)


@dataclass(frozen=True)
class AgainstReference:
    """A front-end against a coder that is not ours, at equal error.

    Attributes:
        reference: the other coder's name.
        setting: its setting; may be empty.
        nmse: the error, as the other coder made it.
        ratio: our bits over theirs; below 1 is a saving.
    """

    reference: str
    setting: str
    nmse: float
    ratio: float


def against_references(
    rows: Sequence[Data], references: Sequence[Data], predictor: str | None
) -> list[AgainstReference]:
    """A front-end against each reference but our own default, at that setting of it which leaves us the least gain.

    Where the same error was asked of both, their bits are compared as they are. Elsewhere ours are read off the line
    between neighbours on logarithmic scales; a reference whose error lies beyond ours is left out.

    Args:
        rows: of the front-ends.
        references: rows of the others.
        predictor: the front-end; with `None` the result is empty.
    """
    own = {
        row["nmse_target"]: (row["nmse"], row["bits_per_coordinate"])
        for row in rows
        if row["predictor"] == predictor
        and row["nmse_target"]
        and (row["nmse"] or 0) > 0
        and (row["bits_per_coordinate"] or 0) > 0
    }
    found: dict[str, list[AgainstReference]] = {}
    for row in references:
        nmse, bits = row["nmse"], row["bits_per_coordinate"]
        if row["reference"] == OUR_DEFAULT or not ((nmse or 0) > 0 and (bits or 0) > 0):
            continue
        target = row["nmse_target"]
        ours = own[target][1] if target in own else _between(sorted(own.values()), nmse)
        if ours is not None:
            found.setdefault(row["reference"], []).append(
                AgainstReference(row["reference"], row["setting"], nmse, ours / bits)
            )
    return [max(items, key=lambda item: item.ratio) for items in found.values()]


def _between(line: Sequence[tuple[float, float]], nmse: float) -> float | None:
    """Bits at an error on a line of points, on logarithmic scales; `None` beyond its ends."""
    for (low, first), (high, last) in pairwise(line):
        if low <= nmse <= high and low < high:
            share = math.log(nmse / low) / math.log(high / low)
            return math.exp((1 - share) * math.log(first) + share * math.log(last))
    return None


@dataclass(frozen=True)
class JumpTally:
    """How many opportunities to jump there were and what became of them."""

    opportunities: int
    proposed: int
    kept: int
    steps_ahead: int

    @property
    def rejected(self) -> int:
        """Proposed and not taken."""
        return self.proposed - self.kept


def tally(jumps: Sequence[Data]) -> JumpTally:
    """Count jumps by what became of them."""
    kept = [jump["horizon"] for jump in jumps if jump["outcome"] == KEPT]
    proposed = sum(jump["outcome"] not in NOT_PROPOSED for jump in jumps)
    return JumpTally(len(jumps), proposed, len(kept), sum(kept))


def jump_cost(ledger: Data) -> float:
    """Wall-clock seconds of everything that jumping needs, from a ledger."""
    return sum(cost["wall_seconds"] or 0.0 for name, cost in ledger.items() if name not in CODEC_ACTIVITIES)


@dataclass(frozen=True)
class Pair:
    """One seed's runs with and without jumps; `None` where the target was not reached."""

    seed: int
    with_seconds: float | None
    without_seconds: float | None
    with_steps: int | None
    without_steps: int | None

    @property
    def complete(self) -> bool:
        """Whether both reached the target."""
        return self.with_seconds is not None and self.without_seconds is not None


@dataclass(frozen=True)
class RaceGain:
    """An arm of a race against the one without jumps, over the seeds where both reached the target.

    Attributes:
        arm: its name.
        pairs: one for each seed.
        num_kept: jumps that were kept on the way to the target, over all seeds.
    """

    arm: str
    pairs: tuple[Pair, ...]
    num_kept: int

    @property
    def complete(self) -> tuple[Pair, ...]:
        """Pairs of which both reached the target."""
        return tuple(pair for pair in self.pairs if pair.complete)

    @property
    def means(self) -> tuple[float, float]:
        """Mean CPU seconds to the target with and without jumps; NaN without a complete pair."""
        return _mean([pair.with_seconds for pair in self.complete]), _mean(
            [pair.without_seconds for pair in self.complete]
        )

    @property
    def mean_steps(self) -> tuple[float, float]:
        """Mean optimiser steps to the target with and without jumps."""
        return _mean([pair.with_steps for pair in self.complete]), _mean([pair.without_steps for pair in self.complete])

    @property
    def saving(self) -> float:
        """Share of CPU seconds saved, from the means; negative where jumping costs more, NaN where nothing is known."""
        with_jumps, without = self.means
        return 1 - with_jumps / without if without > 0 else math.nan

    @property
    def lost(self) -> tuple[int, ...]:
        """Seeds that reached the target without jumps only."""
        return tuple(pair.seed for pair in self.pairs if pair.with_seconds is None and pair.without_seconds is not None)

    @property
    def num_faster(self) -> int:
        """Seeds that took fewer CPU seconds with jumps."""
        return sum((pair.with_seconds or 0.0) < (pair.without_seconds or 0.0) for pair in self.complete)

    @property
    def paid(self) -> bool:
        """Whether jumping saved more than noise on average, and lost no seed; without a jump any saving is noise."""
        return self.num_kept > 0 and not self.lost and self.saving >= MIN_TIME_SAVING


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def race_gains(race: Data) -> list[RaceGain]:
    """Every arm of a race compared with the plain one, seed by seed."""
    reference = {arm["seed"]: arm for arm in race["arms"] if arm["name"] == REFERENCE_ARM}
    names = dict.fromkeys(arm["name"] for arm in race["arms"] if arm["name"] != REFERENCE_ARM)
    gains = []
    for name in names:
        arms = [arm for arm in race["arms"] if arm["name"] == name and arm["seed"] in reference]
        pairs = [
            Pair(
                arm["seed"],
                arm["cpu_seconds_to_target"] if arm["reached"] else None,
                other["cpu_seconds_to_target"] if other["reached"] else None,
                arm["steps_to_target"],
                other["steps_to_target"],
            )
            for arm, other in ((arm, reference[arm["seed"]]) for arm in arms)
        ]
        kept = sum(
            jump["outcome"] == KEPT and jump["step"] < (arm["steps_to_target"] or math.inf)
            for arm in arms
            for jump in arm["jumps"]
        )
        gains.append(RaceGain(name, tuple(sorted(pairs, key=lambda pair: pair.seed)), kept))
    return gains

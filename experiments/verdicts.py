"""Sentences about results, each made from numbers by a pure function, so that it changes when the number does.

Every function takes checked data (see `deadreckon.experiments.schema`) and returns plain text without mark-up.
"""

from collections.abc import Sequence

from .measures import (
    MIN_SAVING,
    MIN_SKILL,
    MIN_TIME_SAVING,
    REFERENCE_FORECASTER,
    REFERENCE_PREDICTOR,
    BitSaving,
    Data,
    Pair,
    RaceGain,
    against_references,
    best_skill,
    bit_saving,
    jump_cost,
    race_gains,
    tally,
)

ARM_NAMES = {"plain": "without jumps", "jumps": "with jumps"}  # in sentences and legends; other names stay as they are


def percent(share: float) -> str:
    """A share as a percentage: two digits from 10 % on, one decimal below."""
    value = 100 * share
    return f"{value:.0f} %" if abs(value) >= 9.95 else f"{value:.1f} %"


def seconds(value: float) -> str:
    """Seconds with three significant digits."""
    return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"


def count(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def listing(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def corpus(data: Data) -> list[str]:
    """What was recorded of a corpus, what went wrong, and what it cost."""
    runs, failures = data["runs"], data["failures"]
    sentences = ["No run could be recorded."]
    if runs:
        per_task = [
            f"{sum(run['task'] == task for run in runs)} of {task}"
            for task in dict.fromkeys(run["task"] for run in runs)
        ]
        sentences = [
            f"{count(len(runs), 'run')} ({listing(per_task)}), a row of weights every {count(data['every'], 'step')}, "
            f"{megabytes(data['bytes'])}, {seconds(data['cpu_seconds'])} of CPU time."
        ]
    diverged = [run["name"] for run in runs if run["diverged"]]
    if diverged:
        sentences.append(f"{count(len(diverged), 'run')} diverged and will be left out: {listing(diverged)}.")
    sentences += [f"{item['name']} failed: {item['reason']}" for item in failures]
    return sentences


def recorded(record: Data) -> list[str]:
    """What a run was and what was stored of it."""
    final = record["final"]
    outcome = [
        f"{label} {value:.4g}" if form == "plain" else f"{label} {100 * value:.1f} %"
        for label, value, form in (
            ("training loss", final["train_loss"], "plain"),
            ("test loss", final["test_loss"], "plain"),
            ("test accuracy", final["test_accuracy"], "percent"),
        )
        if value is not None
    ]
    sentences = [
        f"The network {record['network']} with {count(record['num_parameters'], 'parameter')} learned "
        f"{record['task']} for {count(record['steps'], 'optimiser step')} (seed {record['seed']})"
        + (f" and reached {listing(outcome)}." if outcome else ".")
    ]
    streams = [
        f"{count(stream['rows'], 'row')} of {name} ({megabytes(stream['bytes'])})"
        for name, stream in record["streams"].items()
    ]
    sentences.append(f"Recorded: {listing(streams)}." if streams else "Nothing was recorded.")
    compression = record["compression"]
    if compression is not None and compression["bits_per_coordinate"] is not None:
        sentences.append(
            f"Its gradients went through the codec: {compression['bits_per_coordinate']:.3g} bits a coordinate over "
            f"{count(compression['packets'], 'packet')}."
        )
    return sentences


def megabytes(num_bytes: int) -> str:
    """Bytes as megabytes, or kilobytes where few."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.1f} kB"


def skill(rows: Sequence[Data]) -> list[str]:
    """Which forecaster has skill at which horizon, one sentence a horizon."""
    sentences = []
    for horizon in sorted({row["horizon"] for row in rows}):
        best = best_skill(rows, horizon)
        ahead = f"{count(horizon, 'step')} ahead"
        if best is None:
            sentences.append(f"{ahead}: no forecaster other than {REFERENCE_FORECASTER} could be scored.")
        elif best[1] < MIN_SKILL:
            sentences.append(
                f"{ahead}: none has skill; the best, {best[0]}, scores {best[1]:.2f} (0 is standing still)."
            )
        else:
            others = [
                row["forecaster"]
                for row in rows
                if row["horizon"] == horizon
                and row["forecaster"] not in (best[0], REFERENCE_FORECASTER)
                and row["skill"] is not None
                and row["skill"] >= MIN_SKILL
            ]
            also = f"; {listing(others)} {'has' if len(others) == 1 else 'have'} some too" if others else ""
            sentences.append(
                f"{ahead}: {best[0]} has the most skill and takes away {percent(best[1])} of the squared error of "
                f"standing still{also}."
            )
    return sentences


def codec(compare: Data) -> list[str]:
    """Which front-end needs the fewest bits, by how much, and how that compares with coders that are not ours."""
    found = bit_saving(compare["rows"])
    if found is None:
        return ["No front-end was measured."]
    return [_front_end(compare["stream"], found), *_others(compare, found.predictor)]


def _front_end(stream: str, found: BitSaving) -> str:
    what = f"coding {stream} at NMSE {found.nmse_target:g}"
    if found.reference_bits is None:
        return f"{found.predictor} needs the fewest bits for {what}: {found.bits:.3g} a coordinate."
    if found.predictor == REFERENCE_PREDICTOR or found.saving < MIN_SAVING:
        return (
            f"No prediction pays in {what}: without it {found.reference_bits:.3g} bits a coordinate are needed, with "
            f"the best front-end {found.bits:.3g}."
        )
    return (
        f"{found.predictor} needs the fewest bits for {what}: {found.bits:.3g} a coordinate, {percent(found.saving)} "
        f"less than without prediction ({found.reference_bits:.3g})."
    )


def _others(compare: Data, predictor: str) -> list[str]:
    """How many of the other coders' bits a front-end needs at their error."""
    found = against_references(compare["rows"], compare["references"], predictor)
    if not found:
        return []
    parts = [
        f"{item.ratio:.2g} times the bits of {item.reference}"
        + (f" with {item.setting}" if item.setting else "")
        + f" (NMSE {item.nmse:.2g})"
        for item in found
    ]
    return [f"At equal error, and the setting that suits the other coder best, {predictor} needs {listing(parts)}."]


def jumps(entries: Sequence[Data], ledgers: Sequence[Data], run_seconds: float | None) -> list[str]:
    """How many jumps were proposed, kept and rejected, and what they cost.

    Args:
        entries: all opportunities.
        ledgers: those of the runs they belong to.
        run_seconds: wall-clock seconds of these runs together, where known.
    """
    total = tally(entries)
    if not total.opportunities:
        return ["No jump was tried."]
    cost = sum(jump_cost(ledger) for ledger in ledgers)
    share = f", {percent(cost / run_seconds)} of the runs' {seconds(run_seconds)}" if run_seconds else ""
    waiting = total.opportunities - total.proposed
    also = (
        f" ({count(waiting, 'further opportunity', 'further opportunities')} went by without a proposal)"
        if waiting
        else ""
    )
    reached = f"; the kept ones reached {count(total.steps_ahead, 'step')} ahead in all" if total.kept else ""
    return [
        f"{count(total.proposed, 'jump')} {'was' if total.proposed == 1 else 'were'} proposed, {total.kept} kept and "
        f"{total.rejected} rejected{also}{reached}.",
        f"Recording, fitting, verifying and all else that jumps need took {seconds(cost)} by the clock{share}.",
    ]


def arm_name(name: str) -> str:
    """What an arm of a race is called in sentences and legends."""
    return ARM_NAMES.get(name, name)


def target(race: Data) -> str:
    """What a race was to."""
    metric, value = race["target"]["metric"], race["target"]["value"]
    sign = "at most" if metric == "loss" else "at least"
    return f"test {metric} of {sign} {value:g}"


def race(race: Data) -> list[str]:
    """Whether jumping paid, in CPU seconds to the target, per seed and on average."""
    gains = race_gains(race)
    if not any(gain.pairs for gain in gains):
        return ["No seed was run both with and without jumps, so nothing can be said about whether they pay."]
    sentences = []
    for gain in gains:
        details = [_pair_text(pair) for pair in gain.pairs]
        sentences.append(f"CPU seconds to a {target(race)}, {arm_name(gain.arm)} (and without): {'; '.join(details)}.")
        sentences.append(_race_verdict(gain))
    return sentences


def _pair_text(pair: Pair) -> str:
    with_jumps = seconds(pair.with_seconds) if pair.with_seconds is not None else "not reached"
    without = seconds(pair.without_seconds) if pair.without_seconds is not None else "not reached"
    return f"seed {pair.seed}: {with_jumps} ({without})"


def _race_verdict(gain: RaceGain) -> str:
    if gain.lost:
        missed = listing([str(seed) for seed in gain.lost])
        return f"It did not pay: {arm_name(gain.arm)}, the target was missed with seed {missed}, and reached without."
    if not gain.complete:
        return "Nothing can be said about whether it pays: no seed reached the target both ways."
    with_jumps, without = gain.means
    steps = "in optimiser steps, which leave out what a jump costs, {:.0f} against {:.0f}".format(*gain.mean_steps)
    means = f"{seconds(with_jumps)} against {seconds(without)} on average; {steps}"
    num_pairs = len(gain.complete)
    if not gain.num_kept:
        return (
            "It cannot have paid, as no jump was kept before the target: what differs is what trying cost, and noise. "
            f"{means}."
        )
    if abs(gain.saving) < MIN_TIME_SAVING:
        return f"It made no difference beyond noise: {means}."
    if gain.saving < 0:
        return f"It did not pay: {percent(-gain.saving)} more CPU seconds, {means}."
    if gain.num_faster == num_pairs:
        return f"It paid: {percent(gain.saving)} fewer CPU seconds, in each of {count(num_pairs, 'seed')}, {means}."
    return (
        f"It paid on average, but only in {gain.num_faster} of {count(num_pairs, 'seed')}, which is weak evidence: "
        f"{percent(gain.saving)} fewer CPU seconds, {means}."
    )


def conclusion(compares: Sequence[Data], races: Sequence[Data]) -> str:
    """In one sentence, what paid and what did not; or that nothing did."""
    paid, failed = [], []
    streams = [(compare["stream"], bit_saving(compare["rows"])) for compare in compares]
    savings = [(stream, found) for stream, found in streams if found is not None]
    if savings:
        stream, best = max(savings, key=lambda pair: pair[1].saving)
        if best.saving >= MIN_SAVING:
            paid.append(f"predicting {stream} with {best.predictor} ({percent(best.saving)} fewer bits)")
        else:
            failed.append("prediction in front of the codec (no bits saved)")
    gains = [gain for race in races for gain in race_gains(race) if gain.pairs]
    if gains:
        best_gain = max(gains, key=lambda gain: (gain.paid, gain.complete != (), -len(gain.lost), gain.saving))
        (paid if best_gain.paid else failed).append(f"jumping ahead ({_race_phrase(best_gain)})")
    if not paid and not failed:
        return "Whether anything pays was not measured here."
    if not paid:
        return f"Nothing paid: not {' and not '.join(failed)}."
    return f"Paid: {listing(paid)}." + (f" Did not pay: {listing(failed)}." if failed else "")


def _race_phrase(gain: RaceGain) -> str:
    if gain.lost:
        return "the target was missed"
    if not gain.complete:
        return "the target was not reached both ways"
    if not gain.num_kept:
        return "no jump was kept before the target"
    if abs(gain.saving) < MIN_TIME_SAVING:
        return "no difference beyond noise"
    more = "fewer" if gain.saving > 0 else "more"
    return f"{percent(abs(gain.saving))} {more} CPU seconds to the target"

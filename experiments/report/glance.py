"""The page's first answers: short questions about a run, each answered from numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..measures import (
    MIN_SAVING,
    MIN_SKILL,
    MIN_TIME_SAVING,
    REFERENCE_FORECASTER,
    Data,
    RaceGain,
    against_references,
    bit_saving,
    race_gains,
)
from ..results import Result
from ..verdicts import count, percent, seconds
from . import html as web
from .naming import names_of

YES, NO, OPEN = "yes", "no", "open"


@dataclass(frozen=True)
class Answer:
    """One question and its answer.

    Attributes:
        question: ends with a question mark.
        verdict: `yes`, `no` or `open`.
        text: the answer in a few words.
        numbers: what it rests on.
    """

    question: str
    verdict: str
    text: str
    numbers: str


def glance(results: Sequence[Result]) -> list[Answer]:
    """The answers that these results allow, at most four for each of them."""
    answers: list[Answer] = []
    names = names_of(results)
    for result, name in zip(results, names, strict=True):
        several = sum(other.kind == result.kind for other in results) > 1
        prefix = f"{name}: " if several else ""
        if result.kind == "compare":
            answers += _compare(result.data, prefix)
        if result.kind == "race":
            answers += _race(result.data, prefix)
    return answers + _codec_runs(results, names)


def _compare(data: Data, prefix: str) -> list[Answer]:
    answers: list[Answer] = []
    skilled = [row for row in data["skill"] if row["skill"] is not None and row["forecaster"] != REFERENCE_FORECASTER]
    if skilled:
        horizon = max(row["horizon"] for row in skilled)
        best = max((row for row in skilled if row["horizon"] == horizon), key=lambda row: row["skill"])
        good = best["skill"] >= MIN_SKILL
        ahead = f"{count(horizon, 'step')} ahead"
        answers.append(
            Answer(
                f"{prefix}Can the weights be forecast?",
                YES if good else NO,
                f"{percent(best['skill'])} of the squared error gone, {ahead}" if good else f"Not {ahead}",
                f"{best['forecaster']} has skill {best['skill']:.2f}; 0 is standing still, 1 perfect",
            )
        )
    found = bit_saving(data["rows"])
    if found is not None and found.reference_bits is not None:
        good = found.saving >= MIN_SAVING
        answers.append(
            Answer(
                f"{prefix}Does predicting {data['stream']} save bits?",
                YES if good else NO,
                f"{percent(found.saving)} fewer" if good else "No bits saved",
                f"{found.bits:.3g} bits a coordinate with {found.predictor}, {found.reference_bits:.3g} without "
                f"prediction, at NMSE {found.nmse_target:g}",
            )
        )
    if found is not None:
        rivals = against_references(data["rows"], data["references"], found.predictor)
        if rivals:
            closest = max(rivals, key=lambda item: item.ratio)
            setting = f" with {closest.setting}" if closest.setting else ""
            less = closest.ratio < 1
            answers.append(
                Answer(
                    f"{prefix}Fewer bits than other coders at equal error?",
                    YES if less else NO,
                    f"{percent(abs(1 - closest.ratio))} {'fewer' if less else 'more'} than the best of "
                    f"{count(len(rivals), 'other')}",
                    f"{closest.ratio:.2g} times the bits of {closest.reference}{setting}, at NMSE {closest.nmse:.2g}",
                )
            )
    return answers


def _race(data: Data, prefix: str) -> list[Answer]:
    return [_gain(gain, prefix) for gain in race_gains(data) if gain.pairs]


def _gain(gain: RaceGain, prefix: str) -> Answer:
    question = f"{prefix}Does jumping ahead reach the target sooner?"
    if gain.lost:
        return Answer(question, NO, "The target was missed", f"with {count(len(gain.lost), 'seed')} that reached it")
    if not gain.complete:
        return Answer(question, OPEN, "Not known", "no seed reached the target both ways")
    with_jumps, without = gain.means
    pairs = count(len(gain.complete), "seed")
    numbers = f"{seconds(with_jumps)} of CPU time with jumps, {seconds(without)} without; {pairs}"
    if not gain.num_kept:
        return Answer(question, NO, "No jump was kept before the target", numbers)
    if abs(gain.saving) < MIN_TIME_SAVING:
        return Answer(question, NO, "No difference beyond noise", numbers)
    if gain.saving < 0:
        return Answer(question, NO, f"{percent(-gain.saving)} later", numbers)
    if gain.num_faster < len(gain.complete):
        text = f"{percent(gain.saving)} sooner on average, in {gain.num_faster} of {pairs} only"
        return Answer(question, OPEN, text, numbers)
    return Answer(question, YES, f"{percent(gain.saving)} sooner", numbers)


SAME = ("task", "network", "steps", "seed")


def _codec_runs(results: Sequence[Result], names: Sequence[str]) -> list[Answer]:
    """Runs through the codec beside equal ones without it."""
    records = [(item.data, name) for item, name in zip(results, names, strict=True) if item.kind == "record"]
    answers: list[Answer] = []
    for data, name in records:
        plain = next(
            (
                other
                for other, _ in records
                if other["compression"] is None and all(other[key] == data[key] for key in SAME)
            ),
            None,
        )
        if data["compression"] is None or plain is None:
            continue
        bits = data["compression"]["bits_per_coordinate"]
        accuracy, other = data["final"]["test_accuracy"], plain["final"]["test_accuracy"]
        if bits is None or accuracy is None or other is None or not bits > 0:
            continue
        points = 100 * (accuracy - other)
        answers.append(
            Answer(
                f"{name}: Does training through the codec keep the accuracy?",
                YES if points >= 0 else OPEN,
                f"{abs(points):.2g} points {'higher' if points > 0 else 'lower'}, in one seed"
                if points
                else "Equal, in one seed",
                f"test accuracy {100 * accuracy:.1f} % with {32 / bits:.0f} times fewer bits than float32, "
                f"{100 * other:.1f} % without",
            )
        )
    return answers


def glance_cards(answers: Sequence[Answer]) -> str:
    """The answers as cards; nothing where there are none."""
    if not answers:
        return ""
    cards = [
        f'<div class="card {answer.verdict}"><p class="soft">{web.escape(answer.question)}</p>'
        f'<p class="answer">{web.escape(_lead(answer))}</p><p class="soft">{web.escape(answer.numbers)}</p></div>'
        for answer in answers
    ]
    return f'<div class="glance">{"".join(cards)}</div>'


def _lead(answer: Answer) -> str:
    """The verdict as a word before the text, so that colour is not all that tells."""
    word = {YES: "Yes", NO: "No", OPEN: "Open"}[answer.verdict]
    return f"{word}: {answer.text[0].lower()}{answer.text[1:]}" if answer.text else word

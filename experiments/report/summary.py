"""What a report says: sections of sentences about checked results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import verdicts
from ..characterize.measures import streams
from ..characterize.verdicts import advice
from ..characterize.verdicts import headline as characterized
from ..fit.verdicts import fitted
from ..measures import REFERENCE_ARM, last_scores
from ..results import Result
from ..score.verdicts import headline, scored
from ..sweep.verdicts import swept
from .comparison import comparison


@dataclass(frozen=True)
class Section:
    """Sentences of the summary that belong together."""

    title: str
    sentences: list[str]


def of_kind(results: Sequence[Result], kind: str) -> list[Result]:
    """The results of one kind, in order."""
    return [result for result in results if result.kind == kind]


def summary(results: Sequence[Result]) -> list[Section]:
    """What there is to say, every sentence made from numbers."""
    sections: list[Section] = []
    compared = comparison(results)
    if compared:
        sections.append(Section("The runs side by side", compared))
    for result in of_kind(results, "record"):
        sections.append(Section(titled("What was recorded", result, results), verdicts.recorded(result.data)))
        online = last_scores(result.data["online"])
        if online:
            sections.append(
                Section(titled("Last scores of forecasts while it ran", result, results), verdicts.skill(online))
            )
        if result.data["jumps"]:
            entries, ledger = result.data["jumps"], result.data["ledger"]
            sentences = verdicts.jumps(entries, [ledger], result.data["wall_seconds"])
            sections.append(Section(titled("Jumps in it", result, results), sentences))
    for result in of_kind(results, "corpus"):
        sections.append(Section(titled("What the corpus holds", result, results), verdicts.corpus(result.data)))
    for result in of_kind(results, "fit"):
        sections.append(Section(titled("What was fitted", result, results), fitted(result.data)))
    for result in of_kind(results, "score"):
        sentences = [headline(result.data), *scored(result.data)]
        sections.append(Section(titled("Which forecaster is best", result, results), sentences))
    for result in of_kind(results, "compare"):
        if result.data["skill"]:
            title = titled("Which forecaster has skill", result, results)
            sections.append(Section(title, verdicts.skill(result.data["skill"])))
        title = titled("Which front-end needs the fewest bits", result, results)
        sections.append(Section(title, verdicts.codec(result.data)))
    for result in of_kind(results, "characterize"):
        found = streams(result.data)
        sentences = [characterized(result.data, stream) for stream in found]
        sentences += [sentence for stream in found for sentence in advice(result.data, stream)]
        sections.append(Section(titled("What the streams are like", result, results), sentences))
    for result in of_kind(results, "sweep"):
        sections.append(Section(titled("Which setting is best", result, results), swept(result.data)))
    for result in of_kind(results, "race"):
        arms = jumping_arms(result.data)
        entries = [jump for arm in arms for jump in arm["jumps"]]
        sentences = verdicts.jumps(entries, [arm["ledger"] for arm in arms], run_seconds(arms))
        sections.append(Section(titled("What jumping ahead did", result, results), sentences))
        sections.append(Section(titled("Whether it paid", result, results), verdicts.race(result.data)))
    return sections


def conclusion(results: Sequence[Result]) -> str:
    """What paid, or that nothing did; first, where forecasters were scored, which of them beat the closed forms.

    Of a sweep, the best setting.
    """
    compares, races = (of_kind(results, kind) for kind in ("compare", "race"))
    sentences = [headline(result.data) for result in of_kind(results, "score")]
    sentences += [
        characterized(result.data, stream)
        for result in of_kind(results, "characterize")
        for stream in streams(result.data)
    ]
    sentences += [sentence for result in of_kind(results, "sweep") for sentence in swept(result.data)[1:2]]
    if compares or races or not sentences:
        sentences.append(verdicts.conclusion([result.data for result in compares], [result.data for result in races]))
    return " ".join(sentences)


def titled(text: str, result: Result, results: Sequence[Result]) -> str:
    """The name of a section, with the folder's where there are several of its kind."""
    return text if len(of_kind(results, result.kind)) == 1 else f"{text} ({result.path.parent.name})"


def jumping_arms(race: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arms of a race that jump."""
    return [arm for arm in race["arms"] if arm["name"] != REFERENCE_ARM]


def run_seconds(arms: Sequence[Mapping[str, Any]]) -> float | None:
    """Wall-clock seconds of runs together, from the ends of their curves."""
    ends = [arm["curve"][-1][2] for arm in arms if arm["curve"]]
    known = [end for end in ends if end is not None]
    return sum(known) if known and len(known) == len(arms) else None

"""Sentences about several results of one kind."""

from collections.abc import Sequence

from ..measures import Data, bit_saving, race_gains
from ..results import Result
from ..verdicts import count, listing, percent, seconds
from .naming import names_of

Named = Sequence[tuple[str, Data]]
MIN_LOSS_GAP = 0.01  # of a loss; less is called equal


def comparison(results: Sequence[Result]) -> list[str]:
    """What the comparison says, as sentences for the summary; none where no kind of result is there twice."""
    names = names_of(results)
    pairs = list(zip(names, results, strict=True))
    found: list[str] = []
    for kind, teller in (("record", compare_records), ("compare", compare_rates), ("race", compare_races)):
        some = [(name, result.data) for name, result in pairs if result.kind == kind]
        if len(some) > 1:
            found += teller(some)
    return found


def compare_records(runs: Named) -> list[str]:
    """Which run of each task ended with the lowest test loss, and how far the others are; and which took least time."""
    sentences: list[str] = []
    for task in dict.fromkeys(data["task"] for _, data in runs):
        known = [
            (name, data["final"]["test_loss"], data["wall_seconds"])
            for name, data in runs
            if data["task"] == task and (data["final"]["test_loss"] or 0) > 0
        ]
        if len(known) < 2:
            continue
        known.sort(key=lambda item: item[1])
        best, lowest, _ = known[0]
        equal = [name for name, loss, _ in known[1:] if loss < (1 + MIN_LOSS_GAP) * lowest]
        others = [
            f"{name} with {loss:.4g} ({percent(loss / lowest - 1)} more)"
            for name, loss, _ in known[1:]
            if name not in equal
        ]
        also = f", {listing(equal)} within {percent(MIN_LOSS_GAP)} of it" if equal else ""
        rest = f", before {listing(others)}" if others else ""
        sentences.append(f"On {task}, {best} ended with the lowest test loss, {lowest:.4g}{also}{rest}.")
        timed = [(taken, name) for name, _, taken in known if taken is not None]
        if len(timed) > 1:
            (least, first), (most, last) = min(timed), max(timed)
            sentences.append(
                f"The shortest of these runs by the clock was {first} with {seconds(least)}, the longest {last} with "
                f"{seconds(most)}."
            )
    return sentences


def compare_rates(runs: Named) -> list[str]:
    """In which run prediction saves most of the bits."""
    found = [(name, bit_saving(data["rows"])) for name, data in runs]
    known = [(saving.saving, name, saving) for name, saving in found if saving is not None and saving.reference_bits]
    if len(known) < 2:
        return []
    known.sort(key=lambda item: item[0], reverse=True)
    parts = [f"{percent(share)} in {name} ({saving.predictor})" for share, name, saving in known]
    return [f"Of the bits that no prediction would take, the best front-end saves {listing(parts)}."]


def compare_races(runs: Named) -> list[str]:
    """In which race jumping saved most time."""
    known = [
        (gain.saving, name, gain) for name, data in runs for gain in race_gains(data) if gain.complete and not gain.lost
    ]
    if len(known) < 2:
        return []
    known.sort(key=lambda item: item[0], reverse=True)
    parts = [
        f"{percent(abs(share))} {'less' if share >= 0 else 'more'} in {name} "
        f"({count(gain.num_kept, 'jump')} kept before the target)"
        for share, name, gain in known
    ]
    return [f"CPU seconds to the target with jumps, against without: {listing(parts)}."]

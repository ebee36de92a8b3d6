"""Sentences that stand beside the figures of a section, each made from numbers by a pure function."""

import math
from collections.abc import Sequence

from ..measures import REFERENCE_FORECASTER, Data, bit_saving, tally
from ..verdicts import count, listing, percent, seconds

FAR_FROM_PLANE = 0.1  # of the loss: beyond, the plane is no fair picture of the end
UNLIKE = 0.1  # a cosine; rows that are less alike say almost nothing of one another
ODD_SHARE = 0.1  # by which the largest magnitudes may come more or less often than the model says
PARTS = ("headers", "lattice", "tables", "misfit")  # of the gap to the bound
REGIMES = ("chaotic", "transition", "stable")


def spent(record: Data) -> list[str]:
    """What a run had spent at its end, and how much of that was not training."""
    batch, curve = record["options"].get("batch_size"), record["cost_curve"]
    parts = [count(record["steps"], "optimiser step")]
    if isinstance(batch, int) and not isinstance(batch, bool):
        parts.append(f"{batch * record['steps']:,} samples")
    if curve and curve[-1][1] is not None and curve[-1][2] is not None:
        parts.append(f"{seconds(curve[-1][1])} by the clock")
        parts.append(f"{seconds(curve[-1][2])} of CPU time")
    sentences = [f"The run took {listing(parts)}."]
    costs = {name: cost["wall_seconds"] or 0.0 for name, cost in record["ledger"].items()}
    whole = record["wall_seconds"]
    if whole and sum(costs.values()) > 0:
        most = max(costs, key=lambda name: costs[name])
        sentences.append(
            f"{percent(sum(costs.values()) / whole)} of the time by the clock was not training; the largest part of "
            f"that was {most} with {seconds(costs[most])}."
        )
    return sentences


def regimes(jumps: Sequence[Data]) -> list[str]:
    """What became of the jumps that were proposed, by the regime they came in."""
    parts: list[str] = []
    for regime in (*REGIMES, ""):
        total = tally([jump for jump in jumps if jump["regime"] == regime])
        if total.proposed:
            where = f"in the {regime} regime" if regime else "before any regime was known"
            parts.append(f"{total.kept} of {total.proposed} {where}")
    return [f"Kept of the jumps proposed: {listing(parts)}."] if parts else []


def plane(pca: Data | None) -> list[str]:
    """How much of the path the plane shows, what its contours are of and cost, and how far off it the end is."""
    if pca is None or None in pca["explained"]:
        return []
    sentences = [f"The plane holds {percent(sum(pca['explained']))} of the variance of the weights' path."]
    losses = pca["losses"]
    if losses is None:
        return sentences
    took = f" in {seconds(losses['seconds'])}" if losses["seconds"] is not None else ""
    sentences.append(
        f"Its contours are from {count(losses['num_evaluations'], 'evaluation')} on "
        f"{count(losses['num_samples'], 'held-out sample')} each{took}, after the run and not counted in its time."
    )
    own, shown = losses["end"], losses["end_on_plane"]
    if own and shown is not None:
        gap = shown / own - 1
        what = (
            "so the plane shows the end fairly"
            if abs(gap) <= FAR_FROM_PLANE
            else "so read the end's contours with care"
        )
        sentences.append(
            f"At the end the held-out loss is {own:.3g}, and {shown:.3g} at the nearest point of the plane: {what}."
        )
    return sentences


def forecasts(found: Data | None) -> list[str]:
    """Which forecast ended closest to where training went, in lengths of the way."""
    if found is None or not found["by"]:
        return []
    misses = {
        row["forecaster"]: math.hypot(row["along"][-1] - 1, row["off"][-1])
        for row in found["by"]
        if row["along"] and row["along"][-1] is not None and row["off"][-1] is not None
    }
    others = {name: miss for name, miss in misses.items() if name != REFERENCE_FORECASTER}
    if not others:
        return []
    best = min(others, key=lambda name: others[name])
    where = f"{count(found['horizons'][-1], 'step')} on from step {found['step']}"
    if others[best] >= 1:
        return [
            f"{where}, no forecast was nearer to the truth than standing still: the best, {best}, missed by "
            f"{others[best]:.2f} of the way that training went."
        ]
    return [
        f"{where}, {best} came closest to where training went and missed by {others[best]:.2f} of the way; standing "
        "still misses by 1."
    ]


def arrows(picture: Data | None) -> list[str]:
    """What the watched run of a race shows, and that it is none of the race."""
    if picture is None:
        return []
    total = tally(picture["arrows"])
    return [
        f"The picture is of one more run with seed {picture['seed']}, without a limit on what jumping may take, and "
        f"not part of the race: {count(total.proposed, 'jump')} verified, {total.kept} kept."
    ]


def layers(anatomy: Data | None) -> list[str]:
    """Which tensor takes most of the bits, which costs most a coordinate, and where the bits went over the run."""
    if anatomy is None:
        return []
    names = [tensor["name"] for tensor in anatomy["tensors"]]
    sizes = [tensor["size"] for tensor in anatomy["tensors"]]
    bits = anatomy["bits"]
    totals = [sum(row[place] or 0.0 for row in bits) for place in range(len(names))]
    whole = sum(totals)
    if not whole > 0:
        return []
    most = max(range(len(names)), key=lambda place: totals[place])
    dear = max(range(len(names)), key=lambda place: totals[place] / sizes[place])
    third = max(len(bits) // 3, 1)
    early, late = (
        sum(value or 0.0 for row in part for value in row) / (len(part) * sum(sizes))
        for part in (bits[:third], bits[-third:])
    )
    mean = whole / (len(bits) * sum(sizes))
    cost = totals[dear] / (len(bits) * sizes[dear])
    return [
        f"Of the bits of the {anatomy['stream']} at NMSE {anatomy['nmse']:g}, {names[most]} takes "
        f"{percent(totals[most] / whole)} with {percent(sizes[most] / sum(sizes))} of the coordinates.",
        f"{names[dear]} costs most a coordinate, {cost:.2g} bits against {mean:.2g} over all; in "
        f"the first third of the run it is {early:.3g} over all, in the last {late:.3g}.",
    ]


def model(anatomy: Data | None) -> list[str]:
    """How the bits spent compare with those that the coder's tables expected, and whether large residuals surprise."""
    if anatomy is None or not anatomy["expected_bits"] or not anatomy["histogram"]:
        return []
    number = len(anatomy["bits"]) * sum(tensor["size"] for tensor in anatomy["tensors"])
    spent_bits = sum(value or 0.0 for row in anatomy["bits"] for value in row) / number
    expected = anatomy["expected_bits"]
    change = spent_bits / expected - 1
    shares = anatomy["histogram"]
    tail = sum(share or 0.0 for share in shares[-len(shares) // 10 :])
    if abs(tail / 0.1 - 1) <= ODD_SHARE:
        verdict = "about as often as it says"
    else:
        verdict = "more often than it says" if tail > 0.1 else "less often than it says"
    return [
        f"The entropy coder's tables expected {expected:.3g} bits a coordinate and {spent_bits:.3g} were spent, "
        f"{percent(abs(change))} {'more' if change > 0 else 'fewer'}.",
        f"Magnitudes that the model holds for the largest tenth came up in {percent(tail)} of the cases, {verdict}.",
    ]


def likeness(found: Data | None) -> list[str]:
    """How alike neighbouring rows are, early and late."""
    if found is None or found["early"] is None or found["late"] is None:
        return []
    early, late = found["early"], found["late"]
    much = max(early, late) >= UNLIKE
    what = "so the last one says something of the next" if much else "so the last one says almost nothing of the next"
    return [
        f"The {found['stream']} of rows {count(found['apart'], 'step')} apart have a mean cosine of {early:.2f} in the "
        f"first third of the run and {late:.2f} in the last, {what}."
    ]


def bound(compare: Data) -> list[str]:
    """How far the front-end with the fewest bits is from the bound of the model, and where these bits go."""
    found = bit_saving(compare["rows"])
    if found is None:
        return []
    own = [row for row in compare["limits"] if row["setting"] == found.predictor and row["nmse"] and row["gap"]]
    if not own:
        return []
    row = min(own, key=lambda item: abs(math.log(item["nmse"] / found.nmse_target)))
    side = "above" if row["gap"] > 0 else "below"
    sentence = (
        f"At NMSE {row['nmse']:.2g}, {found.predictor} is {100 * abs(row['gap']):.1f} hundredths of a bit {side} the "
        f"bound of the model, {row['bound']:.3g} bits a coordinate"
    )
    parts = [f"{100 * row[name]:+.1f} {name}" for name in PARTS if row[name] is not None]
    return [f"{sentence}: {listing(parts)}." if parts else f"{sentence}."]

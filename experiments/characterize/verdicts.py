"""What a characterisation says: sentences, each made from numbers of a checked result."""

from collections import Counter
from collections.abc import Sequence

from ..measures import Data
from ..verdicts import count, listing, percent
from .advice import DEFAULT, RECOMMENDED, SCALES, TABLES
from .measures import (
    FACTS,
    Span,
    batches,
    check_bits,
    cosine,
    difference,
    effect,
    geometric_ratio,
    in_space,
    in_time,
    levers,
    marginal,
    rungs,
    span,
)

NOTHING = 0.02  # bits; less is called nothing
NEVER = 0.05  # of p-values, below which a test rejects
ALIKE = 0.1  # correlation from which on rows are called alike
STEADY = 0.1  # octaves of drift below which a scale is called steady
NAMES = {"gradients": "gradients", "updates": "updates", "pseudo_gradients": "pseudo-gradients"}
LEVERS = {
    "shape": "the best shape instead of a Gaussian, still i.i.d.,",
    "scale": "predicting each coordinate's scale, beyond that,",
    "mean": "predicting values from earlier rows",
    "vector": "coding neighbouring coordinates together",
}
FAMILY_NAMES = {
    "gaussian": "a Gaussian",
    "laplace": "a Laplace distribution",
    "generalised_gaussian": "a generalised Gaussian",
    "student_t": "Student's t",
    "scale_mixture": "a Gaussian scale mixture",
}
FACT_NAMES = {"optimizer": "optimiser", "batch_size": "batch size", "init": "initialisation"}
WAY_NAMES = {
    "rows": "entries of the same row",
    "columns": "entries of the same column",
    "kernels": "entries of the same kernel",
    "neighbours": "neighbours within a row",
}


def stream_name(stream: str) -> str:
    """What a stream is called in sentences."""
    return NAMES.get(stream, stream.replace("_", " "))


def capital(text: str) -> str:
    """A text with its first letter large."""
    return text[:1].upper() + text[1:]


def bits(value: float) -> str:
    """Bits with two decimals and their unit."""
    shown = f"{value:.2f}"
    return f"{shown} {'bit' if abs(value) <= 1 else 'bits'}"


def ranged(found: Span, digits: int = 2, unit: str = "") -> str:
    """A mean, with the ends over runs where there are several."""
    text = f"{found.mean:.{digits}f}{unit}"
    return text if found.num_runs < 2 else f"{text} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def headline(data: Data, stream: str) -> str:
    """Whether a stream is an i.i.d. Gaussian source, and what describes it if not."""
    name = capital(stream_name(stream))
    found = {lever.name: span(list(lever.bits.values())) for lever in levers(data, stream)}
    means = {lever: own.mean for lever, own in found.items() if own is not None}
    gap = span(list(marginal(data, stream, "gap").values()))
    worth = {lever: value for lever, value in means.items() if value >= NOTHING}
    if not worth and (gap is None or gap.mean < NOTHING):
        return (
            f"{name} obey an i.i.d. Gaussian source: nothing that was measured saves {bits(NOTHING)} a coordinate or "
            "more."
        )
    ranked = [lever for lever in LEVERS if lever in worth]
    costs = [f"{LEVERS[lever]} saves {bits(worth[lever])}" for lever in ranked]
    idle = [LEVERS[lever] for lever in LEVERS if lever in means and lever not in worth]
    text = f"{name} do not obey an i.i.d. Gaussian source. "
    if costs:
        text += (
            f"At fine resolution, a coordinate: {listing(costs)}. What earlier rows and vectors save does not add up "
            "with the rest."
        )
    if idle:
        text += f" Less than {bits(NOTHING)}: {listing(idle)}."
    return text.strip()


def shape(data: Data, stream: str) -> list[str]:
    """Which family fits the whole vector and single tensors, and how heavy the tails are."""
    rows = [row for row in data["marginals"] if row["stream"] == stream]
    whole = [row for row in rows if row["group"] == "all"]
    tensors = [row for row in rows if row["group"] == "tensor"]
    gap, kurtosis, top, zeros, beyond = (
        span(list(marginal(data, stream, name).values()))
        for name in ("gap", "kurtosis", "top_energy", "zeros", "beyond")
    )
    if not whole or gap is None:
        return []
    best, times = Counter(row["best"] for row in whole).most_common(1)[0]
    sentences = []
    if gap.mean < NOTHING:
        sentences.append(f"The whole vector is Gaussian within {bits(gap.mean)} a coordinate.")
    else:
        sentences.append(
            f"Over the whole vector a Gaussian takes {ranged(gap)} bits a coordinate more than the best family, which "
            f"is {FAMILY_NAMES[best]} in {times} of {count(len(whole), 'case')} (runs and phases)."
        )
    own = span([row["gap"] for row in tensors])
    if own is not None:
        kinds = Counter(row["best"] for row in tensors)
        leader, wins = kinds.most_common(1)[0]
        rejected = sum((row["p_gaussian"] or 0.0) < NEVER for row in tensors)
        accepted = sum((row["p_best"] or 0.0) >= NEVER for row in tensors)
        close = sum(row["gap"] is not None and row["gap"] < NOTHING for row in tensors)
        sentences.append(
            f"Within single tensors it takes {bits(own.mean)} more; {close} of {len(tensors)} are Gaussian within "
            f"{bits(NOTHING)}. Most often the best is {FAMILY_NAMES[leader]} ({percent(wins / len(tensors))}). A "
            f"Kolmogorov-Smirnov test rejects the Gaussian in {percent(rejected / len(tensors))} of them, and does not "
            f"reject the best family in {percent(accepted / len(tensors))}."
        )
    if kurtosis and top and zeros and beyond:
        heavy = "heavier than a Gaussian's" if kurtosis.mean > 1 else "about a Gaussian's"
        sentences.append(
            f"Tails are {heavy}: excess kurtosis {ranged(kurtosis, 0)}, {beyond.mean:.0f} times as many values beyond "
            f"four standard deviations; the largest hundredth of the values holds {percent(top.mean)} of the energy, "
            f"and {percent(zeros.mean)} are exactly zero."
        )
    return sentences


def scales(data: Data, stream: str) -> list[str]:
    """What knowing scales saves, level by level, and what is left."""
    sentences = []
    by_level = {
        level: rungs(data, stream, level, "best_bits") for level in ("vector", "tensor", "coordinate", "packet")
    }
    steps = []
    for first, then, what in (
        ("vector", "tensor", "one scale a tensor"),
        ("tensor", "coordinate", "a scale predicted for each coordinate from earlier rows"),
        ("coordinate", "packet", "correcting it by the part of the row that was already seen"),
    ):
        found = span(list(difference(by_level[first], by_level[then]).values()))
        if found is not None:
            verb = "saves" if found.mean >= NOTHING else "saves next to nothing," if found.mean > -NOTHING else "costs"
            steps.append(f"{what} {verb} {ranged(found)}")
    if steps:
        sentences.append(
            f"With the best shape at each level, in bits a coordinate at fine resolution: {listing(steps)}."
        )
    gap = span(list(marginal(data, stream, "gap").values()))
    left = span(list(rungs(data, stream, "packet", "gap").values()))
    if gap is not None and left is not None:
        if left.middle < NOTHING:
            sentences.append(f"Divided by the predicted scale, what is left is Gaussian within {bits(left.middle)}.")
        else:
            much = "most" if left.middle < 0.5 * gap.middle else "part" if left.middle < gap.middle else "none"
            sentences.append(
                f"Divided by the predicted scale, what is left is {bits(left.middle)} from Gaussian, against "
                f"{bits(gap.middle)} before (medians over runs): {much} of what is not Gaussian is a mixture of "
                "predictable scales."
            )
    rates = {level: span(list(rungs(data, stream, level, "rate").values())) for level in by_level}
    first, tensor, last = rates["vector"], rates["tensor"], rates["packet"]
    if first and tensor and last:
        sentences.append(
            f"At an error of {data['nmse']:g} of the energy Gaussians of these scales need {first.mean:.2f} bits a "
            f"coordinate with one scale, {tensor.mean:.2f} with one a tensor and {last.mean:.2f} with predicted ones."
        )
    return sentences


def in_rows(data: Data, stream: str) -> list[str]:
    """What neighbouring rows have in common and what that saves."""
    sentences = []
    lags = sorted({item["lag"] for row in data["time"] if row["stream"] == stream for item in row["lags"]})
    found = [(lag, span(list(cosine(data, stream, lag).values()))) for lag in lags]
    known = [(lag, own) for lag, own in found if own is not None]
    if known:
        lag, first = known[0]
        distance = "Neighbouring rows" if lag == 1 else f"Rows {lag} apart"
        verdict = (
            "are alike"
            if first.mean >= ALIKE
            else "oppose each other"
            if first.mean <= -ALIKE
            else "have little in common"
        )
        rest = listing([f"{own.mean:.2f} at {lag}" for lag, own in known[1:]])
        sentences.append(f"{distance} {verdict}: cosine {ranged(first)}" + (f"; {rest}." if rest else "."))
    equal = span(list(cosine(data, stream, 1, "autocorrelation").values()))
    momentum = span(list(in_time(data, stream, "momentum").values()))
    if equal and momentum:
        sentences.append(
            f"With every coordinate counted alike neighbours have {equal.mean:.2f}; the cosine of a row with the "
            f"running mean of those before it is {ranged(momentum)}."
        )
    updates = [span(list(in_time(data, stream, name).values())) for name in ("own_update", "last_update")]
    if updates[0] and updates[1]:
        sentences.append(
            f"A gradient has the cosine {ranged(updates[0])} with the descent step that the optimiser makes of it, and "
            f"{ranged(updates[1])} with the step before."
        )
    left, saved = (span(list(in_time(data, stream, name).values())) for name in ("nmse", "bits"))
    if left and saved:
        pays = "This pays" if saved.mean >= NOTHING else "This does not pay"
        sentences.append(
            f"The best causal combination of the last row and that mean leaves {ranged(left)} of the energy and saves "
            f"{ranged(saved)} bits a coordinate at fine resolution. {pays}."
        )
    return sentences


def batch(data: Data) -> list[str]:
    """What the batch size does to the likeness of neighbouring gradients, beside what the noise scale predicts."""
    sentences = []
    noise = span(list(in_time(data, "gradients", "noise_batch").values()))
    rows = [row for row in data["time"] if row["stream"] == "gradients" and row["noise_measured"] is not None]
    if noise is not None:
        lost = sum(row["noise_batch"] is None for row in rows)
        text = f"The gradient-noise scale is {ranged(noise, 0)} samples"
        sentences.append(
            text + (f"; in {lost} of {count(len(rows), 'case')} no signal stands out of the noise." if lost else ".")
        )
        own = [row for row in rows if row["noise_batch"] is not None]
        predicted, measured = (
            sum(row[name] for row in own) / len(own) for name in ("noise_predicted", "noise_measured")
        )
        near = abs(predicted - measured) <= 0.25 * max(abs(measured), ALIKE)
        side = "less" if predicted < measured else "more"
        verdict = "as it says" if near else f"{side} than is measured"
        sentences.append(
            f"It predicts a cosine of neighbouring gradients of {predicted:.2f} on average; {measured:.2f} is "
            f"measured: {verdict}."
        )
    found = batches(data)
    groups = {item.label: [own for own in found if own.label == item.label] for item in found}
    for label, own in groups.items():
        first, last = own[0], own[-1]
        grows = (
            "rises"
            if last.measured > first.measured + 0.02
            else "falls"
            if last.measured < first.measured - 0.02
            else "stays"
        )
        sentences.append(
            f"{capital(label)}: early, it {grows} from {first.measured:.2f} at batch {first.batch_size} to "
            f"{last.measured:.2f} at {last.batch_size}; s / (1 + s) from the former predicts {last.predicted:.2f}."
        )
    return sentences


def between(data: Data, stream: str) -> list[str]:
    """What coordinates of one row have in common and what that saves."""
    sentences = []
    for kind, what in (("magnitude", "Magnitudes"), ("value", "Values")):
        known = {way: span(list(in_space(data, stream, kind, way).values())) for way in WAY_NAMES}
        usable = {way: own for way, own in known.items() if own is not None}
        if usable:
            parts = [f"{own.mean:.2f} for {WAY_NAMES[way]}" for way, own in usable.items()]
            strong = max(own.mean for own in usable.values())
            verdict = "go together" if strong >= ALIKE else "are nearly uncorrelated"
            sentences.append(f"{what} of one row's coordinates {verdict}: {listing(parts)}.")
    saved, signs, rank = (
        span(list(in_space(data, stream, name).values())) for name in ("value_bits", "sign_bits", "rank_one")
    )
    if saved and signs and rank:
        verdict = (
            "is something for vectors to gain"
            if saved.mean >= NOTHING
            else "is nothing for vectors to gain beyond shape"
        )
        sentences.append(
            f"If values are Gaussian that is worth up to {ranged(saved)} bits a coordinate, and their signs "
            f"{bits(signs.mean)}, so there {verdict}. A matrix has {percent(max(0.0, rank.mean))} more of its energy "
            "along one direction than independent entries would have."
        )
    return sentences


def drift(data: Data, stream: str) -> list[str]:
    """How far scales move over the phases and what a table that does not follow loses."""
    rows = [row for row in data["drift"] if row["stream"] == stream and row["octaves"] is not None]
    if not rows:
        return []
    total = sum(row["size"] for row in rows)
    moved = sum(abs(row["octaves"]) * row["size"] for row in rows) / total
    upward = sum(row["octaves"] * row["size"] for row in rows) / total
    lost = sorted((row["bits"] or 0.0, row["size"]) for row in rows)
    middle, seen = 0.0, 0
    for value, size in lost:
        seen += size
        if 2 * seen >= total:
            middle = value
            break
    if moved < STEADY:
        return [f"Scales are steady: from the first phase to the last they move by {moved:.2f} octaves."]
    way = "upwards" if upward > STEADY else "downwards" if upward < -STEADY else "either way"
    return [
        f"Scales move {way}: by {moved:.2f} octaves from the first phase to the last, a mean over coordinates. A table "
        f"of the first phase would lose {bits(middle)} a coordinate in the last, in the median."
    ]


def effects(data: Data, stream: str) -> list[str]:
    """What optimiser, batch size and initialisation do, from runs that differ in nothing else."""
    numbers = (
        ("bits from Gaussian", marginal(data, stream, "gap")),
        ("cosine of neighbours", cosine(data, stream, 1)),
        ("bits saved by predicted scales", levers(data, stream)[1].bits),
    )
    sentences = []
    for fact in FACTS:
        parts, groups = [], 0
        for what, values in numbers:
            found = effect(data, fact, values)
            if found is not None:
                groups = found.groups
                spread = max(found.values.values()) - min(found.values.values())
                told = ", ".join(f"{value} {number:.2f}" for value, number in found.values.items())
                parts.append(f"{what} {'differ' if spread >= ALIKE else 'hardly differ'}: {told}")
        if parts:
            sentences.append(
                f"{capital(FACT_NAMES[fact])}, from {count(groups, 'group')} of runs that are otherwise alike: "
                f"{'; '.join(parts)}."
            )
    return sentences


def advice(data: Data, stream: str) -> list[str]:
    """The recommended settings, and what coding with them showed."""
    rows = [row for row in data["advice"] if row["stream"] == stream]
    if not rows:
        return []
    chosen = Counter(row["setting"] for row in rows).most_common()
    total = len(rows)
    named = [f"`{setting}`" + (f" ({times} of {total} runs)" if total > 1 else "") for setting, times in chosen]
    sentences = [f"Recommended for {stream_name(stream)}: {listing(named)}."]
    recommended, default = check_bits(data, stream, RECOMMENDED), check_bits(data, stream, DEFAULT)
    ratio = geometric_ratio(recommended, default)
    ours, theirs = span(list(recommended.values())), span(list(default.values()))
    if ratio is None or ours is None or theirs is None:
        return [*sentences, "Whether it holds was not tried: no stream was coded."]
    if ratio < 0.99:
        verdict = f"The recommendation holds: it takes {percent(1 - ratio)} less"
    elif ratio <= 1.01:
        verdict = "It takes as many bits as the default, within a hundredth"
    else:
        verdict = (
            "The recommendation does not hold, and the default is the better choice: it takes "
            f"{percent(ratio - 1)} more"
        )
    seconds = _seconds(data, stream, RECOMMENDED), _seconds(data, stream, DEFAULT)
    sentences.append(
        f"Coded at an error of {data['nmse']:g}: {ours.mean:.3f} bits a coordinate with it, {theirs.mean:.3f} with the "
        f"default here, `CodecConfig(lattice='Z')`. {verdict} (geometric mean over runs), in "
        f"{seconds[0] / seconds[1]:.2f} times the seconds."
    )
    tables, predicted = check_bits(data, stream, TABLES), check_bits(data, stream, SCALES)
    by_scale, by_mean = geometric_ratio(predicted, tables), geometric_ratio(default, predicted)
    if by_scale is not None and by_mean is not None:
        sentences.append(
            f"In the codec, predicted scales make {by_scale:.2f} of the bits of one table a tensor, and prediction of "
            f"values {by_mean:.2f} of those."
        )
    return sentences


def _seconds(data: Data, stream: str, name: str) -> float:
    rows = [row for row in data["checks"] if row["stream"] == stream and row["name"] == name]
    return max(1e-9, sum(row["seconds"] or 0.0 for row in rows) / max(1, len(rows)))


def about(data: Data) -> str:
    """What was looked at."""
    runs: Sequence[Data] = data["runs"]
    tasks = sorted({f"{run['task'] or 'unknown task'}, {run['network'] or 'unknown network'}" for run in runs})
    sizes = [run["num_parameters"] for run in runs]
    extent = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    return f"{capital(count(len(runs), 'run'))} with {extent} parameters: {'; '.join(tasks)}."

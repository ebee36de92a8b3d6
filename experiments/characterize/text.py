"""The text about a characterisation: Markdown of verdicts and tables."""

from .. import markdown
from ..measures import Data
from .advice import DEFAULT, RECOMMENDED, SCALES, TABLES
from .marginals import FAMILIES
from .measures import (
    check_bits,
    cosine,
    in_space,
    in_time,
    levers,
    marginal,
    of_runs,
    rungs,
    span,
    streams,
)
from .scales import LEVELS
from .verdicts import (
    about,
    advice,
    batch,
    between,
    capital,
    drift,
    effects,
    headline,
    in_rows,
    scales,
    shape,
    stream_name,
)

NONE = "-"
NOTES = (
    "Bits are a coordinate's, fine resolution means cells of 1/256 of the root mean square; everything is fitted to "
    "some rows and coordinates and judged on others. Ranges in brackets are over runs, of means over phases. Phases "
    "are thirds of a stream's rows."
)


def as_text(data: Data) -> str:
    """The whole characterisation as Markdown that can be read as it is."""
    parts = ["# What the streams are like", about(data), *(headline(data, stream) for stream in streams(data)), NOTES]
    for stream in streams(data):
        parts.append(f"## {capital(stream_name(stream))}")
        parts += stream_parts(data, stream)
    batches_found = batch(data)
    if batches_found:
        parts += ["## Batch size and noise", " ".join(batches_found)]
    parts += ["## Runs", run_table(data)]
    return "\n\n".join(parts) + "\n"


def stream_parts(data: Data, stream: str, level: int = 3) -> list[str]:
    """Sentences and tables about one stream.

    Args:
        data: of the result.
        stream: one of its streams.
        level: of the headings.
    """
    mark = "#" * level
    sections = (
        ("Shape", shape(data, stream), family_table(data, stream)),
        ("Scale", scales(data, stream), scale_table(data, stream)),
        ("In time", in_rows(data, stream), ""),
        ("Between coordinates", between(data, stream), ""),
        ("Over training", drift(data, stream), kind_table(data, stream)),
        ("What the runs differ in", effects(data, stream), ""),
        ("Codec", advice(data, stream), check_table(data, stream)),
    )
    parts: list[str] = []
    for title, sentences, table in sections:
        if sentences:
            parts += [f"{mark} {title}", " ".join(sentences)]
            parts += [table] if table else []
    return parts


def family_table(data: Data, stream: str) -> str:
    """Bits of each family beyond the best, by group of coordinates."""
    rows = [row for row in data["marginals"] if row["stream"] == stream]
    table = []
    for title, group in (("whole vector", "all"), ("kinds of tensor", "kind"), ("tensors", "tensor")):
        own = [row for row in rows if row["group"] == group]
        if own:
            cells = [title]
            for family in FAMILIES:
                excess = [row["bits"][family] - min(row["bits"].values()) for row in own]
                cells.append(_number(sum(excess) / len(excess)))
            table.append(cells)
    return markdown.table(["bits more than the best", *(name.replace("_", " ") for name in FAMILIES)], table)


def scale_table(data: Data, stream: str) -> str:
    """The ladder of scales."""
    table = []
    for level in LEVELS:
        best, gap, rate = (
            span(list(rungs(data, stream, level, name).values())) for name in ("best_bits", "gap", "rate")
        )
        cells = [best.mean if best else None, gap.middle if gap else None, rate.mean if rate else None]
        table.append([level, *(_number(value) for value in cells)])
    heads = ["scale known by", "bits", "left from Gaussian (median)", f"Gaussian's bits at error {data['nmse']:g}"]
    return markdown.table(heads, table)


def kind_table(data: Data, stream: str) -> str:
    """Each kind of tensor in each phase: distance from a Gaussian, kurtosis, scale."""
    rows = [row for row in data["marginals"] if row["stream"] == stream and row["group"] == "kind"]
    table = []
    for key in dict.fromkeys((row["name"], row["phase"]) for row in rows):
        own = [row for row in rows if (row["name"], row["phase"]) == key]
        means = [span([row[name] for row in own]) for name in ("gap", "kurtosis", "zeros", "top_energy", "rms")]
        texts = [
            f"{found.mean:.{digits}g}" if found else NONE for found, digits in zip(means, (2, 3, 2, 2, 3), strict=True)
        ]
        table.append([*key, *texts])
    return markdown.table(
        ["kind", "phase", "bits from Gaussian", "kurtosis", "zeros", "top 1 % energy", "rms"], table, 2
    )


def check_table(data: Data, stream: str) -> str:
    """What the codec took with each settings, means over runs."""
    table = []
    for name in (TABLES, SCALES, DEFAULT, RECOMMENDED):
        own = [row for row in data["checks"] if row["stream"] == stream and row["name"] == name]
        if own:
            found = [span([row[key] for row in own]) for key in ("bits", "nmse", "seconds")]
            table.append([name, *(f"{item.mean:.3f}" if item else NONE for item in found)])
    return markdown.table(["settings", "bits", "error", "seconds a packet"], table) if table else ""


def run_table(data: Data) -> str:
    """Every run and stream in a line."""
    table = []
    for stream in streams(data):
        saved = {lever.name: lever.bits for lever in levers(data, stream)}
        columns = [
            marginal(data, stream, "kurtosis"),
            marginal(data, stream, "gap"),
            saved["scale"],
            saved["shape"],
            cosine(data, stream, 1),
            in_time(data, stream, "bits"),
            in_space(data, stream, "value", "neighbours"),
            check_bits(data, stream, DEFAULT),
            check_bits(data, stream, RECOMMENDED),
        ]
        known = of_runs([row for row in data["scales"] if row["stream"] == stream], lambda row: row["rate"])
        for number, run in enumerate(data["runs"]):
            if number in known:
                facts = [run["task"], run["network"], run["optimizer"], run["batch_size"], run["init"]]
                cells = [NONE if fact is None else str(fact) for fact in facts]
                table.append([stream_name(stream), *cells, *(_number(column.get(number)) for column in columns)])
    heads = ["stream", "task", "network", "optimiser", "batch", "init", "kurtosis", "bits from Gaussian"]
    heads += ["scale saves", "shape saves", "cosine", "mean saves", "neighbours", "default bits", "recommended bits"]
    return markdown.table(heads, table, 6)


def _number(value: float | None) -> str:
    """Two decimals; none from 100 on, where they mean nothing."""
    if value is None:
        return NONE
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"

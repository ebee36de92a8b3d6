"""The section of a report about front-ends, other coders and forecasters on one recorded run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import verdicts
from ..compare_limits import MODEL
from ..figures import rate_distortion, skill_by_horizon
from ..results import Result
from ..verdicts import megabytes, percent
from . import html as web
from .sentences import PARTS, bound
from .summary import titled


def compare_section(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
    """Forecast skill and bits; figures are written into `folder`."""
    data, parts = result.data, []
    if data["skill"]:
        caption = "Skill of each forecaster on steps that it was not fitted to. Above the dashed line is useful."
        horizons = sorted({row["horizon"] for row in data["skill"]})
        skill = {(row["forecaster"], row["horizon"]): row["skill"] for row in data["skill"]}
        grid = [
            [name, *(web.number(skill.get((name, horizon)), "+.3f") for horizon in horizons)]
            for name in dict.fromkeys(row["forecaster"] for row in data["skill"])
        ]
        columns = ["forecaster", "horizon", "skill", "within one scale", "cases", "ms a forecast"]
        rows = [
            [
                row["forecaster"],
                row["horizon"],
                web.number(row["skill"], "+.3f"),
                web.DASH if row["coverage"] is None else percent(row["coverage"]),
                web.number(row["num_cases"], ""),
                web.DASH if row["seconds_per_forecast"] is None else f"{1000 * row['seconds_per_forecast']:.3g}",
            ]
            for row in data["skill"]
        ]
        parts += [
            f"<h2>{web.escape(titled('Forecast skill', result, results))}</h2>",
            "<p>Skill is 1 - MSE / MSE of standing still: 1 is perfect, 0 no better than the last row, below 0 worse. "
            "&ldquo;Within one scale&rdquo; would be 68 % if errors were Gaussian and the expected error right.</p>",
            web.figures([web.svg_of(skill_by_horizon(data["skill"], folder / "skill"), caption)]),
            web.table(["skill", *(f"{horizon} ahead" for horizon in horizons)], grid),
            web.folded("With coverage and cost", web.table(columns, rows)),
        ]
        if data["skill_per_tensor"]:
            per_tensor = [
                [row["forecaster"], row["tensor"], row["horizon"], web.number(row["skill"], "+.3f")]
                for row in data["skill_per_tensor"]
            ]
            detail = web.table(["forecaster", "tensor", "horizon", "skill"], per_tensor, 2)
            parts.append(web.folded("The same within each tensor", detail))
    caption = "Below: bits more or fewer than without prediction. Lower is better."
    columns = ["NMSE asked", "NMSE made", "bits a coordinate", "size", "encode (s)", "decode (s)"]
    rows = [[row["predictor"], *_cost(row)] for row in data["rows"]]
    others: list[str] = []
    if data["references"]:
        caption += " Grey and dotted: other coders, at settings of their own. The front-ends are all of lattice Z."
        table = [[row["reference"], row["setting"] or web.DASH, *_cost(row)] for row in data["references"]]
        others = [
            "<h3>Other coders</h3>",
            "<p>Each at settings of its own and without error feedback, so that errors of single packets are compared. "
            "default is this codec as it is when nothing is configured, which chooses between lattices Z and E8; the "
            "front-ends above are all of lattice Z. tensor_tables is this codec without prediction and with one "
            "probability table for each tensor. The other coders' packets carry no checksum and no digests.</p>",
            web.table(["coder", "setting", *columns], table, 2),
        ]
    if data["limits"]:
        caption += f" Black: the bound of independent coordinates, {MODEL}."
        columns_of_limits = ["coder", "setting", "NMSE made", "bits", "bound"]
        columns_of_limits += [f"{name} (1/100 bit)" for name in ("above it", *PARTS)]
        table = [
            [
                row["coder"],
                row["setting"] or web.DASH,
                *(web.number(row[name]) for name in ("nmse", "bits", "bound")),
                *(web.DASH if row[name] is None else f"{100 * row[name]:+.1f}" for name in ("gap", *PARTS)),
            ]
            for row in data["limits"]
        ]
        others.append(web.folded("How far from the bound, and why", web.table(columns_of_limits, table, 2)))
    packets = verdicts.count(data["num_packets"], "packet")
    coordinates = verdicts.count(data["num_coordinates"], "coordinate")
    newest = ", its newest rows," if data["options"].get("packets") is not None else ""
    text = f"The stream {data['stream']}{newest} coded as {packets} of {coordinates}."
    picture = rate_distortion(data["rows"], folder / "rate_distortion", data["references"], data["limits"])
    return [
        *parts,
        f"<h2>{web.escape(titled('Codec', result, results))}</h2>",
        f"<p>{web.escape(text)} Bits are counted from the length of the packets, headers included.</p>",
        web.paragraphs(bound(data)),
        web.figures([web.svg_of(picture, caption)]),
        web.table(["front-end", *columns], rows),
        *others,
    ]


def _cost(row: Mapping[str, Any]) -> list[str]:
    return [
        web.number(row["nmse_target"]),
        web.number(row["nmse"]),
        web.number(row["bits_per_coordinate"]),
        megabytes(row["bytes"]),
        web.number(row["encode_seconds"]),
        web.number(row["decode_seconds"]),
    ]

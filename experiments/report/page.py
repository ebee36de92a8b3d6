"""The page of a report, section by section."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import verdicts
from ..characterize.report import characterize_section
from ..figures import jump_timeline, ledger_bars, loss_curve, pca_path, race_curves, rate_distortion, skill_by_horizon
from ..results import Result
from ..verdicts import arm_name, megabytes, percent
from . import html as web
from .corpus import corpus_section
from .forecasters import fit_section, score_section
from .summary import conclusion, jumping_arms, run_seconds, summary, titled

MAX_JUMP_ROWS = 500


def make_page(results: Sequence[Result], folder: Path) -> str:
    """The page about some results.

    Args:
        results: at least one.
        folder: where its figures are written.
    """
    sections = summary(results)
    parts = [
        "<h1>deadreckon: what forecasting a training run was worth</h1>",
        f'<p class="soft">{web.escape(_made(results))}</p>',
        f'<div class="summary"><p class="verdict">{web.escape(conclusion(results))}</p>'
        + "".join(f"<h3>{web.escape(item.title)}</h3>{web.paragraphs(item.sentences)}" for item in sections)
        + "</div>",
    ]
    writers = {
        "record": _record,
        "corpus": corpus_section,
        "fit": fit_section,
        "score": score_section,
        "compare": _compare,
        "characterize": characterize_section,
        "race": _race,
    }
    for index, result in enumerate(results):
        parts += writers[result.kind](result, results, folder / f"{index + 1}_{result.kind}")
    parts += _recompute(results)
    parts += _environment(results)
    attributions = dict.fromkeys(result.data.get("attribution") for result in results)
    parts.append("<h2>Data</h2>" + "".join(f"<p>{web.escape(text)}</p>" for text in attributions if text))
    content = [
        {"path": str(item.path), "kind": item.kind, "data": item.data, "environment": item.environment}
        for item in results
    ]
    parts.append(web.embedded_json(content))
    return web.page("deadreckon report", parts)


def _made(results: Sequence[Result]) -> str:
    dates = sorted({str(result.environment["date"])[:10] for result in results if result.environment["date"]})
    return f"Made from {verdicts.count(len(results), 'result')}" + (f" of {verdicts.listing(dates)}." if dates else ".")


def _figure(png: Path, caption: str) -> tuple[Path, str]:
    return png.with_suffix(".svg"), caption


def _record(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
    data = result.data
    pictures = [
        _figure(
            loss_curve(data["loss_curve"], data["jumps"], folder / "loss_curve"),
            "Training loss of each batch, and its running median.",
        )
    ]
    if data["pca"] is not None and data["pca"]["points"]:
        caption = "The weights over the run, projected on the plane in which they moved most."
        pictures.append(_figure(pca_path(data["pca"], data["jumps"], folder / "pca_path"), caption))
    if data["ledger"]:
        caption = "Where the run's time went."
        pictures.append(_figure(ledger_bars(data["ledger"], data["wall_seconds"], folder / "ledger"), caption))
    streams = [
        [name, stream["rows"], stream["every"], megabytes(stream["bytes"])] for name, stream in data["streams"].items()
    ]
    parts = [
        f"<h2>{web.escape(titled('Recorded run', result, results))}</h2>",
        web.figures(pictures),
        web.table(["stream", "rows", "every (steps)", "size"], streams),
    ]
    if data["online"]:
        columns = ["forecaster", "step", "horizon", "skill", "fit (s)"]
        rows = [
            [
                row["forecaster"],
                row["step"],
                row["horizon"],
                web.number(row["skill"], "+.3f"),
                _time(row["fit_seconds"]),
            ]
            for row in data["online"]
        ]
        parts.append(web.folded("Scores taken while it ran", web.table(columns, rows)))
    if data["jumps"]:
        parts.append(_jump_table(data["jumps"]))
    return parts


def _compare(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
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
            web.figures([_figure(skill_by_horizon(data["skill"], folder / "skill"), caption)]),
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
        caption += " Grey and dotted: coders that are not ours, at settings of their own."
        table = [[row["reference"], row["setting"] or web.DASH, *_cost(row)] for row in data["references"]]
        others = [
            "<h3>Other coders</h3>",
            "<p>Each at settings of its own and without error feedback, so that errors of single packets are compared. "
            "tensor_tables is this codec without prediction and with one probability table for each tensor. The other "
            "coders' packets carry no checksum and no digests.</p>",
            web.table(["coder", "setting", *columns], table, 2),
        ]
    packets = verdicts.count(data["num_packets"], "packet")
    coordinates = verdicts.count(data["num_coordinates"], "coordinate")
    text = f"The stream {data['stream']}, coded as {packets} of {coordinates}."
    return [
        *parts,
        f"<h2>{web.escape(titled('Codec', result, results))}</h2>",
        f"<p>{web.escape(text)} Bits are counted from the length of the packets, headers included.</p>",
        web.figures([_figure(rate_distortion(data["rows"], folder / "rate_distortion", data["references"]), caption)]),
        web.table(["front-end", *columns], rows),
        *others,
    ]


def _cost(row: Mapping[str, Any]) -> list[str]:
    return [
        web.number(row["nmse_target"]),
        web.number(row["nmse"]),
        web.number(row["bits_per_coordinate"]),
        megabytes(row["bytes"]),
        _time(row["encode_seconds"]),
        _time(row["decode_seconds"]),
    ]


def _race(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
    data = result.data
    arms = jumping_arms(data)
    jumps = [jump for arm in arms for jump in arm["jumps"]]
    ledger: dict[str, dict[str, float]] = {}
    for arm in arms:
        for name, cost in arm["ledger"].items():
            total = ledger.setdefault(name, {"wall_seconds": 0.0, "cpu_seconds": 0.0, "count": 0})
            for key in total:
                total[key] += cost[key] or 0
    pictures = [
        _figure(race_curves(data["arms"], data["target"], folder / "race"), "Thin: each seed. Thick: their median."),
        _figure(jump_timeline(jumps, folder / "jumps"), "Every opportunity to jump, all seeds side by side."),
        _figure(
            ledger_bars(ledger, run_seconds(arms), folder / "ledger"), "Where the time of the runs with jumps went."
        ),
    ]
    columns = ["arm", "seed", "reached", "steps", "CPU (s)", "wall (s)", "gradient evaluations", "final test loss"]
    rows = [
        [
            arm_name(arm["name"]),
            arm["seed"],
            "yes" if arm["reached"] else "no",
            web.number(arm["steps_to_target"], ""),
            _time(arm["cpu_seconds_to_target"]),
            _time(arm["wall_seconds_to_target"]),
            web.number(arm["gradient_evaluations_to_target"], ".0f"),
            web.number(arm["final"]["test_loss"], ".4f"),
        ]
        for arm in data["arms"]
    ]
    costs = [
        [name, int(cost["count"]), _time(cost["wall_seconds"]), _time(cost["cpu_seconds"])]
        for name, cost in ledger.items()
    ]
    forecaster = f" Jumps were proposed by {data['forecaster']}." if data["forecaster"] else ""
    text = f"{data['network']} on {data['task']}, to a {verdicts.target(data)}.{forecaster}"
    return [
        f"<h2>{web.escape(titled('Race', result, results))}</h2>",
        f"<p>{web.escape(text)} Costs in the table are up to the first measurement that reached it.</p>",
        web.figures(pictures),
        web.table(columns, rows),
        "<h3>Ledger of the runs with jumps</h3>",
        web.table(["activity", "times", "wall (s)", "CPU (s)"], costs),
        _jump_table(jumps),
    ]


def _jump_table(jumps: Sequence[Mapping[str, Any]]) -> str:
    columns = ["outcome", "step", "horizon", "loss before", "loss after", "margin", "credited steps", "regime"]
    rows = [
        [
            str(jump.get("meaning", jump["outcome"])),
            jump["step"],
            jump["horizon"],
            web.number(jump["loss_before"], ".4f"),
            web.number(jump["loss_after"], ".4f"),
            web.number(jump["margin"], "+.2g"),
            web.number(jump["credited"], "+.3g"),
            str(jump["regime"]),
        ]
        for jump in jumps[:MAX_JUMP_ROWS]
    ]
    left = len(jumps) - len(rows)
    title = "Every opportunity to jump" + (f" (the last {left} are in the data only)" if left else "")
    return web.folded(title, web.table(columns, rows))


def _time(value: float | None) -> str:
    return web.number(value, ".3g")


def _recompute(results: Sequence[Result]) -> list[str]:
    """How to get these numbers again."""
    commands = [_command(result) for result in results if result.data["options"]]
    files = [str(result.path) for result in results]
    text = (
        "<h2>How to recompute</h2><p>Every number on this page comes from the files below; they are embedded in it, "
        "too, as JSON in the element with the id <code>results</code>. Seconds differ from run to run, and with "
        "them the fits that a share of the run's time limits; with the same versions and processor the other numbers "
        "should not.</p>"
    )
    return [text, web.code(files), *([web.code(commands)] if commands else [])]


def _command(result: Result) -> str:
    """The command line that makes a result again."""
    words = ["deadreckon", result.kind]
    for name, value in result.data["options"].items():
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        words.append(f"--{name}={text}")
    return shlex.join(words)


def _environment(results: Sequence[Result]) -> list[str]:
    rows = []
    for result in results:
        found = result.environment
        packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
        rows.append(
            [
                result.path.parent.name,
                found["date"] or web.DASH,
                found["python"] or web.DASH,
                found["platform"] or web.DASH,
                f"{found['num_cpus']} ({found['num_threads']} threads)",
                packages,
            ]
        )
    return ["<h2>Environment</h2>", web.table(["result", "date", "Python", "platform", "CPUs", "packages"], rows, 6)]

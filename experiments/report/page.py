"""The page of a report, section by section."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from .. import verdicts
from ..characterize.report import characterize_section
from ..results import Result
from ..sweep.report import sweep_section
from . import html as web
from .compared import compare_section
from .corpus import corpus_section
from .forecasters import fit_section, score_section
from .glance import glance, glance_cards
from .raced import race_section
from .recorded import record_section
from .side_by_side import side_by_side
from .summary import conclusion, summary, titled


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
        f'<div class="summary"><p class="verdict">{web.escape(conclusion(results))}</p></div>',
        glance_cards(glance(results)),
        '<div class="summary all">'
        + "".join(
            f"<section><h3>{web.escape(item.title)}</h3>{web.paragraphs(item.sentences)}</section>" for item in sections
        )
        + "</div>",
    ]
    writers = {
        "record": record_section,
        "corpus": corpus_section,
        "fit": fit_section,
        "score": score_section,
        "compare": compare_section,
        "characterize": characterize_section,
        "race": race_section,
        "sweep": lambda one, every, where: sweep_section(one, titled("Sweep", one, every), where),
    }
    parts += side_by_side(results, folder / "side_by_side")
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

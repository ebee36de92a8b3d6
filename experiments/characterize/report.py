"""The section of a report about what recorded streams are like."""

from collections.abc import Sequence
from pathlib import Path

from ..measures import Data
from ..report import html as web
from ..report.summary import titled
from ..results import Result
from .figures import characterize_figures
from .measures import streams
from .text import NOTES
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


def characterize_section(result: Result, results: Sequence[Result], folder: Path) -> list[str]:
    """What the streams of some runs are like; figures are written into `folder`."""
    data = result.data
    pictures = characterize_figures(data, folder)
    parts = [
        f"<h2>{web.escape(titled('What the streams are like', result, results))}</h2>",
        web.paragraphs([about(data), NOTES]),
        web.figures([(png.with_suffix(".svg"), caption) for png, caption in pictures]),
    ]
    for stream in streams(data):
        parts.append(f"<h3>{web.escape(capital(stream_name(stream)))}</h3>{web.paragraphs(_sentences(data, stream))}")
    noise = batch(data)
    if noise:
        parts.append(f"<h3>Batch size and noise</h3>{web.paragraphs(noise)}")
    return parts


def _sentences(data: Data, stream: str) -> list[str]:
    """A paragraph for each of the questions."""
    asked = (shape, scales, in_rows, between, drift, effects, advice)
    return [headline(data, stream), *(" ".join(found) for ask in asked if (found := ask(data, stream)))]

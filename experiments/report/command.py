"""`deadreckon report`: one self-contained page, and its sentences on the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..errors import ResultError
from ..files import write_whole
from ..options import ReportOptions
from ..results import read_result
from .page import make_page
from .summary import Section, conclusion, summary

FILE_NAME = "report.html"
MAX_RUNS = 50


def run(options: ReportOptions) -> None:
    """Read results, write `report.html` with its figures beside it, and print the summary.

    Raises:
        FileNotFoundError: if a folder holds no result.
        ResultError: if a result cannot be read.
    """
    if len(options.runs) > MAX_RUNS:
        raise ResultError(f"A report takes at most {MAX_RUNS} results, got {len(options.runs)}.")
    results = [read_result(path) for path in options.runs]
    out = Path(options.out)
    path = out / FILE_NAME
    write_whole(path, make_page(results, out / "figures"))
    _print(summary(results), conclusion(results), path)


def _print(sections: Sequence[Section], verdict: str, path: Path) -> None:
    console = Console()
    for section in sections:
        console.print(Text(f"\n{section.title}", style="bold"))
        for sentence in section.sentences:
            console.print(Padding(Text(sentence), (0, 0, 0, 2)))
    console.print(Text(f"\n{verdict}", style="bold"))
    console.print(Text(f"Report: {path}"), soft_wrap=True)

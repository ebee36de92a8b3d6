"""A progress display for loops."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_Item = TypeVar("_Item")


def tracked(items: Sequence[_Item], what: str, show: bool) -> Iterator[_Item]:
    """The items, with a bar on standard error that says how many of them are done."""
    if not show:
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        iterable: Iterable[_Item] = progress.track(items, description=what)
        yield from iterable

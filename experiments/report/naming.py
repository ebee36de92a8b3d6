"""Short names for results: of their folders, as much of the path as tells them apart."""

from collections.abc import Sequence

from ..results import Result


def names_of(results: Sequence[Result]) -> list[str]:
    """A name for each result, in order: its folder's, with the folders above it as far as two would be equal."""
    parts = [result.path.parent.parts for result in results]
    names: list[str] = []
    for own in parts:
        depth = 1
        while depth < len(own) and sum(other[-depth:] == own[-depth:] for other in parts) > 1:
            depth += 1
        names.append("/".join(own[-depth:]))
    return names

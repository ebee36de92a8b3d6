"""Rows of a long measurement, kept in a file of JSON lines so that it may stop and go on."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def rows_of(path: Path) -> list[Row]:
    """All rows of a file that were written whole; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def measure_missing(
    path: Path, cases: Iterable[Mapping[str, Any]], measure: Callable[..., Row], minutes: float
) -> list[Row]:
    """The rows of all cases that are known; new ones are measured until the time is up.

    Args:
        path: of the file.
        cases: what `measure` takes by name; a row begins with its case.
        measure: gives the rest of a row.
        minutes: after which no new case is begun.
    """
    cases = [dict(case) for case in cases]
    known = {json.dumps({key: row.get(key) for key in case}): row for row in rows_of(path) for case in cases[:1]}
    end = time.monotonic() + 60 * minutes
    found: list[Row] = []
    for case in cases:
        name = json.dumps(case)
        if name not in known:
            if time.monotonic() > end:
                continue
            known[name] = case | measure(**case)
            with path.open("a") as file:
                file.write(json.dumps(known[name]) + "\n")
            print(json.dumps(known[name]), flush=True)
        found.append(known[name])
    return found

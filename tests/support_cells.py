"""The recorder's support matrix: which settings there are, which cells are tested, and the table in the docs."""

import itertools
from typing import Any

AXES: dict[str, tuple[Any, ...]] = {
    "precision": ("32-true", "bf16-mixed", "bf16-true", "16-mixed"),
    "strategy": ("one device", "ddp", "model-parallel"),
    "optimizer": ("SGD", "Adam", "AdamW", "Muon", "Adan", "AdamP", "Schedule-Free"),
    "accumulate": (1, 2),
    "compile": (False, True),
}
# AdamP calls an in-place operation that DTensor does not have, with or without a recorder.
IMPOSSIBLE = {(("strategy", "model-parallel"), ("optimizer", "AdamP"))}

Cell = dict[str, Any]


def _pairs(cell: Cell) -> set[tuple[tuple[str, Any], tuple[str, Any]]]:
    return set(itertools.combinations(cell.items(), 2))


def all_cells() -> list[Cell]:
    """Every cell that can run at all."""
    cells = [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())]
    return [cell for cell in cells if not _pairs(cell) & IMPOSSIBLE]


def covering() -> list[Cell]:
    """Cells in which every possible pair of settings occurs: always the one with most pairs that were not there yet."""
    cells = all_cells()
    missing = set().union(*map(_pairs, cells))
    chosen: list[Cell] = []
    while missing:
        best = max(cells, key=lambda cell: len(_pairs(cell) & missing))
        chosen.append(best)
        missing -= _pairs(best)
    return chosen


def table() -> str:
    """The tested cells as a table."""
    lines = ["| precision | strategy | optimiser | accumulation | compiled |", "|---|---|---|---|---|"]
    for cell in covering():
        compiled = "yes" if cell["compile"] else "no"
        row = (cell["precision"], cell["strategy"], cell["optimizer"], str(cell["accumulate"]), compiled)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)

"""The recorder's support matrix: every tested cell, and the table that tells of them."""

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support_cells import AXES, IMPOSSIBLE, covering, table

TESTS = Path(__file__).parent
PACKAGES = {"Adan": "adan_pytorch", "AdamP": "adamp", "Schedule-Free": "schedulefree"}


def test_the_tested_cells_cover_every_pair() -> None:
    """At most 40 cells hold every pair of settings but the impossible one."""
    cells = covering()
    assert len(cells) <= 40
    for (first, ones), (second, others) in itertools.combinations(AXES.items(), 2):
        for one, other in itertools.product(ones, others):
            if ((first, one), (second, other)) not in IMPOSSIBLE:
                assert any(cell[first] == one and cell[second] == other for cell in cells)


def test_the_table_in_the_docs_is_what_is_tested() -> None:
    """docs/support-matrix.md lists the tested cells, no more and no fewer."""
    assert table() in (TESTS.parent / "docs" / "support-matrix.md").read_text()


@pytest.mark.slow
def test_every_cell_of_the_matrix(tmp_path: Path) -> None:
    """In each cell a recorded run equals an unrecorded one, bit for bit, and the rows are what they say.

    Cells whose optimiser's package is not installed are left out, but not in continuous integration.
    """
    there = {name: importlib.util.find_spec(home) is not None for name, home in PACKAGES.items()}
    if os.environ.get("DEADRECKON_REQUIRE_DATA"):
        assert all(there.values()), there
    cells = [cell for cell in covering() if there.get(cell["optimizer"], True)]
    cells = [cell | {"world": 1 if cell["strategy"] == "one device" else 2} for cell in cells]
    results = run_cells(cells, tmp_path)
    assert [item["cell"] for item in results] == cells
    assert [item for item in results if item["wrong"]] == []


@pytest.mark.slow
def test_ranks_have_gradients_and_states_of_their_own(tmp_path: Path) -> None:
    """Under DDP the gradient is the mean of the ranks' own, and each rank goes on from its own state."""
    cell = {"precision": "32-true", "strategy": "ddp", "optimizer": "Adam", "compile": False, "world": 2, "ranks": True}
    results = run_cells([cell | {"accumulate": 1}, cell | {"accumulate": 2}], tmp_path)
    assert [item["wrong"] for item in results] == ["", ""]


def run_cells(cells: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What the script says of each cell."""
    command = [sys.executable, str(TESTS / "recorded_cells.py"), json.dumps(cells), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, timeout=600, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

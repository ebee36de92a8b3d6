"""Kill -9 while a Trainer records: what was committed is exact, the rest is cut with one line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_trainer import STEPS, STREAMS

from deadreckon.forecast import Trajectory

KILLS = 50


@pytest.mark.slow
def test_a_trainer_killed_at_fifty_moments(tmp_path: Path) -> None:
    """After SIGKILL at a random moment every committed row equals that of an undisturbed run; the next writer cuts."""
    command = [sys.executable, str(Path(__file__).parent / "killed_trainer.py"), str(tmp_path), str(KILLS), "7"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, timeout=600, check=True)
    killed = [line.split()[1] for line in done.stdout.splitlines() if line.split()[0].isdecimal()]
    assert len(killed) == KILLS
    assert killed.count("True") >= KILLS - 5  # a few may have come to their end before
    with Trajectory.open(tmp_path / "whole") as whole:
        expected = {name: whole.stream(name)[:] for name in STREAMS}
        loss = whole.scalars["loss"].values
        assert len(expected["weights"]) == STEPS + 1
    lengths: set[int] = set()
    cut = 0
    for number in range(KILLS):
        path = tmp_path / str(number)
        found = Trajectory.open(path)
        found.verify()
        steps = found.stream("weights").steps
        assert steps.tolist() == list(range(len(steps)))
        for name, rows in expected.items():
            stream = found.stream(name)
            assert len(stream) in (len(steps), len(steps) - 1)
            np.testing.assert_array_equal(stream[:], rows[: len(stream)])
        if "loss" in found.scalars:
            np.testing.assert_array_equal(found.scalars["loss"].values, loss[: len(found.scalars["loss"])])
        lengths.add(len(steps))
        with Trajectory.open(path, "a") as again:
            assert again.digest == found.digest
            cut += bool(again.notice)
            assert again.notice.count("\n") == 0
            for name in STREAMS:
                left = sorted(int(entry.name) for entry in (path / name / "c").iterdir())
                assert left == list(range(len(again.stream(name))))
    assert len(lengths) > 10
    print(f"{KILLS} kills, {len(lengths)} lengths, {cut} with something to cut")

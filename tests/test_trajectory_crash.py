"""Kill -9 while a trajectory is written: what was committed is exact, and the rest is gone."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from deadreckon.forecast import zarr_metadata, zarr_rows
from deadreckon.forecast.layout import Layout, TensorSpec
from deadreckon.forecast.trajectory import Trajectory

SIZE = 300_000
SEED = 7

LAYOUT = Layout((TensorSpec("w", (SIZE,), "float32", 0, "weight"),))

# Appends as fast as it can: weights every step, gradients every second, an event every fifth, a resume now and then;
# it says what it is sure of only after the call has returned. It takes the store's files as a package without the
# real `__init__`, which would import torch first.
CHILD = f"""
import sys, types
package = types.ModuleType("lean")
package.__path__ = [{str(Path(zarr_rows.__file__).parent)!r}]
sys.modules["lean"] = package
import numpy as np
from lean.trajectory import Trajectory

path, durability, resuming = sys.argv[1], sys.argv[2], sys.argv[3] == "resuming"
trajectory = Trajectory.open(path, "a", durability=durability)
base = np.arange({SIZE}, dtype=np.float32)
step = 0
while True:
    step += 1
    rows = {{"weights": base + step}}
    if step % 2 == 0:
        rows["gradients"] = base - step
    trajectory.append(step, rows, {{"loss": 1 / step}})
    if step % 5 == 0:
        trajectory.add_event("jump", step, True, number=step // 5)
    if resuming and step % 6 == 0:
        trajectory.close()
        step -= 4
        trajectory = Trajectory.resume(path, trajectory.layout, step, durability=durability)
    print(step, flush=True)
"""


@pytest.fixture(name="_small_chunks", autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_metadata, "MAX_CHUNK", 100_000)


def kill_while_writing(path: Path, seconds: float, durability: str, mode: str) -> int:
    """Run the child, kill it so many seconds after its first row, and return the last step that it was sure of."""
    Trajectory.create(path, LAYOUT, ("weights", "gradients")).close()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), durability, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stderr is not None
        first = child.stdout.readline()
        assert first == b"1\n", child.stderr.read()
        time.sleep(seconds)
        child.kill()
        told = (first + child.stdout.read()).split(b"\n")[:-1]
        assert child.wait() == -signal.SIGKILL, child.stderr.read()
    return int(told[-1])


def require_exact(trajectory: Trajectory) -> None:
    """Every committed row, scalar and event is what the child appended at that step, with none missing."""
    base = np.arange(SIZE, dtype=np.float32)
    weights, gradients = trajectory.stream("weights"), trajectory.stream("gradients")
    last = int(weights.steps[-1])
    assert weights.steps.tolist() == list(range(1, last + 1))
    assert gradients.steps.tolist() == list(range(2, last + 1, 2))
    for step, row in zip(weights.steps, weights, strict=True):
        np.testing.assert_array_equal(row, base + np.float32(step))
    for step, row in zip(gradients.steps, gradients, strict=True):
        np.testing.assert_array_equal(row, base - np.float32(step))
    np.testing.assert_array_equal(trajectory.scalars["loss"].values, 1 / weights.steps)
    assert [(event.step, event.details["number"]) for event in trajectory.events] in [
        [(5 * number, number) for number in range(1, count + 1)] for count in (last // 5, (last - 1) // 5)
    ]
    trajectory.verify()


def check_kills(folder: Path, num_kills: int, mode: str, durabilities: tuple[str, ...]) -> None:
    moments = np.random.default_rng(SEED).uniform(0, 0.2, num_kills)
    for number, seconds in enumerate(moments):
        path = folder / str(number)
        sure = kill_while_writing(path, float(seconds), durabilities[number % len(durabilities)], mode)
        found = Trajectory.open(path)
        require_exact(found)
        rows = len(found.stream("weights"))
        if mode == "straight":
            assert sure <= rows <= sure + 1
        with Trajectory.open(path, "a") as trajectory:
            assert trajectory.digest == found.digest
            for name in trajectory.streams:
                left = sorted(int(entry.name) for entry in (path / name / "c").iterdir())
                assert left == list(range(len(trajectory.stream(name))))
            step = int(trajectory.stream("weights").steps[-1]) + 1
            base = np.arange(SIZE, dtype=np.float32)
            trajectory.append(step, {"weights": base + np.float32(step)}, {"loss": 1 / step})
        array = zarr.open_group(str(path), mode="r")["weights"]
        assert isinstance(array, zarr.Array)
        assert array.shape == (rows + 1, SIZE)
        np.testing.assert_array_equal(np.asarray(array[-1]), trajectory.stream("weights")[-1])
        log = (path / "commit.log").read_text().splitlines()
        assert json.loads(log[-1])[1]["step"] == step


@pytest.mark.parametrize("mode", ["straight", "resuming"])
def test_kill_at_some_moments(tmp_path: Path, mode: str) -> None:
    """Killed while appending, or while cutting and resuming, a store holds every committed row exactly."""
    check_kills(tmp_path, 3, mode, ("none",))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["straight", "resuming"])
def test_kill_at_fifty_moments(tmp_path: Path, mode: str) -> None:
    """The same for many moments, with and without waiting for the disk."""
    check_kills(tmp_path, 50, mode, ("none", "row"))


def test_a_killed_writer_leaves_no_lock(tmp_path: Path) -> None:
    """The kernel frees the writer's lock, so the run can be resumed at once."""
    kill_while_writing(tmp_path / "run", 0.01, "none", "straight")
    with Trajectory.resume(tmp_path / "run", LAYOUT, 1) as trajectory:
        assert trajectory.stream("weights").steps.tolist() == [1]

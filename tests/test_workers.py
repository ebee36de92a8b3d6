"""Jobs in several processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
from interrupts import hear_interrupts
from worker_jobs import misbehave, tell_process

from deadreckon.experiments.workers import Failure, Workers, num_usable_cores

JOBS = Path(__file__).parent / "worker_jobs.py"


def wait_until(met: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that has ended, but that nobody has asked about, is still listed.
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z" if Path("/proc").is_dir() else True


def test_every_job_is_done_once_by_few_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job comes back with its value; no more processes than asked for did them, and all end when told to."""
    monkeypatch.setattr(SpawnProcess, "kill", lambda self: pytest.fail("a process had to be killed"))
    with Workers(tell_process, 2) as workers:
        results = dict(workers.results(list(range(20))))
    values = [value for value in results.values() if not isinstance(value, Failure)]
    assert {job: value[0] for job, value in zip(results, values, strict=True)} == {job: job for job in range(20)}
    processes = {process for _, process in values}
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert not any(is_alive(process) for process in processes)


def test_failures_are_values_and_lose_no_other_job() -> None:
    """An exception and the death of a process each fail their own job only, and say why in one line."""
    jobs = ["a", "die", "b", "raise", "die", "c", "d"]
    with Workers(misbehave, 1) as workers:
        results = list(workers.results(jobs))
    assert [job for job, _ in results] == jobs
    assert [value for _, value in results] == [
        "A",
        Failure("its process ended with exit code 3"),
        "B",
        Failure("ValueError: not today"),
        Failure("its process ended with exit code 3"),
        "C",
        "D",
    ]


def test_without_jobs_no_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to do costs nothing."""
    monkeypatch.setattr(Workers, "_start", lambda self: pytest.fail("a process was started"))
    with Workers(tell_process, 2) as workers:
        assert list(workers.results([])) == []


def test_cores_are_those_this_process_may_use() -> None:
    """There is at least one, and no more than the machine has."""
    assert 1 <= num_usable_cores() <= (os.cpu_count() or 1)


@pytest.fixture
def sleepers(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with two workers that sleep, in a group of their own as in a terminal."""
    command = [sys.executable, str(JOBS), str(tmp_path)]
    parent = subprocess.Popen(
        command, start_new_session=True, preexec_fn=hear_interrupts, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        yield parent, [int(path.name) for path in tmp_path.iterdir()]
    finally:
        if parent.poll() is None:
            os.killpg(parent.pid, signal.SIGKILL)
        parent.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_no_process_outlives_the_one_that_started_it(
    sleepers: tuple[subprocess.Popen[str], list[int]], how: signal.Signals
) -> None:
    """Ctrl-C, which reaches all, and a kill, which reaches the parent only, leave no worker behind."""
    parent, children = sleepers
    assert all(is_alive(child) for child in children)
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)
    else:
        os.kill(parent.pid, how)
    _, errors = parent.communicate(timeout=60)
    wait_until(lambda: not any(is_alive(child) for child in children))
    assert parent.returncode != 0
    if how == signal.SIGINT:
        assert errors.count("Traceback") == 1  # the parent's own; workers are silent

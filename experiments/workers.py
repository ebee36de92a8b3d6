"""Jobs done by several processes at once, each of them reused."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

_Job = TypeVar("_Job")
_Value = TypeVar("_Value")
PATIENCE_SECONDS = 5.0  # given to a process that was told to end


@dataclass(frozen=True)
class Failure:
    """Why there is no value for a job.

    Attributes:
        reason: one line.
    """

    reason: str


def num_usable_cores() -> int:
    """Cores that this process may use; Linux can give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(Generic[_Job, _Value]):
    """Several processes that do the same work on different jobs; a context manager that leaves none behind.

    Processes are spawned, not forked: threads and locks of torch do not survive a fork. Each is reused, so that what it
    imports is imported once. One that dies takes its job along, which counts as failed, and another takes its place.
    They ignore Ctrl-C, which a terminal sends to all of them, because whoever waits for them ends them; and they end by
    themselves as soon as this process is gone, however it went.

    The main module must be importable without side effects, as always where processes are spawned.

    Args:
        work: a function of a module's top level; jobs and values are pickled on their way.
        num_workers: processes at most.
    """

    def __init__(self, work: Callable[[_Job], _Value], num_workers: int) -> None:
        self._work = work
        self._num_workers = num_workers
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[Connection, SpawnProcess] = {}

    def __enter__(self) -> "Workers[_Job, _Value]":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes.values():
            process.terminate()
        for connection, process in self._processes.items():
            process.join(PATIENCE_SECONDS)
            if process.exitcode is None:
                process.kill()
                process.join()
            connection.close()
        self._processes.clear()

    def results(self, jobs: Sequence[_Job]) -> Iterator[tuple[_Job, _Value | Failure]]:
        """Each job with its value, or why there is none, in the order in which they are done."""
        waiting = deque(jobs)
        busy: dict[Connection, _Job] = {}
        for _ in range(min(self._num_workers, len(waiting))):
            self._give(self._start(), waiting, busy)
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)  # nothing else is waited for
                job = busy.pop(connection)
                try:
                    value = connection.recv()
                except (EOFError, OSError):
                    yield job, Failure(f"its process ended with exit code {self._bury(connection)}")
                    if waiting:
                        self._give(self._start(), waiting, busy)
                    continue
                # The next job goes out before this one's value is looked at, so that no process stands idle.
                self._give(connection, waiting, busy)
                yield job, value

    def _give(self, connection: Connection, waiting: "deque[_Job]", busy: dict[Connection, _Job]) -> None:
        if waiting:
            busy[connection] = waiting.popleft()
            try:
                connection.send(busy[connection])
            except OSError:  # it died meanwhile; the end of its stream tells so
                pass

    def _start(self) -> Connection:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(there, self._work), daemon=True)
        process.start()
        there.close()
        self._processes[here] = process
        return here

    def _bury(self, connection: Connection) -> int | None:
        process = self._processes.pop(connection)
        process.join(PATIENCE_SECONDS)
        connection.close()
        return process.exitcode


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        job = connection.recv()
        try:
            value = work(job)
        except Exception as error:
            value = Failure(" ".join(f"{type(error).__name__}: {error}".split()))
        connection.send(value)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # this runs in a spawned process only
    wait([parent.sentinel])
    os._exit(1)

"""Append to a trajectory from a thread of its own, so that training does not wait for the disk."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .chunk_writer import aligned_zeros
from .errors import TrajectoryError
from .tiers import coding_of, lost_to_rounding
from .trajectory import Trajectory

MIN_THREADED = 2**18  # bytes of a row of each stream
MAX_WAITING = 256  # commits; those without rows are small, those with rows are bounded by their buffers
_Job = Callable[[], None]


class TrajectoryWriter:
    """One thread that writes what one other thread hands over, in that order.

    A row is handed over in a buffer that the writer owns: `buffer` gives a free one, and waits for one where all are
    being written. So memory is `depth` rows of each stream, whatever the disk does, and time spent waiting is counted.

    After the first error nothing more is written. `error` says what it was; what was committed before stays.

    Where a row of each stream takes less than 256 kB and nothing happens after a commit, there is no other thread: on
    a busy machine waking it took ten times as long as writing. On a disk that hangs this blocks, and is counted as
    what the caller does.

    While jobs wait, the trajectory belongs to the writer; after `drain` and until the next job it may be read.

    Args:
        trajectory: open for appending; stays the caller's to close.
        depth: buffers of each stream. Tuning: 2 lets training fill one while the other is written; more help where
            the disk pauses now and then.
        after_commit: called by the thread after each commit.

    Attributes:
        blocked_seconds: how long the other thread has waited so far.
        cpu_seconds: processor time of the writing thread so far.
        num_commits: commits so far.
        error: the first error, or None.
        rounding: by stream of a tier that rounds, how much of the step between its first two rows rounding took.

    Raises:
        TrajectoryError: if `depth` is not at least 1.
    """

    def __init__(self, trajectory: Trajectory, depth: int = 2, after_commit: Callable[[], None] | None = None) -> None:
        if depth < 1:
            raise TrajectoryError(f"`depth` must be at least 1, got {depth}.")
        self.blocked_seconds = 0.0
        self.cpu_seconds = 0.0
        self.num_commits = 0
        self.error: Exception | None = None
        self.rounding: dict[str, float] = {}
        self._trajectory = trajectory
        self._after_commit = after_commit
        self._free: dict[str, queue.SimpleQueue[NDArray[np.float32]]] = {}
        self._first_rows: dict[str, NDArray[np.float32] | None] = {}
        self.num_buffer_bytes = 0
        for name in trajectory.streams:
            stream = trajectory.stream(name)
            self._free[name] = queue.SimpleQueue()
            for _ in range(depth):
                # Zeros written now: a page that is touched for the first time while training costs twice the copy.
                buffer = aligned_zeros(stream.layout.size, "<f4")
                self.num_buffer_bytes += buffer.nbytes
                self._free[name].put(buffer)
            if stream.tier == "bfloat16" and name == "weights":
                self._first_rows[name] = None
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        if self.num_buffer_bytes >= depth * MIN_THREADED or after_commit is not None:
            # A daemon: a process that ends without `close` must not wait for it.
            self._thread = threading.Thread(target=self._run, name="trajectory-writer", daemon=True)
            self._thread.start()

    def buffer(self, stream: str) -> NDArray[np.float32]:
        """A buffer for a row of a stream, `[param]`, its content arbitrary; hand it back with `append`."""
        try:
            return self._free[stream].get_nowait()
        except queue.Empty:
            return self._waiting(self._free[stream].get)

    def give_back(self, stream: str, buffer: NDArray[np.float32]) -> None:
        """Return a buffer that is not needed after all."""
        self._free[stream].put(buffer)

    def append(
        self,
        step: int,
        rows: Mapping[str, NDArray[np.float32]] | None = None,
        scalars: Mapping[str, float] | None = None,
    ) -> None:
        """Hand over one `Trajectory.append`; buffers are the writer's again from now on."""
        rows, scalars = dict(rows or {}), dict(scalars or {})

        def job() -> None:
            try:
                if self.error is None:
                    self._trajectory.append(step, rows, scalars)
                    self._look_at_rounding(rows)
            finally:
                for name, row in rows.items():
                    self._free[name].put(row)

        self._put(job)

    def add_event(self, kind: str, step: int, breaks: bool, **details: Any) -> None:
        """Hand over one `Trajectory.add_event`."""

        def job() -> None:
            if self.error is None:
                self._trajectory.add_event(kind, step, breaks, **details)
                if breaks:
                    self._first_rows = dict.fromkeys(self._first_rows)

        self._put(job)

    def drain(self) -> None:
        """Wait until everything that was handed over is committed, or has failed."""
        if self._jobs.unfinished_tasks:
            self._waiting(self._jobs.join)

    def close(self) -> None:
        """Drain, and end the thread; harmless when repeated."""
        if self._thread is not None and self._thread.is_alive():
            self._put(None)
            self._waiting(self._thread.join)

    def _put(self, job: _Job | None) -> None:
        if self._thread is None:
            if job is not None:
                self._do(job)
            return
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            self._waiting(lambda: self._jobs.put(job))

    def _waiting(self, wait: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        try:
            return wait()
        finally:
            self.blocked_seconds += time.perf_counter() - begin

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                if job is None:
                    return
                self._do(job)
            finally:
                self.cpu_seconds = time.thread_time()
                del job  # it holds buffers
                self._jobs.task_done()

    def _do(self, job: _Job) -> None:
        try:
            job()
            if self.error is None:
                self.num_commits += 1
                if self._after_commit is not None:
                    self._after_commit()
        except Exception as error:  # whatever it is, it is the other thread that has to hear of it
            self.error = error

    def _look_at_rounding(self, rows: Mapping[str, NDArray[np.float32]]) -> None:
        """Measure once, on the first two rows that no event parts, what rounding takes of a step."""
        for name in self._first_rows.keys() & rows.keys() - self.rounding.keys():
            first = self._first_rows[name]
            if first is None:
                self._first_rows[name] = rows[name].copy()
                continue
            coding = coding_of(self._trajectory.stream(name).tier)
            self.rounding[name] = lost_to_rounding(coding, first, rows[name])
            self._first_rows[name] = None

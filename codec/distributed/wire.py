"""What aggregations need of a process group: equal gathers, unequal exchanges, exact sums; and what they cost in bytes.

Each call is one collective that every rank must make. A rank that dies or stays away is an error on the others within
a timeout, never a silent wait.
"""

import abc
import datetime
from collections.abc import Callable, Sequence
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

from ..errors import ConfigError
from .errors import PeerLostError

DEFAULT_TIMEOUT = 300.0  # seconds


class Wire(abc.ABC):
    """The links of one rank to all others.

    Bytes are counted as the usual algorithms send them: a ring for `gather`, `total` and `largest`, direct messages for
    `scatter`. Frames of the network below (TCP, IP, Ethernet) are not in them.

    Attributes:
        rank: of this process.
        size: number of ranks.
        device: kind of device that the links send from, `cpu` or `cuda`.
        bytes_sent: by this rank so far.
        bytes_received: by this rank so far.
    """

    rank: int
    size: int
    device: str

    def __init__(self) -> None:
        self.bytes_sent = 0
        self.bytes_received = 0

    def gather(self, value: Tensor) -> list[Tensor]:
        """`value` of every rank, in rank order; all must be of one shape and type.

        Raises:
            PeerLostError: if a rank is gone or too slow.
        """
        self._count((self.size - 1) * value.nbytes, (self.size - 1) * value.nbytes)
        return self._gather(value)

    def scatter(self, parts: Sequence[bytes], lengths: Sequence[int]) -> list[bytes]:
        """Send `parts[r]` to rank r; what came from each rank. The own part is handed back.

        Args:
            parts: one for each rank.
            lengths: what will come from each rank, in bytes.

        Raises:
            PeerLostError: if a rank is gone or too slow.
        """
        others = [rank for rank in range(self.size) if rank != self.rank]
        self._count(sum(len(parts[rank]) for rank in others), sum(lengths[rank] for rank in others))
        return self._scatter(parts, lengths)

    def scatter_numbers(self, numbers: Sequence[int]) -> list[int]:
        """Send `numbers[r]` to rank r; what came from each rank, whole numbers within 64 bits.

        Raises:
            PeerLostError: if a rank is gone or too slow.
        """
        parts = [number.to_bytes(8, "little", signed=True) for number in numbers]
        return [int.from_bytes(part, "little", signed=True) for part in self.scatter(parts, [8] * self.size)]

    def total(self, value: Tensor) -> Tensor:
        """The sum of `value` over all ranks, equal bit for bit on all; of one shape and type.

        Raises:
            PeerLostError: if a rank is gone or too slow.
        """
        self._count_reduce(value)
        return self._reduce(value, dist.ReduceOp.SUM)

    def largest(self, value: Tensor) -> Tensor:
        """The largest `value` of all ranks, coordinate by coordinate. NaN must not be in it.

        Raises:
            PeerLostError: if a rank is gone or too slow.
        """
        self._count_reduce(value)
        return self._reduce(value, dist.ReduceOp.MAX)

    def _count(self, sent: int, received: int) -> None:
        self.bytes_sent += sent
        self.bytes_received += received

    def _count_reduce(self, value: Tensor) -> None:
        once = round(2 * (self.size - 1) / self.size * value.nbytes)
        self._count(once, once)

    @abc.abstractmethod
    def _gather(self, value: Tensor) -> list[Tensor]: ...

    @abc.abstractmethod
    def _scatter(self, parts: Sequence[bytes], lengths: Sequence[int]) -> list[bytes]: ...

    @abc.abstractmethod
    def _reduce(self, value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor: ...


@final
class GroupWire(Wire):
    """A process group of `torch.distributed`. Tested on gloo; on nccl written for, but never run: experimental.

    Args:
        group: the processes; the default group if not given.
        timeout: seconds that any one exchange may take before it counts as failed. Above the longest that ranks may
            drift apart: validation on one rank only, a slow checkpoint.

    Raises:
        ConfigError: if there is no process group, or its backend is another one.
    """

    def __init__(self, group: dist.ProcessGroup | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        super().__init__()
        if group is None:
            if not dist.is_initialized():
                raise ConfigError("There is no process group. Call `torch.distributed.init_process_group` first.")
            group = dist.group.WORLD
        assert group is not None
        if not 0 < timeout <= 1e6:
            raise ConfigError(f"`timeout` must be above 0 and at most 1e6 seconds, got {timeout!r}.")
        backend = dist.get_backend(group)
        kinds = {"gloo": "cpu", "nccl": "cuda", "cpu:gloo,cuda:nccl": "cuda"}
        if backend not in kinds:
            raise ConfigError(
                f"The codec exchanges packets over gloo or nccl, the process group's backend is {backend!r}."
            )
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.device = kinds[backend]
        self._group = group
        self._timeout = datetime.timedelta(seconds=timeout)

    @override
    def _gather(self, value: Tensor) -> list[Tensor]:
        value = value.to(self.device)
        parts = [torch.empty_like(value) for _ in range(self.size)]
        self._wait(lambda: dist.all_gather(parts, value, group=self._group, async_op=True))
        return [part.cpu() for part in parts]

    @override
    def _scatter(self, parts: Sequence[bytes], lengths: Sequence[int]) -> list[bytes]:
        # What is one's own need not travel through the backend.
        splits_in = [0 if rank == self.rank else len(part) for rank, part in enumerate(parts)]
        splits_out = [0 if rank == self.rank else length for rank, length in enumerate(lengths)]
        outgoing = bytearray(b"".join(part for rank, part in enumerate(parts) if rank != self.rank))
        if self.size == 1:
            return [bytes(parts[0])]
        data = torch.frombuffer(outgoing, dtype=torch.uint8) if outgoing else torch.zeros(0, dtype=torch.uint8)
        data = data.to(self.device)
        into = torch.empty(sum(splits_out), dtype=torch.uint8, device=self.device)
        self._wait(lambda: dist.all_to_all_single(into, data, splits_out, splits_in, group=self._group, async_op=True))
        arrived = into.cpu().numpy().tobytes()
        ends = [sum(splits_out[: rank + 1]) for rank in range(self.size)]
        found = [arrived[end - length : end] for end, length in zip(ends, splits_out, strict=True)]
        found[self.rank] = bytes(parts[self.rank])
        return found

    @override
    def _reduce(self, value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        result = value.to(self.device, copy=True)
        self._wait(lambda: dist.all_reduce(result, operation, group=self._group, async_op=True))
        return result.cpu()

    def _wait(self, start: Callable[[], dist.Work | None]) -> None:
        try:
            work = start()
            if work is not None:
                work.wait(self._timeout)
        except RuntimeError as error:  # also the base of torch's DistError
            raise PeerLostError(
                f"Rank {self.rank} could not exchange with the other {self.size - 1}: one of them ended, or needed "
                f"more than {self._timeout.total_seconds():g} s. Look for the first error of any rank, then resume all "
                f"from the last checkpoint. The backend says: {str(error).splitlines()[0]}"
            ) from error


@final
class Alone(Wire):
    """The wire of a single rank, which needs no process group."""

    def __init__(self) -> None:
        super().__init__()
        self.rank, self.size, self.device = 0, 1, "cpu"

    @override
    def _gather(self, value: Tensor) -> list[Tensor]:
        return [value]

    @override
    def _scatter(self, parts: Sequence[bytes], lengths: Sequence[int]) -> list[bytes]:
        return [bytes(part) for part in parts]

    @override
    def _reduce(self, value: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        return value.clone()

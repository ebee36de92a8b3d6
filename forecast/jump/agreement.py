"""How the processes of one run come to the same decision."""

from typing import Protocol, final

import torch
from torch import Tensor
from typing_extensions import override

from ..errors import JumpError


class Agreement(Protocol):
    """What a jump needs from the other processes of its run."""

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same on each."""
        ...

    def first(self, values: Tensor) -> Tensor:
        """The values of the first process, on each."""
        ...

    def require_equal(self, number: int, what: str) -> None:
        """Refuse a number that is not the same on all processes.

        Raises:
            JumpError: on all processes, naming it.
        """
        ...


@final
class Alone(Agreement):
    """One process: everybody agrees."""

    @override
    def sum(self, values: Tensor) -> Tensor:
        return values

    @override
    def first(self, values: Tensor) -> Tensor:
        return values

    @override
    def require_equal(self, number: int, what: str) -> None:
        return None


@final
class Together(Agreement):
    """All processes of `torch.distributed`'s default group, which must have been started.

    Every process must come to every call, in the same order. Sums are made by one collective, so all processes decide
    by the same bits.
    """

    @override
    def sum(self, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @override
    def first(self, values: Tensor) -> Tensor:
        copy = values.clone()
        torch.distributed.broadcast(copy, src=0)
        return copy

    @override
    def require_equal(self, number: int, what: str) -> None:
        numbers = [torch.zeros((), dtype=torch.int64) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(numbers, torch.tensor(number, dtype=torch.int64))
        found = [int(item) for item in numbers]
        if len(set(found)) > 1:
            raise JumpError(f"All processes must have the same {what}, got {found}.")

"""Batches whose order is a function of a seed and a step, so that a resumed run sees what it would have seen."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import OptionError
from .task import Split, TaskData


class Batches:
    """`num_steps` batches of one set, reshuffled in every pass over it.

    Batch k depends on `seed` and k only: pass k // m with m = samples // batch_size takes the samples in the order of a
    permutation drawn from (seed, pass). What does not fill a batch is left out of that pass. Everything lies in memory,
    and a plain iterable is several times faster here than a `DataLoader` with its sampler and its collation.

    It is a "stateful" loader to Lightning, which keeps its position in checkpoints: a run resumed in mid-epoch goes on
    with the very next batch. Every other resuming loop passes `first_step`.

    Args:
        split: the set.
        batch_size: samples in a batch.
        num_steps: batches altogether, counted from step 0.
        seed: of the order.
        first_step: where to begin.

    Raises:
        OptionError: if a number is out of range.
    """

    def __init__(self, split: Split, batch_size: int, num_steps: int, seed: int, first_step: int = 0) -> None:
        num_samples = len(split.labels)
        if not 1 <= batch_size <= num_samples:
            raise OptionError(f"`batch_size` must lie within 1 and {num_samples}, the samples, got {batch_size}.")
        if num_steps < 1:
            raise OptionError(f"`num_steps` must be at least 1, got {num_steps}.")
        if not 0 <= first_step <= num_steps:
            raise OptionError(f"`first_step` must lie within 0 and {num_steps}, got {first_step}.")
        self._split = split
        self._seed = seed
        self._order: tuple[int, Tensor] | None = None
        self.batch_size = batch_size
        self.num_steps = num_steps
        self._first_step = first_step
        self._next_step = first_step

    def __len__(self) -> int:
        return self.num_steps - self._first_step

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of an optimiser step: inputs, each as in `Split`, and labels `[batch]`.

        Raises:
            IndexError: if the step is not one of `range(num_steps)`.
        """
        if not 0 <= step < self.num_steps:
            raise IndexError(f"`step` must lie within 0 and {self.num_steps - 1}, got {step}.")
        batches_per_pass = len(self._split.labels) // self.batch_size
        number, position = divmod(step, batches_per_pass)
        rows = self._permutation(number)[position * self.batch_size : (position + 1) * self.batch_size]
        return self._split.inputs[rows], self._split.labels[rows]

    def _permutation(self, number: int) -> Tensor:
        if self._order is None or self._order[0] != number:
            # A digest, because generators seeded with neighbouring numbers need not be independent.
            digest = hashlib.sha256(f"{self._seed} {number}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            self._order = number, torch.randperm(len(self._split.labels), generator=generator)
        return self._order[1]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while self._next_step < self.num_steps:
            # Counted before it is handed out: a checkpoint written while the batch is worked on does not repeat it.
            self._next_step += 1
            yield self[self._next_step - 1]
        self._next_step = self._first_step

    def state_dict(self) -> dict[str, Any]:
        """The position, for Lightning's checkpoints."""
        return {"next_step": self._next_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored position.

        Raises:
            OptionError: if it does not lie within this loader.
        """
        next_step = state.get("next_step")
        if type(next_step) is not int or not self._first_step <= next_step <= self.num_steps:
            raise OptionError(
                f"`next_step` must lie within {self._first_step} and {self.num_steps}, got {next_step!r}."
            )
        self._next_step = next_step


def train_loader(task: TaskData, batch_size: int, num_steps: int, seed: int, first_step: int = 0) -> Batches:
    """The training batches of a run; see `Batches`."""
    return Batches(task.train, batch_size, num_steps, seed, first_step)


def sequential_batches(split: Split, batch_size: int) -> list[tuple[Tensor, Tensor]]:
    """A whole set in its own order, cut into batches (views, no copies); the last one may be smaller.

    Raises:
        OptionError: if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise OptionError(f"`batch_size` must be at least 1, got {batch_size}.")
    return list(zip(split.inputs.split(batch_size), split.labels.split(batch_size), strict=True))

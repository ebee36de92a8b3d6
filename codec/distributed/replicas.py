"""Whether parameters are equal bit for bit on all ranks, compared every so many steps."""

import collections
import hashlib
import warnings
from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from ..errors import ConfigError
from .errors import ReplicaError
from .wire import Wire

_DIGEST_BYTES = 8


@final
class ReplicaCheck:
    """Compares digests of named tensors between ranks; a difference is an error, or healed.

    Healing copies each tensor that differs from the lowest of the ranks that most agree on, in place. The optimiser's
    state is healed only if it is among the tensors.

    Args:
        wire: to the other ranks.
        tensors: gives what is compared, by name; the same names and shapes on every rank.
        every: steps between comparisons; 0 for never. A comparison reads all tensors once, and sends 8 bytes for each.
        heal: copy what differs, and warn, instead of raising.

    Raises:
        ConfigError: if `every` is negative.
    """

    def __init__(
        self, wire: Wire, tensors: Callable[[], Mapping[str, Tensor]], every: int = 100, heal: bool = False
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 0:
            raise ConfigError(f"`check_every` must be a whole number of at least 0, got {every!r}.")
        self._wire = wire
        self._tensors = tensors
        self._every = every
        self._heal = heal
        self.num_steps = 0

    def step(self) -> tuple[str, ...]:
        """Count a step, and compare if it is due; the names of tensors that were healed.

        Raises:
            ReplicaError: on every rank, naming the first tensor that differs, if healing is off.
        """
        self.num_steps += 1
        return self.compare() if self._every and self.num_steps % self._every == 0 else ()

    @torch.no_grad()
    def compare(self) -> tuple[str, ...]:
        """Compare now; the names of tensors that were healed.

        Raises:
            ReplicaError: on every rank, naming the first tensor that differs, if healing is off.
        """
        tensors = self._tensors()
        mine = b"".join(_digest(value) for value in tensors.values())
        gathered = [
            bytes(part.numpy()) for part in self._wire.gather(torch.frombuffer(bytearray(mine), dtype=torch.uint8))
        ]
        healed: list[str] = []
        for index, (name, value) in enumerate(tensors.items()):
            place = slice(index * _DIGEST_BYTES, (index + 1) * _DIGEST_BYTES)
            digests = [part[place] for part in gathered]
            counts = collections.Counter(digests)
            if len(counts) == 1:
                continue
            wanted = counts.most_common(1)[0][0]
            source, other = digests.index(wanted), next(r for r, digest in enumerate(digests) if digest != wanted)
            text = (
                f"{name!r} differs between ranks after {self.num_steps} steps: rank {source} has digest "
                f"{wanted.hex()}, rank {other} has {digests[other].hex()}."
            )
            if not self._heal:
                raise ReplicaError(
                    f"{text} Something changed it on one rank only: a module that is trained outside DDP, unlike "
                    "libraries, damaged memory. Resume from a checkpoint, or let differences be healed."
                )
            warnings.warn(f"{text} All ranks now have rank {source}'s.", stacklevel=2)
            self._copy(value, source)
            healed.append(name)
        return tuple(healed)

    def _copy(self, value: Tensor, source: int) -> None:
        wire, mine = self._wire, _bytes(value)
        parts = [mine if wire.rank == source else b""] * wire.size
        lengths = [len(mine) if rank == source else 0 for rank in range(wire.size)]
        found = wire.scatter(parts, lengths)[source]
        rows = torch.frombuffer(bytearray(found), dtype=torch.uint8).view(value.dtype)
        # `data`, because this may happen inside a backward pass, which must not see a new version of a parameter.
        value.data.copy_(rows.reshape(value.shape))


def _bytes(value: Tensor) -> bytes:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _digest(value: Tensor) -> bytes:
    return hashlib.blake2b(_bytes(value), digest_size=_DIGEST_BYTES).digest()

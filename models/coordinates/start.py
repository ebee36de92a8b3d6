"""Where parameters begin when their coordinates are zero."""

import abc
import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from ...forecast.layout import Layout, TensorSpec
from ...forecast.packing import flatten, require_vector, trainable_parameters
from ..options import require_integer
from .random_words import random_halves, stream_key


def tensor_scale(spec: TensorSpec) -> float:
    """How large a tensor's entries begin: 1 / sqrt(3 fan_in), as `torch.nn.Linear` and convolutions draw them.

    Where a tensor has one axis or none, which says nothing of a fan-in, its own length stands for it.
    """
    fan_in = spec.numel // max(spec.shape[0], 1) if len(spec.shape) > 1 else spec.numel
    return 1.0 / math.sqrt(3.0 * max(fan_in, 1))


def parameter_scales(layout: Layout) -> Tensor:
    """`tensor_scale` of each parameter, `[param]`, float64."""
    return torch.cat([torch.full((spec.numel,), tensor_scale(spec), dtype=torch.float64) for spec in layout])


class Start(abc.ABC):
    """Parameters from which coordinates move."""

    kind: ClassVar[str]

    @abc.abstractmethod
    def values(self, layout: Layout) -> Tensor:
        """The parameters, `[param]`, float64."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of what defines them."""


@final
@dataclass(frozen=True)
class ZeroStart(Start):
    """All zero, as in PRANC: the coordinates alone make the network."""

    kind: ClassVar[str] = "zero"

    @override
    def values(self, layout: Layout) -> Tensor:
        return torch.zeros(layout.size, dtype=torch.float64)

    @property
    @override
    def digest(self) -> str:
        return hashlib.sha256(b"zero").hexdigest()


@final
@dataclass(frozen=True)
class SeededStart(Start):
    """Drawn by a seed, so that a file needs no more than it: matrices uniform, norm weights 1, other vectors 0.

    Entries of tensors with two axes or more are uniform with standard deviation `tensor_scale`, in 65536 steps, as
    `torch.nn.Linear` draws them, from stream t of the seed for tensor t.

    Args:
        seed: a whole number from 0 up.
    """

    seed: int = 0
    kind: ClassVar[str] = "seeded"

    def __post_init__(self) -> None:
        require_integer("seed", self.seed, 0)

    @override
    def values(self, layout: Layout) -> Tensor:
        parts = [self._tensor(index, spec) for index, spec in enumerate(layout)]
        return torch.from_numpy(np.concatenate(parts))

    def _tensor(self, index: int, spec: TensorSpec) -> np.ndarray:
        if len(spec.shape) < 2:
            norm = spec.kind == "norm" and spec.name.rpartition(".")[2] == "weight"
            return np.full(spec.numel, float(norm))
        uniform = (2.0 * random_halves(stream_key(self.seed, index), 0, spec.numel) + 1.0) / 65536 - 1.0
        return uniform * (math.sqrt(3.0) * tensor_scale(spec))

    @property
    @override
    def digest(self) -> str:
        return hashlib.sha256(f"seeded:{self.seed}".encode()).hexdigest()


@final
@dataclass(frozen=True, eq=False)
class GivenStart(Start):
    """Given parameters, such as those of a pretrained network. A file holds them all.

    Args:
        parameters: `[param]`, as `forecast.pack` gives them.
    """

    parameters: Tensor
    kind: ClassVar[str] = "given"

    @classmethod
    def of(cls, module: nn.Module, layout: Layout) -> "GivenStart":
        """The present values of a module's tensors, those of a layout.

        Args:
            module: such as a pretrained network; left as it is.
            layout: as `choose_layout(module, ...)` gives.

        Raises:
            LayoutError: if the module has no such trainable tensor, or of another shape.
        """
        return cls(flatten(trainable_parameters(module), layout))

    @override
    def values(self, layout: Layout) -> Tensor:
        require_vector(self.parameters, layout)
        return self.parameters.detach().cpu().double()

    @property
    @override
    def digest(self) -> str:
        data = self.parameters.detach().cpu().float().contiguous().numpy().astype("<f4", copy=False)
        return hashlib.sha256(b"given" + data.tobytes()).hexdigest()

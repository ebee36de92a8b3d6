"""What each tensor of a packet gets: no vector, coarse cells or fine ones. The encoder chooses, and says so.

Steps are nested: cells of level l are 2^l times as wide, and every coarse point is a fine one. A tensor without a
vector decodes to its prediction, or to zero where it has none: with one coefficient this is the founding note's *scalar
mode*, which leaves ||r||^2 / ||g||^2 = 1 - cos^2(g, prediction) and is right only where that is at most the error asked
for.

One width for all tensors is optimal at high rate (Gersho and Gray 1992, chapter 8: equal slopes), and the entropy coder
already spends next to nothing on a tensor that is all zeros. So `Uniform` is the default and the others are to be
compared with it; `benchmarks/codec_rate.txt` has their figures.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from .errors import ConfigError
from .symbol_coder import NO_VECTOR, Levels

Floats = npt.NDArray[np.float64]


class Blocks(NamedTuple):
    """What a policy may look at; one entry for each tensor that is not empty.

    Attributes:
        energy: ||g||^2, `[matrix]`.
        residual: ||g - prediction||^2, `[matrix]`.
        nmse: what the codec is asked for.
        price: of a level for all tensors, `[matrix]`: about how many bits they take, squared error at its slope
            included.
    """

    energy: Floats
    residual: Floats
    nmse: float
    price: Callable[[int], Floats]

    @property
    def ratio(self) -> Floats:
        """||g - prediction|| / ||g||, `[matrix]`; 0 where g is 0."""
        return np.sqrt(self.residual / np.where(self.energy > 0, self.energy, math.inf))


class ModePolicy(abc.ABC):
    """A rule that gives each tensor a level: 0 to 2, or `NO_VECTOR`."""

    name: ClassVar[str]

    @abc.abstractmethod
    def levels(self, blocks: Blocks) -> Levels:
        """uint8 `[matrix]`."""


@final
@dataclass(frozen=True)
class Uniform(ModePolicy):
    """The same cells for all tensors."""

    name: ClassVar[str] = "uniform"

    @override
    def levels(self, blocks: Blocks) -> Levels:
        return np.zeros(len(blocks.energy), np.uint8)


@final
@dataclass(frozen=True)
class Scalar(ModePolicy):
    """No vector where the prediction alone is good enough; the note's scalar mode.

    Attributes:
        error: largest ||r||^2 / ||g||^2 that counts as good enough; `None` takes the codec's `nmse`, which is the
            largest that does not make other tensors pay. Smaller leaves more of the error to them.
    """

    name: ClassVar[str] = "scalar"
    error: float | None = None

    def __post_init__(self) -> None:
        if self.error is not None and not 0 < self.error < 1:
            raise ConfigError(f"`error` must be between 0 and 1, or None, got {self.error!r}.")

    @override
    def levels(self, blocks: Blocks) -> Levels:
        error = blocks.nmse if self.error is None else self.error
        return np.where(blocks.ratio**2 <= error, NO_VECTOR, 0).astype(np.uint8)


@final
@dataclass(frozen=True)
class Annulus(ModePolicy):
    """Coarse cells where the residual is neither small nor large; the note's annulus.

    R_min < ||r|| / ||g|| < R_max takes coarse cells, everything inside and outside of it fine ones: a small residual
    is worth refining, a large one means that training has turned and must be followed.

    Attributes:
        inner: R_min. With `adaptive`, the share of tensors whose residual is smaller.
        outer: R_max. With `adaptive`, the share of tensors whose residual is smaller.
        adaptive: whether the radii are quantiles over this packet's tensors. Fixed ones need a stream whose residuals
            keep their size.
        level: of the coarse cells, 1 or 2: 2 or 4 times as wide.
    """

    name: ClassVar[str] = "annulus"
    inner: float = 0.25
    outer: float = 0.75
    adaptive: bool = True
    level: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.inner <= self.outer or (self.adaptive and self.outer > 1):
            raise ConfigError(
                f"`inner` and `outer` must be radii in order, shares up to 1 if adaptive, got {self.inner} and "
                f"{self.outer}."
            )
        if self.level not in (1, 2):
            raise ConfigError(f"`level` must be 1 or 2, got {self.level!r}.")

    @override
    def levels(self, blocks: Blocks) -> Levels:
        ratio = blocks.ratio
        inner, outer = self.inner, self.outer
        if self.adaptive and len(ratio):
            inner, outer = np.quantile(ratio, [inner, outer])
        return np.where((ratio > inner) & (ratio < outer), self.level, 0).astype(np.uint8)


@final
@dataclass(frozen=True)
class RateDistortion(ModePolicy):
    """For each tensor the level with the least bits plus error at the slope between them.

    The estimate is that of the tables before the packet, at the last packet's cell width.
    """

    name: ClassVar[str] = "rate_distortion"

    @override
    def levels(self, blocks: Blocks) -> Levels:
        choices = (0, 1, 2, NO_VECTOR)
        prices = np.stack([blocks.price(level) for level in choices])
        return np.array(choices, np.uint8)[prices.argmin(axis=0)]


_POLICIES: dict[str, type[ModePolicy]] = {policy.name: policy for policy in (Uniform, Scalar, Annulus, RateDistortion)}


def mode_names() -> tuple[str, ...]:
    """Names of the policies."""
    return tuple(_POLICIES)


def policy_to_dict(policy: ModePolicy) -> dict[str, Any]:
    """Name and options of a policy; `policy_from_dict` is the way back."""
    assert isinstance(policy, Uniform | Scalar | Annulus | RateDistortion)
    return {"name": policy.name, **dataclasses.asdict(policy)}


def policy_from_dict(data: Mapping[str, Any]) -> ModePolicy:
    """The policy that a name and options describe.

    Raises:
        ConfigError: if there is none, or it has no such option.
    """
    options = dict(data)
    name = options.pop("name", None)
    if name not in _POLICIES:
        raise ConfigError(f"A mode policy must be one of {mode_names()}, got {name!r}.")
    try:
        return _POLICIES[name](**options)
    except TypeError as error:
        raise ConfigError(f"Mode policy {name!r}: {error}.") from error

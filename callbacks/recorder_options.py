"""What a recorder was asked for, checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ..forecast import Tier
from ..forecast.trajectory import Durability
from .errors import CallbackOptionError
from .recorded_moments import MomentName
from .recorded_streams import TAKEN

OnError = Literal["stop", "continue"]
STREAMS: tuple[str, ...] = (*TAKEN, "moments", *get_args(MomentName))
_OF_GRADIENTS = ("gradients", "raw_gradients", "rank_gradients")


@dataclass(frozen=True)
class RecorderOptions:
    """The options of `TrajectoryRecorder`; see there.

    Raises:
        CallbackOptionError: if they cannot work.
    """

    streams: tuple[str, ...]
    every: Mapping[str, int]
    scalars_every: int
    parameters: tuple[str, ...]
    sample: int | None
    seed: int
    tiers: Mapping[str, Tier]
    on_error: OnError
    durability: Durability
    depth: int

    def __post_init__(self) -> None:
        if not self.parameters:
            raise CallbackOptionError("`parameters` must be at least one pattern, such as '*'.")
        if self.sample is not None and self.sample < 1:
            raise CallbackOptionError(f"`sample` must be at least 1 coordinate, got {self.sample}.")
        if self.depth < 1:
            raise CallbackOptionError(f"`depth` must be at least 1, got {self.depth}.")
        for name, value, known in (
            ("on_error", self.on_error, get_args(OnError)),
            ("durability", self.durability, get_args(Durability)),
        ):
            if value not in known:
                raise CallbackOptionError(f"`{name}` must be one of {known}, got {value!r}.")
        wrong = [tier for tier in self.tiers.values() if tier not in get_args(Tier)]
        if wrong or not set(self.tiers) <= set(self.streams):
            raise CallbackOptionError(
                f"`tier` must be one of {get_args(Tier)}, or one for some of {self.streams}, got {dict(self.tiers)}."
            )

    @property
    def needs_backward(self) -> tuple[str, ...]:
        """Streams that are taken before clipping, which Lightning tells of in automatic optimisation only."""
        return tuple(name for name in self.streams if name in ("raw_gradients", "rank_gradients"))

    @property
    def of_gradients(self) -> tuple[str, ...]:
        """Streams made of gradients."""
        return tuple(name for name in self.streams if name in _OF_GRADIENTS)


def make_options(
    every: int | Mapping[str, int],
    streams: Sequence[str],
    parameters: str | Sequence[str],
    sample: int | None,
    seed: int,
    tier: Tier | Mapping[str, Tier],
    on_error: OnError,
    durability: Durability,
    depth: int,
) -> RecorderOptions:
    """Options from the arguments of a recorder.

    Raises:
        CallbackOptionError: if they cannot work.
    """
    unknown = [name for name in streams if name not in STREAMS]
    if not streams or unknown or len(set(streams)) != len(streams):
        raise CallbackOptionError(f"`streams` must be different names from {STREAMS}, got {tuple(streams)}.")
    cadence = {name: every for name in streams} if isinstance(every, int) else dict(every)
    scalars_every = 1 if isinstance(every, int) else cadence.pop("scalars", 1)
    counts = [*cadence.values(), scalars_every]
    if set(cadence) != set(streams) or not all(type(count) is int and count >= 1 for count in counts):
        raise CallbackOptionError(
            f"`every` must be a number of steps, at least 1, or one for each of {tuple(streams)} and perhaps for "
            f"'scalars', got {every!r}."
        )
    tiers: dict[str, Tier] = {name: tier for name in streams} if isinstance(tier, str) else dict(tier)
    return RecorderOptions(
        tuple(streams),
        cadence,
        scalars_every,
        (parameters,) if isinstance(parameters, str) else tuple(parameters),
        sample,
        seed,
        tiers,
        on_error,
        durability,
        depth,
    )

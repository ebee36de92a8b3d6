"""Error feedback: what compression lost is remembered at the sender and added to the next vector.

With g_t the vector, C the coder and e_t what is owed,

    x_t = g_t + (lr_{t-1} / lr_t) e_t        what is coded, `corrected`
    e_{t+1} = decay (x_t - C(x_t))           what is owed next, `settled`

The receiver applies lr_t C(x_t), so that with decay = 1 the sum of lr_t C(x_t), plus the last lr_t e_{t+1}, is the sum
of lr_t g_t: nothing is lost, it only comes later. The rescaling is what makes this hold while the learning rate
changes. All of it belongs to the sender; no receiver knows of it.

State is replaced, never changed. A step is skipped (a vector with NaN, say) by not calling `settled`, and undone by
going back to the state from before.

EF21 (Richtarik et al. 2021, arXiv:2106.05203) is not here: it is prediction by the last reconstruction with coefficient
1, which a codec's predictor or `baselines` with `feedback="ef21"` do. Never use both: each would claim the same error.

References:
    Seide et al., 1-bit stochastic gradient descent, Interspeech 2014.
    Karimireddy et al., Error feedback fixes SignSGD, 2019, arXiv:1901.09847, algorithm 1.
    Zheng et al., Communication-efficient distributed blockwise momentum SGD with error-feedback, 2019,
    arXiv:1905.10936, algorithm 1: the rescaling.
"""

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from .decoded import Decoded, left_over
from .energy import energy
from .errors import ConfigError, EncodeError, StateError
from .vector_passes import FloatVector, sum_and_energy


class FeedbackState(NamedTuple):
    """What is owed.

    Attributes:
        lost: what the last packet lost, `[param]`, float32, in the units of the vectors; `[0]` where nothing is ever
            owed.
        learning_rate: the rate at which it was lost; `None` where that is unknown.
        share: of it that is owed. It is multiplied when it is added: a pass over the vector less.
    """

    lost: FloatVector
    learning_rate: float | None
    share: float = 1.0

    @property
    def residual(self) -> FloatVector:
        """e, `[param]`."""
        return self.lost if self.share == 1 else self.lost * np.float32(self.share)


class ErrorFeedback(abc.ABC):
    """A rule of what to code and what to owe. Holds no state; all methods are pure.

    A learning rate may be given with each vector. `None`, then or at the last packet, means that it is not known, or
    already inside the vectors (as in parameter differences): what is owed is added as it is. At rate 0 nothing that is
    sent has an effect: nothing is added and the state stays.

    Rescaling is exact bookkeeping, not always wise: where the rate drops by a factor k at once, what is owed enters k
    times as large. A schedule that ends at 0 makes the last few vectors large; `Leaky` bounds that.
    """

    name: ClassVar[str]

    def initial(self, size: int) -> FeedbackState:
        """The state before any packet: nothing is owed.

        Args:
            size: coordinates of the vectors.
        """
        return FeedbackState(np.zeros(size, np.float32), None)

    def corrected(
        self, state: FeedbackState, vector: FloatVector, learning_rate: float | None = None
    ) -> tuple[FloatVector, float]:
        """The vector to code, `vector` plus what is owed, and its squared norm.

        Args:
            state: what is owed.
            vector: `[param]`, float32.
            learning_rate: at which the receiver applies this packet.

        Returns:
            `[param]`, float32, a new array wherever something may be owed; and its squared norm. Neither is finite
            where the vector is not or float32 cannot hold the sum, for the caller to refuse.

        Raises:
            EncodeError: if the rate is negative or not finite.
        """
        scale = _scale(state.learning_rate, learning_rate)
        with np.errstate(over="ignore", invalid="ignore"):
            if not scale:
                return vector.copy(), energy(vector)
            return sum_and_energy(vector, state.lost, np.float32(state.share), np.float32(scale))

    def settled(
        self,
        state: FeedbackState,
        corrected: FloatVector,
        decoded: Decoded,
        learning_rate: float | None = None,
    ) -> FeedbackState:
        """The state after a packet.

        Args:
            state: what was owed before it.
            corrected: what was coded, `[param]`, as `corrected` gave it; perhaps the state's memory from now on.
            decoded: what the receiver gets.
            learning_rate: as given to `corrected`.

        Raises:
            EncodeError: if the rate is negative or not finite.
        """
        if not _scale(state.learning_rate, learning_rate):
            return state
        share = self._share()
        lost = left_over(corrected, decoded) if share else state.lost
        return FeedbackState(lost, None if learning_rate is None else float(learning_rate), share)

    @abc.abstractmethod
    def _share(self) -> float:
        """How much of what a packet lost is owed."""

    def to_dict(self, state: FeedbackState) -> dict[str, Tensor]:
        """A state as plain tensors by name, for checkpoints; `from_dict` is the way back, exactly."""
        rate = math.nan if state.learning_rate is None else state.learning_rate
        return {
            "residual": torch.from_numpy(np.array(state.residual)),
            "learning_rate": torch.tensor(rate, dtype=torch.float64),
        }

    def from_dict(self, saved: Mapping[str, Tensor], size: int) -> FeedbackState:
        """A state from `to_dict`'s result, treated as untrusted.

        Raises:
            StateError: if it does not fit the rule and the size, or is damaged.
        """
        shapes = {
            "residual": (self.initial(size).residual.shape, torch.float32),
            "learning_rate": ((), torch.float64),
        }
        for name, (shape, dtype) in shapes.items():
            value = saved.get(name)
            if not isinstance(value, Tensor) or tuple(value.shape) != shape or value.dtype != dtype:
                found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
                raise StateError(f"`{name}` of error feedback must be {dtype} of shape {shape}, got {found}.")
        rate = float(saved["learning_rate"])
        residual = saved["residual"].detach().cpu().clone().contiguous().numpy()
        if not np.isfinite(residual).all() or not (math.isnan(rate) or 0 < rate < math.inf):
            raise StateError("The state of error feedback is not finite: the checkpoint is damaged.")
        return FeedbackState(residual, None if math.isnan(rate) else rate)


@final
@dataclass(frozen=True)
class Off(ErrorFeedback):
    """What is lost is lost. Right for unbiased coders, whose errors average out over workers and steps."""

    name: ClassVar[str] = "off"

    @override
    def initial(self, size: int) -> FeedbackState:
        return FeedbackState(np.zeros(0, np.float32), None)

    @override
    def corrected(
        self, state: FeedbackState, vector: FloatVector, learning_rate: float | None = None
    ) -> tuple[FloatVector, float]:
        _scale(None, learning_rate)
        return vector, energy(vector)

    @override
    def _share(self) -> float:
        return 0.0


@final
@dataclass(frozen=True)
class Classic(ErrorFeedback):
    """All that is lost is owed. Needed by coders that drop coordinates for good, such as top-k and signs."""

    name: ClassVar[str] = "classic"

    @override
    def _share(self) -> float:
        return 1.0


@final
@dataclass(frozen=True)
class Leaky(ErrorFeedback):
    """A share of what is lost is owed, so that old errors fade.

    Attributes:
        decay: that share, above 0 and at most 1; 1 is `Classic`. Smaller forgets sooner, which bounds how stale and
            how large the residual gets at coarse coding, and biases the sum. An error is owed for about 1 / (1 - decay)
            packets. Start at 0.9; it was not tuned here.

    Raises:
        ConfigError: if `decay` is out of range.
    """

    name: ClassVar[str] = "leaky"
    decay: float = 0.9

    def __post_init__(self) -> None:
        if isinstance(self.decay, bool) or not isinstance(self.decay, int | float) or not 0 < self.decay <= 1:
            raise ConfigError(f"`decay` must be above 0 and at most 1, got {self.decay!r}.")

    @override
    def _share(self) -> float:
        return self.decay


def feedback_names() -> tuple[str, ...]:
    """Names that `make_feedback` takes."""
    return (Off.name, Classic.name, Leaky.name)


def make_feedback(name: str, decay: float = 0.9) -> ErrorFeedback:
    """The rule behind a name.

    Args:
        name: one of `feedback_names()`.
        decay: of `Leaky`; the others have none and ignore it.

    Raises:
        ConfigError: if the name is unknown or `decay` out of range.
    """
    leaky = Leaky(decay)
    rules: dict[str, ErrorFeedback] = {rule.name: rule for rule in (Off(), Classic(), leaky)}
    if name not in rules:
        raise ConfigError(f"Error feedback must be one of {feedback_names()}, got {name!r}.")
    return rules[name]


def _scale(old: float | None, new: float | None) -> float:
    """What the residual is multiplied by; 0 where the new rate is 0 and the residual has to wait."""
    if new is not None and (isinstance(new, bool) or not 0 <= new < math.inf):
        raise EncodeError(f"`learning_rate` must be a finite number of at least 0, or None, got {new!r}.")
    if new == 0:
        return 0.0
    return 1.0 if old is None or new is None else old / new

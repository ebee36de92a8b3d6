"""What a baseline compressor is, and the two ends of a link that all of them share.

A baseline is a frozen set of options with pure methods; whatever changes from packet to packet is in the ends. Packets
carry the least that decoding needs: no magic number, no digests, no checksum. That favours the baselines over
`deadreckon.codec.Codec`, whose packets carry all of these.
"""

import abc
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, SupportsIndex, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...forecast import Layout, LayoutError
from ..endpoint import MAX_SIZE
from ..errors import ConfigError, EncodeError, PacketError, StateError
from ..feedback import ErrorFeedback, FeedbackState, Off, feedback_names, make_feedback
from ..packet import MAX_STEP

FloatVector = npt.NDArray[np.float32]
Memory = tuple[FloatVector, ...]

EF21 = "ef21"


@dataclass(frozen=True, kw_only=True)
class Baseline(abc.ABC):
    """A gradient compressor with its options; both ends of a link are made from equal ones and the layout.

    Attributes:
        feedback: what is done about the error: one of `feedback_names()` (at the sender alone, see
            `deadreckon.codec.feedback`), or `ef21`: the difference to the last reconstruction h is coded, and both ends
            add it, h <- h + C(g - h).
        feedback_decay: of `feedback="leaky"`; the other rules ignore it.

    Raises:
        ConfigError: if an option is out of range.
    """

    name: ClassVar[str]
    feedback: str = "off"
    feedback_decay: float = 0.9

    def __post_init__(self) -> None:
        require_choice("feedback", self.feedback, (*feedback_names(), EF21))
        require_number("feedback_decay", self.feedback_decay, 1e-6, 1.0)

    @property
    def coder_unbiased(self) -> bool:
        """Whether E C(x) = x over the coder's own randomness, for any x; not unless a method says otherwise."""
        return False

    @property
    def unbiased(self) -> bool:
        """Whether a decoded vector is the encoded one in expectation. Error feedback, other than EF21, ends that."""
        return self.coder_unbiased and self.feedback in (Off.name, EF21)

    def initial(self, layout: Layout) -> Memory:
        """What the sender keeps from packet to packet besides the feedback, before any packet."""
        return ()

    def accumulated(self, vector: FloatVector, memory: Memory) -> tuple[FloatVector, Memory]:
        """What stands in for the vector, before feedback; the vector itself unless a method says otherwise."""
        return vector, memory

    @abc.abstractmethod
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        """A packet, and the sender's memory after it.

        Args:
            vector: `[param]`, finite.
            layout: of the vector.
            step: selects the randomness.
            memory: of the packet before, or of `initial`.

        Raises:
            EncodeError: if a number to be sent is beyond float32.
        """

    @abc.abstractmethod
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        """The vector of a packet, `[param]`; memory is bounded by the layout.

        Raises:
            PacketError: if it is none that `compress` made.
        """

    def encoder(self, layout: Layout) -> "BaselineEncoder":
        """A new sending end."""
        return BaselineEncoder(self, layout)

    def decoder(self, layout: Layout) -> "BaselineDecoder":
        """A new receiving end."""
        return BaselineDecoder(self, layout)


class _Sender(NamedTuple):
    """State of the sending end; `estimate` is h of EF21, `[param]`, or `[0]`."""

    feedback: FeedbackState
    estimate: FloatVector
    memory: Memory


@final
class BaselineEncoder:
    """Turns vectors into packets. Made by `Baseline.encoder`.

    Decoding is part of encoding here, so that `reconstruction` is what the decoder returns by construction.
    """

    def __init__(self, baseline: Baseline, layout: Layout) -> None:
        _require_size(layout)
        self._baseline = baseline
        self._layout = layout
        name = Off.name if baseline.feedback == EF21 else baseline.feedback
        self._feedback: ErrorFeedback = make_feedback(name, baseline.feedback_decay)
        self._state = _Sender(
            self._feedback.initial(layout.size), _initial_estimate(baseline, layout), baseline.initial(layout)
        )
        self._undo: _Sender | None = None
        self._reconstruction: FloatVector | None = None

    @torch.no_grad()
    def encode(self, vector: Tensor | npt.ArrayLike, step: SupportsIndex, learning_rate: float | None = None) -> bytes:
        """One vector as a packet.

        Args:
            vector: `[param]`, a tensor of any device or anything numpy takes; converted to float32.
            step: selects the randomness; should differ from packet to packet.
            learning_rate: at which the receiver applies it, for feedback; `None` if it is not known.

        Raises:
            LayoutError: if the vector's shape does not fit the layout.
            EncodeError: if the vector is not of finite real numbers, with feedback added too, or the step or the rate
                is none. The state is as before.
        """
        values = _values(vector, self._layout)
        number = _whole(step)
        state = self._state
        values, memory = self._baseline.accumulated(values, state.memory)
        with np.errstate(over="ignore", invalid="ignore"):
            values, _ = self._feedback.corrected(state.feedback, values, learning_rate)
            if len(state.estimate):
                values = values - state.estimate
        if not np.isfinite(values).all():
            raise EncodeError("The vector must be finite, with what is owed from earlier packets too. Skip this step.")
        packet, memory = self._baseline.compress(values, self._layout, number, memory)
        with np.errstate(over="ignore", invalid="ignore"):
            decoded = self._baseline.decompress(packet, self._layout)
            feedback = self._feedback.settled(state.feedback, values, decoded, learning_rate)
            result = _added(state.estimate, decoded)
        if not (np.isfinite(result).all() and np.isfinite(feedback.residual).all()):
            raise EncodeError("The vector is so large that float32 cannot hold what it decodes to. Skip this step.")
        self._undo = state
        self._state = _Sender(feedback, result if len(state.estimate) else state.estimate, memory)
        self._reconstruction = result
        return packet

    def abort(self) -> None:
        """Take the last packet back, exactly. Only the last one, and only once.

        Raises:
            EncodeError: if there is no packet to take back.
        """
        if self._undo is None:
            raise EncodeError("There is no packet to take back: `abort` undoes one `encode`, once.")
        self._state = self._undo
        self._undo = self._reconstruction = None

    @property
    def reconstruction(self) -> Tensor:
        """What the decoder returns for the last packet, `[param]`, float32; a copy.

        Raises:
            EncodeError: before the first packet.
        """
        if self._reconstruction is None:
            raise EncodeError("Nothing has been encoded yet.")
        return torch.from_numpy(self._reconstruction.copy())

    @property
    def feedback_state(self) -> FeedbackState:
        """What is owed after the last packet."""
        return self._state.feedback

    def state_dict(self) -> dict[str, Tensor]:
        """The sender's state as plain tensors, for checkpoints."""
        memory = {f"memory.{place}": torch.from_numpy(part.copy()) for place, part in enumerate(self._state.memory)}
        estimate = torch.from_numpy(self._state.estimate.copy())
        return {**self._feedback.to_dict(self._state.feedback), "estimate": estimate, **memory}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave; coding goes on as if it had never stopped.

        Raises:
            StateError: if it does not fit the layout and the options. Nothing changes then.
        """
        if set(saved) != set(self.state_dict()):
            raise StateError(f"The state must have {sorted(self.state_dict())}, got {sorted(saved)}.")
        feedback = self._feedback.from_dict(saved, self._layout.size)
        estimate = _like(saved["estimate"], self._state.estimate, "estimate")
        memory = tuple(
            _like(saved[f"memory.{place}"], part, f"memory.{place}") for place, part in enumerate(self._state.memory)
        )
        self._state = _Sender(feedback, estimate, memory)
        self._undo = self._reconstruction = None


@final
class BaselineDecoder:
    """Turns packets into vectors. Made by `Baseline.decoder`."""

    def __init__(self, baseline: Baseline, layout: Layout) -> None:
        _require_size(layout)
        self._baseline = baseline
        self._layout = layout
        self._estimate = _initial_estimate(baseline, layout)

    @torch.no_grad()
    def decode(self, packet: bytes) -> Tensor:
        """The vector of a packet, `[param]`, float32, equal bit for bit to the encoder's `reconstruction`.

        Args:
            packet: untrusted; memory is bounded by the layout. With EF21 packets come in order, each once: their
                frames are too bare to notice a lost one.

        Raises:
            PacketError: if no encoder made it. The state is as before.
        """
        if not isinstance(packet, bytes | bytearray | memoryview):
            raise PacketError(f"A packet must be bytes, got {type(packet).__name__}.")
        with np.errstate(over="ignore", invalid="ignore"):
            decoded = _added(self._estimate, self._baseline.decompress(bytes(packet), self._layout))
        if not np.isfinite(decoded).all():
            raise PacketError("The packet is damaged: it decodes to NaN or infinity.")
        if len(self._estimate):
            self._estimate = decoded
        return torch.from_numpy(decoded.copy())

    def state_dict(self) -> dict[str, Tensor]:
        """The receiver's state as plain tensors; empty of content but for EF21."""
        return {"estimate": torch.from_numpy(self._estimate.copy())}

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            StateError: if it does not fit the layout and the options. Nothing changes then.
        """
        if set(saved) != {"estimate"}:
            raise StateError(f"The state must have ['estimate'], got {sorted(saved)}.")
        self._estimate = _like(saved["estimate"], self._estimate, "estimate")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Check an option that is one of a few words.

    Raises:
        ConfigError: if it is not.
    """
    if value not in choices:
        raise ConfigError(f"`{name}` must be one of {choices}, got {value!r}.")


def require_whole(name: str, value: object, low: int, high: int) -> None:
    """Check an option that is a whole number within `low` and `high`.

    Raises:
        ConfigError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"`{name}` must be a whole number from {low} to {high}, got {value!r}.")


def require_number(name: str, value: object, low: float, high: float) -> None:
    """Check an option that is a finite number within `low` and `high`.

    Raises:
        ConfigError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (low <= value <= high < math.inf):
        raise ConfigError(f"`{name}` must be a number from {low} to {high}, got {value!r}.")


def _require_size(layout: Layout) -> None:
    if layout.size > MAX_SIZE:
        raise ConfigError(
            f"A packet holds at most {MAX_SIZE} coordinates, the layout has {layout.size}. Cut it with `Layout.slice`."
        )


def _initial_estimate(baseline: Baseline, layout: Layout) -> FloatVector:
    return np.zeros(layout.size if baseline.feedback == EF21 else 0, np.float32)


def _added(estimate: FloatVector, decoded: FloatVector) -> FloatVector:
    return estimate + decoded if len(estimate) else decoded


def _like(value: Tensor, mine: FloatVector, name: str) -> FloatVector:
    if tuple(value.shape) != mine.shape or value.dtype != torch.float32 or not bool(value.isfinite().all()):
        raise StateError(
            f"`{name}` must be finite float32 of shape {mine.shape}, got {value.dtype} {tuple(value.shape)}."
        )
    return value.detach().cpu().clone().contiguous().numpy()


def _values(vector: Tensor | npt.ArrayLike, layout: Layout) -> FloatVector:
    """The vector as a float32 array, which may share memory with it: nothing here writes to it."""
    given = vector.detach() if isinstance(vector, Tensor) else torch.from_numpy(np.array(vector))
    if tuple(given.shape) != (layout.size,):
        raise LayoutError(f"The vector must have shape ({layout.size},) to fit the layout, got {tuple(given.shape)}.")
    if not given.is_floating_point():
        raise EncodeError(f"The vector must be of floating-point numbers, got {given.dtype}.")
    return given.to("cpu", torch.float32).contiguous().numpy()


def _whole(step: SupportsIndex) -> int:
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_STEP:
        raise EncodeError(f"`step` must be a whole number from 0 to {MAX_STEP}, got {step!r}.")
    return number

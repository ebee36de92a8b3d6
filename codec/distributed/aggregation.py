"""The mean of vectors over ranks, compressed: what all ways to aggregate have in common."""

import abc
import collections
import re
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...forecast import Layout
from ..codec import Codec
from ..encoder import Encoder
from ..errors import CodecError, StateError
from ..tensor_bits import TensorBits
from .errors import PeerError, PeerLostError
from .peers import describe_codec, describe_machine, require_equal
from .traffic import Traffic, traffic_of
from .wire import Wire

_CUT = re.compile(r"\[\d+:\d+\]$")  # how `Layout.slice` names a piece
LARGEST_FRAME = 256  # bytes of a packet beyond its float32 vector, generously


class Aggregation(abc.ABC):
    """Averages one stream of vectors over ranks. Every rank must call `average` equally often, in the same order.

    The mean is of what was decoded, so that it is equal bit for bit on all ranks (of equal library versions and
    processors). A vector that is not finite makes it so on all ranks; what is owed is then what was owed before.

    Args:
        codec: the same on every rank.
        wire: to the other ranks.
        heal: whether ranks compare after each step if all could decode, and if not, send the step again as key frames.
            Costs one more small message a step. Without it, a rank that cannot decode raises, and the others lose it.
        allow_unlike: whether ranks may differ in library versions, processor or device kind; see `require_equal`.

    Attributes:
        name: of the way to aggregate.
        wire: to the other ranks.
        traffic: bytes so far.
        last_traffic: bytes of the last step.
        last_nmse: the error's share of what this rank sent last, `EncodeReport.nmse`; NaN before.

    Raises:
        ConfigError: on every rank, if the ranks' networks, settings or machines differ.
    """

    name: ClassVar[str]

    def __init__(self, codec: Codec, wire: Wire, heal: bool = False, allow_unlike: bool = False) -> None:
        self.wire = wire
        self.traffic = Traffic()
        self.last_traffic = Traffic()
        self.last_nmse = float("nan")
        self._codec = codec
        self._heal = heal
        self._step = -1
        self._wants_key_frame = False
        self._used: collections.deque[Encoder] = collections.deque()
        machine = describe_machine(wire)
        same = {"aggregation": self.name, "option heal": str(heal), **describe_codec(codec), **self._describe()}
        require_equal(wire, same if allow_unlike else same | machine, machine if allow_unlike else None)

    @property
    def layout(self) -> Layout:
        """Of the vectors."""
        return self._codec.layout

    @property
    def num_ranks(self) -> int:
        """How many take part."""
        return self.wire.size

    @torch.no_grad()
    def average(self, vector: Tensor, learning_rate: float | None = None) -> Tensor:
        """The mean over ranks of the decoded vectors, `[param]`, float32 on the CPU; equal bit for bit on all ranks.

        Args:
            vector: this rank's, `[param]`. One that is not finite makes the mean so on every rank.
            learning_rate: at which all ranks apply the mean, for error feedback, which then owes what it owes at the
                next rate; see `Encoder.encode`. Each rank owes its own error.

        Raises:
            LayoutError: if the vector's shape does not fit.
            EncodeError: if this rank cannot encode: the learning rate is negative, or what is owed beyond float32. No
                rank's error feedback has changed then.
            PeerError: if another rank reported that it cannot; it names the rank.
            PacketError: if a packet cannot be decoded, and healing is off or did not help.
            PeerLostError: if a rank is gone, or did not answer within the wire's timeout.
        """
        sent, received, before = self.wire.bytes_sent, self.wire.bytes_received, self.traffic
        try:
            mean = self._healed(vector, learning_rate)
        finally:
            carried = Traffic(
                sent_bytes=self.wire.bytes_sent - sent, received_bytes=self.wire.bytes_received - received
            )
            self.traffic = self.traffic + carried
        self.traffic = self.traffic + Traffic(num_steps=1)
        self.last_traffic = self.traffic - before
        return mean

    def request_key_frame(self) -> None:
        """Send the next step as key frames, which reset predictor and tables on all ranks. Call it on every rank."""
        self._wants_key_frame = True

    @abc.abstractmethod
    def tensor_bits(self) -> dict[str, TensorBits]:
        """What each tensor took of the packets that this rank made last, about: `up`, and `down` where there is one.

        Each packet counts once, however many ranks it went to. Costs about as much as coding them.
        """

    @abc.abstractmethod
    def owed(self) -> Tensor:
        """What error feedback of this rank still owes to the mean, `[param]`; its sum over ranks is all there is."""

    @abc.abstractmethod
    def owe(self, total: Tensor) -> None:
        """Owe this from now on, instead of what was owed: the sum over ranks of `owed`, the same on every rank.

        Where error feedback is off, nothing is owed.
        """

    def state_dict(self) -> dict[str, Any]:
        """This rank's state: tensors and integers. Save it for each rank."""
        return {
            "kind": self.name,
            "num_ranks": self.num_ranks,
            "step": self._step,
            "traffic": self.traffic.to_dict(),
            **self._own_state(),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what `state_dict` gave on the same rank of as many.

        Raises:
            StateError: if it is of another codec, way to aggregate or number of ranks.
        """
        if set(saved) != set(self.state_dict()) or (saved["kind"], saved["num_ranks"]) != (self.name, self.num_ranks):
            raise StateError(
                f"The saved aggregation is damaged or not of {self.num_ranks} ranks by {self.name!r}: it says "
                f"{saved.get('num_ranks')!r} ranks by {saved.get('kind')!r}."
            )
        self._load_own_state(saved)
        self._step = int(saved["step"])
        self.traffic = Traffic(**{name: int(value) for name, value in saved["traffic"].items()})

    def _healed(self, vector: Tensor, learning_rate: float | None) -> Tensor:
        """The mean; tried again with key frames if configured."""
        problem: CodecError | None = None
        for is_last in (False, True):
            self._step += 1
            self._used.clear()
            problem, mean = None, None
            try:
                mean = self._attempt(vector, learning_rate, self._wants_key_frame)
            except PeerLostError:
                raise
            except CodecError as error:
                problem = error
            if not self._heal:
                break
            flags = self.wire.gather(torch.tensor([problem is not None], dtype=torch.uint8))
            failed = [rank for rank, flag in enumerate(flags) if flag]
            if failed and problem is None:
                problem = PeerError(f"Rank {failed[0]} could not go on with this step; its own error says why.")
            if not failed or is_last:
                break
            self._undo()
            self._wants_key_frame = True
        if problem is not None:
            self._undo()
            raise problem
        assert mean is not None
        self._wants_key_frame = False
        if not np.isfinite(mean.numpy()).all():  # twenty times faster than torch's
            self._keep_owing()
        return mean

    def _keep_owing(self) -> None:
        """Owe what was owed before this step, whose mean nobody can apply."""
        for encoder in self._used:
            after = encoder.state_dict()
            encoder.abort()
            owed = {name: value for name, value in encoder.state_dict().items() if name.startswith("feedback.")}
            encoder.load_state_dict(after | owed)
        self._used.clear()

    def _undo(self) -> None:
        """Take back what was encoded in this attempt."""
        for encoder in self._used:
            encoder.abort()
        self._used.clear()

    def _encode(self, encoder: Encoder, vector: Tensor, learning_rate: float | None, key_frame: bool) -> bytes:
        """A packet, counted, and taken back if the attempt fails."""
        packet = encoder.encode(vector, self._step, key_frame, learning_rate)
        self._used.append(encoder)
        self.traffic = self.traffic + traffic_of(encoder.last_report)
        return packet

    def _require_length(self, rank: int, length: int, size: int, what: str = "its vector") -> None:
        """Check what a rank announces, before anything is allocated; 0 means that it cannot."""
        if length == 0:
            raise PeerError(f"Rank {rank} could not encode {what}; its own error says why.")
        largest = 4 * size + LARGEST_FRAME
        if not 0 < length <= largest:
            raise CodecError(f"Packets must have 1 to {largest} bytes, rank {rank} announces {length}.")

    @abc.abstractmethod
    def _describe(self) -> dict[str, str]:
        """What else ranks must share, by name."""

    @abc.abstractmethod
    def _attempt(self, vector: Tensor, learning_rate: float | None, key_frame: bool) -> Tensor:
        """One step's exchange. Raises a CodecError on this rank if it fails here; others may have succeeded."""

    @abc.abstractmethod
    def _own_state(self) -> dict[str, Any]: ...

    @abc.abstractmethod
    def _load_own_state(self, saved: dict[str, Any]) -> None: ...


def sum_by_tensor(parts: Iterable[TensorBits]) -> TensorBits:
    """The sum of packets; pieces of a tensor that is cut between shards count as the tensor."""
    total = TensorBits({}, 0)
    for part in parts:
        whole = TensorBits({}, part.rest)
        for name, bits in part.tensors.items():
            whole += TensorBits({_CUT.sub("", name): bits}, 0)
        total += whole
    return total


def residual_of(encoder: Encoder) -> Tensor:
    """What an encoder owes, `[param]`; zeros where error feedback is off."""
    residual = encoder.state_dict()["feedback.residual"]
    return residual if len(residual) else torch.zeros(encoder.layout.size)


def set_residual(encoder: Encoder, residual: Tensor) -> None:
    """Let an encoder owe this; nothing happens where error feedback is off."""
    saved = encoder.state_dict()
    if len(saved["feedback.residual"]):
        encoder.load_state_dict(saved | {"feedback.residual": residual.to(torch.float32)})

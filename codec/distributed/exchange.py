"""Averaging vectors over ranks by all-gather: every rank sends its packet to all, and decodes all."""

from typing import Any, ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ..codec import Codec
from ..errors import EncodeError
from ..tensor_bits import TensorBits
from .aggregation import Aggregation, residual_of, set_residual
from .wire import Wire

_HEADER_BYTES = 8  # a packet's length
_ROUNDING = 32  # bytes that room for a packet is rounded up to
_REMEMBERED = 4  # steps; on gradients a second gather then comes in a third of them, and an eighth of the room is empty


@final
class PacketExchange(Aggregation):
    """All-gather of packets: the reference. Exact, one round trip a step, and bit-identical on all ranks.

    A rank receives and decodes the packets of all others, (W - 1) n R bits and as many n symbols for W ranks, so it is
    for few ranks, about four. Gathers on gloo need equal lengths. So all ranks make room for the longest packets of the
    last steps and a little more; what does not fit comes in a second gather.

    Args:
        codec: the same on every rank.
        wire: to the other ranks.
        heal: see `Aggregation`.
        allow_unlike: see `Aggregation`.

    Attributes:
        encoder: of this rank's vectors.
        decoders: of the other ranks' packets, by rank.

    Raises:
        ConfigError: if the ranks differ.
    """

    name: ClassVar[str] = "all_gather"

    def __init__(self, codec: Codec, wire: Wire, heal: bool = False, allow_unlike: bool = False) -> None:
        super().__init__(codec, wire, heal, allow_unlike)
        self.encoder = codec.encoder(seed=wire.rank)
        self.decoders = {rank: codec.decoder() for rank in range(wire.size) if rank != wire.rank}
        self._longest: list[int] = []  # packet of all ranks at each of the last steps
        self._room = 0

    @override
    def tensor_bits(self) -> dict[str, TensorBits]:
        return {"up": self.encoder.tensor_bits()}

    @override
    def owed(self) -> Tensor:
        return residual_of(self.encoder) / self.num_ranks

    @override
    def owe(self, total: Tensor) -> None:
        set_residual(self.encoder, total)

    @override
    def _describe(self) -> dict[str, str]:
        return {}

    @override
    def _attempt(self, vector: Tensor, learning_rate: float | None, key_frame: bool) -> Tensor:
        try:
            packet = self._encode(self.encoder, vector, learning_rate, key_frame)
        except EncodeError:
            self._gather(b"")  # or the others would wait for this rank
            raise
        packets = self._gather(packet)
        self.last_nmse = self.encoder.last_report.nmse
        total, share = torch.zeros(self.layout.size), 1 / self.num_ranks
        for rank, received in enumerate(packets):
            if rank == self.wire.rank:  # the own packet decodes to what the encoder knows already
                self.encoder.add_decoded(total, share)
            else:
                self.decoders[rank].add_decoded(received, total, share)
        return total

    def _gather(self, packet: bytes) -> list[bytes]:
        """Every rank's packet, in rank order."""
        first = self._padded(len(packet).to_bytes(_HEADER_BYTES, "little") + packet, _HEADER_BYTES + self._room)
        begun = [bytes(part.numpy()) for part in self.wire.gather(first)]
        lengths = [int.from_bytes(part[:_HEADER_BYTES], "little") for part in begun]
        longest, room = max(lengths), self._room
        # The longest but one, so that one raw packet or key frame does not make the next steps long.
        self._longest = [*self._longest, longest][-_REMEMBERED:]
        self._room = _rounded(sorted(self._longest)[-2:][0] * 17 // 16)
        if not packet:
            return []  # nobody goes on
        for rank, length in enumerate(lengths):
            self._require_length(rank, length, self.layout.size)
        parts = [part[_HEADER_BYTES:] for part in begun]
        if longest > room:
            rest = self.wire.gather(self._padded(packet[room:], longest - room))
            parts = [part + bytes(more.numpy()) for part, more in zip(parts, rest, strict=True)]
        return [part[:length] for part, length in zip(parts, lengths, strict=True)]

    def _padded(self, data: bytes, size: int) -> Tensor:
        row = torch.zeros(size, dtype=torch.uint8)
        data = data[:size]
        if data:
            row[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return row

    @override
    def _own_state(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder.state_dict(),
            "decoders": {str(rank): decoder.state_dict() for rank, decoder in self.decoders.items()},
            "longest": list(self._longest),
            "room": self._room,
        }

    @override
    def _load_own_state(self, saved: dict[str, Any]) -> None:
        self.encoder.load_state_dict(saved["encoder"])
        for rank, decoder in self.decoders.items():
            decoder.load_state_dict(saved["decoders"][str(rank)])
        self._longest, self._room = [int(length) for length in saved["longest"]], int(saved["room"])


def _rounded(number: int) -> int:
    return -(-number // _ROUNDING) * _ROUNDING

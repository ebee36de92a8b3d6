"""Averaging vectors over processes by exchanging packets: padded all-gather, every rank decodes everything.

The reference transport: simple, exact, and bit-identical on all ranks, because all decode the same packets and add them
in rank order. A rank receives and decodes world-size packets, so it fits few ranks (about four).
"""

import torch
import torch.distributed as dist
from torch import Tensor

from ..codec import Codec
from ..errors import CodecError, ConfigError, EncodeError, StateError

_LENGTH_BYTES = 8
_LARGEST_FRAME = 256  # bytes of a packet beyond its float32 vector, generously


def require_equal_peers(codec: Codec, group: dist.ProcessGroup, device: torch.device) -> None:
    """Check that all ranks use the same layout, configuration and stream.

    Raises:
        ConfigError: on every rank, naming the first one that differs from rank 0.
    """
    digests = {
        "layout": bytes.fromhex(codec.layout.digest),
        "configuration": bytes.fromhex(codec.config.digest),
        "codec": bytes.fromhex(codec.digest),
    }
    for what, mine in digests.items():
        of_ranks = _all_gather(torch.tensor(list(mine), dtype=torch.uint8, device=device), group)
        texts = [bytes(digest.tolist()).hex()[:16] for digest in of_ranks]
        for rank, text in enumerate(texts):
            if text != texts[0] or not torch.equal(of_ranks[rank], of_ranks[0]):
                raise ConfigError(
                    f"All ranks must use the same {what}: rank 0 has {texts[0]}, rank {rank} has {text}. "
                    "Build the same network and `CodecConfig` on each."
                )


class PacketExchange:
    """Averages one stream of vectors over a process group, compressed; keeps an encoder and a decoder for each rank.

    Every rank must call `average` equally often. The average is of what was decoded, the own vector's included, so that
    all ranks get the same bits.

    Args:
        codec: the same on every rank.
        group: the processes.
        device: where the group's collectives want their tensors; the CPU for gloo.

    Attributes:
        bytes_sent: bytes this rank put on the wire: its packets with the padding of the all-gather, and their lengths.
        bytes_received: the same of all other ranks.
        packet_bytes: bytes of this rank's packets alone.

    Raises:
        ConfigError: if the ranks' codecs differ.
    """

    def __init__(self, codec: Codec, group: dist.ProcessGroup, device: torch.device | None = None) -> None:
        self._codec = codec
        self._group = group
        self._device = torch.device("cpu") if device is None else device
        require_equal_peers(codec, group, self._device)
        self.encoder = codec.encoder()
        self.decoders = [codec.decoder() for _ in range(dist.get_world_size(group))]
        self.bytes_sent = 0
        self.bytes_received = 0
        self.packet_bytes = 0

    @torch.no_grad()
    def average(self, vector: Tensor, learning_rate: float | None = None) -> Tensor:
        """The mean over ranks of the decoded vectors, `[param]`, float32 on the CPU; equal bit for bit on all ranks.

        Args:
            vector: this rank's, `[param]`. One that is not finite makes the mean so on every rank, at the same
                coordinates.
            learning_rate: at which all ranks apply the mean, for error feedback, which then owes what it owes at the
                next rate; see `Encoder.encode`. Each rank owes its own error.

        Raises:
            LayoutError: if the vector's shape does not fit.
            EncodeError: if this rank cannot encode: the learning rate is negative, or what is owed beyond float32. The
                others raise a CodecError that names this rank. No rank's state has changed then.
            CodecError: if a packet cannot be decoded. Every rank decodes the same packets and raises the same.
        """
        try:
            packet = self.encoder.encode(vector, self.encoder.last_step + 1, learning_rate=learning_rate)
        except EncodeError:
            self._lengths(0)  # or the others would wait for this rank
            raise
        lengths = self._lengths(len(packet))
        if 0 in lengths:
            self.encoder.abort()
            raise CodecError(f"Rank {lengths.index(0)} could not encode its vector; its own error says why.")
        total = torch.zeros(self._codec.layout.size)
        for decoder, received in zip(self.decoders, self._gather(packet, lengths), strict=True):
            total += decoder.decode(received)
        return total / len(self.decoders)

    def state_dict(self) -> dict[str, object]:
        """Encoder, decoders and byte counts of this rank: tensors and integers, to be saved for each rank."""
        return {
            "encoder": self.encoder.state_dict(),
            "decoders": [decoder.state_dict() for decoder in self.decoders],
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "packet_bytes": self.packet_bytes,
        }

    def load_state_dict(self, saved: dict) -> None:
        """Take over what `state_dict` gave on the same rank of as many.

        Raises:
            StateError: if it is of another codec or another number of ranks.
        """
        if set(saved) != set(self.state_dict()) or len(saved["decoders"]) != len(self.decoders):
            raise StateError(f"The saved exchange is damaged or not of {len(self.decoders)} ranks.")
        self.encoder.load_state_dict(saved["encoder"])
        for decoder, state in zip(self.decoders, saved["decoders"], strict=True):
            decoder.load_state_dict(state)
        self.bytes_sent = int(saved["bytes_sent"])
        self.bytes_received = int(saved["bytes_received"])
        self.packet_bytes = int(saved["packet_bytes"])

    def _lengths(self, length: int) -> list[int]:
        """The length of every rank's packet, in rank order; 0 where there is none."""
        mine = torch.tensor([length], dtype=torch.int64, device=self._device)
        return [int(of_rank) for of_rank in _all_gather(mine, self._group)]

    def _gather(self, packet: bytes, lengths: list[int]) -> list[bytes]:
        """Every rank's packet, in rank order."""
        largest = 4 * self._codec.layout.size + _LARGEST_FRAME
        if not all(0 < number <= largest for number in lengths):
            raise CodecError(f"Packets must have 1 to {largest} bytes, the ranks announce {lengths}.")
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(packet)] = torch.frombuffer(bytearray(packet), dtype=torch.uint8)
        received = _all_gather(padded.to(self._device), self._group)
        on_wire = max(lengths) + _LENGTH_BYTES
        self.packet_bytes += len(packet)
        self.bytes_sent += on_wire
        self.bytes_received += on_wire * (len(lengths) - 1)
        return [bytes(data[:number].cpu().numpy()) for data, number in zip(received, lengths, strict=True)]


def _all_gather(value: Tensor, group: dist.ProcessGroup) -> list[Tensor]:
    """`value` of every rank, in rank order; all of one shape."""
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, value, group=group)
    return parts

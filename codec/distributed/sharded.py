"""Averaging vectors over ranks by shards: each rank is the server of one part of the vector."""

import dataclasses
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ..codec import Codec
from ..config import CodecConfig
from ..encoder import Encoder
from ..errors import CodecError, ConfigError, EncodeError
from ..tensor_bits import TensorBits
from .aggregation import Aggregation, residual_of, set_residual, sum_by_tensor
from .peers import describe_codec
from .wire import Wire


@final
class ShardedExchange(Aggregation):
    """Packets to the owner of each shard, who decodes, averages, encodes once more and sends to all.

        up:    rank r sends C_up(shard_k of its vector) to rank k, for all k but r
        mean:  rank k adds the W decoded shards in rank order, its own exactly as it is, and divides by W
        down:  rank k sends C_down(mean of shard k) to all others

    Both ways are direct messages. A rank sends and receives (W - 1) / W n (R_up + R_down) bits, and decodes less than
    2 n symbols, whatever the number of ranks. The price is a second quantisation, whose error the owner feeds back
    (`down.feedback`), and four small steps of latency instead of one.

    Packets of a shard are the shorter the more ranks there are; below a few thousand coordinates of a shard their
    frames and tables count.

    Args:
        codec: of the vectors on their way up, the same on every rank.
        wire: to the other ranks.
        down: settings on the way down; those of the way up with `feedback="classic"` if not given.
        heal: see `Aggregation`.
        allow_unlike: see `Aggregation`.

    Attributes:
        up: encoders of the other ranks' shards, by rank.
        server: encoder of the own shard's mean.

    Raises:
        ConfigError: if the ranks differ, or there are more ranks than coordinates.

    References:
        The topology is a reduce-scatter followed by an all-gather; error feedback on both sides is double squeeze
        (Tang et al. 2019, arXiv:1905.05957).
    """

    name: ClassVar[str] = "sharded"

    def __init__(
        self,
        codec: Codec,
        wire: Wire,
        down: CodecConfig | None = None,
        heal: bool = False,
        allow_unlike: bool = False,
    ) -> None:
        layout, size = codec.layout, wire.size
        if layout.size < size:
            raise ConfigError(f"{size} ranks cannot each own a part of {layout.size} coordinates. Use 'all_gather'.")
        self._down_config = down_config(codec.config) if down is None else down
        super().__init__(codec, wire, heal, allow_unlike)
        bounds = [layout.size * rank // size for rank in range(size + 1)]
        self._spans = [slice(bounds[rank], bounds[rank + 1]) for rank in range(size)]
        ups = [codec.derived(layout.slice(span.start, span.stop)) for span in self._spans]
        downs = [codec.derived(layout.slice(span.start, span.stop), self._down_config) for span in self._spans]
        others = [rank for rank in range(size) if rank != wire.rank]
        self.up = {rank: ups[rank].encoder(seed=wire.rank) for rank in others}
        self._from_ranks = {rank: ups[wire.rank].decoder() for rank in others}
        self.server = downs[wire.rank].encoder(seed=size + wire.rank)
        self._from_servers = {rank: downs[rank].decoder() for rank in others}

    @property
    def own_span(self) -> slice:
        """The coordinates that this rank averages."""
        return self._spans[self.wire.rank]

    @override
    def tensor_bits(self) -> dict[str, TensorBits]:
        up = sum_by_tensor(encoder.tensor_bits() for encoder in self.up.values())
        return {"up": up, "down": sum_by_tensor([self.server.tensor_bits()])}

    @override
    def owed(self) -> Tensor:
        total = torch.zeros(self.layout.size)
        for rank, encoder in self.up.items():
            total[self._spans[rank]] = residual_of(encoder) / self.num_ranks
        total[self.own_span] = residual_of(self.server)
        return total

    @override
    def owe(self, total: Tensor) -> None:
        for rank, encoder in self.up.items():
            set_residual(encoder, torch.zeros(_length(self._spans[rank])))
        set_residual(self.server, total[self.own_span])

    @override
    def _describe(self) -> dict[str, str]:
        return describe_codec(Codec(self.layout, self._down_config, self._codec.stream), "way down: ")

    @override
    def _attempt(self, vector: Tensor, learning_rate: float | None, key_frame: bool) -> Tensor:
        rank, size = self.wire.rank, self.num_ranks
        packets = [b""] * size
        problem: CodecError | None = None
        try:
            for other, encoder in self.up.items():
                packets[other] = self._encode(encoder, vector[self._spans[other]], learning_rate, key_frame)
        except EncodeError as error:
            problem, packets = error, [b""] * size
        arrived = self._scatter(packets, self.own_span, "its vector", problem)
        self.last_nmse = _worst(list(self.up.values()))
        packet = b""
        try:
            mean = self._mean(vector, arrived)
            packet = self._encode(self.server, mean, learning_rate, key_frame)
        except CodecError as error:
            problem = error
        copies = [packet if other != rank else b"" for other in range(size)]
        from_servers = self._scatter(copies, None, "the mean of its shard", problem)
        result = torch.zeros(self.layout.size)
        self.server.add_decoded(result[self.own_span])
        for other, decoder in self._from_servers.items():
            decoder.add_decoded(from_servers[other], result[self._spans[other]])
        return result

    def _mean(self, vector: Tensor, arrived: list[bytes]) -> Tensor:
        """The own shard, averaged in rank order."""
        own = vector[self.own_span].to("cpu", torch.float32)
        total = torch.zeros(len(own))
        for rank in range(self.num_ranks):
            if rank == self.wire.rank:
                total += own
            else:
                self._from_ranks[rank].add_decoded(arrived[rank], total)
        return total.div_(self.num_ranks)

    def _scatter(self, packets: list[bytes], span: slice | None, what: str, problem: CodecError | None) -> list[bytes]:
        """Lengths, then packets; an empty packet tells the others that this rank cannot."""
        own = self.wire.rank
        lengths = self.wire.scatter_numbers([len(packet) for packet in packets])
        if problem is not None:
            # The others raise as soon as they see the lengths; nothing more is exchanged, on any rank.
            raise problem
        for rank, length in enumerate(lengths):
            if rank != own:
                self._require_length(rank, length, _length(self._spans[rank] if span is None else span), what)
        return self.wire.scatter(packets, lengths)

    @override
    def _own_state(self) -> dict[str, Any]:
        return {
            "up": {str(rank): encoder.state_dict() for rank, encoder in self.up.items()},
            "from_ranks": {str(rank): decoder.state_dict() for rank, decoder in self._from_ranks.items()},
            "server": self.server.state_dict(),
            "from_servers": {str(rank): decoder.state_dict() for rank, decoder in self._from_servers.items()},
        }

    @override
    def _load_own_state(self, saved: dict[str, Any]) -> None:
        self.server.load_state_dict(saved["server"])
        for name, ends in (("up", self.up), ("from_ranks", self._from_ranks), ("from_servers", self._from_servers)):
            for rank, end in ends.items():
                end.load_state_dict(saved[name][str(rank)])


def down_config(up: CodecConfig) -> CodecConfig:
    """Settings of the way down where none are given: those of the way up, with error feedback where it may be."""
    if up.predictor == "ef21" or up.rounding == "stochastic":
        return up
    return dataclasses.replace(up, feedback="classic")


def _length(span: slice) -> int:
    return span.stop - span.start


def _worst(encoders: list[Encoder]) -> float:
    return max((encoder.last_report.nmse for encoder in encoders), default=0.0)

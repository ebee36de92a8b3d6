"""The server's end: one stream of differences for all clients, and a decoder for each of them."""

import collections
from collections.abc import Hashable
from typing import final

import torch
from torch import Tensor

from ...forecast import Layout
from ..config import CodecConfig
from ..decoder import Decoder
from ..errors import ConfigError, OutOfStepError, PacketError
from .direction import DirectionFit
from .messages import Downlink, Update, down_codec, up_codec


@final
class ServerLinks:
    """A server's links to any number of clients, which may miss rounds, fail, or begin late.

    Each version of the weights is coded once, as its difference to what clients have of the last one, and kept for a
    while: a client that lacks a few gets those, or the weights whole where that is shorter. Which version a client has
    is believed only when it has answered.

    Memory: the weights, `keep` packets, and for each client a decoder. With the settings of `messages.UP` a decoder
    holds tables only, some kilobytes; with a predictor that looks back, or `scale_classes`, 4 to 8 bytes a coordinate.

    Args:
        layout: of the weights.
        up: how pseudo-gradients are coded; `messages.UP` if not given.
        down: how differences of weights are coded, without error feedback; `messages.DOWN` if not given.
        keep: versions whose packets are kept.

    Attributes:
        layout: of the weights.
        version: of the weights, -1 before any.
        weights: as clients have them, `[param]`; what was published, but for the last packet's error.
        sent_bytes: of packets and whole weights, to all clients.
        received_bytes: of updates.

    Raises:
        ConfigError: if `keep` is negative, or a configuration cannot work.
    """

    def __init__(
        self, layout: Layout, up: CodecConfig | None = None, down: CodecConfig | None = None, keep: int = 10
    ) -> None:
        if keep < 0:
            raise ConfigError(f"`keep` must be at least 0, got {keep}.")
        self.layout = layout
        self.version = -1
        self.weights = torch.zeros(layout.size)
        self.sent_bytes = 0
        self.received_bytes = 0
        self._up = up_codec(layout, up)
        self._encoder = down_codec(layout, down).encoder()
        self._packets: collections.deque[bytes] = collections.deque(maxlen=keep)
        self._decoders: dict[Hashable, Decoder] = {}
        self._known: dict[Hashable, int] = {}
        self._fit = DirectionFit(layout)
        self._direction: Tensor | None = None

    @torch.no_grad()
    def publish(self, weights: Tensor) -> None:
        """Make these the next version, unless they are the last one's; nothing is sent yet.

        Args:
            weights: `[param]`, finite.

        Raises:
            ConfigError: if they are not finite, or of another shape.
        """
        weights = weights.detach().to("cpu", torch.float32, copy=True)
        if tuple(weights.shape) != (self.layout.size,) or not bool(weights.isfinite().all()):
            raise ConfigError(f"The server's weights must be {self.layout.size} finite numbers.")
        if self.version < 0:
            self.weights = weights
        elif torch.equal(weights, self._published):
            return
        else:
            self._packets.append(self._encoder.encode(weights - self.weights, self.version + 1, key_frame=True))
            self._direction = self._encoder.reconstruction
            self.weights = self.weights + self._direction
        self._published = weights
        self.version += 1

    def message(self, client: Hashable) -> Downlink:
        """What to send to a client now. Until it has answered, it counts as one that has nothing.

        Raises:
            OutOfStepError: before anything was published.
        """
        if self.version < 0:
            raise OutOfStepError("Nothing was published yet. Call `publish` first.")
        lacks = self.version - self._known.pop(client, -1)
        packets, whole = tuple(self._packets)[len(self._packets) - lacks :] if lacks else (), None
        if lacks > len(self._packets) or sum(map(len, packets)) >= self.weights.nbytes:
            packets, whole = (), self.weights.clone()
        decoder = self._decoders.get(client)
        message = Downlink(self.version, packets, whole, decoder.last_step if decoder else -1)
        self.sent_bytes += message.num_bytes
        return message

    def confirm(self, client: Hashable, version: int) -> None:
        """Take note that a client has a version of the weights, because it says so."""
        if 0 <= version <= self.version:
            self._known[client] = version

    @torch.no_grad()
    def receive(self, client: Hashable, update: Update) -> Tensor:
        """A client's pseudo-gradient, `[param]`; it confirms the version of the weights too.

        Raises:
            OutOfStepError: if the update began from another version than the last one, or does not follow the client's
                last one. It counts as lost; the client's next packet is a key frame.
            PacketError: if it is damaged. As before.
        """
        self.received_bytes += update.num_bytes
        if update.version != self.version:
            raise OutOfStepError(
                f"Client {client!r} trained from version {update.version} of the weights, version {self.version} is "
                "out by now. Its update is dropped."
            )
        self.confirm(client, update.version)
        if client not in self._decoders:
            self._decoders[client] = self._up.decoder()
        prediction = None
        if update.coefficients:
            if self._direction is None:
                raise PacketError(f"Client {client!r} predicts from a step of the server that there was not.")
            prediction = self._fit.prediction(self._fit.from_bytes(update.coefficients), self._direction)
        decoded = self._decoders[client].decode(update.packet)
        return decoded if prediction is None else decoded + prediction

    def forget(self, client: Hashable) -> None:
        """Drop a client's decoder; should it come back, it begins anew."""
        self._decoders.pop(client, None)
        self._known.pop(client, None)

"""A client's end: takes in the server's weights, tells how far training went from them."""

from typing import Any, final

import torch
from torch import Tensor

from ...forecast import Layout
from ..config import CodecConfig
from ..errors import OutOfStepError, PacketError, StateError
from .direction import DirectionFit
from .messages import Downlink, Update, down_codec, up_codec


@final
class ClientLink:
    """One client's link to its server.

    Args:
        layout: of the weights.
        up: how pseudo-gradients are coded, the same on the server; `messages.UP` if not given.
        down: how differences of weights are coded, the same on the server; `messages.DOWN` if not given.
        seed: of stochastic rounding; another for each client.
        predicts: whether updates are told apart from the server's last step where that saves energy; `DirectionFit`.

    Attributes:
        layout: of the weights.
        version: of the weights, -1 before any.
        weights: as last received, `[param]`.
        sent: what the server decodes of the last update, `[param]`; zeros before any.
    """

    def __init__(
        self,
        layout: Layout,
        up: CodecConfig | None = None,
        down: CodecConfig | None = None,
        seed: int = 0,
        predicts: bool = True,
    ) -> None:
        self.layout = layout
        self.version = -1
        self.weights = torch.zeros(layout.size)
        self.sent = torch.zeros(layout.size)
        self._encoder = up_codec(layout, up).encoder(seed)
        self._decoder = down_codec(layout, down).decoder()
        self._fit = DirectionFit(layout) if predicts else None
        self._direction: Tensor | None = None
        self._acknowledged = -1

    @torch.no_grad()
    def receive(self, message: Downlink) -> Tensor:
        """The server's weights, `[param]`, equal bit for bit to what the server has for this version.

        Raises:
            OutOfStepError: if differences are missing; the server has to send the weights whole. Nothing changes then.
            PacketError: if a packet is damaged, or the weights do not fit. Nothing changes then.
        """
        weights, direction = self.weights, self._direction
        if message.whole is not None:
            if tuple(message.whole.shape) != (self.layout.size,):
                raise PacketError(f"Whole weights must have {self.layout.size} coordinates, got {message.whole.shape}.")
            weights, direction = message.whole.detach().to("cpu", torch.float32, copy=True), None
        elif message.version != self.version + len(message.packets) or self.version < 0:
            raise OutOfStepError(
                f"The client has version {self.version} of the weights; {len(message.packets)} packets do not make it "
                f"version {message.version}. Have the weights sent whole."
            )
        for packet in message.packets:
            direction = self._decoder.decode(packet)
            weights = weights + direction
        self.version, self.weights, self._direction = message.version, weights, direction
        self._acknowledged = message.acknowledged
        return weights.clone()

    @torch.no_grad()
    def send(self, local: Tensor) -> Update:
        """The update that says how far `local` is from the received weights.

        Args:
            local: this client's weights after training, `[param]`.

        Raises:
            OutOfStepError: before any weights were received.
            LayoutError: if the shape does not fit.
        """
        if self.version < 0:
            raise OutOfStepError("The client has no weights yet, so that it cannot tell how far it is from them.")
        vector = self.weights - local.detach().to("cpu", torch.float32)
        data, prediction = b"", None
        if self._fit is not None and self._direction is not None and bool(vector.isfinite().all()):
            fitted = self._fit.fit(vector, self._direction)
            if fitted.any():
                data, prediction = self._fit.to_bytes(fitted), self._fit.prediction(fitted, self._direction)
        # A packet that the server did not decode is lost; the next one must not build on it.
        lost = self._encoder.last_step != self._acknowledged
        packet = self._encoder.encode(
            vector if prediction is None else vector - prediction, self._encoder.last_step + 1, key_frame=lost
        )
        decoded = self._encoder.reconstruction
        self.sent = decoded if prediction is None else decoded + prediction
        return Update(self.version, packet, data)

    def state_dict(self) -> dict[str, Tensor]:
        """All of it as plain tensors: weights, what error feedback owes, the coder's tables."""
        direction = self._direction
        own = {
            "weights": self.weights.clone(),
            "direction": torch.zeros(0) if direction is None else direction.clone(),
            "sent": self.sent.clone(),
            "numbers": torch.tensor([self.version, self._acknowledged]),
        }
        up = {f"up.{name}": value for name, value in self._encoder.state_dict().items()}
        return own | up | {f"down.{name}": value for name, value in self._decoder.state_dict().items()}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            StateError: if it belongs to another network or other settings, or is damaged.
        """
        size = self.layout.size
        if set(saved) != set(self.state_dict()):
            raise StateError(f"A client's state is damaged: it has the entries {sorted(saved)}.")
        shapes: dict[str, Any] = {"weights": [(size,)], "sent": [(size,)], "direction": [(0,), (size,)]}
        for name, allowed in shapes.items():
            if tuple(saved[name].shape) not in allowed or saved[name].dtype != torch.float32:
                raise StateError(f"`{name}` of a client's state must be float32 of shape {allowed[-1]}.")
        if saved["numbers"].shape != (2,) or saved["numbers"].dtype != torch.int64:
            raise StateError("`numbers` of a client's state must be two whole numbers.")
        self._encoder.load_state_dict(_part(saved, "up."))
        self._decoder.load_state_dict(_part(saved, "down."))
        self.weights, self.sent = saved["weights"].clone(), saved["sent"].clone()
        self._direction = saved["direction"].clone() if len(saved["direction"]) else None
        self.version, self._acknowledged = (int(value) for value in saved["numbers"])


def _part(saved: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}

"""The receiving end."""

from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .body import Body, read_body
from .decoded import Decoded, Sparse, add_share, dense
from .endpoint import Endpoint
from .errors import OutOfStepError, PacketError
from .metric import scale_of
from .packet import HEAL, KEY_FRAME, NOT_FINITE, RAW, Header, fingerprint, read_packet
from .state import SharedState
from .symbol_coder import CoderState
from .vector_passes import all_finite


@final
class Decoder(Endpoint):
    """Turns packets into vectors. Made by `Codec.decoder`."""

    @torch.no_grad()
    def decode(self, packet: bytes) -> Tensor:
        """The vector of a packet, `[param]`, float32, equal bit for bit to the encoder's `reconstruction`.

        Bit-equality holds between ends of equal fingerprint (library versions, processor), and between any ends for
        predictors that are not forecasters. Packets come in order, each once; a key frame may follow any gap.

        Args:
            packet: one packet, untrusted. Memory is bounded by the layout and by the packet's own length.

        Raises:
            PacketError: if it is damaged or not of this link. The state is as before.
            OutOfStepError: if it is sound but does not follow the last one. The state is as before.
        """
        decoded = self._decoded(packet)
        if isinstance(decoded, Sparse) or not self._keeping.num_rows:
            return torch.from_numpy(dense(decoded))
        return torch.from_numpy(decoded.copy())

    @torch.no_grad()
    def add_decoded(self, packet: bytes, total: Tensor, share: float = 1.0) -> None:
        """Decode, and add `share` times the vector to `total`, `[param]`, float32 on the CPU, in place.

        Takes a fraction of the time where most of it is zero. Nothing is added where it raises, as `decode` does.
        """
        add_share(total.numpy(), self._decoded(packet), share)

    def _decoded(self, packet: bytes) -> Decoded:
        if not isinstance(packet, bytes | bytearray | memoryview):
            raise PacketError(f"A packet must be bytes, got {type(packet).__name__}.")
        packet = bytes(packet)
        header, data = read_packet(packet, self._link, self._due(), self._key)
        base = self._base(header)
        raw = bool(header.flags & RAW)
        finite = not header.flags & NOT_FINITE
        if not finite and not raw:
            raise PacketError("The packet is damaged: only raw packets may hold NaN or infinity.")
        if raw:
            decoded, coder, body = self._raw(data), None, None
        elif self._config.lattice == "raw":
            raise PacketError("The packet is damaged: the raw coder has raw packets only.")
        else:
            decoded, coder, body = self._coded(data, base, header.step)
        if all_finite(decoded.values if isinstance(decoded, Sparse) else decoded) != finite:
            raise PacketError("The packet is damaged: its flag for NaN and infinity does not fit what it holds.")
        self._state = self._keeping.advanced(
            base,
            packet,
            header.step,
            header.sequence,
            decoded if finite else None,
            coder,
            body.quantised.offsets if body else None,
            body.coefficients if body else None,
        )
        return decoded

    def _base(self, header: Header) -> SharedState:
        """The state the packet was coded against."""
        state = self._state
        if header.step <= state.last_step:
            raise OutOfStepError(
                f"The packet is of step {header.step}, but step {state.last_step} has been decoded: it is repeated or "
                "late. Drop it; if the sender was restarted at an earlier step, call `reset` first."
            )
        base = self._key_frame_base(header.sequence) if header.flags & KEY_FRAME else state
        if header.state and header.state[1] == fingerprint() and header.state[0] != base.vectors_digest():
            raise OutOfStepError(
                f"Packet {header.sequence} was coded against another state, though libraries and processor are "
                f"equal: memory or a saved state is damaged on one end. {HEAL}"
            )
        return base

    def _raw(self, data: bytes) -> npt.NDArray[np.float32]:
        if len(data) != 4 * self._layout.size:
            raise PacketError(
                f"The packet is damaged: {len(data)} bytes of float32, the layout has {self._layout.size} coordinates."
            )
        return np.frombuffer(data, "<f4").astype(np.float32)

    def _coded(self, data: bytes, base: SharedState, step: int) -> tuple[Decoded, CoderState, Body]:
        basis = self._predictor.basis(base, step)
        context = self._context(base)
        body, coder = read_body(data, context, (len(self._predictor.spans), len(basis)))
        quantised, scale = body.quantised, None
        if context.weighted:
            scale = scale_of(base.moment.numpy(), self._lacking(base), body.floor)
            basis = tuple(row / scale for row in basis)
        with np.errstate(over="ignore", invalid="ignore"):
            coding = self._codings[body.lattice]
            told = quantised.points, quantised.offsets, quantised.cell_index, body.levels
            prediction = self._prediction(body.coefficients, basis)
            if prediction is None and scale is None and not self._keeping.needs_vectors:
                sparse = coding.nonzero(*told)
                if sparse is not None:
                    return sparse, coder, body
            values = coding.reconstruct(*told)
            if prediction is not None:
                values += prediction
            if scale is not None:
                values *= scale
        return values, coder, body

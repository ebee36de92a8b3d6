"""The sending end."""

import math
import operator
from typing import NamedTuple, SupportsIndex, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import LayoutError
from . import coefficients
from .body import Body, BodyBits, write_body
from .endpoint import Endpoint
from .errors import EncodeError
from .lattice import Quantiser, cell_index, cell_width, reconstruct
from .packet import KEY_FRAME, MAX_STEP, NOT_FINITE, RAW, STATE_DIGEST_EVERY, Header, fingerprint, write_packet
from .state import SharedState
from .symbols import to_symbols

# Rounding the result to float32 adds error that the search does not see; these shares of the bound are tried in turn.
_SHARES = (1.0, 0.98, 0.9, 0.5)


class EncodeReport(NamedTuple):
    """What one packet cost and what it gave.

    Attributes:
        num_bits: eight times the packet's length; the sum of the parts that follow.
        header_bits: the frame: header, checksum, authentication.
        quantiser_bits: cell width and centroids.
        coefficient_bits: coefficients of the prediction.
        table_bits: which table each group uses.
        symbol_bits: entropy-coded symbols.
        escape_bits: raw bits of large magnitudes.
        raw_bits: the vector itself, where it was sent as it is.
        nmse: ||g - decoded||^2 / ||g||^2; 0 for raw packets and for g = 0.
        residual_ratio: ||g - prediction||^2 / ||g||^2; 1 for raw packets and for g = 0.
        cell_index: of the lattice's cell width; 0 for raw packets.
        coefficients: of the prediction, `[block, basis]`; blocks are the tensors that are not empty, or the vector.
    """

    num_bits: int
    header_bits: int
    quantiser_bits: int
    coefficient_bits: int
    table_bits: int
    symbol_bits: int
    escape_bits: int
    raw_bits: int
    nmse: float
    residual_ratio: float
    cell_index: int
    coefficients: npt.NDArray[np.float64]


class _Coded(NamedTuple):
    """A vector in coded form, and what it decodes to."""

    data: bytes
    bits: BodyBits
    body: Body
    seen: npt.NDArray[np.int64]
    vector: npt.NDArray[np.float32]
    nmse: float
    residual_ratio: float


@final
class Encoder(Endpoint):
    """Turns vectors into packets. Made by `Codec.encoder`.

    Each `encode` moves the shared state on, in the belief that the packet arrives. If it did not, `abort` takes that
    back. One encoder serves one decoder, or several that all receive every packet.
    """

    _undo: SharedState | None = None
    _reconstruction: Tensor | None = None
    _report: EncodeReport | None = None

    @torch.no_grad()
    def encode(self, vector: Tensor | npt.ArrayLike, step: SupportsIndex, key_frame: bool = False) -> bytes:
        """One vector as a packet.

        A vector with NaN or infinity is sent as float32, exactly, and leaves the predictor's state as it was. So is one
        whose coded form would be longer than float32, or could not keep `nmse`; those enter the state.

        Args:
            vector: `[param]`, a tensor of any device or anything numpy takes; converted to float32.
            step: the optimiser step it belongs to, larger than the last one.
            key_frame: whether to reset the state on both ends first, so that a decoder that missed packets can follow.
                The first packet always does.

        Raises:
            LayoutError: if the vector's shape does not fit the layout.
            EncodeError: if the vector is not of real numbers, or `step` does not increase.
        """
        values = self._values(vector)
        step = _whole(step)
        if step <= self._state.last_step:
            raise EncodeError(
                f"`step` must increase: the last packet was of step {self._state.last_step}, got {step}. "
                "Call `abort` to take that packet back, or `reset` on both ends to start again."
            )
        key_frame = key_frame or self._state.last_step < 0
        base = self._key_frame_base(self._state.sequence) if key_frame else self._state
        finite = bool(np.isfinite(values).all())
        coded = self._coded(values, base, step) if finite and self._config.lattice != "raw" else None
        data = coded.data if coded else values.astype("<f4", copy=False).tobytes()
        flags = KEY_FRAME * key_frame | (0 if coded else RAW) | (0 if finite else NOT_FINITE)
        with_digest = base.sequence % STATE_DIGEST_EVERY == 0 and not key_frame
        digests = (base.float_digest(), fingerprint()) if with_digest else None
        header = Header(flags, step, base.sequence, base.chain[:8], digests)
        packet = write_packet(header, data, self._link, self._key)

        decoded = torch.from_numpy(coded.vector if coded else values)
        self._undo = self._state
        self._state = self._keeping.advanced(
            base,
            packet,
            step,
            base.sequence,
            decoded if finite else None,
            coded.seen if coded else None,
            coded.body.cell_index if coded else None,
        )
        self._reconstruction = decoded
        self._report = _report(packet, data, coded)
        return packet

    def abort(self) -> None:
        """Take the last packet back, exactly: as if `encode` had not been called. Only the last one, and only once.

        Raises:
            EncodeError: if there is no packet to take back.
        """
        if self._undo is None:
            raise EncodeError("There is no packet to take back: `abort` undoes one `encode`, once.")
        self._state = self._undo
        self._undo = self._reconstruction = self._report = None

    @property
    def reconstruction(self) -> Tensor:
        """What the decoder returns for the last packet, `[param]`, float32; a copy.

        Raises:
            EncodeError: before the first packet.
        """
        if self._reconstruction is None:
            raise EncodeError("Nothing has been encoded yet.")
        return self._reconstruction.clone()

    @property
    def last_report(self) -> EncodeReport:
        """What the last packet cost and gave.

        Raises:
            EncodeError: before the first packet.
        """
        if self._report is None:
            raise EncodeError("Nothing has been encoded yet.")
        return self._report

    @override
    def reset(self) -> None:
        super().reset()
        self._undo = self._reconstruction = self._report = None

    @override
    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        super().load_state_dict(saved)
        self._undo = self._reconstruction = self._report = None

    def _values(self, vector: Tensor | npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The vector as a float32 array of its own."""
        given = vector.detach() if isinstance(vector, Tensor) else torch.from_numpy(np.array(vector))
        if tuple(given.shape) != (self._layout.size,):
            raise LayoutError(
                f"The vector must have shape ({self._layout.size},) to fit the layout, got {tuple(given.shape)}."
            )
        if not given.is_floating_point():
            raise EncodeError(f"The vector must be of floating-point numbers, got {given.dtype}.")
        return given.to("cpu", torch.float32, copy=True).contiguous().numpy()

    def _coded(self, values: npt.NDArray[np.float32], base: SharedState, step: int) -> _Coded | None:
        """The coded form, or `None` where float32 is shorter or the bound cannot be kept."""
        wide = values.astype(np.float64)
        energy = float(wide @ wide)
        bound = self._config.nmse * energy
        basis = self._predictor.basis(base, step)
        guess = cell_index(max(math.sqrt(12 * bound / max(len(values), 1)), 1e-300))
        start = base.cell_index or guess
        weights = self._predictor.coefficients(values, basis, cell_width(start), self._config.dead_zone)
        prediction = self._prediction(weights, basis)
        with np.errstate(over="ignore", invalid="ignore"):
            residual = values - prediction
            if not np.isfinite(residual).all():
                weights = np.zeros_like(weights)
                prediction = self._prediction(weights, basis)
                residual = values
            quantiser = Quantiser(residual, self._config.dead_zone)
            for share in _SHARES:
                trial = quantiser.coarsest(share * bound, start)
                if trial is None:
                    return None
                symbols, escaped = to_symbols(quantiser.values(trial))
                decoded = prediction + reconstruct(symbols, escaped, trial.offsets, trial.cell_index)
                left = wide - decoded
                error = float(left @ left)
                if error <= bound:  # false too where float32 overflowed
                    break
            else:
                return None
        body = Body(trial.cell_index, trial.offsets, weights, symbols, escaped)
        data, bits, seen = write_body(body, self._groups, base.counts.numpy())
        if len(data) >= 4 * len(values):
            return None
        scale = energy or 1.0
        ratio = quantiser.energy / scale if energy else 1.0
        return _Coded(data, bits, body, seen, decoded, error / scale, ratio)


def _whole(step: SupportsIndex) -> int:
    """The step as an `int`; numpy's whole numbers, which stores give, are welcome."""
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_STEP:
        raise EncodeError(f"`step` must be a whole number from 0 to {MAX_STEP}, got {step!r}.")
    return number


def _report(packet: bytes, data: bytes, coded: _Coded | None) -> EncodeReport:
    header_bits = 8 * (len(packet) - len(data))
    if coded is None:
        empty = np.zeros((0, 0))
        return EncodeReport(8 * len(packet), header_bits, 0, 0, 0, 0, 0, 8 * len(data), 0.0, 1.0, 0, empty)
    weights = coded.body.coefficients / coefficients.UNIT
    return EncodeReport(
        8 * len(packet),
        header_bits,
        *coded.bits,
        raw_bits=0,
        nmse=coded.nmse,
        residual_ratio=coded.residual_ratio,
        cell_index=coded.body.cell_index,
        coefficients=weights,
    )

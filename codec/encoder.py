"""The sending end."""

import math
import operator
from typing import NamedTuple, SupportsIndex, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Layout, LayoutError
from . import coefficients
from .body import Body, BodyBits, write_body
from .coding import Search
from .config import CodecConfig
from .endpoint import Endpoint
from .energy import energy, squared_error
from .errors import EncodeError, StateError
from .feedback import FeedbackState
from .lattice import NUM_WIDTHS, WIDTHS_PER_OCTAVE, cell_index, cell_width
from .metric import floor_exponent, scale_of
from .modes import Blocks, Uniform
from .packet import KEY_FRAME, MAX_STEP, NOT_FINITE, RAW, STATE_DIGEST_EVERY, Header, fingerprint, write_packet
from .rate_control import ControlState, Outcome, after
from .state import SharedState
from .stochastic import RoundingKey
from .symbol_coder import ERROR_BITS, NO_VECTOR, CoderState, Levels

# Rounding the result to float32 adds error that the search does not see; these shares of the bound are tried in turn.
_SHARES = (1.0, 0.98, 0.9, 0.5)
_SAFE_ENERGY = 1e70  # of a residual that float32 certainly holds once it has been through the lattice


class EncodeReport(NamedTuple):
    """What one packet cost and what it gave.

    Attributes:
        num_bits: eight times the packet's length; the sum of the parts that follow.
        header_bits: the frame: header, checksum, authentication.
        quantiser_bits: cell width and centroids.
        level_bits: which tensors have wider cells or no vector.
        coefficient_bits: coefficients of the prediction, and padding to a whole byte.
        symbol_bits: entropy-coded symbols, raw bits of large magnitudes included.
        raw_bits: the vector itself, where it was sent as it is.
        nmse: ||g - decoded||^2 / ||g||^2; 0 for raw packets and for g = 0. With error feedback, g is what was coded:
            the vector and what was owed.
        residual_ratio: ||g - prediction||^2 / ||g||^2; 1 for raw packets and for g = 0.
        cell_index: of the lattice's cell width; 0 for raw packets.
        coefficients: of the prediction, `[block, basis]`; blocks are the tensors that are not empty, or the vector.
    """

    num_bits: int
    header_bits: int
    quantiser_bits: int
    level_bits: int
    coefficient_bits: int
    symbol_bits: int
    raw_bits: int
    nmse: float
    residual_ratio: float
    cell_index: int
    coefficients: npt.NDArray[np.float64]


class _Own(NamedTuple):
    """What the encoder keeps for itself: no decoder knows of it."""

    feedback: FeedbackState
    control: ControlState


class _Coded(NamedTuple):
    """A vector in coded form, and what it decodes to."""

    data: bytes
    bits: BodyBits
    body: Body
    state: CoderState
    vector: npt.NDArray[np.float32]
    nmse: float
    residual_ratio: float


@final
class Encoder(Endpoint):
    """Turns vectors into packets. Made by `Codec.encoder`.

    Each `encode` moves the shared state on, in the belief that the packet arrives. If it did not, `abort` takes that
    back. One encoder serves one decoder, or several that all receive every packet.
    """

    _undo: tuple[SharedState, _Own] | None = None
    _reconstruction: Tensor | None = None
    _report: EncodeReport | None = None

    def __init__(self, layout: Layout, config: CodecConfig, stream: str, key: bytes | None, seed: int = 0) -> None:
        super().__init__(layout, config, stream, key)
        self._seed = operator.index(seed) % 2**64
        self._feedback = config.make_feedback()
        self._control = config.make_control()
        self._own = self._fresh()

    @torch.no_grad()
    def encode(
        self,
        vector: Tensor | npt.ArrayLike,
        step: SupportsIndex,
        key_frame: bool = False,
        learning_rate: float | None = None,
    ) -> bytes:
        """One vector as a packet.

        A vector with NaN or infinity is sent as float32, exactly, and leaves all state as it was but the count of
        packets: predictor, tables, error feedback, rate control. So is one whose coded form would be longer than
        float32, or could not keep `nmse`; those enter the state.

        Args:
            vector: `[param]`, a tensor of any device or anything numpy takes; converted to float32.
            step: the optimiser step it belongs to, larger than the last one.
            key_frame: whether to reset the state on both ends first, so that a decoder that missed packets can follow.
                The first packet always does. What error feedback owes is kept.
            learning_rate: at which the receiver applies the vector. Error feedback rescales what it owes when the rate
                changes; `None` if it does not, or if the rate is already inside the vector.

        Raises:
            LayoutError: if the vector's shape does not fit the layout.
            EncodeError: if the vector is not of real numbers, `step` does not increase, or the learning rate is
                negative or not finite.
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
        finite = math.isfinite(energy(values))  # squares of float32 do not overflow in float64
        if finite:
            values = self._feedback.corrected(self._own.feedback, values, learning_rate)
            if self._config.feedback != "off" and not np.isfinite(values).all():
                raise EncodeError(
                    "The vector plus what error feedback owes is beyond float32. Lower the learning rate."
                )
        can_be_coded = finite and len(values) and self._config.lattice != "raw"
        coded = self._coded(values, base, step) if can_be_coded else None
        data = coded.data if coded else values.astype("<f4", copy=False).tobytes()
        flags = KEY_FRAME * key_frame | (0 if coded else RAW) | (0 if finite else NOT_FINITE)
        with_digest = base.sequence % STATE_DIGEST_EVERY == 0 and not key_frame
        digests = (base.vectors_digest(), fingerprint()) if with_digest else None
        header = Header(flags, step, base.sequence, digests)
        packet = write_packet(header, data, self._link, self._due(), self._key)

        decoded = torch.from_numpy(coded.vector if coded else values.copy())
        self._undo = self._state, self._own
        if finite:
            self._own = self._settled(values, decoded.numpy(), learning_rate, packet, coded)
        self._state = self._keeping.advanced(
            base,
            packet,
            step,
            base.sequence,
            decoded if finite else None,
            coded.state if coded else None,
            coded.body.quantised.offsets if coded else None,
            coded.body.coefficients if coded else None,
        )
        self._reconstruction = decoded
        self._report = _report(packet, data, coded)
        return packet

    def _fresh(self) -> _Own:
        return _Own(self._feedback.initial(self._layout.size), ControlState())

    def _settled(
        self,
        values: npt.NDArray[np.float32],
        decoded: npt.NDArray[np.float32],
        learning_rate: float | None,
        packet: bytes,
        coded: _Coded | None,
    ) -> _Own:
        """What the encoder keeps for itself after a packet."""
        feedback = self._feedback.settled(self._own.feedback, values, decoded, learning_rate)
        control = self._own.control
        if values.any():  # zeros say nothing of how wide cells should be
            outcome = Outcome(8 * len(packet) / len(values), coded.nmse if coded else 0.0)
            cells = coded.body.quantised.cell_index if coded else None
            control = after(self._control, control, outcome, cells)
        return _Own(feedback, control)

    def abort(self) -> None:
        """Take the last packet back, exactly: as if `encode` had not been called. Only the last one, and only once.

        Raises:
            EncodeError: if there is no packet to take back.
        """
        if self._undo is None:
            raise EncodeError("There is no packet to take back: `abort` undoes one `encode`, once.")
        self._state, self._own = self._undo
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
        self._own = self._fresh()
        self._undo = self._reconstruction = self._report = None

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """The shared state and what is the encoder's alone: error feedback and rate control."""
        feedback = {f"feedback.{name}": value for name, value in self._feedback.to_dict(self._own.feedback).items()}
        control = torch.tensor(self._own.control, dtype=torch.float64)
        return super().state_dict() | feedback | {"control": control}

    @override
    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        shared = {name: value for name, value in saved.items() if name != "control" and "." not in name}
        feedback = {name.removeprefix("feedback."): value for name, value in saved.items() if "." in name}
        own = _Own(self._feedback.from_dict(feedback, self._layout.size), _control_from(saved.get("control")))
        super().load_state_dict(shared)
        self._own = own
        self._undo = self._reconstruction = self._report = None

    def _values(self, vector: Tensor | npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The vector as float32; perhaps the caller's memory."""
        given = vector.detach() if isinstance(vector, Tensor) else torch.from_numpy(np.array(vector))
        if tuple(given.shape) != (self._layout.size,):
            raise LayoutError(
                f"The vector must have shape ({self._layout.size},) to fit the layout, got {tuple(given.shape)}."
            )
        if not given.is_floating_point():
            raise EncodeError(f"The vector must be of floating-point numbers, got {given.dtype}.")
        return given.to("cpu", torch.float32).contiguous().numpy()

    def _coded(self, values: npt.NDArray[np.float32], base: SharedState, step: int) -> _Coded | None:
        """The coded form, or `None` where float32 is shorter or the bound cannot be kept."""
        context = self._context(base)
        basis = self._predictor.basis(base, step)
        floor, scale = 0, None
        if context.weighted:
            floor = floor_exponent(base.moment.numpy(), self._lacking(base))
            scale = scale_of(base.moment.numpy(), self._lacking(base), floor)
            values, basis = values / scale, tuple(row / scale for row in basis)
        whole = energy(values)
        bound = self._config.nmse * whole
        fixed = self._own.control.cell_index >= 0
        start = base.coder.cell_index if base.coder.num_updates else _guess(bound, len(values))
        start = self._own.control.cell_index if fixed else start
        rounding = RoundingKey(self._seed, step) if self._config.rounding == "stochastic" else None
        levels = np.zeros(context.num_matrices, np.uint8)
        weights = self._predictor.coefficients(values, basis, self._coding.cost(base.coder, start))
        prediction = self._prediction(weights, basis)
        with np.errstate(over="ignore", invalid="ignore"):
            residual, left = values, whole
            if prediction is not None:
                residual = values - prediction
                left = energy(residual)
                if not math.isfinite(left):
                    weights, prediction, residual, left = np.zeros_like(weights), None, values, whole
            levels = self._levels(values, residual, base, start)
            coded_residual, given_up = self._without(residual, levels)
            for share in _SHARES:
                room = share * (bound - given_up)
                quantised = self._coding.quantise(
                    Search(coded_residual, left - given_up, room, start, fixed, levels, base.coder, rounding)
                )
                if quantised is None:
                    return None
                decoded = self._coding.reconstruct(quantised.points, quantised.offsets, quantised.cell_index, levels)
                if prediction is not None:
                    decoded += prediction
                if fixed and prediction is None and quantised.error is not None and left < _SAFE_ENERGY:
                    error = quantised.error + given_up
                else:
                    error = squared_error(values, decoded)
                if error <= bound or ((fixed or rounding) and math.isfinite(error)):  # false where float32 overflowed
                    break
            else:
                return None
        if scale is not None:
            decoded *= scale
            if not np.isfinite(decoded).all():
                return None
        body = Body(levels, weights, quantised, floor)
        data, bits, state = write_body(body, context)
        if len(data) >= 4 * len(values):
            return None
        return _Coded(data, bits, body, state, decoded, error / (whole or 1.0), left / whole if whole else 1.0)

    def _levels(
        self, values: npt.NDArray[np.float32], residual: npt.NDArray[np.float32], base: SharedState, cell_index: int
    ) -> Levels:
        """What the policy says; all 0 where tensors without a vector would leave too much error."""
        plain = np.zeros(len(self._matrices), np.uint8)
        policy = self._config.modes
        if isinstance(policy, Uniform):
            return plain
        spans = [part.span for part in self._matrices]
        energies = np.array([energy(values[span]) for span in spans])
        residuals = np.array([energy(residual[span]) for span in spans])

        def price(level: int) -> npt.NDArray[np.float64]:
            if level == NO_VECTOR:
                return residuals * (ERROR_BITS / cell_width(cell_index) ** 2)
            cost = self._coding.cost(base.coder, cell_index + level * WIDTHS_PER_OCTAVE, 4.0**level)
            return np.array(
                [cost(np.arange(span.start, span.stop), residual[span].astype(np.float64)) for span in spans]
            )

        levels = policy.levels(Blocks(energies, residuals, self._config.nmse, price))
        given_up = float(residuals[levels == NO_VECTOR].sum())
        return levels if given_up < self._config.nmse * float(energies.sum()) else plain

    def _without(self, residual: npt.NDArray[np.float32], levels: Levels) -> tuple[npt.NDArray[np.float32], float]:
        """The residual with zeros for tensors that have no vector, and the energy that is lost so."""
        left_out = np.flatnonzero(levels == NO_VECTOR)
        if not len(left_out):
            return residual, 0.0
        kept, lost = residual.copy(), 0.0
        for which in left_out:
            span = self._matrices[which].span
            lost += energy(residual[span])
            kept[span] = 0
        return kept, lost


def _guess(bound: float, size: int) -> int:
    """The cell index at which an error of `bound` would be left at high rate."""
    return cell_index(max(math.sqrt(12 * bound / max(size, 1)), 1e-300))


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
        return EncodeReport(8 * len(packet), header_bits, 0, 0, 0, 0, 8 * len(data), 0.0, 1.0, 0, empty)
    weights = coded.body.coefficients / coefficients.UNIT
    return EncodeReport(
        8 * len(packet),
        header_bits,
        *coded.bits,
        raw_bits=0,
        nmse=coded.nmse,
        residual_ratio=coded.residual_ratio,
        cell_index=coded.body.quantised.cell_index,
        coefficients=weights,
    )


def _control_from(saved: Tensor | None) -> ControlState:
    if saved is None or tuple(saved.shape) != (2,) or saved.dtype != torch.float64 or not saved.isfinite().all():
        raise StateError("`control` of an encoder's state must be two finite float64 numbers.")
    debt, cell_index = saved.tolist()
    if not (cell_index == int(cell_index) and -1 <= cell_index < NUM_WIDTHS):
        raise StateError(f"`control` of an encoder's state names cell width {cell_index} of {NUM_WIDTHS}.")
    return ControlState(debt, int(cell_index))

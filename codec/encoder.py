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
from .body import Body, Context, write_body
from .coding import Search
from .config import CodecConfig
from .decoded import Decoded, Sparse, add_share, dense
from .encode_report import Coded, EncodeReport, report_of
from .endpoint import Endpoint
from .energy import energy, squared_error
from .errors import EncodeError, StateError
from .feedback import FeedbackState
from .lattice import NUM_WIDTHS, WIDTHS_PER_OCTAVE, cell_index, cell_width
from .lattice_choice import Attempt, advantage, allowance, chosen, is_trial, updated
from .metric import floor_exponent, scale_of
from .modes import Blocks, Uniform
from .packet import KEY_FRAME, MAX_STEP, NOT_FINITE, RAW, STATE_DIGEST_EVERY, Header, fingerprint, write_packet
from .rate_control import CellsAt, ControlState, Outcome, after
from .state import SharedState
from .stochastic import RoundingKey
from .symbol_coder import ERROR_BITS, NO_VECTOR, CoderState, Levels
from .tensor_bits import TensorBits, tensor_bits
from .vector_passes import all_finite

# Rounding the result to float32 adds error that the search does not see; these shares of the bound are tried in turn.
_SHARES = (1.0, 0.98, 0.9, 0.5)
_SAFE_ENERGY = 1e70  # of a residual that float32 certainly holds once it has been through the lattice


class _Own(NamedTuple):
    """What the encoder keeps for itself: no decoder knows of it."""

    feedback: FeedbackState
    control: ControlState
    lead: float  # of lattice Z over E8, where both are open


class _Task(NamedTuple):
    """What is to be quantised.

    Attributes:
        values: the vector, divided by `scale`, `[param]`.
        energy: its squared norm.
        bound: largest squared error.
        prediction: of it, `[param]`; `None` where all coefficients are 0.
        residual_energy: what that leaves.
        given_up: the part of it in tensors that have no vector.
        coefficients: of the prediction, `[block, basis]`.
        search: for the first try.
        floor: exponent of the metric's floor.
        scale: of the metric, `[param]`; `None` where it has none.
        magnitude: of the values, for the rate control.
    """

    values: npt.NDArray[np.float32]
    energy: float
    bound: float
    prediction: npt.NDArray[np.float32] | None
    residual_energy: float
    given_up: float
    coefficients: npt.NDArray[np.int16]
    search: Search
    floor: int
    scale: npt.NDArray[np.float32] | None
    magnitude: float

    @property
    def is_alone(self) -> bool:
        """Whether the lattice points are all there is to the vector."""
        return self.prediction is None and self.scale is None


class _Last(NamedTuple):
    """The last packet's content, and what it was coded against."""

    coded: Coded | None
    before: CoderState


@final
class Encoder(Endpoint):
    """Turns vectors into packets. Made by `Codec.encoder`.

    Each `encode` moves the shared state on, in the belief that the packet arrives. If it did not, `abort` takes that
    back. One encoder serves one decoder, or several that all receive every packet.
    """

    _undo: tuple[SharedState, _Own] | None = None
    _reconstruction: Decoded | None = None
    _report: EncodeReport | None = None
    _last: _Last | None = None

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
        wanted, whole = self._feedback.corrected(self._own.feedback, values, learning_rate)
        finite = math.isfinite(whole) or all_finite(values)
        if finite:
            values = wanted
            if not math.isfinite(whole):
                raise EncodeError(
                    "The vector plus what error feedback owes is beyond float32. Lower the learning rate."
                )
        can_be_coded = finite and len(values) and self._config.lattice != "raw"
        coded, lead = self._coded(values, whole, base, step) if can_be_coded else (None, self._own.lead)
        data = coded.data if coded else values.astype("<f4", copy=False).tobytes()
        flags = KEY_FRAME * key_frame | (0 if coded else RAW) | (0 if finite else NOT_FINITE)
        with_digest = base.sequence % STATE_DIGEST_EVERY == 0 and not key_frame
        digests = (base.vectors_digest(), fingerprint()) if with_digest else None
        header = Header(flags, step, base.sequence, digests)
        packet = write_packet(header, data, self._link, self._due(), self._key)

        decoded = coded.decoded if coded else values.copy()
        self._undo = self._state, self._own
        if finite:
            self._own = self._settled(values, whole, decoded, learning_rate, packet, coded, lead)
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
        self._last = _Last(coded, base.coder)
        self._report = report_of(packet, data, coded, self._lattices[coded.body.lattice if coded else 0])
        return packet

    def _fresh(self) -> _Own:
        return _Own(self._feedback.initial(self._layout.size), ControlState(), 0.0)

    def _settled(
        self,
        values: npt.NDArray[np.float32],
        whole: float,
        decoded: Decoded,
        learning_rate: float | None,
        packet: bytes,
        coded: Coded | None,
        lead: float,
    ) -> _Own:
        """What the encoder keeps for itself after a packet."""
        feedback = self._feedback.settled(self._own.feedback, values, decoded, learning_rate)
        control = self._own.control
        if whole:  # zeros say nothing of how wide cells should be
            outcome = Outcome(8 * len(packet) / len(values), coded.nmse if coded else 0.0)
            at = CellsAt(coded.cell_index, coded.magnitude) if coded else None
            control = after(self._control, control, outcome, at)
        return _Own(feedback, control, lead)

    def abort(self) -> None:
        """Take the last packet back, exactly: as if `encode` had not been called. Only the last one, and only once.

        Raises:
            EncodeError: if there is no packet to take back.
        """
        if self._undo is None:
            raise EncodeError("There is no packet to take back: `abort` undoes one `encode`, once.")
        self._state, self._own = self._undo
        self._undo = self._reconstruction = self._report = self._last = None

    @property
    def reconstruction(self) -> Tensor:
        """What the decoder returns for the last packet, `[param]`, float32; a copy.

        Raises:
            EncodeError: before the first packet.
        """
        decoded = self._decoded()
        return torch.from_numpy(dense(decoded) if isinstance(decoded, Sparse) else decoded.copy())

    def add_decoded(self, total: Tensor, share: float = 1.0) -> None:
        """Add `share` times `reconstruction` to `total`, `[param]`, float32 on the CPU, in place.

        Takes a fraction of the time where most of it is zero.

        Raises:
            EncodeError: before the first packet.
        """
        add_share(total.numpy(), self._decoded(), share)

    def _decoded(self) -> Decoded:
        if self._reconstruction is None:
            raise EncodeError("Nothing has been encoded yet.")
        return self._reconstruction

    @property
    def last_report(self) -> EncodeReport:
        """What the last packet cost and gave.

        Raises:
            EncodeError: before the first packet.
        """
        if self._report is None:
            raise EncodeError("Nothing has been encoded yet.")
        return self._report

    def tensor_bits(self) -> TensorBits:
        """What each tensor took of the last packet, about; see `codec.tensor_bits`. Costs as much as coding it.

        Raises:
            EncodeError: before the first packet.
        """
        if self._last is None:
            raise EncodeError("Nothing has been encoded yet.")
        coded, report = self._last.coded, self.last_report
        coding = self._codings[coded.body.lattice if coded else 0]
        return tensor_bits(self._layout, report.num_bits, coded, coding, self._last.before, report.raw_bits)

    @override
    def reset(self) -> None:
        super().reset()
        self._own = self._fresh()
        self._undo = self._reconstruction = self._report = self._last = None

    @override
    def state_dict(self) -> dict[str, Tensor]:
        """The shared state and what is the encoder's alone: error feedback, rate control, Z's lead if it is open."""
        feedback = {f"feedback.{name}": value for name, value in self._feedback.to_dict(self._own.feedback).items()}
        own = {"control": torch.tensor(self._own.control, dtype=torch.float64)}
        if len(self._codings) > 1:
            own["lead"] = torch.tensor(self._own.lead, dtype=torch.float64)
        return super().state_dict() | feedback | own

    @override
    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        own = {"control", "lead"}
        shared = {name: value for name, value in saved.items() if name not in own and "." not in name}
        state = self._keeping.from_dict(shared, self._link.identity)
        feedback = {name.removeprefix("feedback."): value for name, value in saved.items() if "." in name}
        owed = self._feedback.from_dict(feedback, self._layout.size)
        lead = _lead_from(saved.get("lead")) if len(self._codings) > 1 else 0.0
        self._own = _Own(owed, _control_from(saved.get("control")), lead)
        self._state = state
        self._undo = self._reconstruction = self._report = self._last = None

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

    def _coded(
        self, values: npt.NDArray[np.float32], whole: float, base: SharedState, step: int
    ) -> tuple[Coded | None, float]:
        """The coded form, `None` where float32 is shorter or the bound cannot be kept; and Z's lead after it."""
        context = self._context(base)
        lead, is_open = self._own.lead, len(context.codings) > 1
        with np.errstate(over="ignore", invalid="ignore"):
            task = self._task(values, whole, base, step, context)
            if is_open and is_trial(base.coder.num_updates):
                attempts = [self._attempt(which, task, context) for which in range(len(context.codings))]
                z, e8 = (one and Attempt(8 * len(one.data), one.error, one.cell_index) for one in attempts)
                if z is not None and e8 is not None:
                    lead = updated(lead, advantage(z, e8), allowance(task.search.residual, z.num_bits))
                wanted = chosen(lead, base.coder.num_updates)
                coded = attempts[wanted] or attempts[1 - wanted]
            else:
                wanted = chosen(lead, base.coder.num_updates) if is_open else 0
                coded = self._attempt(wanted, task, context)
                if coded is None and is_open:
                    coded = self._attempt(1 - wanted, task, context)
        return coded if coded is not None and len(coded.data) < 4 * len(values) else None, lead

    def _task(
        self, values: npt.NDArray[np.float32], whole: float, base: SharedState, step: int, context: Context
    ) -> _Task:
        """Everything before the lattice, of values whose squared norm is `whole`."""
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
        magnitude = self._control.magnitude(values, whole)
        start = self._own.control.cells(magnitude) if fixed else start
        rounding = RoundingKey(self._seed, step) if self._config.rounding == "stochastic" else None
        weights = self._predictor.coefficients(values, basis, context.codings[0].cost(base.coder, start))
        prediction = self._prediction(weights, basis)
        residual, left = values, whole
        if prediction is not None:
            residual = values - prediction
            left = energy(residual)
            if not math.isfinite(left):
                weights, prediction, residual, left = np.zeros_like(weights), None, values, whole
        levels = self._levels(values, residual, base, start)
        residual, given_up = self._without(residual, levels)
        search = Search(residual, left - given_up, bound - given_up, start, fixed, levels, base.coder, rounding)
        return _Task(values, whole, bound, prediction, left, given_up, weights, search, floor, scale, magnitude)

    def _attempt(self, which: int, task: _Task, context: Context) -> Coded | None:
        """The coded form in one lattice, or `None` where the bound cannot be kept."""
        coding, search = context.codings[which], task.search
        free = search.fixed or search.rounding is not None  # of the bound
        for share in _SHARES[:1] if search.fixed else _SHARES:
            quantised = coding.quantise(search._replace(bound=share * search.bound))
            if quantised is None:
                return None
            told = quantised.points, quantised.offsets, quantised.cell_index, search.levels
            sparse = coding.nonzero(*told) if task.is_alone and not self._keeping.needs_vectors else None
            decoded = coding.reconstruct(*told) if sparse is None else sparse
            if task.prediction is not None:
                decoded = dense(decoded) + task.prediction
            known = quantised.error if search.fixed and task.prediction is None else None
            if known is not None and task.residual_energy < _SAFE_ENERGY:
                error = known + task.given_up
            else:
                error = squared_error(task.values, dense(decoded))
            if error <= task.bound or (free and math.isfinite(error)):  # false where float32 overflowed
                break
        else:
            return None
        if task.scale is not None:
            decoded = dense(decoded) * task.scale
            if not np.isfinite(decoded).all():
                return None
        body = Body(search.levels, task.coefficients, quantised, task.floor, which)
        data, bits, state = write_body(body, context)
        return Coded(data, bits, body, state, decoded, error, task.energy, task.residual_energy, task.magnitude)

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
            cost = self._codings[0].cost(base.coder, cell_index + level * WIDTHS_PER_OCTAVE, 4.0**level)
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


def _control_from(saved: Tensor | None) -> ControlState:
    if saved is None or tuple(saved.shape) != (3,) or saved.dtype != torch.float64 or not saved.isfinite().all():
        raise StateError("`control` of an encoder's state must be three finite float64 numbers.")
    debt, cell_index, last = saved.tolist()
    if last <= 0:
        raise StateError(f"`control` of an encoder's state has magnitude {last}, which must be above 0.")
    if not (cell_index == int(cell_index) and -1 <= cell_index < NUM_WIDTHS):
        raise StateError(f"`control` of an encoder's state names cell width {cell_index} of {NUM_WIDTHS}.")
    return ControlState(debt, int(cell_index), last)


def _lead_from(saved: Tensor | None) -> float:
    if saved is None or saved.shape != () or saved.dtype != torch.float64 or not saved.isfinite():
        raise StateError("`lead` of an encoder's state must be a finite float64 number.")
    return float(saved)

"""What both ends of a link know: made only from what was decoded, replaced and never mutated."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .activity import MAX_ACTIVITY
from .decoded import Decoded, dense
from .errors import StateError
from .lattice import NUM_WIDTHS
from .metric import updated_moment
from .packet import MAX_STEP
from .symbol_coder import CoderState
from .symbols import NUM_SYMBOLS
from .tables import MAX_COUNT

DIGEST_BYTES = 8


Vector = npt.NDArray[np.float32]


class SharedState(NamedTuple):
    """The state that a packet is coded against.

    Attributes:
        rows: the last decoded vectors, oldest first, each `[param]`, float32; as many as the predictor needs, at most.
        row_steps: the steps of the rows.
        num_updates: decoded vectors that entered the state since the last key frame.
        momentum: their running mean, or what else the predictor's `memory` makes of them, `[param]`, float32; `[0]`
            where the predictor does not need it.
        moment: running mean of their squares, `[param]`, float32; `[0]` where the metric does not need it.
        coder: the entropy coder's part, integers.
        offsets: centroids of the last coded packet, int8 `[offset]`; where it had fewer, the last ones from before.
        last_step: the last decoded step, -1 before any.
        sequence: the number of the packet that is due.
        chain: digest of all packets since the last key frame and of the counts they left, 16 bytes.
    """

    rows: tuple[Tensor, ...]
    row_steps: tuple[int, ...]
    num_updates: int
    momentum: Tensor
    moment: Tensor
    coder: CoderState
    offsets: npt.NDArray[np.int8]
    last_step: int
    sequence: int
    chain: bytes

    def vectors_digest(self) -> bytes:
        """Digest of the vectors that predictions and tables are made from, 8 bytes."""
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for vector in (*self.rows, self.momentum, self.moment):
            digest.update(vector.numpy().astype("<f4", copy=False).data)
        digest.update(self.coder.activity.astype("<i4", copy=False).data)
        return digest.digest()


# A predictor's rule for `momentum`: state before the packet, what was decoded, coefficients, decay -> the next one.
Memory = Callable[[SharedState, Vector, npt.NDArray[np.int16] | None, float], Vector]


def running_mean(
    state: SharedState, vector: Vector, coefficients: npt.NDArray[np.int16] | None, decay: float
) -> Vector:
    """The `Memory` of most predictors: decay mean + (1 - decay) vector, in float32."""
    share = np.float32(decay)
    mean = state.momentum.numpy() * share
    mean += vector * (np.float32(1) - share)
    return mean


class Keeping(NamedTuple):
    """How much a state keeps: sizes and the decay, from the layout and the configuration.

    Attributes:
        size: coordinates.
        num_offsets: centroids of a packet, at most.
        num_tables: of the entropy coder.
        keeps_activity: whether it keeps an activity for each coordinate.
        num_rows: decoded vectors to keep.
        momentum: decay of the running mean, `None` where there is none to keep.
        moment: decay of the running mean of squares, `None` where there is none to keep.
        chain: what the chain of digests begins with, 16 bytes.
        memory: the rule for the running mean.
    """

    size: int
    num_offsets: int
    num_tables: int
    keeps_activity: bool
    num_rows: int
    momentum: float | None
    moment: float | None
    chain: bytes
    memory: Memory = running_mean

    @property
    def needs_vectors(self) -> bool:
        """Whether the state is made from decoded vectors; else from symbols alone."""
        return bool(self.num_rows) or self.momentum is not None or self.moment is not None

    def initial(self) -> SharedState:
        """The state before any packet, and after the reset that a key frame makes."""
        momentum = torch.zeros(0 if self.momentum is None else self.size)
        activity = np.zeros(self.size if self.keeps_activity else 0, np.int32)
        coder = CoderState(np.zeros((self.num_tables, NUM_SYMBOLS), np.int64), activity, 0, 0)
        moment = torch.zeros(0 if self.moment is None else self.size)
        return SharedState((), (), 0, momentum, moment, coder, np.zeros(self.num_offsets, np.int8), -1, 0, self.chain)

    def advanced(
        self,
        state: SharedState,
        packet: bytes,
        step: int,
        sequence: int,
        vector: Decoded | None,
        coder: CoderState | None = None,
        offsets: npt.NDArray[np.int8] | None = None,
        coefficients: npt.NDArray[np.int16] | None = None,
    ) -> SharedState:
        """The state after one more packet.

        Args:
            state: what the packet was coded against.
            packet: its bytes.
            step: its step.
            sequence: its number.
            vector: what was decoded, the state's own from now on; `None` where the predictor's part stays as it is (a
                vector that is not finite).
            coder: the entropy coder's state after the packet, where symbols were decoded.
            offsets: the packet's centroids, where it has them.
            coefficients: of its prediction, `[block, basis]`, where it has them.
        """
        rows, row_steps, num_updates = state.rows, state.row_steps, state.num_updates
        momentum, moment = state.momentum, state.moment
        num_updates += vector is not None
        if vector is not None and self.needs_vectors:
            values = dense(vector)
            if self.num_rows:
                rows = (*rows, torch.from_numpy(values))[-self.num_rows :]
                row_steps = (*row_steps, step)[-self.num_rows :]
            if self.momentum is not None:
                momentum = torch.from_numpy(self.memory(state, values, coefficients, self.momentum))
            if self.moment is not None:
                moment = torch.from_numpy(updated_moment(moment.numpy(), values, self.moment))
        coder = state.coder if coder is None else coder
        offsets = state.offsets if offsets is None else np.concatenate([offsets, state.offsets[len(offsets) :]])
        digest = hashlib.blake2b(state.chain, digest_size=16)
        digest.update(packet)
        digest.update(coder.counts.astype("<i8", copy=False).data)
        return SharedState(
            rows,
            row_steps,
            num_updates,
            momentum,
            moment,
            coder,
            offsets,
            step,
            (sequence + 1) % 2**32,
            digest.digest(),
        )

    def to_dict(self, state: SharedState, identity: bytes) -> dict[str, Tensor]:
        """A state as plain tensors by name; `from_dict` is the way back."""
        coder = state.coder
        numbers = [state.num_updates, coder.num_updates, coder.cell_index, state.last_step, state.sequence]
        return {
            "rows": torch.stack(state.rows) if state.rows else torch.zeros(0, self.size),
            "row_steps": torch.tensor(state.row_steps, dtype=torch.int64),
            "momentum": state.momentum.clone(),
            "moment": state.moment.clone(),
            "counts": torch.from_numpy(coder.counts.copy()),
            "activity": torch.from_numpy(coder.activity.copy()),
            "offsets": torch.from_numpy(state.offsets.copy()),
            "numbers": torch.tensor(numbers, dtype=torch.int64),
            "chain": _bytes_to_tensor(state.chain),
            "identity": _bytes_to_tensor(identity),
        }

    def from_dict(self, saved: dict[str, Tensor], identity: bytes) -> SharedState:
        """A state from `to_dict`'s result, treated as untrusted.

        Raises:
            StateError: if it belongs to another codec, or does not fit.
        """
        expected = set(self.to_dict(self.initial(), identity))
        if set(saved) != expected or not all(isinstance(value, Tensor) for value in saved.values()):
            raise StateError(f"A codec's state must have the tensors {sorted(expected)}, got {sorted(saved)}.")
        if not torch.equal(saved["identity"].cpu(), _bytes_to_tensor(identity)):
            raise StateError(
                "The saved state belongs to another codec: its layout, configuration or stream differs. "
                "Make the codec with the ones it was saved with."
            )
        num_rows = saved["rows"].shape[0] if saved["rows"].ndim else 0
        shapes = {
            "rows": ((num_rows, self.size), torch.float32),
            "row_steps": ((num_rows,), torch.int64),
            "momentum": ((0 if self.momentum is None else self.size,), torch.float32),
            "moment": ((0 if self.moment is None else self.size,), torch.float32),
            "counts": ((self.num_tables, NUM_SYMBOLS), torch.int64),
            "activity": ((self.size if self.keeps_activity else 0,), torch.int32),
            "offsets": ((self.num_offsets,), torch.int8),
            "numbers": ((5,), torch.int64),
            "chain": ((16,), torch.uint8),
        }
        for name, (shape, dtype) in shapes.items():
            value = saved[name]
            if tuple(value.shape) != shape or value.dtype != dtype:
                raise StateError(
                    f"`{name}` of a codec's state must be {dtype} of shape {shape}, "
                    f"got {value.dtype} {tuple(value.shape)}."
                )
        num_updates, num_coded, cell_index, last_step, sequence = saved["numbers"].tolist()
        steps = saved["row_steps"].tolist()
        sound = (
            num_rows <= min(self.num_rows, num_updates)
            and 0 <= num_coded <= num_updates
            and 0 <= cell_index < NUM_WIDTHS
            and -1 <= last_step <= MAX_STEP
            and 0 <= sequence < 2**32
            and steps == sorted(set(steps))
            and all(0 <= step <= last_step for step in steps)
            and bool(((saved["counts"] >= 0) & (saved["counts"] < MAX_COUNT)).all())
            and bool(((saved["activity"] >= 0) & (saved["activity"] <= MAX_ACTIVITY)).all())
            and all(bool(saved[name].isfinite().all()) for name in ("rows", "momentum", "moment"))
            and bool((saved["moment"] >= 0).all())
        )
        if not sound:
            raise StateError("A codec's state has entries that no codec can reach: the checkpoint is damaged.")
        return SharedState(
            tuple(row.clone() for row in saved["rows"].cpu()),
            tuple(steps),
            num_updates,
            saved["momentum"].cpu().clone(),
            saved["moment"].cpu().clone(),
            CoderState(
                saved["counts"].cpu().numpy().copy(), saved["activity"].cpu().numpy().copy(), num_coded, cell_index
            ),
            saved["offsets"].cpu().numpy().copy(),
            last_step,
            sequence,
            bytes(saved["chain"].tolist()),
        )


def _bytes_to_tensor(data: bytes) -> Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)

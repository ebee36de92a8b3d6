"""What both ends of a link know: made only from what was decoded, replaced and never mutated."""

import hashlib
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import StateError
from .lattice import NUM_WIDTHS
from .packet import MAX_STEP
from .symbols import NUM_SYMBOLS
from .tables import MAX_COUNT, updated_counts

DIGEST_BYTES = 8


class SharedState(NamedTuple):
    """The state that a packet is coded against.

    Attributes:
        rows: the last decoded vectors, oldest first, each `[param]`, float32; as many as the predictor needs, at most.
        row_steps: the steps of the rows.
        num_updates: decoded vectors that entered the state since the last key frame.
        momentum: their running mean, `[param]`, float32; `[0]` where the predictor does not need it.
        counts: decayed counts of decoded symbols, `[group, symbol]`, int64.
        cell_index: of the last coded packet.
        last_step: the last decoded step, -1 before any.
        sequence: the number of the packet that is due.
        chain: digest of all packets since the last key frame and of the integer state they left, 16 bytes.
    """

    rows: tuple[Tensor, ...]
    row_steps: tuple[int, ...]
    num_updates: int
    momentum: Tensor
    counts: Tensor
    cell_index: int
    last_step: int
    sequence: int
    chain: bytes

    def float_digest(self) -> bytes:
        """Digest of the vectors a prediction is made from, 8 bytes."""
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for vector in (*self.rows, self.momentum):
            digest.update(vector.numpy().astype("<f4", copy=False).tobytes())
        return digest.digest()


class Keeping(NamedTuple):
    """How much a state keeps: sizes and the decay, from the layout and the configuration.

    Attributes:
        size: coordinates.
        num_groups: entropy tables.
        num_rows: decoded vectors to keep.
        momentum: decay of the running mean, `None` where there is none to keep.
        chain: what the chain of digests begins with, 16 bytes.
    """

    size: int
    num_groups: int
    num_rows: int
    momentum: float | None
    chain: bytes

    def initial(self) -> SharedState:
        """The state before any packet, and after the reset that a key frame makes."""
        momentum = torch.zeros(0 if self.momentum is None else self.size)
        counts = torch.zeros(self.num_groups, NUM_SYMBOLS, dtype=torch.int64)
        return SharedState((), (), 0, momentum, counts, 0, -1, 0, self.chain)

    def advanced(
        self,
        state: SharedState,
        packet: bytes,
        step: int,
        sequence: int,
        vector: Tensor | None,
        seen: npt.NDArray[np.int64] | None = None,
        cell_index: int | None = None,
    ) -> SharedState:
        """The state after one more packet.

        Args:
            state: what the packet was coded against.
            packet: its bytes.
            step: its step.
            sequence: its number.
            vector: what was decoded, `[param]`, the state's own from now on; `None` where the predictor's part stays as
                it is (a vector that is not finite).
            seen: occurrences of each symbol, `[group, symbol]`, where symbols were decoded.
            cell_index: the packet's, where it has one.
        """
        rows, row_steps, momentum, num_updates = state.rows, state.row_steps, state.momentum, state.num_updates
        if vector is not None:
            if self.num_rows:
                rows = (*rows, vector)[-self.num_rows :]
                row_steps = (*row_steps, step)[-self.num_rows :]
            num_updates += 1
            if self.momentum is not None:
                decay = np.float32(self.momentum)
                mean = momentum.numpy() * decay
                mean += vector.numpy() * (np.float32(1) - decay)
                momentum = torch.from_numpy(mean)
        counts = state.counts
        if seen is not None:
            counts = torch.from_numpy(updated_counts(counts.numpy(), seen))
        digest = hashlib.blake2b(state.chain, digest_size=16)
        digest.update(packet)
        digest.update(counts.numpy().astype("<i8", copy=False).tobytes())
        return SharedState(
            rows,
            row_steps,
            num_updates,
            momentum,
            counts,
            state.cell_index if cell_index is None else cell_index,
            step,
            (sequence + 1) % 2**32,
            digest.digest(),
        )

    def to_dict(self, state: SharedState, identity: bytes) -> dict[str, Tensor]:
        """A state as plain tensors by name; `from_dict` is the way back."""
        numbers = [state.num_updates, state.cell_index, state.last_step, state.sequence]
        return {
            "rows": torch.stack(state.rows) if state.rows else torch.zeros(0, self.size),
            "row_steps": torch.tensor(state.row_steps, dtype=torch.int64),
            "momentum": state.momentum.clone(),
            "counts": state.counts.clone(),
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
            "counts": ((self.num_groups, NUM_SYMBOLS), torch.int64),
            "numbers": ((4,), torch.int64),
            "chain": ((16,), torch.uint8),
        }
        for name, (shape, dtype) in shapes.items():
            value = saved[name]
            if tuple(value.shape) != shape or value.dtype != dtype:
                raise StateError(
                    f"`{name}` of a codec's state must be {dtype} of shape {shape}, "
                    f"got {value.dtype} {tuple(value.shape)}."
                )
        num_updates, cell_index, last_step, sequence = saved["numbers"].tolist()
        steps = saved["row_steps"].tolist()
        sound = (
            num_rows <= min(self.num_rows, num_updates)
            and 0 <= cell_index < NUM_WIDTHS
            and -1 <= last_step <= MAX_STEP
            and 0 <= sequence < 2**32
            and steps == sorted(set(steps))
            and all(0 <= step <= last_step for step in steps)
            and bool(((saved["counts"] >= 0) & (saved["counts"] < MAX_COUNT)).all())
            and bool(saved["rows"].isfinite().all() and saved["momentum"].isfinite().all())
        )
        if not sound:
            raise StateError("A codec's state has entries that no codec can reach: the checkpoint is damaged.")
        return SharedState(
            tuple(row.clone() for row in saved["rows"].cpu()),
            tuple(steps),
            num_updates,
            saved["momentum"].cpu().clone(),
            saved["counts"].cpu().clone(),
            cell_index,
            last_step,
            sequence,
            bytes(saved["chain"].tolist()),
        )


def _bytes_to_tensor(data: bytes) -> Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)

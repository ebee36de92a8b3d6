"""Top-k: the largest coordinates alone, as they are; with the momentum correction of deep gradient compression."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ...forecast import Layout
from ..errors import ConfigError, PacketError
from ..feedback import Classic, Leaky
from .base import Baseline, FloatVector, Memory, require_choice, require_number
from .wire import read_floats, read_mask, require_end, take, write_floats, write_mask


@final
@dataclass(frozen=True, kw_only=True)
class TopK(Baseline):
    """The share `fraction` of the coordinates, those of largest magnitude over the whole vector; the rest is owed.

    Where the coordinates are is entropy-coded with each tensor's own density, n H(k / n) bits for k of n: less than
    gaps in any Golomb code, and far less than 32 bits each.

    With `momentum` m the sender sends from the momentum instead of the vector, u <- m u + g, and what is owed is a sum
    of such u (equation 4 of the paper). The receiver then applies plain SGD, and a decoded vector is not comparable
    with the encoded one. Warm-up and clipping of the paper are the training loop's.

    Attributes:
        fraction: of the coordinates, rounded up, so at least one is sent.
        values: `float32`, or `float16` relative to the largest of the packet.
        momentum: m of the correction; 0 for none.
        factor_masking: whether the momentum of sent coordinates starts again at zero, as the paper advises against
            staleness. Without `momentum` it has no effect.

    References:
        Lin et al., Deep gradient compression, 2018, arXiv:1712.01887, sections 3.1 and 3.3.
        Stich et al., Sparsified SGD with memory, 2018, arXiv:1809.07599.
    """

    name: ClassVar[str] = "topk"
    feedback: str = "classic"
    fraction: float = 0.01
    values: str = "float32"
    momentum: float = 0.0
    factor_masking: bool = True

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("fraction", self.fraction, 1e-9, 1.0)
        require_choice("values", self.values, ("float32", "float16"))
        require_number("momentum", self.momentum, 0.0, 0.9999)
        if self.momentum and self.feedback not in (Classic.name, Leaky.name):
            raise ConfigError(
                f"`momentum` of top-k corrects what is owed: `feedback` must be 'classic' or 'leaky', "
                f"got {self.feedback!r}."
            )

    @override
    def initial(self, layout: Layout) -> Memory:
        return (np.zeros(layout.size, np.float32),) if self.momentum else ()

    @override
    def accumulated(self, vector: FloatVector, memory: Memory) -> tuple[FloatVector, Memory]:
        if not memory:
            return vector, memory
        with np.errstate(over="ignore"):
            momentum = np.float32(self.momentum) * memory[0] + vector
        return momentum, (momentum,)

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        count = self._count(layout)
        mask = np.zeros(len(vector), np.bool_)
        if count:
            mask[np.argpartition(np.abs(vector), len(vector) - count)[len(vector) - count :]] = True
        if memory and self.factor_masking:
            memory = (np.where(mask, np.float32(0), memory[0]),)
        return write_mask(mask, _spans(layout)) + self._write_values(vector[mask]), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        mask, start = read_mask(packet, 0, layout.size, _spans(layout))
        count = self._count(layout)
        if int(np.count_nonzero(mask)) != count:
            raise PacketError(f"The packet is damaged: {count} coordinates are due, it has {np.count_nonzero(mask)}.")
        vector = np.zeros(layout.size, np.float32)
        vector[mask] = self._read_values(packet, start, count)
        return vector

    def _count(self, layout: Layout) -> int:
        # 0.07 * 100 is a little more than 7.
        return min(math.ceil(round(self.fraction * layout.size, 6)), layout.size)

    def _write_values(self, values: FloatVector) -> bytes:
        if self.values == "float32" or not len(values):
            return write_floats(values)
        largest = np.abs(values).max()
        ratio = values.astype(np.float64) / (largest or np.float32(1))
        return write_floats([largest]) + ratio.astype("<f2").tobytes()

    def _read_values(self, packet: bytes, start: int, count: int) -> npt.NDArray[np.float32]:
        if self.values == "float32" or not count:
            values, stop = read_floats(packet, start, count)
            require_end(packet, stop)
            return values
        (largest,), start = read_floats(packet, start, 1)
        ratio = np.frombuffer(take(packet, start, start + 2 * count), "<f2").astype(np.float64)
        require_end(packet, start + 2 * count)
        if largest < 0 or not (np.abs(ratio) <= 1).all():
            raise PacketError("The packet is damaged: a value is beyond the largest.")
        return (ratio * float(largest)).astype(np.float32)


def _spans(layout: Layout) -> tuple[slice, ...]:
    return tuple(spec.span for spec in layout if spec.numel)

"""TernGrad: each tensor as minus one, zero and one times one scale."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ...forecast import Layout
from ..errors import PacketError
from .base import Baseline, FloatVector, Memory, require_choice, require_number, require_whole
from .randomness import uniform
from .wire import SymbolReader, SymbolWriter, read_floats, require_end, take, write_floats

_PER_BYTE = 5  # 3^5 = 243
_POWERS = 3 ** np.arange(_PER_BYTE)


@final
@dataclass(frozen=True, kw_only=True)
class TernGrad(Baseline):
    """scale sign(x) b with b = 1 at chance |x| / scale, where scale is the tensor's largest magnitude after clipping.

    Attributes:
        clip: magnitudes are cut at this many root mean squares of their tensor; `None` for no clipping. The paper's 2.5
            cuts the error to a third on Gaussian vectors, and makes the result biased, for what is cut is lost. The
            paper takes the deviation around the mean, which is the same for gradients and would erase tensors of one
            element.
        coding: `entropy` by the symbols' own frequencies, one table for the packet; `packed` five to a byte, 1.6 bits.
        seed: of the rounding. Workers need different ones.

    References:
        Wen et al., TernGrad: ternary gradients to reduce communication in distributed deep learning, 2017,
        arXiv:1705.07878, sections 3.1 (layer-wise ternarizing) and 4 (clipping).
    """

    name: ClassVar[str] = "terngrad"
    clip: float | None = 2.5
    coding: str = "entropy"
    seed: int = 0

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is not None:
            require_number("clip", self.clip, 1e-3, 1e9)
        require_choice("coding", self.coding, ("entropy", "packed"))
        require_whole("seed", self.seed, 0, 2**63 - 1)

    @property
    @override
    def coder_unbiased(self) -> bool:
        return self.clip is None

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        magnitude = np.abs(vector.astype(np.float64))
        scales = write_floats([self._scale(magnitude[spec.span]) for spec in layout if spec.numel])
        wide = _spread(np.frombuffer(scales, "<f4").astype(np.float32), layout)
        ratio = np.divide(magnitude, wide, out=np.zeros(len(vector)), where=wide > 0)
        drawn = ratio > uniform(self.seed, step, "terngrad", len(vector))
        trits = (1 + np.where(vector < 0, -1, 1) * drawn).astype(np.int32)
        return scales + (self._entropy_coded(trits) if self.coding == "entropy" else _packed(trits)), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        scales, start = read_floats(packet, 0, sum(1 for spec in layout if spec.numel))
        if (scales < 0).any():
            raise PacketError("The packet is damaged: a scale is negative.")
        if self.coding == "entropy":
            reader = SymbolReader(packet, start)
            trits = reader.read(layout.size, 3)
            reader.finish()
        else:
            trits = _unpacked(packet, start, layout.size)
        return ((trits - 1) * _spread(scales, layout)).astype(np.float32)

    def _scale(self, magnitude: npt.NDArray[np.float64]) -> float:
        largest = float(magnitude.max())
        if self.clip is None:
            return largest
        return min(largest, self.clip * float(np.sqrt(np.mean(magnitude * magnitude))))

    def _entropy_coded(self, trits: npt.NDArray[np.int32]) -> bytes:
        writer = SymbolWriter()
        writer.add(trits, 3)
        return writer.finish()


def _spread(scales: FloatVector, layout: Layout) -> npt.NDArray[np.float64]:
    return np.repeat(scales.astype(np.float64), [spec.numel for spec in layout if spec.numel])


def _packed(trits: npt.NDArray[np.int32]) -> bytes:
    padded = np.ones(-(-len(trits) // _PER_BYTE) * _PER_BYTE, np.int64)
    padded[: len(trits)] = trits
    return (padded.reshape(-1, _PER_BYTE) @ _POWERS).astype(np.uint8).tobytes()


def _unpacked(data: bytes, start: int, size: int) -> npt.NDArray[np.int64]:
    stop = start + -(-size // _PER_BYTE)
    packed = np.frombuffer(take(data, start, stop), np.uint8)
    require_end(data, stop)
    trits = (packed[:, None] // _POWERS % 3).reshape(-1).astype(np.int64)
    if (packed >= 3**_PER_BYTE).any() or (trits[size:] != 1).any():
        raise PacketError("The packet is damaged: a byte does not stand for five ternary digits.")
    return trits[:size]

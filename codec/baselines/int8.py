"""Blockwise 8-bit integers."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ...forecast import Layout
from ..errors import PacketError
from .base import Baseline, FloatVector, Memory, require_whole
from .wire import read_floats, require_end, take, write_floats


@final
@dataclass(frozen=True, kw_only=True)
class Int8(Baseline):
    """Each block divided by its largest magnitude and rounded to the nearest of -127/127, ..., 127/127.

    The scale of a block is its largest magnitude, not a multiple of its deviation: nothing is clipped, and peaky blocks
    get a coarser grid. Blocks run over the flat vector, the last one may be short.

    Attributes:
        block: coordinates of a block, which cost 32 bits for their scale: 8.03 bits a coordinate at 1024. Smaller
            follows the scale more closely.

    References:
        Dettmers et al., 8-bit optimizers via block-wise quantization, 2021, arXiv:2110.02861, for the blocks; with an
        even grid here.
    """

    name: ClassVar[str] = "int8"
    block: int = 1024

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("block", self.block, 1, 2**30)

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        starts = np.arange(0, len(vector), self.block)
        largest = np.maximum.reduceat(np.abs(vector), starts) if len(vector) else vector
        head = write_floats(largest / np.float32(127))
        wide = self._spread(np.frombuffer(head, "<f4").astype(np.float32), len(vector))
        levels = np.rint(np.divide(vector, wide, out=np.zeros(len(vector)), where=wide > 0))
        return head + np.clip(levels, -127, 127).astype(np.int8).tobytes(), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        scales, start = read_floats(packet, 0, -(-layout.size // self.block))
        levels = np.frombuffer(take(packet, start, start + layout.size), np.int8)
        require_end(packet, start + layout.size)
        if (levels == -128).any() or (scales < 0).any():
            raise PacketError("The packet is damaged: a level or a scale is none of the grid's.")
        return (levels * self._spread(scales, layout.size)).astype(np.float32)

    def _spread(self, scales: FloatVector, size: int) -> npt.NDArray[np.float64]:
        return np.repeat(scales.astype(np.float64), self.block)[:size]

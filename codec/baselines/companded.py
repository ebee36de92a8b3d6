"""A power-law companded quantiser: cells that widen with the magnitude, entropy-coded."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ...forecast import Layout
from ..errors import PacketError
from .base import Baseline, FloatVector, Memory, require_number, require_whole
from .wire import SymbolReader, SymbolWriter, read_floats, require_length, with_length, write_floats


@final
@dataclass(frozen=True, kw_only=True)
class Companded(Baseline):
    """sign(x) m (k / s)^(1 / p), with k = s (|x| / m)^p rounded and m the largest magnitude of a bucket.

    Compressing magnitudes by a power before they are rounded gives small ones fine cells and large ones coarse ones: at
    a fixed number of bits for each coordinate that is right for peaky vectors, since the least error has cells in
    proportion to the density to the power of -1/3. Behind an entropy coder uniform cells are the best ones at high
    rate (Gish and Pierce), and the dead zone of a power below 1 is narrower than theirs. Levels are entropy-coded by
    their own frequencies, which are sent.

    Attributes:
        levels: s. Twice as many take about one bit more.
        power: p, above 0. 1 is uniform; 3/4 is that of AAC; smaller ones spend more bits on small coordinates.
        bucket: coordinates that share m, at 32 bits each; buckets run over the flat vector.

    References:
        W. R. Bennett. Spectra of quantized signals. Bell System Technical Journal 27, 1948 (companding). P. Panter, W.
        Dite. Quantization distortion in pulse-count modulation with nonuniform spacing of levels. Proc. IRE 39, 1951
        (the power of -1/3). H. Gish, J. Pierce. Asymptotically efficient quantizing. IEEE Transactions on Information
        Theory 14(5), 1968.
    """

    name: ClassVar[str] = "companded"
    levels: int = 15
    power: float = 0.5
    bucket: int = 4096

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("levels", self.levels, 1, 2**15 - 1)
        require_number("power", self.power, 0.1, 1.0)
        require_whole("bucket", self.bucket, 1, 2**30)

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        magnitude = np.abs(vector.astype(np.float64))
        starts = np.arange(0, len(vector), self.bucket)
        largest = np.maximum.reduceat(magnitude, starts) if len(vector) else magnitude
        wide = self._spread(largest, len(vector))
        ratio = np.divide(magnitude, wide, out=np.zeros(len(vector)), where=wide > 0)
        level = np.rint(self.levels * ratio**self.power).astype(np.int64)
        writer = SymbolWriter()
        writer.add_integers(np.where(vector < 0, -level, level))
        return write_floats(largest) + with_length(writer.finish()), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        largest, start = read_floats(packet, 0, -(-layout.size // self.bucket))
        if (largest < 0).any():
            raise PacketError("The packet is damaged: a largest magnitude is negative.")
        reader = SymbolReader(packet, require_length(packet, start))
        signed = reader.read_integers(layout.size)
        reader.finish()
        if np.abs(signed).max(initial=0) > self.levels:
            raise PacketError(f"The packet is damaged: it has a level beyond {self.levels}.")
        expanded = (np.arange(self.levels + 1) / self.levels) ** (1 / self.power)
        values = np.sign(signed) * expanded[np.abs(signed)] * self._spread(largest, layout.size)
        return values.astype(np.float32)

    def _spread(self, largest: npt.NDArray[np.floating], size: int) -> npt.NDArray[np.float64]:
        return np.repeat(largest.astype(np.float64), self.bucket)[:size]

"""QSGD: stochastic rounding to a few levels of each bucket's norm, entropy-coded."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ...forecast import Layout
from ..errors import PacketError
from .base import Baseline, FloatVector, Memory, require_choice, require_whole
from .randomness import uniform
from .wire import SymbolReader, SymbolWriter, read_floats, write_floats


@final
@dataclass(frozen=True, kw_only=True)
class QSGD(Baseline):
    """sign(x) ||bucket|| k / s, with k one of the two levels around s |x| / ||bucket||, so that the mean is x.

    The levels are entropy-coded by their own frequencies, which are sent: never longer than the paper's Elias code but
    for the table.

    Attributes:
        levels: s, above zero. 1 is ternary; at NMSE 0.04 on Gaussian vectors 7 costs 3.3 bits a coordinate.
        bucket: coordinates that share a norm; buckets run over the flat vector, the last may be short. Smaller lowers
            the error and costs 32 bits each.
        norm: `max`, or the paper's `l2`, which for equal s is coarser and cheaper.
        seed: of the rounding. Workers need different ones.

    References:
        Alistarh et al., QSGD: communication-efficient SGD via gradient quantization and encoding, 2017,
        arXiv:1610.02132, section 3.1; the largest magnitude as norm: section 4.
    """

    name: ClassVar[str] = "qsgd"
    levels: int = 7
    bucket: int = 512
    norm: str = "max"
    seed: int = 0

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("levels", self.levels, 1, 127)
        require_whole("bucket", self.bucket, 1, 2**30)
        require_choice("norm", self.norm, ("max", "l2"))
        require_whole("seed", self.seed, 0, 2**63 - 1)

    @property
    @override
    def coder_unbiased(self) -> bool:
        return True

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        head = write_floats(self._norms(np.abs(vector.astype(np.float64))))
        norms = np.frombuffer(head, "<f4").astype(np.float32)
        wide = self._spread(norms, len(vector))
        ratio = np.divide(np.abs(vector), wide, out=np.zeros(len(vector)), where=wide > 0)
        level = np.floor(self.levels * ratio + uniform(self.seed, step, "qsgd", len(vector)))
        signed = np.where(vector < 0, -1, 1) * np.minimum(level, self.levels).astype(np.int32)
        writer = SymbolWriter()
        writer.add((signed + self.levels).astype(np.int32), 2 * self.levels + 1)
        return head + writer.finish(), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        norms, start = read_floats(packet, 0, -(-layout.size // self.bucket))
        if (norms < 0).any():
            raise PacketError("The packet is damaged: a norm is negative.")
        reader = SymbolReader(packet, start)
        signed = reader.read(layout.size, 2 * self.levels + 1) - self.levels
        reader.finish()
        return (signed * (self._spread(norms, layout.size) / self.levels)).astype(np.float32)

    def _norms(self, magnitude: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if not len(magnitude):
            return magnitude
        starts = np.arange(0, len(magnitude), self.bucket)
        if self.norm == "max":
            return np.maximum.reduceat(magnitude, starts)
        return np.sqrt(np.add.reduceat(magnitude * magnitude, starts))

    def _spread(self, norms: FloatVector, size: int) -> npt.NDArray[np.float64]:
        return np.repeat(norms.astype(np.float64), self.bucket)[:size]

"""A random rotation before entropy-coded integers: what rotating costs where bits follow the distribution."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from ...forecast import Layout
from ..errors import PacketError
from ..lattice import NUM_OFFSETS, NUM_WIDTHS, Quantiser, cell_index, point
from ..packet import MAX_STEP
from ..varint import read_varint, write_varint
from .base import Baseline, FloatVector, Memory, require_number, require_whole
from .randomness import signs
from .rotation import Chunk, chunks_of, hadamard, require_chunk
from .wire import (
    SymbolReader,
    SymbolWriter,
    read_floats,
    require_end,
    require_length,
    take,
    with_length,
    write_floats,
)

_SMALLEST_SCALE = 2.0**-149


@final
@dataclass(frozen=True, kw_only=True)
class RotatedIntegers(Baseline):
    """R^-1 Q(R x), R a Hadamard matrix times random signs, Q the quantiser of lattice Z with centroids.

    One width for the packet keeps the error, and the integers are entropy-coded by their frequencies, which are sent.
    Rotation makes all coordinates of a chunk Gaussian of one scale: right for a fixed number of bits each, as in EDEN,
    or for unbiasedness. With an entropy coder it forgoes what peaky coordinates and tensors of unlike scale would save:
    0.10 bit a coordinate of a Laplacian, 0.62 of a generalised Gaussian of shape 0.5, at high rate.

    Attributes:
        nmse: the largest ||x - decoded||^2 / ||x||^2, but for rounding to float32.
        dead_zone: how much later than plain rounding a magnitude is rounded up, in cells. Of 2^18 Gaussian coordinates
            0 to 0.1 are equal at NMSE 0.5, and 0.1 costs 0.01 bit at NMSE 0.1.
        chunk: the largest chunk that is rotated, a power of two.
        seed: of the rotations.

    References:
        Suresh et al., Distributed mean estimation with limited communication, 2017, arXiv:1611.00429, section 3
        (rotation) and 4 (variable-length coding); together they are ours, to measure what rotation costs.
    """

    name: ClassVar[str] = "rotated"
    nmse: float = 0.1
    dead_zone: float = 0.0
    chunk: int = 2**16
    seed: int = 0

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("nmse", self.nmse, 1e-8, 0.999)
        require_number("dead_zone", self.dead_zone, 0.0, 0.499)
        require_chunk(self.chunk)
        require_whole("seed", self.seed, 0, 2**63 - 1)

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        wide = vector.astype(np.float64)
        scale = math.sqrt(float(wide @ wide) / max(len(wide), 1))
        if not scale:
            return write_varint(step) + write_floats([0.0]), memory
        head = write_floats([max(scale, _SMALLEST_SCALE)])
        wide /= float(np.frombuffer(head, "<f4")[0])
        chunks = chunks_of(len(wide), self.chunk)
        flips = self._flips(step, chunks)
        rotated = np.zeros(len(flips))
        for chunk in chunks:
            here = slice(chunk.place, chunk.place + chunk.padded)
            rotated[chunk.place : chunk.place + chunk.size] = wide[chunk.start : chunk.start + chunk.size]
            rotated[here] = hadamard(rotated[here] * flips[here])
        quantiser = Quantiser(rotated.astype(np.float32), self.dead_zone)
        trial = quantiser.coarsest(self.nmse * quantiser.energy, cell_index(math.sqrt(12 * self.nmse)))
        assert trial is not None  # of coordinates about 1 in size, cells that are fine enough always exist
        writer = SymbolWriter()
        writer.add_integers(quantiser.values(trial).astype(np.int64))
        told = write_varint(trial.cell_index) + trial.offsets.tobytes()
        return write_varint(step) + head + told + with_length(writer.finish()), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        step, start = read_varint(packet, 0)
        (scale,), start = read_floats(packet, start, 1)
        if step > MAX_STEP or scale < 0:
            raise PacketError(f"The packet is damaged: it is of step {step} with scale {scale}.")
        if scale == 0:
            require_end(packet, start)
            return np.zeros(layout.size, np.float32)
        index, start = read_varint(packet, start)
        if index >= NUM_WIDTHS:
            raise PacketError(f"The packet is damaged: cell width {index} of {NUM_WIDTHS}.")
        offsets = np.frombuffer(take(packet, start, start + NUM_OFFSETS), np.int8)
        chunks = chunks_of(layout.size, self.chunk)
        flips = self._flips(step, chunks)
        reader = SymbolReader(packet, require_length(packet, start + NUM_OFFSETS))
        with np.errstate(over="ignore"):
            rotated = point(reader.read_integers(len(flips)), offsets, index).astype(np.float64)
        reader.finish()
        vector = np.empty(layout.size)
        for chunk in chunks:
            here = slice(chunk.place, chunk.place + chunk.padded)
            vector[chunk.start : chunk.start + chunk.size] = (hadamard(rotated[here]) * flips[here])[: chunk.size]
        with np.errstate(over="ignore", invalid="ignore"):
            decoded = (vector * float(scale)).astype(np.float32)
        if not np.isfinite(decoded).all():
            raise PacketError("The packet is damaged: its values are beyond float32.")
        return decoded

    def _flips(self, step: int, chunks: tuple[Chunk, ...]) -> npt.NDArray[np.float64]:
        return signs(self.seed, step, "rotated", sum(chunk.padded for chunk in chunks))

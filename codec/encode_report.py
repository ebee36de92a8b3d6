"""What one packet cost and what it gave, for people and for benchmarks."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from . import coefficients
from .body import Body, BodyBits
from .decoded import Decoded
from .symbol_coder import CoderState


class EncodeReport(NamedTuple):
    """What one packet cost and what it gave.

    Attributes:
        num_bits: eight times the packet's length; the sum of the parts that follow.
        header_bits: the frame: header, checksum, authentication.
        quantiser_bits: cell width, centroids, the metric's floor, and which lattice where that is open.
        level_bits: which tensors have wider cells or no vector.
        coefficient_bits: coefficients of the prediction, and padding to a whole byte.
        symbol_bits: entropy-coded symbols, raw bits of large magnitudes included.
        raw_bits: the vector itself, where it was sent as it is.
        nmse: ||g - decoded||^2 / ||g||^2 in the configured metric; 0 for raw packets and for g = 0. With error
            feedback, g is what was coded: the vector and what was owed.
        residual_ratio: ||g - prediction||^2 / ||g||^2 in the same metric; 1 for raw packets and for g = 0.
        cell_index: of the lattice's cell width; 0 for raw packets.
        coefficients: of the prediction, `[block, basis]`; blocks are the tensors that are not empty, or the vector.
        lattice: of the packet, one of `lattice_names()` but never `auto`; `raw` for raw packets.
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
    lattice: str


class Coded(NamedTuple):
    """A vector in coded form, and what it decodes to.

    Attributes:
        data: of the body.
        bits: of its parts.
        body: what it says.
        state: the entropy coder's after it.
        decoded: what it decodes to.
        error: squared, in the metric.
        energy: of the vector in the metric, which `error` is a share of.
        residual_energy: what the prediction left of it.
        magnitude: of the vector in the metric, by which the rate control tells how wide the next cells are.
    """

    data: bytes
    bits: BodyBits
    body: Body
    state: CoderState
    decoded: Decoded
    error: float
    energy: float
    residual_energy: float
    magnitude: float

    @property
    def cell_index(self) -> int:
        """Of the cells."""
        return self.body.quantised.cell_index

    @property
    def nmse(self) -> float:
        """The error's share of the energy."""
        return self.error / (self.energy or 1.0)


def report_of(packet: bytes, data: bytes, coded: Coded | None, lattice: str) -> EncodeReport:
    """The report of a packet whose body is `data`; `coded` is `None` where that is the vector itself."""
    header_bits = 8 * (len(packet) - len(data))
    if coded is None:
        empty = np.zeros((0, 0))
        return EncodeReport(8 * len(packet), header_bits, 0, 0, 0, 0, 8 * len(data), 0.0, 1.0, 0, empty, "raw")
    return EncodeReport(
        8 * len(packet),
        header_bits,
        *coded.bits,
        raw_bits=0,
        nmse=coded.nmse,
        residual_ratio=coded.residual_energy / coded.energy if coded.energy else 1.0,
        cell_index=coded.cell_index,
        coefficients=coded.body.coefficients / coefficients.UNIT,
        lattice=lattice,
    )

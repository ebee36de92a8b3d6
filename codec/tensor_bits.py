"""How many bits of a packet each tensor takes: an estimate, because one entropy coder serves all tensors.

A packet is one stream, in which no bit belongs to one symbol alone. What a symbol costs is well defined all the same:
-log2 of its share in the table that it was coded with. Where a coding knows those tables it tells the sum for each
tensor (`Coding.ideal_bits`), as Z with `scale_classes` and `runs` do. Elsewhere the order-0 entropy of what the tensor
decodes to stands in. Sums above what the symbols really took are scaled down to it. What is left is named by itself, so
that all adds up to the packet's length, exactly.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..forecast import Layout
from .activity import matrices
from .coding import Coding
from .encode_report import Coded
from .symbol_coder import CoderState

REST = "headers and tables"


@dataclass(frozen=True)
class TensorBits:
    """A packet's bits, or those of several.

    Attributes:
        tensors: by name, whole bits.
        rest: headers, side information, and what the symbols took beyond the estimate: tables that had to be learned,
            the coder's last word. Below 0 never.
    """

    tensors: dict[str, int]
    rest: int

    @property
    def total(self) -> int:
        """Eight times the length of the packets."""
        return sum(self.tensors.values()) + self.rest

    def __add__(self, other: "TensorBits") -> "TensorBits":
        names = {**self.tensors, **other.tensors}
        sums = {name: self.tensors.get(name, 0) + other.tensors.get(name, 0) for name in names}
        return TensorBits(sums, self.rest + other.rest)

    def to_dict(self) -> dict[str, int]:
        """All by name, `REST` last."""
        return {**self.tensors, REST: self.rest}


def tensor_bits(
    layout: Layout, num_bits: int, coded: Coded | None, coding: Coding, before: CoderState, raw_bits: int
) -> TensorBits:
    """The split of one packet.

    Args:
        layout: of its vector.
        num_bits: eight times its length.
        coded: what it holds; `None` where that is the vector itself.
        coding: that it is in.
        before: the coding's state that it was coded against.
        raw_bits: of the vector itself, where that was sent.
    """
    names = [spec.name for spec in layout if spec.numel]
    if coded is None:
        each = raw_bits // max(layout.size, 1)
        return _split({spec.name: each * spec.numel for spec in layout if spec.numel}, num_bits)
    quantised, levels = coded.body.quantised, coded.body.levels
    ideal = coding.ideal_bits(quantised.points, before, quantised.cell_index, levels)
    if ideal is None:
        vector = coding.reconstruct(quantised.points, quantised.offsets, quantised.cell_index, levels)
        ideal = np.array([entropy_bits(vector[part.span]) for part in matrices(layout)])
    scale = min(1.0, coded.bits.symbols / max(float(ideal.sum()), 1e-300))
    return _split({name: int(bits * scale) for name, bits in zip(names, ideal, strict=True)}, num_bits)


def entropy_bits(values: npt.NDArray[np.float32]) -> float:
    """The order-0 empirical entropy of all values together, in bits."""
    _, counts = np.unique(values, return_counts=True)
    return float((counts * np.log2(len(values) / counts)).sum())


def _split(tensors: dict[str, int], num_bits: int) -> TensorBits:
    return TensorBits(tensors, num_bits - sum(tensors.values()))

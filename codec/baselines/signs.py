"""One bit a coordinate: the sign, with a scale for each tensor or for none."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from ...forecast import Layout
from ..errors import PacketError
from .base import Baseline, FloatVector, Memory, require_number
from .wire import read_fields, read_floats, require_end, write_fields, write_floats


@final
@dataclass(frozen=True, kw_only=True)
class ScaledSign(Baseline):
    """sign(x) times the mean magnitude of x's tensor: NMSE 1 - ||x||_1^2 / (n ||x||_2^2), 0.363 for Gaussians.

    The scale is the one of least squared error. Zero counts as positive. Biased: it needs error feedback, and has it by
    default.

    References:
        Karimireddy et al., Error feedback fixes SignSGD and other gradient compression schemes, 2019, arXiv:1901.09847.
        Zheng et al., 2019, arXiv:1905.10936, section 3.2: a scale for each block.
    """

    name: ClassVar[str] = "sign"
    feedback: str = "classic"

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        scales = [np.abs(vector[spec.span]).mean(dtype=np.float64) for spec in layout if spec.numel]
        return write_floats(scales) + write_fields(vector < 0, 1), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        sizes = [spec.numel for spec in layout if spec.numel]
        scales, start = read_floats(packet, 0, len(sizes))
        _require_positive(scales)
        negative, stop = read_fields(packet, start, layout.size, 1)
        require_end(packet, stop)
        wide = np.repeat(scales, sizes)
        return np.where(negative == 1, -wide, wide)


@final
@dataclass(frozen=True, kw_only=True)
class SignSGD(Baseline):
    """sign(x) times one scale for the whole vector.

    The majority vote of the paper is the server's: take the sign of the mean of what workers sent.

    Attributes:
        scale: a number both ends know, so that signs alone are sent and the learning rate carries the length. `None`
            sends the vector's mean magnitude, 32 bits a packet. With a fixed scale, error feedback grows without bound
            unless the scale is at least as large as the vectors' typical entries: switch it off there.

    References:
        Bernstein et al., signSGD: compressed optimisation for non-convex problems, 2018, arXiv:1802.04434.
        Bernstein et al., signSGD with majority vote is communication efficient and fault tolerant, 2018,
        arXiv:1810.05291.
    """

    name: ClassVar[str] = "signsgd"
    feedback: str = "classic"
    scale: float | None = None

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale is not None:
            require_number("scale", self.scale, 1e-30, 1e30)

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        scales = [np.abs(vector).mean(dtype=np.float64)] if self._sends_scale(layout) else []
        return write_floats(scales) + write_fields(vector < 0, 1), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        scales, start = read_floats(packet, 0, int(self._sends_scale(layout)))
        _require_positive(scales)
        negative, stop = read_fields(packet, start, layout.size, 1)
        require_end(packet, stop)
        scale = scales[0] if len(scales) else np.float32(self.scale or 0)
        return np.where(negative == 1, -scale, scale).astype(np.float32)

    def _sends_scale(self, layout: Layout) -> bool:
        return self.scale is None and layout.size > 0


def _require_positive(scales: FloatVector) -> None:
    if (scales < 0).any():
        raise PacketError("The packet is damaged: a scale is negative.")

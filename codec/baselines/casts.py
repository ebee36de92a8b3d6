"""Baselines that change the number format and nothing else: float32, float16, bfloat16."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from typing_extensions import override

from ...forecast import Layout
from ..errors import PacketError
from .base import Baseline, FloatVector, Memory
from .wire import read_floats, require_end, write_floats


@final
@dataclass(frozen=True, kw_only=True)
class Float32(Baseline):
    """The vector as it is, 32 bits a coordinate: what every saving is measured against."""

    name: ClassVar[str] = "float32"

    @property
    @override
    def coder_unbiased(self) -> bool:
        return True

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        return write_floats(vector), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        values, stop = read_floats(packet, 0, layout.size)
        require_end(packet, stop)
        return values


class _HalfWidth(Baseline):
    """A cast to a torch type of 16 bits, rounded to nearest even. Beyond its range it saturates, never overflows."""

    dtype: ClassVar[torch.dtype]

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        limit = torch.finfo(self.dtype).max
        narrow = torch.from_numpy(vector).clamp(-limit, limit).to(self.dtype)
        return narrow.view(torch.int16).numpy().astype("<i2").tobytes(), memory

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        require_end(packet, 2 * layout.size)
        narrow = torch.from_numpy(np.frombuffer(packet, "<i2").astype(np.int16)).view(self.dtype)
        values = narrow.to(torch.float32).numpy()
        if not np.isfinite(values).all():
            raise PacketError("The packet is damaged: it holds NaN or infinity.")
        return values


@final
@dataclass(frozen=True, kw_only=True)
class Float16(_HalfWidth):
    """Rounded to IEEE half precision: NMSE 4e-8 in its normal range, 6e-5 to 65504; below 6e-8 it flushes to zero.

    Gradients are often below that range; scale the loss, as one does with float16 anyway, or take `bfloat16`.
    """

    name: ClassVar[str] = "float16"
    dtype: ClassVar[torch.dtype] = torch.float16


@final
@dataclass(frozen=True, kw_only=True)
class BFloat16(_HalfWidth):
    """Rounded to bfloat16: NMSE 2.8e-6, over float32's range. The baseline that most training runs could switch on."""

    name: ClassVar[str] = "bfloat16"
    dtype: ClassVar[torch.dtype] = torch.bfloat16

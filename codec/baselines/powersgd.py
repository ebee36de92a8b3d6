"""PowerSGD: each matrix as a product of two thin ones, found by one step of power iteration."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from typing_extensions import override

from ...forecast import Layout, TensorSpec
from .base import Baseline, FloatVector, Memory, require_whole
from .wire import read_floats, require_end, write_floats


@final
@dataclass(frozen=True, kw_only=True)
class PowerSGD(Baseline):
    """M as P Q^T, with P = orth(M Q_old) and Q = M^T P; Q is the next packet's Q_old.

    Tensors are seen as matrices of their first extent times the rest. Vectors, and matrices that would not get smaller,
    r (n + m) >= n m, travel as float32. P and Q are float32 too. Error feedback is on by default, as in the paper.

    In the paper P and Q are each averaged over the workers on the way, which costs the same bits here and gives one
    common subspace; here each packet stands for itself, so a mean of workers has up to workers times the rank.

    Attributes:
        rank: r. 1 to 4 in the paper; the bits grow with it in proportion.
        seed: of the first Q.

    References:
        Vogels et al., PowerSGD: practical low-rank gradient compression for distributed optimization, 2019,
        arXiv:1905.13727, algorithms 1 and 2; orthogonalised by QR instead of Gram-Schmidt.
    """

    name: ClassVar[str] = "powersgd"
    feedback: str = "classic"
    rank: int = 2
    seed: int = 0

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole("rank", self.rank, 1, 2**16)
        require_whole("seed", self.seed, 0, 2**63 - 1)

    @override
    def initial(self, layout: Layout) -> Memory:
        generator = np.random.default_rng(self.seed)
        shapes = (self._matrix(spec) for spec in layout)
        return tuple(
            generator.standard_normal((shape[1], self.rank), np.float32) for shape in shapes if shape is not None
        )

    @override
    def compress(self, vector: FloatVector, layout: Layout, step: int, memory: Memory) -> tuple[bytes, Memory]:
        parts: list[bytes] = []
        right: list[FloatVector] = []
        for spec in layout:
            shape = self._matrix(spec)
            if shape is None:
                parts.append(write_floats(vector[spec.span]))
                continue
            matrix = vector[spec.span].reshape(shape).astype(np.float64)
            image = matrix @ memory[len(right)]
            # The length of the image does not matter to the subspace, only to overflow.
            image /= np.abs(image).max(initial=0.0) or 1.0
            left = np.linalg.qr(image)[0].astype(np.float32)
            parts.append(write_floats(left))
            product = write_floats(matrix.T @ left)
            parts.append(product)
            factor = np.frombuffer(product, "<f4").astype(np.float32).reshape(shape[1], self.rank)
            # A zero matrix would leave a zero Q, from which nothing starts again.
            right.append(factor if factor.any() else memory[len(right)])
        return b"".join(parts), tuple(right)

    @override
    def decompress(self, packet: bytes, layout: Layout) -> FloatVector:
        vector = np.empty(layout.size, np.float32)
        start = 0
        for spec in layout:
            shape = self._matrix(spec)
            if shape is None:
                vector[spec.span], start = read_floats(packet, start, spec.numel)
                continue
            left, start = read_floats(packet, start, shape[0] * self.rank)
            right, start = read_floats(packet, start, shape[1] * self.rank)
            columns = zip(left.reshape(-1, self.rank).T, right.reshape(-1, self.rank).T, strict=True)
            # Sums of outer products in a fixed order: a matrix product's order of summation is the library's own.
            product = np.zeros(shape, np.float32)
            for one, other in columns:
                product += np.multiply.outer(one, other)
            vector[spec.span] = product.reshape(-1)
        require_end(packet, start)
        return vector

    def _matrix(self, spec: TensorSpec) -> tuple[int, int] | None:
        """The tensor's shape as a matrix, `None` where it travels as it is."""
        if len(spec.shape) < 2 or not spec.numel:
            return None
        rows = spec.shape[0]
        columns = spec.numel // rows
        return (rows, columns) if self.rank * (rows + columns) < rows * columns else None

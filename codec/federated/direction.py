"""A client's pseudo-gradient predicted by the server's last step, which both ends know.

With D = w_v - w_{v-1} as decoded, the momentum of the server included, and d what the client has to tell,

    a = <d, D> / <D, D>        for each tensor, in units of 1/256; 0 where it saves less than 3 % of the energy
    d - a D                    is coded

Where heavy-ball momentum carries on in the direction in which clients pull, a is below 0 and D says part of d. With
c the cosine of d and D a share 1 - c^2 of the energy is left, which is 1/2 log2(1 / (1 - c^2)) bits a coordinate at
high rate: next to nothing below c = 0.3. The codec's `nmse` is a share of what is left, so at a given `nmse` a good
prediction lowers the error rather than the bits; with `hold="mean_rate"` likewise.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...forecast import Layout
from .. import coefficients
from ..bits import BitReader, BitWriter
from ..errors import PacketError

_LEAST_SAVING = 0.03  # of a tensor's energy

Fitted = npt.NDArray[np.int16]  # [block, 1]


class DirectionFit:
    """Fits, writes and applies the coefficients.

    Args:
        layout: of the vectors.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._spans = [spec.span for spec in layout if spec.numel]

    def fit(self, vector: Tensor, direction: Tensor) -> Fitted:
        """Least squares for each tensor, `[block, 1]`."""
        found = np.zeros((len(self._spans), 1), np.int16)
        for block, span in enumerate(self._spans):
            mine, known = vector[span].double(), direction[span].double()
            energy, square, product = (float(a @ b) for a, b in ((mine, mine), (known, known), (mine, known)))
            if energy > 0 and square > 0 and product * product > _LEAST_SAVING * energy * square:
                found[block, 0] = coefficients.quantise(product / square)
        return found

    def to_bytes(self, fitted: Fitted) -> bytes:
        """Coded coefficients; `from_bytes` is the way back."""
        bits = BitWriter()
        coefficients.write(fitted, bits)
        return bits.to_bytes()

    def from_bytes(self, data: bytes) -> Fitted:
        """The inverse of `to_bytes`.

        Raises:
            PacketError: if the data are damaged.
        """
        bits = BitReader(data)
        found = coefficients.read(bits, (len(self._spans), 1))
        if bits.finish():
            raise PacketError("The packet is damaged: there is more behind its coefficients.")
        return found

    def prediction(self, fitted: Fitted, direction: Tensor) -> Tensor:
        """a D, `[param]`; the same bits on both ends."""
        weights = torch.zeros(self._layout.size)
        for (value,), span in zip(fitted.tolist(), self._spans, strict=True):
            weights[span] = value / coefficients.UNIT
        return weights.mul_(direction)

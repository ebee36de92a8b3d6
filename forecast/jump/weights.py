"""Which weights are in the network while a jump is tried."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from ..layout import Layout
from ..ledger import Ledger
from ..packing import trainable_parameters
from .proposal import Candidate


@final
class LoadedWeights:
    """Switches a network between its present weights and a candidate's, in place.

    Args:
        module: the network, with its present weights.
        layout: of the candidates' weights.
        saved: every parameter and buffer with a copy of its present value.
        ledger: charged for `copying`.

    Attributes:
        layout: of the candidates' weights.
    """

    def __init__(
        self, module: nn.Module, layout: Layout, saved: Sequence[tuple[Tensor, Tensor]], ledger: Ledger
    ) -> None:
        parameters = trainable_parameters(module)
        self._targets = [(parameters[spec.name], spec) for spec in layout]
        self.layout = layout
        self._ledger = ledger
        self._saved = {id(value): copy for value, copy in saved}
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._in_use: Candidate | None = None

    def use(self, candidate: Candidate | None) -> None:
        """Put a candidate's weights into the network, and its statistics where it has some; `None`: the present."""
        if candidate is self._in_use:
            return
        with self._ledger.charge("copying"), torch.no_grad():
            # First, so that an interrupt in the middle leaves no wrong belief about what is there.
            self._in_use = candidate
            for parameter, spec in self._targets:
                if candidate is None:
                    parameter.copy_(self._saved[id(parameter)])
                else:
                    parameter.copy_(candidate.weights[spec.span].reshape(spec.shape))
            for buffer, value in self._buffers:
                buffer.copy_(self._saved[id(buffer)] if candidate is None else value)

    def take_buffers(self, buffers: Sequence[Tensor]) -> None:
        """Remember the present values of some buffers as the candidate's own."""
        self._buffers = [(buffer, buffer.detach().clone()) for buffer in buffers]

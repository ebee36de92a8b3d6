"""Each process' own gradient, before it is averaged with the others'."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..forecast import Selection


class RankGradients:
    """Adds up what each backward pass gives this process, and gathers it in the first process.

    A hook on each parameter sees the gradient before the strategy averages it. Added up over the batches of an
    accumulation it is the gradient of this process' own loss; it is neither clipped nor averaged. A parameter that
    gets no gradient has zeros.

    Args:
        parameters: by name.
        selection: which of their coordinates count.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], selection: Selection) -> None:
        device = next(iter(parameters.values())).device
        self.row = torch.zeros(selection.layout.size, device=device)
        self.wanted = False
        self._handles: list[RemovableHandle] = []
        for spec in selection.layout:
            found = selection.places(spec.name)
            places = None if found is None else torch.from_numpy(found).to(device)
            target = self.row[spec.span]
            self._handles.append(parameters[spec.name].register_hook(self._adder(target, places)))

    def _adder(self, target: Tensor, places: Tensor | None):
        def add(gradient: Tensor) -> None:
            if self.wanted:
                flat = gradient.detach().reshape(-1)
                target.add_(flat if places is None else flat[places])

        return add

    def begin(self, wanted: bool) -> None:
        """Start a new sum, as for a new optimiser step; without one if it is not `wanted`."""
        self.wanted = wanted
        if wanted:
            self.row.zero_()

    def gather(self, scale: float, rank: int, num_ranks: int) -> list[Tensor] | None:
        """Everyone's sum, divided by the scale of the loss; in process 0 only, in others None. A collective."""
        if scale != 1.0:
            self.row.div_(scale)
        if num_ranks == 1:
            return [self.row]
        found = [torch.empty_like(self.row) for _ in range(num_ranks)] if rank == 0 else None
        dist.gather(self.row, found, dst=0)
        return found

    def close(self) -> None:
        """Take the hooks away; harmless when repeated."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

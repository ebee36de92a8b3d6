"""The losses of several weights at once."""

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from typing_extensions import override

from ..layout import Layout
from ..packing import plain_name
from .proposal import Candidate
from .verification import Probe


class _Probed(nn.Module):
    """A module and its probe as one module, so that `functional_call` reaches the parameters."""

    def __init__(self, module: nn.Module, probe: Probe) -> None:
        super().__init__()
        self.module = module
        self.probe = probe

    @override
    def forward(self, batch: Any) -> Tensor:
        return self.probe(self.module, batch)


@final
class CandidateScreen:
    """Measures several candidates on one batch: in one batched pass where the model allows it, else one by one.

    The batched pass maps the probe over stacked weights (`torch.func.vmap` of `functional_call`). That pays for
    networks of matrix products; convolutions with different weights become grouped ones, which are slower on a CPU than
    one pass after the other, so a network with convolutions is not batched. Neither is one that `torch.compile` made,
    nor one that failed to be mapped once: a probe that reads numbers out of tensors, draws random numbers or writes to
    buffers cannot be.

    Attributes:
        one_by_one: why candidates are not batched; empty while they are.
    """

    def __init__(self) -> None:
        self.one_by_one = ""

    def losses(
        self,
        module: nn.Module,
        probe: Probe,
        batch: Any,
        candidates: Sequence[Candidate],
        layout: Layout,
        load: Callable[[Candidate], None],
    ) -> Tensor:
        """Mean losses, `[candidate]`, float64, on the CPU; NaN for one that is not finite.

        The module must be in eval mode.

        Args:
            module: the network.
            probe: its losses.
            batch: held-out data.
            candidates: what to measure.
            layout: of their weights.
            load: puts a candidate's weights into the module; used where they are taken one by one.
        """
        if not self.one_by_one and len(candidates) > 1:
            self.one_by_one = _obstacle(module)
        if not self.one_by_one and len(candidates) > 1:
            try:
                return _batched(module, probe, batch, candidates, layout)
            except (RuntimeError, ValueError, TypeError) as error:
                # Whatever vmap cannot do: it says so in one of these. If the probe itself is at fault, it is so below.
                self.one_by_one = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        means: list[Tensor] = []
        with torch.no_grad():
            for candidate in candidates:
                load(candidate)
                means.append(probe(module, batch).detach().double().mean().cpu())
        return torch.stack(means)


def _obstacle(module: nn.Module) -> str:
    """Why a module is not even tried; empty where it is."""
    for part in module.modules():
        if isinstance(part, nn.modules.conv._ConvNd):
            return f"{type(part).__name__}: grouped convolutions are slower than one after the other"
        if isinstance(part, torch._dynamo.OptimizedModule):
            return "compiled modules are not mapped over weights"
    return ""


def _batched(module: nn.Module, probe: Probe, batch: Any, candidates: Sequence[Candidate], layout: Layout) -> Tensor:
    real = {plain_name(name): name for name, value in module.named_parameters() if value.requires_grad}
    stacked = torch.stack([candidate.weights for candidate in candidates])
    weights = {
        f"module.{real[spec.name]}": stacked[:, spec.span]
        .reshape(len(candidates), *spec.shape)
        .to(getattr(torch, spec.dtype))
        for spec in layout
    }
    probed = _Probed(module, probe).eval()

    def mean_loss(tensors: dict[str, Tensor]) -> Tensor:
        return functional_call(probed, tensors, (batch,)).double().mean()

    with torch.no_grad():
        return vmap(mean_loss)(weights).cpu()

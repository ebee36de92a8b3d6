"""Supermasks: one network of fixed random weights that does many tasks, each by a mask of one bit a weight."""

import copy
import hashlib
import json
import math
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from ...forecast.layout import Layout
from ...forecast.packing import unpack
from ..errors import ModelError
from ..options import require_integer, require_share
from .placement import find_places, placed, places_in_copy, vacate
from .random_words import random_signs, stream_key


def signed_constants(layout: Layout, seed: int, kept: float) -> Tensor:
    """Weights +c and -c with random signs, c = sqrt(2 / (fan_in kept)) by tensor, `[param]`, float32.

    What is left under a mask has the spread of He et al. 2015: the "signed Kaiming constant" of Ramanujan et al. 2020
    (arXiv 1911.13299), divided by sqrt(kept) as their "scaled" distributions are. The code of SupSup does not divide.
    """
    parts: list[Tensor] = []
    for index, spec in enumerate(layout):
        fan_in = max(1, spec.numel // spec.shape[0])
        signs = random_signs(stream_key(seed, index), 0, spec.numel)
        parts.append(torch.from_numpy(signs * math.sqrt(2.0 / (fan_in * kept))).float())
    return torch.cat(parts)


class _Popup(torch.autograd.Function):
    """1 for the highest scores of each tensor and 0 for the others; the gradient passes to all scores."""

    @staticmethod
    @override
    def forward(ctx: Any, scores: Tensor, layout: Layout, kept: float) -> Tensor:
        mask = torch.empty_like(scores)
        for spec in layout:
            part = scores[spec.span]
            num_dropped = spec.numel - round(kept * spec.numel)
            threshold = part.kthvalue(num_dropped).values if num_dropped else part.min() - 1
            mask[spec.span] = (part > threshold).to(scores)
        return mask

    @staticmethod
    @override
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None, None


class Supermasks(nn.Module):
    """Wraps a module: its tensors become fixed random weights under a mask; what is trained are scores of the weights.

    Weights whose score is among the highest `kept` share of their tensor are used, the others are 0: edge-popup
    (Ramanujan et al. 2020, "What's hidden in a randomly weighted neural network?", CVPR, arXiv 1911.13299, section 3.2,
    with scores themselves ranked and not their absolute values, as in their code). The gradient of a score is that of
    its masked weight times the weight, for weights that are dropped too.

    Many tasks (Wortsman et al. 2020, "Supermasks in Superposition", NeurIPS, arXiv 2006.14769; their code for permuted
    tasks keeps all weights of score 0 and up, so that the share is learned; here it is fixed): train the scores,
    `remember` the mask, `begin_task`, train again. Nothing that was learned is touched by what comes after. A
    remembered mask takes one bit a weight. If the task of some data is not known, `infer_task` finds it.

    This is no `Coordinates`: masks are neither differentiable nor expressible for given weights.

    All other parameters of the module are frozen as they are: give one without biases, or accept them as constants.

    Args:
        module: it is changed: give a copy to keep it.
        layout: tensors of two axes or more, as `choose_layout(module, num_axes=2)` gives.
        kept: share of each tensor's weights that a mask keeps, above 0.
        seed: of the fixed weights.

    Attributes:
        layout: as given.
        weights: the fixed weights, `[param]`, not saved: the seed makes them.

    Raises:
        ModelError: if an option is out of range, or a tensor has fewer than two axes.
        LayoutError: if the module has no such tensors.
    """

    def __init__(self, module: nn.Module, layout: Layout, kept: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        self.kept = require_share("kept", kept)
        self.seed = require_integer("seed", seed, 0)
        flat = [spec for spec in layout if len(spec.shape) < 2]
        if flat:
            raise ModelError(f"Supermasks need tensors of two axes or more, got {flat[0].name!r}.")
        if min(round(kept * spec.numel) for spec in layout) < 1:
            raise ModelError(f"`kept` must leave a weight in each tensor, got {kept!r}.")
        self.layout = layout
        self._places = find_places(module, layout)
        vacate(self._places)
        self.module = module.requires_grad_(False)
        self.register_buffer("weights", signed_constants(layout, self.seed, self.kept), persistent=False)
        self.register_buffer("packed", torch.zeros(0, -(-layout.size // 8), dtype=torch.uint8), persistent=False)
        self.weights: Tensor
        self.packed: Tensor
        self.register_parameter(f"scores_{self.digest[:12]}", nn.Parameter(torch.zeros(layout.size)))
        self.begin_task()

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of what defines the fixed weights."""
        told = ["supermasks", self.kept, self.seed, self.layout.digest]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    @property
    def scores(self) -> nn.Parameter:
        """The scores of the task that is being learned, `[param]`."""
        return self.get_parameter(f"scores_{self.digest[:12]}")

    @torch.no_grad()
    def begin_task(self, seed: int = 0) -> None:
        """Draw the scores anew, standard normal times 0.01, so that steps of Adam around 0.001 and up reorder them."""
        drawn = torch.randn(self.layout.size, generator=torch.Generator().manual_seed(seed))
        self.scores.copy_(0.01 * drawn)

    def mask(self) -> Tensor:
        """The mask that the present scores make, `[param]`, 1 and 0 in float32; its gradient is that of the scores."""
        return cast(Tensor, _Popup.apply(self.scores, self.layout, self.kept))

    @torch.no_grad()
    def remember(self) -> int:
        """Keep the present mask, and give the number of its task."""
        return self.add_mask(self.mask().bool())

    def add_mask(self, mask: Tensor) -> int:
        """Keep a mask, `[param]`, of booleans, and give the number of its task.

        Raises:
            ModelError: if it has another shape or type.
        """
        if tuple(mask.shape) != (self.layout.size,) or mask.dtype != torch.bool:
            raise ModelError(f"A mask must be {self.layout.size} booleans, got {tuple(mask.shape)} of {mask.dtype}.")
        bits = torch.from_numpy(np.packbits(mask.cpu().numpy(), bitorder="little")).to(self.packed.device)
        self.packed = torch.cat((self.packed, bits[None]))
        return len(self.packed) - 1

    @property
    def num_tasks(self) -> int:
        """How many masks were remembered."""
        return len(self.packed)

    def masks(self) -> Tensor:
        """All remembered masks, `[task, param]`, booleans."""
        bits = np.unpackbits(self.packed.cpu().numpy(), axis=1, count=self.layout.size, bitorder="little")
        return torch.from_numpy(bits).bool().to(self.packed.device)

    def call(self, mask: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The module's output with its weights under a mask, `[param]`, of any real numbers; differentiable in them."""
        with placed(self._places, unpack(self.weights * mask, self.layout)):
            return self.module(*args, **kwargs)

    @override
    def forward(self, *args: Any, task: int | None = None, **kwargs: Any) -> Any:
        """The output for a remembered task; without one, for the task that is being learned.

        Raises:
            ModelError: if there is no such task.
        """
        if task is None:
            return self.call(self.mask(), *args, **kwargs)
        if not 0 <= task < self.num_tasks:
            raise ModelError(f"There are {self.num_tasks} tasks, counted from 0; there is no task {task}.")
        return self.call(self.masks()[task].float(), *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Supermasks":
        twin = Supermasks.__new__(Supermasks)
        memo[id(self)] = twin
        nn.Module.__init__(twin)
        for name, value in self.__dict__.items():
            if name not in ("_places", "_modules", "layout"):
                twin.__dict__[name] = copy.deepcopy(value, memo)
        twin.layout = self.layout
        twin.module = copy.deepcopy(self.module, memo)
        twin._places = places_in_copy(self._places, self.module, twin.module)
        return twin

"""AdamW whose first moment decides in every step how much of the past it keeps."""

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

SECOND_MOMENT, TINY, WEIGHT_DECAY = 0.999, 1e-8, 0.01


@final
class AdaptiveMemoryAdamW(Optimizer):
    """AdamW with an adaptive memory: the momentum of each step is the one that a model of two planes asks for.

    K. Topollai and A. Choromanska (2025), Adaptive Memory Momentum via a Model-Based Framework for Deep Learning
    Optimization, arXiv:2510.04988. With g the gradient, d the memory, P = diag(1 / (sqrt(v) + 1e-8)) of AdamW:

        d <- ((b + l) d + (1 - b) g) / (1 + l);    w <- (1 - 0.01 rate) w - rate P d.

    The step minimises the larger of two planes through w, with slopes g and d, plus |x - w|^2 / (2 rate) and l times
    |x - (w - rate P d)|^2 / (2 rate) in the norm of P's inverse. By duality b minimises |(1 - b) g + (b + l) d|^2 in
    the norm of P:

        b = <g + l d, g - d> / |g - d|^2,    kept within 0 and 1,

    with one b for all parameters. The recursion of d is the paper's; b was derived here from its model, not compared
    with the authors' code.

    Args:
        parameters: of one network.
        rate: of a step.
        pull: l, how strongly a step is pulled towards the one that memory alone would take.
    """

    def __init__(self, parameters: Iterable[Tensor], rate: float, pull: float) -> None:
        super().__init__(parameters, {"lr": rate})
        self._pull = pull

    @override
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [
            (group["lr"], value, value.grad, *self._scaled(value, value.grad))
            for group in self.param_groups
            for value in group["params"]
            if value.grad is not None
        ]
        pull = self._pull
        above = below = 0.0
        for _, _, gradient, memory, scale in moving:
            apart = gradient - memory
            weighted = scale * apart
            above += float((weighted * (gradient + pull * memory)).sum())
            below += float((weighted * apart).sum())
        keep = min(1.0, max(0.0, above / below)) if below > 0 else 1.0
        for rate, value, gradient, memory, scale in moving:
            memory.mul_((keep + pull) / (1 + pull)).add_(gradient, alpha=(1 - keep) / (1 + pull))
            value.mul_(1 - rate * WEIGHT_DECAY).addcmul_(memory, scale, value=-rate)
        return loss

    def _scaled(self, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The memory of a parameter, and the diagonal of P for it."""
        state = self.state[value]
        if not state:
            state["step"], state["memory"] = 0, gradient.clone()
            state["square"] = torch.zeros_like(value)
        state["step"] += 1
        state["square"].mul_(SECOND_MOMENT).addcmul_(gradient, gradient, value=1 - SECOND_MOMENT)
        corrected = state["square"] / (1 - SECOND_MOMENT ** state["step"])
        return state["memory"], 1 / (corrected.sqrt_() + TINY)

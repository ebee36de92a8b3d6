"""Where the optimiser's present moments lead."""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, cast, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Forecast, Moments, Window
from .closed_form import ClosedForm
from .errors import ModelError
from .motion import working_dtype


@final
class OptimizerMoments(ClosedForm):
    """`horizon` updates of Adam with its moments frozen as they are.

    With the bias-corrected moments mhat = m / (1 - beta1^t), vhat = v / (1 - beta2^t) (Kingma and Ba 2014, arXiv
    1412.6980, algorithm 1), the learning rate lr and the decoupled weight decay lambda (Loshchilov and Hutter 2017,
    arXiv 1711.05101),

        mean  = w - S lr (mhat / (sqrt(vhat) + eps) + lambda w),    S = sum_{k<horizon} (1 - lr lambda)^k
        scale = lr sqrt(horizon) sqrt(max(vhat - mhat^2, 0)) / (sqrt(vhat) + eps)

    S is `horizon` without decay; with it, each update decays what the last one left, so that the mean is exactly what
    AdamW does while its moments stand still. The scale treats vhat - mhat^2 as the variance of a gradient and the
    updates as independent; consecutive updates share their first moment, so over a few steps it is too small by up to
    sqrt((1 + beta1) / (1 - beta1)), 4.4 at beta1 = 0.9.

    Moments must be float32 or wider. Leap+Verify (McEntire 2026, arXiv 2602.19580) reports that forecasts from moments
    raise the loss by factors of 100 to 10,000 (a "momentum catastrophe"), but its code stores v in half precision,
    where values below 3e-8 become zero and the quotient becomes m / eps. That tells about storage, not about the
    method.

    Args:
        stream: only `weights`; here so that all forecasters are made alike.

    Raises:
        ModelError: if `stream` is not `weights`.
    """

    name: ClassVar[str] = "optimizer_moments"
    needs_moments: ClassVar[bool] = True

    def __init__(self, stream: str = "weights") -> None:
        if stream != "weights":
            raise ModelError(f"'optimizer_moments' forecasts the stream 'weights' only, got {stream!r}.")
        super().__init__(stream)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {"stream": self.stream}

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        moments = cast(Moments, window.moments)  # `forecast` refuses windows without
        dtype = working_dtype(window.values.dtype)
        last = window.last.to(dtype)
        rate = moments.learning_rate.to(last)
        update, noise = (part * rate for part in _directions(moments, dtype))
        decay = rate * moments.weight_decay
        drift = update + decay * last
        for horizon in horizons:
            mean = last - _num_effective_updates(decay, horizon) * drift
            yield Forecast(horizon, mean.to(window.values.dtype), (noise * horizon**0.5).to(window.values.dtype))


def _directions(moments: Moments, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Adam's update and the standard deviation of one gradient, both over `sqrt(vhat) + eps`, `[param]` each."""
    first = moments.exp_avg.to(dtype) / _debias(moments.beta1, moments.num_updates)
    second = moments.exp_avg_sq.to(dtype) / _debias(moments.beta2, moments.num_updates)
    denominator = second.sqrt() + moments.eps
    return first / denominator, (second - first.square()).clamp_(min=0).sqrt_() / denominator


def _debias(beta: float, num_updates: int) -> float:
    """1 - beta^t without cancellation for beta near 1."""
    return -math.expm1(num_updates * math.log(beta)) if beta > 0 else 1.0


def _num_effective_updates(decay: Tensor, horizon: int) -> Tensor:
    """S = sum_{k<horizon} (1 - decay)^k, in `decay`'s shape; `horizon` where there is no decay."""
    exact = decay.double()
    total = -torch.expm1(horizon * torch.log1p(-exact)) / exact.where(exact > 0, 1.0)
    return total.where(exact > 0, float(horizon)).to(decay.dtype)

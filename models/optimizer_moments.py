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
from .pieces import filled


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
    where values up to 3e-8 become zero and the quotient becomes m / eps. That tells about storage, not about the
    method: with its rate of 5e-5, jumps of 5 to 100 steps never raised the held-out loss of three small networks, and
    the same jumps from v in half precision multiplied it by up to 3e12 (`benchmarks/momentum_catastrophe.txt`). At a
    rate of 1e-3 they do overshoot, from about 25 steps on: frozen moments do not notice that the gradient turns.

    Args:
        stream: only `weights`; here so that all forecasters are made alike.

    Raises:
        ModelError: if `stream` is not `weights`.
    """

    name: ClassVar[str] = "optimizer_moments"
    needs_moments: bool = True

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
        for horizon in horizons:
            yield Forecast(
                horizon,
                filled(window.last, lambda span, h=horizon: _mean(window, moments, span, h)),
                filled(window.last, lambda span, h=horizon: _scale(window, moments, span, h)),
            )


def _mean(window: Window, moments: Moments, span: slice, horizon: int) -> Tensor:
    """The mean of a stretch of the coordinates."""
    dtype = working_dtype(window.values.dtype)
    last, rate = window.values[-1, span].to(dtype), _rate(moments, span, dtype)
    first, second = _corrected(moments, span, dtype)
    decay = rate * moments.weight_decay
    drift = rate * first / (second.sqrt() + moments.eps) + decay * last
    return last - _num_effective_updates(decay, horizon) * drift


def _scale(window: Window, moments: Moments, span: slice, horizon: int) -> Tensor:
    """The scale of a stretch of the coordinates."""
    dtype = working_dtype(window.values.dtype)
    first, second = _corrected(moments, span, dtype)
    deviation = (second - first.square()).clamp_(min=0).sqrt_()
    return deviation / (second.sqrt() + moments.eps) * (_rate(moments, span, dtype) * horizon**0.5)


def _corrected(moments: Moments, span: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """mhat and vhat of a stretch of the coordinates."""
    first = moments.exp_avg[span].to(dtype) / _debias(moments.beta1, moments.num_updates)
    return first, moments.exp_avg_sq[span].to(dtype) / _debias(moments.beta2, moments.num_updates)


def _rate(moments: Moments, span: slice, dtype: torch.dtype) -> Tensor:
    """The learning rate of a stretch of the coordinates, one number or one each."""
    rate = moments.learning_rate.to(device=moments.exp_avg.device, dtype=dtype)
    return rate[span] if rate.ndim else rate


def _debias(beta: float, num_updates: int) -> float:
    """1 - beta^t without cancellation for beta near 1."""
    return -math.expm1(num_updates * math.log(beta)) if beta > 0 else 1.0


def _num_effective_updates(decay: Tensor, horizon: int) -> Tensor:
    """S = sum_{k<horizon} (1 - decay)^k, in `decay`'s shape; `horizon` where there is no decay."""
    exact = decay.double()
    total = -torch.expm1(horizon * torch.log1p(-exact)) / exact.where(exact > 0, 1.0)
    return total.where(exact > 0, float(horizon)).to(decay.dtype)

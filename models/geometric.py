"""Geometric sums with any number of terms."""

import torch
from torch import Tensor

TINY = 1e-30


def geometric_sum(ratio: Tensor, num_terms: float) -> Tensor:
    """ratio + ratio^2 + ... + ratio^m, without cancellation where the ratio is near 1.

    The closed form ratio (1 - ratio^m) / (1 - ratio), by expm1 of logarithms, which also says what a number of terms
    that is not whole means: the sum's smooth continuation. 0 for a ratio of 0, m for a ratio of 1.

    Args:
        ratio: real and from 0 to 1, or complex; a complex power is the principal one.
        num_terms: m, above 0.
    """
    power = _logarithm(ratio)
    return torch.expm1(num_terms * power).div_(torch.expm1(power)).mul_(ratio)


def _logarithm(ratio: Tensor) -> Tensor:
    """log ratio, but finite at 0, where the factor `ratio` decides, and not quite 0 at 1, where the quotient is m."""
    if ratio.is_complex():
        power = torch.log(torch.where(ratio == 0, 1.0, ratio))
        return torch.where(power == 0, -TINY, power)
    # Clamping; masks cost as much as all the rest.
    return torch.log(ratio.clamp(min=TINY)).clamp_(max=-TINY)

"""When a paired test on held-out data may stop early."""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from ..errors import JumpError

_NORMAL = NormalDist()
_MAX_LOOKS = 200  # more looks than that change nothing but the time to find the boundary


@lru_cache(maxsize=64)
def upper_boundary(num_looks: int, num_standard_errors: float) -> tuple[float, ...]:
    """Standardised gains from which on a test may stop and accept, one a look.

    A test that looks K times at equal amounts of data and stops at the first z_k >= c_k is to accept a jump that gains
    nothing no more often than one look with the threshold k would: with probability alpha = 1 - Phi(k). The boundary
    spends

        alpha(t) = 2 - 2 Phi(z_{alpha/2} / sqrt(t)),    t = look / K,

    which spends little early and leaves the last threshold close to k (Lan and DeMets 1983, "Discrete sequential
    boundaries for clinical trials", Biometrika 70, the form that resembles O'Brien and Fleming's). Each c_k is found by
    integrating the density of the score over the paths that did not stop (Armitage, McPherson and Rowe 1969,
    "Repeated significance tests on accumulating data"), on a grid; the error is below 0.002 for all looks whose
    boundary is below 5.

    Args:
        num_looks: K, at least 1.
        num_standard_errors: k of the one-look test, at least 0.

    Returns:
        `num_looks` thresholds for the mean over its standard error. With one look that is `num_standard_errors`.

    Raises:
        JumpError: if an argument is out of range.

    Examples:
        >>> [round(value, 2) for value in upper_boundary(3, 1.96)]
        [3.71, 2.51, 1.99]
    """
    if num_looks < 1 or not num_standard_errors >= 0:
        raise JumpError(
            "A test needs at least one look and a threshold of at least 0, got "
            f"{num_looks} looks and {num_standard_errors}."
        )
    if num_looks == 1:
        return (num_standard_errors,)
    alpha = 1 - _NORMAL.cdf(num_standard_errors)
    if alpha < 1e-12 or num_looks > _MAX_LOOKS:
        # Nothing to spend, or too many looks to tell apart: only the last one may accept.
        return (*[math.inf] * (num_looks - 1), num_standard_errors)
    quantile = -_NORMAL.inv_cdf(alpha / 2)
    gap = 1 / num_looks
    # The score S_k = z_k sqrt(k / K) is a random walk with increments of variance 1 / K.
    spacing = math.sqrt(gap) / 40
    grid = np.arange(-6.5, 6.5 + spacing, spacing)
    density = np.exp(-(grid**2) / (2 * gap)) / math.sqrt(2 * math.pi * gap)
    reach = np.arange(-8 * math.sqrt(gap), 8 * math.sqrt(gap) + spacing, spacing)
    kernel = np.exp(-(reach**2) / (2 * gap)) / math.sqrt(2 * math.pi * gap) * spacing
    boundary: list[float] = []
    spent = 0.0
    for look in range(1, num_looks + 1):
        time = look / num_looks
        allowed = 2 - 2 * _NORMAL.cdf(quantile / math.sqrt(time))
        # Mass above each grid point, by trapezoids; the boundary lies where it equals what may be spent now.
        cells = (density[1:] + density[:-1]) / 2 * spacing
        above = np.concatenate([np.cumsum(cells[::-1])[::-1], [0.0]])
        threshold = float(np.interp(-(allowed - spent), -above, grid)) if allowed > spent + 1e-14 else math.inf
        boundary.append(threshold / math.sqrt(time))
        spent = max(spent, allowed)
        density = np.convolve(np.where(grid < threshold, density, 0.0), kernel, mode="same")
    return tuple(boundary)


@dataclass(frozen=True)
class SequentialTest:
    """A one-sided test that looks after every group of samples.

    It accepts when the mean exceeds `upper_boundary` standard errors, and gives up when it would hardly ever get there:
    when the chance of passing the last look, if the samples to come are like those seen, is below `futility`
    (stochastic curtailment: Lan, Simon and Halperin 1982, "Stochastically curtailed tests in long-term clinical
    trials"; the chance under the present trend). Giving up can only make wrong acceptance rarer.

    What is not guaranteed: the normal approximation, which is why no look is taken before `min_samples`; and
    independence, where the samples of a batch belong together.

    Args:
        num_looks: groups of samples.
        num_standard_errors: k; the error is that of one look with this threshold.
        futility: 0 never gives up early; 0.05 to 0.2 saves most of the work on jumps that are no good.
        min_samples: no early decision before so many.

    Raises:
        JumpError: if one of them is out of range.
    """

    num_looks: int
    num_standard_errors: float = 1.0
    futility: float = 0.1
    min_samples: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.futility < 0.5:
            raise JumpError(f"`futility` must be at least 0 and below 0.5, got {self.futility}.")
        if self.min_samples < 1:
            raise JumpError(f"`min_samples` must be at least 1, got {self.min_samples}.")
        upper_boundary(self.num_looks, self.num_standard_errors)

    def threshold(self, look: int) -> float:
        """The boundary at a look, counted from 1, in standard errors."""
        return upper_boundary(self.num_looks, self.num_standard_errors)[look - 1]

    def decide(self, look: int, num_samples: int, mean: float, standard_error: float) -> bool | None:
        """Whether to accept, or `None` to look on; the last look always decides.

        Args:
            look: from 1 to `num_looks`.
            num_samples: seen so far.
            mean: of them, less what is asked for.
            standard_error: of the mean.
        """
        if look >= self.num_looks:
            return mean > self.threshold(look) * standard_error
        if num_samples < self.min_samples or not standard_error > 0:
            return None
        score = mean / standard_error
        if score >= self.threshold(look):
            return True
        return False if self.chance(look, score) < self.futility else None

    def chance(self, look: int, score: float) -> float:
        """The chance of passing the last look if the trend goes on, given the standardised mean at a look."""
        time = look / self.num_looks
        expected_at_end = score / math.sqrt(time)
        missing = self.threshold(self.num_looks) - expected_at_end
        return 1 - _NORMAL.cdf(missing / math.sqrt(1 - time))

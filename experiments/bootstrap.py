"""Intervals over runs: pure functions of numbers, one a run.

The ratios of squared errors are averaged over runs by their logarithms, as a geometric mean. A plain mean of the ratios
would be decided by the one run on which an extrapolator explodes; a median would hide that run altogether. In the
geometric mean it counts as what it is, one run, and halving the error in one run weighs as much as doubling it in
another. Beside it the worst run is reported, always.

Runs are what is resampled, not cases: cases of one run overlap and share its noise, and an interval over them would be
too narrow by far. Forecasters are resampled together (the same runs for all), so that comparisons are paired: what
makes a run hard for all of them cancels out. The intervals speak about runs like those that were measured, and about
no task that was not. Nor do they know that the best of many forecasters was picked: of twenty that are all as good as
the reference, one will seem better outside its interval every second time.

References:
    B. Efron (1979), Bootstrap methods: another look at the jackknife, Annals of Statistics 7(1). The percentile
    interval is used; with few runs it is too narrow, hence `MIN_RUNS`.
    P. J. Fleming and J. J. Wallace (1986), How not to lie with statistics: the correct way to summarize benchmark
    results, Communications of the ACM 29(3), on geometric means of ratios.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
# With fewer runs there is no interval: five that happen to agree in sign would exclude "no difference" every time, and
# they agree by chance in one case of sixteen; six do in one of thirty-two, which is below 1 - LEVEL.
MIN_RUNS = 6
MAX_LOG_RATIO = math.log(1e12)  # a perfect forecast and one that is not finite count as this much

Values = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean over runs with its interval; `low` and `high` are None where there are fewer than `MIN_RUNS` runs."""

    value: float
    low: float | None
    high: float | None


def log_ratio(error: float, reference: float) -> float:
    """log(error / reference), kept within `MAX_LOG_RATIO` on both sides; an error that is not finite counts as that.

    NaN where both are zero: nothing moved and nothing was forecast to move, so that nothing can be said.
    """
    if error == 0 and reference == 0:
        return math.nan
    if not math.isfinite(error) or reference == 0:
        return MAX_LOG_RATIO
    if error == 0 or not math.isfinite(reference):
        return -MAX_LOG_RATIO
    return max(-MAX_LOG_RATIO, min(MAX_LOG_RATIO, math.log(error) - math.log(reference)))


def resampled_means(values: Values, num_resamples: int, seed: int) -> Values:
    """Means over runs of `num_resamples` resamples of the runs, with replacement.

    Args:
        values: `[run, column]`; every column is resampled alike.
        num_resamples: how many; 2000 give the ends of a 95 % interval to about a twentieth of its width.
        seed: of the choice of runs.

    Returns:
        `[resample, column]`.
    """
    num_runs = len(values)
    counts = np.random.default_rng(seed).multinomial(num_runs, np.full(num_runs, 1 / num_runs), size=num_resamples)
    return counts @ values / num_runs


def estimates(values: Values, num_resamples: int, seed: int) -> list[Estimate]:
    """The mean of each column over runs, with the percentile interval of its resampled means.

    Args:
        values: `[run, column]`, finite, at least one run.
        num_resamples: how many.
        seed: of the choice of runs.
    """
    means = values.mean(axis=0)
    if len(values) < MIN_RUNS:
        return [Estimate(float(mean), None, None) for mean in means]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled_means(values, num_resamples, seed), [tail, 1 - tail], axis=0)
    return [Estimate(*(float(part) for part in parts)) for parts in zip(means, low, high, strict=True)]


def as_ratio(estimate: Estimate) -> Estimate:
    """A mean of logarithms of ratios as a geometric mean of ratios."""
    return Estimate(*(None if part is None else math.exp(part) for part in estimate))  # type: ignore[arg-type]


def as_skill(estimate: Estimate) -> Estimate:
    """A mean of logarithms of MSE over that of standing still as skill, 1 - exp(mean); the ends change places."""
    value, low, high = as_ratio(estimate)
    return Estimate(1 - value, None if high is None else 1 - high, None if low is None else 1 - low)

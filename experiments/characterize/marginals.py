"""Which distribution the values of a stream have, judged in bits on values it was not fitted to.

Five families, each around a location (the Gaussian's the mean, the others' the median of the values fitted to, because
the mean of a heavy-tailed sample misses a narrow peak) and of maximum likelihood otherwise:

    gaussian              what an i.i.d. Gaussian source would give
    laplace               exp(-|x| / b)
    generalised_gaussian  exp(-(|x| / a)^p); p = 2 is a Gaussian, p = 1 Laplace
    student_t             a Gaussian whose variance is drawn from an inverse gamma distribution
    scale_mixture         four Gaussians of one mean: a variance drawn from four values

Values are seen at a resolution of 1/256 of their root mean square: uniform noise of that width is added, so that exact
zeros (an idle unit, a letter that did not occur) are a narrow peak instead of infinite density, and a family cannot win
by what no quantiser would resolve. The bits are those of an ideal entropy coder with cells of that width. An i.i.d.
Gaussian takes 8 + log2(2 pi e) / 2 = 10.05 of them.

Not guaranteed: the p-values take values for independent, which they are not; they are beside the bits, not instead.

References:
    T. M. Cover and J. A. Thomas (2006), Elements of Information Theory, section 8.3: bits at a fine resolution.
    D. F. Andrews and C. L. Mallows (1974), Scale mixtures of normal distributions, J. R. Stat. Soc. B 36.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

RESOLUTION_BITS = 8
NUM_SCALES = 4
EM_STEPS = 40
MAX_TEST_VALUES = 2000  # of a test of fit: with more, any difference too small to matter is significant
TAIL = 4.0  # standard deviations
GAUSSIAN_TAIL = 2 * float(stats.norm.sf(TAIL))  # 6.3e-5
TOP_SHARE = 0.01
TIE = 0.005  # bits: families closer than this are called equally good, and the simplest of them the best

Values = NDArray[Any]


class Density(Protocol):
    """A fitted distribution, as SciPy's frozen ones."""

    def logpdf(self, x: Values, /) -> Values:
        """Natural logarithm of the density."""
        ...

    def cdf(self, x: Values, /) -> Values:
        """Share of values below."""
        ...


@dataclass(frozen=True)
class ScaleMixture:
    """Gaussians around one location, of several standard deviations.

    Attributes:
        location: the mean of each.
        weights: `[scale]`, of sum 1.
        scales: `[scale]`.
    """

    location: float
    weights: Values
    scales: Values

    def logpdf(self, x: Values, /) -> Values:
        """Natural logarithm of the density."""
        z = (x - self.location)[:, None] / self.scales
        logs = np.log(self.weights) - np.log(self.scales) - 0.5 * z**2 - 0.5 * math.log(2 * math.pi)
        return np.asarray(special.logsumexp(logs, axis=1))

    def cdf(self, x: Values, /) -> Values:
        """Share of values below."""
        return special.ndtr((np.asarray(x) - self.location)[..., None] / self.scales) @ self.weights


@dataclass(frozen=True)
class Fit:
    """One family fitted to some values.

    Attributes:
        density: what was fitted.
        shape: the exponent of a generalised Gaussian, the degrees of freedom of Student's t; None elsewhere.
    """

    density: Density
    shape: float | None = None


def _fit(frozen: Any, shape: float | None = None) -> Fit:
    """With a distribution of SciPy's, whose stubs know no densities."""
    return Fit(frozen, shape)


def _gaussian(values: Values) -> Fit:
    return _fit(stats.norm(values.mean(), max(float(values.std()), 1e-12)))


def _laplace(values: Values) -> Fit:
    middle = np.median(values)
    return _fit(stats.laplace(middle, max(float(np.abs(values - middle).mean()), 1e-12)))


def _generalised_gaussian(values: Values) -> Fit:
    middle = np.median(values)
    logs = np.log(np.maximum(np.abs(values - middle), 1e-12))

    def scale(power: float) -> float:
        return float((power * np.exp(power * logs).mean()) ** (1 / power))

    def cost(log_power: float) -> float:
        power = math.exp(log_power)
        return math.log(scale(power)) + 1 / power + math.lgamma(1 + 1 / power)

    found: Any = optimize.minimize_scalar(cost, bounds=(math.log(0.2), math.log(8.0)), method="bounded")
    power = math.exp(float(found.x))
    return _fit(stats.gennorm(power, middle, scale(power)), power)


def _student_t(values: Values) -> Fit:
    middle = np.median(values)
    squares = (values - middle) ** 2

    def cost(point: Values) -> float:
        scale, freedom = np.exp(point)
        constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
        return math.log(scale) - constant + (freedom + 1) / 2 * float(np.log1p(squares / (freedom * scale**2)).mean())

    start = np.log([max(math.sqrt(float(np.median(squares))), 1e-3 * math.sqrt(float(squares.mean())), 1e-12), 3.0])
    bounds = [(start[0] - 10, start[0] + 10), (math.log(0.3), math.log(300.0))]
    options = {"xatol": 1e-3, "fatol": 1e-5, "maxfev": 150}
    found: Any = optimize.minimize(cost, start, method="Nelder-Mead", bounds=bounds, options=options)
    scale, freedom = np.exp(found.x)
    return _fit(stats.t(freedom, middle, scale), float(freedom))


def _scale_mixture(values: Values) -> Fit:
    middle = np.median(values)
    squares = (values - middle) ** 2
    spread = np.quantile(np.sqrt(squares), [0.1, 0.4, 0.7, 0.97])
    variances = np.maximum(spread, 1e-4 * math.sqrt(float(squares.mean())) + 1e-12) ** 2 * [2.0, 1.5, 1.0, 1.0]
    weights = np.full(NUM_SCALES, 1 / NUM_SCALES)
    floor = 1e-8 * float(squares.mean()) + 1e-24
    for _ in range(EM_STEPS):
        logs = np.log(weights) - 0.5 * np.log(variances) - 0.5 * squares[:, None] / variances
        shares = np.exp(logs - logs.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        totals = shares.sum(0) + 1e-9
        weights = totals / totals.sum()
        variances = np.maximum(squares @ shares / totals, floor)
    return Fit(ScaleMixture(float(middle), weights, np.sqrt(variances)))


FAMILIES: Mapping[str, Callable[[Values], Fit]] = {
    "gaussian": _gaussian,
    "laplace": _laplace,
    "generalised_gaussian": _generalised_gaussian,
    "student_t": _student_t,
    "scale_mixture": _scale_mixture,
}
GAUSSIAN = "gaussian"


@dataclass(frozen=True)
class Judgement:
    """How the families describe values that they were not fitted to.

    Attributes:
        bits: of a value at the resolution, by family.
        shapes: of the families that have one.
        p_gaussian: of a Kolmogorov-Smirnov test of the Gaussian.
        p_best: the same of the best family.
    """

    bits: dict[str, float]
    shapes: dict[str, float]
    p_gaussian: float
    p_best: float

    @property
    def best(self) -> str:
        """The simplest family that is within `TIE` of the fewest bits."""
        return simplest(self.bits)

    @property
    def gap(self) -> float:
        """Bits of a value that the Gaussian takes more than the family with the fewest."""
        return self.bits[GAUSSIAN] - min(self.bits.values())


def simplest(bits: Mapping[str, float]) -> str:
    """The first family, in the order of `FAMILIES`, within `TIE` of the fewest bits."""
    return next(name for name in FAMILIES if bits[name] <= min(bits.values()) + TIE)


def blurred(values: Values, unit: float, generator: np.random.Generator) -> Values:
    """Values over a unit, seen at the resolution: with uniform noise of its width."""
    return values / unit + (generator.random(values.shape) - 0.5) * 2.0**-RESOLUTION_BITS


def judge(train: Values, test: Values) -> Judgement:
    """Fit every family to some values and judge it on others.

    Args:
        train: as `blurred` gives them, `[value]`.
        test: likewise, of other coordinates and rows.
    """
    fits = {name: fit(train) for name, fit in FAMILIES.items()}
    bits = {
        name: RESOLUTION_BITS - float(np.mean(fit.density.logpdf(test))) / math.log(2) for name, fit in fits.items()
    }
    shapes = {name: fit.shape for name, fit in fits.items() if fit.shape is not None}
    best = simplest(bits)
    few = test[:MAX_TEST_VALUES]
    p_values = [float(stats.kstest(few, fits[name].density.cdf).pvalue) for name in (GAUSSIAN, best)]
    return Judgement(bits, shapes, *p_values)


@dataclass(frozen=True)
class Tails:
    """How a few values dominate.

    Attributes:
        kurtosis: fourth moment over squared variance, less the Gaussian's 3.
        beyond: share of values further than four standard deviations from the mean, over a Gaussian's 6.3e-5.
        zeros: share of values that are exactly zero.
        top_energy: share of the squared norm that is in the largest hundredth of the values.
    """

    kurtosis: float
    beyond: float
    zeros: float
    top_energy: float


def tails(values: Values) -> Tails:
    """Tails of all values, whatever their shape; of equal values all are 0."""
    flat = np.asarray(values, dtype=np.float32).reshape(-1)
    zeros = float(np.mean(flat == 0))
    centred = flat - flat.mean(dtype=np.float64).astype(np.float32)
    deviation = math.sqrt(float(np.mean(np.square(centred, dtype=np.float64))))
    if deviation == 0:
        return Tails(0.0, 0.0, zeros, 0.0)
    standard = np.abs(centred / np.float32(deviation))
    kurtosis = float(np.mean(np.power(standard, 4, dtype=np.float64))) - 3
    beyond = float(np.mean(standard > TAIL)) / GAUSSIAN_TAIL
    squares = np.square(flat, dtype=np.float64)
    count = max(1, round(TOP_SHARE * len(squares)))
    top = float(np.partition(squares, len(squares) - count)[-count:].sum())
    return Tails(kurtosis, beyond, zeros, top / float(squares.sum()))

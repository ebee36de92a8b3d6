"""Generalised Gaussian distributions: the named models that bounds are told of."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError

LOWEST_SHAPE, HIGHEST_SHAPE = 0.2, 4.0
SHAPE_UNIT = 0.1  # fitted shapes are multiples of it, so that few curves have to be computed
GAUSSIAN_SHAPE, LAPLACE_SHAPE = 2.0, 1.0


@dataclass(frozen=True)
class GeneralisedGaussian:
    """The density proportional to exp(-|x / a|^shape), of mean 0 and variance 1.

    Attributes:
        shape: 2 is the Gaussian, 1 the Laplace distribution; smaller is peakier, with heavier tails.

    Raises:
        ConfigError: if `shape` is below 0.2 or above 4.
    """

    shape: float

    def __post_init__(self) -> None:
        if not LOWEST_SHAPE <= self.shape <= HIGHEST_SHAPE:
            raise ConfigError(
                f"`shape` of a generalised Gaussian must be {LOWEST_SHAPE} to {HIGHEST_SHAPE}, got {self.shape}."
            )

    @property
    def name(self) -> str:
        """What the model is called in tables."""
        names = {GAUSSIAN_SHAPE: "Gaussian", LAPLACE_SHAPE: "Laplace"}
        return names.get(self.shape, f"generalised Gaussian {self.shape:g}")

    @cached_property
    def scale(self) -> float:
        """a, such that the variance is 1."""
        return math.exp((math.lgamma(1 / self.shape) - math.lgamma(3 / self.shape)) / 2)

    @cached_property
    def entropy(self) -> float:
        """Differential, in bits: (1 / b - ln(b / (2 a Gamma(1 / b)))) / ln 2, b the shape."""
        log_peak = math.log(self.shape / (2 * self.scale)) - math.lgamma(1 / self.shape)
        return (1 / self.shape - log_peak) / math.log(2)

    @property
    def deficit(self) -> float:
        """Bits by which a Gaussian of equal variance has more entropy: what peakiness saves at high rate."""
        return 0.5 * math.log2(2 * math.pi * math.e) - self.entropy

    def density(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of each value."""
        log_peak = math.log(self.shape / (2 * self.scale)) - math.lgamma(1 / self.shape)
        return np.exp(log_peak - np.abs(values / self.scale) ** self.shape)

    def sample(self, generator: np.random.Generator, size: int | tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Independent values: |x / a|^shape is gamma-distributed with 1 / shape degrees."""
        magnitudes = self.scale * generator.gamma(1 / self.shape, size=size) ** (1 / self.shape)
        return magnitudes * generator.choice([-1.0, 1.0], size=size)


def shapes() -> tuple[float, ...]:
    """All shapes that `fit` gives."""
    number = round((HIGHEST_SHAPE - LOWEST_SHAPE) / SHAPE_UNIT)
    return tuple(round(LOWEST_SHAPE + SHAPE_UNIT * place, 2) for place in range(number + 1))


def fit(values: npt.NDArray[np.floating]) -> GeneralisedGaussian:
    """The generalised Gaussian with the values' ratio of mean magnitude to root mean square; the shape to 0.1.

    The mean is taken to be 0. Zeros, as of weights that get no gradient, make the shape small; those at the edge of
    0.2 to 4 are given that.

    Args:
        values: of any shape and scale.

    Raises:
        ConfigError: if all values are 0, or one is not finite.

    References:
        S. Mallat. A theory for multiresolution signal decomposition: the wavelet representation. IEEE Transactions on
        Pattern Analysis and Machine Intelligence 11(7), 1989, section IV.
    """
    wide = np.abs(np.asarray(values, np.float64)).reshape(-1)
    power = float(np.mean(wide * wide)) if len(wide) else 0.0
    if not 0 < power < math.inf:
        raise ConfigError(f"A marginal is fitted to finite values that are not all 0; their mean square is {power}.")
    wanted = float(wide.mean()) ** 2 / power
    shape = _solve(_moment_ratio, wanted, LOWEST_SHAPE, HIGHEST_SHAPE)
    return GeneralisedGaussian(min(max(round(round(shape / SHAPE_UNIT) * SHAPE_UNIT, 2), LOWEST_SHAPE), HIGHEST_SHAPE))


def _moment_ratio(shape: float) -> float:
    """(E |x|)^2 / E x^2, which grows with the shape."""
    return math.exp(2 * math.lgamma(2 / shape) - math.lgamma(1 / shape) - math.lgamma(3 / shape))


def _solve(function: Callable[[float], float], wanted: float, low: float, high: float) -> float:
    """Where a growing function has a value, by halving; the nearer end where it has it nowhere."""
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < wanted else (low, middle)
    return (low + high) / 2

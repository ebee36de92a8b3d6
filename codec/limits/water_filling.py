"""The conditional bound: many sources of known variances, such as tensors or classes of scale, coded at one slope.

With the variances known to both ends, the fewest bits for a total error have the same slope -dR/dD everywhere. For
Gaussian sources that is reverse water-filling: source k is left with the distortion min(theta, v_k) and takes
max(0, 1/2 log2(v_k / theta)) bits, theta the water level.

References:
    T. M. Cover, J. A. Thomas. Elements of Information Theory, second edition, 2006, theorem 10.3.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from .marginals import GeneralisedGaussian, fit
from .rate_distortion import curve, shannon_lower_bound

_HALVINGS = 40


@dataclass(frozen=True)
class Component:
    """Coordinates of one variance.

    Attributes:
        number: of them, above 0.
        variance: mean square of each; 0 costs nothing.
        marginal: their distribution, scaled to variance 1.

    Raises:
        ConfigError: if a number is out of range.
    """

    number: float
    variance: float
    marginal: GeneralisedGaussian

    def __post_init__(self) -> None:
        if not (0 < self.number < math.inf and 0 <= self.variance < math.inf):
            raise ConfigError(
                "A component needs a number above 0 and a variance of at least 0, "
                f"got {self.number} and {self.variance}."
            )


def water_filling(components: Sequence[Component], nmse: float) -> float:
    """The fewest bits a coordinate, on average, that leave a share of the energy as error.

    Args:
        components: what there is to code, each with a variance that both ends know.
        nmse: sum of squared errors over sum of squares, above 0.

    Raises:
        ConfigError: if there is no energy, or the share is not above 0.
    """
    total = sum(item.number for item in components)
    energy = sum(item.number * item.variance for item in components)
    if not (energy > 0 and nmse > 0):
        raise ConfigError(f"Water-filling needs energy and an error above 0, got {energy} and {nmse}.")
    if nmse >= 1:
        return 0.0
    sloped = [_Sloped(item) for item in components if item.variance]

    def at(log_slope: float) -> tuple[float, float]:
        points = [one.at(log_slope) for one in sloped]
        return sum(rate for rate, _ in points), sum(error for _, error in points) / energy

    # For Gaussian sources the slope is 1 / (2 ln 2 theta), with theta from below nmse times the mean to the largest.
    largest = max(item.variance for item in components)
    low, high = -math.log(largest) - 20, -math.log(nmse * energy / total) + 5
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[1] > nmse else (low, middle)
    return at(high)[0] / total


class _Sloped:
    """Bits and squared error of all coordinates of a component, by the logarithm of the slope."""

    def __init__(self, component: Component) -> None:
        self._curve = curve(component.marginal)
        self._number, self._energy = component.number, component.number * component.variance
        self._shift = math.log(component.variance)
        self._logs = np.log(self._curve.slopes)
        self._log_distortions = np.log(self._curve.distortions)

    def at(self, log_slope: float) -> tuple[float, float]:
        log_slope += self._shift
        if log_slope <= self._logs[0]:
            return 0.0, self._energy
        if log_slope >= self._logs[-1]:
            distortion = math.exp(-log_slope) / (2 * math.log(2))
            return self._number * shannon_lower_bound(self._curve.entropy, distortion), self._energy * distortion
        rate = float(np.interp(log_slope, self._logs, self._curve.rates))
        return self._number * rate, self._energy * math.exp(np.interp(log_slope, self._logs, self._log_distortions))


def fitted_components(parts: Sequence[npt.NDArray[np.floating]]) -> tuple[Component, ...]:
    """One component for each part with a variance and a shape of its own; parts without energy keep variance 0.

    Args:
        parts: values of each, such as those of a tensor.
    """
    found = []
    for part in parts:
        power = float(np.mean(np.square(part, dtype=np.float64))) if part.size else 0.0
        if part.size:
            found.append(Component(part.size, power, fit(part) if power else GeneralisedGaussian(2.0)))
    return tuple(found)


def scale_components(
    values: npt.NDArray[np.floating], scales: npt.NDArray[np.floating], per_octave: int = 2
) -> tuple[Component, ...]:
    """Components of coordinates whose expected scales are alike, to a part of an octave.

    The scales must come from elsewhere, such as earlier vectors. Variance and shape of a class are those of `values`.

    Args:
        values: `[param]`.
        scales: that are expected of them, at least 0, `[param]`.
        per_octave: classes.
    """
    positive = scales > 0
    classes = np.full(len(values), np.iinfo(np.int64).min)
    classes[positive] = np.floor(np.log2(scales[positive]) * per_octave).astype(np.int64)
    return fitted_components([values[classes == which] for which in np.unique(classes)])

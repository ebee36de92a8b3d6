"""The bound of causal prediction: what a codec that predicts from decoded vectors must at least send."""

import math

from ..errors import ConfigError


def causal_rate(correlation: float, distortion: float) -> float:
    """The fewest bits a coordinate of a Gaussian stream x_t = rho x_(t-1) + noise, each sent before the next is known.

        R(D) = 1/2 log2(rho^2 + (1 - rho^2) / D),        D < 1

    Prediction from what was decoded leaves (1 - rho^2) + rho^2 D of the variance: the error of the last vector comes
    back. So the gain shrinks as D grows.

    Args:
        correlation: rho, of a coordinate with itself one vector earlier, between -1 and 1.
        distortion: D, mean squared error over variance, above 0.

    Raises:
        ConfigError: if one is out of range.

    References:
        A. K. Gorbunov, M. S. Pinsker. Nonanticipatory and prognostic epsilon entropies and message generation rates.
        Problems of Information Transmission 9(3), 1973. T. Berger. Rate Distortion Theory, 1971, section 4.5.
    """
    if not -1 < correlation < 1:
        raise ConfigError(f"`correlation` must be between -1 and 1, got {correlation}.")
    if not distortion > 0:
        raise ConfigError(f"`distortion` must be above 0, got {distortion}.")
    if distortion >= 1:
        return 0.0
    return 0.5 * math.log2(correlation**2 + (1 - correlation**2) / distortion)


def prediction_gain(correlation: float, distortion: float) -> float:
    """Bits a coordinate that prediction saves at most: the memoryless rate less `causal_rate`."""
    if distortion >= 1:
        return 0.0
    return 0.5 * math.log2(1 / distortion) - causal_rate(correlation, distortion)

"""Rate-distortion functions of marginals: the fewest bits for an error, by the algorithm of Blahut and Arimoto.

    R(D) = min I(X; Y) over all p(y | x) with E (X - Y)^2 <= D

For a slope s, -dR/dD in nats, the reproduction's distribution q is the fixed point of

    q(y) <- q(y) sum_x p(x) exp(-s (x - y)^2) / sum_z q(z) exp(-s (x - z)^2)

on a grid of magnitudes that is finest about 0; source and reproduction are symmetric. Below the smallest distortion
that the grid resolves the curve is Shannon's lower bound, h(X) - 1/2 log2(2 pi e D), which is a bound too, and tight
there. The Gaussian's curve is 1/2 log2(1 / D).

References:
    R. E. Blahut. Computation of channel capacity and rate-distortion functions. IEEE Transactions on Information Theory
    18(4), 1972. T. Berger. Rate Distortion Theory, 1971, chapter 4.
"""

import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from .marginals import GAUSSIAN_SHAPE, GeneralisedGaussian

CURVES = Path(__file__).with_name("curves.npz")
_NUM_POINTS = 161
_FINEST = 0.012  # distance of grid points about 0, in standard deviations
_SMALLEST_MASS = 1e-10  # of what lies beyond the grid, about
_LOWEST_SLOPE, _HIGHEST_SLOPE = 0.02, 150.0  # in nats; the highest is where 1 / (2 s) is 1/300
_SLOPES_PER_OCTAVE = 4
_ITERATIONS = 400
_CLOSE = 1e-5  # bits between the iteration's bounds, where it may stop

Floats = npt.NDArray[np.float64]


class Curve(NamedTuple):
    """The rate-distortion function of a source of variance 1, by its slope.

    Attributes:
        slopes: -dR/dD in bits, increasing, `[point]`.
        distortions: decreasing, `[point]`.
        rates: bits a coordinate, increasing, `[point]`.
        entropy: of the source, differential, in bits.
    """

    slopes: Floats
    distortions: Floats
    rates: Floats
    entropy: float

    def rate(self, distortion: float) -> float:
        """The fewest bits a coordinate for a mean squared error, as a share of the variance.

        Raises:
            ConfigError: if the distortion is not above 0.
        """
        if not distortion > 0:
            raise ConfigError(f"`distortion` must be above 0, got {distortion}.")
        if distortion >= 1:
            return 0.0
        if distortion <= self.distortions[-1]:
            return shannon_lower_bound(self.entropy, distortion)
        # Both axes as logs, where the curve is nearly straight at high rate; the end at D = 1 has no log of its rate.
        return float(np.interp(-math.log(distortion), -np.log(self.distortions), self.rates))


def shannon_lower_bound(entropy: float, distortion: float) -> float:
    """h - 1/2 log2(2 pi e D), in bits; may be below 0.

    Args:
        entropy: h, differential, in bits, of a source of variance 1.
        distortion: D.
    """
    return entropy - 0.5 * math.log2(2 * math.pi * math.e * distortion)


@cache
def curve(marginal: GeneralisedGaussian) -> Curve:
    """The rate-distortion function of a marginal.

    Those of fitted shapes are read from a file that was computed once; any other shape takes about a second.

    The grid makes its rates wrong by less than 0.002 bit: so far are shapes near 2 from the Gaussian's closed form, and
    shapes 0.7 to 1.5 from Shannon's lower bound at distortion 0.004.
    """
    if marginal.shape == GAUSSIAN_SHAPE:
        distortions = np.exp(-np.arange(0.0, 16.0, 0.05))
        return Curve(1 / (2 * math.log(2) * distortions), distortions, -0.5 * np.log2(distortions), marginal.entropy)
    with np.load(CURVES, allow_pickle=False) as file:
        name = f"{marginal.shape:g}"
        if name in file:
            slopes, distortions, rates = file[name].astype(np.float64)
            return Curve(slopes, distortions, rates, marginal.entropy)
    return computed_curve(marginal)


def computed_curve(marginal: GeneralisedGaussian) -> Curve:
    """The same by the iteration, whatever the shape."""
    grid = _grid(marginal)
    edges = np.concatenate([grid[:1], (grid[1:] + grid[:-1]) / 2, [1.5 * grid[-1] - 0.5 * grid[-2]]])
    masses = _masses(marginal, edges)
    octaves = math.log2(_HIGHEST_SLOPE / _LOWEST_SLOPE)
    slopes = _LOWEST_SLOPE * 2 ** np.linspace(0, octaves, round(octaves * _SLOPES_PER_OCTAVE) + 1)
    points, shares = [], np.full(len(grid), 1 / len(grid))
    for slope in reversed(slopes.tolist()):  # from fine to coarse: reproductions that are left out stay so
        rate, distortion, shares = blahut_arimoto(grid, masses, slope, shares)
        points.append((slope / math.log(2), distortion, rate))
    power = float(masses @ grid**2)
    table = np.array([point for point in reversed(points) if point[2] > 1e-6 and point[1] < power])
    table = np.concatenate([[(table[0, 0] / 2, power, 0.0)], table])  # where nothing is sent
    return Curve(table[:, 0] * power, table[:, 1] / power, table[:, 2], marginal.entropy)


def blahut_arimoto(grid: Floats, masses: Floats, slope: float, shares: Floats) -> tuple[float, float, Floats]:
    """Rate in bits, distortion and the reproduction's distribution at one slope, for a symmetric source.

    Args:
        grid: magnitudes of source and reproduction, at least 0, `[point]`.
        masses: of the source's magnitudes, sum 1, `[point]`.
        slope: -dR/dD in nats, above 0.
        shares: where to start, sum 1, `[point]`.
    """
    same, other = (grid[:, None] - grid) ** 2, (grid[:, None] + grid) ** 2
    kernels = np.exp(-slope * same) / 2, np.exp(-slope * other) / 2
    kernel = kernels[0] + kernels[1]
    shares = np.maximum(shares, 1e-12 / len(grid))
    for _ in range(_ITERATIONS):
        growth = (masses / (kernel @ shares)) @ kernel
        shares = shares * growth
        # ln max(growth) bounds how far the rate may still fall (Blahut 1972, theorem 6).
        if math.log(float(growth.max())) - float(shares @ np.log(np.maximum(growth, 1e-300))) < _CLOSE * math.log(2):
            break
    shares = shares / shares.sum()
    totals = kernel @ shares
    weights = masses / totals
    distortion = float(weights @ (kernels[0] * same + kernels[1] * other) @ shares)
    rate = (-slope * distortion - float(masses @ np.log(totals))) / math.log(2)
    return max(rate, 0.0), distortion, shares


def _grid(marginal: GeneralisedGaussian) -> Floats:
    """Magnitudes at a sinh, from 0 to where the marginal has no mass left."""
    reach = marginal.scale * (-math.log(_SMALLEST_MASS)) ** (1 / marginal.shape)
    last = _NUM_POINTS - 1
    low, high = 1e-9, 20.0  # of b in the largest value a sinh(b) and the first a sinh(b / last)
    for _ in range(60):
        middle = (low + high) / 2
        if reach * math.sinh(middle / last) / math.sinh(middle) > _FINEST:
            low = middle
        else:
            high = middle
    return reach * np.sinh(high * np.arange(_NUM_POINTS) / last) / math.sinh(high)


def _masses(marginal: GeneralisedGaussian, edges: Floats) -> Floats:
    """What the marginal has between edges, by Simpson's rule on 32 parts of each; sums to 1."""
    parts = np.linspace(0, 1, 33)
    weights = np.array([1, *[4, 2] * 15, 4, 1]) / 96
    widths = np.diff(edges)
    inside = marginal.density(edges[:-1, None] + widths[:, None] * parts) @ weights * widths
    return inside / inside.sum()

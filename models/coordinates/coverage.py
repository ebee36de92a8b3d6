"""How evenly points lie on a sphere."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ModelError


@dataclass(frozen=True)
class Coverage:
    """Statistics of points on the unit sphere; compare each with `uniform_points` of the same number and dimension.

    Attributes:
        rayleigh: points times squared length of their mean; 1 is expected of even points, more says that they lean to
            one side (Rayleigh 1919).
        pair_energy: log of the mean of exp(-2 ||x - y||^2) over pairs; lower is more even (Wang and Isola 2020, arXiv
            2005.10242, eq. 2).
        effective_dimensions: (tr C)^2 / tr C^2 of the points' second moment C: in how many directions they spread.
        sliced_distance: mean squared 2-Wasserstein distance between the projections of the points and those of even
            ones on random directions, times the dimension (Bonneel et al. 2015).
    """

    rayleigh: float
    pair_energy: float
    effective_dimensions: float
    sliced_distance: float


def uniform_points(number: int, num_dimensions: int, seed: int = 0) -> Tensor:
    """Points evenly distributed on the unit sphere, `[point, dimension]`, float64."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(number, num_dimensions, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(drawn, dim=1)


def sphere_coverage(points: Tensor, num_directions: int = 256, seed: int = 1) -> Coverage:
    """The statistics of some points, `[point, dimension]`, two at least.

    Args:
        points: scaled to length 1 here.
        num_directions: for `sliced_distance`.
        seed: of the directions and of the even points that it compares with.

    Raises:
        ModelError: if there are fewer than two points, or one is zero or not finite.
    """
    if points.ndim != 2 or len(points) < 2:
        raise ModelError(f"`points` must be two or more, [point, dimension], got shape {tuple(points.shape)}.")
    lengths = points.double().norm(dim=1, keepdim=True)
    if not bool((torch.isfinite(lengths) & (lengths > 0)).all()):
        raise ModelError("Points must be finite and not zero to lie on a sphere.")
    points = points.double() / lengths
    number, num_dimensions = points.shape
    cosines = points @ points.T
    energies = torch.exp(-4.0 * (1.0 - cosines))
    pairs = (energies.sum() - energies.diagonal().sum()) / (number * (number - 1))
    directions = uniform_points(num_directions, num_dimensions, seed)
    even = uniform_points(number, num_dimensions, seed + 1)
    mine, theirs = (points @ directions.T).sort(dim=0).values, (even @ directions.T).sort(dim=0).values
    return Coverage(
        rayleigh=float(number * points.mean(dim=0).square().sum()),
        pair_energy=float(pairs.log()),
        effective_dimensions=float(number**2 / cosines.square().sum()),
        sliced_distance=float((mine - theirs).square().mean() * num_dimensions),
    )

"""Least squares by products with a matrix and its transpose alone."""

from collections.abc import Callable

import numpy as np

from .basis import Values

TOLERANCE = 1e-12  # of the gradient, relative to the first one


def least_squares(
    apply: Callable[[Values], Values], transpose: Callable[[Values], Values], target: Values, limit: int = 200
) -> Values:
    """The x that minimises ||A x - y||, of least norm where there are several (CGLS, Hestenes and Stiefel 1952).

    Args:
        apply: A x.
        transpose: A^T r.
        target: y.
        limit: of iterations. A random basis of few vectors is nearly orthogonal and needs about ten.
    """
    residual = target.copy()
    gradient = transpose(residual)
    x, direction = np.zeros_like(gradient), gradient
    energy = first = float(gradient @ gradient)
    for _ in range(limit):
        if energy <= TOLERANCE**2 * first:
            break
        moved = apply(direction)
        length = energy / float(moved @ moved)
        x = x + length * direction
        residual = residual - length * moved
        gradient = transpose(residual)
        energy, before = float(gradient @ gradient), energy
        direction = gradient + energy / before * direction
    return x

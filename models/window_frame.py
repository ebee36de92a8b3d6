"""A few orthonormal directions for each tensor, spanned by the window that it was seen in."""

import torch
from torch import Tensor

from .polynomial import Design

LEAST_LENGTH = 1e-5  # of a direction's own part, in units of the tensor's step; below it there is no such direction


class WindowFrame:
    """Directions u_k = sum_i q_ki (row_i - last), orthonormal in parameter space, in units of the tensor's own step.

    The k-th one is what is new, beside those before it, in the best-fitting polynomial of degree k in time: the first
    points along the least-squares line, forwards, the second tells how the path bends, and so on. So coordinates mean
    the same thing for every tensor of every network, and what is learned in them can be carried over. Made from inner
    products alone: no direction is ever written out. One that the rows do not span, as where a tensor stands still or
    moves along a line, is zero, and so is everything forecast along it.

    Args:
        gram: inner products of the rows' deviations from the newest, in units of the tensor's step,
            `[item, time - 1, time - 1]`, float64; the rows are evenly spaced.
        rank: how many directions, fewer than the rows.

    Attributes:
        combinations: q, `[item, rank, time - 1]`.
        velocity: now, in one spacing of the rows, `[item, rank]`: the part along the first direction of what the
            best-fitting parabola has at its end; the others are zero. A path that slows down is slower now than on
            average, but its motion sideways is mostly noise. Measured as the start of `NeuralODE` (as there, rank 2,
            10 and 50 steps ahead): 0.55 and 0.23; with the line's slope 0.61 and 0.51; with all of the parabola's
            velocity 0.66 and 0.44.
    """

    def __init__(self, gram: Tensor, rank: int) -> None:
        num_rows = gram.shape[-1] + 1
        steps = torch.arange(num_rows)
        design, parabola = Design.of(steps, rank), Design.of(steps, 2)
        signs = design.triangular.diagonal().sign()
        wanted = (design.orthonormal * signs).T[1:, :-1]
        found: list[Tensor] = []
        for polynomial in wanted:
            combination = polynomial.expand(len(gram), -1)
            for _ in range(2):  # once more, because the first time leaves rounding errors of the large part taken away
                for other in found:
                    combination = combination - _product(combination, gram, other) * other
            length = _product(combination, gram, combination).clamp(min=0).sqrt()
            found.append(torch.where(length > LEAST_LENGTH, combination / length.clamp(min=LEAST_LENGTH), 0.0))
        self.combinations = torch.stack(found, dim=1)
        # One spacing to either side of the end: a parabola's central difference is its derivative.
        ending = (parabola.weights(1) - parabola.weights(-1)) / 2
        along = torch.einsum("nki,nij,j->nk", self.combinations[:, :1], gram, ending[:-1])
        self.velocity = torch.nn.functional.pad(along, (0, rank - 1))

    def project(self, products: Tensor) -> Tensor:
        """Coordinates of displacements, `[item, horizon, rank]`.

        Args:
            products: their inner products with the rows' deviations, `[item, horizon, time - 1]`.
        """
        return torch.einsum("nki,nhi->nhk", self.combinations, products)

    def coefficients(self, moved: Tensor) -> Tensor:
        """Coefficients of the rows that make up displacements `[item, horizon, rank]`: `[item, horizon, time - 1]`."""
        return torch.einsum("nhk,nki->nhi", moved, self.combinations)


def _product(first: Tensor, gram: Tensor, second: Tensor) -> Tensor:
    """Inner products in parameter space of combinations of rows, `[item, 1]`."""
    return torch.einsum("ni,nij,nj->n", first, gram, second).unsqueeze(1)

"""Anderson acceleration: the combination of iterates whose steps cancel."""

from collections.abc import Callable
from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from typing_extensions import override

from ..forecast import Window
from .differences import difference_matrix
from .options import require_choice, require_integer, require_positive
from .row_combination import RowCombination
from .rows import gram

Per = Literal["tensor", "all"]


@final
class Anderson(RowCombination):
    """The fixed point that the rows seem to converge to: regularised nonlinear acceleration.

    With R the differences of neighbouring rows, as columns (Scieur, d'Aspremont and Bach 2016, "Regularized Nonlinear
    Acceleration", arXiv 1606.04133, algorithm 2; Scieur et al. 2018, arXiv 1805.09639, for networks)

        G = R' R / |R' R|_2,    (G + lambda I) z = 1,    c = z / sum z,    mean = sum_i c_i row_{i+1}.

    c makes the combined step R c small among the weights that sum to one; if steps are a linear map of positions, a
    combination whose step is zero is a fixed point. With `history` - 2 different eigenvalues in play and lambda = 0 it
    is exact. `per` "tensor" solves for each tensor on its own, "all" once for the network, as published.

    It proposes the same point for every horizon. The scale, see `RowCombination`, says how far this sum would be off on
    a random walk; it knows nothing about the distance to the fixed point. A tensor whose rows are so large that their
    squares overflow float64 is held.

    When not to use it: between noisy iterates differences are nearly uncorrelated and c becomes uniform, which is an
    average of the rows (Pasini et al. 2021, arXiv 2110.14813, see the benefit go under mini-batch noise). The published
    numbers choose lambda on a grid by the loss, an evaluation each that counts as cost.

    Args:
        regularization: lambda, above 0, relative to the largest eigenvalue of R' R. Larger is closer to an average; the
            published grid goes from 1e-15 to 10.
        per: "tensor" or "all".
        history: rows in the window, at least 3; K + 1 for the K of the papers.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
    """

    name: ClassVar[str] = "anderson"
    order: int | None = 0

    def __init__(
        self, regularization: float = 1e-2, per: Per = "tensor", history: int = 6, stream: str = "weights"
    ) -> None:
        super().__init__(stream)
        self.regularization = require_positive("regularization", regularization)
        self.per: Per = require_choice("per", per, ("tensor", "all"))
        self.history = require_integer("history", history, 3)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "regularization": self.regularization,
            "per": self.per,
            "history": self.history,
            "stream": self.stream,
        }

    @override
    def _rule(self, window: Window) -> Callable[[int], Tensor]:
        products = gram(window)
        if self.per == "all":
            products = products.sum(dim=0)
        to_differences = difference_matrix(len(window))
        weights = _weights(to_differences @ products @ to_differences.T, self.regularization)
        # c_i weighs row_{i+1}; what the newest row weighs is what remains to one.
        coefficients = torch.cat([torch.zeros_like(weights[..., :1]), weights[..., :-1]], dim=-1)
        return lambda horizon: coefficients


def _weights(products: Tensor, regularization: float) -> Tensor:
    """c, `[..., step]`, from the inner products of the steps; all on the newest where these are not finite."""
    finite = torch.isfinite(products).all(dim=-1, keepdim=True).all(dim=-2, keepdim=True)
    values, vectors = torch.linalg.eigh(products.where(finite, 0.0))
    values = values.clamp(min=0)
    largest = values[..., -1:]
    inverse = 1 / (values / largest.where(largest > 0, 1.0) + regularization)
    z = (vectors * (inverse * vectors.sum(dim=-2)).unsqueeze(-2)).sum(dim=-1)
    held = torch.zeros_like(z)
    held[..., -1] = 1
    return torch.where(finite.squeeze(-1), z / z.sum(dim=-1, keepdim=True), held)

"""NOLA: changes of low rank whose factors are sums of seeded random matrices."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from ...forecast.layout import Layout
from .basis import Basis, Values
from .combination import BasisName, combination, make_basis
from .contract import Part, SeededCoordinates
from .least_squares import least_squares
from .low_rank import Factors, best_factors, factors_of, low_rank_product
from .random_words import stream_key
from .start import SeededStart, Start

NUM_ROUNDS = 15  # of alternating least squares
NUM_STEPS = 60  # of each least squares


@final
@dataclass(frozen=True, eq=False)
class NOLA(SeededCoordinates):
    """theta = theta_0 + s * A B / sqrt(r), A = sum_i alpha_i A_i, B = sum_j beta_j B_j, with seeded A_i, B_j by matrix.

    Koohpayegani et al. 2024, "NOLA: Compressing LoRA using Linear Combination of Random Basis", ICLR, arXiv 2310.02556.
    Its size, 2 k numbers a matrix, depends neither on the rank nor on the matrix: a higher rank costs time only.

    Where it differs from the authors' code for language models: entries are signs or normal, theirs uniform in -1 to 1;
    alpha begins random and beta zero, where theirs both begin at zero beside a frozen random matrix that A is added to;
    both factors have k coefficients, which the paper lets differ; the factor is 1 / sqrt(r), not LoRA's constant / r.
    A and B are divided by sqrt(k) in both.

    Coordinates are not unique (alpha c, beta / c). `from_parameters` alternates least squares to a local optimum.

    Args:
        layout: tensors of two axes or more.
        num_coefficients: k, of each factor of each matrix.
        rank: r; where a matrix has fewer rows or columns, that many.
        seed: of all random matrices.
        basis: as in `PRANC`.
        start: theta_0; `SeededStart()` when not given, `GivenStart` for a pretrained network.

    Raises:
        ModelError: if a number is out of range, there is no such basis, or a tensor has fewer than two axes.
    """

    num_coefficients: int
    rank: int
    seed: int
    basis: BasisName
    kind: ClassVar[str] = "nola"

    def __init__(
        self,
        layout: Layout,
        num_coefficients: int,
        rank: int = 8,
        seed: int = 0,
        basis: BasisName = "hadamard",
        start: Start | None = None,
    ) -> None:
        super().__init__(layout, SeededStart() if start is None else start)
        object.__setattr__(self, "num_coefficients", num_coefficients)
        object.__setattr__(self, "rank", rank)
        object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "basis", basis)
        _ = self.vectors

    @cached_property
    def factors(self) -> list[Factors]:
        """Shapes by tensor."""
        return factors_of(self.layout, self.rank)

    @cached_property
    def vectors(self) -> list[tuple[Basis, Basis]]:
        """The A_i and the B_j of each tensor; the seed of each basis is a word of its own of the seed."""
        return [
            (
                make_basis(self.basis, self.num_coefficients, num_rows * rank, stream_key(self.seed, 2 * index)),
                make_basis(self.basis, self.num_coefficients, rank * num_columns, stream_key(self.seed, 2 * index + 1)),
            )
            for index, (num_rows, num_columns, rank) in enumerate(self.factors)
        ]

    @property
    @override
    def parts(self) -> tuple[Part, ...]:
        shape = (len(self.layout), self.num_coefficients)
        return (Part("alpha", shape), Part("beta", shape))

    @property
    @override
    def options(self) -> dict[str, int | str | float]:
        return {
            "num_coefficients": self.num_coefficients,
            "rank": self.rank,
            "seed": self.seed,
            "basis": self.basis,
        }

    @override
    def initial(self, seed: int = 0) -> Tensor:
        """alpha standard normal, beta zero: the start itself."""
        half = len(self.layout) * self.num_coefficients
        return torch.cat((torch.randn(half, generator=torch.Generator().manual_seed(seed)), torch.zeros(half)))

    @override
    def displacement(self, coordinates: Tensor) -> Tensor:
        alphas, betas = self.split(coordinates)
        unit = 1.0 / math.sqrt(self.num_coefficients)
        products: list[Tensor] = []
        for index, ((num_rows, num_columns, rank), (lefts, rights)) in enumerate(
            zip(self.factors, self.vectors, strict=True)
        ):
            left = combination(alphas[index], lefts).reshape(num_rows, rank) * unit
            right = combination(betas[index], rights).reshape(rank, num_columns) * unit
            products.append(low_rank_product(left, right))
        return torch.cat(products)

    @override
    def nearest(self, displacement: Tensor) -> Tensor:
        """A local optimum of the squared error; where nothing moved, what `initial` gives."""
        alphas, betas = self.split(self.initial().double())
        for index, (spec, shape) in enumerate(zip(self.layout, self.factors, strict=True)):
            matrix = displacement[spec.span].reshape(shape.num_rows, shape.num_columns)
            if bool(matrix.any()):
                alpha, beta = _alternate(matrix.numpy() * math.sqrt(shape.rank), shape, *self.vectors[index])
                alphas[index], betas[index] = torch.from_numpy(alpha), torch.from_numpy(beta)
        return torch.cat((alphas.reshape(-1), betas.reshape(-1)))


def _alternate(matrix: Values, shape: Factors, lefts: Basis, rights: Basis) -> tuple[Values, Values]:
    """alpha and beta for which A B comes near a matrix, from the best of unconstrained factors on."""
    num_rows, num_columns, rank = shape
    unit = 1.0 / math.sqrt(lefts.num_coefficients)
    left_unit, right_unit = unit / lefts.entry_size, unit / rights.entry_size
    guess = best_factors(torch.from_numpy(matrix / math.sqrt(rank)), rank)[0].numpy()
    alpha = least_squares(
        lambda x: lefts.combine(x) * left_unit,
        lambda y: lefts.project(np.ascontiguousarray(y)) * left_unit,
        guess.reshape(-1),
    )
    beta = np.zeros(rights.num_coefficients)
    for _ in range(NUM_ROUNDS):
        left = lefts.combine(alpha).reshape(num_rows, rank) * left_unit
        beta = least_squares(
            lambda x, left=left: (left @ rights.combine(x).reshape(rank, num_columns) * right_unit).reshape(-1),
            lambda y, left=left: rights.project((left.T @ y.reshape(matrix.shape)).reshape(-1)) * right_unit,
            matrix.reshape(-1),
            NUM_STEPS,
        )
        right = rights.combine(beta).reshape(rank, num_columns) * right_unit
        alpha = least_squares(
            lambda x, right=right: (lefts.combine(x).reshape(num_rows, rank) @ right * left_unit).reshape(-1),
            lambda y, right=right: lefts.project((y.reshape(matrix.shape) @ right.T).reshape(-1)) * left_unit,
            matrix.reshape(-1),
            NUM_STEPS,
        )
        # Of the free factor between both, the one that makes them equally large.
        balance = math.sqrt(float(np.linalg.norm(beta)) / max(float(np.linalg.norm(alpha)), 1e-300))
        alpha, beta = alpha * balance, beta / max(balance, 1e-300)
    return alpha, beta

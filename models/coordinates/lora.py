"""LoRA: changes of low rank, as the baseline of what seeds save."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import override

from ...forecast.layout import Layout
from .contract import Part, SeededCoordinates
from .low_rank import Factors, best_factors, factors_of, low_rank_product
from .start import SeededStart, Start


@final
@dataclass(frozen=True, eq=False)
class LoRA(SeededCoordinates):
    """theta = theta_0 + s * A B / sqrt(r) for each matrix, A and B trained.

    Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", ICLR, arXiv 2106.09685, section 4.1, eq. 3:
    W_0 + B A, scaled by constant / r. There the left factor begins at zero and the right one normal; here it is the
    other way round, and the scale is s / sqrt(r), so that factors of size 1 make a change of size s at any rank. A
    convolution's kernel is a matrix of its first axis by all others. Its size cannot go below rank 1: rows + columns
    numbers a matrix.

    Coordinates are not unique: A c and B / c make the same parameters. `from_parameters` gives factors of equal size,
    and those of the nearest matrices of that rank.

    Args:
        layout: tensors of two axes or more.
        rank: r; where a matrix has fewer rows or columns, that many.
        start: theta_0; `SeededStart()` when not given, `GivenStart` for a pretrained network.

    Raises:
        ModelError: if the rank is below 1 or a tensor has fewer than two axes.
    """

    rank: int
    kind: ClassVar[str] = "lora"

    def __init__(self, layout: Layout, rank: int, start: Start | None = None) -> None:
        super().__init__(layout, SeededStart() if start is None else start)
        object.__setattr__(self, "rank", rank)
        _ = self.factors

    @cached_property
    def factors(self) -> list[Factors]:
        """Shapes by tensor."""
        return factors_of(self.layout, self.rank)

    @property
    @override
    def parts(self) -> tuple[Part, ...]:
        found: list[Part] = []
        for index, (num_rows, num_columns, rank) in enumerate(self.factors):
            found += [Part(f"left_{index}", (num_rows, rank)), Part(f"right_{index}", (rank, num_columns))]
        return tuple(found)

    @property
    @override
    def options(self) -> dict[str, int | str | float]:
        return {"rank": self.rank}

    @override
    def initial(self, seed: int = 0) -> Tensor:
        """Left factors standard normal, right ones zero: the start itself."""
        generator = torch.Generator().manual_seed(seed)
        pieces: list[Tensor] = []
        for num_rows, num_columns, rank in self.factors:
            pieces += [torch.randn(num_rows * rank, generator=generator), torch.zeros(rank * num_columns)]
        return torch.cat(pieces)

    @override
    def displacement(self, coordinates: Tensor) -> Tensor:
        pieces = self.split(coordinates.double())
        products = [low_rank_product(left, right) for left, right in zip(pieces[::2], pieces[1::2], strict=True)]
        return torch.cat(products)

    @override
    def nearest(self, displacement: Tensor) -> Tensor:
        """The nearest of that rank, by singular values; where nothing moved, what `initial` gives."""
        initial, found = self.split(self.initial().double()), []
        for index, (spec, shape) in enumerate(zip(self.layout, self.factors, strict=True)):
            matrix = displacement[spec.span].reshape(shape.num_rows, shape.num_columns)
            left, right = best_factors(matrix, shape.rank) if bool(matrix.any()) else initial[2 * index : 2 * index + 2]
            found += [left.reshape(-1), right.reshape(-1)]
        return torch.cat(found)

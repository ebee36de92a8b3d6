"""Ridge regression of targets on rows, shared by groups of coordinates."""

from typing import NamedTuple

import torch
from torch import Tensor

from .fitting import Examples
from .motion import deviations, random_walk


class NormalEquations(NamedTuple):
    """Sums over cases and coordinates from which every squared error of a linear combination follows, float64.

    Attributes:
        gram: rows times rows, `[group, time - 1, time - 1]`.
        cross: rows times targets, `[horizon, group, time - 1]`.
        persistence: targets times targets, `[horizon, group]`.
        motion: squared `random_walk`, `[group]`.
    """

    gram: Tensor
    cross: Tensor
    persistence: Tensor
    motion: Tensor

    @classmethod
    def of(cls, examples: Examples, part: slice) -> "NormalEquations":
        """The sums over a part of the cases, one group a tensor, each case times its weight."""
        layout = examples.cases[0].window.layout
        size, num_rows, num_horizons = len(layout), len(examples.cases[0].window) - 1, len(examples.horizons)
        sums = cls(
            torch.zeros(size, num_rows, num_rows, dtype=torch.float64),
            torch.zeros(num_horizons, size, num_rows, dtype=torch.float64),
            torch.zeros(num_horizons, size, dtype=torch.float64),
            torch.zeros(size, dtype=torch.float64),
        )
        for case, weight in zip(examples.cases[part], examples.weights[part], strict=True):
            rows, sigma = deviations(case.window), random_walk(case.window)
            last = case.window.last.to(rows.dtype)
            targets = torch.stack([case.targets[horizon].to(rows.dtype) - last for horizon in examples.horizons])
            for index, spec in enumerate(layout):
                own, wanted = rows[:, spec.span].double(), targets[:, spec.span].double()
                sums.gram[index] += weight * (own @ own.T).cpu()
                sums.cross[:, index] += weight * (wanted @ own.T).cpu()
                sums.persistence[:, index] += weight * wanted.square().sum(dim=1).cpu()
                sums.motion[index] += weight * sigma[spec.span].double().square().sum().cpu()
        return sums

    def __add__(self, other: "NormalEquations") -> "NormalEquations":  # type: ignore[override]
        return NormalEquations(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def grouped(self, group_of: Tensor, num_groups: int) -> "NormalEquations":
        """Tensors summed by group, `group_of` `[tensor]`; group 0 is the sum of all tensors, whatever their group."""

        def regroup(values: Tensor, axis: int) -> Tensor:
            shape = list(values.shape)
            shape[axis] = num_groups
            result = torch.zeros(shape, dtype=values.dtype).index_add_(axis, group_of, values)
            result.select(axis, 0).copy_(values.sum(dim=axis))
            return result

        return NormalEquations(
            regroup(self.gram, 0), regroup(self.cross, 1), regroup(self.persistence, 1), regroup(self.motion, 0)
        )

    def solve(self, ridge: Tensor) -> Tensor:
        """Coefficients `[horizon, group, time - 1]`; `ridge`, relative, is one number or `[horizon, group]`."""
        values, vectors = torch.linalg.eigh(self.gram)
        values = values.clamp(min=0)
        penalty = ridge.double().unsqueeze(-1) * values.mean(dim=-1, keepdim=True)
        penalty = torch.where(torch.isinf(ridge).unsqueeze(-1), torch.inf, penalty)  # also where the mean is 0
        denominator = (values + penalty).expand_as(self.cross)
        along = torch.einsum("hgi,gij->hgj", self.cross, vectors)
        along = torch.where(denominator > 0, along / denominator.where(denominator > 0, 1.0), 0.0)
        return torch.einsum("hgj,gij->hgi", along, vectors)

    def squared_error(self, coefficients: Tensor) -> Tensor:
        """|target - coefficients . rows|^2, `[horizon, group]`, by expanding the square; rounding cut off at 0."""
        linear = (coefficients * self.cross).sum(dim=-1)
        square = torch.einsum("hgi,gij,hgj->hg", coefficients, self.gram, coefficients)
        return (self.persistence - 2 * linear + square).clamp(min=0)

"""Sums of squares and products from which the error of every linear combination of rows follows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Case, Layout
from .fitting import Examples
from .rows import chunks

# Relative to the mean eigenvalue of the normal equations. The last is persistence: no coefficient at all.
RIDGES = (1e-12, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, float("inf"))
GroupsOf = Callable[[Layout], Sequence[int]]  # the group of each tensor of a layout


class CaseSums(NamedTuple):
    """What a case tells about linear combinations of its rows, tensor by tensor, float64.

    With D the rows' deviations from the newest row and Y the targets' displacements from it, both of one tensor, the
    squared error of Y = C D is |Y|^2 - 2 <C, Y D'> + <C, C D D'>. Training never has to touch the parameters again.

    Attributes:
        gram: D D', `[tensor, time - 1, time - 1]`.
        cross: Y D', `[tensor, horizon, time - 1]`.
        persistence: squared lengths of the rows of Y, `[tensor, horizon]`.
        motion: sum over coordinates of the squared `random_walk` of the window, `[tensor]`.
    """

    gram: Tensor
    cross: Tensor
    persistence: Tensor
    motion: Tensor

    @classmethod
    def of(cls, case: Case, horizons: Sequence[int]) -> "CaseSums":
        """The sums of one case, in pieces of the parameters that stay in the cache."""
        window = case.window
        size, num_tensors, num_horizons = len(window) - 1, len(window.layout), len(horizons)
        sums = cls(
            torch.zeros(num_tensors, size, size, dtype=torch.float64),
            torch.zeros(num_tensors, num_horizons, size, dtype=torch.float64),
            torch.zeros(num_tensors, num_horizons, dtype=torch.float64),
            torch.zeros(num_tensors, dtype=torch.float64),
        )
        gaps = window.steps.diff().double().unsqueeze(1) * size
        for index, span in chunks(window.layout):
            values = window.values[:, span].double()
            rows = values[:-1] - values[-1]
            wanted = torch.stack([case.targets[horizon][span].double() for horizon in horizons]) - values[-1]
            sums.gram[index] += (rows @ rows.T).cpu()
            sums.cross[index] += (wanted @ rows.T).cpu()
            sums.persistence[index] += wanted.square().sum(dim=1).cpu()
            sums.motion[index] += (values.diff(dim=0).square() / gaps.to(values.device)).sum().cpu()
        return sums


class NormalEquations(NamedTuple):
    """Sums over cases and the tensors of a group, from which ridge regression and its errors follow, float64.

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
    def of(cls, examples: Examples, part: slice, groups_of: GroupsOf, num_groups: int) -> "NormalEquations":
        """The sums over a part of the cases, each case times its weight; every tensor counts in its group only.

        Args:
            examples: cases of one or of many layouts.
            part: which of them.
            groups_of: the groups of a layout's tensors, each below `num_groups`.
            num_groups: how many groups there are.
        """
        size, num_horizons = len(examples.cases[0].window) - 1, len(examples.horizons)
        sums = cls(
            torch.zeros(num_groups, size, size, dtype=torch.float64),
            torch.zeros(num_horizons, num_groups, size, dtype=torch.float64),
            torch.zeros(num_horizons, num_groups, dtype=torch.float64),
            torch.zeros(num_groups, dtype=torch.float64),
        )
        for case, weight in zip(examples.cases[part], examples.weights[part].tolist(), strict=True):
            own = CaseSums.of(case, examples.horizons)
            group_of = torch.tensor(groups_of(case.window.layout))
            sums.gram.index_add_(0, group_of, own.gram, alpha=weight)
            sums.cross.index_add_(1, group_of, own.cross.transpose(0, 1), alpha=weight)
            sums.persistence.index_add_(1, group_of, own.persistence.T, alpha=weight)
            sums.motion.index_add_(0, group_of, own.motion, alpha=weight)
        return sums

    def __add__(self, other: "NormalEquations") -> "NormalEquations":  # type: ignore[override]
        return NormalEquations(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def pooled(self) -> "NormalEquations":
        """The same with the sum of all groups as group 0, in which tensors find what their own group does not tell."""

        def pool(values: Tensor, axis: int) -> Tensor:
            result = values.clone()
            result.select(axis, 0).copy_(values.sum(dim=axis))
            return result

        return NormalEquations(pool(self.gram, 0), pool(self.cross, 1), pool(self.persistence, 1), pool(self.motion, 0))

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


def best_ridge(training: NormalEquations, validation: NormalEquations) -> tuple[Tensor, Tensor]:
    """The ridge of least validation error for each group and horizon.

    Returns:
        The coefficients fitted with it to the training sums, `[horizon, group, time - 1]`, and the ridges,
        `[horizon, group]`.
    """
    candidates = torch.stack([training.solve(torch.tensor(ridge)) for ridge in RIDGES])
    errors = torch.stack([validation.squared_error(coefficients) for coefficients in candidates])
    best = errors.argmin(dim=0)
    chosen = candidates.gather(0, best[None, :, :, None].expand(1, *candidates.shape[1:]))[0]
    return chosen, torch.tensor(RIDGES)[best]

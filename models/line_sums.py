"""The sums from which every squared error of a forecast along one direction follows."""

from typing import NamedTuple

import torch
from torch import Tensor

from .errors import FittingError
from .fitting import Examples
from .motion import working_dtype
from .rows import chunks, deviations_in


class LineSums(NamedTuple):
    """Sums over cases and coordinates for forecasts last + a direction, over the squared motion at each horizon.

    Attributes:
        square: |direction|^2, `[horizon]`, float64.
        cross: direction . target, `[horizon]`.
    """

    square: Tensor
    cross: Tensor

    @classmethod
    def of(cls, examples: Examples, part: slice, directions: Tensor) -> "LineSums":
        """The sums over a part of the cases, each case times its weight.

        Args:
            examples: the cases.
            part: which of them.
            directions: what each row counts for in each case's direction, `[case of the part, time - 1]`.

        Raises:
            FittingError: if nothing moves up to some horizon.
        """
        square = torch.zeros((), dtype=torch.float64)
        cross = torch.zeros(len(examples.horizons), dtype=torch.float64)
        moved = torch.zeros(len(examples.horizons), dtype=torch.float64)
        for case, weight, direction in zip(examples.cases[part], examples.weights[part], directions, strict=True):
            dtype = working_dtype(case.window.values.dtype)
            for _, span in chunks(case.window.layout):
                along = (direction.to(dtype) @ deviations_in(case.window, span)).double()
                last = case.window.values[-1, span].to(dtype)
                targets = torch.stack([case.targets[horizon][span].to(dtype) - last for horizon in examples.horizons])
                targets = targets.double()
                square += weight * (along @ along)
                cross += weight * (targets @ along)
                moved += weight * targets.square().sum(dim=1)
        if not bool((moved > 0).all() and torch.isfinite(moved).all() and torch.isfinite(square)):
            raise FittingError("Nothing moves up to some horizon, or the values are too large to fit.")
        return cls(square / moved, cross / moved)

    def relative_error(self, lengths: Tensor) -> float:
        """Squared error over that of persistence, averaged over horizons; `lengths` a is `[horizon]`."""
        return float((1 - 2 * lengths * self.cross + lengths.square() * self.square).clamp(min=0).mean())

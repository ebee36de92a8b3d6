"""The few coordinates in which a neural differential equation lives, and examples expressed in them."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Window
from ..forecast.coordinates import PCACoordinates
from ..forecast.errors import WindowError
from .errors import FittingError
from .fitting import Examples
from .motion import deviations, random_walk, working_dtype
from .polynomial import Design

MAX_PCA_CASES = 32  # two rows each; more rows cost memory and hardly turn the leading components
SMALLEST_UNIT = 1e-3  # of the largest; components that hardly vary must not blow up what leaves the training range


class Frame(NamedTuple):
    """Principal components with units of length and time.

    Attributes:
        mean: the origin, `[param]`.
        basis: orthonormal rows, `[rank, param]`, in `mean`'s type.
        unit: standard deviation of the training windows along each, `[rank]`, float64.
        spacing: optimiser steps in one unit of time: between neighbouring rows, on average over the training windows.
    """

    mean: Tensor
    basis: Tensor
    unit: Tensor
    spacing: float

    @classmethod
    def of(cls, examples: Examples, rank: int, previous: "Frame | None" = None) -> "Frame":
        """The frame of the training cases' newest rows and farthest targets.

        Args:
            examples: at most 32 of the training cases are used, evenly spread.
            rank: number of components.
            previous: the components are turned to lie as close to these as can be, so that a network fitted in the old
                frame starts with a meaning in the new one (orthogonal Procrustes problem, Schoenemann 1966).

        Raises:
            FittingError: if the rows do not vary in `rank` directions.
        """
        training = examples.cases[examples.training]
        stride = -(-len(training) // MAX_PCA_CASES)
        farthest = examples.horizons[-1]
        dtype = working_dtype(training[0].window.values.dtype)
        picked = training[::-1][::stride]  # from the newest backwards: the future is more like them
        rows = torch.stack([row.to(dtype) for case in picked for row in (case.window.last, case.targets[farthest])])
        try:
            coordinates = PCACoordinates.fit(rows, rank)
        except WindowError as error:
            raise FittingError(f"No {rank} principal components: {error} Lower `rank`, or record more rows.") from error
        basis = coordinates.basis
        if previous is not None:
            left, _, right = torch.linalg.svd((basis @ previous.basis.to(basis).T).double())
            basis = (left @ right).T.to(basis) @ basis
        starts = ((rows[0::2] - coordinates.mean) @ basis.T).double().cpu()
        spread = starts.std(dim=0)
        unit = spread.clamp(min=float(spread.max()) * SMALLEST_UNIT)
        gaps = torch.cat([case.window.steps.diff() for case in training]).double()
        return cls(coordinates.mean, basis.contiguous(), unit.where(unit > 0, 1.0), float(gaps.mean()))

    def encode(self, window: Window) -> tuple[Tensor, Tensor]:
        """Position of the newest row and velocity, per unit of time, both `[rank]`, float64.

        The velocity is the slope of the least-squares line through the rows.
        """
        design = Design.of(window.steps, degree=1)
        slope = (design.weights(1) - design.weights(0))[:-1] * self.spacing
        rows = deviations(window)
        return self.project(window.last.to(rows.dtype) - self.mean.to(rows)), self.project(slope.to(rows) @ rows)

    def project(self, change: Tensor) -> Tensor:
        """The components of a change of the parameters, `[..., rank]` float64 of `[..., param]`."""
        return (change @ self.basis.to(change).T).double().cpu()


class Latents(NamedTuple):
    """A part of the examples in the coordinates of a frame, float64.

    Attributes:
        start: position of the newest row, `[case, rank]`.
        velocity: per unit of time, `[case, rank]`.
        targets: displacements since the newest row, `[horizon, case, rank]`.
        outside: squared length of the part of these that the frame cannot express, `[horizon, case]`.
        persistence: weighted sum of their squared lengths over cases, `[horizon]`.
        weights: of each case, `[case]`.
    """

    start: Tensor
    velocity: Tensor
    targets: Tensor
    outside: Tensor
    persistence: Tensor
    weights: Tensor

    @classmethod
    def of(cls, examples: Examples, part: slice, frame: Frame) -> "Latents":
        """Encode the cases of `part`."""
        starts, targets, lengths = [], [], []
        for case in examples.cases[part]:
            starts.append(frame.encode(case.window))
            moved = displacements(examples, case.window.last, case.targets)
            targets.append(frame.project(moved))
            lengths.append(torch.stack([row.double().square().sum() for row in moved]).cpu())
        target, length = torch.stack(targets, dim=1), torch.stack(lengths, dim=1)
        weights = examples.weights[part]
        return cls(
            torch.stack([position for position, _ in starts]),
            torch.stack([velocity for _, velocity in starts]),
            target,
            (length - target.square().sum(dim=-1)).clamp(min=0),
            length @ weights,
            weights,
        )

    def squared_errors(self, moved: Tensor) -> Tensor:
        """Weighted sums over cases of the squared error of displacements `[horizon, case, rank]`: `[horizon]`."""
        return ((moved - self.targets).square().sum(dim=-1) + self.outside) @ self.weights


def displacements(examples: Examples, last: Tensor, targets: dict[int, Tensor]) -> Tensor:
    """Where the targets lie from the newest row, `[horizon, param]`, float32 or wider."""
    dtype = working_dtype(last.dtype)
    return torch.stack([targets[horizon].to(dtype) for horizon in examples.horizons]) - last.to(dtype)


def relative_variance(examples: Examples, part: slice, frame: Frame, moved: Tensor) -> Tensor:
    """Squared error over the window's squared motion, for each tensor, `[horizon, tensor]`, float64.

    Args:
        examples: the cases.
        part: which of them.
        frame: the coordinates of `moved`.
        moved: forecast displacements, `[horizon, case, rank]`.
    """
    layout = examples.cases[0].window.layout
    errors = torch.zeros(len(examples.horizons), len(layout), dtype=torch.float64)
    motion = torch.zeros(len(layout), dtype=torch.float64)
    for index, (case, weight) in enumerate(zip(examples.cases[part], examples.weights[part], strict=True)):
        true = displacements(examples, case.window.last, case.targets)
        wrong = true - moved[:, index].to(true) @ frame.basis.to(true)
        sigma = random_walk(case.window)
        for position, spec in enumerate(layout):
            errors[:, position] += weight * wrong[:, spec.span].double().square().sum(dim=1).cpu()
            motion[position] += weight * sigma[spec.span].double().square().sum().cpu()
    overall = errors.sum(dim=1, keepdim=True) / motion.sum()
    # A tensor that stood still here tells nothing about its errors; all of them together do.
    return torch.where(motion > 0, errors / motion.where(motion > 0, 1.0), overall)

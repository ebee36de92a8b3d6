"""The principal components of one run's path, and examples expressed in them."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Window
from ..forecast.coordinates import PCACoordinates
from ..forecast.errors import WindowError
from .errors import FittingError
from .fitting import Examples
from .motion import working_dtype
from .pieces import filled
from .polynomial import Design
from .rows import chunks, deviations_in

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
            examples: of one layout; at most 32 of the training cases are used, evenly spread.
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
        position, velocity = torch.zeros_like(self.unit), torch.zeros_like(self.unit)
        for _, span in chunks(window.layout):
            rows = deviations_in(window, span)
            basis = self.basis[:, span].to(rows)
            position += (basis @ (window.last[span].to(rows) - self.mean[span].to(rows))).double().cpu()
            velocity += (basis @ (slope.to(rows) @ rows)).double().cpu()
        return position, velocity

    def project(self, change: Tensor) -> Tensor:
        """The components of a change of the parameters, `[..., rank]` float64 of `[..., param]`."""
        return (change @ self.basis.to(change).T).double().cpu()

    def moved(self, last: Tensor, displacement: Tensor) -> Tensor:
        """`last` `[param]` displaced by `[rank]`, in its type."""
        dtype = working_dtype(last.dtype)
        along = displacement.to(device=last.device, dtype=dtype)
        return filled(last, lambda span: last[span].to(dtype) + along @ self.basis[:, span].to(along))


class Latents(NamedTuple):
    """A part of the examples in the coordinates of a frame, float64.

    Attributes:
        start: position of the newest row, `[case, rank]`.
        velocity: per unit of time, `[case, rank]`.
        targets: displacements since the newest row, `[case, horizon, rank]`.
        persistence: their squared lengths in parameter space, `[case, horizon]`.
        outside: what of these the frame cannot express, `[case, horizon]`.
    """

    start: Tensor
    velocity: Tensor
    targets: Tensor
    persistence: Tensor
    outside: Tensor

    @classmethod
    def of(cls, examples: Examples, part: slice, frame: Frame) -> "Latents":
        """Encode the cases of `part`."""
        starts, targets, lengths = [], [], []
        for case in examples.cases[part]:
            starts.append(frame.encode(case.window))
            last = case.window.last
            dtype = working_dtype(last.dtype)
            moved = torch.stack([case.targets[horizon].to(dtype) for horizon in examples.horizons]) - last.to(dtype)
            targets.append(frame.project(moved))
            lengths.append(torch.stack([row.double().square().sum() for row in moved]).cpu())
        target, length = torch.stack(targets), torch.stack(lengths)
        return cls(
            torch.stack([position for position, _ in starts]),
            torch.stack([velocity for _, velocity in starts]),
            target,
            length,
            (length - target.square().sum(dim=-1)).clamp(min=0),
        )

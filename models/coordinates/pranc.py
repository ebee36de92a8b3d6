"""PRANC: a network as a sum of seeded random networks."""

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
from .start import Start, ZeroStart


@final
@dataclass(frozen=True, eq=False)
class PRANC(SeededCoordinates):
    """theta = theta_0 + s * sum_j c_j b_j / sqrt(k), with k seeded random b_j that are never stored.

    Nooralinejad et al. 2023, "PRANC: Pseudo RAndom Networks for Compacting deep models", ICCV, arXiv 2206.08464:
    theta = sum_j alpha_j theta_j, without start and factors. With a start it is training in a random subspace (Li et
    al. 2018, "Measuring the intrinsic dimension of objective landscapes", ICLR, arXiv 1804.08838, eq. 2).

    Where it differs from the authors' code: their theta_j are networks as torch initialises them, uniform entries of
    standard deviation 1 / sqrt(3 fan_in), biases among them, and training begins at the first of them, alpha =
    (1, 0, 0 ...). Here entries have that standard deviation (`tensor_scale`), but are signs or normal, and coefficients
    begin as standard normal ones. Together with 1 / sqrt(k) that makes a network as large as torch's own.

    A step of training makes the basis twice, forwards for theta and backwards for dL/dc_j = <b_j, dL/dtheta>, block by
    block. On 1 M parameters with k = 1000, on one core: docs/coordinates.md. The best linear fit of given parameters
    (`from_parameters`) takes some ten such passes.

    Not expressed well by a plain sum: norm layers, whose weights begin at 1, and single biases. Leave such tensors
    out of the layout (`choose_layout`), or take `SeededStart`.

    Args:
        layout: the tensors.
        num_coefficients: k. Accuracy grows with it slowly: see the measured curves before taking a large one.
        seed: of the basis.
        basis: `hadamard`, the fastest by far; `sign`, independent signs; `gaussian`, independent normal entries.
        start: theta_0; the paper's zero when not given.

    Raises:
        ModelError: if a number is out of range, or there is no such basis.
    """

    num_coefficients: int
    seed: int
    basis: BasisName
    kind: ClassVar[str] = "pranc"

    def __init__(
        self,
        layout: Layout,
        num_coefficients: int,
        seed: int = 0,
        basis: BasisName = "hadamard",
        start: Start | None = None,
    ) -> None:
        super().__init__(layout, ZeroStart() if start is None else start)
        object.__setattr__(self, "num_coefficients", num_coefficients)
        object.__setattr__(self, "seed", seed)
        object.__setattr__(self, "basis", basis)
        _ = self.vectors

    @cached_property
    def vectors(self) -> Basis:
        """The b_j."""
        return make_basis(self.basis, self.num_coefficients, self.layout.size, self.seed)

    @property
    @override
    def parts(self) -> tuple[Part, ...]:
        return (Part("coefficients", (self.num_coefficients,)),)

    @property
    @override
    def options(self) -> dict[str, int | str | float]:
        return {"num_coefficients": self.num_coefficients, "seed": self.seed, "basis": self.basis}

    @override
    def initial(self, seed: int = 0) -> Tensor:
        """Standard normal with a zero start, as there is nothing else; zeros with any other."""
        if isinstance(self.start, ZeroStart):
            return torch.randn(self.size, generator=torch.Generator().manual_seed(seed))
        return torch.zeros(self.size)

    @override
    def displacement(self, coordinates: Tensor) -> Tensor:
        return combination(coordinates, self.vectors) * (1.0 / math.sqrt(self.num_coefficients))

    @override
    def nearest(self, displacement: Tensor) -> Tensor:
        """The least-squares fit, each parameter weighed as it is and not in units of its scale."""
        scales = self.scales.numpy() * (1.0 / math.sqrt(self.num_coefficients) / self.vectors.entry_size)

        def apply(coefficients: Values) -> Values:
            return scales * self.vectors.combine(coefficients)

        def transpose(values: Values) -> Values:
            return self.vectors.project(scales * values)

        target = np.ascontiguousarray((displacement * self.scales).numpy())
        return torch.from_numpy(least_squares(apply, transpose, target))

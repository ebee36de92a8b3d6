"""Sums of seeded basis vectors as a differentiable, exactly reproducible map."""

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from ..options import require_choice, require_integer
from .basis import Basis
from .fixed_point import EXACT, FRACTION_BITS, fixed_point
from .gaussian_basis import GaussianBasis
from .hadamard_basis import HadamardBasis
from .sign_basis import SignBasis

BasisName = Literal["hadamard", "sign", "gaussian"]
BASES: dict[str, type[Basis]] = {"hadamard": HadamardBasis, "sign": SignBasis, "gaussian": GaussianBasis}


def make_basis(name: BasisName, num_coefficients: int, num_parameters: int, seed: int) -> Basis:
    """A basis by name.

    Raises:
        ModelError: if there is none of that name, or a number is not a whole one from 1 up (the seed from 0 up).
    """
    require_choice("basis", name, get_args(BasisName))
    require_integer("num_coefficients", num_coefficients, 1)
    require_integer("num_parameters", num_parameters, 1)
    require_integer("seed", seed, 0)
    return BASES[name](num_coefficients, num_parameters, seed)


class _Combination(torch.autograd.Function):
    @staticmethod
    @override
    def forward(ctx: Any, coefficients: Tensor, basis: Basis) -> Tensor:
        ctx.basis, ctx.like = basis, coefficients
        whole = fixed_point(coefficients.detach().cpu().double().numpy())
        if not float(np.abs(whole).sum()) * basis.largest_entry < EXACT:
            values = torch.full((basis.num_parameters,), float("nan"), dtype=torch.float64)
        else:
            values = torch.from_numpy(basis.combine(whole) * (2.0**-FRACTION_BITS / basis.entry_size))
        return values.to(coefficients.device)

    @staticmethod
    @override
    def backward(ctx: Any, *grads: Tensor) -> Any:
        basis: Basis = ctx.basis
        products = basis.project(grads[0].detach().cpu().double().contiguous().numpy()) / basis.entry_size
        return torch.from_numpy(products).to(ctx.like), None


def combination(coefficients: Tensor, basis: Basis) -> Tensor:
    """sum_j c_j b_j with the basis scaled to entries of size 1, the same to the last bit on every machine.

    The c_j are rounded to multiples of 2^-20 first; the gradient is that of the unrounded sum, made from the basis
    block by block. Computed on the CPU, whatever the device of the coefficients. Not twice differentiable.

    Args:
        coefficients: `[coefficient]`, of any floating type.
        basis: seeded vectors.

    Returns:
        `[param]`, float64, on the coefficients' device. All NaN where a coefficient is not finite or so large that the
        sum would not be exact: their absolute values must add up to less than 2^33 with signs, 2^22 with normal
        entries. So a run that diverges is seen to diverge, as without coordinates.
    """
    return _Combination.apply(coefficients, basis)

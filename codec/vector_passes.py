"""Passes over whole vectors, fused where machine code is at hand: what they take is memory, not arithmetic."""

import numpy as np
import numpy.typing as npt

from .compiled import COMPILED
from .energy import energy

FloatVector = npt.NDArray[np.float32]


def sum_and_energy(
    first: FloatVector, second: FloatVector, share: np.float32, scale: np.float32
) -> tuple[FloatVector, float]:
    """`first + scale (share second)`, `[param]`, rounded after each operation; and its squared norm.

    Neither is finite where a coordinate is not.
    """
    if share != 1 and scale != 1:
        second, share = second * share, np.float32(1)
    factor = share * scale  # exactly: one of them is 1
    if COMPILED:
        from . import vector_kernels

        return vector_kernels.sum_and_energy(first, second, factor)
    total = first + (second if factor == 1 else second * factor)
    return total, energy(total)


def add_at(vector: FloatVector, places: npt.NDArray[np.intp], values: FloatVector) -> None:
    """Add values to a vector, `[param]`, at some places, each of which occurs once."""
    if COMPILED:
        from . import vector_kernels

        vector_kernels.add_at(vector, places, values)
    else:
        vector[places] += values


def all_finite(values: FloatVector) -> bool:
    """Whether no coordinate is NaN or infinite."""
    if COMPILED:
        from . import vector_kernels

        return bool(vector_kernels.all_finite(values))
    return bool(np.isfinite(values).all())

"""`vector_passes` as machine code. Sums of squares are added up in another order than numpy's."""

import numpy as np
import numpy.typing as npt

from .compiled import machine_code

FloatVector = npt.NDArray[np.float32]


@machine_code(fastmath={"reassoc"})
def sum_and_energy(first: FloatVector, second: FloatVector, factor: np.float32) -> tuple[FloatVector, float]:
    """`first + factor second`, `[param]`, and its squared norm; only the latter's order of operations is free."""
    total, energy = np.empty_like(first), 0.0
    for place in range(len(first)):
        value = first[place] + factor * second[place]
        total[place] = value
        energy += np.float64(value) * np.float64(value)
    return total, energy


@machine_code()
def add_at(vector: FloatVector, places: npt.NDArray[np.int64], values: FloatVector) -> None:
    """Add values at some places."""
    for index in range(len(places)):
        vector[places[index]] += values[index]


@machine_code()
def all_finite(values: FloatVector) -> bool:
    """Whether no coordinate is NaN or infinite, by the bits of the exponents."""
    number = np.int32(0)
    for word in values.view(np.int32):
        number += np.int32(word & np.int32(0x7F800000) == np.int32(0x7F800000))
    return number == 0

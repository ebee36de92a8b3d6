"""What a packet decodes to: a vector, or what of it is not zero, where that is little."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .vector_passes import FloatVector, add_at


class Sparse(NamedTuple):
    """A vector most of whose coordinates are zero.

    Attributes:
        places: of those that are not, `[value]`, each once, in any order.
        values: float32 `[value]`.
        size: coordinates of the vector.
    """

    places: npt.NDArray[np.intp]
    values: FloatVector
    size: int


Decoded = FloatVector | Sparse


def dense(decoded: Decoded) -> FloatVector:
    """The vector, `[param]`."""
    if not isinstance(decoded, Sparse):
        return decoded
    found = np.zeros(decoded.size, np.float32)
    add_at(found, decoded.places, decoded.values)
    return found


def add_share(total: FloatVector, decoded: Decoded, share: float) -> None:
    """Add `share` times the vector to `total`, `[param]`, in place; each product and sum is rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):  # vectors that are not finite reach everybody as they are
        if isinstance(decoded, Sparse):
            add_at(total, decoded.places, decoded.values * np.float32(share))
        else:
            total += decoded if share == 1 else decoded * np.float32(share)


def left_over(vector: FloatVector, decoded: Decoded) -> FloatVector:
    """`vector` less what was decoded, `[param]`; in the memory of `vector` where little was."""
    if not isinstance(decoded, Sparse):
        return vector - decoded
    add_at(vector, decoded.places, -decoded.values)
    return vector

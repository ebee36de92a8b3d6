"""In which units an error counts: plainly, or as Adam's step feels it.

Adam divides a gradient by sqrt(v), so an error matters by its share of that: sum_i (g_i - decoded_i)^2 / (v_i +
floor). Coding g / sqrt(v + floor) with one cell width for all is optimal for it (equal slopes). v is the running mean
of squared *decoded* vectors, which both ends hold; the floor is a power of two that the encoder chooses and sends, a
64th of v's size: without it a coordinate that always decoded to zero would be magnified without bound.

Every operation is one of IEEE 754 on single elements, so that both ends scale alike. The scale never selects a table.
"""

import math

import numpy as np
import numpy.typing as npt

from .energy import energy

FloatVector = npt.NDArray[np.float32]
FLOOR_SHARE = 6  # the floor is 2^-6 of the root mean square of v
LOWEST_FLOOR, HIGHEST_FLOOR = -126, 126


def metric_names() -> tuple[str, ...]:
    """Names that `CodecConfig(metric=...)` takes."""
    return ("plain", "adam")


def power(base: float, exponent: int) -> float:
    """base^exponent by squaring: products only, because libm's pow differs between machines."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result


def updated_moment(moment: FloatVector, vector: FloatVector, decay: float) -> FloatVector:
    """decay v + (1 - decay) vector^2, in float32, at most the largest float32 below 2^126.

    Args:
        moment: v, `[param]`.
        vector: what was decoded, `[param]`.
        decay: of the mean.
    """
    share = np.float32(decay)
    with np.errstate(over="ignore"):
        mean = vector * vector
        mean *= np.float32(1) - share
        mean += moment * share
    return np.minimum(mean, np.float32(2.0**126))


def floor_exponent(moment: FloatVector, corrected: float) -> int:
    """The floor that the encoder sends, as a power of two.

    Args:
        moment: v, `[param]`.
        corrected: what the mean lacks for having begun at zero, 1 - decay^updates.
    """
    mean = math.sqrt(energy(moment) / max(len(moment), 1)) / corrected  # the root mean square of v
    exponent = math.frexp(mean)[1] - FLOOR_SHARE if mean > 0 else LOWEST_FLOOR
    return min(max(exponent, LOWEST_FLOOR), HIGHEST_FLOOR)


def scale_of(moment: FloatVector, corrected: float, exponent: int) -> FloatVector:
    """sqrt(v + floor), `[param]`, float32.

    Args:
        moment: as for `floor_exponent`.
        corrected: likewise.
        exponent: the floor's.
    """
    with np.errstate(over="ignore"):
        scale = moment / np.float32(corrected)
    np.minimum(scale, np.float32(2.0**126), out=scale)
    scale += np.float32(2.0**exponent)
    return np.sqrt(scale, out=scale)

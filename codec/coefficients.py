"""How much of each basis vector makes the prediction: fitting, quantising, writing.

A coefficient is an integer in units of 1/256. The encoder alone computes it, from reductions in float64; it is sent, so
no reduction is ever needed to be equal on both ends.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .errors import PacketError
from .varint import read_varint, write_varint

UNIT = 256
LIMIT = 2**15 - 1

FloatVector = npt.NDArray[np.float32]
Coefficients = npt.NDArray[np.int16]  # [block, basis]


def quantise(value: float) -> int:
    """The nearest coefficient, in units; clipped to 16 bits, that is to about 128."""
    return max(-LIMIT, min(LIMIT, round(value * UNIT)))


def fit(vector: FloatVector, basis: Sequence[FloatVector], spans: Sequence[slice], error_per_coordinate: float) -> Coefficients:
    """Least-squares coefficients of each block, zero where they do not pay for their own bits.

    For every subset of the basis the normal equations are solved, the solution is quantised, and the bits it should
    save are estimated as n/2 log2((|g|^2/n + d) / (|r|^2/n + d)), with r what is left and d the error that will be left
    anyway: what lies below d costs nothing, so predicting it saves nothing (reverse water-filling; Cover and Thomas
    2006, section 10.3.3). The subset with the largest saving after its own cost is taken, if there is a saving.

    Args:
        vector: what is coded, `[param]`.
        basis: predictions, each `[param]`.
        spans: the blocks.
        error_per_coordinate: d above.
    """
    fitted = np.zeros((len(spans), len(basis)), np.int16)
    for block, span in enumerate(spans):
        target = vector[span].astype(np.float64)
        columns = np.stack([column[span] for column in basis], axis=1).astype(np.float64)
        if not np.isfinite(columns).all():
            continue
        gram, inner, energy = columns.T @ columns, columns.T @ target, float(target @ target)
        best = 0.0
        for size in range(1, len(basis) + 1):
            for subset in itertools.combinations(range(len(basis)), size):
                chosen = list(subset)
                solution = np.linalg.lstsq(gram[np.ix_(chosen, chosen)], inner[chosen], rcond=1e-12)[0]
                units = np.array([quantise(value) for value in solution])
                scaled = units / UNIT
                left = energy - 2 * scaled @ inner[chosen] + scaled @ gram[np.ix_(chosen, chosen)] @ scaled
                spread = error_per_coordinate * len(target)
                if not units.all() or left + spread <= 0:
                    continue
                saving = len(target) / 2 * math.log2((energy + spread) / (max(left, 0.0) + spread))
                saving -= sum(8 * len(write_varint(_zigzag(int(unit)))) for unit in units)
                if saving > best:
                    best = saving
                    fitted[block] = 0
                    fitted[block, chosen] = units
    return fitted


def combine(coefficients: Coefficients, basis: Sequence[FloatVector], spans: Sequence[slice], size: int) -> FloatVector:
    """The prediction, `[param]`: for each block the sum of coefficient times basis vector, in the order of the basis.

    One float32 product and one float32 sum for each term, both rounded as IEEE 754 says, so the result is the same on
    every machine. A zero coefficient leaves the term out, so a basis vector that overflowed there does no harm.
    """
    prediction = np.zeros(size, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for block, span in enumerate(spans):
            for column, units in zip(basis, coefficients[block], strict=True):
                if units:
                    prediction[span] += column[span] * np.float32(units / UNIT)
    return prediction


def write(coefficients: Coefficients) -> bytes:
    """Coefficients as bytes: a bit map of those that are not zero, then each as zigzag LEB128."""
    flat = coefficients.reshape(-1)
    return np.packbits(flat != 0).tobytes() + b"".join(write_varint(_zigzag(int(unit))) for unit in flat[flat != 0])


def read(data: bytes, start: int, shape: tuple[int, int]) -> tuple[Coefficients, int]:
    """The inverse of `write`.

    Args:
        data: a packet's body.
        start: where the coefficients begin.
        shape: (blocks, basis vectors).

    Returns:
        The coefficients, and where the next part begins.

    Raises:
        PacketError: if the body ends too early, a padding bit is set, or a number is not in its shortest form.
    """
    number = shape[0] * shape[1]
    stop = start + (number + 7) // 8
    if stop > len(data):
        raise PacketError("The packet is damaged: it ends within its coefficients.")
    present = np.unpackbits(np.frombuffer(data[start:stop], np.uint8))
    if present[number:].any():
        raise PacketError("The packet is damaged: the padding of its coefficients is not zero.")
    flat = np.zeros(number, np.int16)
    for place in np.flatnonzero(present):
        value, stop = read_varint(data, stop)
        unit = (value >> 1) ^ -(value & 1)
        if unit == 0 or abs(unit) > LIMIT:
            raise PacketError(f"The packet is damaged: a coefficient of {unit} units.")
        flat[place] = unit
    return flat.reshape(shape), stop


def _zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1

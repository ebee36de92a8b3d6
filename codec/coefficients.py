"""How much of each basis vector makes the prediction: fitting, quantising, writing.

A coefficient is an integer in units of 1/256. The encoder alone computes it, from reductions in float64; it is sent, so
no reduction is ever needed to be equal on both ends.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .bits import BitReader, BitWriter
from .errors import PacketError

UNIT = 256
LIMIT = 2**15 - 1
ORDER = 6  # of the Golomb code: eight bits for a coefficient below 1/4
# A prediction must save 3 % of its block: the estimate is not exact, and a residual's scale is harder to expect. On
# five small nets 1 costs 1 to 3 % more bits at NMSE 0.5, 0.94 up to 5 % at 0.1.
MARGIN = 0.97
MAX_BASIS = 4
DEPENDENT = 1e-12  # of a basis vector's energy, what the others do not explain
SAMPLE = 2**14  # coordinates of a block that decide whether its prediction pays

FloatVector = npt.NDArray[np.float32]
Coefficients = npt.NDArray[np.int16]  # [block, basis]
# About how many bits residuals take, `[place]`, float64, at given places, squared error at its slope included.
Cost = Callable[[npt.NDArray[np.intp], npt.NDArray[np.float64]], float]


def quantise(value: float) -> int:
    """The nearest coefficient, in units; clipped to 16 bits, that is to about 128."""
    return max(-LIMIT, min(LIMIT, round(value * UNIT)))


def fit(vector: FloatVector, basis: Sequence[FloatVector], spans: Sequence[slice], cost: Cost) -> Coefficients:
    """Least-squares coefficients of each block, zero where they do not pay for their own bits.

    For some subsets of the basis (`_candidates`) the normal equations are solved and the solution is quantised. What is
    left is then priced as it will be coded, and the cheapest subset wins, no basis at all included. The energy of the
    residual does not decide: where many coordinates are exactly zero (inactive units, small batches), a prediction that
    lowers the energy by a fifth still cost 4 % more bits at NMSE 0.01.

    The basis is made of decoded vectors, so least squares gives their Wiener coefficients, and no further leak is
    needed at low rate. For a unit-variance AR(1) stream with correlation rho and NMSE D the coefficient of the last
    decoded vector d is <g, d> / <d, d>. Centroids leave an error that is orthogonal to d: <d, d> = 1 - D and
    <g, d> = rho (1 - D), so the coefficient is rho itself, and the energy left is 1 - rho^2 (1 - D) =
    (1 - rho^2) + rho^2 D, the residual of causal coding. The textbook's rho (1 - D) is for a decoder whose error is
    white noise on top of g (a dithered quantiser): there the decoded vector still has to be shrunk.

    Args:
        vector: what is coded, `[param]`.
        basis: predictions, each `[param]`; at most `MAX_BASIS`.
        spans: the blocks.
        cost: about how many bits residuals take at some places.
    """
    fitted = np.zeros((len(spans), len(basis)), np.int16)
    saved = 0.0
    for block, span in enumerate(spans if basis else ()):
        target = vector[span].astype(np.float64)
        columns = [column[span].astype(np.float64) for column in basis]
        gram = [[float(first @ second) for second in columns] for first in columns]
        inner = [float(column @ target) for column in columns]
        energy, number = float(target @ target), len(target)
        if not all(math.isfinite(entry) for row in gram for entry in row):
            continue
        places = _sample(number)
        least = plain = math.inf
        for chosen in _candidates(gram, inner):
            units = [quantise(value) for value in _solve(gram, inner, chosen)]
            num_bits = sum(_length(unit) for unit in units)
            left = energy + _change(gram, inner, chosen, [unit / UNIT for unit in units])
            if not all(units) or left >= energy * 2 ** (-2 * num_bits / number):
                continue  # the most that n/2 log2(energy / left) can save is less than the coefficients take
            if least == math.inf:
                least = plain = cost(places + span.start, target[places])
            residual = target[places]
            for unit, col in zip(units, chosen, strict=True):
                residual -= unit / UNIT * columns[col][places]
            price = cost(places + span.start, residual) + num_bits * len(places) / number
            if price < least and price < plain * MARGIN:
                least = price
                fitted[block] = 0
                fitted[block, list(chosen)] = units
        if fitted[block].any():
            saved += (plain - least) * number / len(places)
    return fitted if saved > fitted.size else np.zeros_like(fitted)  # one bit for each says which ones there are


def _candidates(gram: list[list[float]], inner: list[float]) -> Iterator[tuple[int, ...]]:
    """The subsets to price: all of one or two basis vectors, and a growing one of more.

    Forward selection: each time the vector joins that lowers the energy most. Pricing takes nearly all of the time, and
    four vectors have 15 subsets.
    """
    if len(inner) <= 2:
        for size in range(1, len(inner) + 1):
            yield from itertools.combinations(range(len(inner)), size)
        return
    chosen: tuple[int, ...] = ()
    for _ in inner:
        larger = [tuple(sorted((*chosen, col))) for col in range(len(inner)) if col not in chosen]
        chosen = min(larger, key=lambda some: _change(gram, inner, some, _solve(gram, inner, some)))
        yield chosen


def _change(
    gram: list[list[float]], inner: list[float], chosen: tuple[int, ...], coefficients: Sequence[float]
) -> float:
    """How much taking some of the basis changes the energy of what is left."""
    change = 0.0
    for value, row in zip(coefficients, chosen, strict=True):
        others = sum(other * gram[row][col] for other, col in zip(coefficients, chosen, strict=True))
        change += value * (others - 2 * inner[row])
    return change


def _solve(gram: list[list[float]], inner: list[float], chosen: tuple[int, ...]) -> list[float]:
    """The normal equations of some basis vectors, by elimination; zeros where they are linearly dependent.

    The equations are scaled to unit length of each vector. A pivot is then 1 - R^2 of a vector on those before it.
    """
    lengths = [math.sqrt(gram[col][col]) for col in chosen]
    if not all(lengths):
        return [0.0] * len(chosen)
    rows = [
        [gram[row][col] / (here * there) for col, there in zip(chosen, lengths, strict=True)] + [inner[row] / here]
        for row, here in zip(chosen, lengths, strict=True)
    ]
    for place, pivot in enumerate(rows):
        if pivot[place] <= DEPENDENT:
            return [0.0] * len(chosen)
        for other, row in enumerate(rows):
            if other != place:
                factor = row[place] / pivot[place]
                rows[other] = [entry - factor * above for entry, above in zip(row, pivot, strict=True)]
    return [row[-1] / row[place] / length for place, (row, length) in enumerate(zip(rows, lengths, strict=True))]


def _sample(number: int) -> npt.NDArray[np.intp]:
    """At most `SAMPLE` places below `number`, spread evenly without a period: multiples of the golden ratio, mod 1."""
    if number <= SAMPLE:
        return np.arange(number)
    return (np.arange(SAMPLE) * 0.6180339887498949 % 1.0 * number).astype(np.intp)


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


def write(coefficients: Coefficients, bits: BitWriter) -> None:
    """Coefficients as bits: whether there are any; then which ones, and those as numbers."""
    flat = coefficients.reshape(-1)
    if not flat.size:
        return
    present = flat != 0
    bits.write(int(present.any()), 1)
    if present.any():
        for here in present.tolist():
            bits.write(here, 1)
        for unit in flat[present].tolist():
            bits.write_number(unit, ORDER)


def read(bits: BitReader, shape: tuple[int, int]) -> Coefficients:
    """The inverse of `write`.

    Args:
        bits: where the coefficients begin.
        shape: (blocks, basis vectors).

    Raises:
        PacketError: if the data end too early or a number is out of range.
    """
    flat = np.zeros(shape[0] * shape[1], np.int16)
    if flat.size and bits.read(1):
        for place in [place for place in range(flat.size) if bits.read(1)]:
            unit = bits.read_number(ORDER)
            if unit == 0 or abs(unit) > LIMIT:
                raise PacketError(f"The packet is damaged: a coefficient of {unit} units.")
            flat[place] = unit
    return flat.reshape(shape)


def _length(unit: int) -> int:
    """Bits that a coefficient takes."""
    bits = BitWriter()
    bits.write_number(unit, ORDER)
    return len(bits)

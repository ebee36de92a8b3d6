"""The integer lattice: cell widths, dead-zone quantisation, reconstruction by centroids.

A residual r becomes q = sign(r) floor(|r| / w + 1/2 - z), with cell width w and dead zone z, and comes back as
sign(q) (|q| + o) w, where o is one of three offsets, for |q| = 1, 2 and above: the mean of |r| / w - |q| in that class,
which the encoder measures, rounds to 1/128 and sends. One width serves all tensors of a packet: at equal slope of rate
against distortion, which is optimal at high rate, the absolute width is the same everywhere (Gersho and Gray 1992,
chapter 8); how large a tensor's residual is decides its probability table, not its width.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .symbols import MAX_DIRECT

WIDTHS_PER_OCTAVE = 128  # 32 would waste 0.016 bit a coordinate below the target at high rate, 128 wastes 0.004
LOWEST_EXPONENT = -160
NUM_WIDTHS = WIDTHS_PER_OCTAVE * 300  # up to 2^140, beyond float32 on both ends
OFFSET_UNIT = 128
NUM_OFFSETS = 3
LARGEST_VALUE = 2**31 - 1


def lattice_names() -> tuple[str, ...]:
    """Names that `CodecConfig(lattice=...)` takes."""
    return ("Z", "raw")


def cell_width(index: int) -> float:
    """The width behind an index in a packet, exactly: (128 + index mod 128) 2^(index div 128 - 167)."""
    octave, place = divmod(index, WIDTHS_PER_OCTAVE)
    return math.ldexp(WIDTHS_PER_OCTAVE + place, octave + LOWEST_EXPONENT - 7)


def cell_index(width: float) -> int:
    """The index whose width is nearest below `width`, which must be positive; clipped to the indices there are."""
    mantissa, exponent = math.frexp(width)
    place = int((2 * mantissa - 1) * WIDTHS_PER_OCTAVE)
    return min(max((exponent - 1 - LOWEST_EXPONENT) * WIDTHS_PER_OCTAVE + place, 0), NUM_WIDTHS - 1)


def reconstruct(
    symbols: npt.NDArray[np.int32], escaped: npt.NDArray[np.int64], offsets: npt.NDArray[np.int8], index: int
) -> npt.NDArray[np.float32]:
    """Residuals that symbols stand for, `[param]`.

    Each is a product that float64 holds exactly, rounded once to float32: equal on every machine.

    Args:
        symbols: `[param]`, of `to_symbols`.
        escaped: the values behind the escape symbols, in order.
        offsets: for magnitudes 1, 2 and above, in 1/128 of a cell, `[3]`.
        index: of the cell width.

    Returns:
        `[param]`; infinite where float32 cannot hold the value, for the caller to refuse.
    """
    direct = np.arange(-MAX_DIRECT, MAX_DIRECT + 1, dtype=np.int64)
    with np.errstate(over="ignore"):
        levels = _level(direct, offsets, index)
        if not len(escaped):
            return levels[symbols]
        residual = levels[np.minimum(symbols, 2 * MAX_DIRECT)]
        residual[symbols > 2 * MAX_DIRECT] = _level(escaped, offsets, index)
    return residual


def _level(values: npt.NDArray[np.int64], offsets: npt.NDArray[np.int8], index: int) -> npt.NDArray[np.float32]:
    magnitude = np.abs(values)
    shift = np.concatenate([[0], offsets.astype(np.int64)])[np.minimum(magnitude, NUM_OFFSETS)]
    numerator = np.sign(values) * (magnitude * OFFSET_UNIT + shift)
    return (numerator * (cell_width(index) / OFFSET_UNIT)).astype(np.float32)


class Trial(NamedTuple):
    """What one cell width would give: its index, the squared error left, and the best offsets."""

    cell_index: int
    error: float
    offsets: npt.NDArray[np.int8]


class Quantiser:
    """Finds the coarsest cells that keep an error bound. The encoder's side only: its result is sent.

    Args:
        residual: what is left after prediction, `[param]`, finite float32.
        dead_zone: z above, 0 to 0.5.
    """

    def __init__(self, residual: npt.NDArray[np.float32], dead_zone: float) -> None:
        self._residual = residual
        self._round = 0.5 - dead_zone
        self._magnitude = np.abs(residual)
        self._largest = float(self._magnitude.max(initial=0.0))
        wide = self._magnitude.astype(np.float64)
        self.energy = float(wide @ wide)
        self._base = NUM_WIDTHS
        self._active = wide[:0]

    def trial(self, index: int) -> Trial:
        """Error and offsets at one cell width."""
        width = cell_width(index)
        if index < self._base:  # below this, more coordinates may round to something else than zero
            self._base = max(index - WIDTHS_PER_OCTAVE // 2, 0)
            edge = (1 - self._round) * cell_width(self._base)
            # The edge is lowered by more than float32's rounding, so that no coordinate is missed.
            places = self._magnitude >= np.float32(min(edge * (1 - 1e-6), 3e38))
            self._active = self._magnitude[places].astype(np.float64)
            self._idle_energy = self.energy - float(self._active @ self._active)
        scaled = self._active / width
        rounded = np.floor(scaled + self._round)
        excess = scaled - rounded
        kind = np.minimum(rounded, NUM_OFFSETS).astype(np.intp)
        number = np.bincount(kind, minlength=NUM_OFFSETS + 1)
        total = np.bincount(kind, excess, NUM_OFFSETS + 1)
        square = np.bincount(kind, excess * excess, NUM_OFFSETS + 1)
        mean = total[1:] / np.maximum(number[1:], 1)
        offsets = np.clip(np.rint(mean * OFFSET_UNIT), -OFFSET_UNIT, OFFSET_UNIT - 1)
        shift = np.concatenate([[0.0], offsets / OFFSET_UNIT])
        error = float((square - 2 * shift * total + number * shift * shift).sum()) * width * width
        return Trial(index, max(self._idle_energy, 0.0) + max(error, 0.0), offsets.astype(np.int8))

    def coarsest(self, bound: float, start: int) -> Trial | None:
        """The coarsest width whose squared error is at most `bound`, or `None` if there is none.

        Error grows with width almost everywhere; where it does not (few coordinates), a width is returned that keeps
        the bound while the next one breaks it. The search is a secant on log error against log width within a bracket,
        three to five trials when `start` is the last packet's index.
        """
        if self.energy <= bound:
            return Trial(start, self.energy, np.zeros(NUM_OFFSETS, np.int8))
        if bound <= 0:
            return None
        finest = cell_index(max(self._largest / LARGEST_VALUE, 5e-324)) + 1
        coarsest = cell_index(max(self._largest * 4, 5e-324))
        good: Trial | None = None
        bad: Trial | None = None
        index = min(max(start, finest), coarsest)
        for attempt in range(64):
            trial = self.trial(index)
            if trial.error <= bound:
                good = trial
            else:
                bad = trial
            if good and bad and bad.cell_index - good.cell_index == 1:
                break
            if (good and good.cell_index >= coarsest) or (bad and bad.cell_index <= finest):
                break
            low = good.cell_index + 1 if good else finest
            high = bad.cell_index - 1 if bad else coarsest
            slope = 1.5  # of log error against log width: 2 at high rate, less where most coordinates are zero
            if good and bad and good.error > 0:
                slope = max(
                    math.log2(bad.error / good.error) * WIDTHS_PER_OCTAVE / (bad.cell_index - good.cell_index), 0.1
                )
            octaves = math.log2(bound / trial.error) / slope if trial.error > 0 else 2.0
            index = trial.cell_index + round(octaves * WIDTHS_PER_OCTAVE)
            if good and bad and attempt > 6:
                index = (low + high) // 2
            index = min(max(index, low), high)
        return good

    def values(self, trial: Trial) -> npt.NDArray[np.int32]:
        """The quantised integers at a trial's width, `[param]`."""
        values = np.zeros(len(self._residual), np.int32)
        if self.energy and trial.error < self.energy:
            width = cell_width(trial.cell_index)
            edge = (1 - self._round) * width * (1 - 1e-6)
            places = np.flatnonzero(self._magnitude >= np.float32(min(edge, 3e38)))
            scaled = self._magnitude[places].astype(np.float64) / width
            rounded = np.floor(scaled + self._round).astype(np.int32)
            values[places] = np.where(self._residual[places] < 0, -rounded, rounded)
        return values

"""The integer lattice: cell widths, dead-zone quantisation, reconstruction by centroids.

A residual r becomes q = sign(r) floor(|r| / w + 1/2 - z), with cell width w and dead zone z, and comes back as
sign(q) (|q| + o) w, where o is one of three offsets, for |q| = 1, 2 and above: the mean of |r| / w - |q| in that class,
which the encoder measures, rounds to 1/128 and sends. One width serves all tensors of a packet: at equal slope of rate
against distortion, which is optimal at high rate, the absolute width is the same everywhere (Gersho and Gray 1992,
chapter 8); how large a tensor's residual is decides its probability table, not its width.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .energy import energy
from .symbols import MAX_DIRECT

WIDTHS_PER_OCTAVE = 128  # 32 would waste 0.016 bit a coordinate below the target at high rate, 128 wastes 0.004
LOWEST_EXPONENT = -160
NUM_WIDTHS = WIDTHS_PER_OCTAVE * 300  # up to 2^140, beyond float32 on both ends
OFFSET_UNIT = 128
NUM_OFFSETS = 3
LARGEST_VALUE = 2**31 - 1
_AT_ONCE = 2**16


def lattice_names() -> tuple[str, ...]:
    """Names that `CodecConfig(lattice=...)` takes."""
    return ("Z", "raw", "D4", "E8", "auto", "T8", "T64", "A2", "Leech")


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
    symbols: npt.NDArray[np.int32],
    escaped: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int8],
    index: int,
    levels: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.float32]:
    """Residuals that symbols stand for, `[param]`.

    Each is a product that float64 holds exactly, rounded once to float32: equal on every machine.

    Args:
        symbols: `[param]`, of `to_symbols`.
        escaped: the values behind the escape symbols, in order.
        offsets: for magnitudes 1, 2 and above, in 1/128 of a cell, `[3]`.
        index: of the cell width.
        levels: of the coordinates, `[param]`, where they are not all 0; a power of two, so exact.

    Returns:
        `[param]`; infinite where float32 cannot hold the value, for the caller to refuse.
    """
    direct = np.arange(-MAX_DIRECT, MAX_DIRECT + 1, dtype=np.int64)
    with np.errstate(over="ignore"):
        points = point(direct, offsets, index)
        residual = points[np.minimum(symbols, 2 * MAX_DIRECT)] if len(escaped) else points[symbols]
        if len(escaped):
            residual[symbols > 2 * MAX_DIRECT] = point(escaped, offsets, index)
        return residual if levels is None else np.ldexp(residual, levels.astype(np.int32))


def point(values: npt.NDArray[np.int64], offsets: npt.NDArray[np.int8], index: int) -> npt.NDArray[np.float32]:
    """What integers stand for at a cell width."""
    magnitude = np.abs(values)
    shift = np.concatenate([[0], offsets.astype(np.int64)])[np.minimum(magnitude, NUM_OFFSETS)]
    numerator = np.sign(values) * (magnitude * OFFSET_UNIT + shift)
    return (numerator * (cell_width(index) / OFFSET_UNIT)).astype(np.float32)


def widest(error_at: Callable[[int], float], bound: float, start: int, finest: int, coarsest: int) -> int | None:
    """The index of the widest cells whose squared error is at most `bound`, or `None` if there are none.

    Error grows with width almost everywhere; where it does not (few coordinates), a width is returned that keeps the
    bound while the next one breaks it. The search is a secant on log error against log width within a bracket, three to
    five trials when `start` is the last packet's index.

    Args:
        error_at: the squared error that an index leaves.
        bound: above 0.
        start: the first index to try.
        finest: the smallest index to try.
        coarsest: the largest one.
    """
    good: tuple[int, float] | None = None  # index and error
    bad: tuple[int, float] | None = None
    index = min(max(start, finest), coarsest)
    for attempt in range(64):
        error = error_at(index)
        if error <= bound:
            good = index, error
        else:
            bad = index, error
        if good and bad and bad[0] - good[0] == 1:
            break
        if (good and good[0] >= coarsest) or (bad and bad[0] <= finest):
            break
        low = good[0] + 1 if good else finest
        high = bad[0] - 1 if bad else coarsest
        slope = 1.5  # of log error against log width: 2 at high rate, less where most coordinates are zero
        if good and bad and good[1] > 0:
            slope = max(math.log2(bad[1] / good[1]) * WIDTHS_PER_OCTAVE / (bad[0] - good[0]), 0.1)
        octaves = math.log2(bound / error) / slope if error > 0 else 2.0
        index += round(octaves * WIDTHS_PER_OCTAVE)
        if attempt > 6:  # the secant is lost, on a plateau where everything rounds to zero, say
            if good and bad:
                index = (low + high) // 2
            elif good:
                index = good[0] + 2**attempt
            elif bad:
                index = bad[0] - 2**attempt
        index = min(max(index, low), high)
    return good[0] if good else None


class Trial(NamedTuple):
    """What one cell width would give: its index, the squared error left, and the best offsets."""

    cell_index: int
    error: float
    offsets: npt.NDArray[np.int8]


def best_offsets(
    number: npt.NDArray[np.number], total: npt.NDArray[np.number]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float64]]:
    """The offsets of least error, `[offset]`, and the same in cells, 0 for zeros, `[kind]`.

    Args:
        number: of coordinates of each kind: magnitude 0, 1, 2 and above.
        total: of what they are above their magnitude, in cells.
    """
    mean = total[1:] / np.maximum(number[1:], 1)
    offsets = np.clip(np.rint(mean * OFFSET_UNIT), -OFFSET_UNIT, OFFSET_UNIT - 1)
    return offsets.astype(np.int8), np.concatenate([[0.0], offsets / OFFSET_UNIT])


class Quantiser:
    """Finds the coarsest cells that keep an error bound. The encoder's side only: its result is sent.

    Args:
        residual: what is left after prediction, `[param]`, finite float32.
        dead_zone: z above, at least 0; for all coordinates or for each.
        levels: of the coordinates, `[param]`: cells of level l are 2^l times as wide. All 0 if not given.
        residual_energy: ||residual||^2, if it is known.
    """

    def __init__(
        self,
        residual: npt.NDArray[np.float32],
        dead_zone: float | npt.NDArray[np.float32],
        levels: npt.NDArray[np.uint8] | None = None,
        residual_energy: float | None = None,
    ) -> None:
        self._residual = residual
        self._levels = levels
        self._edge = np.asarray(dead_zone, np.float32) + np.float32(0.5)  # of the first cell, in cells
        self.energy = energy(residual) if residual_energy is None else residual_energy
        self._base = NUM_WIDTHS

    def _select(self, width: float) -> npt.NDArray[np.intp]:
        """Places of the coordinates that may not round to zero at a width.

        The edge is lowered by more than float32's rounding, so that no coordinate is missed.
        """
        edge = self._edge * np.float32(min(width * (1 - 1e-6), 2e38))
        found = []
        for start in range(0, len(self._residual), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            mask = self._magnitude(some) >= (edge[some] if edge.ndim else edge)
            found.append(np.flatnonzero(mask) + start)
        return np.concatenate(found) if found else np.zeros(0, np.intp)

    def _magnitude(self, places: slice | npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """|r|, in units of the cells of level 0."""
        magnitude = np.abs(self._residual[places])
        if self._levels is not None:
            magnitude = np.ldexp(magnitude, -self._levels[places].astype(np.int32))
        return magnitude

    @cached_property
    def _largest(self) -> float:
        starts = range(0, len(self._residual), _AT_ONCE)
        return max((float(self._magnitude(slice(start, start + _AT_ONCE)).max()) for start in starts), default=0.0)

    def trial(self, index: int) -> Trial:
        """Error and offsets at one cell width."""
        width = cell_width(index)
        if index < self._base:  # below this, more coordinates may round to something else than zero
            self._base = max(index - WIDTHS_PER_OCTAVE // 2, 0)
            self._places = self._select(cell_width(self._base))
            self._active = self._magnitude(self._places).astype(np.float64)
            self._round = 1 - (self._edge[self._places] if self._edge.ndim else self._edge).astype(np.float64)
            self._idle_energy = self.energy - energy(self._residual[self._places])
            self._active_levels = None if self._levels is None else self._levels[self._places].astype(np.intp)
        scaled = self._active / width
        rounded = np.maximum(np.floor(scaled + self._round), 0)
        excess = scaled - rounded
        kind = np.minimum(rounded, NUM_OFFSETS).astype(np.intp)
        number, total, square = self._sums(kind, excess)
        offsets, shift = best_offsets(number, total)
        error = float((square - 2 * shift * total + number * shift * shift).sum()) * width * width
        return Trial(index, max(self._idle_energy, 0.0) + max(error, 0.0), offsets)

    def _sums(self, kind: npt.NDArray[np.intp], excess: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Number, sum and sum of squares of the excess for each kind, `[3, kind]`, weighted by the squared width."""
        kinds = NUM_OFFSETS + 1
        if self._active_levels is None:
            weights = (None, excess, excess * excess)
            return np.stack([np.bincount(kind, weight, kinds) for weight in weights]).astype(np.float64)
        kind = kind + kinds * self._active_levels
        num_levels = int(self._active_levels.max(initial=0)) + 1
        sums = [np.bincount(kind, weight, kinds * num_levels) for weight in (None, excess, excess * excess)]
        return (np.stack(sums).reshape(3, num_levels, kinds) * 4.0 ** np.arange(num_levels)[:, None]).sum(1)

    @property
    def finest(self) -> int:
        """The finest cells whose integers 32 bits hold."""
        return cell_index(max(self._largest / LARGEST_VALUE, 5e-324)) + 1

    def coarsest(self, bound: float, start: int) -> Trial | None:
        """The coarsest width whose squared error is at most `bound`, or `None` if there is none; see `widest`."""
        if self.energy <= bound:
            return Trial(start, self.energy, np.zeros(NUM_OFFSETS, np.int8))
        if bound <= 0:
            return None
        coarsest = cell_index(max(self._largest * 4, 5e-324))
        trials: dict[int, Trial] = {}

        def error_at(index: int) -> float:
            trials[index] = self.trial(index)
            return trials[index].error

        found = widest(error_at, bound, start, self.finest, coarsest)
        return None if found is None else trials[found]

    def nonzero(self, trial: Trial) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
        """The quantised integers at a trial's width that are not zero, and their places, increasing."""
        if not (self.energy and trial.error < self.energy):
            return np.zeros(0, np.intp), np.zeros(0, np.int32)
        if trial.cell_index < self._base:
            self.trial(trial.cell_index)
        rounded = np.maximum(np.floor(self._active / cell_width(trial.cell_index) + self._round), 0).astype(np.int32)
        kept = np.flatnonzero(rounded)
        places, rounded = self._places[kept], rounded[kept]
        return places, np.where(self._residual[places] < 0, -rounded, rounded)

    def values(self, trial: Trial) -> npt.NDArray[np.int32]:
        """The quantised integers at a trial's width, `[param]`."""
        values = np.zeros(len(self._residual), np.int32)
        places, found = self.nonzero(trial)
        values[places] = found
        return values

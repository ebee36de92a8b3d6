"""A fixed random network of sines onto the unit sphere."""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import final

import numpy as np
import torch
from torch import Tensor

from .basis import Values
from .fixed_point import EXACT, FRACTION_BITS, fixed_point
from .gaussian_basis import STEPS, quantiles
from .random_words import random_halves, stream_key

TURN = 65536  # whole numbers to one period of the sine
AMPLITUDE = 32767
SHIFT = 256.0  # what the outputs lose before they are squared, so that squares fit 64 bits


@cache
def sines() -> Values:
    """32767 sin(2 pi i / 65536), rounded, `[phase]`; none lies within 1e-6 of a half, so all machines round alike."""
    quarter = [round(AMPLITUDE * math.sin(2.0 * math.pi * index / TURN)) for index in range(TURN // 4 + 1)]
    rising = np.array(quarter, np.float64)
    half = np.concatenate((rising, rising[-2:0:-1]))
    table = np.concatenate((half, -half))
    table.setflags(write=False)
    return table


@final
@dataclass(frozen=True)
class SphereNetwork:
    """phi(alpha) = y / ||y||, y = W_3 sin(f W_2 sin(f W_1 alpha)), with normal entries from a seed.

    Entries of W_1 have variance 1 / inputs, of W_2 2 / width: so f is about the standard deviation of both phases for
    inputs of size 1. No biases; for its origin see `MCNC`. `exact` works in whole numbers, with tables for sine and
    normal entries, and is the same to the last bit on every machine; `smooth` is the same function in float64 up to
    about 1e-4, and has derivatives.

    Args:
        num_inputs: of alpha.
        num_outputs: the sphere's own space; at most 2^13.
        width: of the hidden layers; at most 2^10.
        frequency: f.
        seed: of the entries.
    """

    num_inputs: int
    num_outputs: int
    width: int
    frequency: float
    seed: int

    def _entries(self, layer: int, num_rows: int, num_columns: int) -> Values:
        levels = random_halves(stream_key(self.seed, layer), 0, num_rows * num_columns)
        return quantiles()[levels].reshape(num_rows, num_columns)

    @cached_property
    def weights(self) -> tuple[Values, Values, Values]:
        """W_1, W_2 and W_3, in whole numbers, transposed: `[input, output]`."""
        return (
            self._entries(0, self.num_inputs, self.width),
            self._entries(1, self.width, self.width),
            self._entries(2, self.width, self.num_outputs),
        )

    @cached_property
    def _factors(self) -> tuple[float, float]:
        """Phase in turns of the table for the whole numbers of both hidden layers."""
        turns = self.frequency * TURN / (2.0 * math.pi * STEPS)
        first = turns * 2.0**-FRACTION_BITS / math.sqrt(self.num_inputs)
        return first, turns * math.sqrt(2.0 / self.width) / AMPLITUDE

    def exact(self, alpha: Values) -> Values:
        """phi of each row, `[row, input]` to `[row, output]`; NaN rows where an input is too large or not finite."""
        whole = fixed_point(alpha)
        usable = np.abs(whole).sum(axis=1) * float(quantiles()[-1]) < EXACT
        sums = np.where(usable[:, None], whole, 0.0) @ self.weights[0]
        for factor, weight in zip(self._factors, self.weights[1:], strict=True):
            phases = np.rint(sums * factor).astype(np.int64) & (TURN - 1)
            sums = sines()[phases] @ weight
        outputs = np.rint(sums / SHIFT)
        squares = outputs.astype(np.int64) ** 2
        norms = np.sqrt(squares.sum(axis=1).astype(np.float64))
        return np.where(usable[:, None], outputs / np.maximum(norms, 1.0)[:, None], np.nan)

    def smooth(self, alpha: Tensor) -> Tensor:
        """phi of each row in plain float64, differentiable; `[..., input]` to `[..., output]`."""
        first, second, third = (torch.from_numpy(weight / STEPS) for weight in self.weights)
        hidden = torch.sin(alpha @ first * (self.frequency / math.sqrt(self.num_inputs)))
        hidden = torch.sin(hidden @ second * (self.frequency * math.sqrt(2.0 / self.width)))
        return torch.nn.functional.normalize(hidden @ third, dim=-1)

"""Long windows in few rows: the newest as they are, older ones as means over stretches that grow with age."""

from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch

from ..forecast import Window
from .motion import working_dtype
from .rows import chunks

SINGLE = 10  # newest rows that stay as they are
GROWTH = 2  # every so many stretches the next ones are twice as long


class Condensed(NamedTuple):
    """A window in few rows.

    Attributes:
        window: its rows, the newest last; the step of a mean is the middle of its stretch, rounded down.
        spacing: optimiser steps between the rows that it was made of.
        gaps: between neighbouring rows of `window`, in units of `spacing`.
    """

    window: Window
    spacing: int
    gaps: tuple[float, ...]


def stretches(history: int) -> tuple[int, ...]:
    """How many rows each row of a condensed window of `history` rows stands for, oldest first; they add up to it.

    >>> stretches(30)
    (8, 4, 4, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    """
    lengths = [1] * min(SINGLE, history)
    left = history - len(lengths)
    while left > 0:
        length = 2 ** (1 + (len(lengths) - SINGLE) // GROWTH)
        lengths.append(min(length, left))
        left -= lengths[-1]
    return tuple(reversed(lengths))


def gaps(history: int) -> tuple[float, ...]:
    """Distances between the middles of neighbouring stretches, in rows, oldest first."""
    lengths = stretches(history)
    return tuple((early + late) / 2 for early, late in pairwise(lengths))


def condensed(window: Window) -> Condensed:
    """The window in few rows; with at most `SINGLE` rows it is what it was.

    Means are taken of deviations from the newest row, so that what stands still does so to the last bit.

    Raises:
        WindowError: if its rows are not evenly spaced.
    """
    spacing, lengths = window.spacing, stretches(len(window))
    distances = gaps(len(window))
    if len(lengths) == len(window):
        return Condensed(window, spacing, distances)
    ends = torch.tensor(lengths).cumsum(dim=0).tolist()
    spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    values = window.values.new_empty(len(lengths), window.layout.size)
    singles = slice(len(window) - SINGLE, len(window))
    values[-SINGLE:] = window.values[singles]
    dtype = working_dtype(values.dtype)
    for _, part in chunks(window.layout):
        newest = window.values[-1, part].to(dtype)
        for row, span in enumerate(spans[:-SINGLE]):
            values[row, part] = (window.values[span, part].to(dtype) - newest).mean(dim=0).add_(newest).to(values.dtype)
    rates = window.learning_rates
    return Condensed(
        replace(
            window,
            values=values,
            steps=torch.stack([window.steps[span].sum() // (span.stop - span.start) for span in spans]),
            learning_rates=None if rates is None else torch.stack([rates[span].mean() for span in spans]),
        ),
        spacing,
        distances,
    )

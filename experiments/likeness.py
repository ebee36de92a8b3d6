"""How alike the rows of a stream are, step by step."""

from typing import Any

import numpy as np

from ..forecast import Trajectory

MAX_ROWS = 40  # of the map
MAX_PAIRS = 40  # of neighbours, in each third of the run
MAX_NUMBERS = 3e7  # of all rows together; of larger networks fewer are read
MIN_ROWS = 3


def cosine_map(trajectory: Trajectory, stream: str) -> dict[str, Any] | None:
    """Cosines of rows with each other, evenly over the run, and of neighbours early and late in it, as plain data.

    Args:
        trajectory: of a run.
        stream: which of its streams.

    Returns:
        `steps` and `cosines[row][row]`; `early` and `late`, the mean cosine of neighbouring rows in the first and in
        the last third, `apart` optimiser steps. `None` where there are too few rows.
    """
    data = trajectory.stream(stream)
    budget = int(MAX_NUMBERS // max(trajectory.layout.size, 1))
    number = min(len(data), MAX_ROWS, budget)
    if number < MIN_ROWS:
        return None
    places = np.unique(np.linspace(0, len(data) - 1, number).round().astype(int))
    rows = np.stack([_unit(np.array(data[int(place)])) for place in places])
    third = max(len(data) // 3, 2)
    return {
        "stream": stream,
        "steps": [int(data.steps[place]) for place in places],
        "cosines": (rows @ rows.T).tolist(),
        "apart": int(data.steps[1] - data.steps[0]),
        "early": _neighbours(trajectory, stream, 0, third, budget),
        "late": _neighbours(trajectory, stream, len(data) - third, len(data), budget),
    }


def _neighbours(trajectory: Trajectory, stream: str, first: int, stop: int, budget: int) -> float:
    """The mean cosine of rows with their neighbours, over some evenly chosen ones."""
    data = trajectory.stream(stream)
    number = max(min(stop - first - 1, MAX_PAIRS, budget // 2), 1)
    places = np.unique(np.linspace(first, stop - 2, number).round().astype(int))
    pairs = [(_unit(np.array(data[int(place)])), _unit(np.array(data[int(place) + 1]))) for place in places]
    return float(np.mean([left @ right for left, right in pairs]))


def _unit(row: np.ndarray) -> np.ndarray:
    """A row of length one; zeros stay, and what is not finite becomes NaN."""
    row = row.astype(np.float64)
    norm = float(np.sqrt(row @ row))
    return row / norm if norm > 0 else row

"""Forecasting exercises with known answers, cut from a recorded trajectory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .errors import WindowError
from .graph.neural_graph import NeuralGraph
from .moments import Moments
from .window import Window

if TYPE_CHECKING:
    from .trajectory import Trajectory


@dataclass(frozen=True)
class Case:
    """A window and what really came after it.

    Attributes:
        window: what a forecaster may see.
        targets: the recorded row, `[param]`, by horizon in optimiser steps.
    """

    window: Window
    targets: dict[int, Tensor]


def cases(
    trajectory: "Trajectory",
    stream: str,
    history: int,
    horizons: Sequence[int],
    *,
    spacing: int | None = None,
    first_step: int | None = None,
    last_step: int | None = None,
    with_moments: bool = False,
    graph: NeuralGraph | None = None,
) -> list[Case]:
    """Every case that the recorded rows allow, oldest first; none spans an event that breaks the curve.

    Windows are views of one copy of the rows read, so many overlapping cases cost the memory of the rows once.

    Args:
        trajectory: where the rows are.
        stream: which stream.
        history: rows in each window.
        horizons: optimiser steps ahead; a case is made only where all of them were recorded.
        spacing: optimiser steps between rows of a window; when not given, the most frequent distance between rows.
        first_step: rows before it are not used, neither as history nor as target.
        last_step: the same for rows after it.
        with_moments: attach the optimiser's moments at each window's last row, from the streams `exp_avg` and
            `exp_avg_sq`; windows where they were not recorded are left out.
        graph: the network's neural graph, attached to each window, for forecasters with `needs_graph`.

    Raises:
        WindowError: if `history` or a horizon is below 1, moments are asked for that were not recorded, or the graph is
            of another network.
    """
    if history < 1:
        raise WindowError(f"`history` must be at least 1, got {history}.")
    if not horizons or min(horizons) < 1:
        raise WindowError(f"`horizons` must be at least one number of steps, each at least 1, got {list(horizons)}.")
    moments_at = _moments_reader(trajectory) if with_moments else None
    rates = trajectory.scalars.get("learning_rate")
    rate_at = dict(zip(rates.steps.tolist(), rates.values.tolist(), strict=True)) if rates is not None else {}
    data = trajectory.stream(stream)
    found: list[Case] = []
    for segment in data.segments:
        steps = data.steps[segment]
        low = int(np.searchsorted(steps, first_step)) if first_step is not None else 0
        high = int(np.searchsorted(steps, last_step, side="right")) if last_step is not None else len(steps)
        if high - low < history + 1:
            continue
        steps = steps[low:high]
        rows = torch.from_numpy(np.asarray(data[segment.start + low : segment.start + high]))
        gap = spacing if spacing is not None else cadence(steps)
        row_of = {int(step): row for row, step in enumerate(steps)}
        for last in (int(step) for step in steps):
            wanted = [last - gap * back for back in range(history - 1, -1, -1)]
            if not all(step in row_of for step in wanted) or not all(last + h in row_of for h in horizons):
                continue
            moments = moments_at(last) if moments_at is not None else None
            if moments_at is not None and moments is None:
                continue
            first_row, last_row = row_of[wanted[0]], row_of[last]
            stride = (last_row - first_row) // (history - 1) if history > 1 else 1
            picked = list(range(first_row, last_row + 1, stride))
            even = [row_of[step] for step in wanted] == picked
            values = rows[first_row : last_row + 1 : stride] if even else rows[[row_of[step] for step in wanted]]
            learning_rates = (
                torch.tensor([rate_at[step] for step in wanted], dtype=torch.float64)
                if all(step in rate_at for step in wanted)
                else None
            )
            window = Window(values, torch.tensor(wanted), trajectory.layout, stream, learning_rates, moments, graph)
            found.append(Case(window, {h: rows[row_of[last + h]] for h in horizons}))
    return found


def cadence(steps: np.ndarray) -> int:
    """The most frequent distance between rows; a run that began between two due steps has one odd row.

    Args:
        steps: of the rows, `[time]`, ascending, at least two.
    """
    gaps, counts = np.unique(np.diff(steps), return_counts=True)
    return int(gaps[counts.argmax()])


def _moments_reader(trajectory: "Trajectory"):
    """A function from step to `Moments`, or None where they were not recorded at that step."""
    settings = trajectory.metadata.get("adam")
    if settings is None or not {"exp_avg", "exp_avg_sq"} <= set(trajectory.streams):
        raise WindowError(
            "This trajectory holds no optimiser moments. Record the streams 'exp_avg' and 'exp_avg_sq' of an Adam run."
        )
    first, second = trajectory.stream("exp_avg"), trajectory.stream("exp_avg_sq")
    first_row = {int(step): row for row, step in enumerate(first.steps)}
    second_row = {int(step): row for row, step in enumerate(second.steps)}
    rates = trajectory.scalars.get("learning_rate")
    rate_at = dict(zip(rates.steps.tolist(), rates.values.tolist(), strict=True)) if rates is not None else {}

    def read(step: int) -> Moments | None:
        if step not in first_row or step not in second_row or step not in rate_at:
            return None
        return Moments(
            torch.from_numpy(np.array(first[first_row[step]])),
            torch.from_numpy(np.array(second[second_row[step]])),
            num_updates=step,
            learning_rate=torch.tensor(rate_at[step]),
            beta1=float(settings["beta1"]),
            beta2=float(settings["beta2"]),
            eps=float(settings["eps"]),
            weight_decay=float(settings["weight_decay"]),
        )

    return read

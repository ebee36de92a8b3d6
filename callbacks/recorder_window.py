"""The newest rows of a trajectory as a window."""

import torch

from ..forecast import Trajectory, Window


def newest_window(trajectory: Trajectory, stream: str, history: int, gap: int) -> Window | None:
    """The newest rows at a spacing, or `None` while there are too few since the last break in the curve.

    Args:
        trajectory: to read from.
        stream: which stream.
        history: how many rows.
        gap: optimiser steps between them.
    """
    data = trajectory.stream(stream)
    if not len(data):
        return None
    segment = data.segments[-1]
    steps = data.steps[segment]
    wanted = [int(steps[-1]) - gap * back for back in range(history - 1, -1, -1)]
    row_of = {int(step): segment.start + row for row, step in enumerate(steps)}
    if not all(step in row_of for step in wanted):
        return None
    values = torch.from_numpy(data[[row_of[step] for step in wanted]])
    return Window(values, torch.tensor(wanted), data.layout, stream)

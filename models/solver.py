"""Times at which a solver stops."""

import math
from collections.abc import Sequence
from itertools import pairwise


def time_grid(times: Sequence[float], step_size: float) -> tuple[list[float], list[int]]:
    """Ascending times with gaps of at most `step_size` through all of `times`, and where these are, less the first.

    torchdiffeq's own `step_size` interpolates linearly where a time is no multiple of it. A grid through all times does
    not.
    """
    grid, positions = [times[0]], []
    for begin, end in pairwise(times):
        count = max(1, math.ceil((end - begin) / step_size - 1e-9))
        grid += [begin + (end - begin) * index / count for index in range(1, count)] + [end]
        positions.append(len(grid) - 1)
    return grid, positions

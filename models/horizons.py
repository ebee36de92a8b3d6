"""Quantities fitted at some horizons, asked for at others."""

from torch import Tensor


def between(horizons: Tensor, table: Tensor, horizon: int) -> Tensor:
    """What a table holds at `horizon`, linearly between its rows and zero at horizon 0.

    Args:
        horizons: `[horizon]`, integers, positive and ascending.
        table: `[horizon, ...]`.
        horizon: at least 0 and at most the largest of `horizons`.

    Returns:
        `[...]`; a row of the table, unchanged, where `horizon` is in it.
    """
    known = horizons.tolist()
    above = next(index for index, entry in enumerate(known) if entry >= horizon)
    if known[above] == horizon:
        return table[above]
    lower, upper = (known[above - 1] if above else 0), known[above]
    share = (horizon - lower) / (upper - lower)
    return table[above] * share + (table[above - 1] * (1 - share) if above else 0.0)

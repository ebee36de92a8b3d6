"""Quantities fitted at some horizons, asked for at others."""

from collections.abc import Sequence

from torch import Tensor

from ..forecast import Window
from ..forecast.errors import WindowError


def require_known(window: Window, horizons: Sequence[int], spacing: int, longest: int | None) -> None:
    """Check that a forecaster was fitted to such windows, and up to these horizons.

    Args:
        window: what it is to forecast.
        horizons: how far ahead.
        spacing: optimiser steps between the rows it was fitted to.
        longest: the longest trained horizon; `None` where longer ones can be answered.

    Raises:
        WindowError: if the rows are spaced otherwise, or a horizon is longer.
    """
    if window.spacing != spacing:
        raise WindowError(f"Fitted to rows {spacing} steps apart, got {window.spacing} steps. Fit it anew.")
    if longest is not None and horizons and max(horizons) > longest:
        raise WindowError(f"Fitted up to horizon {longest}, got {max(horizons)}. Fit it to longer horizons.")


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

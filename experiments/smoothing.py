"""A running median, which shows where a noisy loss is going."""

import numpy as np

SMOOTHING = 25  # steps
MIN_SMOOTHED = 2 * SMOOTHING  # values; fewer are drawn as they are


def running_median(values: np.ndarray) -> np.ndarray:
    """The median of the `SMOOTHING` values around each; there must be `MIN_SMOOTHED` at least."""
    half = SMOOTHING // 2
    padded = np.pad(values, half, mode="reflect")
    with np.errstate(invalid="ignore"):
        return np.median(np.lib.stride_tricks.sliding_window_view(padded, SMOOTHING), axis=1)

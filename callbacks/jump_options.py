"""Which options SkipAhead takes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..forecast import Forecaster, LearnedForecaster
from ..forecast.graph import NeuralGraph
from .errors import CallbackOptionError


def check_options(
    forecaster: Forecaster | None,
    every: int,
    batches: Iterable[Any],
    batch_norm_batches: Iterable[Any] | None,
    graph: NeuralGraph | None,
    schedule: str,
    step_scales: Sequence[float],
    num_horizons: int,
) -> None:
    """Refuse options that cannot work.

    Raises:
        CallbackOptionError: naming the option.
    """
    if every < 1:
        raise CallbackOptionError(f"`every` must be at least 1, got {every}.")
    if forecaster is not None and forecaster.stream != "weights":
        raise CallbackOptionError(f"SkipAhead needs a forecaster of 'weights', got one of {forecaster.stream!r}.")
    if graph is not None and forecaster is None:
        raise CallbackOptionError("With forecaster 'online', give `graph` to the OnlineForecaster instead.")
    for name, value in (("batches", batches), ("batch_norm_batches", batch_norm_batches)):
        if isinstance(value, Iterator):
            raise CallbackOptionError(
                f"`{name}` is gone through at every jump and must not be an iterator. Give a list or a DataLoader."
            )
    if isinstance(forecaster, LearnedForecaster) and not forecaster.fitted:
        raise CallbackOptionError(
            f"{forecaster.name!r} has not been fitted. Load it, fit it, or train it during the run: "
            "add OnlineForecaster and pass 'online'."
        )
    if schedule not in ("stays", "advances"):
        raise CallbackOptionError(f"`schedule` must be stays or advances, got {schedule!r}.")
    if not step_scales or not all(scale > 0 for scale in step_scales):
        raise CallbackOptionError(f"`step_scales` must be numbers above 0, at least one, got {list(step_scales)}.")
    if num_horizons < 1:
        raise CallbackOptionError(f"`num_horizons` must be at least 1, got {num_horizons}.")

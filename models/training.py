"""Gradient training with early stopping."""

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .errors import FittingError
from .fitting import Stopped


def train(
    module: nn.Module,
    training_error: Callable[[], Tensor],
    validation_error: Callable[[], Tensor],
    num_iterations: int,
    deadline: float | None,
    *,
    learning_rate: float = 1e-2,
    check_every: int = 5,
    patience: int = 10,
) -> tuple[int, float, Stopped]:
    """Train with Adam, and leave `module` with the parameters of the least validation error, frozen.

    Args:
        module: what to train.
        training_error: the error to reduce, with gradients, 0-d; it may be that of another batch at every call.
        validation_error: the error to choose by, 0-d.
        num_iterations: at most.
        deadline: reading of `time.perf_counter` after which to stop; `None` for no such limit.
        learning_rate: of Adam.
        check_every: iterations between looks at the validation error.
        patience: looks without a better validation error after which training stops.

    Returns:
        Iterations made, the least validation error, and why it ended.

    Raises:
        FittingError: if an error is not finite.
    """
    optimizer = torch.optim.Adam(module.parameters(), lr=learning_rate)
    best, best_iteration, kept = _value(validation_error, 0), 0, _copy(module)
    stopped: Stopped = "iterations"
    iteration = 0
    for iteration in range(1, num_iterations + 1):
        optimizer.zero_grad()
        training_error().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        late = deadline is not None and time.perf_counter() >= deadline
        if not (late or iteration == num_iterations or iteration % check_every == 0):
            continue
        value = _value(validation_error, iteration)
        if value < best:
            best, best_iteration, kept = value, iteration, _copy(module)
        if late:
            stopped = "seconds"
            break
        if iteration - best_iteration >= patience * check_every:
            stopped = "converged"
            break
    module.load_state_dict(kept)
    module.requires_grad_(False)
    return iteration, best, stopped


def _value(error: Callable[[], Tensor], iteration: int) -> float:
    with torch.no_grad():
        value = float(error())
    if not math.isfinite(value):
        raise FittingError(f"Training diverged: the error is {value} in iteration {iteration}.")
    return value


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}

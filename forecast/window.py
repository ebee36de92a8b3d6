"""What a forecaster is given: a short stretch of one stream."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import GraphError, WindowError
from .graph.neural_graph import NeuralGraph
from .layout import Layout
from .moments import Moments


@dataclass(frozen=True)
class Window:
    """Consecutive rows of one stream, oldest first, with nothing between them that breaks the curve.

    Attributes:
        values: the rows, `[time, param]`, floating point.
        steps: the optimiser step after which each row was taken, `[time]`, int64, strictly increasing.
        layout: what the coordinates mean.
        stream: which stream this is: `weights`, `gradients`, ...
        learning_rates: the learning rate at each row, `[time]`, float64, where known.
        moments: the optimiser's moments at the last row, for forecasters with `needs_moments`.
        graph: the network's neural graph, for forecasters with `needs_graph`.

    Raises:
        WindowError: if shapes do not fit, steps do not increase, or the graph is of another network.
    """

    values: Tensor
    steps: Tensor
    layout: Layout
    stream: str = "weights"
    learning_rates: Tensor | None = None
    moments: Moments | None = None
    graph: NeuralGraph | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != self.layout.size or self.values.shape[0] < 1:
            raise WindowError(
                f"`values` must have shape [time, {self.layout.size}] with at least one row, "
                f"got {tuple(self.values.shape)}."
            )
        if not self.values.is_floating_point():
            raise WindowError(f"`values` must be floating point, got {self.values.dtype}.")
        num_rows = self.values.shape[0]
        if tuple(self.steps.shape) != (num_rows,) or self.steps.dtype != torch.int64:
            raise WindowError(
                f"`steps` must be int64 of shape ({num_rows},), got {self.steps.dtype} {tuple(self.steps.shape)}."
            )
        if num_rows > 1 and not bool((self.steps.diff() > 0).all()):
            raise WindowError(f"`steps` must increase, got {self.steps.tolist()}.")
        if self.learning_rates is not None and tuple(self.learning_rates.shape) != (num_rows,):
            raise WindowError(
                f"`learning_rates` must have shape ({num_rows},), got {tuple(self.learning_rates.shape)}."
            )
        if self.moments is not None and self.moments.exp_avg.shape[0] != self.layout.size:
            raise WindowError(
                f"`moments` must have {self.layout.size} coordinates, got {self.moments.exp_avg.shape[0]}."
            )
        if self.graph is not None:
            try:
                self.graph.require_fits(self.layout)
            except GraphError as error:
                raise WindowError(f"`graph` does not fit: {error}") from error

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def last(self) -> Tensor:
        """The newest row, `[param]`."""
        return self.values[-1]

    @property
    def last_step(self) -> int:
        """The optimiser step of the newest row."""
        return int(self.steps[-1])

    @property
    def spacing(self) -> int:
        """Optimiser steps between neighbouring rows.

        Raises:
            WindowError: if it is not the same throughout, or there is one row only.
        """
        gaps = set(self.steps.diff().tolist())
        if len(gaps) != 1:
            raise WindowError(f"The rows must be evenly spaced, got steps {self.steps.tolist()}.")
        return gaps.pop()

    def tail(self, num_rows: int) -> "Window":
        """The newest `num_rows` rows.

        Raises:
            WindowError: if there are fewer.
        """
        if not 1 <= num_rows <= len(self):
            raise WindowError(f"The window has {len(self)} rows, {num_rows} were asked for.")
        rates = None if self.learning_rates is None else self.learning_rates[-num_rows:]
        return replace(self, values=self.values[-num_rows:], steps=self.steps[-num_rows:], learning_rates=rates)

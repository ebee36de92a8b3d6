"""Where SkipAhead reads its history from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import lightning.pytorch as pl
import torch
from torch import Tensor

from ..forecast import Forecaster, Window, layout_of, read_moments, trainable_parameters
from ..forecast.jump import RowKeeper
from ..forecast.packing import vector_dtype
from .errors import UnsupportedTrainerError
from .recorder import TrajectoryRecorder


@final
class WeightReader:
    """Reads a network's trainable parameters into one vector, knowing beforehand where they are.

    A row of a small network costs a few microseconds so; `pack` looks everything up anew. That the parameters are still
    the same is checked where the rows are used: `attempt_jump` packs the network itself.

    Args:
        module: the network, with the parameters that it will train.

    Attributes:
        layout: of the vector.
    """

    def __init__(self, module: pl.LightningModule) -> None:
        self.layout = layout_of(module)
        parameters = trainable_parameters(module)
        self._parameters = [parameters[name] for name in self.layout.names]
        self._dtype = vector_dtype(self.layout)

    def read(self) -> Tensor:
        """The vector that `pack` gives, `[param]`."""
        return torch.cat([value.detach().reshape(-1).to(self._dtype) for value in self._parameters])


def choose_rows(
    trainer: pl.Trainer,
    recorder: TrajectoryRecorder | None,
    forecasters: Sequence[Forecaster],
    every: int,
    start: int,
    spacing: int | None,
    who: str,
) -> RowKeeper | None:
    """Rows to keep in memory, or `None` where the recorder has what is needed.

    Args:
        trainer: with several processes or optimisers SkipAhead counts by itself, and keeps rows.
        recorder: the Trainer's, if it has one.
        forecasters: that will read them.
        every: optimiser steps between opportunities.
        start: the first opportunity.
        spacing: as the user gave it; given, it asks for rows in memory.
        who: for the message.

    Raises:
        UnsupportedTrainerError: if the recorder does not record at every opportunity.
        JumpError: if rows cannot be kept at such a spacing.
    """
    plain = len(trainer.optimizers) == 1 and trainer.world_size == 1 and spacing is None
    if plain and recorder is not None and "weights" in recorder.every:
        cadence = recorder.every["weights"]
        if every % cadence:
            raise UnsupportedTrainerError(
                f"{who}'s `every` must be a multiple of the recorder's cadence {cadence}, got {every}."
            )
        return None
    history = max(forecaster.history for forecaster in forecasters)
    return RowKeeper(history, spacing if spacing is not None else max(1, every // history), every, start)


def read_window(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    reader: WeightReader,
    rows: RowKeeper | None,
    recorder: TrajectoryRecorder | None,
    forecaster: Forecaster,
    step: int,
) -> Window | None:
    """The history up to a step, with the optimiser's moments where the forecaster needs them.

    Returns:
        The window, or `None` while it is too short or does not end at that step.
    """
    if rows is not None:
        window = rows.window(step, reader.layout)
    else:
        assert recorder is not None  # or there would be rows
        window = recorder.window(forecaster.history)
    if window is None or window.last_step != step:
        return None
    if not forecaster.needs_moments:
        return window
    return replace(window, moments=read_moments(trainer.optimizers[0], module, window.layout))

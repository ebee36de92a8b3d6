"""What is put in a forecast's place to see whether the forecast matters: controls of the race."""

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, final

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from ...callbacks import TrajectoryRecorder
from ...callbacks.jump_support import Schedules
from ...forecast import Forecast, Forecaster, Window, load_vector
from ..tasks import Batches
from .averages import Average, put, trained

CONTROLS = ("random", "momentum", "shuffled")


@final
class Controlled(Forecaster):
    """Another forecaster's forecast, spoiled in one respect.

    `random`: every tensor moves as far as forecast, into a random direction. `momentum`: every tensor moves as far as
    forecast, along its latest change. `shuffled`: the forecaster sees its history in a random order, the newest row
    excepted, where the network is. A control that does as well as the forecast shows that the forecast was not what
    helped.

    Args:
        member: the forecaster.
        control: one of `CONTROLS`.
        seed: of random directions and orders.
    """

    name: ClassVar[str] = "controlled"

    def __init__(self, member: Forecaster, control: str, seed: int) -> None:
        super().__init__(member.stream)
        self.member = member
        self.control = control
        self.seed = seed
        self.history = max(2, member.history)
        self.needs_moments = member.needs_moments
        self.needs_graph = member.needs_graph

    @property
    @override
    def fitted(self) -> bool:
        return self.member.fitted

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + window.last_step)
        seen = _shuffled(window, generator) if self.control == "shuffled" else window
        for forecast in self.member.forecast(seen, horizons):
            if self.control == "shuffled":
                yield forecast
                continue
            if self.control == "random":
                direction = torch.randn(window.last.shape, generator=generator)
            else:
                direction = window.last - window.values[-2]
            step = _as_long_as(forecast.mean - window.last, direction, window)
            yield Forecast(forecast.horizon, window.last + step, forecast.scale)


def _shuffled(window: Window, generator: torch.Generator) -> Window:
    order = torch.randperm(len(window) - 1, generator=generator)
    return replace(window, values=torch.cat([window.values[:-1][order], window.values[-1:]]))


def _as_long_as(step: Tensor, direction: Tensor, window: Window) -> Tensor:
    """A direction, scaled in every tensor to the length of a step."""
    scaled = torch.zeros_like(step)
    for spec in window.layout:
        span = slice(spec.offset, spec.offset + spec.numel)
        length = direction[span].norm()
        if length > 0:
            scaled[span] = direction[span] * (step[span].norm() / length)
    return scaled


class ForecastAverage(Average):
    """The forecast of the weights, looked at in their place; training never sees it.

    It tells noise that a forecast takes out of the evaluation from an acceleration of training.

    Args:
        forecaster: needs no moments.
        recorder: where the history comes from.
        horizon: optimiser steps ahead.
    """

    def __init__(self, forecaster: Forecaster, recorder: TrajectoryRecorder, horizon: int) -> None:
        self._forecaster = forecaster
        self._recorder = recorder
        self._horizon = horizon
        self._module: pl.LightningModule | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._module = pl_module

    @override
    def value(self) -> list[Tensor] | None:
        window = self._recorder.window(self._forecaster.history)
        if window is None or self._module is None:
            return None
        forecast = next(iter(self._forecaster.forecast(window, [self._horizon])))
        shadow = copy.deepcopy(self._module.network)
        holder = nn.Module()
        holder.network = shadow
        load_vector(holder, forecast.mean, window.layout)
        return trained(holder)


class OracleJump(pl.Callback):
    """Jumps to where training really gets to, and charges nothing for finding out: what no forecaster can beat.

    A copy of the network and its optimiser is trained `horizon` steps ahead at the present rate, on batches of its own.

    Args:
        batches: of the copy.
        every: optimiser steps between jumps.
        horizon: optimiser steps ahead.
        advances: whether the learning rate's schedule goes along.

    Attributes:
        cpu_seconds: that are to be charged to nobody.
        wall_seconds: likewise.
    """

    def __init__(self, batches: Batches, every: int, horizon: int, advances: bool = False) -> None:
        self._batches = batches
        self._every = every
        self._horizon = horizon
        self._advances = advances
        self._next = 0
        self.cpu_seconds = self.wall_seconds = 0.0

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step % self._every:
            return
        wall, cpu = time.perf_counter(), time.process_time()
        self._jump(trainer, pl_module)
        self.wall_seconds += time.perf_counter() - wall
        self.cpu_seconds += time.process_time() - cpu

    def _jump(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        ahead: Any = copy.deepcopy(pl_module.network)
        own: Any = trainer.optimizers[0]
        optimizer = type(own)(ahead.parameters(), lr=own.param_groups[0]["lr"])
        optimizer.load_state_dict(copy.deepcopy(own.state_dict()))
        for _ in range(self._horizon):
            inputs, labels = self._batches[self._next % self._batches.num_steps]
            self._next += 1
            optimizer.zero_grad()
            functional.cross_entropy(ahead(inputs), labels).backward()
            optimizer.step()
        put(pl_module, trained(ahead))
        for value, other in zip(pl_module.buffers(), ahead.buffers(), strict=True):
            value.copy_(other)
        if self._advances:
            Schedules(trainer.lr_scheduler_configs).advance(self._horizon)

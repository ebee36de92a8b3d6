"""What a run of the grid costs and how well it does, measured so that a busy machine disturbs little."""

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer
from typing_extensions import override

from ...forecast.jump.batch_norm import norm_buffers, reestimate_statistics
from ..classifier import Batch, evaluate
from ..tasks import Split
from ..training import Ledgered
from .averages import Average, holding

COLUMNS = ("step", "cpu_seconds", "wall_seconds", "gradient_evaluations", "gauge_seconds", "loss", "accuracy")
GAUGE_SECONDS = 0.015  # a gauge lasts about so long
NORM_BATCHES = 20  # training batches that BatchNorm statistics of evaluated weights are estimated on


class Free(Protocol):
    """Whatever takes time that is charged to nobody."""

    cpu_seconds: float
    wall_seconds: float


class Gauge:
    """How long one training step of a network takes on this machine right now.

    A machine shared with others is slower at times, in CPU seconds too: caches and cores are shared. A fixed piece of
    work, timed again and again during a run, says by how much. It is the forward and the backward pass of a copy of the
    network on one batch.

    Args:
        network: is copied.
        batch: of the size that is trained on.
    """

    def __init__(self, network: nn.Module, batch: Batch) -> None:
        self._network = copy.deepcopy(network)
        self._batch = batch
        self._repeats = 1
        self._time()
        self._repeats = max(1, round(GAUGE_SECONDS / max(self._time(), 1e-5)))

    def _time(self) -> float:
        begin = time.process_time()
        inputs, labels = self._batch
        with torch.enable_grad():
            for _ in range(self._repeats):
                self._network.zero_grad()
                functional.cross_entropy(self._network(inputs), labels).backward()
        return (time.process_time() - begin) / self._repeats

    def __call__(self) -> float:
        """CPU seconds of one step."""
        return self._time()


class RaceClock(pl.Callback):
    """Measures a run's cost and its progress; the measuring itself is charged to nobody.

    It must be the last callback of its Trainer. What has to be done to get at the weights that are evaluated (putting
    an average in, estimating BatchNorm statistics, a forecast) is charged to the run: whoever uses such weights needs
    that. Clocks start in `setup`.

    Args:
        split: what is evaluated on.
        every: optimiser steps between measurements; there is one at the end in any case.
        num_steps: of the run.
        gauge_batch: see `Gauge`.
        average: evaluated in place of the weights, if any.
        ledgers: callbacks whose gradient evaluations count.
        free: a callback whose time is taken off, if any.
        norm_batches: training batches for BatchNorm statistics; needed where the network has any and there are other
            weights to evaluate.

    Attributes:
        curve: rows of `COLUMNS`.
    """

    def __init__(
        self,
        split: Split,
        every: int,
        num_steps: int,
        gauge_batch: Batch,
        average: Average | None = None,
        ledgers: Sequence[Ledgered] = (),
        free: Free | None = None,
        norm_batches: Sequence[Batch] = (),
    ) -> None:
        self.curve: list[list[float]] = []
        self._split = split
        self._every = every
        self._num_steps = num_steps
        self._average = average
        self._ledgers = ledgers
        self._free = free
        self._norm_batches = norm_batches
        self._gauge_batch = gauge_batch
        self._gauge: Gauge | None = None
        self._cpu = self._wall = 0.0
        self._extra = 0.0

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._gauge = Gauge(pl_module, self._gauge_batch)
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._measure(trainer, pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step % self._every == 0 or trainer.global_step == self._num_steps:
            self._measure(trainer, pl_module)

    def _measure(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert self._gauge is not None  # made in `setup`
        with self.evaluated(trainer, module):
            wall, cpu = time.perf_counter(), time.process_time()
            jumping = sum(item.ledger.total.gradient_equivalents for item in self._ledgers) + self._extra
            found = evaluate(module, self._split)
            step = trainer.global_step
            free_cpu, free_wall = (self._free.cpu_seconds, self._free.wall_seconds) if self._free else (0.0, 0.0)
            own_cpu, own_wall = cpu - self._cpu - free_cpu, wall - self._wall - free_wall
            self.curve.append([step, own_cpu, own_wall, step + jumping, self._gauge(), found.loss, found.accuracy])
            # What the measurement took is taken off by starting the clocks that much later.
            self._wall += time.perf_counter() - wall
            self._cpu += time.process_time() - cpu

    @contextmanager
    def evaluated(self, trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[None]:
        """The module with the weights inside that are to be evaluated; those in training come back on every exit."""
        optimizer = trainer.optimizers[0]
        values = self._average.value() if self._average is not None else None
        with ExitStack() as stack:
            stack.enter_context(in_evaluation(optimizer))
            if values is not None:
                stack.enter_context(holding(module, values))
            if values is not None or hasattr(optimizer, "eval"):
                stack.enter_context(self._fresh_norms(module))
            yield

    @contextmanager
    def _fresh_norms(self, module: nn.Module) -> Iterator[None]:
        """BatchNorm statistics of the weights inside now, instead of those that were gathered in training."""
        buffers = norm_buffers(module)
        if not buffers:
            yield
            return
        kept = [value.clone() for value in buffers]
        self._extra += len(self._norm_batches) / 3  # a forward pass is about a third of a forward and a backward one
        reestimate_statistics(module, self._norm_batches)
        try:
            yield
        finally:
            for value, saved in zip(buffers, kept, strict=True):
                value.copy_(saved)


@contextmanager
def in_evaluation(optimizer: Optimizer) -> Iterator[None]:
    """Schedule-Free keeps the weights that are evaluated apart from those where gradients are taken."""
    switch_to, switch_back = getattr(optimizer, "eval", None), getattr(optimizer, "train", None)
    if switch_to is None or switch_back is None:
        yield
        return
    switch_to()
    try:
        yield
    finally:
        switch_back()


def spread(split: Split, count: int) -> Split:
    """At most `count` samples of a set, spread evenly over it."""
    size = len(split.labels)
    if size <= count:
        return split
    rows: Tensor = torch.arange(count) * size // count
    return Split(split.inputs[rows], split.labels[rows])

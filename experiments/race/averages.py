"""Weights beside those that are trained: averages that are evaluated, and slow steps over several fast ones."""

import abc
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override


def trained(module: nn.Module) -> list[Tensor]:
    """The parameters that are trained, detached: writing to them writes to the network."""
    return [value.detach() for value in module.parameters() if value.requires_grad]


@contextmanager
def holding(module: nn.Module, values: Sequence[Tensor]) -> Iterator[None]:
    """A network with other weights inside; its own are put back on every exit."""
    kept = [value.clone() for value in trained(module)]
    put(module, values)
    try:
        yield
    finally:
        put(module, kept)


def put(module: nn.Module, values: Sequence[Tensor]) -> None:
    """Copy values into the parameters that are trained."""
    for own, value in zip(trained(module), values, strict=True):
        own.copy_(value)


class Average(pl.Callback, abc.ABC):
    """Something made of the weights so far, to be evaluated in their place. Training is left as it is."""

    @abc.abstractmethod
    def value(self) -> list[Tensor] | None:
        """The weights to evaluate, in the order of `trained`; None while there are none yet."""


class ExponentialAverage(Average):
    """a <- d a + (1 - d) w after every optimiser step, with d = min(decay, (1 + k) / (10 + k)) in step k.

    The smaller decay in the beginning is that of TensorFlow's moving averages: it forgets the initial weights.

    Args:
        decay: of the average.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._average: list[Tensor] | None = None
        self._count = 0

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        weights = trained(pl_module)
        if self._average is None:
            self._average = [value.clone() for value in weights]
        self._count += 1
        decay = min(self._decay, (1 + self._count) / (10 + self._count))
        for average, value in zip(self._average, weights, strict=True):
            average.lerp_(value, 1 - decay)

    @override
    def value(self) -> list[Tensor] | None:
        return self._average


class LatestAverage(Average):
    """The plain mean of the weights at the latest of equally spaced steps.

    J. Kaddour (2022), Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest Weight Averaging,
    arXiv:2209.14981.

    Args:
        every: optimiser steps between the weights that are kept.
        count: how many are kept.
    """

    def __init__(self, every: int, count: int = 6) -> None:
        self._every = every
        self._kept: deque[list[Tensor]] = deque(maxlen=count)

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step % self._every == 0:
            self._kept.append([value.clone() for value in trained(pl_module)])

    @override
    def value(self) -> list[Tensor] | None:
        if not self._kept:
            return None
        return [torch.stack(values).mean(0) for values in zip(*self._kept, strict=True)]


class OuterStep(pl.Callback):
    """Every `every` optimiser steps: s = w - fast; b <- mu b + s; w <- w - rate (mu b + s); fast <- w.

    SNOO (D. Kallusky and others, 2025, arXiv:2510.15830): Nesterov momentum on the pseudo-gradient of several steps.
    With mu = 0 it is Lookahead (M. R. Zhang, J. Lucas, G. Hinton and J. Ba, 2019, Lookahead Optimizer: k steps forward,
    1 step back, arXiv:1907.08610). The fast optimiser's state is left as it is.

    Args:
        every: fast steps between slow ones.
        rate: of the slow steps.
        momentum: mu.
    """

    def __init__(self, every: int, rate: float, momentum: float) -> None:
        self._every = every
        self._rate = rate
        self._momentum = momentum
        self._slow: list[Tensor] = []
        self._buffer: list[Tensor] = []

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._slow = [value.clone() for value in trained(pl_module)]
        self._buffer = [torch.zeros_like(value) for value in self._slow]

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step % self._every:
            return
        for fast, slow, buffer in zip(trained(pl_module), self._slow, self._buffer, strict=True):
            change = slow - fast
            buffer.mul_(self._momentum).add_(change)
            slow.sub_(change.add_(buffer, alpha=self._momentum), alpha=self._rate)
            fast.copy_(slow)

"""A network that learns to tell classes apart, under Lightning's Trainer."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from .errors import OptionError
from .optimizers import make_optimizer, make_schedule
from .tasks import Split, sequential_batches

Batch = tuple[Tensor, Tensor]
EVALUATION_BATCH = 1000


class Classifier(LightningModule):
    """Cross-entropy training of any network, one optimiser, automatic optimisation.

    Logs `train/loss` at every optimiser step.

    Args:
        network: inputs as in `Split` to logits `[batch, class]`.
        optimizer: `adam`, `adamw` or `sgd`.
        learning_rate: before the schedule.
        schedule: `constant`, `linear` or `cosine`, per optimiser step.
        num_steps: optimiser steps of the whole run, at whose end linear and cosine schedules reach zero.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: str = "adam",
        learning_rate: float = 0.003,
        schedule: str = "constant",
        num_steps: int = 1,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer_name = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.num_steps = num_steps

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.network(inputs)

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inputs, labels = batch
        loss = functional.cross_entropy(self.network(inputs), labels)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    @override
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = make_optimizer(self.optimizer_name, self.parameters(), self.learning_rate)
        scheduler = make_schedule(self.schedule, optimizer, self.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every sub-module's own mode and the random states are put back on exit.

    Forking the random states costs 25 microseconds on a CPU and covers networks that draw numbers in any mode.
    """
    modes = [(part, part.training) for part in module.modules()]
    devices = {value.device.index for value in module.parameters() if value.device.type == "cuda"}
    with torch.random.fork_rng(devices=[index for index in devices if index is not None]), torch.no_grad():
        module.eval()
        try:
            yield
        finally:
            for part, mode in modes:
                part.training = mode


def probe(module: nn.Module, batch: Batch) -> Tensor:
    """The loss of every sample, `[batch]`; changes nothing, so that jumps can be verified with it.

    Not `training_step`, which logs, moves running statistics and draws random numbers.

    Args:
        module: a `Classifier` or a bare network.
        batch: inputs and labels, on the module's device.
    """
    inputs, labels = batch
    with evaluating(module):
        return functional.cross_entropy(module(inputs), labels, reduction="none")


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on a set.

    Attributes:
        loss: mean cross-entropy, in nats.
        accuracy: share of samples classified rightly.
    """

    loss: float
    accuracy: float


def evaluate(module: nn.Module, split: Split, batch_size: int = EVALUATION_BATCH) -> Evaluation:
    """Loss and accuracy on a whole set; changes nothing.

    Raises:
        OptionError: if the set is empty.
    """
    if not len(split.labels):
        raise OptionError("An empty set cannot be evaluated on.")
    return _evaluate_batches(module, sequential_batches(split, batch_size), len(split.labels))


def _evaluate_batches(module: nn.Module, batches: Iterable[Batch], num_samples: int) -> Evaluation:
    device = next(module.parameters()).device
    loss, hits = 0.0, 0
    with evaluating(module):
        for inputs, labels in batches:
            logits, labels = module(inputs.to(device)), labels.to(device)
            loss += float(functional.cross_entropy(logits, labels, reduction="sum").double())
            hits += int((logits.argmax(1) == labels).sum())
    return Evaluation(loss / num_samples, hits / num_samples)

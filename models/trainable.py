"""Forecasters that are trained by gradients, split into the parts that any training loop can put together.

`fit_forecaster` runs the loop in `training.py`; the command `fit` runs Lightning's Trainer over the same parts.
"""

import abc
import time
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from .errors import FittingError
from .fitting import Budget, Examples, FitResult, FittableForecaster
from .threads import one_thread
from .training import train

Items = tuple[Tensor, ...]
PIECE = 1 << 16  # items looked at together where no gradient is needed


@dataclass(frozen=True)
class TrainingItems:
    """What a network is trained on: tensors whose first axis counts items (coordinates, tensors or whole cases).

    Attributes:
        items: the tensors that `error` takes, each `[item, ...]`.
        share: what each item's squared error at each horizon counts for, `[item, horizon]`, float64: its case's weight
            over the weighted squared motion of all items at that horizon, times the number of items. The mean over
            items of `share * squared error` is then the relative error: 1 for persistence, over all of them.
    """

    items: Items
    share: Tensor

    def __len__(self) -> int:
        return len(self.share)

    def take(self, indices: Tensor) -> "TrainingItems":
        """Some of the items; a mean over a random choice of them estimates the mean over all."""
        return TrainingItems(tuple(part[indices] for part in self.items), self.share[indices])

    @classmethod
    def of(cls, items: Items, weights: Tensor, persistence: Tensor) -> "TrainingItems":
        """Items with their share.

        Args:
            items: each `[item, ...]`.
            weights: of each item, `[item]`.
            persistence: squared motion of each item, `[item, horizon]`, in the unit in which errors are measured.

        Raises:
            FittingError: if nothing moves at some horizon.
        """
        weights, persistence = weights.double(), persistence.double()
        total = (weights.unsqueeze(1) * persistence).sum(dim=0)
        if not bool((total > 0).all()) or not bool(torch.isfinite(total).all()):
            raise FittingError("Nothing moves up to some horizon, or the values are too large to fit.")
        return cls(items, weights.unsqueeze(1) / total * len(weights))


class TrainableForecaster(FittableForecaster):
    """A learned forecaster whose network is trained by gradients.

    A subclass says how cases become items (`items`), with what network to begin (`network`), what it gets wrong
    (`squared_errors`), and what is to be kept (`finish`).

    Attributes:
        batch_size: items in a batch; `None` for all of them at once.
        learning_rate: of Adam, with which it is trained.
        check_every: iterations between looks at the validation items.
        patience: looks without an improvement after which training stops.
    """

    batch_size: ClassVar[int | None] = 512
    learning_rate: ClassVar[float] = 3e-3
    check_every: ClassVar[int] = 20
    patience: ClassVar[int] = 10

    @abc.abstractmethod
    def items(self, examples: Examples, part: slice, generator: torch.Generator) -> TrainingItems:
        """The cases of a part of the examples as items; a random choice of coordinates is drawn from `generator`."""

    @abc.abstractmethod
    def network(self, examples: Examples, generator: torch.Generator) -> nn.Module:
        """A network to train: a new one, or a copy of what was learned before if that can be gone on from.

        Must not change the forecaster. New values are drawn from `generator`, never from the global one.
        """

    @abc.abstractmethod
    def squared_errors(self, network: nn.Module, items: Items) -> Tensor:
        """What the network gets wrong about each item at each horizon, `[item, horizon]`, differentiable."""

    @abc.abstractmethod
    def finish(self, network: nn.Module, examples: Examples) -> None:
        """Make the network the forecaster's own, and learn the scale from the validation cases.

        Called once, at the end of a fit that succeeded; the network is frozen and in evaluation mode.
        """

    def training_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        """What training reduces, 0-d, differentiable: the error itself, unless a forecaster adds to it or learns from
        something else.

        Whatever it is, the network is chosen by `relative_error` of the validation items. Random numbers that it needs
        are drawn in `items`, once, so that every training loop sees the same ones.
        """
        return self.relative_error(network, items)

    @final
    def relative_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        """Squared error over that of persistence, averaged over items and horizons, 0-d, differentiable."""
        errors = self.squared_errors(network, items.items)
        return (items.share.to(errors) * errors).mean()

    @final
    @override
    def fit_to(self, examples: Examples, budget: Budget, generator: torch.Generator) -> FitResult:
        deadline = None if budget.seconds is None else time.perf_counter() + budget.seconds
        with one_thread():
            network, training, validation = self.start(examples, generator)
            iterations, validation_error, stopped = train(
                network,
                lambda: self.training_error(network, self.batch(training, generator)),
                lambda: self.mean_error(network, validation),
                budget.iterations,
                deadline,
                learning_rate=self.learning_rate,
                check_every=self.check_every,
                patience=self.patience,
            )
            network.eval()
            with torch.no_grad():
                training_value = float(self.mean_error(network, training))
                self.finish(network, examples)
        return FitResult(iterations, training_value, validation_error, stopped)

    @final
    def start(self, examples: Examples, generator: torch.Generator) -> tuple[nn.Module, TrainingItems, TrainingItems]:
        """The network to begin with, training and validation items, drawn in the order that every loop must keep."""
        network = self.network(examples, generator)
        training = self.items(examples, examples.training, generator)
        return network, training, self.items(examples, examples.validation, generator)

    @final
    def batch(self, items: TrainingItems, generator: torch.Generator) -> TrainingItems:
        """A random choice of `batch_size` items; all of them where there are no more, or no size is set."""
        if self.batch_size is None or len(items) <= self.batch_size:
            return items
        return items.take(torch.randint(len(items), (self.batch_size,), generator=generator))

    @final
    @torch.no_grad()
    def mean_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        """`relative_error` of all items, computed in pieces, without gradients, 0-d."""
        total = torch.zeros((), dtype=torch.float64)
        for piece in torch.arange(len(items)).split(PIECE):
            total += self.relative_error(network, items.take(piece)).double() * len(piece)
        return total / len(items)

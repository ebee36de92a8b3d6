"""Forecasters that combine each tensor's rows, with coefficients that a network chooses by how the tensor moves."""

import abc
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import Case, Forecast, Window
from ..forecast.errors import NotFittedError
from .adaptive_scale import SMALLEST, AdaptiveScale
from .errors import FittingError
from .fitting import Examples
from .horizons import require_known
from .motion import walked
from .options import require_integer
from .rows import combine
from .scales import LearnedScale, kinds_in
from .stored_state import require_tensors
from .tensor_items import Seen, TensorItems
from .threads import one_thread
from .trainable import Items, TrainableForecaster, TrainingItems

PREFIX = "network."
FEATURE_LIMIT = 4.0  # standard deviations; what is farther from all that was seen is taken for the farthest seen


class GramNetwork(nn.Module, abc.ABC):
    """A network from what is seen of tensors to coefficients of their rows, float64.

    Args:
        num_groups: kinds of tensors it tells apart.
        num_features: of each tensor.
        units: horizons that it is trained at, in units of the spacing of the rows, ascending, `[horizon]`, float64.

    Attributes:
        centre: mean of each feature over the training items, `[feature]`.
        spread: standard deviation of each feature, `[feature]`.
    """

    def __init__(self, num_groups: int, num_features: int, units: Tensor) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.num_conditions = num_features + num_groups - 1
        self.register_buffer("units", units, persistent=False)
        self.register_buffer("centre", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(num_features, dtype=torch.float64))

    def condition(self, seen: Seen) -> Tensor:
        """Standardised features and the kind, one-hot, `[item, feature + group]`; group 0, any kind, is all zeros."""
        features = (seen.features - self.get_buffer("centre")) / self.get_buffer("spread")
        kind = nn.functional.one_hot(seen.group, self.num_groups).to(features)
        return torch.cat((features.clamp(-FEATURE_LIMIT, FEATURE_LIMIT), kind[:, 1:]), dim=1)

    def standardise(self, features: Tensor) -> None:
        """Take centre and spread from the training items' features."""
        spread = features.std(dim=0, correction=0)
        self.get_buffer("centre").copy_(features.mean(dim=0))
        self.get_buffer("spread").copy_(torch.where(spread > 1e-6, spread, 1.0))

    @abc.abstractmethod
    def coefficients(self, seen: Seen, units: Tensor) -> Tensor:
        """Coefficients of the rows' deviations from the newest, `[item, horizon, time - 1]`, oldest row first.

        Args:
            seen: the items.
            units: horizons in units of the spacing of the rows, ascending, `[horizon]`, float64.
        """


class GramForecaster(TrainableForecaster):
    """mean = last + sum_i c_i (row_i - last), with c chosen for each tensor by a network that sees its Gram matrix.

    Nothing but inner products of the rows enters: a forecast follows permutations, mirror images, rotations and the
    unit of the coordinates by construction, what stands still is continued exactly, and a network that was trained on
    small tensors holds for large ones. Training items are pairs of a case and a tensor: the squared error of any
    coefficients is a quadratic form in them, so parameters are read once, whatever the number of iterations.

    The scale is a `LearnedScale`, corrected by an `AdaptiveScale`. Rows must be spaced as those that it was fitted to.

    A subclass says what the network is (`build`, `shapes`, `initialise`).

    Args:
        history: rows in the window, at least 3.
        width: of the network's two hidden layers.
        stream: the stream it forecasts.
    """

    batch_size: ClassVar[int | None] = 1024
    learning_rate: ClassVar[float] = 2e-3
    check_every: ClassVar[int] = 25
    patience: ClassVar[int] = 20
    beyond: ClassVar[bool] = False  # whether it answers horizons beyond the longest trained one

    def __init__(self, history: int, width: int, stream: str) -> None:
        super().__init__(stream)
        self.history = require_integer("history", history, 3)
        self.width = require_integer("width", width, 1)
        self._learned: Learned | None = None

    @abc.abstractmethod
    def build(self, num_groups: int, units: Tensor) -> GramNetwork:
        """The network without values; nothing may be drawn from the global generator.

        Args:
            num_groups: kinds of tensors.
            units: trained horizons in units of the spacing, ascending, `[horizon]`, float64.
        """

    @abc.abstractmethod
    def shapes(self, num_groups: int, num_horizons: int) -> dict[str, tuple[int, ...]]:
        """Shapes of everything in such a network, all float64; what is read from files is checked against them."""

    @abc.abstractmethod
    def initialise(
        self, network: GramNetwork, training: TensorItems, validation: TensorItems, generator: torch.Generator
    ) -> None:
        """Give a network that was just built its first values; called without gradients."""

    @property
    @override
    def fitted(self) -> bool:
        return self._learned is not None

    @override
    def items(self, examples: Examples, part: slice, generator: torch.Generator) -> TrainingItems:
        found = TensorItems.of(examples, part, kinds_in(examples))
        parts = (*found.seen, found.cross, found.persistence)
        return TrainingItems.of(parts, found.weights, found.persistence)

    @override
    def network(self, examples: Examples, generator: torch.Generator) -> nn.Module:
        before = self._learned
        groups, horizons, spacing = kinds_in(examples), torch.tensor(examples.horizons), examples.spacing
        if before is not None and before.knows(groups, horizons, spacing):
            network = copy.deepcopy(before.network)
        else:
            network = self.build(len(groups), horizons.double() / spacing)
            training = TensorItems.of(examples, examples.training, groups)
            validation = TensorItems.of(examples, examples.validation, groups)
            with torch.no_grad():
                network.standardise(training.seen.features)
                self.initialise(network, training, validation, generator)
        return network.requires_grad_(True).train()

    @override
    def squared_errors(self, network: nn.Module, items: Items) -> Tensor:
        features, group, gram, cross, persistence = items[:5]
        own = cast(GramNetwork, network)
        coefficients = own.coefficients(Seen(features, group, gram), own.get_buffer("units"))
        return persistence - 2 * (coefficients * cross).sum(dim=-1) + quadratic(coefficients, gram)

    @override
    def finish(self, network: nn.Module, examples: Examples) -> None:
        own, groups = cast(GramNetwork, network), kinds_in(examples)
        items = TensorItems.of(examples, examples.validation, groups)
        units = own.get_buffer("units")
        coefficients = own.coefficients(items.seen, units)
        moved = quadratic(coefficients, items.seen.gram)
        errors = (items.persistence - 2 * (coefficients * items.cross).sum(dim=-1) + moved).clamp(min=0)
        moving = items.seen.gram.diagonal(dim1=1, dim2=2).sum(dim=1) > 0
        if not bool(torch.isfinite(errors).all()):
            raise FittingError("Forecasts of the validation cases are not finite.")
        spacing = examples.spacing
        variance = _variance(errors, items.weights, moving / spacing, items.seen.group, len(groups))
        base = LearnedScale(groups, torch.tensor(examples.horizons), variance)
        ratio = errors * spacing / variance.T[items.seen.group].clamp(min=SMALLEST)
        sizes = torch.tensor([spec.numel for case in _moving(examples) for spec in case.window.layout])
        correction = AdaptiveScale.of(own.condition(items.seen), moved, ratio, sizes * moving)
        self._learned = Learned(own, spacing, base, correction)

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        return self.forecasts(window, horizons)

    def forecasts(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        """What `forecast` gives once it has checked everything that concerns all forecasters."""
        learned = cast(Learned, self._learned)  # `forecast` refuses to go on without
        longest = None if self.beyond else int(learned.scale.horizons[-1])
        require_known(window, horizons, learned.spacing, longest)
        return self._each(learned, window, horizons)

    def _each(self, learned: "Learned", window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        seen = Seen.of(window, learned.scale.groups)
        network, scale = learned.network, learned.scale
        with torch.no_grad(), one_thread():
            condition = network.condition(seen)
            moved = quadratic(network.coefficients(seen, network.get_buffer("units")), seen.gram)
        for horizon in horizons:
            unit = torch.tensor([horizon / learned.spacing], dtype=torch.float64)
            with torch.no_grad(), one_thread():
                coefficients = network.coefficients(seen, unit)[:, 0]
            factors = learned.correction.factors(scale, seen.group, condition, moved, horizon)
            yield Forecast(horizon, combine(window, coefficients), walked(window, factors))

    @override
    def state_dict(self) -> dict[str, Tensor]:
        learned = self._learned
        if learned is None:
            return {}
        values = {PREFIX + name: value.clone() for name, value in learned.network.state_dict().items()}
        return {
            "spacing": torch.tensor(learned.spacing),
            "correction.weights": learned.correction.weights.clone(),
            "correction.limits": learned.correction.limits.clone(),
            **values,
            **learned.scale.state_dict(),
        }

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._learned = self._read(state) if state else None

    def _read(self, state: Mapping[str, Tensor]) -> "Learned":
        """Take over untrusted tensors; all sizes are checked before anything is made of them.

        Raises:
            NotFittedError: naming what is wrong with them.
        """
        scale = LearnedScale.read(self.name, state)
        own = {key: value for key, value in state.items() if not key.startswith("scale.")}
        num_groups, num_horizons = len(scale.groups), len(scale.horizons)
        shapes = self.shapes(num_groups, num_horizons)
        expected: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "spacing": (torch.int64, ()),
            "correction.weights": (torch.float64, (num_horizons, shapes["centre"][0] + num_groups + 1)),
            "correction.limits": (torch.float64, (num_horizons, 2)),
            **{PREFIX + name: (torch.float64, shape) for name, shape in shapes.items()},
        }
        require_tensors(self.name, own, expected)
        spacing = int(own["spacing"])
        if spacing < 1 or not bool((own[PREFIX + "spread"] > 0).all()):
            raise NotFittedError(f"'spacing' of {self.name!r} must be at least 1 and 'spread' above 0.")
        network = self.build(num_groups, scale.horizons.double() / spacing)
        network.load_state_dict({name: own[PREFIX + name] for name in shapes})
        correction = AdaptiveScale(own["correction.weights"].clone(), own["correction.limits"].clone())
        if not bool((correction.limits[:, 0] <= correction.limits[:, 1]).all()):
            raise NotFittedError(f"'correction.limits' of {self.name!r} must ascend.")
        return Learned(network.requires_grad_(False).eval(), spacing, scale, correction)


class Learned(NamedTuple):
    """What a fit leaves behind.

    Attributes:
        network: frozen.
        spacing: optimiser steps between rows.
        scale: how far off it is, by kind; it holds the kinds of tensors and the trained horizons too.
        correction: how far off it is, by how a tensor moves.
    """

    network: GramNetwork
    spacing: int
    scale: LearnedScale
    correction: AdaptiveScale

    def knows(self, groups: Sequence[str], horizons: Tensor, spacing: int) -> bool:
        """Whether training can go on from here on such examples."""
        return (
            list(groups) == self.scale.groups and torch.equal(horizons, self.scale.horizons) and spacing == self.spacing
        )


def quadratic(coefficients: Tensor, gram: Tensor) -> Tensor:
    """Squared lengths of linear combinations of rows, `[item, horizon]`."""
    return torch.einsum("nhi,nij,nhj->nh", coefficients, gram, coefficients)


def _moving(examples: Examples) -> list[Case]:
    """The validation cases that `TensorItems` takes."""
    part = examples.validation
    return [case for case, weight in zip(examples.cases[part], examples.weights[part].tolist(), strict=True) if weight]


def _variance(errors: Tensor, weights: Tensor, steps: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Squared errors over squared motion, as `relative_variance` gives them, `[horizon, group]`.

    Args:
        errors: of each item, in units of its squared step from row to row, `[item, horizon]`.
        weights: of each item.
        steps: squared motion of one optimiser step in that unit: 0 where nothing moves.
        group: of each item; group 0 becomes the sum of all.
        num_groups: how many there are.
    """
    error = errors.new_zeros(num_groups, errors.shape[1]).index_add_(0, group, weights[:, None] * errors)
    motion = errors.new_zeros(num_groups).index_add_(0, group, weights * steps)
    error[0], motion[0] = error.sum(dim=0), motion.sum()
    own = error / motion.where(motion > 0, 1.0)[:, None]
    return torch.where(motion[:, None] > 0, own, own[:1]).T.contiguous()

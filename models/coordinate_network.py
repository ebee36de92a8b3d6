"""Networks that forecast every scalar on its own, from its own few past values."""

import abc
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, cast, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import Forecast, Layout, TensorSpec, Window
from ..forecast.errors import NotFittedError
from .coordinate_pieces import for_each
from .coordinate_sampling import sample_coordinates
from .fitting import Examples
from .horizons import between, require_known
from .motion import walked, working_dtype
from .options import require_choice, require_flag, require_integer
from .rows import chunks
from .scales import LearnedScale
from .stored_state import require_horizons, require_tensors
from .trainable import Items, TrainableForecaster, TrainingItems

Loss = Literal["squared", "absolute"]
LOSSES = ("squared", "absolute")
MAX_LOG2_SCALE = 3.0  # augmentation by scale draws factors from 1/8 to 8
MAX_HORIZONS = 1024  # a file that claims more is damaged or hostile
PREFIX = "network."


class Inputs(NamedTuple):
    """What a network sees of some coordinates, and what its outputs mean: value = start + unit * output.

    Attributes:
        features: `[coordinate, feature]`, odd in the values: -w has the negative features of w.
        unit: `[coordinate]`; 0 where nothing moved, which holds the coordinate exactly.
        start: `[coordinate]`; `None` for the newest value.
    """

    features: Tensor
    unit: Tensor
    start: Tensor | None = None


class CoordinateNetwork(TrainableForecaster):
    """A forecaster that applies one small network to every coordinate: mean = last + unit * network(features).

    Its forecast does not depend on the order of a tensor's coordinates: permuted coordinates have permuted forecasts.
    Networks have one output for each trained horizon; between trained horizons outputs are linear in the horizon, and
    zero at horizon 0. A coordinate that did not move in the window is held exactly.

    It is trained on `samples` coordinates of each training case, an equal share of each kind of tensor
    (`sample_coordinates`), weighted so that the error is that over all coordinates. Its last layer starts at zero:
    training begins at persistence. The scale is a `LearnedScale`.

    A subclass says what the network sees (`inputs`, `context`, `groups`) and what it is (`build`, `initialise`).

    Args:
        history: rows in the window.
        samples: coordinates drawn from each case.
        augment: mirror (w to -w) half of the training items; where `epsilon` is not 0, also scale them by up to 8.
        loss: `squared` or `absolute` errors, in training and in what a fit reports.
        stream: the stream it forecasts.

    Attributes:
        epsilon: what is added to units of length so that nothing is divided by zero. 0 for none: forecasts then scale
            with the values.
        chunk: coordinates worked on at once when forecasting; activations should stay in a core's second-level cache.
    """

    batch_size: ClassVar[int | None] = 1024
    check_every: ClassVar[int] = 50
    chunk: ClassVar[int] = 4096
    epsilon: float = 0.0

    def __init__(self, history: int, samples: int, augment: bool, loss: Loss, stream: str) -> None:
        super().__init__(stream)
        self.history = require_integer("history", history, 2)
        self.samples = require_integer("samples", samples, 1)
        self.augment = require_flag("augment", augment)
        self.loss: Loss = require_choice("loss", loss, LOSSES)
        self._learned: Learned | None = None

    @abc.abstractmethod
    def inputs(self, rows: Tensor, context: Tensor, epsilon: Tensor | float) -> Inputs:
        """Normalise the histories of some coordinates.

        Args:
            rows: `[time, coordinate]`, float32 or float64.
            context: of their tensors, `[fact]` where all lie in one tensor, otherwise `[coordinate, fact]`.
            epsilon: to be added to units of length; of each coordinate where it is a tensor.
        """

    @abc.abstractmethod
    def build(self, horizons: Tensor, spacing: int) -> nn.Module:
        """The network, without values; nothing may be drawn from the global generator.

        It is called with features, `[item, feature]`, groups, an `int` or `[item]`, and a mixture, `[horizon, mixed]`
        or `None`. It gives outputs `[item, horizon]`, or those times the mixture, `[item, mixed]`.
        """

    @abc.abstractmethod
    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        """Give a built network its first values, drawn from `generator`; the last layer is zero."""

    def context(self, window: Window) -> Tensor:
        """Facts about each tensor that its coordinates share, `[tensor, fact]`, float64; none by default."""
        return torch.empty(len(window.layout), 0, dtype=torch.float64)

    def groups(self, spec: TensorSpec, begin: int, end: int) -> int | Tensor:
        """Which part of the network is for the coordinates `begin` to `end` of a tensor; a tensor where they differ."""
        return 0

    def require_trainable(self) -> None:
        """Refuse options that only make sense with what others have trained.

        Raises:
            FittingError: if there are such.
        """

    @property
    @override
    def fitted(self) -> bool:
        return self._learned is not None

    @override
    def items(self, examples: Examples, part: slice, generator: torch.Generator) -> TrainingItems:
        self.require_trainable()
        augment = self.augment and part == examples.training
        codes: dict[Layout, Tensor] = {}
        drawn = [
            self._items_of(examples, index, augment, codes, generator)
            for index in range(len(examples.cases))[part]
            if float(examples.weights[index]) > 0
        ]
        features, group, target, weight, persistence = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        return TrainingItems.of((features, group, target), weight, persistence)

    def _items_of(
        self, examples: Examples, index: int, augment: bool, codes: dict[Layout, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        """Features, groups, targets, weights and persistence's errors of a case's sample."""
        case = examples.cases[index]
        window, layout = case.window, case.window.layout
        if layout not in codes:
            codes[layout] = _codes(self, layout)
        sample = sample_coordinates(window, self.samples, generator)
        at = sample.positions
        dtype = working_dtype(window.values.dtype)
        rows = window.values.cpu()[:, at].to(dtype)
        epsilon: Tensor | float = self.epsilon
        if augment and epsilon:
            # Values times a factor are the same to a network as an epsilon over that factor.
            exponent = (2 * torch.rand(len(at), generator=generator, dtype=torch.float64) - 1) * MAX_LOG2_SCALE
            epsilon = epsilon / torch.exp2(exponent)
        ends = torch.tensor([spec.offset + spec.numel for spec in layout])
        context = self.context(window).cpu()[torch.searchsorted(ends, at, right=True)]
        seen = self.inputs(rows, context, epsilon)
        moved = torch.stack([case.targets[h].cpu()[at].to(dtype) for h in examples.horizons], dim=1) - rows[-1:].T
        target = moved / seen.unit.unsqueeze(1)
        features = seen.features
        if augment:
            mirror = 1 - 2 * torch.randint(2, (len(at), 1), generator=generator)
            features, target = features * mirror, target * mirror
        weight, unit = float(examples.weights[index]), seen.unit.double()
        if self.loss == "squared":
            counted, persistence = sample.counts * unit.square() * weight, target.double().square()
        else:
            # The size of a case's motion, summed instead of squared and summed.
            weight = math.sqrt(weight * sample.energy) / sample.length
            counted, persistence = sample.counts * unit * weight, target.double().abs()
        return features.float(), codes[layout][at], target.float(), counted, persistence

    @override
    def network(self, examples: Examples, generator: torch.Generator) -> nn.Module:
        before = self._learned
        horizons = torch.tensor(examples.horizons)
        if before is not None and before.spacing == examples.spacing and torch.equal(before.horizons, horizons):
            network = copy.deepcopy(before.network)
        else:
            network = self.build(horizons, examples.spacing)
            with torch.no_grad():
                self.initialise(network, generator)
        return network.requires_grad_(True).train()

    @override
    def squared_errors(self, network: nn.Module, items: Items) -> Tensor:
        features, group, target = items
        errors = network(features, group, None) - target
        return errors.square() if self.loss == "squared" else errors.abs()

    @override
    def finish(self, network: nn.Module, examples: Examples) -> None:
        found = Learned(network, torch.tensor(examples.horizons), examples.spacing, None)
        scale = LearnedScale.of(examples, lambda window, horizons: list(self._means(found, window, horizons)))
        self._learned = found._replace(scale=scale)

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        learned = cast(Learned, self._learned)  # `forecast` refuses to go on without
        require_known(window, horizons, learned.spacing, int(learned.horizons[-1]))
        return self._each(learned, window, horizons)

    def _each(self, learned: "Learned", window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            # First, so that its own pieces are gone before the mean is made.
            scale = self._scale(learned, window, horizon)
            (mean,) = self._means(learned, window, [horizon])
            yield Forecast(horizon, mean, scale)

    def _scale(self, learned: "Learned", window: Window, horizon: int) -> Tensor:
        return walked(window, math.sqrt(horizon)) if learned.scale is None else learned.scale.at(window, horizon)

    def _means(self, learned: "Learned", window: Window, horizons: Sequence[int]) -> Tensor:
        """The means, `[horizon, param]`, in the window's type: one pass of the network for all of them."""
        unity = torch.eye(len(learned.horizons), dtype=torch.float64)
        mixture = torch.stack([between(learned.horizons, unity, horizon) for horizon in horizons])
        device, dtype = window.values.device, working_dtype(window.values.dtype)
        network = learned.network if device.type == "cpu" else copy.deepcopy(learned.network).to(device)
        mix = mixture.T.to(device=device, dtype=torch.float32)
        shares = mixture.sum(dim=1, keepdim=True).to(device)
        context, specs = self.context(window).to(device), list(window.layout)
        result = window.values.new_empty(len(horizons), window.layout.size)

        def fill(piece: tuple[int, slice]) -> None:
            index, span = piece
            rows, offset = window.values[:, span].to(dtype), specs[index].offset
            seen = self.inputs(rows, context[index], self.epsilon)
            group = self.groups(specs[index], span.start - offset, span.stop - offset)
            outputs = network(seen.features.float(), group if isinstance(group, int) else group.to(device), mix)
            moved = outputs.T * seen.unit
            if seen.start is not None:
                moved += shares * (seen.start - rows[-1])
            result[:, span] = moved.add_(rows[-1])

        for_each(fill, list(chunks(window.layout, self.chunk)), device)
        return result

    @override
    def state_dict(self) -> dict[str, Tensor]:
        learned = self._learned
        if learned is None:
            return {}
        return {
            "horizons": learned.horizons.clone(),
            "spacing": torch.tensor(learned.spacing),
            **{PREFIX + name: value.clone() for name, value in learned.network.state_dict().items()},
            **(learned.scale.state_dict() if learned.scale else {}),
        }

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._learned = self._read(state) if state else None

    def _read(self, state: Mapping[str, Tensor]) -> "Learned":
        """Take over untrusted tensors.

        Raises:
            NotFittedError: naming what is wrong with them.
        """
        scale = LearnedScale.read(self.name, state) if any(key.startswith("scale.") for key in state) else None
        own = {key: value for key, value in state.items() if not key.startswith("scale.")}
        num_horizons = own["horizons"].numel() if "horizons" in own else 0
        if num_horizons > MAX_HORIZONS:
            raise NotFittedError(f"{self.name!r} has at most {MAX_HORIZONS} horizons, got {num_horizons}.")
        general = {"horizons": (torch.int64, (num_horizons,)), "spacing": (torch.int64, ())}
        require_tensors(self.name, {key: own[key] for key in general if key in own}, general)
        horizons, spacing = own["horizons"].clone(), int(own["spacing"])
        require_horizons(horizons)
        if spacing < 1:
            raise NotFittedError(f"'spacing' of {self.name!r} must be at least 1, got {spacing}.")
        network = self.build(horizons, spacing)
        expected = network.state_dict()
        shapes = {PREFIX + name: (value.dtype, tuple(value.shape)) for name, value in expected.items()}
        require_tensors(self.name, own, general | shapes)
        network.load_state_dict({name: own[PREFIX + name] for name in expected})
        return Learned(network.requires_grad_(False).eval(), horizons, spacing, scale)

    @final
    def take_over(self, network: nn.Module, horizons: Tensor, spacing: int) -> None:
        """Use a network that others have trained; the scale is then that of persistence, sigma sqrt(horizon).

        Args:
            network: as `build` makes it, with values.
            horizons: of its outputs, in optimiser steps, `[horizon]`, int64, ascending.
            spacing: optimiser steps between rows.
        """
        self._learned = Learned(network.requires_grad_(False).eval(), horizons, spacing, None)


class Learned(NamedTuple):
    """What a fit leaves behind.

    Attributes:
        network: frozen.
        horizons: trained ones, `[horizon]`, int64, ascending.
        spacing: optimiser steps between rows.
        scale: how far off it is; `None` where nobody measured it.
    """

    network: nn.Module
    horizons: Tensor
    spacing: int
    scale: LearnedScale | None


def _codes(forecaster: CoordinateNetwork, layout: Layout) -> Tensor:
    """`groups` of every coordinate, `[param]`, uint8."""
    codes = torch.empty(layout.size, dtype=torch.uint8)
    for spec in layout:
        codes[spec.span] = forecaster.groups(spec, 0, spec.numel)
    return codes

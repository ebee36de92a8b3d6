"""NiNo of our own: a graph network over neurons whose forecasts are odd, follow the unit, and leave rest at rest."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple, cast, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import Forecast, Window
from ..forecast.errors import NotFittedError, WindowError
from .errors import FittingError, ModelError
from .fitting import Examples
from .horizons import between
from .nino_items import padded, part_of
from .nino_neurons import Edges, NeuronNetwork, split
from .nino_pass import NeuronPass
from .nino_signals import ROWS, num_steps
from .nino_start import least_squares
from .options import require_integer
from .stored_state import require_horizons, require_tensors
from .trainable import Items, TrainableForecaster, TrainingItems

PREFIX = "network."
MAX_HORIZONS = 64  # of a fit; a file that claims more is damaged or hostile, and so with the width
MAX_WIDTH = 512
MAX_HISTORY = 128
LEAST = 0.05  # relative error below which training gains little more from a case
START = 64  # cases from which training begins
SCALE_SHARE = 0.05  # of the fit of scales in what training reduces


class Learned(NamedTuple):
    """What a fit leaves behind.

    Attributes:
        network: frozen.
        horizons: trained ones, in optimiser steps, `[horizon]`, int64, ascending.
        spacings: least and largest distance between rows that it was fitted to, `[2]`, int64.
        calibration: what predicted scales are multiplied by, `[horizon]`, float64.
    """

    network: NeuronNetwork
    horizons: Tensor
    spacings: Tensor
    calibration: Tensor


@final
class NiNo(TrainableForecaster):
    """mean = last + unit (h / spacing) sum_r a_r(h) b_r: a graph network says how far to follow each odd number b_r.

    b are the scalar's last steps, its value, the mean step of its row and of its column, and Adam's next step
    where the window carries moments. In a window of more than ten rows the older ones count as means over stretches
    that grow with age (`nino_stretches`): what is slow shows in them, what is noise averages out.

    The coefficients a are sums of what is best on the whole (least squares, before training), of what a small network
    says of each tensor as a whole, and of what a graph network says of each scalar. Both see only even numbers without
    a unit: how straight, how large and how correlated steps are, for the scalar, its tensor, and all edges of the
    neurons at its ends; messages run along and against the edges (`NeuronNetwork`). They also see the spacing of the
    rows and how the learning rate changed. So mirrored weights have mirrored forecasts, forecasts follow the unit of
    the values, and what stands still is held.

    After Knyazev, Moudgil, Lajoie, Belilovsky, Lacoste-Julien 2025, "Accelerating Training with Neuron Interaction and
    Nowcasting Networks", ICLR, arXiv 2409.04434, whose network has none of these properties; for that one see
    `ReleasedNiNo`. Here one pass gives all horizons and, for each scalar, how far off it expects to be: a scale that is
    calibrated on the validation cases.

    It is trained on parts of networks: some neurons of each group, and some of the edges between them. It is bound to
    no layout and to no single spacing. Windows must carry the graph of their network.

    Args:
        width: of the states of neurons and edges.
        samples: edges drawn from each training case.
        nodes: neurons drawn from each group.
        history: rows in the window, 3 to 128. More rows show slow motion among the noise: with 70 instead of 10 the
            error 200 steps ahead halved (docs/nino.md). After every jump as many have to be waited for.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        WindowError: (on forecasting) without a graph; if rows are further apart or closer than those it was fitted to,
            or a horizon lies beyond the longest trained one.
    """

    name: ClassVar[str] = "nino"
    needs_graph: bool = True
    history: int = ROWS
    batch_size: ClassVar[int | None] = 8

    def __init__(
        self, width: int = 24, samples: int = 1536, nodes: int = 24, history: int = ROWS, stream: str = "weights"
    ) -> None:
        super().__init__(stream)
        self.width = require_integer("width", width, 1)
        self.samples = require_integer("samples", samples, 1)
        self.nodes = require_integer("nodes", nodes, 1)
        self.history = require_integer("history", history, 3)
        for name, value, largest in (("width", self.width, MAX_WIDTH), ("history", self.history, MAX_HISTORY)):
            if value > largest:
                raise ModelError(f"`{name}` must be at most {largest}, got {value}.")
        self._learned: Learned | None = None

    @property
    @override
    def options(self) -> dict[str, object]:
        own = {"width": self.width, "samples": self.samples, "nodes": self.nodes, "history": self.history}
        return {**own, "stream": self.stream}

    @property
    @override
    def fitted(self) -> bool:
        return self._learned is not None

    # -- fitting

    @override
    def network(self, examples: Examples, generator: torch.Generator) -> nn.Module:
        if len(examples.horizons) > MAX_HORIZONS:
            raise FittingError(
                f"{self.name!r} is fitted to at most {MAX_HORIZONS} horizons, got {len(examples.horizons)}. "
                "Take fewer: between them forecasts are linear."
            )
        for index, case in enumerate(examples.cases):
            if case.window.graph is None:
                raise FittingError(
                    f"Case {index} has no neural graph. Trace its network with `trace_graph`, "
                    "and set the window's `graph`."
                )
        before = self._learned
        horizons = torch.tensor(examples.horizons)
        if before is not None and torch.equal(before.horizons, horizons):
            network = copy.deepcopy(before.network)
        else:
            network = NeuronNetwork(self.width, len(horizons), self.history)
            network.initialise(generator)
            chosen = range(0, examples.num_training, max(1, examples.num_training // START))
            drawn = [self._item(examples, index, generator) for index in chosen if float(examples.weights[index]) > 0]
            basis = padded([item[0] for item in drawn], self.samples).basis
            target, weight, *_ = (torch.cat(parts) for parts in zip(*(item[1:] for item in drawn), strict=True))
            usual, directions = least_squares(basis, target, weight)
            network.usual.copy_(usual)
            network.directions.copy_(directions)
        return network.requires_grad_(True).train()

    @override
    def items(self, examples: Examples, part: slice, generator: torch.Generator) -> TrainingItems:
        numbers = [index for index in range(len(examples.cases))[part] if float(examples.weights[index]) > 0]
        drawn = [self._item(examples, index, generator) for index in numbers]
        edges = padded([item[0] for item in drawn], self.samples)
        rest = zip(*(item[1:] for item in drawn), strict=True)
        target, weight, reach, persistence, total = (torch.cat(parts) for parts in rest)
        return TrainingItems.of((*edges, target, weight, reach), examples.weights[numbers] * total, persistence)

    def _item(self, examples: Examples, index: int, generator: torch.Generator) -> tuple[Edges, *tuple[Tensor, ...]]:
        """A part of a case: what is seen, what came in units and spacings, weights, reach, errors of persistence."""
        case = examples.cases[index]
        window = case.window
        part = part_of(window, self.nodes, self.samples, generator)
        reach = torch.tensor(examples.horizons, dtype=torch.float64) / window.spacing
        at = part.at.clamp(min=0)
        last = window.last[at].double()
        moved = torch.stack([(case.targets[h][at].double() - last).cpu() for h in examples.horizons], dim=1)
        unit = part.unit
        counted = part.counts * (unit > 0) * (part.edges.basis[0, :, : num_steps(self.history)] != 0).any(dim=1)
        target = moved / torch.where(unit > 0, unit, 1.0).unsqueeze(1) / reach
        persistence = (counted.unsqueeze(1) * moved.square()).sum(dim=0)
        # In units in which a case's motion is one, so that float32 is enough.
        total = float(persistence.sum()) or 1.0
        weight = counted * unit.square() / total
        missing = self.samples - len(weight)
        target = torch.cat((target, target.new_zeros(missing, target.shape[1])))
        weight = torch.cat((weight, weight.new_zeros(missing)))
        return (
            part.edges,
            target.float().unsqueeze(0),
            weight.float().unsqueeze(0),
            reach.float().unsqueeze(0),
            persistence.unsqueeze(0) / total,
            torch.tensor([total], dtype=torch.float64),
        )

    @override
    def squared_errors(self, network: nn.Module, items: Items) -> Tensor:
        return _errors(network, items)[0]

    @override
    def training_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        # Case by case, in logarithms: halving the error of what goes straight counts as much as halving that of what
        # wanders, as it does where skill is averaged over runs.
        errors, misfit = _errors(network, items.items)
        *_, target, weight, reach = items.items
        still = (weight.unsqueeze(2) * target.square()).sum(dim=1) * reach.square()
        ratio = torch.where(still > 0, errors / still.where(still > 0, 1.0), 1.0)
        return (LEAST + ratio).log().mean() + SCALE_SHARE * misfit

    @override
    def finish(self, network: nn.Module, examples: Examples) -> None:
        gaps = torch.tensor([case.window.spacing for case in examples.cases])
        horizons = torch.tensor(examples.horizons)
        spacings = torch.stack((gaps.min(), gaps.max()))
        trained = cast(NeuronNetwork, network).requires_grad_(False).eval()
        learned = Learned(trained, horizons, spacings, torch.ones(len(horizons), dtype=torch.float64))
        wrong, expected = torch.zeros(2, len(horizons), dtype=torch.float64)
        part = examples.validation
        for case, weight in zip(examples.cases[part], examples.weights[part].tolist(), strict=True):
            means, scales = self._forecasts(learned, case.window, examples.horizons)
            for number, horizon in enumerate(examples.horizons):
                wrong[number] += weight * (means[number] - case.targets[horizon]).double().square().sum()
                expected[number] += weight * scales[number].double().square().sum()
        calibration = torch.where(expected > 0, wrong / expected.where(expected > 0, 1.0), 1.0).sqrt()
        self._learned = learned._replace(calibration=calibration)

    # -- forecasting

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        learned = cast(Learned, self._learned)  # `forecast` refuses to go on without
        least, largest = learned.spacings.tolist()
        if not least <= window.spacing <= largest:
            raise WindowError(f"Fitted to rows {least} to {largest} steps apart, got {window.spacing}. Fit it anew.")
        longest = int(learned.horizons[-1])
        if horizons and max(horizons) > longest:
            raise WindowError(f"Fitted up to horizon {longest}, got {max(horizons)}. Fit it to longer horizons.")
        return self._each(learned, window, horizons)

    def _each(self, learned: Learned, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon, *parts in zip(horizons, *self._forecasts(learned, window, horizons), strict=True):
            yield Forecast(horizon, *parts)

    @torch.no_grad()
    def _forecasts(self, learned: Learned, window: Window, horizons: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Means and scales, `[horizon, param]` each: one pass for all of them."""
        unity = torch.eye(len(learned.horizons), dtype=torch.float64)
        mixture = torch.stack([between(learned.horizons, unity, horizon) for horizon in horizons])
        run = NeuronPass(learned.network, window)
        reach = learned.horizons.double() / window.spacing
        mean, scale = run.forecasts(reach, learned.calibration, mixture)
        return mean.to(window.values.device), scale.to(window.values.device)

    # -- storing

    @override
    def state_dict(self) -> dict[str, Tensor]:
        learned = self._learned
        if learned is None:
            return {}
        return {
            "horizons": learned.horizons.clone(),
            "spacings": learned.spacings.clone(),
            "calibration": learned.calibration.clone(),
            **{PREFIX + name: value.clone() for name, value in learned.network.state_dict().items()},
        }

    @override
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._learned = self._read(state) if state else None

    def _read(self, state: Mapping[str, Tensor]) -> Learned:
        """Take over untrusted tensors.

        Raises:
            NotFittedError: naming what is wrong with them.
        """
        num_horizons = state["horizons"].numel() if "horizons" in state else 0
        if num_horizons > MAX_HORIZONS:
            raise NotFittedError(f"{self.name!r} has at most {MAX_HORIZONS} horizons.")
        network = NeuronNetwork(self.width, num_horizons, self.history)
        expected = network.state_dict()
        shapes = {PREFIX + name: (value.dtype, tuple(value.shape)) for name, value in expected.items()}
        general = {"horizons": (torch.int64, (num_horizons,)), "spacings": (torch.int64, (2,))}
        calibration = {"calibration": (torch.float64, (num_horizons,))}
        require_tensors(self.name, state, general | calibration | shapes)
        require_horizons(state["horizons"])
        least, largest = state["spacings"].tolist()
        if not 1 <= least <= largest:
            raise NotFittedError(f"'spacings' of {self.name!r} must be positive and ascending, got {least}, {largest}.")
        if not bool((state["calibration"] >= 0).all()):
            raise NotFittedError(f"'calibration' of {self.name!r} must be at least 0.")
        network.load_state_dict({name: state[PREFIX + name] for name in expected})
        own = (state[key].clone() for key in ("horizons", "spacings", "calibration"))
        return Learned(network.requires_grad_(False).eval(), *own)


def _errors(network: nn.Module, items: Items) -> tuple[Tensor, Tensor]:
    """Squared error of each case at each horizon, `[case, horizon]`, and how badly the scales fit, 0-d."""
    *edges, target, weight, reach = items
    edges = Edges(*edges)
    change, log_scale = split(network(edges), edges.basis)
    wrong = change - target
    errors = (weight.unsqueeze(2) * wrong.square()).sum(dim=1) * reach.square()
    # The negative log likelihood of Laplace: far-off scalars count in proportion, not squared.
    apart = wrong.detach().abs() * reach.sqrt().unsqueeze(1) * torch.exp(-log_scale)
    counts = (weight > 0).unsqueeze(2)
    misfit = ((log_scale + apart) * counts).sum() / (counts.sum() * target.shape[2]).clamp(min=1)
    return errors, misfit

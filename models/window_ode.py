"""A neural differential equation in the directions that each tensor's own window spans."""

from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from .fitting import Examples
from .gram_features import feature_names
from .gram_forecaster import GramForecaster, GramNetwork
from .latent_flow import Flow, Solver, integrate, integrate_penalised, random_signs
from .small_network import SmallNetwork
from .tensor_items import Seen, TensorItems
from .trainable import TrainingItems
from .window_frame import WindowFrame

LENGTH = 0.1  # positions are of the order of ten steps from row to row, velocities of one


@final
class WindowODE(GramForecaster):
    """The parts of `NeuralODE` with `coordinates="window"`; see there."""

    name: ClassVar[str] = "neural_ode"
    beyond: ClassVar[bool] = True

    def __init__(
        self, history: int, rank: int, width: int, solver: Solver, jacobian_penalty: float, stream: str
    ) -> None:
        super().__init__(history, width, stream)
        self.rank = rank
        self.solver = solver
        self.jacobian_penalty = jacobian_penalty

    @property
    @override
    def options(self) -> dict[str, object]:
        return {}  # those of the forecaster that this is a part of

    @override
    def build(self, num_groups: int, units: Tensor) -> GramNetwork:
        return _Network(num_groups, self.history, self.rank, self.width, units, self.solver)

    @override
    def shapes(self, num_groups: int, num_horizons: int) -> dict[str, tuple[int, ...]]:
        num_features = len(feature_names(self.history))
        inputs = 2 * self.rank + num_features + num_groups - 1
        layers = SmallNetwork.shapes(inputs, self.width, self.rank)
        return {
            "centre": (num_features,),
            "spread": (num_features,),
            **{f"acceleration.{name}": shape for name, shape in layers.items()},
        }

    @override
    def initialise(
        self, network: GramNetwork, training: TensorItems, validation: TensorItems, generator: torch.Generator
    ) -> None:
        cast(_Network, network).acceleration.initialise(generator)

    @override
    def items(self, examples: Examples, part: slice, generator: torch.Generator) -> TrainingItems:
        found = super().items(examples, part, generator)
        return TrainingItems((*found.items, random_signs((len(found), self.rank), generator)), found.share)

    @override
    def training_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        features, group, gram, cross, persistence, probe = items.items
        own = cast(_Network, network)
        flow, velocity, frame = own.flow(Seen(features, group, gram))
        moved, steepness = integrate_penalised(flow, velocity, own.get_buffer("units"), self.solver, probe)
        moved = moved.transpose(0, 1)
        inside = frame.project(cross)  # of the targets; what lies outside is no one's fault
        errors = persistence + (moved.square() - 2 * moved * inside).sum(dim=-1)
        return (items.share * errors).mean() + self.jacobian_penalty * steepness.mean()


class _Network(GramNetwork):
    """g, and the solution of its equation."""

    def __init__(self, num_groups: int, history: int, rank: int, width: int, units: Tensor, solver: Solver) -> None:
        super().__init__(num_groups, len(feature_names(history)), units)
        self.acceleration = SmallNetwork(2 * rank + self.num_conditions, width, rank)
        self.rank = rank
        self.solver = solver

    def flow(self, seen: Seen) -> tuple[Flow, Tensor, WindowFrame]:
        """The equation of some items, their velocity at the start `[item, rank]`, and their directions."""
        frame = WindowFrame(seen.gram, self.rank)
        start = torch.zeros_like(frame.velocity)
        flow = Flow(self.acceleration, start, torch.full_like(start, LENGTH), self.condition(seen))
        return flow, frame.velocity, frame

    @override
    def coefficients(self, seen: Seen, units: Tensor) -> Tensor:
        flow, velocity, frame = self.flow(seen)
        return frame.coefficients(integrate(flow, velocity, units, self.solver).transpose(0, 1))

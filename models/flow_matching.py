"""Conditional flow matching on trajectories of the weights."""

from typing import ClassVar, cast, final

import torch
import torchdiffeq
from torch import Tensor, nn
from typing_extensions import override

from .conditioned import Conditioned
from .errors import ModelError
from .fitting import Examples
from .gram_features import feature_names
from .gram_forecaster import GramForecaster, GramNetwork
from .options import require_integer, require_positive
from .small_network import SmallNetwork
from .solver import time_grid
from .tensor_items import Seen, TensorItems
from .trainable import TrainingItems
from .window_frame import WindowFrame

DRAWS = 2  # times and noises for each item and each piece of its path, drawn once
NUM_TIMES = 2  # of the network's inputs that tell the time


@final
class FlowMatching(GramForecaster):
    """Weights that move by z' = v(z, t | how they moved so far), with v learned by flow matching.

    z are a tensor's displacements from now along a few directions that its window spans (`WindowFrame`), t the time
    from now in spacings of the rows. In training, the recorded targets are joined to a path, piece by piece linear,
    from 0 through all trained horizons; at random times t the network is shown the path's point with a little noise,
    and learns the velocity of that piece by least squares (conditional flow matching, Lipman et al. 2023, arXiv
    2210.02747, section 4, with the path in place of the straight line from noise; on training trajectories after Shou,
    Ding and Gao 2025, "GFM", arXiv 2505.20221, whose state is the whole network and whose path begins at
    initialisation). No equation is solved in training. A forecast solves it from z = 0 to any horizon up to the longest
    trained one.

        mean = last + sum_k z_k(horizon) u_k

    Differences to GFM: coordinates that are the same for every network instead of the weights themselves, so that it
    can be used on another network; the condition is features of the window (`gram_features`) and the kind of tensor
    instead of a prefix of the path; no target that depends on the optimiser. See `GramForecaster` for invariances and
    scale. v starts at zero: training begins at persistence, and the velocity field of least *forecast* error on the
    validation cases is kept.

    Args:
        history: rows in the window, at least 3.
        rank: directions, fewer than `history`.
        width: of the network's two hidden layers.
        noise: standard deviation of the noise, in units of the tensor's step times the root of the time from now. It
            makes the field known beside the paths that were recorded; with too much, v hardly depends on z.
        step_size: of the solver (rk4), in spacings of the rows, at most. Halve it to see whether it matters.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        WindowError: (on forecasting) if the window's rows are not spaced as those it was fitted to, or a horizon lies
            beyond the largest trained one.
    """

    name: ClassVar[str] = "flow_matching"

    def __init__(
        self,
        history: int = 10,
        rank: int = 4,
        width: int = 32,
        noise: float = 0.1,
        step_size: float = 4.0,
        stream: str = "weights",
    ) -> None:
        super().__init__(history, width, stream)
        self.rank = require_integer("rank", rank, 1)
        if self.rank >= self.history:
            raise ModelError(f"`rank` must be below `history`, which is {history}, got {rank}.")
        self.noise = require_positive("noise", noise)
        self.step_size = require_positive("step_size", step_size)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "history": self.history,
            "rank": self.rank,
            "width": self.width,
            "noise": self.noise,
            "step_size": self.step_size,
            "stream": self.stream,
        }

    @override
    def build(self, num_groups: int, units: Tensor) -> GramNetwork:
        return _Network(num_groups, self.history, self.rank, self.width, units, self.step_size)

    @override
    def shapes(self, num_groups: int, num_horizons: int) -> dict[str, tuple[int, ...]]:
        num_features = len(feature_names(self.history))
        inputs = self.rank + NUM_TIMES + num_features + num_groups - 1
        return {
            "centre": (num_features,),
            "spread": (num_features,),
            **{f"velocity.{name}": shape for name, shape in SmallNetwork.shapes(inputs, self.width, self.rank).items()},
        }

    @override
    def initialise(
        self, network: GramNetwork, training: TensorItems, validation: TensorItems, generator: torch.Generator
    ) -> None:
        cast(_Network, network).velocity.initialise(generator)

    @override
    def items(self, examples: Examples, part: slice, generator: torch.Generator) -> TrainingItems:
        found = super().items(examples, part, generator)
        size = (len(found), DRAWS, len(examples.horizons))
        share = torch.rand(size, generator=generator, dtype=torch.float64)
        noise = torch.randn((*size, self.rank), generator=generator, dtype=torch.float64)
        return TrainingItems((*found.items, share, self.noise * noise), found.share)

    @override
    def training_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        """The matching loss, in the unit of the forecast's error: velocities are off by so much over each piece."""
        features, group, gram, cross, _, share, noise = items.items
        own = cast(_Network, network)
        ends = own.get_buffer("units")
        begins = torch.cat((ends.new_zeros(1), ends[:-1]))
        points = WindowFrame(gram, self.rank).project(cross)
        before = torch.cat((torch.zeros_like(points[:, :1]), points[:, :-1]), dim=1)
        times = begins + share * (ends - begins)  # [item, draw, horizon]
        state = before[:, None] + share[..., None] * (points - before)[:, None] + noise * times[..., None].sqrt()
        condition = own.condition(Seen(features, group, gram))
        velocity = own.velocity_at(Conditioned(own.velocity, condition[:, None, None]), state, times)
        off = velocity * (ends - begins)[:, None] - (points - before)[:, None]
        return (items.share[:, None] * off.square().sum(dim=-1)).mean()


class _Network(GramNetwork):
    """The velocity field, and the solution of its equation."""

    def __init__(self, num_groups: int, history: int, rank: int, width: int, units: Tensor, step_size: float) -> None:
        super().__init__(num_groups, len(feature_names(history)), units)
        self.velocity = SmallNetwork(rank + NUM_TIMES + self.num_conditions, width, rank)
        self.rank = rank
        self.step_size = step_size

    @staticmethod
    def velocity_at(velocity: Conditioned, state: Tensor, times: Tensor) -> Tensor:
        """v at states `[item, ..., rank]` and times `[item, ...]`; what the network sees and says is of order one."""
        later = (1 + times)[..., None]
        return velocity(torch.cat((state / later.sqrt(), later.log(), 1 / later), dim=-1)) / later.sqrt()

    @override
    def coefficients(self, seen: Seen, units: Tensor) -> Tensor:
        frame = WindowFrame(seen.gram, self.rank)
        velocity = Conditioned(self.velocity, self.condition(seen))

        def flow(time: Tensor, state: Tensor) -> Tensor:
            return self.velocity_at(velocity, state, time.expand(len(state)))

        grid, wanted = time_grid([0.0, *units.tolist()], self.step_size)
        start = seen.gram.new_zeros(len(seen.gram), self.rank)
        states = torchdiffeq.odeint(flow, start, units.new_tensor(grid), method="rk4")
        return frame.coefficients(cast(Tensor, states)[wanted].transpose(0, 1))

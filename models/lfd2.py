"""LFD-2: one linear layer from a scalar's first and last value to all its next ones."""

from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import Window
from .coordinate_network import CoordinateNetwork, Inputs, Loss
from .coordinate_parts import Dense, divided, extremes, mixed
from .fitting import Examples
from .options import require_not_negative
from .rows import chunks
from .trainable import TrainingItems

PROBES = 4096  # training items, roughly, over which the growth of steps is measured


class LinearMap(nn.Module):
    """Two inputs, one output a horizon, and some training items on which steps are compared.

    Args:
        times: of the outputs, in the window's spans, `[horizon]`.
    """

    def __init__(self, times: Tensor) -> None:
        super().__init__()
        self.layer = Dense(2, len(times))
        self.register_buffer("times", times, persistent=False)
        self.register_buffer("probes", torch.zeros(0, 2), persistent=False)
        self.register_buffer("probe_weights", torch.zeros(0), persistent=False)
        self.times: Tensor
        self.probes: Tensor
        self.probe_weights: Tensor

    @override
    def forward(self, features: Tensor, group: int | Tensor, mixture: Tensor | None) -> Tensor:
        return mixed(self.layer, features, mixture)

    def growth(self) -> Tensor:
        """By how much forecast steps grow, over the observed step, 0-d; 0 where each is at most as long as the last.

        A step is the L1 norm, over the probes, of the change from one horizon to the next per unit of time; the first
        is the change that the window shows.
        """
        outputs = nn.functional.pad(self.layer(self.probes), (1, 0))  # zero at horizon 0
        gaps = nn.functional.pad(self.times, (1, 0)).diff()
        forecast = (self.probe_weights @ outputs.diff(dim=1).abs()) / gaps
        observed = self.probe_weights @ self.probes[:, :1].abs()
        steps = torch.cat((observed, forecast)) / observed
        return steps.diff().clamp(min=0).sum()


@final
class LFD2(CoordinateNetwork):
    """mean = last + u (A_1 (w_n - w_0) / u + A_2 w_n / v + b): a linear layer shared by all scalars, 2 inputs.

    After Shou and others 2025, "Less is More: Efficient Weight Farcasting with 1-Layer Neural Network", DASFAA, arXiv
    2505.02714: all next values at once from the first and the last one, fitted by the L1 norm, with a regulariser that
    keeps forecast steps from growing. Here the values of each tensor are divided by its own motion and size, so that A
    and b mean the same in every network: u is the root mean square of w_n - w_0 over the tensor, v that of w_n. A_1 is
    extrapolation, A_2 growth or decay of the weights, b a common drift; three numbers for each horizon. A_1 alone is a
    tuned line through two points, its control. With `augment` b is drawn to 0, because a drift has no sign then.

    The paper's regulariser (L_grad) is only known to us by its purpose and as "max(|w_{j+1} - w_j|_1 ...)"; its exact
    form is unverified. Here it is

        growth * sum_j max(0, step_{j+1} - step_j) / step_0

    with step_j the L1 norm of the forecast change from one horizon to the next per unit of time, over about 4096
    training items, and step_0 the window's own.

    Fitted by Adam. When to use: as the control of larger networks. Tune `history` and, if far horizons overshoot,
    `growth`.

    Args:
        history: rows in the window; only the first and the last are used.
        growth: weight of the regulariser; 0 for none.
        samples: coordinates drawn from each case for training.
        augment: mirror half of the training items.
        loss: `absolute` errors, as in the paper, or `squared`. Neither was better on two runs of digits that were kept
            apart (skills 0.59, 0.69, 0.56 and 0.55, 0.68, 0.58 for 10, 50 and 200 steps).
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        WindowError: (on forecasting) if the window's rows are not spaced as those it was fitted to, or a horizon lies
            beyond the longest trained one.
    """

    name: ClassVar[str] = "lfd2"
    learning_rate: ClassVar[float] = 2e-2
    chunk: ClassVar[int] = 1 << 16

    def __init__(
        self,
        history: int = 5,
        growth: float = 0.1,
        samples: int = 256,
        augment: bool = True,
        loss: Loss = "absolute",
        stream: str = "weights",
    ) -> None:
        super().__init__(history, samples, augment, loss, stream)
        self.growth = require_not_negative("growth", growth)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "history": self.history,
            "growth": self.growth,
            "samples": self.samples,
            "augment": self.augment,
            "loss": self.loss,
            "stream": self.stream,
        }

    @override
    def context(self, window: Window) -> Tensor:
        """u and v of each tensor, `[tensor, 2]`, float64."""
        squares = torch.zeros(len(window.layout), 2, dtype=torch.float64)
        for index, span in chunks(window.layout):
            first, last = window.values[0, span].double(), window.values[-1, span].double()
            squares[index] += torch.stack(((last - first).square().sum(), last.square().sum())).cpu()
        sizes = torch.tensor([max(1, spec.numel) for spec in window.layout], dtype=torch.float64)
        return (squares / sizes.unsqueeze(1)).sqrt()

    @override
    def inputs(self, rows: Tensor, context: Tensor, epsilon: Tensor | float) -> Inputs:
        motion, size = (context[..., index].to(rows) for index in (0, 1))
        low, high = extremes(rows)
        features = torch.stack((divided(rows[-1] - rows[0], motion), divided(rows[-1], size)), dim=1)
        return Inputs(features, torch.where(high > low, motion, 0.0))

    @override
    def build(self, horizons: Tensor, spacing: int) -> nn.Module:
        return LinearMap(horizons.float() / (spacing * (self.history - 1)))

    @override
    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        for value in network.parameters():
            value.zero_()

    @override
    def network(self, examples: Examples, generator: torch.Generator) -> nn.Module:
        network = cast(LinearMap, super().network(examples, generator))
        stride = max(1, examples.num_training * self.samples // PROBES)
        probes = self.items(examples, slice(0, examples.num_training, stride), generator)
        network.probes = probes.items[0]
        network.probe_weights = probes.share.mean(dim=1).float()
        return network

    @override
    def training_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        error = self.relative_error(network, items)
        return error + self.growth * cast(LinearMap, network).growth() if self.growth else error

"""Introspection: a small network that reads four moments of a scalar's history."""

import math
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from .coordinate_network import CoordinateNetwork, Inputs, Loss
from .coordinate_parts import Dense, divided, extremes, mixed

FRACTIONS = (0.0, 0.4, 0.7, 1.0)  # of the window's span, from its oldest to its newest row
WIDTH = 40


class IntrospectionNetwork(nn.Module):
    """4 inputs, 40 ReLU, one output a horizon; 241 parameters with one output, as in the paper."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.inner = Dense(len(FRACTIONS), WIDTH)
        self.outer = Dense(WIDTH, num_outputs)

    @override
    def forward(self, features: Tensor, group: int | Tensor, mixture: Tensor | None) -> Tensor:
        return mixed(self.outer, torch.relu(self.inner(features)), mixture)


@final
class Introspection(CoordinateNetwork):
    """mean = last + range * I(x), I a network 4-40-1 with ReLU, shared by all coordinates of all tensors.

    After Sinha, Sarkar, Mukherjee, Krishnamurthy 2017, "Introspection: Accelerating Neural Network Training By Learning
    Weight Evolution", ICLR, arXiv 1704.04959. **There is a patent on the method, US 10,755,199: find out what that
    means for you before you use it.** It is never a default: nothing in this library uses it unless you name it.

    The inputs are the scalar's values at 0, 0.4, 0.7 and all of the window's span (rows in between are interpolated),
    minus the window's mean, over the window's range r = max - min:

        x_j = (w(f_j) - mean(w)) / r,    f = 0, 0.4, 0.7, 1

    Departures from the paper: there the span is that of the whole run so far and the answer is w(2t), here the span is
    the window's, and there is one output for each trained horizon. How the authors scaled inputs, sampled scalars and
    trained is not in the text of 2016 (L1 loss and values times 1000 are hearsay: unverified); dividing by the range
    makes forecasts scale with the values, and a coordinate that stands still is held. Forecasts of a run as long as
    twice the window are those of the paper.

    Not for windows whose rows differ by noise alone: the range then is noise. Tune `history` first. Fitted to four
    small runs of digits and scored on two others (Adam, rows 10 steps apart), 5 rows had skills of 0.59, 0.72 and 0.63
    for 10, 50 and 200 steps ahead, 11 rows 0.30, 0.53 and 0.33: errors are largest early, when old rows mislead. With
    each case divided by its window's motion it was 0.45, 0.72 and 0.76 against 0.47, 0.79 and 0.84.

    Args:
        history: rows in the window; with 11 the four inputs are rows, otherwise some are interpolated.
        samples: coordinates drawn from each case for training.
        augment: mirror half of the training items.
        loss: `squared` or `absolute` errors.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        WindowError: (on forecasting) if the window's rows are not spaced as those it was fitted to, or a horizon lies
            beyond the longest trained one.
    """

    name: ClassVar[str] = "introspection"

    def __init__(
        self,
        history: int = 5,
        samples: int = 256,
        augment: bool = True,
        loss: Loss = "squared",
        stream: str = "weights",
    ) -> None:
        super().__init__(history, samples, augment, loss, stream)
        self._picked = _interpolation(self.history)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "history": self.history,
            "samples": self.samples,
            "augment": self.augment,
            "loss": self.loss,
            "stream": self.stream,
        }

    @override
    def inputs(self, rows: Tensor, context: Tensor, epsilon: Tensor | float) -> Inputs:
        rows = rows - rows[-1]
        low, high = extremes(rows)
        extent = high - low
        picked = (self._picked.to(rows) @ rows) - rows.mean(dim=0)
        return Inputs(divided(picked, extent).T, extent)

    @override
    def build(self, horizons: Tensor, spacing: int) -> nn.Module:
        return IntrospectionNetwork(len(horizons))

    @override
    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        network = cast(IntrospectionNetwork, network)
        bound = math.sqrt(6 / len(FRACTIONS))  # He et al. 2015, as usual before ReLU
        network.inner.weight.uniform_(-bound, bound, generator=generator)
        network.inner.bias.uniform_(-bound / 2, bound / 2, generator=generator)  # kinks apart from each other
        network.outer.weight.zero_()
        network.outer.bias.zero_()


def _interpolation(num_rows: int) -> Tensor:
    """What each row counts for the values at `FRACTIONS` of the span, linear between rows, `[fraction, time]`."""
    places = torch.tensor(FRACTIONS, dtype=torch.float64) * (num_rows - 1)
    return (1 - (places.unsqueeze(1) - torch.arange(num_rows)).abs()).clamp(min=0)

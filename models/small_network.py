"""The small network that reduced-state forecasters are made of."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override


class SmallNetwork(nn.Module):
    """Two hidden layers, float64, without a random number until `initialise` draws them; zero until then.

    It is float64 because its inputs are few: rounding then plays no part in comparing solvers or horizons, and the cost
    is nearly the same.

    Args:
        num_in: inputs.
        width: of both hidden layers.
        num_out: outputs.
    """

    def __init__(self, num_in: int, width: int, num_out: int) -> None:
        super().__init__()
        self.inner = _empty_linear(num_in, width)
        self.hidden = _empty_linear(width, width)
        self.outer = _empty_linear(width, num_out)
        with torch.no_grad():
            for value in self.parameters():
                value.zero_()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Values of Glorot and Bengio (2010), as usual before tanh, in the hidden layers; the last stays at zero."""
        for layer in (self.inner, self.hidden):
            bound = math.sqrt(6 / (layer.in_features + layer.out_features))
            layer.weight.uniform_(-bound, bound, generator=generator)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.hidden(torch.tanh(self.inner(inputs)))))

    @staticmethod
    def shapes(num_in: int, width: int, num_out: int) -> dict[str, tuple[int, ...]]:
        """Shapes of its tensors by name."""
        layers = {"inner": (width, num_in), "hidden": (width, width), "outer": (num_out, width)}
        return {
            name: shape
            for layer, weight in layers.items()
            for name, shape in ((f"{layer}.weight", weight), (f"{layer}.bias", weight[:1]))
        }


def _empty_linear(num_in: int, num_out: int) -> nn.Linear:
    """A float64 layer without values: the usual initialisation would draw from the global generator."""
    return cast(nn.Linear, nn.utils.skip_init(nn.Linear, num_in, num_out, dtype=torch.float64))

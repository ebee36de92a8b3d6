"""WNN+: a multilayer perceptron for every scalar, told what kind of tensor it belongs to."""

from collections.abc import Mapping
from typing import ClassVar, Literal, cast, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import TensorSpec, Window
from .coordinate_network import CoordinateNetwork, Inputs, Loss
from .coordinate_parts import Dense, divided, extremes, mixed
from .errors import FittingError, ModelError
from .options import require_choice, require_integer, require_not_negative
from .rows import chunks
from .tensor_types import NUM_TYPES, require_overrides, type_codes, type_name

Variant = Literal["corrected", "released"]
Scaling = Literal["motion", "values"]
ROWS = 5
RELEASED_HORIZONS = 40  # outputs of the authors' networks, one for each row spacing ahead
RELEASED_EPSILON = 1e-6  # added to the standard deviation in the authors' code
HIDDEN_LAYERS = 3


class TypedPerceptron(nn.Module):
    """5 inputs and a type to one number a horizon: W z + embedding(type), then four layers with SiLU between them."""

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.project = Dense(ROWS, width)
        self.types = nn.Parameter(torch.empty(NUM_TYPES, width))
        self.hidden = nn.ModuleList(Dense(width, width) for _ in range(HIDDEN_LAYERS))
        self.head = Dense(width, num_outputs)

    @override
    def forward(self, features: Tensor, group: int | Tensor, mixture: Tensor | None) -> Tensor:
        if isinstance(group, int):
            hidden = nn.functional.linear(features, self.project.weight, self.project.bias + self.types[group])
        else:
            hidden = self.project(features) + self.types[group.long()]
        for layer in self.hidden:
            hidden = nn.functional.silu(layer(hidden), inplace=not torch.is_grad_enabled())
        return mixed(self.head, hidden, mixture)


@final
class WNNPlus(CoordinateNetwork):
    """mean = last + unit * o(z, type), with z five normalised values of a scalar and one network for all tensors.

    The per-weight baseline of Knyazev, Moudgil, Lajoie, Belilovsky, Lacoste-Julien 2025, "Accelerating Training with
    Neuron Interaction and Nowcasting Networks", ICLR, arXiv 2409.04434, where it is called WNN+. It tells dense
    matrices, biases, convolutions, norms, embeddings and query, key and value matrices apart (`tensor_types`).

        values:   z_i = (w_i - m) / (d + epsilon), i = 0 ... 4;                      unit = d
        motion:   z_i = (w_i - w_4) / u, i = 0 ... 3, and z_4 = (w_4 - m) / d;       unit = u

    m and d are mean and standard deviation of the tensor over all five rows, u the root mean square of the differences
    between its rows, over the coordinates that moved. `values` is the authors' scaling. In
    `motion` the five numbers are the same, but the motion is not small beside the values. That is what made training
    succeed: on two runs of digits that were kept apart, skill was 0.52, 0.68 and 0.55 for 10, 50 and 200 steps, against
    0.28, 0.33 and 0.32 with `values`, after as much training.

    Epsilon is 0 here and forecasts scale with the values; 1e-6, the authors', only with the authors' weights
    (`load_released_wnn_plus`). Their networks have 40 outputs, one for each row spacing, and width 128; those trained
    here have one output for each trained horizon, and by default a quarter of the width.

    Not for windows whose rows differ by noise alone. Tune `width` and the number of training steps.

    Args:
        width: of all hidden layers.
        scaling: `motion` or `values`.
        variant: `released` is for the authors' weights only and does what their code does: the way back is without the
            epsilon, so that a forecast of no change is not exactly the newest value, and what stands still is moved.
            `corrected` adds the forecast change to the newest value, and holds what stands still.
        types: types by pattern of tensor names, where the names mislead; see `tensor_types.NAMES`.
        samples: coordinates drawn from each case for training.
        augment: mirror half of the training items.
        loss: `squared` or `absolute` errors.
        epsilon: added to the standard deviation. 0, or a small number in the unit of the values for networks trained
            with one; only with the scaling `values`.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        FittingError: (on fitting) if the variant is `released`.
        WindowError: (on forecasting) if the window's rows are not spaced as those it was fitted to, or a horizon lies
            beyond the longest trained one.
    """

    name: ClassVar[str] = "wnn_plus"

    def __init__(
        self,
        width: int = 32,
        scaling: Scaling = "motion",
        variant: Variant = "corrected",
        types: Mapping[str, str] | None = None,
        samples: int = 256,
        augment: bool = True,
        loss: Loss = "squared",
        epsilon: float = 0.0,
        stream: str = "weights",
    ) -> None:
        super().__init__(ROWS, samples, augment, loss, stream)
        self.width = require_integer("width", width, 1)
        self.scaling: Scaling = require_choice("scaling", scaling, ("motion", "values"))
        self.variant: Variant = require_choice("variant", variant, ("corrected", "released"))
        self.types = {} if types is None else require_overrides("types", types)
        self.epsilon = require_not_negative("epsilon", epsilon)
        if self.scaling == "motion" and (self.epsilon or self.variant == "released"):
            raise ModelError("`scaling` must be 'values' for the released variant, and where there is an epsilon.")

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "width": self.width,
            "scaling": self.scaling,
            "variant": self.variant,
            "types": dict(self.types) or None,
            "samples": self.samples,
            "augment": self.augment,
            "loss": self.loss,
            "epsilon": self.epsilon,
            "stream": self.stream,
        }

    @override
    def require_trainable(self) -> None:
        if self.variant == "released":
            raise FittingError("The released variant repeats what the authors' code does. Fit the corrected one.")

    @override
    def context(self, window: Window) -> Tensor:
        """m, d and u of each tensor, `[tensor, 3]`, float64."""
        count = torch.tensor([max(1, ROWS * spec.numel) for spec in window.layout], dtype=torch.float64)
        total, squares, moved, steps = torch.zeros(4, len(window.layout), dtype=torch.float64)
        for index, span in chunks(window.layout):
            total[index] += window.values[:, span].double().sum().cpu()
        mean = total / count
        for index, span in chunks(window.layout):
            rows = window.values[:, span].double()
            differences = rows.diff(dim=0).square().sum(dim=0)
            squares[index] += (rows - mean[index].to(rows)).square().sum().cpu()
            steps[index] += differences.sum().cpu()
            moved[index] += differences.count_nonzero().cpu()
        deviation = (squares / (count - 1).clamp(min=1)).sqrt()
        motion = (steps / (moved * (ROWS - 1)).clamp(min=1)).sqrt()
        return torch.stack((mean, deviation, motion), dim=1)

    @override
    def inputs(self, rows: Tensor, context: Tensor, epsilon: Tensor | float) -> Inputs:
        mean, deviation, motion = (context[..., index].to(rows) for index in range(3))
        scaled = divided(rows - mean, (deviation + epsilon).to(rows))
        if self.variant == "released":
            return Inputs(scaled.T, deviation.expand(rows.shape[1]), scaled[-1] * deviation + mean)
        low, high = extremes(rows)
        if self.scaling == "motion":
            scaled = torch.cat((divided(rows[:-1] - rows[-1], motion), scaled[-1:]))
            deviation = motion
        return Inputs(scaled.T, torch.where(high > low, deviation, 0.0))

    @override
    def groups(self, spec: TensorSpec, begin: int, end: int) -> int | Tensor:
        return type_codes(spec, type_name(spec, self.types), begin, end)

    @override
    def build(self, horizons: Tensor, spacing: int) -> nn.Module:
        return TypedPerceptron(self.width, len(horizons))

    @override
    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        network = cast(TypedPerceptron, network)
        for name, value in network.named_parameters():
            if value.ndim == 1 or name.startswith(("head", "types")):
                value.zero_()
            else:
                # He et al. 2015, as usual before SiLU; the authors' 0.02 makes a small network linear.
                value.normal_(std=(2 / value.shape[1]) ** 0.5, generator=generator)

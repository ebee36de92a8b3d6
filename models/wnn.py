"""The weight nowcaster network (WNN): two streams, one network for each of three kinds of tensor."""

import math
from typing import ClassVar, Literal, NamedTuple, cast, final

import torch
from torch import Tensor, nn
from typing_extensions import override

from ..forecast import TensorSpec, Window
from .coordinate_network import CoordinateNetwork, Inputs, Loss
from .coordinate_parts import Dense, divided, extremes
from .errors import FittingError
from .fitting import Examples
from .options import require_choice, require_not_negative
from .trainable import TrainingItems

Variant = Literal["corrected", "released"]
ROWS = 5
RELEASED_SPACINGS = 5  # row spacings that the authors' networks forecast
RELEASED_EPSILON = 1e-8 + 1e-5  # added to the range in two places of the authors' code
WIDTH, COMPRESSED, OUT = 64, 8, 32
SLOPE = 0.3  # of the leaky ReLU: Keras's default then; the authors' port to torch has 0.01 by mistake
CONVOLUTION, DENSE, BIAS = 0, 1, 2
KERNEL_PENALTY, BIAS_PENALTY = 1e-6, 0.1  # L1, of the first and last layer of each stream, as in the authors' code


class Stream(nn.Module):
    """One stream: z to 32 numbers, with an activation whose slope and rate depend on the input.

    a = W_in z + b_in
    c = relu(W_compress a + b_compress)
    (p, q, s) = W_expand c + b_expand            the authors' three layers `add`, `scale`, `rate`, one upon the other
    h = leaky_relu(W_out (p + q exp(s a)) + b_out)
    """

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        self.inner = Dense(num_inputs, WIDTH)
        self.compress = Dense(WIDTH, COMPRESSED)
        self.expand = Dense(COMPRESSED, 3 * WIDTH)
        self.outer = Dense(WIDTH, OUT)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        linear = self.inner(inputs)
        # `compress` after `inner`, multiplied out (in float64, which costs nothing here): a tenth of the work.
        outer, inner = self.compress.weight.double(), self.inner.weight.double()
        bias = outer @ self.inner.bias.double() + self.compress.bias
        compressed = torch.relu(nn.functional.linear(inputs, (outer @ inner).to(inputs), bias.to(inputs)))
        add, scale, rate = self.expand(compressed).chunk(3, dim=-1)
        activated = torch.addcmul(add, scale, torch.exp(rate * linear))
        return nn.functional.leaky_relu(self.outer(activated), SLOPE)


class Nowcaster(nn.Module):
    """One of the three networks: 5 values and 4 differences to one number a horizon; 9,425 parameters with one."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.values = Stream(ROWS)
        self.differences = Stream(ROWS - 1)
        self.head = Dense(2 * OUT, num_outputs)

    @override
    def forward(self, features: Tensor, wanted: Tensor) -> Tensor:
        """Outputs at the wanted horizons' positions, `[item, wanted]`."""
        weight, bias = self.head.weight[wanted], self.head.bias[wanted]
        # The head of both streams side by side, without laying them side by side.
        total = nn.functional.linear(self.values(features[:, :ROWS]), weight[:, :OUT], bias)
        return torch.tanh(total + nn.functional.linear(self.differences(features[:, ROWS:]), weight[:, OUT:]))


class Nowcasters(nn.Module):
    """The three networks: for convolution kernels, dense matrices, and biases.

    Args:
        reach: what each output is multiplied by, `[horizon]`: how many times two ranges a forecast may go.
    """

    def __init__(self, reach: Tensor) -> None:
        super().__init__()
        self.nets = nn.ModuleList(Nowcaster(len(reach)) for _ in range(3))
        self.register_buffer("trained", torch.zeros(3, dtype=torch.bool))  # those that have seen data
        self.register_buffer("reach", reach, persistent=False)
        self.trained: Tensor
        self.reach: Tensor

    @override
    def forward(self, features: Tensor, group: int | Tensor, mixture: Tensor | None) -> Tensor:
        if mixture is None:
            return self._outputs(features, group, torch.arange(len(self.reach))) * self.reach
        wanted = mixture.abs().sum(dim=1).nonzero().squeeze(1)  # one or two of them, for one horizon
        return self._outputs(features, group, wanted) @ (self.reach[wanted].unsqueeze(1) * mixture[wanted])

    def _outputs(self, features: Tensor, group: int | Tensor, wanted: Tensor) -> Tensor:
        if isinstance(group, int):
            return self.nets[self.instead_of(group)](features, wanted)
        outputs = features.new_empty(len(features), len(wanted))
        for kind in range(3):
            chosen = (group == kind).nonzero().squeeze(1)
            if len(chosen):
                outputs[chosen] = self.nets[self.instead_of(kind)](features[chosen], wanted)
        return outputs

    def instead_of(self, group: int) -> int:
        """The network for a group: its own, or where that has seen no data the first of dense, convolution, bias."""
        return next((kind for kind in (group, DENSE, CONVOLUTION, BIAS) if bool(self.trained[kind])), group)


@final
class WNN(CoordinateNetwork):
    """mean = last + 2 s o(x, d): the last five values of a scalar, scaled by their range, to what it moves.

    After Jang, Lee, Yoon et al. 2023, "Learning to Boost Training by Periodic Nowcasting Near Future Weights", ICML,
    PMLR 202. With w_0 ... w_4 the values, oldest first, and r their range:

        s = r + epsilon,    x_i = (w_i - w_0) / (2 s),    d_i = x_{i+1} - x_i
        o = tanh(head [stream(x), stream(d)])        (see `Stream`)

    Three networks of one shape: for convolution kernels, for dense matrices (embeddings too, and whatever else has two
    or more axes), and for biases (norms too, and whatever else has fewer). A kind that was not there in training uses
    the network of another, dense matrices' first.

    Trained here, it has one output for each horizon: 2 s max(1, horizon / (5 spacings)) tanh(...), so that a forecast
    five spacings or less ahead goes at most two ranges, as the authors', and one further ahead at most as fast. Epsilon
    is 0 and forecasts scale with the values; 1.001e-5, the authors', only with the authors' weights
    (`load_released_wnn`). The L1 penalties on the outer layers' weights (1e-6) and offsets (0.1) are theirs. Their
    training code and data are not public; the rest (batches, steps, sampling) is ours.

    Not for windows whose rows differ by noise alone. Tune `loss` and the number of training steps; the network has no
    other size.

    Args:
        variant: `released` is for the authors' weights only, and does what their code does: the forecast of a bias is
            (w_4 + o) 2 s + w_0, where the value w_4 stands in for the normalised x_4, which throws away the progress
            of the window; and what stands still is moved. `corrected` forecasts biases as all others and holds what
            stands still.
        samples: coordinates drawn from each case for training.
        augment: mirror half of the training items.
        loss: `squared` or `absolute` errors; the authors' is absolute. Neither was better on two runs of digits that
            were kept apart (skills 0.44, 0.66, 0.53 and 0.48, 0.66, 0.51 for 10, 50 and 200 steps).
        epsilon: added to the range. 0, or a small number in the unit of the values for networks trained with one.
        stream: the stream it forecasts.

    Raises:
        ModelError: if an option is out of range.
        FittingError: (on fitting) if the variant is `released`.
        WindowError: (on forecasting) if the window's rows are not spaced as those it was fitted to, or a horizon lies
            beyond the longest trained one.
    """

    name: ClassVar[str] = "wnn"

    def __init__(
        self,
        variant: Variant = "corrected",
        samples: int = 256,
        augment: bool = True,
        loss: Loss = "squared",
        epsilon: float = 0.0,
        stream: str = "weights",
    ) -> None:
        super().__init__(ROWS, samples, augment, loss, stream)
        self.variant: Variant = require_choice("variant", variant, ("corrected", "released"))
        self.epsilon = require_not_negative("epsilon", epsilon)

    @property
    @override
    def options(self) -> dict[str, object]:
        return {
            "variant": self.variant,
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
    def inputs(self, rows: Tensor, context: Tensor, epsilon: Tensor | float) -> Inputs:
        scaled = normalised(rows, epsilon)
        features = torch.cat((scaled.values, scaled.differences)).T
        if self.variant == "corrected":
            return Inputs(features, scaled.unit)
        newest = torch.where(context[..., 0] > 0, rows[-1].double(), scaled.values[-1].double())
        return Inputs(features, 2 * scaled.size, newest * 2 * scaled.size + rows[0])

    @override
    def context(self, window: Window) -> Tensor:
        """Whether each tensor's forecasts are those of a bias, `[tensor, 1]`."""
        biases = [self.groups(spec, 0, spec.numel) == BIAS for spec in window.layout]
        return torch.tensor(biases, dtype=torch.float64).unsqueeze(1)

    @override
    def groups(self, spec: TensorSpec, begin: int, end: int) -> int:
        if spec.kind == "convolution":
            return CONVOLUTION
        if spec.kind in ("weight", "embedding") or (spec.kind == "other" and len(spec.shape) > 1):
            return DENSE
        return BIAS

    @override
    def build(self, horizons: Tensor, spacing: int) -> nn.Module:
        reach = (horizons.to("cpu", torch.float32) / (RELEASED_SPACINGS * spacing)).clamp(min=1.0)
        return Nowcasters(reach)

    @override
    def initialise(self, network: nn.Module, generator: torch.Generator) -> None:
        for net in cast(Nowcasters, network).nets:
            for name, value in net.named_parameters():
                if name.endswith("bias") or name.startswith("head"):
                    value.zero_()
                    continue
                num_out, num_in = value.shape
                if "inner" in name or "outer" in name:
                    bound = math.sqrt(3 * 0.1 / num_in)  # the authors': uniform of variance 0.1 / inputs
                else:
                    # Glorot and Bengio 2010, Keras's default; of `expand` each third is a layer of its own.
                    bound = math.sqrt(6 / (num_in + min(num_out, WIDTH)))
                value.uniform_(-bound, bound, generator=generator)

    @override
    def network(self, examples: Examples, generator: torch.Generator) -> nn.Module:
        network = cast(Nowcasters, super().network(examples, generator))
        for case in examples.cases[examples.training]:
            for spec in case.window.layout:
                network.trained[self.groups(spec, 0, spec.numel)] = True
        return network

    @override
    def training_error(self, network: nn.Module, items: TrainingItems) -> Tensor:
        return self.relative_error(network, items) + self.penalty(network)

    def penalty(self, network: nn.Module) -> Tensor:
        """The L1 penalties on the networks that were trained, 0-d."""
        total = torch.zeros(())
        for kind in cast(Nowcasters, network).trained.nonzero().squeeze(1).tolist():
            for name, value in cast(Nowcasters, network).nets[kind].named_parameters():
                if "inner" in name or "outer" in name:
                    total = total + (BIAS_PENALTY if name.endswith("bias") else KERNEL_PENALTY) * value.abs().sum()
        return total


class Normalised(NamedTuple):
    """A scalar's last five values as a nowcaster sees them.

    Attributes:
        values: x, `[time, coordinate]`; 0 where nothing moved and there is no epsilon.
        differences: d, `[time - 1, coordinate]`.
        size: s, `[coordinate]`.
        unit: 2 s, and 0 where nothing moved.
    """

    values: Tensor
    differences: Tensor
    size: Tensor
    unit: Tensor


def normalised(rows: Tensor, epsilon: Tensor | float) -> Normalised:
    """x, d and s of five rows `[time, coordinate]`; in float64 where there is an epsilon, as the authors' code."""
    if isinstance(epsilon, Tensor) or epsilon:
        rows = rows.double()
    moved = rows - rows[0]
    low, high = extremes(moved)
    size = high - low + epsilon
    values = divided(moved, size) / 2
    return Normalised(values, values.diff(dim=0), size, torch.where(high > low, 2 * size, 0.0))

"""Small networks for small images and short texts."""

import math
from itertools import pairwise

import torch
from torch import nn

from ..errors import OptionError
from .task import TaskData
from .transformer import Transformer

MLP_HIDDEN = (64, 32)
MLP_EMBEDDING = 8  # numbers for each symbol of a text
SMALL_IMAGE = 16  # pixels; images narrower than this get the smaller conv net
MAX_GROUPS = 4  # of channels that are normalised together
MIN_WIDTH, MAX_WIDTH = 1 / 64, 64.0
ANY_INPUT = ("mlp", "mlp_norm", "transformer")
SPATIAL_ONLY = ("conv", "conv_norm", "conv_batch_norm")


def fitting_networks(task: TaskData) -> tuple[str, ...]:
    """The networks that can work on a task."""
    return (*ANY_INPUT, *SPATIAL_ONLY) if task.spatial else ANY_INPUT


def make_network(name: str, task: TaskData, seed: int, width: float = 1.0) -> nn.Module:
    """A freshly initialised network for a task; the same for the same seed, and no global random state is touched.

    `mlp` has two hidden layers of 64 and 32 units; on texts it begins with an embedding of 8 numbers a symbol. `conv`
    has three 3x3 convolutions, the mean over all positions and a linear layer: 16, 32 and 32 channels with stride 2 in
    the first on images of 16 pixels and more, which on Fashion-MNIST are the 14,378 parameters of the task FM-16
    (B. Knyazev, A. Moudgil, G. Lajoie, E. Belilovsky and S. Lacoste-Julien, 2025, Accelerating Training with Neuron
    Interaction and Nowcasting Networks, arXiv:2409.04434); 8, 16 and 16 without a stride on smaller ones.

    `mlp_norm` and `conv_norm` normalise before each ReLU, over a layer (J. L. Ba, J. R. Kiros and G. E. Hinton, 2016,
    Layer Normalization, arXiv:1607.06450) and over up to 4 groups of channels (Y. Wu and K. He, 2018, Group
    Normalization, arXiv:1803.08494): both work alike in training and evaluation and keep no buffer, so that all there
    is to a network is in its recorded weights. `conv_batch_norm` normalises over the batch (S. Ioffe and C. Szegedy,
    2015, Batch Normalization, arXiv:1502.03167) and keeps running means and variances, which no recording holds: after
    its weights were changed, by a jump or an average, they have to be estimated anew. For `transformer` see
    `Transformer`; on images its tokens are the rows.

    Args:
        name: one of `fitting_networks(task)`.
        task: gives the shape of the inputs and the number of classes.
        seed: of the initialisation.
        width: what hidden widths are multiplied by; they are rounded, and at least 1.

    Raises:
        OptionError: if there is no such network, it cannot work on the task, or `width` is out of range.
    """
    if not MIN_WIDTH <= width <= MAX_WIDTH:
        raise OptionError(f"`width` must lie within {MIN_WIDTH:g} and {MAX_WIDTH:g}, got {width}.")
    if name not in (*ANY_INPUT, *SPATIAL_ONLY):
        raise OptionError(f"`network` must be one of {', '.join((*ANY_INPUT, *SPATIAL_ONLY))}, got {name!r}.")
    if name not in fitting_networks(task):
        raise OptionError(
            f"`network` must be one of {', '.join(fitting_networks(task))} for the task {task.name}, whose inputs "
            f"are no pictures, got {name!r}."
        )
    if name.startswith("mlp"):
        network = _mlp(task, width, norm=name == "mlp_norm")
    elif name.startswith("conv"):
        network = _conv(task, width, norm=name.removeprefix("conv").lstrip("_"))
    else:
        network = Transformer(task.input_shape, task.num_classes, task.num_symbols, width)
    network.to_empty(device="cpu")
    _initialise(network, torch.Generator().manual_seed(seed))
    return network


def scaled(size: int, width: float) -> int:
    """A hidden width multiplied and rounded, at least 1."""
    return max(1, round(size * width))


def _mlp(task: TaskData, width: float, norm: bool) -> nn.Module:
    num_inputs = math.prod(task.input_shape)
    layers: list[nn.Module] = []
    if task.num_symbols is not None:
        layers.append(nn.Embedding(task.num_symbols, MLP_EMBEDDING, device="meta"))
        num_inputs *= MLP_EMBEDDING
    layers.append(nn.Flatten())
    widths = (num_inputs, *(scaled(hidden, width) for hidden in MLP_HIDDEN))
    for width_in, width_out in pairwise(widths):
        layers.append(nn.Linear(width_in, width_out, device="meta"))
        layers += [nn.LayerNorm(width_out, device="meta")] if norm else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(widths[-1], task.num_classes, device="meta"))


def _conv(task: TaskData, width: float, norm: str) -> nn.Module:
    num_channels, *extents = task.input_shape
    small = min(extents) < SMALL_IMAGE
    hidden = (8, 16, 16) if small else (16, 32, 32)
    channels = (num_channels, *(scaled(count, width) for count in hidden))
    layers: list[nn.Module] = []
    for index, (channels_in, channels_out) in enumerate(pairwise(channels)):
        stride, padding = (2, 0) if index == 0 and not small else (1, 1)
        # A bias before batch normalisation would do nothing.
        bias = norm != "batch_norm"
        layers.append(nn.Conv2d(channels_in, channels_out, 3, stride, padding, bias=bias, device="meta"))
        if norm == "norm":
            layers.append(nn.GroupNorm(math.gcd(MAX_GROUPS, channels_out), channels_out, device="meta"))
        elif norm == "batch_norm":
            layers.append(nn.BatchNorm2d(channels_out, device="meta"))
        layers.append(nn.ReLU())
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], task.num_classes, device="meta")]
    return nn.Sequential(*layers)


@torch.no_grad()
def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """PyTorch's own defaults: weights and biases uniform within 1 / sqrt(fan-in), embeddings standard normal.

    Layers are made on the `meta` device, so that their constructors do not draw from the global generator first.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            layer.weight.uniform_(-bound, bound, generator=generator)
            if layer.bias is not None:
                layer.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(layer, nn.Embedding):
            layer.weight.normal_(generator=generator)
        elif isinstance(layer, nn.LayerNorm | nn.GroupNorm):
            layer.weight.fill_(1.0)
            layer.bias.fill_(0.0)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_parameters()  # also the running means and variances, which `to_empty` left undefined

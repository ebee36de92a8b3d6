"""Small networks for small images."""

import math
from itertools import pairwise

import torch
from torch import nn

from ..errors import OptionError
from .task import TaskData

MLP_HIDDEN = (64, 32)
SMALL_IMAGE = 16  # pixels; images narrower than this get the smaller conv net


def make_network(name: str, task: TaskData, seed: int) -> nn.Module:
    """A freshly initialised network for a task; the same for the same seed, and no global random state is touched.

    `mlp` has two hidden layers of 64 and 32 units. `conv` has three 3x3 convolutions, the mean over all positions and
    a linear layer: 16, 32 and 32 channels with stride 2 in the first on images of 16 pixels and more, which on
    Fashion-MNIST are the 14,378 parameters of the task FM-16 (B. Knyazev, A. Moudgil, G. Lajoie, E. Belilovsky and
    S. Lacoste-Julien, 2025, Accelerating Training with Neuron Interaction and Nowcasting Networks, arXiv:2409.04434);
    8, 16 and 16 without a stride on smaller ones.

    Args:
        name: `mlp` or `conv`.
        task: gives the shape of the images and the number of classes.
        seed: of the initialisation.

    Raises:
        OptionError: if there is no such network.
    """
    if name == "mlp":
        network = _mlp(math.prod(task.image_shape), task.num_classes)
    elif name == "conv":
        network = _conv(task.image_shape, task.num_classes)
    else:
        raise OptionError(f"`network` must be one of mlp, conv, got {name!r}.")
    _initialise(network, torch.Generator().manual_seed(seed))
    return network


def _mlp(num_inputs: int, num_classes: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    widths = (num_inputs, *MLP_HIDDEN)
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out, device="meta"), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes, device="meta")).to_empty(device="cpu")


def _conv(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    num_channels, height, width = image_shape
    small = min(height, width) < SMALL_IMAGE
    channels = (num_channels, 8, 16, 16) if small else (num_channels, 16, 32, 32)
    layers: list[nn.Module] = []
    for index, (channels_in, channels_out) in enumerate(pairwise(channels)):
        stride, padding = (2, 0) if index == 0 and not small else (1, 1)
        layers += [nn.Conv2d(channels_in, channels_out, 3, stride, padding, device="meta"), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes, device="meta")]
    return nn.Sequential(*layers).to_empty(device="cpu")


@torch.no_grad()
def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """PyTorch's own default: weights and biases uniform within 1 / sqrt(fan-in), drawn from our generator.

    Layers are made on the `meta` device, so that their constructors do not draw from the global generator first.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            layer.weight.uniform_(-bound, bound, generator=generator)
            if layer.bias is not None:
                layer.bias.uniform_(-bound, bound, generator=generator)

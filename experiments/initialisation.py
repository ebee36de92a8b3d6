"""Schemes by which a network's weights begin, other than PyTorch's own.

Of each linear layer and convolution with fan-in n (weights `[out, in, ...]`, biases zero but in `default`):

    default           uniform within 1 / sqrt(n), biases too: PyTorch's, and what `make_network` does
    normal            Gaussian of variance 2 / n (He)
    uniform           uniform of variance 2 / n
    orthogonal        rows or columns of equal norm, at right angles, variance of an entry as in `normal` on average
    delta_orthogonal  the same in the centre of each convolution's kernel, zeros around it: every layer begins as a
                      rotation of each position, which trains networks of ten thousand layers

Embeddings and norms are left as they are.

References:
    K. He, X. Zhang, S. Ren and J. Sun (2015), Delving Deep into Rectifiers, arXiv:1502.01852, equation 10.
    A. M. Saxe, J. L. McClelland and S. Ganguli (2014), Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks, arXiv:1312.6120.
    L. Xiao, Y. Bahri, J. Sohl-Dickstein, S. S. Schoenholz and J. Pennington (2018), Dynamical Isometry and a Mean Field
    Theory of CNNs, arXiv:1806.05393, algorithm 1.
"""

import math
from typing import get_args

import torch
from torch import Tensor, nn

from .errors import OptionError
from .options import InitName

GAIN = 2.0  # of the variance, for what ReLU halves


def init_names() -> tuple[str, ...]:
    """The schemes that `initialise` knows."""
    return get_args(InitName)


@torch.no_grad()
def initialise(network: nn.Module, scheme: str, seed: int) -> None:
    """Give a network's linear layers and convolutions new weights, in place; no global random state is touched.

    Args:
        network: fresh, as `make_network` gives it.
        scheme: one of `init_names()`; `default` changes nothing.
        seed: of what is drawn.

    Raises:
        OptionError: if there is no such scheme.
    """
    if scheme not in init_names():
        raise OptionError(f"`init` must be one of {', '.join(init_names())}, got {scheme!r}.")
    if scheme == "default":
        return
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.copy_(_weights(layer.weight, scheme, generator))
            if layer.bias is not None:
                layer.bias.zero_()


def _weights(like: Tensor, scheme: str, generator: torch.Generator) -> Tensor:
    fan_in = like[0].numel()
    deviation = math.sqrt(GAIN / fan_in)
    if scheme == "normal":
        return torch.empty_like(like).normal_(0, deviation, generator=generator)
    if scheme == "uniform":
        bound = math.sqrt(3) * deviation
        return torch.empty_like(like).uniform_(-bound, bound, generator=generator)
    if scheme == "delta_orthogonal" and like.ndim > 2:
        weights = torch.zeros_like(like)
        centre = tuple(extent // 2 for extent in like.shape[2:])
        weights[(slice(None), slice(None), *centre)] = math.sqrt(GAIN) * _orthogonal(
            like.shape[0], like.shape[1], generator
        )
        return weights
    flat = _orthogonal(like.shape[0], fan_in, generator)
    # Entries of a matrix with more rows than columns have the variance 1 / rows; the others 1 / columns already.
    return (flat * math.sqrt(GAIN * max(like.shape[0], fan_in) / fan_in)).reshape(like.shape)


def _orthogonal(height: int, width: int, generator: torch.Generator) -> Tensor:
    """A matrix whose rows, or columns where these are fewer, are of norm 1 and at right angles."""
    square = torch.empty(max(height, width), min(height, width)).normal_(generator=generator)
    found, upper = torch.linalg.qr(square)
    found = found * torch.sign(torch.diag(upper))  # else it is not uniform among all such matrices
    return found if height >= width else found.T

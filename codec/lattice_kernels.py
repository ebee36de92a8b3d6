"""Nearest points of D4 and E8 as one fused kernel each, for whoever needs hundreds of millions of coordinates a second.

`torch.compile` makes one loop of what eager torch does in sixty passes over memory: on one thread D4 takes 53 million
coordinates a second eagerly and 920 compiled, E8 20 and 390 (`benchmarks/lattice_speed.txt`). The codec does without:
compiling takes a minute and a C++ compiler, and its quantiser spends most of its time elsewhere.

Vectors lie in columns, `[dimension, vector]`, so that neighbouring lanes are neighbouring vectors. The algorithm is
that of `lattice_points.nearest` without a bias, but for ties: coordinates are rounded half to even.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import ConfigError

Kernel = Callable[[Tensor], Tensor]


def even_sum(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest whole vectors of even sum, and their squared distances.

    Args:
        vectors: `[dimension, vector]`, float32.

    Returns:
        `[dimension, vector]` and `[vector]`.
    """
    rounded = torch.round(vectors)
    left = vectors - rounded
    sizes = left.abs()
    odd = (rounded.sum(0).to(torch.int32) & 1).bool()
    largest = sizes.amax(0)
    done = ~odd
    rows = []
    for row in range(len(vectors)):  # the first of several equal ones moves
        moves = (sizes[row] == largest) & ~done
        done = done | moves
        rows.append(rounded[row] + torch.where(moves, torch.where(left[row] < 0, -1.0, 1.0), 0.0))
    return torch.stack(rows), (left * left).sum(0) + torch.where(odd, 1 - 2 * largest, 0.0)


def nearest_d4(vectors: Tensor) -> Tensor:
    """The nearest points of D4, doubled, int32 `[4, vector]`."""
    return (2 * even_sum(vectors)[0]).to(torch.int32)


def nearest_e8(vectors: Tensor) -> Tensor:
    """The nearest points of E8, doubled, int32 `[8, vector]`; whole numbers before halves."""
    whole, cost = even_sum(vectors)
    halves, other = even_sum(vectors - 0.5)
    return torch.where(other < cost, 2 * halves + 1, 2 * whole).to(torch.int32)


KERNELS: dict[str, Kernel] = {"D4": nearest_d4, "E8": nearest_e8}


def compiled(name: str) -> Kernel:
    """The fused kernel of a lattice; compiled at its first call, anew for each kind of device.

    Args:
        name: "D4" or "E8".

    Raises:
        ConfigError: if there is no kernel of that name.
    """
    if name not in KERNELS:
        raise ConfigError(f"There are fused kernels of {tuple(KERNELS)}, got {name!r}.")
    return torch.compile(KERNELS[name], dynamic=False)

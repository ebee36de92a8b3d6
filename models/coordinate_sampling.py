"""Which coordinates of a case a per-coordinate network is trained on."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Layout, TensorSpec, Window
from .motion import random_walk


class Sample(NamedTuple):
    """Some coordinates of a window.

    Attributes:
        positions: in the flat vector, `[item]`, int64.
        counts: for how many coordinates each stands, `[item]`, float64: one over the number of times it was expected to
            be drawn. A sum over items of counts times anything estimates its sum over all moving coordinates, without
            bias.
        motion: `random_walk` of each, `[item]`, float64.
        energy: the sum of squared motion over all coordinates.
        length: the sum of motion over all coordinates.
    """

    positions: Tensor
    counts: Tensor
    motion: Tensor
    energy: float
    length: float


def sample_coordinates(window: Window, num_items: int, generator: torch.Generator) -> Sample:
    """A random choice of the coordinates that moved in a window, an equal share of each kind of tensor.

    Kinds share equally so that biases, one in a hundred of all coordinates, are seen. Within a kind all are taken where
    they are no more than its share. Otherwise half of the share is drawn evenly and half in proportion to squared
    motion, with replacement: squared errors are mostly those of the few coordinates that move most.

    Args:
        window: at least two rows.
        num_items: to draw, over all kinds.
        generator: the only source of randomness.
    """
    motion = random_walk(window).double().cpu()
    by_kind = _by_kind(window.layout)
    share = max(1, num_items // len(by_kind))
    positions: list[Tensor] = []
    counts: list[Tensor] = []
    for specs in by_kind:
        moving = motion[torch.cat([_range(spec) for spec in specs])] if len(specs) > 1 else motion[specs[0].span]
        found, count = _draw(moving, share, generator)
        positions.append(_flat(found, specs))
        counts.append(count)
    taken = torch.cat(positions)
    energy, length = float(motion.square().sum()), float(motion.sum())
    return Sample(taken, torch.cat(counts), motion[taken], energy, length)


def _draw(motion: Tensor, share: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions among those of one kind, and for how many each stands."""
    moved = motion > 0
    num_moved = int(moved.sum())
    if num_moved <= share:
        return moved.nonzero().squeeze(1), torch.ones(num_moved, dtype=torch.float64)
    squared = (motion / motion.max()).square()
    probability = (moved.double() / num_moved + squared / squared.sum()) / 2
    ladder = probability.cumsum(dim=0)
    # Up to the last step of the ladder, excluded: a draw never lands on a coordinate of probability zero.
    drawn = torch.rand(share, generator=generator, dtype=torch.float64) * ladder[-1]
    found = torch.searchsorted(ladder, drawn, right=True).clamp(max=int(moved.nonzero()[-1]))
    return found, 1 / (share * probability[found])


def _by_kind(layout: Layout) -> list[list[TensorSpec]]:
    """The tensors of each kind, kinds in alphabetic order."""
    kinds = sorted({spec.kind for spec in layout})
    return [[spec for spec in layout if spec.kind == kind] for kind in kinds]


def _range(spec: TensorSpec) -> Tensor:
    return torch.arange(spec.offset, spec.offset + spec.numel)


def _flat(found: Tensor, specs: list[TensorSpec]) -> Tensor:
    """Positions in the flat vector from positions in the tensors of a kind laid end to end."""
    sizes = torch.tensor([spec.numel for spec in specs])
    ends = sizes.cumsum(dim=0)
    which = torch.searchsorted(ends, found, right=True)
    return torch.tensor([spec.offset for spec in specs])[which] + found - (ends - sizes)[which]

"""What a learning problem consists of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Images and their classes.

    Attributes:
        images: `[sample, channel, height, width]`, float32, normalised.
        labels: `[sample]`, int64.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TaskData:
    """One learning problem, cut into four disjoint sets, the same ones on every machine.

    A number measured on a set that something was chosen by is worth nothing; hence four, not two.

    Attributes:
        name: as in `load_task`.
        train: what the network learns from.
        verify: what jumps are verified on.
        tune: what forecasters and hyper-parameters are chosen by.
        test: what results are reported on.
        num_classes: number of classes.
        image_shape: `(channel, height, width)`.
        attribution: whose data it is and under which licence; shown in every report.
    """

    name: str
    train: Split
    verify: Split
    tune: Split
    test: Split
    num_classes: int
    image_shape: tuple[int, int, int]
    attribution: str


def normalised(images: Tensor, mean: float, deviation: float) -> Tensor:
    """Byte images `[sample, height, width]` as `[sample, 1, height, width]`, float32, `(x - mean) / deviation`."""
    return images.unsqueeze(1).float().sub_(mean).div_(deviation)


def shuffled_split(split: Split, sizes: Sequence[int], seed: int) -> list[Split]:
    """Cut a set into parts of the given sizes, in an order drawn from a seed; they share no sample.

    The sizes must add up to the set's: a caller who forgot a sample has made a mistake.
    """
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(seed))
    return [Split(split.images[rows], split.labels[rows]) for rows in order.split(list(sizes))]

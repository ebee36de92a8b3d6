"""What a learning problem consists of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Inputs and their classes.

    Attributes:
        inputs: images, or other rows of numbers, `[sample, channel, height, width]`, float32, normalised; or texts
            `[sample, context]`, the numbers of symbols, int64.
        labels: `[sample]`, int64.
    """

    inputs: Tensor
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
        input_shape: of one input: `(channel, height, width)` of an image, `(context,)` of a text.
        attribution: whose data it is and under which licence; shown in every report.
        num_symbols: how many different symbols a text is made of; None for images.
        spatial: whether neighbouring pixels have to do with each other, as convolutions suppose.
    """

    name: str
    train: Split
    verify: Split
    tune: Split
    test: Split
    num_classes: int
    input_shape: tuple[int, ...]
    attribution: str
    num_symbols: int | None = None
    spatial: bool = False


def normalised(images: Tensor, mean: float, deviation: float) -> Tensor:
    """Byte images `[sample, height, width]` as `[sample, 1, height, width]`, float32, `(x - mean) / deviation`."""
    return images.unsqueeze(1).float().sub_(mean).div_(deviation)


def shuffled_split(split: Split, sizes: Sequence[int], seed: int) -> list[Split]:
    """Cut a set into parts of the given sizes, in an order drawn from a seed; they share no sample.

    The sizes must add up to the set's: a caller who forgot a sample has made a mistake.
    """
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(seed))
    return [Split(split.inputs[rows], split.labels[rows]) for rows in order.split(list(sizes))]

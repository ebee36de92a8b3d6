"""How far off learned forecasters expect to be: fitted to what they got wrong on validation cases."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..forecast import Window
from .fitting import Examples
from .horizons import between
from .motion import random_walk, working_dtype
from .rows import chunks

Groups = Sequence[str]
ALL = ""  # the group that stands for all tensors


def group_positions(window: Window, groups: Groups) -> list[int]:
    """For each tensor of the window the position of its kind in `groups`; 0, which is all of them, where it has none.

    Args:
        window: whose layout tells the kinds.
        groups: names of kinds; the first is `ALL`.
    """
    index_of = {name: index for index, name in enumerate(groups)}
    return [index_of.get(spec.kind, 0) for spec in window.layout]


def kinds_in(examples: Examples) -> list[str]:
    """`ALL` and the kinds of tensors that the training cases have, in alphabetic order."""
    return [ALL, *sorted({spec.kind for case in examples.cases[examples.training] for spec in case.window.layout})]


def relative_variance(
    examples: Examples, groups: Groups, mean_of: Callable[[Window, Sequence[int]], Sequence[Tensor]]
) -> Tensor:
    """Squared error on the validation cases over squared motion, `[horizon, group]`, float64.

    A forecaster's scale is then `random_walk(window) * sqrt(variance)`. A group that stood still in the validation
    cases tells nothing about its errors; all of them together do.

    Args:
        examples: the cases, with their weights.
        groups: kinds of tensors, the first `ALL`.
        mean_of: the forecaster's means for a window at some horizons, each `[param]`.
    """
    errors = torch.zeros(len(examples.horizons), len(groups), dtype=torch.float64)
    motion = torch.zeros(len(groups), dtype=torch.float64)
    part = examples.validation
    for case, weight in zip(examples.cases[part], examples.weights[part].tolist(), strict=True):
        window = case.window
        dtype = working_dtype(window.values.dtype)
        group_of = group_positions(window, groups)
        sigma = random_walk(window)
        means = mean_of(window, examples.horizons)
        wrong = [mean.to(dtype) - case.targets[h].to(dtype) for h, mean in zip(examples.horizons, means, strict=True)]
        for index, span in chunks(window.layout):
            moved = weight * float(sigma[span].double().square().sum())
            off = weight * torch.stack([row[span].double().square().sum() for row in wrong]).cpu()
            for group in {0, group_of[index]}:
                motion[group] += moved
                errors[:, group] += off
    own = errors / motion.where(motion > 0, 1.0)
    return torch.where(motion > 0, own, own[:, :1])


def variance_at(horizons: Tensor, variance: Tensor, horizon: int) -> Tensor:
    """The variance at any horizon, `[group]`: linear between trained ones, and beyond them growing with the square.

    Zero at horizon 0. Beyond the longest trained horizon it grows as the error of a wrong velocity does.
    """
    longest = int(horizons[-1])
    if horizon <= longest:
        return between(horizons, variance, horizon)
    return variance[-1] * (horizon / longest) ** 2

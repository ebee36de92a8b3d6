"""How far off learned forecasters expect to be: fitted to what they got wrong on validation cases."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Window
from ..forecast.errors import NotFittedError
from .fitting import Examples
from .horizons import between
from .motion import random_walk, walked, working_dtype
from .rows import chunks
from .stored_state import require_horizons, require_tensors

Groups = Sequence[str]
ALL = ""  # the group that stands for all tensors
MAX_GROUPS = 64  # a file that claims more is damaged or hostile


class LearnedScale(NamedTuple):
    """The scale of a learned forecaster: the window's motion times a factor for each horizon and kind of tensor.

    scale = sigma sqrt(r(horizon)), with sigma the window's motion per step (`random_walk`, `[param]`) and r the mean
    squared error on the validation cases over mean squared sigma. r is linear between trained horizons, zero at horizon
    0, and grows with the square of the horizon beyond the longest trained one, as the error of a wrong velocity does.

    Attributes:
        groups: kinds of tensors; the first, the empty name, stands for all and for kinds that were not there.
        horizons: trained ones, `[horizon]`, int64, ascending.
        variance: r, `[horizon, group]`, float64.
    """

    groups: list[str]
    horizons: Tensor
    variance: Tensor

    @classmethod
    def of(cls, examples: Examples, mean_of: Callable[[Window, Sequence[int]], Sequence[Tensor]]) -> "LearnedScale":
        """Learned from the validation cases; see `relative_variance`."""
        groups = kinds_in(examples)
        return cls(groups, torch.tensor(examples.horizons), relative_variance(examples, groups, mean_of))

    def at(self, window: Window, horizon: int) -> Tensor:
        """The scale of one horizon, `[param]`, in the window's type."""
        factors = variance_at(self.horizons, self.variance, horizon).sqrt()
        return walked(window, factors[group_positions(window, self.groups)])

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, as tensors; their names begin with `scale.`."""
        return {
            "scale.groups": torch.tensor(list(json.dumps(self.groups).encode()), dtype=torch.uint8),
            "scale.horizons": self.horizons.clone(),
            "scale.variance": self.variance.clone(),
        }

    @classmethod
    def read(cls, name: str, state: Mapping[str, Tensor]) -> "LearnedScale":
        """Take over untrusted tensors; those whose names do not begin with `scale.` are left to the caller.

        Args:
            name: the forecaster, for messages.
            state: what was read.

        Raises:
            NotFittedError: naming what is wrong with them.
        """
        own = {key: value for key, value in state.items() if key.startswith("scale.")}
        shape = tuple(own["scale.variance"].shape) if "scale.variance" in own else ()
        num_horizons, num_groups = shape if len(shape) == 2 else (0, 0)
        num_bytes = own["scale.groups"].numel() if "scale.groups" in own else 0
        require_tensors(
            name,
            own,
            {
                "scale.groups": (torch.uint8, (num_bytes,)),
                "scale.horizons": (torch.int64, (num_horizons,)),
                "scale.variance": (torch.float64, (num_horizons, num_groups)),
            },
        )
        require_horizons(own["scale.horizons"])
        try:
            groups = json.loads(bytes(own["scale.groups"].tolist()))
        except ValueError as error:
            raise NotFittedError(f"'scale.groups' of {name!r} is not a list of names: {error}.") from error
        if (
            not isinstance(groups, list)
            or not all(isinstance(group, str) for group in groups)
            or not 1 <= len(groups) == num_groups <= MAX_GROUPS
        ):
            raise NotFittedError(f"'scale.groups' of {name!r} must name each of {num_groups} groups.")
        if not bool((own["scale.variance"] >= 0).all()):
            raise NotFittedError(f"'scale.variance' of {name!r} must be at least 0.")
        return cls(groups, own["scale.horizons"].clone(), own["scale.variance"].clone())


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

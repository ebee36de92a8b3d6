"""Cases as items of training in which each tensor of each case is one, small enough to keep thousands of runs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..forecast import Window
from ..forecast.errors import WindowError
from .errors import FittingError
from .fitting import Examples
from .gram_features import gram_features, motion, rate_change
from .normal_equations import CaseSums, NormalEquations
from .rows import gram
from .scales import Groups, group_positions


class Seen(NamedTuple):
    """What a network sees of tensors; lengths are in units of each tensor's own root mean squared step.

    Attributes:
        features: `[item, feature]`, float64; see `gram_features`.
        group: position of the tensor's kind among those that were trained on, `[item]`, int64.
        gram: inner products of the rows' deviations from the newest, `[item, time - 1, time - 1]`, float64.
    """

    features: Tensor
    group: Tensor
    gram: Tensor

    @classmethod
    def of(cls, window: Window, groups: Groups) -> "Seen":
        """The tensors of a window.

        Raises:
            WindowError: if squares of the values overflow float64.
        """
        return cls.of_all([window], [gram(window)], groups)[0]

    @classmethod
    def of_all(cls, windows: Sequence[Window], grams: Sequence[Tensor], groups: Groups) -> tuple["Seen", Tensor]:
        """The tensors of windows with known Gram matrices, all at once, and their squared units, 1 for still ones."""
        for window, products in zip(windows, grams, strict=True):
            if not bool(torch.isfinite(products).all()):
                raise WindowError(f"The values at step {window.last_step} are too large: their squares overflow.")
        products = torch.cat(list(grams))
        sizes = torch.tensor([spec.numel for window in windows for spec in window.layout])
        changes = [rate_change(window.learning_rates) for window in windows for _ in window.layout]
        square = motion(products)
        square = torch.where(square > 0, square, 1.0)
        group = torch.tensor([group for window in windows for group in group_positions(window, groups)])
        features = gram_features(products, sizes, torch.tensor(changes, dtype=torch.float64))
        return cls(features, group, products / square[:, None, None]), square


class TensorItems(NamedTuple):
    """Tensors of many cases and what came after them, lengths in units of each one's root mean squared step.

    Attributes:
        seen: what a forecaster may see.
        cross: inner products of targets and rows, `[item, horizon, time - 1]`, float64.
        persistence: squared lengths of the targets' displacements, `[item, horizon]`, float64.
        weights: what a squared error counts for, `[item]`: the case's weight times the squared unit.
    """

    seen: Seen
    cross: Tensor
    persistence: Tensor
    weights: Tensor

    @classmethod
    def of(cls, examples: Examples, part: slice, groups: Groups) -> "TensorItems":
        """All tensors of a part of the examples, read once; cases in which nothing moves are left out.

        Raises:
            FittingError: if squares of the values overflow float64.
        """
        key = ("tensor items", part.start, part.stop, tuple(groups))
        return examples.derived(key, lambda: cls._read(examples, part, groups))

    @classmethod
    def _read(cls, examples: Examples, part: slice, groups: Groups) -> "TensorItems":
        weights = examples.weights[part].tolist()
        moving = [(case, weight) for case, weight in zip(examples.cases[part], weights, strict=True) if weight]
        if not moving:
            raise FittingError("The values are too large to fit, or nothing moves.")
        sums = [CaseSums.of(case, examples.horizons) for case, _ in moving]
        try:
            seen, square = Seen.of_all([case.window for case, _ in moving], [each.gram for each in sums], groups)
        except WindowError as error:
            raise FittingError(str(error)) from error
        cross, persistence = torch.cat([each.cross for each in sums]), torch.cat([each.persistence for each in sums])
        weight = torch.tensor([weight for case, weight in moving for _ in case.window.layout], dtype=torch.float64)
        return cls(seen, cross / square[:, None, None], persistence / square[:, None], weight * square)

    def normal_equations(self, num_groups: int) -> NormalEquations:
        """The sums over the tensors of each group; their motion is not known here."""
        size, num_horizons = self.cross.shape[-1], self.cross.shape[1]
        weights, group = self.weights, self.seen.group
        gram = self.cross.new_zeros(num_groups, size, size)
        cross = self.cross.new_zeros(num_groups, num_horizons, size)
        persistence = self.cross.new_zeros(num_groups, num_horizons)
        gram.index_add_(0, group, weights[:, None, None] * self.seen.gram)
        cross.index_add_(0, group, weights[:, None, None] * self.cross)
        persistence.index_add_(0, group, weights[:, None] * self.persistence)
        nothing = self.cross.new_zeros(num_groups)
        return NormalEquations(gram, cross.transpose(0, 1), persistence.T, nothing)

"""How far off a forecaster of tensors expects to be, by how each tensor moves."""

from typing import NamedTuple

import torch
from torch import Tensor

from .scales import LearnedScale, variance_at

LEAST_RIDGE = 1e-2  # relative to features of unit variance
SMALLEST = 1e-12  # squared errors and displacements, in units of the tensor's squared step; what is less counts as this
MARGIN = 1.0  # how far beyond the corrections seen on validation items, in log variance, one may go


class AdaptiveScale(NamedTuple):
    """A correction to `LearnedScale` by features of the tensor at hand.

    log r = log r0 + w . (1, x, log |forecast displacement|^2), with r0 the variance of `LearnedScale` for the kind, x
    the standardised features and the displacement in units of the tensor's step. w is solved by ridge regression on the
    logarithms of what the forecaster got wrong on the validation items, each coordinate counting the same, and shifted
    so that the mean variance is right there. The ridge grows where items are few (features over items), so that little
    data leaves `LearnedScale` nearly as it is.

    Measured as in `AdaptiveLinear`, with a third of the training cases: a factor for each kind alone covered 57, 45 and
    45 % of the coordinates of runs of another task within one scale; with the correction 69, 62 and 54 %.

    Attributes:
        weights: w, `[horizon, 1 + condition + 1]`, float64.
        limits: least and largest correction, `[horizon, 2]`, float64.
    """

    weights: Tensor
    limits: Tensor

    @classmethod
    def of(cls, condition: Tensor, moved: Tensor, ratio: Tensor, sizes: Tensor) -> "AdaptiveScale":
        """Fitted to validation items.

        Args:
            condition: standardised features of each item, `[item, condition]`.
            moved: squared forecast displacement of each item, `[item, horizon]`, in units of its squared step.
            ratio: squared error over what `LearnedScale` expects, `[item, horizon]`.
            sizes: what each item counts for: its number of coordinates, `[item]`, some above 0.
        """
        share = (sizes / sizes.sum()).double()
        ridge = max(LEAST_RIDGE, (condition.shape[1] + 2) / len(condition))
        wanted = ratio.clamp(min=SMALLEST).log()
        weights, limits = [], []
        for horizon in range(ratio.shape[1]):
            inputs = _inputs(condition, moved[:, horizon])
            penalty = ridge * torch.eye(inputs.shape[1], dtype=torch.float64)
            penalty[0, 0] = 0.0
            weighted = inputs * share[:, None]
            solution = torch.linalg.solve(weighted.T @ inputs + penalty, weighted.T @ wanted[:, horizon])
            solution[0] += (share * ratio[:, horizon] * (-inputs @ solution).exp()).sum().clamp(min=SMALLEST).log()
            fitted = inputs @ solution
            weights.append(solution)
            limits.append(torch.stack((fitted.min() - MARGIN, fitted.max() + MARGIN)))
        return cls(torch.stack(weights), torch.stack(limits))

    def correction(self, condition: Tensor, moved: Tensor) -> Tensor:
        """log r - log r0 at the trained horizons, `[item, horizon]`; arguments as in `of`."""
        found = [_inputs(condition, moved[:, index]) @ weights for index, weights in enumerate(self.weights)]
        return torch.stack(found, dim=1).clamp(self.limits[:, 0], self.limits[:, 1])

    def factors(self, base: LearnedScale, groups: Tensor, condition: Tensor, moved: Tensor, horizon: int) -> Tensor:
        """Scale over the window's motion (`random_walk`) for each tensor at any horizon, `[tensor]`."""
        variance = base.variance[:, groups] * self.correction(condition, moved).exp().T
        return variance_at(base.horizons, variance, horizon).sqrt()


def _inputs(condition: Tensor, moved: Tensor) -> Tensor:
    return torch.cat((torch.ones_like(moved)[:, None], condition, moved.clamp(min=SMALLEST).log()[:, None]), dim=1)

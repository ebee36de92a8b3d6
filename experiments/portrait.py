"""What a recorded run looks like: worked out from its trajectory after it has ended, at no cost to the run."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from ..callbacks import OnlineForecaster
from ..forecast import Trajectory
from .anatomy import anatomy
from .forecast_paths import forecast_paths
from .likeness import cosine_map
from .plane import MIN_ROWS, losses_on, path_in, plane_of
from .tasks import TaskData

MAX_NUMBERS = 1e8  # of all rows of the path together; of longer runs of larger networks fewer are read


def portrait(
    trajectory: Trajectory,
    module: pl.LightningModule,
    task: TaskData,
    online: OnlineForecaster | None,
    horizons: Sequence[int],
    nmse: float,
) -> dict[str, Any]:
    """The path of the weights in their plane, forecasts beside the truth, and what its gradients are made of.

    Args:
        trajectory: of the run.
        module: after it.
        task: whose verification set the loss is of.
        online: the forecasters that were fitted meanwhile; None for none.
        horizons: how far ahead they looked, in optimiser steps.
        nmse: error at which the gradients are coded.

    Returns:
        `pca`, `forecasts`, `anatomy` and `likeness` as a result of `record` holds them; None for what the trajectory
        does not tell.
    """
    found: dict[str, Any] = {"pca": None, "forecasts": None, "anatomy": None, "likeness": None}
    if "gradients" in trajectory.streams:
        found["anatomy"] = anatomy(trajectory, "gradients", nmse)
        found["likeness"] = cosine_map(trajectory, "gradients")
    if "weights" not in trajectory.streams:
        return found
    weights = trajectory.stream("weights")
    places = _some(len(weights), int(MAX_NUMBERS // max(trajectory.layout.size, 1)))
    rows = torch.from_numpy(weights[places].copy())
    plane = plane_of(rows)
    if plane is None:
        return found
    path = path_in(plane, rows, weights.steps[places].tolist())
    found["pca"] = path | {"losses": losses_on(plane, path["points"], rows[-1], module, trajectory.layout, task.verify)}
    if online is not None:
        made = list(online.forecasters.values())
        found["forecasts"] = forecast_paths(trajectory, made, horizons, online.window_rows, plane, online.graph)
    return found


def _some(number: int, at_most: int) -> list[int]:
    """Places of some rows evenly over all, the first and the last among them; all where there are not too many."""
    if number <= at_most:
        return list(range(number))
    return np.unique(np.linspace(0, number - 1, max(at_most, MIN_ROWS)).round().astype(int)).tolist()

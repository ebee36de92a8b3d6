"""Where forecasts of the weights went, beside where training went."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..forecast import Case, Forecaster, Trajectory, cases
from ..forecast.coordinates import PCACoordinates
from ..forecast.graph import NeuralGraph

SCORED_SHARE = 3  # of the newest rows, one in so many scores forecasters online; none of these is fitted to


def forecast_paths(
    trajectory: Trajectory,
    forecasters: Sequence[Forecaster],
    horizons: Sequence[int],
    window_rows: int,
    plane: PCACoordinates,
    graph: NeuralGraph | None = None,
) -> dict[str, Any] | None:
    """Forecasts from the latest recorded step whose future was recorded, too, and that future.

    The forecasters may have been fitted while the run went on, as `OnlineForecaster` does: rows after the step are
    none of those they were fitted to.

    Positions are told in two numbers that hold all distances to the way from the step to the end of its future, in
    lengths of that way: `along` it, and `off` it. Training ends at (1, 0), standing still stays at (0, 0).

    Args:
        trajectory: with the stream `weights`.
        forecasters: those that are not fitted are left out.
        horizons: optimiser steps ahead.
        window_rows: how many of the newest rows were used online.
        plane: to tell the positions in it as well.
        graph: the network's neural graph, for forecasters that need one.

    Returns:
        As plain data: the `step`, the `truth` and the forecasts `by` each forecaster. `None` where the run is too
        short, or stood still.
    """
    steps = trajectory.stream("weights").steps
    first = int(steps[max(0, len(steps) - window_rows)])
    wanted = sorted(horizon for horizon in horizons if horizon * SCORED_SHARE <= int(steps[-1]) - first)
    if not wanted:
        return None
    found: dict[str, Any] | None = None
    for forecaster in forecasters:
        case = _last_case(trajectory, forecaster, wanted, first, graph) if forecaster.fitted else None
        if case is None:
            continue
        origin, way = case.window.last, case.targets[wanted[-1]] - case.window.last
        if not float(way.double().square().sum()) > 0:
            return None
        if found is None:
            truth = [case.targets[horizon] for horizon in wanted]
            found = {
                "step": case.window.last_step,
                "horizons": wanted,
                "start": plane.from_parameters(origin).tolist(),
                "truth": _positions(truth, origin, way, plane),
                "by": [],
            }
        if case.window.last_step == found["step"]:
            made = [forecast.mean for forecast in forecaster.forecast(case.window, wanted)]
            found["by"].append({"forecaster": forecaster.name, **_positions(made, origin, way, plane)})
    return found


def _last_case(
    trajectory: Trajectory, forecaster: Forecaster, horizons: Sequence[int], first: int, graph: NeuralGraph | None
) -> Case | None:
    found = cases(
        trajectory,
        "weights",
        forecaster.history,
        horizons,
        first_step=first,
        with_moments=forecaster.needs_moments,
        graph=graph if forecaster.needs_graph else None,
    )
    return found[-1] if found else None


def _positions(rows: Sequence[Tensor], origin: Tensor, way: Tensor, plane: PCACoordinates) -> dict[str, Any]:
    """Along and off the way, and in the plane."""
    stacked = torch.stack(list(rows)).double() - origin.double()
    line = way.double()
    along = stacked @ line / (line @ line)
    off = (stacked - along[:, None] * line).norm(dim=1) / line.norm()
    return {
        "along": along.tolist(),
        "off": off.tolist(),
        "plane": plane.from_parameters(torch.stack(list(rows))).tolist(),
    }

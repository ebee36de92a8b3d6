"""A second-order differential equation with a learned right-hand side, in few coordinates."""

import math
from itertools import pairwise
from typing import Literal, cast

import torch
import torchdiffeq
from torch import Tensor, nn
from typing_extensions import override

Method = Literal["rk4", "dopri5"]
TOLERANCE = 1e-7  # of dopri5, relative and absolute; the state's unit is one row's motion


class Acceleration(nn.Module):
    """g(position, velocity): a small network, `[case, rank]` each to `[case, rank]`, float64.

    Its last layer starts at zero, so that an unfitted flow goes straight on. It is float64 because the coordinates are
    few: rounding then plays no part in comparing solvers, and the cost is the same.

    Args:
        rank: number of coordinates.
        width: of both hidden layers.
        generator: of the initial values; left at zero without one, to be loaded.
    """

    def __init__(self, rank: int, width: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.inner = _empty_linear(2 * rank, width)
        self.hidden = _empty_linear(width, width)
        self.outer = _empty_linear(width, rank)
        with torch.no_grad():
            for value in self.parameters():
                value.zero_()
            if generator is not None:
                for layer in (self.inner, self.hidden):
                    # Glorot and Bengio 2010, as usual before tanh.
                    bound = math.sqrt(6 / (layer.in_features + layer.out_features))
                    layer.weight.uniform_(-bound, bound, generator=generator)

    @override
    def forward(self, position: Tensor, velocity: Tensor) -> Tensor:
        inner = torch.tanh(self.inner(torch.cat((position, velocity), dim=-1)))
        return self.outer(torch.tanh(self.hidden(inner)))


def _empty_linear(num_in: int, num_out: int) -> nn.Linear:
    """A float64 layer without values: the usual initialisation would draw from the global generator."""
    return cast(nn.Linear, nn.utils.skip_init(nn.Linear, num_in, num_out, dtype=torch.float64))


class Flow(nn.Module):
    """The motion of a batch of cases as a first-order system, in units of each case's own speed.

    With x the displacement since the start over the speed s, and u = x' the velocity over the speed,

        x' = u,    u' = g(start + gain x, u),

    a second-order neural ODE (Norcliffe et al. 2020, arXiv 2006.07220, section 2). Its solution scales with the speed.

    Args:
        acceleration: g.
        start: normalised coordinates at time 0, `[case, rank]`.
        gain: what one unit of x means in normalised coordinates, `[case, rank]`.
    """

    def __init__(self, acceleration: Acceleration, start: Tensor, gain: Tensor) -> None:
        super().__init__()
        self.acceleration = acceleration
        self.start = start
        self.gain = gain

    @override
    def forward(self, time: Tensor, state: Tensor) -> Tensor:
        """The derivative of `state` = (x, u), `[case, 2 rank]`; `time` plays no part."""
        displacement, velocity = state.chunk(2, dim=-1)
        change = self.acceleration(self.start + self.gain * displacement, velocity)
        return torch.cat((velocity, change), dim=-1)


def integrate(
    flow: Flow, direction: Tensor, times: Tensor, method: Method = "rk4", step_size: float = 1.0, adjoint: bool = False
) -> Tensor:
    """Displacements over speed at `times`, `[horizon, case, rank]`.

    Args:
        flow: the system.
        direction: velocity over speed at time 0, `[case, rank]`, float64.
        times: positive and ascending, `[horizon]`, float64.
        method: `rk4` with steps of at most `step_size`, every time hit exactly; or `dopri5`, which chooses its steps.
        step_size: of `rk4`.
        adjoint: get gradients by the adjoint equation (Chen et al. 2018, arXiv 1806.07366, algorithm 1) instead of
            through the solver.
    """
    begin = torch.cat((torch.zeros_like(direction), direction), dim=-1)
    ends = torch.cat((times.new_zeros(1), times))
    if method == "rk4":
        # torchdiffeq's own `step_size` interpolates linearly where a time is no multiple of it. A grid through all
        # times does not.
        grid, wanted = _grid(ends.tolist(), step_size)
        ends = times.new_tensor(grid)
    else:
        wanted = list(range(1, len(ends)))
    solve = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
    states: Tensor = solve(flow, begin, ends, rtol=TOLERANCE, atol=TOLERANCE, method=method)  # type: ignore[assignment]
    return states[wanted].chunk(2, dim=-1)[0]


def _grid(times: list[float], step_size: float) -> tuple[list[float], list[int]]:
    """Ascending times with gaps of at most `step_size` through all of `times`, and where these are, less the first."""
    grid, positions = [times[0]], []
    for begin, end in pairwise(times):
        count = max(1, math.ceil((end - begin) / step_size - 1e-9))
        grid += [begin + (end - begin) * index / count for index in range(1, count)] + [end]
        positions.append(len(grid) - 1)
    return grid, positions

"""A second-order differential equation with a learned right-hand side, in few coordinates."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
import torchdiffeq
from torch import Tensor
from typing_extensions import override

from .conditioned import Conditioned
from .small_network import SmallNetwork
from .solver import time_grid

Method = Literal["rk4", "dopri5"]
TOLERANCE = 1e-7  # of dopri5, relative and absolute; the state's unit is one row's motion


class Solver(NamedTuple):
    """How an equation is solved.

    Attributes:
        method: `rk4` with steps of at most `step_size`, every time hit exactly; or `dopri5`, which chooses its steps.
        step_size: of `rk4`.
        adjoint: get gradients by the adjoint equation (Chen et al. 2018, arXiv 1806.07366, algorithm 1) instead of
            through the solver.
    """

    method: Method = "rk4"
    step_size: float = 1.0
    adjoint: bool = False


class Flow(torch.nn.Module):
    """The motion of a batch of items as a first-order system, in units of each item's own speed.

    With x the displacement since the start over the speed, and u = x' the velocity over the speed,

        x' = u,    u' = g(start + gain x, u, condition),

    a second-order neural ODE (Norcliffe et al. 2020, arXiv 2006.07220, section 2). Its solution scales with the speed.

    Args:
        acceleration: g; its inputs are position, velocity and condition.
        start: normalised coordinates at time 0, `[item, rank]`, float64.
        gain: what one unit of x means in normalised coordinates, `[item, rank]`.
        condition: what else g knows, `[item, condition]`; nothing by default.
    """

    def __init__(
        self, acceleration: SmallNetwork, start: Tensor, gain: Tensor, condition: Tensor | None = None
    ) -> None:
        super().__init__()
        self.acceleration = acceleration
        self.start = start
        self.gain = gain
        self._change = Conditioned(acceleration, start[:, :0] if condition is None else condition)

    @override
    def forward(self, time: Tensor, state: Tensor) -> Tensor:
        """The derivative of `state` = (x, u), `[item, 2 rank]`; `time` plays no part."""
        velocity = state.chunk(2, dim=-1)[1]
        return torch.cat((velocity, self.change(state)), dim=-1)

    def change(self, state: Tensor) -> Tensor:
        """u', `[item, rank]`."""
        displacement, velocity = state.chunk(2, dim=-1)
        return self._change(torch.cat((self.start + self.gain * displacement, velocity), dim=-1))

    @property
    def learned(self) -> tuple[Tensor, ...]:
        """What gradients by the adjoint equation are wanted of."""
        return self._change.tensors


class _Penalised(torch.nn.Module):
    """A flow beside the integral of |e' J|^2 along it, J the Jacobian of u' by (x, u); state `[item, 2 rank + 1]`."""

    def __init__(self, flow: Flow, probe: Tensor) -> None:
        super().__init__()
        self.flow = flow
        self.probe = probe

    @override
    def forward(self, time: Tensor, state: Tensor) -> Tensor:
        moving = state[:, :-1]
        with torch.enable_grad():  # solvers run without gradients where the adjoint equation gives them
            moving = moving if moving.requires_grad else moving.detach().requires_grad_()
            change = self.flow.change(moving)
            (pulled,) = torch.autograd.grad(change, moving, self.probe, create_graph=True)
        velocity = moving.chunk(2, dim=-1)[1]
        return torch.cat((velocity, change, pulled.square().sum(dim=-1, keepdim=True)), dim=-1)


def integrate(flow: Flow, velocity: Tensor, times: Tensor, solver: Solver) -> Tensor:
    """Displacements over speed at `times`, `[horizon, item, rank]`.

    Args:
        flow: the system.
        velocity: over the speed, at time 0, `[item, rank]`, float64.
        times: positive and ascending, `[horizon]`, float64.
        solver: how.
    """
    begin = torch.cat((torch.zeros_like(velocity), velocity), dim=-1)
    return _solve(flow, flow, begin, times, solver)[..., : velocity.shape[1]]


def integrate_penalised(
    flow: Flow, velocity: Tensor, times: Tensor, solver: Solver, probe: Tensor
) -> tuple[Tensor, Tensor]:
    """Displacements as `integrate` gives them, and how steep the flow is along the way, `[item]`.

    The latter is |J|_F^2 averaged over the time to the last of `times`, J the Jacobian of u' by (x, u), estimated as
    |e' J|^2 with one random vector e for each item, whose expectation it is (Hutchinson's estimator; the Jacobian
    penalty of Finlay et al. 2020, "How to train your neural ODE", arXiv 2002.02798, section 3.2, here of the learned
    part alone: x' = u is not up for change).

    Args:
        flow: the system.
        velocity: as in `integrate`.
        times: as in `integrate`.
        solver: how.
        probe: e, `[item, rank]`, entries of mean 0 and variance 1.
    """
    begin = torch.cat((torch.zeros_like(velocity), velocity, torch.zeros_like(velocity[:, :1])), dim=-1)
    states = _solve(_Penalised(flow, probe), flow, begin, times, solver)
    return states[..., : velocity.shape[1]], states[-1, :, -1] / times[-1]


def random_signs(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Signs by fair coins, float64: probes for `integrate_penalised`."""
    return 2.0 * torch.randint(2, tuple(shape), generator=generator).double() - 1.0


def _solve(system: torch.nn.Module, flow: Flow, begin: Tensor, times: Tensor, solver: Solver) -> Tensor:
    """States at `times`, `[horizon, item, state]`."""
    ends = [0.0, *times.tolist()]
    grid, wanted = time_grid(ends, solver.step_size if solver.method == "rk4" else float("inf"))
    at = times.new_tensor(grid)
    if solver.adjoint:
        states = torchdiffeq.odeint_adjoint(
            system, begin, at, rtol=TOLERANCE, atol=TOLERANCE, method=solver.method, adjoint_params=flow.learned
        )
    else:
        states = torchdiffeq.odeint(system, begin, at, rtol=TOLERANCE, atol=TOLERANCE, method=solver.method)
    return cast(Tensor, states)[wanted]

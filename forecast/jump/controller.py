"""How far to jump next."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import JumpError
from .outcome import Outcome
from .regime import Regime


class ControllerState(NamedTuple):
    """All that the controller remembers.

    Attributes:
        position: which of the horizons comes next.
        rejections: rejections in a row.
        waiting: opportunities still to be let pass.
        cool_downs: cool-downs since the last jump that was kept.
    """

    position: int = 0
    rejections: int = 0
    waiting: int = 0
    cool_downs: int = 0


class HorizonController:
    """Chooses horizons as an ODE solver chooses step sizes: longer after success, shorter after failure.

    A kept jump moves to the next longer horizon, a rejected one to the next shorter. After `patience` rejections in a
    row the controller lets `cool_down` opportunities pass, twice as many each further time, at most 16 times as many,
    until a jump is kept again. So a run in which jumps do not pay soon stops paying for proposals. In the chaotic
    regime it tries the shortest horizon, whatever came before.

    Args:
        horizons: optimiser steps ahead to choose from; it starts with the shortest.
        patience: rejections in a row before a pause. Raise it where verification is cheap.
        cool_down: opportunities in the first pause; 0 never pauses.

    Raises:
        JumpError: if there is no horizon, one is below 1, they do not increase, or a count is negative.
    """

    def __init__(self, horizons: Sequence[int], patience: int = 2, cool_down: int = 2) -> None:
        if not horizons or min(horizons) < 1 or list(horizons) != sorted(set(horizons)):
            raise JumpError(f"`horizons` must be increasing numbers of steps, each at least 1, got {list(horizons)}.")
        if patience < 1 or cool_down < 0:
            raise JumpError(f"`patience` must be at least 1 and `cool_down` at least 0, got {patience}, {cool_down}.")
        self.horizons = tuple(horizons)
        self.patience = patience
        self.cool_down = cool_down

    def propose(self, state: ControllerState, regime: Regime | None = None) -> tuple[int | None, ControllerState]:
        """The horizon to try now, or `None` for none, and what to remember."""
        if state.waiting > 0:
            return None, state._replace(waiting=state.waiting - 1)
        if regime is Regime.CHAOTIC:
            state = state._replace(position=0)
        return self.horizons[state.position], state

    def nearby(self, state: ControllerState) -> tuple[int, ...]:
        """All horizons, the proposed one first, then shorter ones, then longer ones: for forecasters that lack some."""
        here = state.position
        return (*self.horizons[here::-1], *self.horizons[here + 1 :])

    def at(self, state: ControllerState, horizon: int) -> ControllerState:
        """The state in which `horizon` is the one to try."""
        return state._replace(position=self.horizons.index(horizon))

    def update(self, state: ControllerState, outcome: Outcome) -> ControllerState:
        """What to remember after an opportunity ended; one without a proposal changes nothing."""
        if outcome.kept:
            return ControllerState(position=min(state.position + 1, len(self.horizons) - 1))
        if not outcome.rejected:
            return state
        state = state._replace(position=max(state.position - 1, 0), rejections=state.rejections + 1)
        if state.rejections < self.patience or self.cool_down == 0:
            return state
        pause = self.cool_down * 2 ** min(state.cool_downs, 4)
        return state._replace(rejections=0, waiting=pause, cool_downs=state.cool_downs + 1)


HorizonAt = Callable[[int], int | None]
"""`horizon_at(step)` gives the horizon of a jump at that optimiser step, or `None` for no jump there."""


def nino_schedule(num_steps: int, every: int = 1000, longest: int = 40, spacing: int = 200) -> HorizonAt:
    """NiNo's published schedule of blind jumps, whose horizons shrink towards the end of the run.

    Of the num_steps / every jumps, the i-th goes k_i rows of history ahead,

        k_i = round(s_i^2),    s evenly spaced from sqrt(longest) to 1.

    Args:
        num_steps: optimiser steps of the whole run, at least `every`.
        every: steps between jumps.
        longest: rows ahead of the first jump.
        spacing: optimiser steps between rows.

    Raises:
        JumpError: if a number is below 1 or the run too short for one jump.

    References:
        Knyazev et al. 2025, "Accelerating training with neuron interaction and nowcasting networks",
        arXiv 2409.04434, and its released code.

    Examples:
        >>> at = nino_schedule(10_000)
        >>> [at(step) // 200 for step in range(1000, 10_001, 1000)], at(1500)
        ([40, 33, 26, 21, 16, 11, 8, 5, 3, 1], None)
    """
    if min(num_steps // max(every, 1), every, longest, spacing) < 1:
        raise JumpError(
            "A schedule needs numbers of at least 1 and a run of at least `every` steps, got "
            f"num_steps={num_steps}, every={every}, longest={longest}, spacing={spacing}."
        )
    count = num_steps // every
    ends = (longest**0.5, 1.0)
    roots = [ends[0] + (ends[1] - ends[0]) * index / max(count - 1, 1) for index in range(count)]
    horizons = [round(root**2) * spacing for root in roots]

    def horizon_at(step: int) -> int | None:
        number, rest = divmod(step, every)
        return horizons[number - 1] if rest == 0 and 1 <= number <= count else None

    return horizon_at

"""How fast the run itself makes the held-out loss fall, and how many of its steps a jump has replaced."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final


class Mark(NamedTuple):
    """Held-out losses of the weights that the run went on from.

    Attributes:
        step: the optimiser step.
        losses: mean loss of each held-out batch that was looked at, in their order.
        credit: which jump is waiting to be credited by the next mark, as its number among all opportunities; -1: none.
        loss_before_jump: the losses before that jump, on the same batches; empty without one.
    """

    step: int
    losses: tuple[float, ...]
    credit: int = -1
    loss_before_jump: tuple[float, ...] = ()


def _common_means(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Means over the batches that both have; NaN where there is none."""
    count = min(len(first), len(second))
    if not count:
        return math.nan, math.nan
    return sum(first[:count]) / count, sum(second[:count]) / count


@final
class Progress:
    """Fall of the held-out loss per ordinary step, from verification to verification, jumps left out.

    Verifications of the same held-out batches come for nothing: each tells the loss before its jump. Between two of
    them lie ordinary steps only. Over the newest `memory` such stretches

        fall per step = sum of falls / sum of steps,

    a mean by steps. Batches are compared in the order in which they come, so a loader that shuffles adds its noise.

    A jump at step t that is kept is credited at the next verification, n ordinary steps later:

        credited = (loss before the jump - loss now) / fall per step before the jump - n,

    the ordinary steps that would have made the same total fall, less those that were made. So what a jump loses again
    afterwards is not credited, and a jump that did harm is credited negatively. No more than the run's own number of
    steps is ever credited: further back there is nothing to compare with. Until then, and at the end of the run, the
    fall at the jump itself stands in; so it does where the next verification comes after more than twice as many steps
    as those that the rate was measured over, for a run slows down, and by its old rate any long stretch looks like
    harm. Where the run made no progress of its own, the credit is NaN: unknown.

    Args:
        memory: stretches that count. More are steadier, fewer follow a run that slows down.

    Attributes:
        credits: ordinary steps that each kept jump replaced, by its number; for the time being, or for good.
    """

    def __init__(self, memory: int = 4) -> None:
        self.memory = memory
        self.credits: dict[int, float] = {}
        self._mark: Mark | None = None
        self._stretches: list[tuple[float, int]] = []
        self._rate_at_jump = math.nan
        self._stretch_at_jump = 0.0

    @property
    def fall_per_step(self) -> float:
        """What an ordinary step takes off the held-out loss; NaN where nothing is known yet."""
        steps = sum(steps for _, steps in self._stretches)
        return sum(fall for fall, _ in self._stretches) / steps if steps else math.nan

    def observe(self, step: int, losses: Sequence[float]) -> None:
        """Take in the losses of the present weights, before any jump at this step; credit the last kept jump."""
        mark = self._mark
        if mark is None or step <= mark.step or not losses:
            return
        if mark.credit >= 0 and step - mark.step <= 2 * self._stretch_at_jump:
            before, now = _common_means(mark.loss_before_jump, losses)
            credited = credit(before - now, self._rate_at_jump, step) - (step - mark.step)
            if math.isfinite(credited):
                self.credits[mark.credit] = credited
        then, now = _common_means(mark.losses, losses)
        if math.isfinite(then - now):
            self._stretches = [*self._stretches, (then - now, step - mark.step)][-self.memory :]

    def went_on(self, step: int, losses: Sequence[float]) -> None:
        """Say with which held-out losses the run goes on without a jump."""
        self._mark = Mark(step, tuple(losses))

    def jumped(self, step: int, before: Sequence[float], after: Sequence[float], number: int) -> float:
        """Say that a jump was kept.

        Args:
            step: where.
            before: losses before, by batch.
            after: losses after, on the same batches.
            number: of the jump, to name it when it is credited.

        Returns:
            What it is credited for the time being, in ordinary steps.
        """
        self._rate_at_jump = self.fall_per_step
        self._stretch_at_jump = sum(steps for _, steps in self._stretches) / max(len(self._stretches), 1)
        self._mark = Mark(step, tuple(after), number, tuple(before))
        old, new = _common_means(before, after)
        self.credits[number] = credit(old - new, self._rate_at_jump, step)
        return self.credits[number]

    def forget(self) -> None:
        """Say that the weights were changed without a measurement: the next losses have nothing to be compared with."""
        self._mark = None

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, as plain values."""
        mark = self._mark
        return {
            "mark": None if mark is None else [mark.step, list(mark.losses), mark.credit, list(mark.loss_before_jump)],
            "stretches": [list(item) for item in self._stretches],
            "rate_at_jump": self._rate_at_jump,
            "stretch_at_jump": self._stretch_at_jump,
            "credits": [[number, value] for number, value in self.credits.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        mark = state["mark"]
        self._mark = None if mark is None else Mark(int(mark[0]), tuple(mark[1]), int(mark[2]), tuple(mark[3]))
        self._stretches = [(float(fall), int(steps)) for fall, steps in state["stretches"]]
        self._rate_at_jump = float(state["rate_at_jump"])
        self._stretch_at_jump = float(state["stretch_at_jump"])
        self.credits = {int(number): float(value) for number, value in state["credits"]}


def credit(fall: float, fall_per_step: float, step: int) -> float:
    """How many ordinary steps make the loss fall by so much; at most as many as were made, NaN where it is unknown.

    Args:
        fall: of the held-out loss; negative where it rose.
        fall_per_step: of ordinary steps.
        step: ordinary steps made so far.
    """
    if not fall_per_step > 0 or not math.isfinite(fall):
        return math.nan
    return max(-float(step), min(float(step), fall / fall_per_step))

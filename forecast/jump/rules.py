"""What the held-out loss must show before a jump is kept."""

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from typing_extensions import override

from ..errors import JumpError
from .outcome import Outcome

RuleName = Literal["strict", "proximity", "worth_it", "always"]


@dataclass(frozen=True)
class Standing:
    """What a rule may go by.

    Attributes:
        loss_before: mean held-out loss of the present weights.
        fall_per_step: what an ordinary step takes off the held-out loss, from the run's own recent progress; NaN where
            nothing is known yet.
        cost_steps: what this opportunity has cost so far, in ordinary steps.
    """

    loss_before: float
    fall_per_step: float
    cost_steps: float


class AcceptanceRule(abc.ABC):
    """How far the mean held-out loss must fall.

    Attributes:
        name: its name in `JumpPolicy`.
        verifies: whether it looks at held-out data at all.
        shortfall: the outcome of a jump that does not reach it.
    """

    name: ClassVar[RuleName]
    verifies: ClassVar[bool] = True
    shortfall: ClassVar[Outcome] = Outcome.NOT_BETTER

    @abc.abstractmethod
    def required_gain(self, standing: Standing) -> float:
        """The fall of the mean loss that is asked for, in the loss's own unit; negative where a rise is let pass."""


@final
class Strict(AcceptanceRule):
    """The loss must fall (Leap+Verify's "strict": McEntire 2026, arXiv 2602.19580)."""

    name: ClassVar[RuleName] = "strict"

    @override
    def required_gain(self, standing: Standing) -> float:
        return 0.0


@final
class Proximity(AcceptanceRule):
    """The loss may rise by a share of itself.

    Leap+Verify's paper says 5 %, its released code takes 0.5 %; here it is an argument. It keeps jumps that do harm
    now in the hope that they pay later. No measurement here says that they do: for comparison.

    Args:
        tolerance: the share.
    """

    name: ClassVar[RuleName] = "proximity"

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance

    @override
    def required_gain(self, standing: Standing) -> float:
        return -self.tolerance * abs(standing.loss_before)


@final
class WorthIt(AcceptanceRule):
    """The loss must fall by more than ordinary steps at the cost of this opportunity are expected to make it fall.

    required = max(0, fall per ordinary step) x cost in ordinary steps. Before anything is known of the run's progress
    it asks what `Strict` asks. The cost is spent either way once the loss is known, so this rejects some jumps that are
    better than nothing; what it buys is that a run in which jumps gain less than they cost runs into rejections, and
    the controller makes it stop proposing.
    """

    name: ClassVar[RuleName] = "worth_it"
    shortfall: ClassVar[Outcome] = Outcome.NOT_WORTH_IT

    @override
    def required_gain(self, standing: Standing) -> float:
        if not math.isfinite(standing.fall_per_step):
            return 0.0
        return max(0.0, standing.fall_per_step) * standing.cost_steps


@final
class Always(AcceptanceRule):
    """Blind: whatever is finite and trusted is kept, and nothing is measured. As published methods do it."""

    name: ClassVar[RuleName] = "always"
    verifies: ClassVar[bool] = False

    @override
    def required_gain(self, standing: Standing) -> float:
        return -math.inf


@dataclass(frozen=True)
class JumpPolicy:
    """When a jump is taken.

    Args:
        rule: `strict`: the held-out loss must fall. `worth_it`: it must fall by more than the same cost in ordinary
            steps is expected to give. `proximity`: it may rise a little. `always`: blind, nothing is verified and
            verification costs nothing.
        num_standard_errors: by how many paired standard errors the fall must exceed what the rule asks; 0 takes any,
            1 to 2 keeps noise from being taken for progress.
        max_relative_scale: a forecast whose predicted error is more than this many times its move (both as norms over
            all coordinates) is not verified at all. Lower it to save verification, raise it to let the data decide.
        tolerance: of `proximity`: the share of the loss by which it may rise.
        max_looks: the held-out batches are looked at in so many groups, and the test may stop after each. More looks
            stop sooner and ask slightly more at the last one; 1 always takes all batches.
        futility: give up verifying when the chance of still being kept falls below this; see `SequentialTest`.
        trust_radius: cut each tensor's step where its predicted error is large: to `trust_radius` |step| / |error| of
            it, at most all. 1 where scales are right; `None` takes steps whole.

    Raises:
        JumpError: if one of them is out of range.
    """

    rule: RuleName = "strict"
    num_standard_errors: float = 1.0
    max_relative_scale: float = 3.0
    tolerance: float = 0.005
    max_looks: int = 5
    futility: float = 0.1
    trust_radius: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in ("strict", "proximity", "worth_it", "always"):
            raise JumpError(f"`rule` must be strict, proximity, worth_it or always, got {self.rule!r}.")
        if not self.num_standard_errors >= 0:
            raise JumpError(f"`num_standard_errors` must be at least 0, got {self.num_standard_errors}.")
        if not self.max_relative_scale > 0:
            raise JumpError(f"`max_relative_scale` must be above 0, got {self.max_relative_scale}.")
        if not self.tolerance >= 0:
            raise JumpError(f"`tolerance` must be at least 0, got {self.tolerance}.")
        if self.max_looks < 1:
            raise JumpError(f"`max_looks` must be at least 1, got {self.max_looks}.")
        if not 0 <= self.futility < 0.5:
            raise JumpError(f"`futility` must be at least 0 and below 0.5, got {self.futility}.")
        if self.trust_radius is not None and not self.trust_radius > 0:
            raise JumpError(f"`trust_radius` must be above 0, or None, got {self.trust_radius}.")

    @property
    def acceptance(self) -> AcceptanceRule:
        """The rule itself."""
        if self.rule == "proximity":
            return Proximity(self.tolerance)
        return {"strict": Strict, "worth_it": WorthIt, "always": Always}[self.rule]()

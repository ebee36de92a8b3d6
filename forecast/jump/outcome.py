"""What became of a jump."""

import enum


class Outcome(enum.Enum):
    """How one opportunity to jump ended; each value is a sentence for people."""

    KEPT = "kept: the held-out loss said what the policy asks, or the policy asks nothing"
    NOT_BETTER = "rejected: the held-out loss did not fall by more than its noise"
    NOT_WORTH_IT = "rejected: the held-out loss fell, but by no more than ordinary steps at the same cost would give"
    NOT_FINITE = "rejected: the weights, their forecast or its held-out loss were not finite"
    UNTRUSTED = "not verified: the forecaster expects its error to dwarf the move"
    NO_HISTORY = "not proposed: too few rows since the last break in the curve"
    NO_FORECASTER = "not proposed: no fitted forecaster beats standing still at such a horizon"
    COOLING_DOWN = "not proposed: waiting after rejected jumps"
    OVER_BUDGET = "not proposed: jumping has used up its share of the run"

    @property
    def kept(self) -> bool:
        """Whether the run goes on from the jumped weights."""
        return self is Outcome.KEPT

    @property
    def proposed(self) -> bool:
        """Whether a forecast was made."""
        return self not in (Outcome.NO_HISTORY, Outcome.NO_FORECASTER, Outcome.COOLING_DOWN, Outcome.OVER_BUDGET)

    @property
    def rejected(self) -> bool:
        """Whether a forecast was made and not taken."""
        return self.proposed and not self.kept

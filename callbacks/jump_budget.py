"""What share of a run jumping may take."""

import math
import time
from collections.abc import Mapping
from typing import Any, final

from ..forecast import Ledger
from .errors import CallbackOptionError


@final
class JumpBudget:
    """Keeps the ledger of jumping below a share of the run's CPU seconds.

    An attempt is affordable when the ledger, with what an attempt is expected to cost, stays within the share of what
    the run has taken so far. Expected is the dearest of the last three attempts; before the first, as much as an
    ordinary step. So the share is held to at the end of any run that goes on for a while after its first attempt, and
    from then on at every moment up to what attempts differ in.

    Args:
        limit: the share, above 0 and at most 1; `None` for no limit.
        ledger: of jumping.

    Raises:
        CallbackOptionError: if the share lies outside.
    """

    def __init__(self, limit: float | None, ledger: Ledger) -> None:
        if limit is not None and not 0 < limit <= 1:
            raise CallbackOptionError(f"`cost_share` must be above 0 and at most 1, or None, got {limit}.")
        self.limit = limit
        self._ledger = ledger
        self._seconds = 0.0
        self._began = math.nan
        self._first_step = 0
        self._step = 0
        self._newest: list[float] = []

    def start(self, step: int) -> None:
        """Start the clock, at an optimiser step."""
        self._began = time.process_time()
        if not self._seconds:
            self._first_step = step
        self._step = step

    def now_at(self, step: int) -> None:
        """Say where the run is."""
        self._step = step

    @property
    def elapsed(self) -> float:
        """CPU seconds of the run so far, those before it was resumed included."""
        return self._seconds + (time.process_time() - self._began if math.isfinite(self._began) else 0.0)

    @property
    def share(self) -> float:
        """Share of the run's CPU seconds that jumping has taken so far."""
        return self._ledger.total.cpu_seconds / self.elapsed if self.elapsed > 0 else 0.0

    def step_seconds(self) -> float:
        """CPU seconds of an ordinary step, the run's mean; NaN without a limit, where nothing goes by the clock."""
        if self.limit is None or self._step <= self._first_step:
            return math.nan
        return (self.elapsed - self._ledger.total.cpu_seconds) / (self._step - self._first_step)

    def attempted(self, cpu_seconds: float) -> None:
        """Learn what an attempt cost."""
        self._newest = [*self._newest, cpu_seconds][-3:]

    def affordable(self) -> bool:
        """Whether another attempt may be made now."""
        if self.limit is None:
            return True
        step_seconds = self.step_seconds()
        expected = max(self._newest) if self._newest else (step_seconds if math.isfinite(step_seconds) else 0.0)
        return self._ledger.total.cpu_seconds + expected <= self.limit * self.elapsed

    def state_dict(self) -> dict[str, Any]:
        """What has to be known to go on."""
        return {"seconds": self.elapsed, "newest": list(self._newest), "first_step": self._first_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._seconds = float(state["seconds"])
        self._newest = [float(value) for value in state["newest"]]
        self._first_step = int(state["first_step"])

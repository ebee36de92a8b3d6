"""The newest rows of weights, kept in memory for the next jump."""

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from ..errors import JumpError
from ..layout import Layout
from ..window import Window


@final
class RowKeeper:
    """Keeps only the rows that the next opportunity to jump will need.

    So a run that jumps every 1000 steps from five rows copies its weights five times in 1000 steps, and never writes to
    a disk. It is what `SkipAhead` reads from where there is no trajectory recorder.

    Args:
        history: rows that a forecast needs.
        spacing: optimiser steps between them.
        every: optimiser steps between opportunities.
        start: the first opportunity comes at this step or later.

    Raises:
        JumpError: if a number is below 1, or the rows reach back over more than one opportunity at odd steps.
    """

    def __init__(self, history: int, spacing: int, every: int, start: int = 0) -> None:
        if min(history, spacing, every) < 1:
            raise JumpError(
                f"`history`, `spacing` and `every` must be at least 1, got {history}, {spacing} and {every}."
            )
        self.history = history
        self.spacing = spacing
        self.every = every
        self.start = start
        self._reach = (history - 1) * spacing
        if self._reach >= every and every % spacing:
            raise JumpError(
                f"{history} rows {spacing} steps apart reach back beyond the last opportunity, {every} steps ago, so "
                "`spacing` must be a divisor of `every`."
            )
        self._rows: dict[int, Tensor] = {}

    @property
    def short(self) -> bool:
        """Whether an opportunity's rows all come after the opportunity before it."""
        return self._reach < self.every

    def due(self, step: int) -> bool:
        """Whether the weights after this step will be needed."""
        first = max(step, self.start, 1)
        opportunity = -(-first // self.every) * self.every
        ahead = opportunity - step
        return ahead % self.spacing == 0 and (ahead <= self._reach or self._reach >= self.every)

    def add(self, step: int, row: Tensor) -> None:
        """Take the weights after a step, `[param]`; not copied."""
        self._rows[step] = row
        for old in [old for old in self._rows if old < step - self._reach]:
            del self._rows[old]

    def jumped(self, step: int, row: Tensor) -> None:
        """Forget what lies before a jump; the jumped weights are the first row after it."""
        self._rows = {step: row}

    def window(self, step: int, layout: Layout) -> Window | None:
        """The window that ends at a step, or `None` where a row is missing."""
        steps = [step - self.spacing * back for back in range(self.history - 1, -1, -1)]
        if not all(wanted in self._rows for wanted in steps):
            return None
        return Window(torch.stack([self._rows[wanted] for wanted in steps]), torch.tensor(steps), layout)

    def state_dict(self) -> dict[str, Any]:
        """The rows by step."""
        return {"steps": list(self._rows), "rows": list(self._rows.values())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self._rows = {int(step): row for step, row in zip(state["steps"], state["rows"], strict=True)}

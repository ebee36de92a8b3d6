"""What everything cost."""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .errors import ForecastError


@dataclass(frozen=True)
class Cost:
    """What one activity took, added up over a run.

    Attributes:
        wall_seconds: by the clock.
        cpu_seconds: of this process, all threads; more than `wall_seconds` where several threads worked.
        count: how many times it was done.
        gradient_equivalents: work on batches of the training size, in units of one gradient evaluation: a forward pass
            without a backward one counts a third.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    count: int = 0
    gradient_equivalents: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.wall_seconds + other.wall_seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.count + other.count,
            self.gradient_equivalents + other.gradient_equivalents,
        )


class Ledger:
    """Costs by activity, exclusive: time charged inside another charge is taken off the outer one.

    A speed-up is only ever computed from totals that include these. Not safe across threads; one ledger, one thread.

    Examples:
        >>> ledger = Ledger()
        >>> with ledger.charge("forecasting"):
        ...     _ = sum(range(1000))
        >>> ledger.activities["forecasting"].count
        1
    """

    def __init__(self) -> None:
        self._costs: dict[str, Cost] = {}
        self._inner: list[tuple[float, float]] = []

    @property
    def activities(self) -> Mapping[str, Cost]:
        """Costs so far, by name, in the order in which activities first came up."""
        return dict(self._costs)

    @property
    def total(self) -> Cost:
        """The sum over all activities."""
        return sum(self._costs.values(), Cost())

    @contextmanager
    def charge(self, activity: str, gradient_equivalents: float = 0.0) -> Iterator[None]:
        """Charge what happens inside to an activity, also when it ends in an exception.

        Args:
            activity: a name such as `"forecasting"`.
            gradient_equivalents: work done inside, see `Cost`.
        """
        self._inner.append((0.0, 0.0))
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            inner_wall, inner_cpu = self._inner.pop()
            if self._inner:
                outer_wall, outer_cpu = self._inner[-1]
                self._inner[-1] = (outer_wall + wall, outer_cpu + cpu)
            cost = Cost(max(0.0, wall - inner_wall), max(0.0, cpu - inner_cpu), 1, gradient_equivalents)
            self.add(activity, cost)

    def add(self, activity: str, cost: Cost) -> None:
        """Charge a cost that was measured elsewhere."""
        self._costs[activity] = self._costs.get(activity, Cost()) + cost

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Plain data for checkpoints and reports; `from_dict` is the way back."""
        return {
            name: {
                "wall_seconds": cost.wall_seconds,
                "cpu_seconds": cost.cpu_seconds,
                "count": cost.count,
                "gradient_equivalents": cost.gradient_equivalents,
            }
            for name, cost in self._costs.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, Any]]) -> "Ledger":
        """Rebuild a ledger from `to_dict`'s result.

        Raises:
            ForecastError: if it is not such a result.
        """
        ledger = cls()
        try:
            for name, cost in data.items():
                ledger._costs[str(name)] = Cost(
                    float(cost["wall_seconds"]),
                    float(cost["cpu_seconds"]),
                    int(cost["count"]),
                    float(cost["gradient_equivalents"]),
                )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ForecastError(f"Not a stored ledger: {error!r}.") from error
        return ledger

    @classmethod
    def merged(cls, ledgers: Iterable["Ledger"]) -> "Ledger":
        """One ledger with the costs of several added up."""
        result = cls()
        for ledger in ledgers:
            for name, cost in ledger.activities.items():
                result.add(name, cost)
        return result

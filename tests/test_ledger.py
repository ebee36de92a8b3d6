"""The ledger."""

import time

import pytest

from deadreckon.forecast import Cost, Ledger
from deadreckon.forecast.errors import ForecastError


def _spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_inner_charges_are_taken_off_outer_ones() -> None:
    """Time charged inside another charge counts once, for the inner activity."""
    ledger = Ledger()
    begin = time.perf_counter()
    with ledger.charge("outer"):
        _spin(0.02)
        with ledger.charge("inner", gradient_equivalents=2.0):
            _spin(0.04)
    total = time.perf_counter() - begin
    outer, inner = ledger.activities["outer"], ledger.activities["inner"]
    assert inner.wall_seconds >= 0.04
    assert 0.02 <= outer.wall_seconds <= total - 0.04 + 1e-6
    assert ledger.total.wall_seconds == pytest.approx(outer.wall_seconds + inner.wall_seconds)
    assert (inner.count, inner.gradient_equivalents, outer.gradient_equivalents) == (1, 2.0, 0.0)


def test_failures_are_charged_too() -> None:
    """What ends in an exception has cost its time all the same."""
    ledger = Ledger()
    with pytest.raises(RuntimeError, match="broken"), ledger.charge("trying"):
        raise RuntimeError("broken")
    assert ledger.activities["trying"].count == 1
    with ledger.charge("after"):
        pass
    assert set(ledger.activities) == {"trying", "after"}


def test_ledgers_survive_a_round_trip_and_add_up() -> None:
    """A stored ledger comes back equal, and merging adds costs by activity."""
    first, second = Ledger(), Ledger()
    first.add("fitting", Cost(1.0, 2.0, 3, 4.0))
    second.add("fitting", Cost(0.5, 0.5, 1, 0.0))
    second.add("encoding", Cost(0.25, 0.25, 1, 0.0))
    assert Ledger.from_dict(first.to_dict()).activities == first.activities
    merged = Ledger.merged([first, second])
    assert merged.activities == {"fitting": Cost(1.5, 2.5, 4, 4.0), "encoding": Cost(0.25, 0.25, 1, 0.0)}


@pytest.mark.parametrize("data", [{"a": {"wall_seconds": 1}}, {"a": 3}, {"a": {"wall_seconds": "x"}}, []])
def test_damaged_ledgers_are_refused(data: dict) -> None:
    """What is no stored ledger is an error, not an empty ledger."""
    with pytest.raises(ForecastError, match="Not a stored ledger"):
        Ledger.from_dict(data)

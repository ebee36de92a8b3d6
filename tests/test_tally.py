"""What forecasts got wrong, by kind of tensor."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from problems import cases_of, drifting_rows, small_layout
from typing_extensions import override

from deadreckon.forecast import Case, Forecast, Forecaster, Window, WindowError, score
from deadreckon.forecast.tally import NOTHING, Sums, tally

LAYOUT = small_layout({"a.weight": (2,), "a.bias": (1,), "b.weight": (1,)})


class Shift(Forecaster):
    """The last row moved by given amounts, at given scales."""

    name = "shift"

    def __init__(self, shift: Sequence[float], scale: Sequence[float]) -> None:
        super().__init__()
        self.shift, self.scale = torch.tensor(shift), torch.tensor(scale)

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            yield Forecast(horizon, window.last + self.shift, self.scale)


def one_case(truth: Sequence[float]) -> Case:
    window = Window(torch.zeros(1, 4), torch.tensor([30]), LAYOUT)
    return Case(window, {5: torch.tensor(truth)})


def test_sums_are_those_of_hand_computation() -> None:
    """Squared errors, squared motion and coverage of each kind are those worked out by hand."""
    forecaster = Shift([1.0, 0.0, 2.0, 0.0], [0.5, 0.0, 1.0, 0.0])
    (found,) = tally(forecaster, [one_case([2.0, 0.0, 3.0, 0.0])])
    assert (found.last_step, found.horizon) == (30, 5)
    # a.weight: errors 1 and 0; the second coordinate neither moved nor was to move. b.weight does not move either.
    assert found.kinds == {"weight": Sums(1.0, 4.0, 0, 1, 1), "bias": Sums(1.0, 9.0, 1, 1, 1)}


def test_sums_add_up_to_the_score() -> None:
    """Skill and coverage that `score` gives follow from the sums over cases and kinds."""
    layout = small_layout()
    rows = drifting_rows(20, layout.size, torch.Generator().manual_seed(0))
    cases = cases_of(rows, range(20), 1, [1, 3], layout)
    forecaster = Shift([0.01] * layout.size, [0.1] * layout.size)
    for result in score(forecaster, cases):
        total = NOTHING
        for entry in tally(forecaster, cases):
            if entry.horizon == result.horizon:
                for sums in entry.kinds.values():
                    total = total.plus(sums)
        assert 1 - total.squared_error / total.persistence == pytest.approx(result.skill, rel=1e-6)
        assert total.within_one / total.moving == pytest.approx(result.coverage, abs=1e-3)


def test_a_forecast_that_is_not_finite_is_seen() -> None:
    """A mean of infinity leaves an infinite error, and no coordinate within its scale."""
    (found,) = tally(Shift([float("inf")] * 4, [1.0] * 4), [one_case([1.0] * 4)])
    assert found.kinds["bias"] == Sums(float("inf"), 1.0, 0, 0, 1)


def test_cases_without_targets_are_refused() -> None:
    """A case that asks for nothing is an error, not an empty score."""
    with pytest.raises(WindowError, match="at least one target"):
        tally(Shift([0.0] * 4, [0.0] * 4), [replace(one_case([0.0] * 4), targets={})])

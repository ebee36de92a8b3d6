"""Cases cut from a trajectory, and skill scored on them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typing_extensions import override

from deadreckon.forecast import (
    Case,
    Forecast,
    Forecaster,
    Layout,
    TensorSpec,
    Trajectory,
    Window,
    WindowError,
    cases,
    score,
)

LAYOUT = Layout(
    (TensorSpec("a", (2,), "float32", 0, "weight"), TensorSpec("b", (1,), "float32", 2, "bias")),
)


class Factor(Forecaster):
    """Moves `factor` times as far as the straight line through the last two rows, and expects to be off by `scale`."""

    name = "factor"
    history = 2

    def __init__(self, factor: float, scale: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.scale = scale

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        slope = (window.values[-1] - window.values[-2]) / window.spacing
        for horizon in horizons:
            scale = torch.full_like(slope, self.scale)
            yield Forecast(horizon, window.last + self.factor * horizon * slope, scale)


@pytest.fixture
def trajectory(tmp_path: Path) -> Iterator[Trajectory]:
    """Rows every 5 steps up to 60 that move by (1, 2, 0) a step, torn by a jump at step 30."""
    metadata = {"adam": {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}}
    streams = ("weights", "exp_avg", "exp_avg_sq")
    with Trajectory.create(tmp_path / "t", LAYOUT, streams=streams, metadata=metadata) as store:
        for step in range(0, 65, 5):
            row = torch.tensor([1.0, 2.0, 0.0]) * step
            if step == 35:
                store.add_event("jump", 30, breaks=True)
            store.add_event("note", step, breaks=False)
            store.append(step, streams={"weights": row}, scalars={"learning_rate": 0.1 + step})
            if step >= 40:
                store.append(step, streams={"exp_avg": row, "exp_avg_sq": row})
        yield store


def test_cases_hold_what_was_recorded(trajectory: Trajectory) -> None:
    """Each case's window and targets are the recorded rows of their steps, with the learning rates."""
    found = cases(trajectory, "weights", 3, (5, 10))
    assert [case.window.last_step for case in found] == [10, 15, 20, 45, 50]
    for case in found:
        last = case.window.last_step
        assert case.window.steps.tolist() == [last - 10, last - 5, last]
        torch.testing.assert_close(case.window.values[:, 0], case.window.steps.float())
        assert {horizon: int(row[0]) for horizon, row in case.targets.items()} == {5: last + 5, 10: last + 10}
        assert case.window.learning_rates is not None
        torch.testing.assert_close(case.window.learning_rates, case.window.steps.double() + 0.1)


def test_no_case_spans_a_break(trajectory: Trajectory) -> None:
    """Neither a window nor its targets reach over an event that breaks the curve; other events do not matter."""
    for case in cases(trajectory, "weights", 2, (5,)):
        reach = {*case.window.steps.tolist(), case.window.last_step + 5}
        assert max(reach) <= 30 or min(reach) >= 35


def test_spacing_and_limits_choose_rows(trajectory: Trajectory) -> None:
    """Wider spacing skips rows; limits keep windows and targets inside."""
    wide = cases(trajectory, "weights", 3, (5,), spacing=10)
    assert [case.window.steps.tolist() for case in wide] == [[0, 10, 20], [5, 15, 25], [35, 45, 55]]
    assert all(case.window.spacing == 10 for case in wide)
    limited = cases(trajectory, "weights", 2, (5,), first_step=10, last_step=20)
    assert [case.window.steps.tolist() for case in limited] == [[10, 15]]
    assert cases(trajectory, "weights", 3, (7,)) == []
    assert cases(trajectory, "weights", 50, (5,)) == []


def test_odd_rows_do_not_hide_the_cadence(tmp_path: Path) -> None:
    """Rows off the cadence, as of a run that began between two due steps, set no spacing and enter no window."""
    with Trajectory.create(tmp_path / "odd", LAYOUT) as odd:
        for step in (3, 5, 10, 12, 15, 20, 25):
            odd.append(step, streams={"weights": torch.full((3,), float(step))})
        found = cases(odd, "weights", 3, (5,))
        assert [case.window.steps.tolist() for case in found] == [[5, 10, 15], [10, 15, 20]]
        assert found[0].window.values[:, 0].tolist() == [5, 10, 15]


def test_moments_come_along_where_they_were_recorded(trajectory: Trajectory, tmp_path: Path) -> None:
    """With moments asked for, cases are those whose last row has them, with the run's settings."""
    found = cases(trajectory, "weights", 2, (5,), with_moments=True)
    assert [case.window.last_step for case in found] == [40, 45, 50, 55]
    moments = found[0].window.moments
    assert moments is not None
    assert (moments.num_updates, moments.beta2, float(moments.learning_rate)) == (40, 0.99, pytest.approx(40.1))
    torch.testing.assert_close(moments.exp_avg, torch.tensor([40.0, 80.0, 0.0]))
    with (
        Trajectory.create(tmp_path / "plain", LAYOUT) as plain,
        pytest.raises(WindowError, match="no optimiser moments"),
    ):
        cases(plain, "weights", 2, (5,), with_moments=True)


def test_impossible_cases_are_refused(trajectory: Trajectory) -> None:
    """History and horizons below one are refused."""
    with pytest.raises(WindowError, match="`history` must be at least 1"):
        cases(trajectory, "weights", 0, (5,))
    for horizons in ((), (0,)):
        with pytest.raises(WindowError, match="`horizons` must be"):
            cases(trajectory, "weights", 1, horizons)


def test_skill_is_one_minus_the_share_of_persistence(trajectory: Trajectory) -> None:
    """A forecast that moves f of the way has skill 1 - (1 - f)^2, in total and in each tensor that moved."""
    found = cases(trajectory, "weights", 2, (10, 5))
    for factor in (0.0, 0.5, 1.0, 3.0):
        for result in score(Factor(factor), found):
            assert result.skill == pytest.approx(1 - (1 - factor) ** 2, abs=1e-6)
            assert result.skill_per_tensor["a"] == pytest.approx(1 - (1 - factor) ** 2, abs=1e-6)
            assert result.skill_per_tensor["b"] == 0
            assert result.num_cases == len(found)
    assert [result.horizon for result in score(Factor(1.0), found)] == [5, 10]


def test_coverage_counts_truths_within_one_scale(trajectory: Trajectory) -> None:
    """Errors of 5 and 10 at horizon 5 lie within a scale of 7 in one coordinate of two that move."""
    found = cases(trajectory, "weights", 2, (5,))
    for scale, expected in ((4.0, 1 / 3), (7.0, 2 / 3), (10.0, 1.0)):
        (result,) = score(Factor(0.0, scale), found)
        assert result.coverage == pytest.approx(expected)
    (result,) = score(Factor(0.0, 0.0), found)
    assert result.coverage == 0.0


def test_skill_where_nothing_moves() -> None:
    """On a resting truth a resting forecast has skill 0 and a moving one minus infinity."""
    rows: Tensor = torch.tensor([[0.0, 0, 0], [1, 1, 1]])
    window = Window(rows, torch.tensor([0, 1]), LAYOUT)
    case = Case(window, {1: rows[1]})
    (rest,) = score(Factor(0.0, 0.0), [case])
    (move,) = score(Factor(1.0, 0.0), [case])
    assert (rest.skill, move.skill) == (0.0, float("-inf"))
    assert rest.coverage != rest.coverage  # NaN: no coordinate to speak of


def test_skill_needs_cases_of_one_kind(trajectory: Trajectory) -> None:
    """No cases, or cases with unlike horizons, are refused."""
    with pytest.raises(WindowError, match="at least one case"):
        score(Factor(1.0), [])
    mixed = [cases(trajectory, "weights", 2, (5,))[0], cases(trajectory, "weights", 2, (10,))[0]]
    with pytest.raises(WindowError, match=r"must have horizons \[5\], got \[10\]"):
        score(Factor(1.0), mixed)


def test_a_forecaster_refuses_what_it_cannot_use(trajectory: Trajectory) -> None:
    """Wrong streams, short windows, missing moments and horizons below one are refused before anything is computed."""
    window = cases(trajectory, "weights", 2, (5,))[0].window
    forecaster = Factor(1.0)
    with pytest.raises(WindowError, match="needs 2 rows of history, got 1"):
        forecaster.forecast(window.tail(1), [1])
    with pytest.raises(WindowError, match="at least 1, got 0"):
        forecaster.forecast(window, [0])
    other = Window(window.values, window.steps, LAYOUT, "gradients")
    with pytest.raises(WindowError, match="forecasts 'weights', got a window of 'gradients'"):
        forecaster.forecast(other, [1])

    class Needy(Factor):
        needs_moments = True

    with pytest.raises(WindowError, match="needs the optimiser's moments"):
        Needy(1.0).forecast(window, [1])

"""Intervals over runs against hand computation."""

import itertools
import math

import numpy as np
import pytest

from deadreckon.experiments.bootstrap import (
    MAX_LOG_RATIO,
    MIN_RUNS,
    Estimate,
    as_ratio,
    as_skill,
    estimates,
    log_ratio,
    resampled_means,
)


def test_skill_is_one_minus_the_geometric_mean_of_the_ratios() -> None:
    """Halving the error in one run and doubling it in another gives no skill, unlike the mean of the ratios."""
    logs = np.array([[log_ratio(1.0, 2.0)], [log_ratio(4.0, 2.0)], [log_ratio(3.0, 3.0)]])
    (found,) = estimates(logs, 100, seed=0)
    assert as_skill(found).value == pytest.approx(0.0)
    (quarter,) = estimates(np.log([[0.5], [0.125]]), 100, seed=0)
    assert as_skill(quarter).value == pytest.approx(0.75)
    assert as_ratio(quarter).value == pytest.approx(0.25)


def test_resampled_means_are_those_of_all_resamples() -> None:
    """The resampled means of three runs take the values of all 27 ordered resamples, as often as these do."""
    values = np.array([[0.0, 1.0], [1.0, 0.0], [4.0, 5.0]])
    means = resampled_means(values, 20_000, seed=3)
    exact = [np.mean(choice) for choice in itertools.product([0.0, 1.0, 4.0], repeat=3)]
    assert set(np.round(means[:, 0], 9)) == set(np.round(exact, 9))
    assert means[:, 0].mean() == pytest.approx(np.mean(exact), abs=0.03)
    assert means[:, 0].std() == pytest.approx(np.std(exact), rel=0.03)
    for share in (0.1, 0.5, 0.9):
        below = np.mean(np.array(exact) <= np.quantile(exact, share, method="lower"))
        assert np.mean(means[:, 0] <= np.quantile(exact, share, method="lower") + 1e-9) == pytest.approx(
            below, abs=0.02
        )


def test_columns_are_resampled_together() -> None:
    """A difference that is the same in every run has an interval of no width, however much runs differ."""
    noise = np.random.default_rng(0).normal(size=20)
    values = np.stack([noise, noise + 0.3], axis=1)
    means = resampled_means(values, 500, seed=1)
    np.testing.assert_allclose(means[:, 1] - means[:, 0], 0.3, rtol=1e-9)
    (difference,) = estimates(values[:, 1:] - values[:, :1], 500, seed=1)
    assert (difference.low, difference.high) == (pytest.approx(0.3), pytest.approx(0.3))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Over 300 samples of 20 normal values the interval covers the mean in 88 to 97 % of cases."""
    values = np.random.default_rng(5).normal(size=(20, 300))
    covered = [found.low < 0 < found.high for found in estimates(values, 400, seed=2)]  # type: ignore[operator]
    assert 0.88 < np.mean(covered) < 0.97


def test_few_runs_have_no_interval() -> None:
    """Below the least number of runs there is a mean and no interval; from it on there is one."""
    values = np.arange(MIN_RUNS, dtype=float).reshape(-1, 1)
    (few,) = estimates(values[:-1], 100, seed=0)
    assert few == (pytest.approx(2.0), None, None)
    (found,) = estimates(values, 100, seed=0)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_skill_turns_the_interval_round() -> None:
    """The upper end of a ratio is the lower end of skill; what is missing stays missing."""
    found = as_skill(Estimate(math.log(0.5), math.log(0.25), math.log(2.0)))
    assert found == (pytest.approx(0.5), pytest.approx(-1.0), pytest.approx(0.75))
    assert as_skill(Estimate(0.0, None, None)) == (0.0, None, None)


@pytest.mark.parametrize(
    ("error", "reference", "expected"),
    [
        (1.0, 1.0, 0.0),
        (0.0, 1.0, -MAX_LOG_RATIO),
        (math.nan, 1.0, MAX_LOG_RATIO),
        (math.inf, 1.0, MAX_LOG_RATIO),
        (1.0, 0.0, MAX_LOG_RATIO),
        (1e300, 1e-300, MAX_LOG_RATIO),
        (1e-300, 1e300, -MAX_LOG_RATIO),
    ],
)
def test_extreme_ratios_count_as_bounded(error: float, reference: float, expected: float) -> None:
    """A perfect forecast, one that is not finite, and one about what did not move have bounded logarithms."""
    assert log_ratio(error, reference) == expected


def test_nothing_is_said_about_what_stands_still() -> None:
    """Where nothing moved and nothing was forecast to, the ratio is not a number."""
    assert math.isnan(log_ratio(0.0, 0.0))

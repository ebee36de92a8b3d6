"""Features of Gram matrices, and the directions that windows span."""

import math

import pytest
import torch
from problems import cases_of, drifting_rows, flat_layout, small_layout, window_of
from torch import Tensor

from deadreckon.forecast import Window
from deadreckon.models import Linear
from deadreckon.models.gram_features import LARGEST_LOG, feature_names, gram_features, motion, rate_change, step_gram
from deadreckon.models.normal_equations import CaseSums
from deadreckon.models.rows import combine, deviations_in, gram
from deadreckon.models.tensor_items import Seen
from deadreckon.models.window_frame import WindowFrame

HISTORY = 9


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features_of(rows: Tensor) -> dict[str, float]:
    """The features of rows of one tensor, by name."""
    products = gram(window_of(rows))
    found = gram_features(products, torch.tensor([rows.shape[1]]), torch.zeros(1))
    assert found.shape == (1, len(feature_names(len(rows))))
    return dict(zip(feature_names(len(rows)), found[0].tolist(), strict=True))


def frame_of(window: Window, rank: int) -> WindowFrame:
    return WindowFrame(Seen.of(window, [""]).gram, rank)


def test_steps_and_motion() -> None:
    """Inner products of steps follow from those of deviations; the unit is the root mean squared step."""
    rows = drifting_rows(HISTORY, 30, seeded()).double()
    steps = rows.diff(dim=0)
    found = gram(window_of(rows))
    torch.testing.assert_close(step_gram(found)[0], steps @ steps.T)
    torch.testing.assert_close(motion(found)[0], steps.square().sum(dim=1).mean())


def test_features_of_a_straight_path() -> None:
    """Steps along one line have cosine one at every lag, equal lengths, and nothing beside the line."""
    rows = torch.arange(HISTORY).unsqueeze(1) * torch.randn(1, 20, generator=seeded(), dtype=torch.float64) + 5
    for name, value in features_of(rows).items():
        expected = 1.0 if "cosine" in name or "straight" in name or "least-squares" in name else 0.0
        if "coordinates" in name:
            expected = math.log(20)
        assert value == pytest.approx(expected, abs=1e-9), name


def test_features_of_a_zigzag_and_a_slowing_path() -> None:
    """A path there and back has cosines of alternating sign; one that slows down by half a step shows its rate."""
    there_and_back = features_of(torch.tensor([0.0, 1.0]).repeat(5)[:HISTORY].unsqueeze(1).double())
    assert there_and_back["cosine of steps 1 apart"] == pytest.approx(-1)
    assert there_and_back["cosine of steps 2 apart"] == pytest.approx(1)
    assert there_and_back["straightness"] == pytest.approx(0, abs=1e-9)
    slowing = features_of((-(0.5 ** torch.arange(HISTORY))).unsqueeze(1).double())
    assert slowing["log length of the newest 2 rows to the 2 before"] == pytest.approx(2 * math.log(0.5))
    lengths = [slowing[f"log length of step {index}"] for index in range(HISTORY - 1)]
    assert lengths[1] - lengths[0] == pytest.approx(math.log(0.5))
    assert lengths[-1] == -LARGEST_LOG


def test_cosines_are_listed_by_lag() -> None:
    """Steps that repeat every third time, at right angles otherwise, line up three and six apart only."""
    steps = torch.eye(3, dtype=torch.float64).repeat(3, 1)[: HISTORY - 1]
    found = features_of(torch.cat((torch.zeros(1, 3, dtype=torch.float64), steps.cumsum(0))))
    for lag in range(1, HISTORY - 1):
        assert found[f"cosine of steps {lag} apart"] == pytest.approx(float(lag % 3 == 0), abs=1e-9)


def test_features_do_not_depend_on_coordinates_or_their_unit() -> None:
    """Permuting, mirroring, rotating and scaling the coordinates leaves every feature as it is."""
    rows = drifting_rows(HISTORY, 24, seeded(1)).double()
    expected = features_of(rows)
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=seeded(2), dtype=torch.float64))[0]
    order = torch.randperm(24, generator=seeded(3))
    for changed in (rows[:, order], -rows, rows @ rotation, rows * 2.0**60, rows + 3):
        assert features_of(changed) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_features_of_what_stands_still() -> None:
    """A tensor that never moves has those of a random walk, up to chance, all finite."""
    still = features_of(torch.ones(HISTORY, 4000))
    walk = features_of(torch.randn(HISTORY, 4000, generator=seeded(4)).double().cumsum(0))
    assert still == pytest.approx(walk, abs=0.1)


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (None, 0.0),
        ([1e-3, 1e-3, 5e-4], math.log(0.5)),
        ([1e-3, 0.0, 0.0], 0.0),
        ([0.0, 1e-3, 1e-3], 0.0),
        ([math.nan, 1e-3, 1e-3], 0.0),
        ([1.0, 1.0, 1e-9], -LARGEST_LOG),
    ],
)
def test_change_of_the_learning_rate(rates: list[float] | None, expected: float) -> None:
    """It is the logarithm of the ratio within the window; 0 where it is unknown or meaningless."""
    assert rate_change(None if rates is None else torch.tensor(rates)) == pytest.approx(expected)


# --- sums of cases


def test_sums_of_a_case_give_the_error_of_every_combination() -> None:
    """|target - C rows|^2 of each tensor, computed from the sums, is what it is on the parameters."""
    layout = small_layout()
    (case, *_) = cases_of(drifting_rows(12, layout.size, seeded(5)).double(), range(12), 5, [1, 4], layout)
    sums = CaseSums.of(case, [1, 4])
    coefficients = torch.randn(len(layout), 2, 4, generator=seeded(6), dtype=torch.float64)
    linear = 2 * (coefficients * sums.cross).sum(-1)
    square = torch.einsum("nhi,nij,nhj->nh", coefficients, sums.gram, coefficients)
    found = sums.persistence - linear + square
    for index, horizon in enumerate((1, 4)):
        mean = combine(case.window, coefficients[:, index])
        for position, spec in enumerate(layout):
            wrong = (mean - case.targets[horizon])[spec.span].square().sum()
            torch.testing.assert_close(found[position, index], wrong)


# --- directions


def test_directions_are_orthonormal_in_parameter_space() -> None:
    """Written out, they are orthogonal, as long as the tensor's root mean squared step, and span the window."""
    window = window_of(drifting_rows(HISTORY, 50, seeded(7)).double())
    rows = deviations_in(window, slice(None))
    frame = frame_of(window, HISTORY - 1)
    directions = frame.combinations[0] @ rows / motion(gram(window)).sqrt()
    torch.testing.assert_close(directions @ directions.T, torch.eye(HISTORY - 1, dtype=torch.float64))
    torch.testing.assert_close((rows @ directions.T) @ directions, rows)


def test_the_first_direction_is_the_line_and_the_second_the_bend() -> None:
    """The least-squares slope lies along the first; a parabola needs the first two and nothing else."""
    rows = drifting_rows(HISTORY, 50, seeded(8)).double()
    window = window_of(rows)
    along = combine(window, frame_of(window, 3).combinations[0, 0]) - window.last
    near, far = Linear(history=HISTORY).forecast(window, [1, 2])
    torch.testing.assert_close(unit(along), unit(far.mean - near.mean))
    parabola = window_of(time() * rows[0] + time() ** 2 * rows[1])
    frame = frame_of(parabola, 4)
    oldest = torch.tensor([1.0] + [0.0] * (HISTORY - 2))
    coordinates = frame.project(gram(parabola)[:, :1] / motion(gram(parabola)))
    assert float(coordinates[0, 0, 2:].abs().max()) < 1e-4
    torch.testing.assert_close(
        combine(parabola, frame.coefficients(coordinates)[0, 0]), combine(parabola, oldest), rtol=1e-6, atol=1e-6
    )


def test_each_direction_points_where_its_power_of_time_grows() -> None:
    """On a path made of orthonormal polynomials in as many directions, they are found with their leading signs."""
    axes = torch.linalg.qr(torch.randn(30, 4, generator=seeded(12), dtype=torch.float64))[0].T
    polynomials = torch.linalg.qr(torch.linspace(-1, 1, HISTORY, dtype=torch.float64)[:, None] ** torch.arange(5))
    window = window_of((polynomials.Q * polynomials.R.diagonal().sign())[:, 1:] @ axes)
    directions = frame_of(window, 4).combinations[0] @ deviations_in(window, slice(None))
    torch.testing.assert_close(directions / motion(gram(window)).sqrt(), axes)


def test_the_velocity_is_that_of_a_parabola_at_its_end_along_the_line() -> None:
    """On a parabola the velocity's first coordinate is the derivative at the newest row, along the line's direction."""
    first, second = torch.randn(2, 50, generator=seeded(11), dtype=torch.float64)
    window = window_of(time() * first + time() ** 2 * second)
    frame = frame_of(window, 2)
    line = unit(combine(window, frame.combinations[0, 0]) - window.last)
    now = first + 2 * (HISTORY - 1) * second
    expected = float(line @ now) / float(motion(gram(window)).sqrt())
    assert frame.velocity[0].tolist() == pytest.approx([expected, 0.0])


def time() -> Tensor:
    return torch.arange(HISTORY).unsqueeze(1).double()


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def test_directions_that_rows_do_not_span_are_zero() -> None:
    """A line has one direction, a tensor that stands still none; nothing is forecast along the others."""
    layout = small_layout({"line": (20,), "still": (10,)})
    values = torch.cat((time() * torch.randn(1, 20, generator=seeded(9)).double(), torch.ones(HISTORY, 10)), dim=1)
    frame = frame_of(window_of(values, layout=layout), 3)
    assert frame.combinations.flatten(2).norm(dim=2).gt(0).tolist() == [[True, False, False], [False, False, False]]
    assert float(frame.velocity[0, 0]) == pytest.approx(1)


def test_large_values_are_no_obstacle() -> None:
    """Windows whose squares overflow float32 have the directions and features of small ones."""
    rows = drifting_rows(HISTORY, 30, seeded(10))
    small, large = (Seen.of(window_of(rows * factor, layout=flat_layout(30)), [""]) for factor in (1.0, 2.0**80))
    torch.testing.assert_close(large.features, small.features, rtol=1e-12, atol=0)
    torch.testing.assert_close(large.gram, small.gram, rtol=1e-12, atol=0)

"""`deadreckon characterize`: sources with known answers, what is read of a run, sentences both ways, the command."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import small_layout

from deadreckon.codec import CodecConfig
from deadreckon.experiments import markdown
from deadreckon.experiments.characterize import command as characterize
from deadreckon.experiments.characterize import figures as characterize_figures
from deadreckon.experiments.characterize.advice import (
    DEFAULT,
    RECOMMENDED,
    SCALES,
    TABLES,
    Advice,
    advise,
    check,
    setting_text,
)
from deadreckon.experiments.characterize.marginals import FAMILIES, Judgement, blurred, judge, tails
from deadreckon.experiments.characterize.measures import batches, effect
from deadreckon.experiments.characterize.options import CharacterizeOptions
from deadreckon.experiments.characterize.rows import Rows, read_phases, run_folders, streams_of
from deadreckon.experiments.characterize.run import measure_run
from deadreckon.experiments.characterize.scales import LEVELS, Rung, ladder, water_filling
from deadreckon.experiments.characterize.space import WAYS, Space, alike, space
from deadreckon.experiments.characterize.text import as_text
from deadreckon.experiments.characterize.time import Dependence, cross_cosine, dependence
from deadreckon.experiments.characterize.verdicts import (
    advice,
    batch,
    between,
    drift,
    effects,
    headline,
    in_rows,
    scales,
    shape,
)
from deadreckon.experiments.cli import main
from deadreckon.experiments.errors import DataError, OptionError
from deadreckon.experiments.options import ReportOptions
from deadreckon.experiments.report import command as report
from deadreckon.experiments.results import read_result, write_result
from deadreckon.forecast import Trajectory

SHAPES = {"first.weight": (40, 30), "first.bias": (40,), "second.weight": (20, 40)}
LAYOUT = small_layout(SHAPES)
NUM_ROWS = 32
QUIET: dict[str, Any] = {"logger": "none", "progress": False}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def rows_of(values: Any, stream: str = "gradients", steps: Any = None, segments: Any = None) -> Rows:
    """Rows of the small layout, in an unbroken series unless told otherwise."""
    values = np.asarray(values, dtype=np.float32)
    steps = np.arange(len(values)) if steps is None else np.array(steps)
    segments = np.zeros(len(values), dtype=np.int64) if segments is None else np.array(segments)
    return Rows(stream, "early", LAYOUT, steps, segments, 1, values)


def gaussian(seed: int = 0, num_rows: int = NUM_ROWS) -> np.ndarray:
    return rng(seed).standard_normal((num_rows, LAYOUT.size))


def judged(draw: Callable[[np.random.Generator, int], np.ndarray], count: int = 10000) -> Judgement:
    """The families on a source that gives independent values."""
    generator = rng()
    return judge(*(blurred(draw(generator, count), 1.0, generator) for _ in range(2)))


def gaussian_bits(deviation: float = 1.0) -> float:
    return 8 + 0.5 * math.log2(2 * math.pi * math.e) + math.log2(deviation)


# What distribution


def test_a_gaussian_source_is_called_gaussian() -> None:
    """Of i.i.d. Gaussian values the Gaussian is the best family, takes its entropy, and passes the test of fit."""
    found = judged(lambda generator, count: generator.standard_normal(count))
    assert found.best == "gaussian"
    assert found.bits["gaussian"] == pytest.approx(gaussian_bits(), abs=0.03)
    assert abs(found.gap) < 0.005
    assert found.p_gaussian > 0.01


def test_a_laplace_source_costs_a_gaussian_a_tenth_of_a_bit() -> None:
    """The gap is log2(4 pi e) / 2 - log2(2 e), whatever the scale, and the Gaussian fails the test of fit."""
    found = judged(lambda generator, count: generator.laplace(size=count), 40000)
    assert found.best == "laplace"
    assert found.gap == pytest.approx(0.5 * math.log2(4 * math.pi * math.e) - math.log2(2 * math.e), abs=0.02)
    assert found.p_gaussian < 1e-3 < found.p_best
    assert found.shapes["generalised_gaussian"] == pytest.approx(1, abs=0.05)


def test_student_t_and_scale_mixtures_are_told_apart() -> None:
    """Each source is described best by its own family, whose shape is found."""
    found = judged(lambda generator, count: generator.standard_t(3, count))
    assert found.best == "student_t"
    assert found.shapes["student_t"] == pytest.approx(3, abs=0.4)
    two = judged(
        lambda generator, count: generator.standard_normal(count) * np.where(generator.random(count) < 0.8, 0.2, 3)
    )
    assert two.best == "scale_mixture"
    entropy_below = 0.8 * math.log2(0.2) + 0.2 * math.log2(
        3
    )  # of the value whose scale is known; the mixture pays more
    assert gaussian_bits() + entropy_below < two.bits["scale_mixture"] < gaussian_bits() + entropy_below + 0.73


def test_exact_zeros_gain_no_infinite_density() -> None:
    """Values that are mostly zero are coded at the resolution: no family takes less than the zeros' own entropy."""
    found = judged(lambda generator, count: generator.standard_normal(count) * (generator.random(count) < 0.1))
    known = -(0.1 * math.log2(0.1) + 0.9 * math.log2(0.9)) + 0.1 * gaussian_bits()
    assert known - 0.05 < min(found.bits.values()) < known + 0.3  # a Gaussian peak instead of a flat one costs 0.23
    assert found.gap > 3


def test_values_that_are_all_equal_have_finite_bits() -> None:
    """A stream that stands still gives numbers, not errors."""
    found = judged(lambda generator, count: np.zeros(count), 1000)
    assert all(math.isfinite(bits) for bits in found.bits.values())
    assert set(found.bits) == set(FAMILIES)


def test_tails_by_hand() -> None:
    """Kurtosis, share beyond four deviations, zeros and energy of the top hundredth as computed by hand."""
    values = np.zeros(1000, dtype=np.float32)
    values[:10], values[10:20] = 3.0, -3.0
    found = tails(values)
    assert found.zeros == pytest.approx(0.98)
    assert found.kurtosis == pytest.approx(1 / 0.02 - 3, rel=1e-4)
    assert found.beyond == pytest.approx(0.02 / 6.334e-5, rel=1e-3)
    assert found.top_energy == pytest.approx(0.5)


# What scales are worth


def by_level(found: list[Rung]) -> dict[str, Rung]:
    return {rung.level: rung for rung in found}


def test_an_iid_gaussian_has_nothing_to_gain() -> None:
    """No level of knowing the scale saves anything, no shape either, and rates are those of one Gaussian."""
    found = by_level(ladder(rows_of(gaussian()), 4000, 0.1, rng()))
    assert tuple(found) == LEVELS
    for rung in found.values():
        assert rung.gaussian_bits == pytest.approx(gaussian_bits(), abs=0.03)
        assert rung.gap < 0.02
        assert rung.rate == pytest.approx(0.5 * math.log2(10), abs=0.03)


def test_scales_of_tensors_save_the_mean_logarithm() -> None:
    """Gaussians whose scale depends on the tensor gain what Jensen's inequality loses, and are Gaussian then."""
    deviations = np.concatenate([np.full(1200, 1.0), np.full(40, 1.0), np.full(800, 0.05)])
    found = by_level(ladder(rows_of(gaussian() * deviations), 4000, 0.1, rng()))
    saved = 0.5 * math.log2(np.mean(deviations**2)) - np.mean(np.log2(deviations))
    assert found["vector"].gaussian_bits - found["tensor"].gaussian_bits == pytest.approx(saved, abs=0.06)
    assert found["vector"].gaussian_bits - found["vector"].best_bits > 0.5
    assert found["tensor"].gap < 0.02


def test_scales_of_coordinates_are_predicted_from_the_past() -> None:
    """Where each coordinate keeps a scale of its own, most of the mean logarithm is saved by the running mean."""
    deviations = 2.0 ** rng(5).uniform(-3, 3, LAYOUT.size)
    found = by_level(ladder(rows_of(gaussian() * deviations), 4000, 0.1, rng()))
    saved = 0.5 * math.log2(np.mean(deviations**2)) - np.mean(np.log2(deviations))
    gained = found["tensor"].gaussian_bits - found["coordinate"].gaussian_bits
    assert 0.75 * saved < gained < saved + 0.05
    assert found["coordinate"].rate < found["tensor"].rate - 0.5


def test_scales_of_this_row_are_seen_in_the_packet() -> None:
    """Where whole matrix rows are loud by turns, only what is seen of the packet helps."""
    loud = np.where(rng(3).random((NUM_ROWS, 60)) < 0.5, 0.1, 1.0)
    values = gaussian()
    for first, count, width in ((0, 40, 30), (1240, 20, 40)):
        which = loud[:, :count] if first == 0 else loud[:, 40:]
        values[:, first : first + count * width] *= np.repeat(which, width, axis=1)
    found = by_level(ladder(rows_of(values), 4000, 0.1, rng()))
    assert found["tensor"].gaussian_bits - found["coordinate"].gaussian_bits < 0.1
    assert found["coordinate"].gaussian_bits - found["packet"].gaussian_bits > 0.4


def test_water_filling_by_hand() -> None:
    """Equal variances need log2(1/D)/2; what lies below the water needs nothing."""
    assert water_filling(np.full(10, 3.0), 0.25) == pytest.approx(1)
    # Half of the coordinates hold all of the energy: theirs is the error, and they alone need bits.
    assert water_filling(np.array([1.0, 0.0]), 1 / 16) == pytest.approx(0.5 * 0.5 * math.log2(16))
    assert water_filling(np.zeros(4), 0.1) == 0


# What time is worth


def test_an_autoregression_saves_what_its_correlation_says() -> None:
    """Of x_t = r x_t-1 + noise the prediction leaves 1 - r^2 and saves log2(1 / (1 - r^2)) / 2."""
    noise, r = gaussian(num_rows=60), 0.8
    values = noise.copy()
    for row in range(1, len(values)):
        values[row] = r * values[row - 1] + math.sqrt(1 - r**2) * noise[row]
    found = dependence(rows_of(values), (1, 2), None)
    assert found.nmse == pytest.approx(1 - r**2, abs=0.01)
    assert found.bits == pytest.approx(0.5 * math.log2(1 / (1 - r**2)), abs=0.03)
    for lag in found.lags:
        assert lag.cosine == pytest.approx(r**lag.lag, abs=0.02)
        assert lag.autocorrelation == pytest.approx(r**lag.lag, abs=0.05)
    assert found.noise is None


def test_independent_rows_predict_nothing() -> None:
    """Nothing is saved, and a prediction that would be worse than none counts as none."""
    found = dependence(rows_of(gaussian()), (1,), None)
    assert found.nmse <= 1
    assert found.bits < 0.01
    assert abs(found.momentum) < 0.03


def test_large_coordinates_decide_the_cosine_and_not_the_autocorrelation() -> None:
    """A constant tensor of large scale makes the cosine 1; alike counted it is one of many coordinates."""
    values = gaussian()
    values[:, 1200:1240] = 1000.0
    (lag,) = dependence(rows_of(values), (1,), None).lags
    assert lag.cosine is not None
    assert lag.autocorrelation is not None
    assert lag.cosine > 0.99
    assert lag.autocorrelation == pytest.approx(40 / LAYOUT.size, abs=0.02)


def test_the_noise_scale_of_a_known_signal() -> None:
    """A fixed gradient under noise of s times less energy gives B / s and predicts the measured cosine."""
    signal, s, batch_size = rng(9).standard_normal(LAYOUT.size), 0.25, 32
    values = signal + gaussian() / math.sqrt(s)
    found = dependence(rows_of(values), (1,), batch_size).noise
    assert found is not None
    assert found.batch == pytest.approx(batch_size / s, rel=0.15)
    assert found.predicted == pytest.approx(s / (1 + s), rel=0.15)
    assert found.measured == pytest.approx(s / (1 + s), rel=0.15)


def test_a_noise_scale_without_signal_is_none() -> None:
    """Gradients that turn round at every step have no signal in their mean."""
    values = gaussian(num_rows=1) * np.where(np.arange(NUM_ROWS) % 2, -1, 1)[:, None]
    found = dependence(rows_of(values), (1,), 32).noise
    assert found is not None
    assert found.batch is None
    assert found.measured == pytest.approx(-1, abs=1e-3)


def test_pairs_span_neither_gaps_nor_breaks() -> None:
    """Only rows exactly the lag apart, in one segment, are compared."""
    rows = rows_of(gaussian(num_rows=6), steps=[0, 1, 2, 7, 8, 9], segments=[0, 0, 0, 0, 0, 1])
    assert [pair.tolist() for pair in rows.pairs(1)] == [[0, 1, 3], [1, 2, 4]]
    assert [pair.tolist() for pair in rows.pairs(2)] == [[0], [2]]
    assert [pair.tolist() for pair in rows.pairs(9)] == [[], []]


def test_cosines_with_another_stream_are_of_the_same_step() -> None:
    """Updates that are the negative gradient of the same step have the cosine -1, those of the step before not."""
    values = gaussian(num_rows=10)
    gradients, updates = rows_of(values[2:], steps=range(2, 10)), rows_of(-0.1 * values)
    assert cross_cosine(gradients, updates) == pytest.approx(-1, abs=1e-5)
    assert abs(cross_cosine(gradients, updates, 1) or 1.0) < 0.05
    assert cross_cosine(gradients, rows_of(values, steps=range(100, 110))) is None


# What coordinates have in common


@pytest.mark.parametrize(("correlation", "way"), [(0.0, "rows"), (0.5, "rows"), (0.5, "columns")])
def test_correlation_within_lines_is_found(correlation: float, way: str) -> None:
    """Entries that share a part with their row, or column, have that correlation; the other way none."""
    generator = rng(2)
    shared = generator.standard_normal((200, 40, 1) if way == "rows" else (200, 1, 30))
    entries = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * generator.standard_normal((200, 40, 30))
    along, across = alike(entries), alike(entries.swapaxes(1, 2))
    assert along is not None
    assert across is not None
    own, other = (along, across) if way == "rows" else (across, along)
    assert own == pytest.approx(correlation, abs=0.03)
    assert abs(other) < 0.03


def test_what_does_not_vary_has_no_correlation() -> None:
    """Equal entries, and groups of one, give None instead of a division by zero."""
    assert alike(np.ones((2, 3, 4))) is None
    assert alike(np.ones((2, 3, 1))) is None


def test_space_of_independent_and_of_smooth_rows() -> None:
    """Independent entries save nothing; neighbours that are alike save log2(1 / (1 - c^2)) / 2, as vectors."""
    plain = space(rows_of(gaussian()))
    assert plain.value_bits < 0.02
    assert plain.sign_bits < 0.01
    assert plain.rank_one is not None
    assert abs(plain.rank_one) < 0.03
    values = gaussian()
    smooth = values.copy()
    smooth[:, 1:] = (values[:, 1:] + values[:, :-1]) / math.sqrt(2)
    found = space(rows_of(smooth))
    assert found.value["neighbours"] == pytest.approx(0.5, abs=0.05)
    assert found.value_bits == pytest.approx(-0.5 * math.log2(0.75), abs=0.05)
    assert found.value["kernels"] is None


def test_rank_one_rows_are_seen() -> None:
    """Rows whose matrices are outer products have all of their energy along one direction."""
    values = np.zeros((NUM_ROWS, LAYOUT.size))
    generator = rng(4)
    for row in values:
        row[:1200] = np.outer(generator.standard_normal(40), generator.standard_normal(30)).reshape(-1)
    found = space(rows_of(values))
    assert found.rank_one == pytest.approx(1 - (math.sqrt(40) + math.sqrt(30)) ** 2 / 1200, abs=1e-4)


# What is advised


def advised(scale_bits: float, mean_bits: float, neighbours: float | None) -> CodecConfig:
    """The settings for a stream of one phase with these findings."""
    rungs = [Rung(level, 9.0, "gaussian", 9.0 - scale_bits * (level == "packet"), 0.0, 0.0, 1.0) for level in LEVELS]
    time = Dependence([], 0.0, 1.0, mean_bits, None, np.eye(1), np.zeros(1))
    ways = {way: neighbours for way in WAYS}
    return advise([rungs], [time], [Space(ways, ways, ways, 0.0)], 0.2).config


def test_advice_follows_from_what_pays() -> None:
    """Each finding switches on what uses it, by itself; vectors need scales to be known."""
    assert advised(0.0, 0.0, 0.0) == CodecConfig("none", "Z", entropy="tensor_tables", nmse=0.2)
    assert advised(0.5, 0.0, None) == CodecConfig("none", "Z", nmse=0.2)
    assert advised(0.0, 0.5, 0.0) == CodecConfig("fitted", "Z", entropy="tensor_tables", nmse=0.2)
    assert advised(0.5, 0.5, 0.9) == CodecConfig("fitted", lattice="E8", nmse=0.2)
    assert advised(0.0, 0.5, 0.9).lattice == "Z"


def test_settings_are_written_with_what_differs() -> None:
    """The text makes the configuration again."""
    assert setting_text(CodecConfig()) == "CodecConfig()"
    config = CodecConfig("none", lattice="E8", nmse=0.3)
    assert eval(setting_text(config), {"CodecConfig": CodecConfig}) == config


def test_a_check_codes_equal_settings_once_and_keeps_the_error() -> None:
    """Every setting stays within the wanted error; where the advice is what `DEFAULT` names, their bits are equal."""
    rows = rows_of(gaussian(num_rows=8))
    found = {
        item.name: item
        for item in check(Advice(CodecConfig(lattice="Z"), 0, 0, None), LAYOUT, "gradients", rows.values, range(8))
    }
    assert found[RECOMMENDED].bits == found[DEFAULT].bits
    assert found[RECOMMENDED].seconds == found[DEFAULT].seconds
    assert all(item.nmse <= 0.1 and item.packets == 6 for item in found.values())
    assert 1 < found[TABLES].bits < 3


# What is read of a run


def write_run(folder: Path, values: np.ndarray, stream: str = "gradients", every: int = 1, **facts: Any) -> Path:
    told = {"task": "digits", "network": "mlp", "optimizer": "Adam", "batch_size": 64, "init": "default"} | facts
    with Trajectory.create(folder / "trajectory", LAYOUT, (stream,), told) as trajectory:
        for row, vector in enumerate(values.astype(np.float32)):
            trajectory.append(row * every, {stream: vector})
    return folder


def test_phases_are_thirds_and_rows_come_from_their_middle(tmp_path: Path) -> None:
    """Of 60 rows with at most 10 a phase, each third gives the ten in its middle."""
    values = gaussian(num_rows=60)
    with Trajectory.open(write_run(tmp_path / "run", values, every=5) / "trajectory") as trajectory:
        found = list(read_phases(trajectory, "gradients", 10, 2))
    assert [item.phase for item in found] == ["early", "middle", "late"]
    assert [item.steps[0] // 5 for item in found] == [5, 25, 45]
    assert all(len(item) == 10 and item.every == 5 for item in found)
    np.testing.assert_array_equal(found[1].values, values[25:35].astype(np.float32))


def test_pseudo_gradients_are_weights_before_less_weights_after(tmp_path: Path) -> None:
    """They are made of weights some rows apart, without overlap, and only if there are no recorded ones."""
    values = gaussian(num_rows=41)
    with Trajectory.open(write_run(tmp_path / "run", values, "weights") / "trajectory") as trajectory:
        assert streams_of(trajectory, ("gradients", "pseudo_gradients")) == ["pseudo_gradients"]
        (found,) = read_phases(trajectory, "pseudo_gradients", 100, 2)
    rows = values.astype(np.float32)
    assert found.phase == "whole"
    np.testing.assert_array_equal(found.values, rows[0:39:2] - rows[2::2])
    assert found.steps.tolist() == list(range(2, 41, 2))


def test_rows_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    """A diverged row is no part of a phase, and what is left of it is not paired across."""
    values = gaussian(num_rows=20)
    values[9] = np.nan
    with Trajectory.open(write_run(tmp_path / "run", values) / "trajectory") as trajectory:
        (found,) = read_phases(trajectory, "gradients", 100, 2)
    assert len(found) == 19
    assert 8 not in found.pairs(1)[0]


def test_what_cannot_be_characterised_is_refused(tmp_path: Path) -> None:
    """No folder, no run, no rows: each says what to do."""
    with pytest.raises(DataError, match="There is no folder"):
        run_folders([str(tmp_path / "absent")])
    with pytest.raises(DataError, match="holds no recorded run"):
        run_folders([str(tmp_path)])
    write_run(tmp_path / "run", gaussian(num_rows=4))
    options = CharacterizeOptions(str(tmp_path / "run"), str(tmp_path / "out"), **QUIET)
    with pytest.raises(OptionError, match="none has enough finite rows of gradients"):
        characterize.run(options)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"trajectory": ()}, "`trajectory` must name at least one"),
        ({"trajectory": ""}, "`trajectory` must name a folder"),
        ({"rows": 7}, "`rows` must be at least 8"),
        ({"samples": 10}, "`samples` must be at least 100"),
        ({"lags": (0,)}, "`lags` must be at least 1"),
        ({"nmse": 1.0}, "`nmse` must lie between 0 and 1"),
        ({"packets": 3}, "`packets` must be at least 8"),
        ({"streams": ()}, "`streams` must name at least one"),
    ],
)
def test_options_are_checked(bad: dict[str, Any], message: str) -> None:
    """Each option that makes no sense is refused by name."""
    with pytest.raises(OptionError, match=message):
        CharacterizeOptions(**bad)


# The command and its sentences


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that differ in their batch size: a fixed gradient under noise, of scales that differ by coordinate."""
    folder = tmp_path_factory.mktemp("characterize") / "runs"
    signal = rng(9).standard_normal(LAYOUT.size)
    deviations = 2.0 ** rng(5).uniform(-3, 3, LAYOUT.size)
    for number, batch_size in enumerate((32, 128)):
        noise = gaussian(number, 24) / math.sqrt(batch_size / 32 * 0.25)
        write_run(folder / f"batch_{batch_size}", (signal + noise) * deviations, batch_size=batch_size)
    return folder


@pytest.fixture(scope="module")
def content(runs: Path) -> dict[str, Any]:
    """The checked result about these runs."""
    options = CharacterizeOptions(str(runs), samples=200, packets=8, **QUIET)
    measured = [measure_run(folder, number, options) for number, folder in enumerate(run_folders([str(runs)]))]
    write_result(runs.parent / "result", "characterize", characterize.assembled(measured, options))
    return read_result(runs.parent / "result").data


def test_the_command_writes_result_text_and_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`deadreckon characterize RUN` leaves a result that reads back and the text that it prints."""
    monkeypatch.setattr(characterize, "characterize_figures", lambda data, folder: [])
    run = write_run(tmp_path / "run", gaussian(num_rows=10))
    arguments = ["characterize", str(run), "--out", str(tmp_path), "--samples=100", "--packets=null"]
    assert main([*arguments, "--logger=none", "--progress=false"]) == 0
    result = read_result(tmp_path)
    assert result.kind == "characterize"
    assert [about["batch_size"] for about in result.data["runs"]] == [64]
    text = (tmp_path / "characterize.md").read_text()
    assert text in capsys.readouterr().out
    assert text == as_text(result.data)
    assert "Whether it holds was not tried" in text


def test_the_answer_is_found_in_a_run(content: dict[str, Any]) -> None:
    """The text says that scales make the difference, how alike rows are, and what the codec took."""
    text = as_text(content)
    assert "Gradients do not obey an i.i.d. Gaussian source" in text
    assert "predicting each coordinate's scale, beyond that, saves" in text
    assert "Neighbouring rows are alike" in text
    assert "with the default here, `CodecConfig(lattice='Z')`" in text
    assert "2 runs with 2,040 parameters" in text
    found = batches(content)
    assert [(item.batch_size, round(item.predicted, 1)) for item in found] == [(32, 0.2), (128, 0.5)]
    assert found[1].measured == pytest.approx(found[1].predicted, abs=0.06)


def changed(content: dict[str, Any], table: str, **values: Any) -> dict[str, Any]:
    """The same with other numbers in every row of a table; a function makes its number of the row."""
    found = copy.deepcopy(content)
    for row in found[table]:
        row.update({name: value(row) if callable(value) else value for name, value in values.items()})
    return found


def test_the_headline_flips(content: dict[str, Any]) -> None:
    """Without anything to gain the stream obeys an i.i.d. Gaussian source; one lever alone is named alone."""
    nothing = changed(content, "scales", gaussian_bits=10.0, best_bits=10.0)
    nothing = changed(changed(nothing, "time", bits=0.0), "space", value_bits=0.0)
    nothing = changed(nothing, "marginals", gap=0.001)
    assert "Gradients obey an i.i.d. Gaussian source" in headline(nothing, "gradients")
    one = headline(changed(nothing, "time", bits=0.7), "gradients")
    assert "do not obey" in one
    assert "a coordinate: predicting values from earlier rows saves 0.70 bit. What" in one
    assert "Less than 0.02 bit: the best shape instead of a Gaussian" in one


def by(key: str, values: dict[str, float]) -> Callable[[dict[str, Any]], float]:
    return lambda row: values[row[key]]


TWO_BITS = dict.fromkeys((TABLES, SCALES, DEFAULT), 2.0)
FLAT = {level: 9.0 for level in LEVELS}


@pytest.mark.parametrize(
    ("sentences", "table", "values", "expected"),
    [
        (shape, "marginals", {"gap": 0.01}, "The whole vector is Gaussian within 0.01 bit"),
        (shape, "marginals", {"gap": 1.5}, "takes 1.50 (1.50 to 1.50) bits a coordinate more than the best family"),
        (shape, "marginals", {"kurtosis": 0.1}, "Tails are about a Gaussian's"),
        (shape, "marginals", {"kurtosis": 90.0}, "Tails are heavier than a Gaussian's: excess kurtosis 90"),
        (scales, "scales", {"best_bits": by("level", FLAT)}, "one scale a tensor saves next to nothing, 0.00"),
        (scales, "scales", {"best_bits": by("level", FLAT | {"tensor": 8.0})}, "one scale a tensor saves 1.00"),
        (scales, "scales", {"best_bits": by("level", FLAT | {"packet": 9.5})}, "already seen costs -0.50"),
        (scales, "scales", {"gap": 0.0}, "what is left is Gaussian within 0.00 bit"),
        (scales, "scales", {"gap": 9.0}, "none of what is not Gaussian"),
        (in_rows, "time", {"lags": [{"lag": 1, "cosine": 0.0, "autocorrelation": 0.0}]}, "have little in common"),
        (in_rows, "time", {"lags": [{"lag": 1, "cosine": -0.4, "autocorrelation": 0.0}]}, "rows oppose each other"),
        (in_rows, "time", {"bits": 0.001}, "This does not pay"),
        (in_rows, "time", {"bits": 0.5}, "This pays"),
        (in_rows, "time", {"own_update": 0.3, "last_update": 0.1}, "the cosine 0.30 (0.30 to 0.30) with the descent"),
        (between, "space", {"value_bits": 0.0}, "is nothing for vectors to gain"),
        (between, "space", {"value_bits": 0.5}, "is something for vectors to gain"),
        (between, "space", {"magnitude": {"rows": 0.4}}, "Magnitudes of one row's coordinates go together: 0.40"),
        (between, "space", {"magnitude": {"rows": 0.0}}, "Magnitudes of one row's coordinates are nearly uncorrelated"),
        (
            advice,
            "checks",
            {"bits": by("name", TWO_BITS | {RECOMMENDED: 1.0})},
            "The recommendation holds: it takes 50 % less",
        ),
        (
            advice,
            "checks",
            {"bits": by("name", TWO_BITS | {RECOMMENDED: 3.0})},
            "the better choice: it takes 50 % more",
        ),
        (advice, "checks", {"bits": 1.0}, "as many bits as the default"),
    ],
)
def test_sentences_follow_their_numbers(
    content: dict[str, Any],
    sentences: Callable[[dict[str, Any], str], list[str]],
    table: str,
    values: dict[str, Any],
    expected: str,
) -> None:
    """Each sentence says what its numbers say, both ways."""
    unknown = dict.fromkeys(("rows", "columns", "kernels", "neighbours"))
    entries = {name: unknown | value if isinstance(value, dict) else value for name, value in values.items()}
    assert expected in " ".join(sentences(changed(content, table, **entries), "gradients"))


@pytest.mark.parametrize(
    ("octaves", "expected"),
    [(0.01, "Scales are steady"), (0.5, "Scales move upwards"), (-0.5, "Scales move downwards")],
)
def test_drift_says_which_way(content: dict[str, Any], octaves: float, expected: str) -> None:
    """Scales that move are called so with their direction, others steady."""
    assert expected in drift(changed(content, "drift", octaves=octaves), "gradients")[0]


@pytest.mark.parametrize(
    ("late", "expected"),
    [(0.5, "it rises from"), (0.2, "it stays"), (0.0, "it falls from")],
    ids=("up", "same", "down"),
)
def test_batch_sizes_say_which_way(content: dict[str, Any], late: float, expected: str) -> None:
    """The likeness at the larger batch is compared with that at the smaller one."""
    cosines = {32: 0.2, 128: late}
    sizes = [run["batch_size"] for run in content["runs"]]
    found = changed(content, "time", noise_measured=lambda row: cosines[sizes[row["run"]]])
    assert any(expected in sentence for sentence in batch(found))


def test_noise_scale_verdict_flips(content: dict[str, Any]) -> None:
    """The predicted cosine is called right, too small or too large."""
    for predicted, expected in ((0.3, "as it says"), (0.0, "less than is measured"), (0.9, "more than is measured")):
        found = changed(content, "time", noise_predicted=predicted, noise_measured=0.3, noise_batch=100.0)
        assert any(expected in sentence for sentence in batch(found))


def test_effects_compare_runs_that_differ_in_nothing_else(content: dict[str, Any]) -> None:
    """A fact's effect is the mean over groups of otherwise equal runs; a run without partner counts for nothing."""
    found = copy.deepcopy(content)
    about = found["runs"][0]
    facts = [("adam", 32, "x"), ("adam", 128, "x"), ("sgd", 32, "x"), ("sgd", 128, "x"), ("muon", 999, "y")]
    found["runs"] = [about | {"optimizer": name, "batch_size": size, "init": init} for name, size, init in facts]
    known = effect(found, "batch_size", {0: 1.0, 1: 3.0, 2: 5.0, 3: 7.0, 4: 100.0})
    assert known is not None
    assert known.groups == 2
    assert known.values == {"32": 3.0, "128": 5.0}
    assert effect(found, "init", {0: 1.0, 4: 2.0}) is None
    assert any(sentence.startswith("Batch size, from 1 group of runs") for sentence in effects(content, "gradients"))


def test_a_table_cell_cannot_break_its_table() -> None:
    """Bars and line ends in names are replaced."""
    assert markdown.table(["a", "b"], [["x|y\nz", "1"]]).splitlines()[2] == "| x/y z |   1 |"


@pytest.mark.slow
def test_figures_are_drawn(content: dict[str, Any], tmp_path: Path) -> None:
    """Every figure is written as PNG and SVG, that on batch sizes only where there are several."""
    drawn = {path.stem for path, _ in characterize_figures.characterize_figures(content, tmp_path)}
    assert drawn == {"marginals", "models", "lags", "cosines", "drift", "batch_size", "codec"}
    assert all((tmp_path / f"{name}.svg").stat().st_size > 1000 for name in drawn)
    one = content | {"runs": [run | {"batch_size": 32} for run in content["runs"]], "checks": []}
    one["drift"] = []
    again = {path.stem for path, _ in characterize_figures.characterize_figures(one, tmp_path)}
    assert again == {"marginals", "models", "lags", "cosines"}


@pytest.mark.slow
def test_a_report_tells_what_the_streams_are_like(content: dict[str, Any], runs: Path, tmp_path: Path) -> None:
    """A report of such a result has its answer on top and its figures, and its text is escaped."""
    evil = copy.deepcopy(content)
    evil["runs"][0]["task"] = "<script>alert(1)</script>"
    write_result(tmp_path / "result", "characterize", evil)
    report.run(ReportOptions((str(tmp_path / "result"),), str(tmp_path / "page")))
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Gradients do not obey an i.i.d. Gaussian source" in page
    assert "Recommended for gradients" in page
    assert "<script>alert(1)" not in page

"""The experiments from end to end, small, and whether their numbers can be made again from the files beside them."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import data_folder

from deadreckon.callbacks.jump_budget import JumpBudget
from deadreckon.codec import Codec, CodecConfig
from deadreckon.codec.config import ENTROPY_NAMES
from deadreckon.experiments import compare, quickstart, record
from deadreckon.experiments.cli import main
from deadreckon.experiments.errors import OptionError
from deadreckon.experiments.options import (
    CompareOptions,
    EntropyName,
    QuickstartOptions,
    RaceOptions,
    RecordOptions,
    ReferenceName,
    ReportOptions,
)
from deadreckon.experiments.race import command as race
from deadreckon.experiments.references import reference_names, references
from deadreckon.experiments.report import command as report
from deadreckon.experiments.results import read_result
from deadreckon.forecast import Ledger, Trajectory, TrajectoryError, cases, layout_of, score
from deadreckon.models import Budget, fit_forecaster, make_forecaster

QUIET: dict[str, Any] = {"logger": "none", "progress": False}


def _record(out: Path, **options: Any) -> dict[str, Any]:
    chosen = {"steps": 120, "every": 2, "horizons": (4, 8), "forecasters": ("hold", "linear"), **QUIET, **options}
    record.run(RecordOptions(out=str(out), **chosen))
    return dict(read_result(out).data)


def _compare(out: Path, trajectory: Path, **options: Any) -> dict[str, Any]:
    chosen = {
        "predictors": ("none", "momentum_norm", "fitted"),
        "nmse": (0.1,),
        "references": (),
        "packets": 20,
        "forecasters": ("hold", "linear"),
        "horizons": (4, 8),
        **QUIET,
        **options,
    }
    compare.run(CompareOptions(trajectory=str(trajectory), out=str(out), **chosen))
    return dict(read_result(out).data)


def _race(out: Path, **options: Any) -> dict[str, Any]:
    chosen = {"seeds": (0,), "steps": 60, "target": 0.8, **QUIET, **options}
    race.run(RaceOptions(out=str(out), **chosen))
    return dict(read_result(out).data)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recorded run."""
    out = tmp_path_factory.mktemp("recorded") / "record"
    _record(out)
    return out


def test_what_record_says_is_in_the_trajectory(recorded: Path) -> None:
    """Rows, digest, losses and scores of the result are those of the trajectory beside it."""
    data = read_result(recorded).data
    with Trajectory.open(recorded / data["trajectory"]) as trajectory:
        assert data["trajectory_digest"] == trajectory.digest
        assert {name: stream["rows"] for name, stream in data["streams"].items()} == {"weights": 61, "gradients": 120}
        np.testing.assert_allclose([row[1] for row in data["loss_curve"]], trajectory.scalars["loss"].values)
    assert {row["forecaster"] for row in data["online"]} == {"hold", "linear"}
    assert {"recording", "fitting", "scoring"} <= set(data["ledger"])
    assert data["final"]["test_accuracy"] > 0.7
    assert "CC BY" in data["attribution"]


def test_what_compare_says_can_be_made_again(recorded: Path, tmp_path: Path) -> None:
    """Bytes, errors and skill of the result follow from the trajectory by the library's own calls."""
    forecasters = ("hold", "linear", "learned_linear")
    data = _compare(tmp_path / "compare", recorded / "trajectory", forecasters=forecasters)
    with Trajectory.open(recorded / "trajectory") as trajectory:
        gradients = trajectory.stream("gradients")
        rows = {row["predictor"]: row for row in data["rows"]}
        for predictor in ("none", "momentum_norm", "fitted"):
            codec = Codec(trajectory.layout, CodecConfig(predictor, "Z", nmse=0.1))
            encoder, decoder = codec.encoder(), codec.decoder()
            num_bytes, error, energy = 0, 0.0, 0.0
            for row in range(len(gradients) - 20, len(gradients)):
                vector = torch.from_numpy(gradients[row])
                packet = encoder.encode(vector, int(gradients.steps[row]))
                num_bytes += len(packet)
                error += float((decoder.decode(packet) - vector).double().square().sum())
                energy += float(vector.double().square().sum())
            assert rows[predictor]["bytes"] == num_bytes
            assert rows[predictor]["bits_per_coordinate"] == pytest.approx(
                8 * num_bytes / (20 * trajectory.layout.size)
            )
            assert rows[predictor]["nmse"] == pytest.approx(error / energy)
            assert rows[predictor]["nmse"] <= 0.1
        assert 32 < rows["raw"]["bits_per_coordinate"] < 33
        cut = int(0.6 * 120)
        linear = make_forecaster("linear")
        held_out = cases(trajectory, "weights", linear.history, (4, 8), first_step=cut + 1)
        learned = make_forecaster("learned_linear")
        training = cases(trajectory, "weights", linear.history, (4, 8), last_step=cut)
        fit_forecaster(learned, training, Budget(), torch.Generator())
        expected = {
            forecaster.name: [result.skill for result in score(forecaster, held_out)]
            for forecaster in (linear, learned)
        }
    for name, skill in expected.items():
        assert [row["skill"] for row in data["skill"] if row["forecaster"] == name] == pytest.approx(skill)
    assert all(row["skill"] == 0 for row in data["skill"] if row["forecaster"] == "hold")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in ("eden", "topk") else pytest.mark.slow) for name in reference_names()],
)
def test_what_compare_says_of_other_coders_can_be_made_again(recorded: Path, tmp_path: Path, name: str) -> None:
    """Bytes and error of every setting of a reference are those of its packets, decoded by an end that saw no more."""
    out = tmp_path / "compare"
    data = _compare(out, recorded / "trajectory", references=(name,), predictors=("none",), packets=4, forecasters=())
    assert [row["reference"] for row in data["references"]] == [name] * len(references(name, (0.1,)))
    with Trajectory.open(recorded / "trajectory") as trajectory:
        gradients = trajectory.stream("gradients")
        vectors = [torch.from_numpy(gradients[row]) for row in range(len(gradients) - 4, len(gradients))]
        for row, reference in zip(data["references"], references(name, (0.1,)), strict=True):
            encoder, decoder = reference.ends(trajectory.layout, "gradients")
            packets = [encoder.encode(vector, int(gradients.steps[-4 + i])) for i, vector in enumerate(vectors)]
            decoded = torch.stack([decoder.decode(packet) for packet in packets])
            given = torch.stack(vectors).double()
            error = (decoded - given).square().sum() / given.square().sum()
            assert (row["setting"], row["nmse_target"]) == (reference.setting, reference.nmse_target)
            assert row["bytes"] == sum(map(len, packets))
            assert row["nmse"] == pytest.approx(float(error))
            assert 0 < row["nmse"] < 2.5  # an estimate of the vector, if a noisy one
            assert row["bits_per_coordinate"] == pytest.approx(8 * row["bytes"] / (4 * trajectory.layout.size))


def test_the_named_references_are_those_there_are() -> None:
    """The command's choices are the names that references have."""
    assert get_args(ReferenceName) == reference_names()
    assert set(get_args(EntropyName)) == set(ENTROPY_NAMES)


def test_the_entropy_coder_is_that_asked_for(recorded: Path, tmp_path: Path) -> None:
    """With per-tensor tables our codec without prediction is the reference of that name, byte for byte."""
    options = {"predictors": ("none",), "references": ("tensor_tables",), "forecasters": ()}
    tables = _compare(tmp_path / "a", recorded / "trajectory", entropy="tensor_tables", **options)
    classes = _compare(tmp_path / "b", recorded / "trajectory", **options)
    assert tables["rows"][1]["bytes"] == tables["references"][0]["bytes"] == classes["references"][0]["bytes"]
    assert classes["rows"][1]["bytes"] < tables["rows"][1]["bytes"]


def test_vectors_that_a_baseline_refuses_count_as_float32(tmp_path: Path) -> None:
    """A vector that is not finite costs 32 bits a coordinate and has no error; the others are compared all the same."""
    layout = layout_of(torch.nn.Linear(8, 8))
    with Trajectory.create(tmp_path / "t", layout, streams=["gradients"]) as trajectory:
        for step, value in enumerate((float("inf"), 3e38)):
            trajectory.append(step, streams={"gradients": torch.full((72,), value)})
    options = {"references": ("topk", "float16"), "predictors": ("none",), "forecasters": ()}
    rows = _compare(tmp_path / "out", tmp_path / "t", **options)["references"]
    assert all(0 < row["nmse"] <= 1 for row in rows)  # topk leaves something of the finite vector out, float16 all
    assert rows[-1]["bytes"] == 4 * 72 + 2 * 72
    assert all(4 * 72 < row["bytes"] < 2 * 4 * 72 for row in rows[:-1])


@pytest.mark.slow
def test_hold_instead_of_a_forecaster_changes_the_numbers(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With persistence in its place a forecaster's skill, its bits as a front-end and its jumps all become others."""
    monkeypatch.setattr(JumpBudget, "affordable", lambda budget: True)  # it goes by the clock
    with_linear = _compare(tmp_path / "a", recorded / "trajectory", predictors=("linear",), forecasters=("linear",))
    with_hold = _compare(tmp_path / "b", recorded / "trajectory", predictors=("hold",), forecasters=("hold",))
    assert with_linear["rows"][1]["bytes"] != with_hold["rows"][1]["bytes"]
    assert [row["skill"] for row in with_hold["skill"]] == [0.0, 0.0]
    assert all(abs(row["skill"]) > 0.01 for row in with_linear["skill"])
    jumps_linear = _race(tmp_path / "c", forecaster="linear")["arms"][1]["jumps"]
    jumps_hold = _race(tmp_path / "d", forecaster="hold")["arms"][1]["jumps"]
    assert any(jump["loss_after"] is not None for jump in jumps_linear)
    assert all(jump["outcome"] in ("untrusted", "cooling_down", "no_history", "over_budget") for jump in jumps_hold)


def test_what_race_says_follows_from_its_curves(tmp_path: Path) -> None:
    """Costs to the target are those of the first measurement that reached it; the ledger's activities are all there."""
    data = _race(tmp_path / "race", seeds=(0, 1))
    assert [(arm["name"], arm["seed"]) for arm in data["arms"]] == [
        ("plain", 0),
        ("jumps", 0),
        ("jumps", 1),
        ("plain", 1),
    ]
    for arm in data["arms"]:
        first = next(row for row in arm["curve"] if row[4] >= 0.8)
        costs = [arm[f"{name}_to_target"] for name in ("steps", "cpu_seconds", "wall_seconds", "gradient_evaluations")]
        assert costs == first[:4]
        columns = list(zip(*arm["curve"], strict=True))
        assert all(list(column) == sorted(column) for column in columns[:4])
        assert columns[0] == tuple(range(0, 61, 5))
        ledger = Ledger.from_dict(arm["ledger"])
        if arm["name"] == "plain":
            assert not ledger.activities
            assert not arm["jumps"]
            assert columns[3] == columns[0]
        else:
            assert {"reading history", "forecasting", "verifying"} <= set(ledger.activities)
            assert columns[3][-1] == pytest.approx(60 + ledger.total.gradient_equivalents)
            # No cost hides: what the ledger holds is part of what the run is charged.
            assert ledger.total.cpu_seconds < columns[1][-1]
    plain = {arm["seed"]: [row[4] for row in arm["curve"]] for arm in data["arms"] if arm["name"] == "plain"}
    again = _race(tmp_path / "again", seeds=(1,))["arms"][0]
    assert [row[4] for row in again["curve"]] == plain[1]


@pytest.mark.slow
def test_the_race_is_fair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both arms train alike, jumps are verified on data that measure nothing, and measuring is charged to nobody."""
    task = race.load_task("digits")
    monkeypatch.setattr(race, "load_task", lambda *_: task)
    measured: list[Any] = []
    verified: list[Any] = []
    trained: list[tuple[Any, ...]] = []
    evaluate, batches, train, make = race.evaluate, race.sequential_batches, race.train, race.make_classifier

    def slow_evaluate(module: Any, split: Any) -> Any:
        measured.append(split)
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        return evaluate(module, split)

    monkeypatch.setattr(race, "evaluate", slow_evaluate)
    monkeypatch.setattr(race, "sequential_batches", lambda split, size: verified.append(split) or batches(split, size))
    monkeypatch.setattr(race, "make_classifier", lambda *options: trained.append(options[1:]) or make(*options))
    monkeypatch.setattr(race, "train", lambda *options: trained.append(options[2:5]) or train(*options))
    data = _race(tmp_path / "race")
    assert {id(split) for split in measured} == {id(task.test)}
    assert {id(split) for split in verified} == {id(task.verify)}
    assert trained[-4:-2] == trained[-2:]
    for arm in data["arms"]:
        assert arm["curve"][-1][1] < 0.1 * len(arm["curve"])
        assert arm["curve"][-1][2] < 0.1 * len(arm["curve"])


def test_a_run_that_diverged_is_a_result_too(tmp_path: Path) -> None:
    """Weights that are not finite end neither a recording nor a race; the numbers say what happened."""
    wild = {"optimizer": "sgd", "learning_rate": 1e9}
    data = _record(tmp_path / "record", steps=30, forecasters=(), **wild)
    assert data["pca"] is None
    assert data["final"]["test_loss"] is None
    arms = _race(tmp_path / "race", steps=20, **wild)["arms"]
    assert [arm["reached"] for arm in arms] == [False, False]
    assert {jump["outcome"] for jump in arms[1]["jumps"]} <= {"not_finite", "over_budget"}
    assert arms[1]["jumps"]


@pytest.mark.slow
def test_a_learned_forecaster_can_race(tmp_path: Path) -> None:
    """A learned forecaster is trained during the run that it proposes jumps to, and the training is charged."""
    data = _race(tmp_path / "race", forecaster="learned_linear", every=1, jump_every=10, horizons=(1, 2))
    arm = data["arms"][1]
    assert arm["ledger"]["fitting"]["count"] >= 1
    assert any(jump["loss_after"] is not None for jump in arm["jumps"])


@pytest.mark.slow
def test_training_through_the_codec_is_reported(tmp_path: Path) -> None:
    """`record` with a codec trains on decoded gradients and says how many bits they took."""
    plain = _record(tmp_path / "plain", forecasters=(), streams=("weights",))
    coded = _record(tmp_path / "coded", forecasters=(), streams=("weights",), codec="fitted", nmse=0.2)
    assert coded["compression"]["packets"] == 120
    assert 0 < coded["compression"]["bits_per_coordinate"] < 4
    assert plain["compression"] is None
    assert plain["trajectory_digest"] != coded["trajectory_digest"]


def test_what_cannot_be_done_is_refused(recorded: Path, tmp_path: Path) -> None:
    """Missing streams, short trajectories, odd cadences and present trajectories are refused with what to do."""
    trajectory = recorded / "trajectory"
    with pytest.raises(OptionError, match="holds no stream 'updates'; it has weights, gradients"):
        _compare(tmp_path / "a", trajectory, stream="updates")
    with pytest.raises(OptionError, match="needs the streams exp_avg and exp_avg_sq"):
        _compare(tmp_path / "b", trajectory, forecasters=("optimizer_moments",))
    with pytest.raises(OptionError, match="too short to score horizons of 100"):
        _compare(tmp_path / "c", trajectory, horizons=(4, 100))
    assert _compare(tmp_path / "none", trajectory, horizons=(4, 100), forecasters=())["skill"] == []
    shutil.rmtree(tmp_path / "none")
    with pytest.raises(OptionError, match="`jump_every` must be a multiple of `every` 3, got 10"):
        _race(tmp_path / "d", every=3)
    before = (recorded / "result.json").read_bytes()
    with pytest.raises(OptionError, match="exists already, and nothing is overwritten"):
        _record(recorded)
    assert (recorded / "result.json").read_bytes() == before
    (tmp_path / "raced" / "jumps_0").mkdir(parents=True)
    with pytest.raises(OptionError, match="exists already"):
        _race(tmp_path / "raced")
    (tmp_path / "raced" / "jumps_0").rmdir()
    (tmp_path / "raced" / "result.json").write_text("{}")
    with pytest.raises(OptionError, match="exists already"):
        _race(tmp_path / "raced")
    assert [path.name for path in tmp_path.iterdir()] == ["raced"]
    with pytest.raises(TrajectoryError, match="There is no folder"):
        _compare(tmp_path / "e", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--horizons", "[7]"], r"multiples of the recorder's cadence 10, got \[7\]"),
        (["--forecasters", "[crystal_ball]"], "crystal_ball"),
        (["--codec", "magic"], "`predictor` must be one of"),
    ],
)
def test_wrong_options_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Options that forecasters, codec or callbacks refuse end in one line and exit code 2, with nothing made."""
    out = tmp_path / "out"
    assert main(["record", "--out", str(out), "--logger", "none", "--progress", "false", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(message, line)
    assert not (out / "trajectory").exists()


@pytest.mark.slow  # continuous integration runs `make quickstart` besides
def test_quickstart_does_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A small quickstart leaves results, figures and one page without outside parts, and prints a summary."""
    options = QuickstartOptions(
        out=str(tmp_path / "quick"),
        steps=400,
        race_steps=60,
        forecasters=("hold", "linear", "optimizer_moments"),
        predictors=("none", "fitted"),
        logger="none",
        progress=False,
    )
    quickstart.run(options)
    quick = tmp_path / "quick"
    page = (quick / "report.html").read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    for kind in ("record", "compare", "codec", "race"):
        assert (quick / kind / "result.json").exists()
    printed = capsys.readouterr().out
    assert "fitted" in printed
    assert "jump" in printed
    assert quickstart.fresh_folder(quick) == tmp_path / "quick-2"
    assert quickstart.fresh_folder(tmp_path / "other") == tmp_path / "other"


def test_results_say_where_they_come_from(recorded: Path) -> None:
    """A result holds the options and the versions it was made with."""
    data = json.loads((recorded / "result.json").read_text())
    assert data["environment"]["packages"]["torch"] in torch.__version__
    assert data["data"]["options"]["steps"] == 120


def test_a_report_needs_results(tmp_path: Path) -> None:
    """A folder without a result is an error that names it."""
    with pytest.raises((FileNotFoundError, ValueError), match="nothing_here"):
        report.run(ReportOptions(runs=(str(tmp_path / "nothing_here"),), out=str(tmp_path / "out")))


@pytest.mark.slow
@pytest.mark.data
def test_fashion_mnist_can_be_recorded(tmp_path: Path) -> None:
    """The conv net of FM-16 trains on Fashion-MNIST and is recorded."""
    folder = data_folder("fashion-mnist/train-images-idx3-ubyte.gz")
    data = _record(tmp_path / "r", task="fashion_mnist", network="conv", data=folder, steps=20, batch_size=128)
    assert data["num_parameters"] == 14378
    assert data["final"]["test_accuracy"] > 0.2

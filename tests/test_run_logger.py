import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from offline_runs import read_offline_run
from small_runs import fit, held_out, probe

from deadreckon.callbacks import SkipAhead
from deadreckon.experiments import compare, record
from deadreckon.experiments.errors import OptionError
from deadreckon.experiments.options import CompareOptions, LoggerName, RecordOptions
from deadreckon.experiments.result_metrics import result_metrics
from deadreckon.experiments.results import read_result
from deadreckon.experiments.run_logger import define_axes, finish, log_figure, log_table, make_logger

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe"
    "0def46b80000000049454e44ae426082"
)


def test_nothing_is_logged_without_a_logger(tmp_path: Path) -> None:
    """`none` is Lightning's word for no logger, and tables and figures then go nowhere."""
    logger = make_logger("none", tmp_path / "run", "name", {})
    assert logger is False
    log_table(logger, "key", ["a"], [[1]])
    log_figure(logger, "key", tmp_path / "absent.png")
    finish(logger)
    assert not (tmp_path / "run").exists()


def test_csv_holds_metrics_and_options(tmp_path: Path) -> None:
    """`csv` writes metrics and options as plain files; tables and figures do no harm."""
    logger = make_logger("csv", tmp_path, "name", {"steps": 3})
    assert isinstance(logger, CSVLogger)
    logger.log_metrics({"train/loss": 0.5}, step=1)
    log_table(logger, "key", ["a"], [[1]])
    log_figure(logger, "key", tmp_path / "absent.png")
    finish(logger)
    assert (tmp_path / "csv" / "metrics.csv").read_text().splitlines() == ["step,train/loss", "1,0.5"]
    assert "steps: 3" in (tmp_path / "csv" / "hparams.yaml").read_text()


def test_unknown_loggers_and_modes_are_refused(tmp_path: Path) -> None:
    """A wrong kind or mode is named."""
    with pytest.raises(OptionError, match="`logger` must be one of wandb, csv, tensorboard, none, got 'mlflow'"):
        make_logger("mlflow", tmp_path, "name", {})
    mode: Any = "disabled"
    with pytest.raises(OptionError, match="`wandb_mode` must be offline or online, got 'disabled'"):
        make_logger("wandb", tmp_path, "name", {}, mode)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_offline_wandb_run_can_be_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Metrics, options, axes, tables and pictures are in the run's folder; no account, no output, no trace outside."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR", "WANDB_DATA_DIR", "WANDB_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    picture = tmp_path / "loss.png"
    picture.write_bytes(PICTURE)
    run = tmp_path / "run"
    logger = make_logger("wandb", run, "my run", {"steps": 3})
    assert isinstance(logger, WandbLogger)
    logger.log_metrics({"train/loss": 0.5}, step=7)
    logger.log_metrics({"codec/bits": 1.5, "codec/step": 2.0})
    log_table(logger, "codec/table", ["name", "bits"], [["none", 1.5], ["raw", None], ["odd", "x"]])
    log_figure(logger, "record/loss curve", picture)
    finish(logger)
    assert {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"} == before
    assert capfd.readouterr().err == ""

    read = read_offline_run(run)
    assert read.axes == {
        "*": "trainer/global_step",
        "codec/*": "codec/step",
        "jump/*": "jump/index",
        "forecast/*": "forecast/step",
    }
    (about,) = read.of("run")
    assert about["display_name"] == "my run"
    assert read.config["steps"] == 3
    assert [row["train/loss"] for row in read.history if "train/loss" in row] == [0.5]
    assert [row["codec/step"] for row in read.history if "codec/bits" in row] == [2.0]
    (table,) = read.tables("codec/table")
    assert table["columns"] == ["name", "bits"]
    assert table["data"] == [["none", 1.5], ["raw", None], ["odd", "x"]]
    assert list(read.folder.glob("files/media/images/record/*.png"))
    assert [str(path) for path in home.rglob("*") if path.is_file()] == []


def _events(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], set[str]]:
    """The scalars of TensorBoard's event files by tag, as steps and values, and the tags of everything else."""
    event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")

    scalars: dict[str, list[tuple[int, float]]] = {}
    others: set[str] = set()
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:  # length (8 bytes), its checksum (4), an event, its checksum (4)
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
                else:
                    others.add(value.tag)
    return scalars, others


def test_tensorboard_shows_metrics_tables_and_pictures(tmp_path: Path) -> None:
    """`tensorboard` writes event files with the metrics at their steps, tables as text and pictures."""
    picture = tmp_path / "loss.png"
    picture.write_bytes(PICTURE)
    logger = make_logger("tensorboard", tmp_path, "name", {"steps": 3})
    assert isinstance(logger, TensorBoardLogger)
    logger.log_metrics({"train/loss": 0.5}, step=7)
    log_table(logger, "codec/table", ["name", "bits"], [["none", 1.5], ["raw", None]])
    log_figure(logger, "record/loss curve", picture)
    finish(logger)
    scalars, others = _events(tmp_path / "tensorboard")
    assert scalars["train/loss"] == [(7, 0.5)]
    assert {"codec/table/text_summary", "record/loss_curve"} <= others


def test_tensorboard_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without either of its packages, the message says what to install."""

    def absent(*_: Any, **__: Any) -> None:
        raise ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available.")

    monkeypatch.setattr("deadreckon.experiments.run_logger.TensorBoardLogger", absent)
    with pytest.raises(OptionError, match="needs the package tensorboardX or tensorboard"):
        make_logger("tensorboard", tmp_path, "name", {})


def test_axes_can_be_given_to_a_run_of_ones_own() -> None:
    """`define_axes` asks a run for an axis of each namespace, and for the axes themselves."""
    asked: dict[str, Any] = {}

    class Run:
        def define_metric(self, name: str, step_metric: str | None = None, step_sync: bool = False) -> None:
            asked[name] = step_metric

    define_axes(Run())
    assert {name: asked[name] for name in ("codec/*", "jump/*", "forecast/*")} == {
        "codec/*": "codec/step",
        "jump/*": "jump/index",
        "forecast/*": "forecast/step",
    }
    assert {"codec/step", "jump/index", "forecast/step", "trainer/global_step"} <= set(asked)


def _recorded(out: Path, logger: LoggerName) -> dict[str, float]:
    """Record a tiny run with a logger; the numbers it is compared by."""
    record.run(
        RecordOptions(
            out=str(out),
            steps=40,
            every=4,
            forecasters=("hold",),
            horizons=(4, 8),
            fit_every=20,
            fit_share=None,
            codec="none",
            logger=logger,
            progress=False,
        )
    )
    return result_metrics("record", read_result(out).data)


@pytest.mark.slow
def test_commands_log_the_same_to_csv_and_tensorboard(tmp_path: Path) -> None:
    """Codec, forecasts and the result's own numbers arrive in either logger, with the axes of their namespaces."""
    numbers = _recorded(tmp_path / "one", "csv")
    with (tmp_path / "one" / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}
    _recorded(tmp_path / "two", "tensorboard")
    scalars, others = _events(tmp_path / "two" / "tensorboard")
    timed = {"result/wall_seconds"}
    for name in ("codec/step", "codec/bits_per_coordinate", "forecast/step", "forecast/hold/skill_4", "train/loss"):
        assert [value for _, value in scalars[name]] == pytest.approx(columns[name]), name
    for name in numbers:
        ((_, value),) = scalars[name]
        assert columns[name] == [pytest.approx(numbers[name])]
        assert name in timed or value == pytest.approx(numbers[name])
    assert len(numbers) == 5
    assert "record/loss_curve" in others


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_commands_log_axes_tables_and_artifacts_to_wandb(tmp_path: Path) -> None:
    """A recorded and a compared run: each namespace has its axis in each row, tables come once, artifacts have digests.

    The trajectory goes by reference; the artifacts of what is made from it name its digest.
    """
    numbers = _recorded(tmp_path / "record", "wandb")
    read = read_offline_run(tmp_path / "record")
    for prefix, axis in (("codec/", "codec/step"), ("forecast/", "forecast/step")):
        rows = [row for row in read.history if any(name.startswith(prefix) for name in row)]
        assert rows
        assert all(axis in row for row in rows)
    (last,) = [row for row in read.history if "result/final/test_accuracy" in row]
    assert {name: last[name] for name in numbers} == pytest.approx(numbers)
    digest = read_result(tmp_path / "record").data["trajectory_digest"]
    name = f"record-trajectory-{digest[:12]}"
    artifact = read.artifacts[name]
    assert artifact["type"] == "trajectory"
    assert artifact["metadata"]["digest"] == digest
    contents = read.contents(name)
    assert set(contents) == {"trajectory/commit.log"}
    assert contents["trajectory/commit.log"]["ref"] == (tmp_path / "record/trajectory/commit.log").as_uri()

    compare.run(
        CompareOptions(
            trajectory=str(tmp_path / "record" / "trajectory"),
            out=str(tmp_path / "compare"),
            predictors=("none",),
            nmse=(0.1,),
            references=(),
            packets=2,
            forecasters=("hold",),
            horizons=(4,),
            progress=False,
        )
    )
    read = read_offline_run(tmp_path / "compare")
    (table,) = read.tables("codec/rates")
    assert [row[:2] for row in table["data"]] == [["deadreckon", "raw"], ["deadreckon", "none"]]
    assert len(read.tables("forecast/skill")) == 1
    (result,) = [item for item in read.artifacts.values() if item["type"] == "result"]
    assert result["metadata"]["made_from"] == [{"kind": "trajectory", "digest": digest}]
    assert result["metadata"]["command"] == "compare"
    assert set(read.contents(result["name"])) == {"result.json"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_jumps_are_logged_to_three_loggers_at_once(tmp_path: Path) -> None:
    """In a Trainer with three loggers each gets every jump's metrics with their axis; wandb has one table of them."""
    names: tuple[LoggerName, ...] = ("wandb", "csv", "tensorboard")
    loggers = [made for name in names if (made := make_logger(name, tmp_path, "name", {})) is not False]
    jumps = SkipAhead("linear", every=20, horizons=(4,), probe=probe, batches=held_out(), spacing=2, cost_share=None)
    fit([jumps], logger=loggers, log_every_n_steps=20)
    for logger in loggers:
        finish(logger)
    count = sum(jump.outcome.proposed for jump in jumps.jumps)
    proposed = [float(number) for number in range(1, count + 1)]  # the last may come twice, with what it was worth
    assert count > 1
    read = read_offline_run(tmp_path)
    rows = [row for row in read.history if "jump/horizon" in row]  # not the table's, where the axis is wandb's affair
    assert list(dict.fromkeys(row["jump/index"] for row in rows)) == proposed
    (table,) = read.tables("jump/all")
    assert [row[0] for row in table["data"]] == [jump.step for jump in jumps.jumps]
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        indices = [float(row["jump/index"]) for row in csv.DictReader(file) if row["jump/index"]]
    assert list(dict.fromkeys(indices)) == proposed
    scalars, _ = _events(tmp_path / "tensorboard")
    assert list(dict.fromkeys(value for _, value in scalars["jump/index"])) == proposed


@pytest.mark.slow
def test_a_run_under_an_agent_joins_its_sweep(tmp_path: Path) -> None:
    """The id and the sweep that `wandb agent` puts into the environment are those of the run."""
    code = (
        "from deadreckon.experiments.run_logger import finish, make_logger\n"
        f"finish(make_logger('wandb', {str(tmp_path)!r}, 'name', {{}}))"
    )
    environment = {**os.environ, "WANDB_RUN_ID": "run12345", "WANDB_SWEEP_ID": "sweep678"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    (about,) = read_offline_run(tmp_path).of("run")
    assert about["run_id"] == "run12345"
    assert about["sweep_id"] == "sweep678"

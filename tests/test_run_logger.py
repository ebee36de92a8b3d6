import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from deadreckon.experiments.errors import OptionError
from deadreckon.experiments.run_logger import finish, log_figure, log_table, make_logger

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
    with pytest.raises(OptionError, match="`logger` must be one of wandb, csv, none, got 'tensorboard'"):
        make_logger("tensorboard", tmp_path, "name", {})
    mode: Any = "disabled"
    with pytest.raises(OptionError, match="`wandb_mode` must be offline or online, got 'disabled'"):
        make_logger("wandb", tmp_path, "name", {}, mode)


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

    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(inspect, capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    axes = {
        record["metric"]["glob_name"]: record["metric"].get("step_metric")
        for record in records
        if record["type"] == "metric" and "glob_name" in record["metric"]
    }
    assert axes["codec/*"] == "codec/step"
    assert axes["jump/*"] == "jump/index"
    assert axes["forecast/*"] == "forecast/step"
    assert axes["*"] == "trainer/global_step"
    summary = subprocess.run([*inspect, "--summary"], capture_output=True, text=True, check=True)
    read = json.loads(summary.stdout)
    assert read["name"] == "my run"
    assert read["config"]["steps"] == 3
    assert read["summary"]["train/loss"] == 0.5
    assert read["summary"]["codec/bits"] == 1.5
    (table,) = run.glob("wandb/offline-run-*/files/media/table/codec/*.json")
    assert json.loads(table.read_text())["data"][0] == ["none", 1.5]
    assert list(run.glob("wandb/offline-run-*/files/media/images/record/*.png"))
    assert [str(path) for path in home.rglob("*") if path.is_file()] == []

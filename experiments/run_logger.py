"""Lightning loggers for experiments, and the tables and figures that only some of them can take."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from .errors import OptionError

PROJECT = "deadreckon"
# Lightning plots everything over the optimiser steps; these come at their own pace.
AXES = {"codec/*": "codec/step", "jump/*": "jump/index", "forecast/*": "forecast/step"}

RunLogger = Logger | Literal[False]


def make_logger(
    kind: str, folder: str | Path, name: str, config: Mapping[str, Any], mode: Literal["offline", "online"] = "offline"
) -> RunLogger:
    """A logger for `Trainer(logger=...)`.

    `wandb` writes a run into `folder/wandb` that needs neither an account nor a network (`mode="offline"`); its
    artifacts are staged inside the folder as well, not in the user's home, so that the folder can be moved and sent
    later. `csv` writes `folder/csv/metrics.csv`. `none` gives `False`, which is Lightning's word for no logger.

    Metrics under `codec/`, `jump/` and `forecast/` are plotted over `codec/step`, `jump/index` and `forecast/step`.

    Args:
        kind: `wandb`, `csv` or `none`.
        folder: the run's folder; made if need be.
        name: the run's name.
        config: the run's options, plain values.
        mode: `offline` or `online`, for `wandb`.

    Raises:
        OptionError: if there is no such kind or mode.
    """
    if mode not in ("offline", "online"):
        raise OptionError(f"`wandb_mode` must be offline or online, got {mode!r}.")
    if kind == "none":
        return False
    folder = Path(folder)
    if kind == "csv":
        folder.mkdir(parents=True, exist_ok=True)
        logger = CSVLogger(folder, name="", version="csv")
        logger.log_hyperparams(dict(config))
        return logger
    if kind == "wandb":
        folder.mkdir(parents=True, exist_ok=True)
        return _wandb_logger(folder, name, config, mode)
    raise OptionError(f"`logger` must be one of wandb, csv, none, got {kind!r}.")


def _wandb_logger(
    folder: Path, name: str, config: Mapping[str, Any], mode: Literal["offline", "online"]
) -> WandbLogger:
    import wandb  # about a second, and not needed for the other kinds

    # The run is started here, not by Lightning, which would set WANDB_MODE for the rest of the process, print a remark
    # about an option it passes, and reuse the run of any other logger that is still open.
    with _inside(folder):
        run = wandb.init(
            dir=folder,
            project=PROJECT,
            name=name,
            config=dict(config),
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", x_disable_meta=True, x_disable_stats=True),
        )
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        for metrics, axis in AXES.items():
            run.define_metric(axis)
            run.define_metric(metrics, step_metric=axis)
        return WandbLogger(experiment=run, save_dir=folder, project=PROJECT, log_model=False)


def log_table(logger: RunLogger, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a table, where the logger can show one; elsewhere nothing happens, as the numbers are in the result file."""
    if isinstance(logger, WandbLogger):
        import wandb

        with _inside(Path(str(logger.save_dir))):
            table = wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
            logger.experiment.log({_key(key): table})


def log_figure(logger: RunLogger, key: str, path: str | Path) -> None:
    """Log a picture file, where the logger can show one; elsewhere nothing happens, as the file is there."""
    if isinstance(logger, WandbLogger):
        with _inside(Path(str(logger.save_dir))):
            logger.log_image(_key(key), images=[str(path)])


def finish(logger: RunLogger) -> None:
    """Write everything out and close; the logger is not used again."""
    if isinstance(logger, WandbLogger):
        with _inside(Path(str(logger.save_dir))):
            logger.experiment.finish()
    elif isinstance(logger, Logger):
        logger.finalize("success")


def _key(key: str) -> str:
    """A key that is also safe as the file name it becomes."""
    return re.sub(r"[^A-Za-z0-9_/.-]", "_", key)


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Have wandb keep all its files in a folder, and its remarks to itself.

    `WandbLogger(save_dir=...)` moves the run, but tables are staged as artifacts in the user's home unless a variable
    says otherwise; it is read at each use, hence set around each use and put back.
    """
    own = {
        "WANDB_DATA_DIR": str(folder.resolve() / "wandb" / "data"),
        "WANDB_CACHE_DIR": str(folder.resolve() / "wandb" / "cache"),
        "WANDB_SILENT": "true",
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

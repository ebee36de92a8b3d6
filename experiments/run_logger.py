"""Lightning loggers for experiments, and the tables and figures that only some of them can take."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from . import markdown
from .errors import OptionError
from .manifest import Item, Manifest
from .runs import COMMIT_LOG, TRAJECTORY

PROJECT = "deadreckon"
# Lightning plots everything over the optimiser steps; these come at their own pace.
AXES = {"codec/*": "codec/step", "jump/*": "jump/index", "forecast/*": "forecast/step"}

RunLogger = Logger | Literal[False]


def make_logger(
    kind: str, folder: str | Path, name: str, config: Mapping[str, Any], mode: Literal["offline", "online"] = "offline"
) -> RunLogger:
    """A logger for `Trainer(logger=...)`.

    `wandb` writes a run into `folder/wandb` that needs neither an account nor a network (`mode="offline"`); its
    artifacts are staged inside the folder as well, not in the user's home. Send it before you move it: wandb keeps the
    addresses of what is staged. `csv` writes `folder/csv/metrics.csv`. `tensorboard` writes `folder/tensorboard`.
    `none` gives `False`, which is Lightning's word for no logger.

    With `wandb`, metrics under `codec/`, `jump/` and `forecast/` are plotted over `codec/step`, `jump/index` and
    `forecast/step`. Under `wandb agent` the run takes the id, and joins the sweep, that the agent gives it.

    Args:
        kind: `wandb`, `csv`, `tensorboard` or `none`.
        folder: the run's folder; made if need be.
        name: the run's name.
        config: the run's options, plain values.
        mode: `offline` or `online`, for `wandb`.

    Raises:
        OptionError: if there is no such kind or mode, or TensorBoard is not installed.
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
    if kind == "tensorboard":
        try:
            logger = TensorBoardLogger(folder, name="", version="tensorboard")
        except ModuleNotFoundError as error:
            raise OptionError(
                "`logger` tensorboard needs the package tensorboardX or tensorboard. Install one of them, or take csv."
            ) from error
        logger.log_hyperparams(dict(config))
        return logger
    if kind == "wandb":
        folder.mkdir(parents=True, exist_ok=True)
        return _wandb_logger(folder, name, config, mode)
    raise OptionError(f"`logger` must be one of wandb, csv, tensorboard, none, got {kind!r}.")


def define_axes(run: Any) -> None:
    """Tell a wandb run over what our callbacks' metrics are plotted; for a `WandbLogger` of your own, before training.

    Everything else is plotted over Lightning's `trainer/global_step`.

    Args:
        run: a wandb run, such as `WandbLogger(...).experiment`.
    """
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    for metrics, axis in AXES.items():
        run.define_metric(axis)
        run.define_metric(metrics, step_metric=axis)


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
        define_axes(run)
        return WandbLogger(experiment=run, save_dir=folder, project=PROJECT, log_model=False)


def log_table(logger: RunLogger, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a table, where the logger can show one; elsewhere nothing happens, as the numbers are in the result file."""
    if isinstance(logger, WandbLogger):
        import wandb

        with _inside(Path(str(logger.save_dir))):
            table = wandb.Table(columns=list(columns), data=[list(row) for row in rows], allow_mixed_types=True)
            logger.experiment.log({_key(key): table})
    elif isinstance(logger, TensorBoardLogger):
        cells = [[str(cell) for cell in row] for row in rows]
        logger.experiment.add_text(_key(key), markdown.table(list(columns), cells))


def log_figure(logger: RunLogger, key: str, path: str | Path) -> None:
    """Log a picture file, where the logger can show one; elsewhere nothing happens, as the file is there."""
    if isinstance(logger, WandbLogger):
        with _inside(Path(str(logger.save_dir))):
            logger.log_image(_key(key), images=[str(path)])
    elif isinstance(logger, TensorBoardLogger):
        from matplotlib.image import imread  # loaded already by whoever made the picture

        logger.experiment.add_image(_key(key), imread(path), dataformats="HWC")


def log_artifacts(logger: RunLogger, manifest: Manifest) -> None:
    """Log what a run wrote as wandb artifacts; for other loggers the manifest beside the run says as much.

    A trajectory is logged by reference: where its commit log lies, and its digest; its rows stay where they are.
    Forecasters and results are logged as files. The name of an artifact holds its digest, and its metadata those of
    all that the run was made from, by kind, because wandb draws no lineage of runs that were made offline.

    Args:
        logger: of the run, not finished yet.
        manifest: what the run read and wrote.
    """
    if not isinstance(logger, WandbLogger):
        return
    import wandb

    made_from = [{"kind": item.kind, "digest": item.digest} for item in manifest.inputs]
    with _inside(Path(str(logger.save_dir))):
        for item in manifest.outputs:
            facts = {"digest": item.digest, "num_bytes": item.num_bytes, "command": manifest.command}
            artifact = wandb.Artifact(
                artifact_name(manifest.command, item), item.kind, metadata={**facts, "made_from": made_from}
            )
            path = manifest.path_of(item)
            if path.is_dir():
                # The log holds the CRC of every row, so it stands for all of the trajectory's files. wandb refuses
                # references to folders of more than 10,000 files, and would read all of them.
                artifact.add_reference((path / COMMIT_LOG).resolve().as_uri(), name=f"{TRAJECTORY}/{COMMIT_LOG}")
            else:
                artifact.add_file(str(path))
            logger.experiment.log_artifact(artifact)


def artifact_name(command: str, item: Item) -> str:
    """The name of an artifact, such as `fit-forecaster-0123456789ab`: equal for what is equal."""
    return f"{command}-{item.kind}-{item.digest[:12]}"


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

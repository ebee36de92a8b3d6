"""The end of a command: lineage beside the result, artifacts and headline numbers in the logger, logger closed."""

from collections.abc import Iterable
from pathlib import Path

from lightning.pytorch.loggers import Logger

from .manifest import outputs_in, write_manifest
from .result_metrics import result_metrics
from .results import read_result
from .run_logger import RunLogger, finish, log_artifacts


def close_run(logger: RunLogger, out: str | Path, made_from: Iterable[str | Path] = ()) -> None:
    """Write `lineage.json`, log the run's artifacts and the numbers that runs are compared by, and close the logger.

    Args:
        logger: of the run; not used again.
        out: the run's folder, its result.json in it.
        made_from: trajectories, runs' folders and files that the command read.

    Raises:
        FileNotFoundError: if there is no result, or something that it was made from is gone.
        ResultError: if the result is damaged.
    """
    out = Path(out)
    result = read_result(out)
    inputs = dict.fromkeys(Path(item) for item in made_from)
    manifest = write_manifest(out, result.kind, inputs, outputs_in(out), result.data["options"])
    metrics = result_metrics(result.kind, result.data)
    if isinstance(logger, Logger) and metrics:
        logger.log_metrics(metrics)
    log_artifacts(logger, manifest)
    finish(logger)

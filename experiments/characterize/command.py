"""`deadreckon characterize`: what gradients, updates and pseudo-gradients are like, and which codec suits them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from ...models.threads import one_thread
from ..closing import close_run
from ..errors import OptionError
from ..files import write_whole
from ..progress import tracked
from ..results import write_result
from ..run_logger import log_figure, log_table, make_logger
from .figures import characterize_figures
from .options import CharacterizeOptions
from .rows import run_folders
from .run import Table, measure_run, merged
from .text import as_text

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "marginals": (
        "run",
        "stream",
        "phase",
        "group",
        "name",
        "best",
        "gap",
        "kurtosis",
        "beyond",
        "zeros",
        "top_energy",
    ),
    "scales": ("run", "stream", "phase", "level", "gaussian_bits", "best", "best_bits", "gap", "kurtosis", "rate"),
    "time": ("run", "stream", "phase", "momentum", "nmse", "bits", "noise_batch", "noise_predicted", "noise_measured"),
    "checks": ("run", "stream", "name", "setting", "bits", "nmse", "seconds", "packets"),
}


@one_thread()
def run(options: CharacterizeOptions) -> None:
    """Characterise recorded runs: tables, figures, characterize.md and result.json in `options.out`.

    Raises:
        OptionError: if no run has enough of any stream.
        DataError: if there are no runs.
        TrajectoryError: if a trajectory is damaged.
    """
    out = Path(options.out)
    folders = run_folders(options.folders)
    logger = make_logger(options.logger, out, "characterize", asdict(options), options.wandb_mode)
    measured = [
        measure_run(folder, number, options)
        for number, folder in enumerate(tracked(folders, "characterising runs", options.progress))
    ]
    content = assembled(measured, options)
    write_result(out, "characterize", content)
    text = as_text(content)
    write_whole(out / "characterize.md", text)
    for name, columns in COLUMNS.items():
        log_table(logger, f"characterize/{name}", columns, [[row[key] for key in columns] for row in content[name]])
    for path, _ in characterize_figures(content, out):
        log_figure(logger, f"characterize/{path.stem}", path)
    close_run(logger, out, folders)
    Console(soft_wrap=True).print(text, markup=False, highlight=False)


def assembled(measured: Sequence[tuple[dict[str, Any], Table]], options: CharacterizeOptions) -> dict[str, Any]:
    """The content of a result file.

    Args:
        measured: what `measure_run` gave for each run, in the order of their numbers.
        options: of the command.

    Raises:
        OptionError: if no run has enough of any stream.
    """
    tables = merged([table for _, table in measured])
    if not tables["scales"]:
        raise OptionError(
            f"Of {len(measured)} runs none has enough finite rows of {', '.join(options.streams)}. Record them with "
            "`deadreckon record`, or ask for other `streams`."
        )
    return {"nmse": options.nmse, "runs": [about for about, _ in measured], **tables, "options": asdict(options)}

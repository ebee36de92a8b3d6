"""The options of `sweep`; their docstring is the command's help. Nothing heavy is imported here."""

from dataclasses import dataclass

from ..errors import OptionError
from ..option_checks import require_at_least, require_folder

MAX_CELLS = 1000


@dataclass(frozen=True)
class SweepOptions:
    """Run a wandb sweep file on this machine, without an account: every setting of a grid, or random ones.

    A second call goes on with what is missing, and tries again what failed.

    Args:
        file: a sweep file, or the name of one that comes with the package; may also be the first word after `sweep`.
        out: where everything is written, each run in a folder of its own.
        count: settings at most; null for all of a grid, and for a random sweep what the file says in run_cap.
        seed: of the random settings.
        workers: processes, each with one thread; null for as many as there are cores for this one.
        progress: whether to show a progress bar.
    """

    file: str = "digits"
    out: str = "runs/sweep"
    count: int | None = None
    seed: int = 0
    workers: int | None = 1
    progress: bool = True

    def __post_init__(self) -> None:
        if not self.file:
            raise OptionError("`file` must name a sweep file, got nothing.")
        require_folder("out", self.out)
        if self.count is not None and not 1 <= self.count <= MAX_CELLS:
            raise OptionError(f"`count` must lie within 1 and {MAX_CELLS}, got {self.count}.")
        require_at_least("seed", self.seed, 0)
        if self.workers is not None:
            require_at_least("workers", self.workers, 1)

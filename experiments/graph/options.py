"""The options of `deadreckon graph`. Nothing heavy is imported here."""

from dataclasses import dataclass

from ..errors import OptionError
from ..option_checks import require_above, require_at_least, require_folder
from ..options import TaskName


@dataclass(frozen=True)
class GraphOptions:
    """Trace the neural graph of a network, prove it by permuting neurons, and draw it.

    Args:
        module: a network by name, as of `record`; or, with `--allow_code`, `package.module:function`, called without
            arguments, that returns a module and the inputs to call it with.
        task: what a network by name is made for.
        width: what its hidden widths are multiplied by.
        data: a folder with the task's files; without it they are looked for, and fetched if need be.
        out: where the picture and the graph are written.
        seed: of the weights of a network by name, and of the permutations.
        fold: whether blocks that repeat are drawn once.
        allow_code: whether `module` may name code to run.
    """

    module: str = "transformer"
    task: TaskName = "digits"
    width: float = 1.0
    data: str | None = None
    out: str = "runs/graph"
    seed: int = 0
    fold: bool = True
    allow_code: bool = False

    def __post_init__(self) -> None:
        require_folder("out", self.out)
        require_above("width", self.width, 0)
        require_at_least("seed", self.seed, 0)
        if ":" in self.module and not self.allow_code:
            raise OptionError(
                f"`module` is {self.module!r}, which would run code of yours. Give --allow_code true if you mean it."
            )

"""The options of `characterize`; their docstring is the command's help. Nothing heavy is imported here."""

from dataclasses import dataclass

from ..errors import OptionError
from ..option_checks import require_at_least, require_folder, require_some
from ..options import LoggerName, WandbMode

MIN_ROWS = 8  # of a phase: half of them are fitted to, and the first quarter only warms up
MIN_SAMPLES = 100


@dataclass(frozen=True)
class CharacterizeOptions:
    """Tell what gradients, updates and pseudo-gradients of recorded runs are like, and which codec suits them.

    Args:
        trajectory: a trajectory, a run's folder, a folder of such, or a list of these.
        out: where everything is written.
        streams: what is looked at, of what the runs have; pseudo-gradients are also made from recorded weights.
        local_rows: recorded rows of weights from one pseudo-gradient to the next, where they are made from weights.
        rows: rows of each phase, consecutive and from its middle. More take memory and time in proportion.
        samples: values that a distribution is fitted to, and as many that it is judged by; a quarter of it for each
            tensor. With 10000 two families are told apart from about 0.01 bit on.
        lags: distances in rows at which a stream is compared with itself.
        nmse: the error, as a share of the squared norm, at which bits are predicted and the codec is tried.
        packets: code at most so many rows, the last ones, to check the recommendation; null to leave the check out.
        seed: of everything that is drawn.
        logger: where metrics go besides the result file.
        wandb_mode: offline needs no account; a run can be sent later with `wandb sync`.
        progress: whether to show a progress bar.
    """

    trajectory: tuple[str, ...] | str = "runs/record"
    out: str = "runs/characterize"
    streams: tuple[str, ...] = ("gradients", "updates", "pseudo_gradients")
    local_rows: int = 2
    rows: int = 40
    samples: int = 10000
    lags: tuple[int, ...] = (1, 2, 4, 8, 16)
    nmse: float = 0.1
    packets: int | None = 16
    seed: int = 0
    logger: LoggerName = "wandb"
    wandb_mode: WandbMode = "offline"
    progress: bool = True

    def __post_init__(self) -> None:
        require_some("trajectory", self.folders)
        for folder in self.folders:
            require_folder("trajectory", folder)
        require_folder("out", self.out)
        require_some("streams", self.streams)
        require_at_least("local_rows", self.local_rows, 1)
        require_at_least("rows", self.rows, MIN_ROWS)
        require_at_least("samples", self.samples, MIN_SAMPLES)
        require_some("lags", self.lags)
        for lag in self.lags:
            require_at_least("lags", lag, 1)
        if not 0 < self.nmse < 1:
            raise OptionError(f"`nmse` must lie between 0 and 1, got {self.nmse}.")
        if self.packets is not None:
            require_at_least("packets", self.packets, MIN_ROWS)
        require_at_least("seed", self.seed, 0)

    @property
    def folders(self) -> tuple[str, ...]:
        """What `trajectory` names, as a list."""
        return (self.trajectory,) if isinstance(self.trajectory, str) else self.trajectory

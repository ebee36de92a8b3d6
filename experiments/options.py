"""The options of every subcommand; their docstrings are the command's help. Nothing heavy is imported here."""

from dataclasses import dataclass
from typing import Literal

from .errors import OptionError
from .option_checks import require_above, require_at_least, require_folder, require_horizons, require_some

TaskName = Literal["digits", "fashion_mnist", "teacher", "shakespeare", "stdlib", "cifar10"]
NetworkName = Literal["mlp", "conv", "mlp_norm", "conv_norm", "conv_batch_norm", "transformer"]
OptimizerName = Literal["adam", "adamw", "sgd"]
InitName = Literal["default", "normal", "uniform", "orthogonal", "delta_orthogonal"]
ScheduleName = Literal["constant", "linear", "cosine"]
StreamName = Literal["weights", "gradients", "updates", "exp_avg", "exp_avg_sq"]
LoggerName = Literal["wandb", "csv", "tensorboard", "none"]
WandbMode = Literal["offline", "online"]
EntropyName = Literal["scale_classes", "tensor_tables", "runs"]
ReferenceName = Literal[
    "default",
    "tensor_tables",
    "eden",
    "topk",
    "powersgd",
    "qsgd",
    "terngrad",
    "companded",
    "sign",
    "int8",
    "float16",
    "bfloat16",
    "dithered",
    "rotated",
]
TargetMetric = Literal["accuracy", "loss"]
MAX_TRIALS = 9  # with three horizons on top, a method gets twelve at most
MAX_CORPUS_RUNS = 1000  # of one task; their seeds are 1000 times the corpus' own and counted on from there


@dataclass(frozen=True)
class RecordOptions:
    """Train a network and record how its weights and gradients move.

    Args:
        task: what to learn.
        network: what learns it.
        width: what the network's hidden widths are multiplied by.
        data: a folder with the task's files; without it they are looked for, and fetched if need be.
        out: where everything is written.
        steps: optimiser steps.
        batch_size: samples in a batch.
        optimizer: the rule that turns gradients into steps.
        learning_rate: its learning rate, before the schedule.
        schedule: how the learning rate changes over the run; linear and cosine end at zero.
        init: how the weights begin; default is PyTorch's scheme.
        seed: of the initial weights and of the order of the batches.
        every: optimiser steps between recorded rows of weights.
        gradient_every: optimiser steps between recorded gradients; 1 if a codec is to be tried on them.
        streams: what to record.
        forecasters: forecasters that are trained and scored while the run goes on; [] for none.
        horizons: how far ahead they look, in optimiser steps.
        fit_every: optimiser steps between fits of these forecasters.
        fit_share: they may take this share of the run's time; null for no limit, which makes runs repeatable.
        codec: train through the codec with this predictor, as over a link; null for none.
        nmse: error that this codec may make, as a share of each gradient's squared norm.
        logger: where metrics go besides the result file.
        wandb_mode: offline needs no account; a run can be sent later with `wandb sync`.
        progress: whether to show a progress bar.
    """

    task: TaskName = "digits"
    network: NetworkName = "mlp"
    width: float = 1.0
    data: str | None = None
    out: str = "runs/record"
    steps: int = 600
    batch_size: int = 64
    optimizer: OptimizerName = "adam"
    learning_rate: float = 0.003
    schedule: ScheduleName = "constant"
    init: InitName = "default"
    seed: int = 0
    every: int = 10
    gradient_every: int = 1
    streams: tuple[StreamName, ...] = ("weights", "gradients")
    forecasters: tuple[str, ...] = ("hold", "linear", "learned_linear", "neural_ode")
    horizons: tuple[int, ...] = (10, 50)
    fit_every: int = 100
    fit_share: float | None = 0.25
    codec: str | None = None
    nmse: float = 0.1
    logger: LoggerName = "wandb"
    wandb_mode: WandbMode = "offline"
    progress: bool = True

    def __post_init__(self) -> None:
        require_folder("out", self.out)
        for name in ("steps", "batch_size", "every", "gradient_every"):
            require_at_least(name, getattr(self, name), 1)
        require_above("learning_rate", self.learning_rate, 0)
        require_above("width", self.width, 0)
        require_at_least("seed", self.seed, 0)
        require_some("streams", self.streams)
        require_horizons(self.horizons)
        require_at_least("fit_every", self.fit_every, 1)
        if self.fit_share is not None and not 0 < self.fit_share <= 1:
            raise OptionError(f"`fit_share` must be above 0 and at most 1, or null, got {self.fit_share}.")
        if not 0 < self.nmse < 1:
            raise OptionError(f"`nmse` must lie between 0 and 1, got {self.nmse}.")


@dataclass(frozen=True)
class CorpusOptions:
    """Train and record a corpus of small runs in parallel processes, to fit and score forecasters on.

    Every run takes one value of each list. Each list is dealt like a deck of cards, shuffled anew when it is used up,
    so that its values come equally often; with more runs, those of fewer come first. A second call goes on with what
    is missing.

    Args:
        tasks: what to learn.
        networks: what learns it; of those that fit a task.
        widths: what the networks' hidden widths are multiplied by.
        optimizers: the rules that turn gradients into steps.
        learning_rates: before the schedule, for adam and adamw; sgd takes ten times as much.
        schedules: how the learning rate changes over a run; linear and cosine end at zero.
        batch_sizes: samples in a batch.
        runs: runs of each task.
        seed: of the choice; the runs themselves have seeds from 1000 times it on.
        steps: optimiser steps of each run.
        every: optimiser steps between recorded rows of weights.
        workers: processes, each with one thread; null for as many as there are cores for this one.
        data: a folder with the tasks' files; without it they are looked for, and fetched if need be.
        out: where everything is written, each run in a folder of its own.
        progress: whether to show a progress bar.
    """

    tasks: tuple[TaskName, ...] = ("digits", "teacher")
    networks: tuple[NetworkName, ...] = ("mlp", "conv", "mlp_norm", "conv_norm", "transformer")
    widths: tuple[float, ...] = (0.5, 1.0, 2.0)
    optimizers: tuple[OptimizerName, ...] = ("adam", "adamw", "sgd")
    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    schedules: tuple[ScheduleName, ...] = ("constant", "linear", "cosine")
    batch_sizes: tuple[int, ...] = (32, 64, 128)
    runs: int = 12
    seed: int = 0
    steps: int = 1000
    every: int = 10
    workers: int | None = None
    data: str | None = None
    out: str = "runs/corpus"
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("tasks", "networks", "widths", "optimizers", "learning_rates", "schedules", "batch_sizes"):
            require_some(name, getattr(self, name))
        for name in ("widths", "learning_rates"):
            for value in getattr(self, name):
                require_above(name, value, 0)
        for size in self.batch_sizes:
            require_at_least("batch_sizes", size, 1)
        for name in ("runs", "steps", "every"):
            require_at_least(name, getattr(self, name), 1)
        if self.runs > MAX_CORPUS_RUNS:
            raise OptionError(f"`runs` must be at most {MAX_CORPUS_RUNS}, got {self.runs}.")
        require_at_least("seed", self.seed, 0)
        if self.every > self.steps:
            raise OptionError(f"`every` must be at most `steps` {self.steps}, got {self.every}.")
        if self.workers is not None:
            require_at_least("workers", self.workers, 1)
        require_folder("out", self.out)


@dataclass(frozen=True)
class CompareOptions:
    """Replay a recorded stream through the codec, once per predictor, and score the forecasters on it.

    Args:
        trajectory: the recorded trajectory's folder.
        out: where everything is written.
        stream: the stream that is coded.
        predictors: the codec's front-ends, all with lattice Z; `none` is the reference they have to beat.
        nmse: errors that the codec may make, as shares of the vector's squared norm.
        entropy: how the codec chooses a coordinate's probability table; runs is many times faster, at more bits.
        references: coders measured beside it, at settings of their own and without error feedback; `default` is the
            codec as it is when nothing is configured, with lattice `auto`; [] for none.
        packets: code at most so many rows, the last ones; null for all.
        forecasters: the forecasters that are scored on the recorded weights; [] for none.
        horizons: how far ahead they look, in optimiser steps.
        data: a folder with the task's files, where a forecaster needs the neural graph of the run's network and those
            are not found otherwise.
        seed: of everything that is drawn.
        logger: where metrics go besides the result file.
        wandb_mode: offline needs no account; a run can be sent later with `wandb sync`.
        progress: whether to show a progress bar.
    """

    trajectory: str = "runs/record/trajectory"
    out: str = "runs/compare"
    stream: StreamName = "gradients"
    predictors: tuple[str, ...] = ("none", "previous", "momentum_norm", "momentum_projected", "fitted")
    nmse: tuple[float, ...] = (0.5, 0.1, 0.01)
    entropy: EntropyName = "scale_classes"
    references: tuple[ReferenceName, ...] = ("default", "tensor_tables", "eden", "topk", "powersgd")
    packets: int | None = None
    forecasters: tuple[str, ...] = ("hold", "linear", "quadratic", "learned_linear", "neural_ode")
    horizons: tuple[int, ...] = (10, 20, 50, 100)
    data: str | None = None
    seed: int = 0
    logger: LoggerName = "wandb"
    wandb_mode: WandbMode = "offline"
    progress: bool = True

    def __post_init__(self) -> None:
        require_folder("trajectory", self.trajectory)
        require_folder("out", self.out)
        require_some("predictors", self.predictors)
        require_some("nmse", self.nmse)
        for value in self.nmse:
            if not 0 < value < 1:
                raise OptionError(f"`nmse` must lie between 0 and 1, got {value}.")
        if self.references:
            require_some("references", self.references)
        if self.packets is not None:
            require_at_least("packets", self.packets, 1)
        if self.forecasters:
            require_some("forecasters", self.forecasters)
        require_horizons(self.horizons)
        require_at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class RaceOptions:
    """Train to a target with and without jumps, and count everything that either took.

    Args:
        task: what to learn.
        network: what learns it.
        width: what the network's hidden widths are multiplied by.
        data: a folder with the task's files; without it they are looked for, and fetched if need be.
        out: where everything is written.
        seeds: one pair of runs for each.
        steps: optimiser steps at most.
        batch_size: samples in a batch.
        optimizer: the rule that turns gradients into steps.
        learning_rate: its learning rate, before the schedule.
        schedule: how the learning rate changes over the run; linear and cosine end at zero.
        target_metric: what must be reached on the test set, accuracy or loss.
        target: the accuracy to reach from below, or the loss to reach from above.
        eval_every: optimiser steps between measurements on the test set; their cost is charged to neither side.
        forecaster: proposes the jumps.
        every: optimiser steps between recorded rows of weights.
        jump_every: optimiser steps between proposals.
        horizons: how far ahead a jump may go, in optimiser steps.
        methods: run a grid of these methods instead, tuned and raced on `problems`; [] for the race above.
        problems: what the grid is run on, each with its own network, batches and steps.
        trials: of the settings of one of the grid's methods, tuned by successive halving.
        work_seconds: no run of the grid begins later than this; null for no limit. Called again, it goes on.
        logger: where metrics go besides the result file.
        wandb_mode: offline needs no account; a run can be sent later with `wandb sync`.
        progress: whether to show a progress bar.
    """

    task: TaskName = "digits"
    network: NetworkName = "mlp"
    width: float = 1.0
    data: str | None = None
    out: str = "runs/race"
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 300
    batch_size: int = 64
    optimizer: OptimizerName = "adam"
    learning_rate: float = 0.016
    schedule: ScheduleName = "linear"
    target_metric: TargetMetric = "accuracy"
    target: float = 0.96
    eval_every: int = 5
    forecaster: str = "linear"
    every: int = 2
    jump_every: int = 10
    horizons: tuple[int, ...] = (2, 4, 8, 16)
    methods: tuple[str, ...] = ()
    problems: tuple[str, ...] = ("fm16", "fm_mlp")
    trials: int = 8
    work_seconds: float | None = None
    logger: LoggerName = "wandb"
    wandb_mode: WandbMode = "offline"
    progress: bool = True

    def __post_init__(self) -> None:
        require_folder("out", self.out)
        require_some("seeds", self.seeds)
        for seed in self.seeds:
            require_at_least("seeds", seed, 0)
        for name in ("steps", "batch_size", "eval_every", "every", "jump_every"):
            require_at_least(name, getattr(self, name), 1)
        require_above("learning_rate", self.learning_rate, 0)
        require_above("width", self.width, 0)
        require_above("target", self.target, 0)
        if self.target_metric == "accuracy" and self.target > 1:
            raise OptionError(f"`target` must be a share of at most 1 for accuracy, got {self.target}.")
        require_horizons(self.horizons)
        require_some("problems", self.problems)
        if self.methods:
            require_some("methods", self.methods)
        if not 1 <= self.trials <= MAX_TRIALS:
            raise OptionError(f"`trials` must lie within 1 and {MAX_TRIALS}, got {self.trials}.")
        if self.work_seconds is not None:
            require_above("work_seconds", self.work_seconds, 0)


@dataclass(frozen=True)
class ReportOptions:
    """Make one self-contained page out of recorded results.

    Args:
        runs: folders that `record`, `corpus`, `fit`, `score`, `compare` and `race` wrote, each with a result.json.
        out: where report.html and its figures are written.
    """

    runs: tuple[str, ...] = ("runs/record", "runs/compare", "runs/race")
    out: str = "runs/report"

    def __post_init__(self) -> None:
        require_some("runs", self.runs)
        for run in self.runs:
            require_folder("runs", run)
        require_folder("out", self.out)


@dataclass(frozen=True)
class QuickstartOptions:
    """Do all of it on the digits in a few minutes: record, compare, race, report.

    Args:
        out: where everything is written.
        seed: of the recorded run; the race takes this seed and the two after it.
        steps: optimiser steps of the recorded run.
        race_steps: optimiser steps at most of each run of the race.
        forecasters: the forecasters that are trained and scored.
        jump_forecaster: the one that proposes the jumps.
        predictors: the codec's front-ends.
        logger: where metrics go besides the result files.
        progress: whether to show progress.
    """

    out: str = "runs/quickstart"
    seed: int = 0
    steps: int = 600
    race_steps: int = 300
    forecasters: tuple[str, ...] = ("hold", "linear", "quadratic", "learned_linear", "neural_ode")
    jump_forecaster: str = "linear"
    predictors: tuple[str, ...] = ("none", "previous", "momentum_norm", "momentum_projected", "fitted")
    logger: LoggerName = "wandb"
    progress: bool = True

    def __post_init__(self) -> None:
        require_folder("out", self.out)
        require_at_least("seed", self.seed, 0)
        require_at_least("steps", self.steps, 1)
        require_at_least("race_steps", self.race_steps, 1)
        require_some("forecasters", self.forecasters)
        require_some("predictors", self.predictors)


Options = RecordOptions | CorpusOptions | CompareOptions | RaceOptions | ReportOptions | QuickstartOptions

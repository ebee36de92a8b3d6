"""The problems of the race's grid: what is learned, by which network, in how many steps."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import OptionError


@dataclass(frozen=True)
class FineTuning:
    """A network trained on another text first, then frozen; see `race_network`.

    Attributes:
        rank: of the trainable factors of each matrix.
        base_steps: optimiser steps of the training before.
        base_rate: its learning rate at the beginning, which decays linearly to zero.
        base_batch_size: samples in its batches.
    """

    rank: int
    base_steps: int
    base_rate: float
    base_batch_size: int = 32


@dataclass(frozen=True)
class Problem:
    """One row of the grid.

    Attributes:
        name: short, for tables.
        task: see `load_task`.
        network: see `make_network`.
        batch_size: samples in a batch.
        steps: optimiser steps that a run may take at most.
        test_samples: how many of the test set are looked at during a run, spread evenly; all where there are fewer.
        width: of the network.
        fine_tuning: how a network that is trained already is adapted; None to train from the beginning.
        rate_unit: what all learning rates of all methods are multiplied by. Those that are tried suit weights of the
            usual size, 1 / sqrt(3 fan_in); random factors are of size 1 and need larger ones.
    """

    name: str
    task: str
    network: str
    batch_size: int
    steps: int
    test_samples: int
    width: float = 1.0
    fine_tuning: FineTuning | None = None
    rate_unit: float = 1.0


# Steps are such that a run takes 5 to 10 CPU seconds on one core of an EPYC with AVX2; at batches of 128 one step of
# FM-16 alone takes 40 ms there, hence the small batches of the convolutional nets, and their few test samples: looking
# at 640 of them 30 times takes a third of a run, though it is charged to nobody.
_ALL = (
    Problem("fm16", "fashion_mnist", "conv", 32, 500, 640),
    Problem("fm_mlp", "fashion_mnist", "mlp", 128, 1200, 5000),
    Problem("fm_batch_norm", "fashion_mnist", "conv_batch_norm", 32, 400, 640),
    Problem("shakespeare", "shakespeare", "transformer", 32, 500, 640),
    Problem("stdlib", "stdlib", "transformer", 32, 500, 640),
    Problem("digits", "digits", "mlp", 64, 600, 400),
    Problem("fm32", "fashion_mnist", "conv", 32, 200, 640, width=2.0),
    Problem("fm_large", "fashion_mnist", "mlp", 128, 120, 1000, width=60.0),  # 10.4 million parameters
    Problem("cifar10", "cifar10", "conv", 32, 500, 640),
    # 11,136 factors beside 133,120 frozen numbers; the base takes 12 CPU seconds, once a process.
    Problem("lora", "stdlib", "transformer", 32, 300, 640, 2.0, FineTuning(4, 600, 0.004), 8.0),
)
PROBLEMS: Mapping[str, Problem] = {problem.name: problem for problem in _ALL}
CORE = tuple(problem.name for problem in _ALL[:5])


def find_problem(name: str) -> Problem:
    """A problem by name.

    Raises:
        OptionError: if there is none; it lists what there is.
    """
    if name not in PROBLEMS:
        raise OptionError(f"`problems` must be of {', '.join(PROBLEMS)}, got {name!r}.")
    return PROBLEMS[name]

"""The problems of the race's grid: what is learned, by which network, in how many steps."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import OptionError


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
    """

    name: str
    task: str
    network: str
    batch_size: int
    steps: int
    test_samples: int
    width: float = 1.0


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

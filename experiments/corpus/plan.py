"""Which runs a corpus consists of."""

import hashlib
import random
from collections.abc import Collection, Sequence
from typing import TypeVar

from ..options import CorpusOptions
from ..runs import RunFacts

_Value = TypeVar("_Value")
# In 45 runs of 300 steps on digits, teacher and shakespeare, SGD with momentum 0.9 learned with every network at rates
# from 0.01 to 0.1, which are ten times those that Adam is given here; at 0.2 and 0.3 some networks (conv_norm,
# transformer) learned less than at 0.1.
SGD_FACTOR = 10.0


def plan(options: CorpusOptions, task: str, networks: Sequence[str]) -> list[RunFacts]:
    """The runs of one task.

    Each list of values is dealt like a deck of cards that is shuffled anew when used up, independently of the others:
    a Latin hypercube sample (M. D. McKay, R. J. Beckman and W. J. Conover, 1979, A Comparison of Three Methods for
    Selecting Values of Input Variables in the Analysis of Output from a Computer Code) that can be continued, as run k
    depends on the seed, the task, the lists and k only.

    Args:
        options: the lists, and how many runs.
        task: its name.
        networks: those of `options.networks` that fit the task.
    """
    lists = {
        "network": networks,
        "width": options.widths,
        "optimizer": options.optimizers,
        "learning_rate": options.learning_rates,
        "schedule": options.schedules,
        "batch_size": options.batch_sizes,
    }
    dealt = {name: _deal(values, options.runs, f"{options.seed} {task} {name}") for name, values in lists.items()}
    plans: list[RunFacts] = []
    for index in range(options.runs):
        chosen = {name: values[index] for name, values in dealt.items()}
        chosen["learning_rate"] = learning_rate_for(chosen["optimizer"], chosen["learning_rate"])
        plans.append(RunFacts(task=task, seed=1000 * options.seed + index, steps=options.steps, **chosen))
    return plans


def learning_rate_for(optimizer: str, learning_rate: float) -> float:
    """The learning rate that an optimiser takes where Adam would take `learning_rate`."""
    return float(f"{learning_rate * (SGD_FACTOR if optimizer == 'sgd' else 1.0):.12g}")


def run_name(facts: RunFacts) -> str:
    """A folder's name that says which run is in it. Its seed tells it from every other one of its corpus."""
    return (
        f"{facts.task}_{facts.network}_w{facts.width:g}_{facts.optimizer}_lr{facts.learning_rate:g}_{facts.schedule}"
        f"_b{facts.batch_size}_s{facts.seed}"
    )


def _deal(values: Collection[_Value], count: int, key: str) -> list[_Value]:
    # A digest, because Python's own hash of a text differs from process to process.
    shuffler = random.Random(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
    dealt: list[_Value] = []
    while len(dealt) < count:
        dealt += shuffler.sample(list(values), len(values))
    return dealt[:count]

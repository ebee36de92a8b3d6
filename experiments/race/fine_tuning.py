"""The networks of the race's problems, those that are fine-tuned by low-rank factors among them."""

import copy
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional
from torch.optim import AdamW

from ...models.coordinates import GivenStart, LoRA, ReducedModule, choose_layout
from ...models.threads import one_thread
from ..tasks import Batches, TaskData, make_network
from ..tasks.shakespeare import load_shakespeare_bytes
from .optimizers import make_race_schedule
from .problems import FineTuning, Problem

BASE_SEED = 2000  # of the base's initial weights and its batches; no run of the race has it


def race_network(problem: Problem, task: TaskData, seed: int) -> nn.Module:
    """What is trained in a run.

    Where a problem is a fine-tuning, W = W_0 + s L R / sqrt(r) in each matrix W of a network trained before
    (E. J. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang and W. Chen, 2021, LoRA: Low-Rank Adaptation of
    Large Language Models, arXiv:2106.09685), with s = 1 / sqrt(3 fan_in): only L and R are trainable, W_0, biases and
    norms are frozen. R is zero at the start, so that training begins at the base network. Compared with the paper: its
    A and B have changed places (there the factor next to the input is random, here the one next to the output),
    alpha / r is s / sqrt(r), and embeddings and the last layer have factors too, since the text is of another kind.

    Args:
        problem: says which network, and whether it is fine-tuned.
        task: what is learned.
        seed: of the initial weights, or of the random factors.
    """
    tuning = problem.fine_tuning
    if tuning is None:
        return make_network(problem.network, task, seed, problem.width)
    network = copy.deepcopy(base_network(problem.network, problem.width, tuning))
    layout = choose_layout(network, num_axes=2)
    coordinates = LoRA(layout, tuning.rank, GivenStart.of(network, layout))
    reduced = ReducedModule(network, coordinates, coordinates.initial(seed))
    network.requires_grad_(False)  # what is left in it
    return reduced


@lru_cache(maxsize=2)
def base_network(network: str, width: float, tuning: FineTuning) -> nn.Module:
    """The network that a fine-tuning begins at: AdamW with linear decay on the bytes of tiny Shakespeare.

    It depends on neither method nor seed, is made once in a process, before the clock of the first run that needs it
    starts, and is charged to nobody. The same on machines that round alike. Do not change it: copy it.

    Raises:
        DataError: if the text cannot be found or fetched. It is looked for in `DEADRECKON_DATA` and wherever else
            `find_files` does, never in the folder that the command was given for the task that is learned.
    """
    task = load_shakespeare_bytes()
    found = make_network(network, task, BASE_SEED, width)
    optimizer = AdamW(found.parameters(), lr=tuning.base_rate)
    scheduler = make_race_schedule("linear", optimizer, tuning.base_steps)
    with one_thread(), torch.enable_grad():
        for inputs, labels in Batches(task.train, tuning.base_batch_size, tuning.base_steps, BASE_SEED):
            optimizer.zero_grad()
            functional.cross_entropy(found(inputs), labels).backward()
            optimizer.step()
            scheduler.step()
    found.zero_grad()
    return found

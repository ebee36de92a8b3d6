"""The learning problems that experiments run on."""

from .batches import Batches, sequential_batches, train_loader
from .networks import fitting_networks, make_network
from .registry import load_task, network_names, task_names
from .task import Split, TaskData

__all__ = [
    "Batches",
    "Split",
    "TaskData",
    "fitting_networks",
    "load_task",
    "make_network",
    "network_names",
    "sequential_batches",
    "task_names",
    "train_loader",
]

"""Tasks by name."""

from typing import get_args

from ..errors import OptionError
from ..options import NetworkName, TaskName
from .cifar10 import load_cifar10
from .digits import load_digits
from .fashion_mnist import load_fashion_mnist
from .shakespeare import load_shakespeare
from .stdlib import load_stdlib
from .task import TaskData
from .teacher import load_teacher


def task_names() -> tuple[str, ...]:
    """The tasks that `load_task` knows."""
    return get_args(TaskName)


def network_names() -> tuple[str, ...]:
    """The networks that `make_network` knows."""
    return get_args(NetworkName)


def load_task(name: str, data: str | None = None) -> TaskData:
    """A learning problem by name.

    Args:
        name: one of `task_names()`.
        data: a folder with its files; of no use to `digits` and `teacher`, which need none. `stdlib` needs none either,
            and learns the Python files of the folder instead where one is given.

    Raises:
        OptionError: if there is no such task.
        DataError: if its files cannot be found, fetched or read.
    """
    if name == "digits":
        return load_digits()
    if name == "fashion_mnist":
        return load_fashion_mnist(data)
    if name == "teacher":
        return load_teacher()
    if name == "shakespeare":
        return load_shakespeare(data)
    if name == "stdlib":
        return load_stdlib(data)
    if name == "cifar10":
        return load_cifar10(data)
    raise OptionError(f"`task` must be one of {', '.join(task_names())}, got {name!r}.")

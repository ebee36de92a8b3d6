"""Forecasters that come with the package, trained on a corpus of small runs."""

import importlib.resources

from .closed_form import ClosedForm
from .errors import ModelError
from .fitting import FittableForecaster
from .saving import load_forecaster

FOLDER = "deadreckon.models.weights"
SUFFIX = ".safetensors"


def pretrained_names() -> tuple[str, ...]:
    """The names that `load_pretrained` takes."""
    entries = (entry.name for entry in importlib.resources.files(FOLDER).iterdir())
    return tuple(sorted(name.removesuffix(SUFFIX) for name in entries if name.endswith(SUFFIX)))


def load_pretrained(name: str) -> ClosedForm | FittableForecaster:
    """A forecaster that needs no fitting, for any network.

    It was trained on runs of small networks recorded every 10 steps. What on, what it cost, how much skill it has on
    tasks it has not seen and where it should not be used: `pretrained_card(name)`.

    Args:
        name: one of `pretrained_names()`.

    Raises:
        ModelError: if there is no such name; it lists what there is.
    """
    return load_forecaster(_file(name, SUFFIX))


def pretrained_card(name: str) -> str:
    """The model card: data, cost, skill and limits, in Markdown.

    Raises:
        ModelError: if there is no such name.
    """
    with open(_file(name, ".md"), encoding="utf-8") as file:
        return file.read()


def _file(name: str, suffix: str) -> str:
    """A packaged file. The package is installed unpacked, as setuptools always does."""
    if name not in (known := pretrained_names()):
        raise ModelError(f"There is no pretrained forecaster {name!r}. There are: {', '.join(known)}.")
    return str(importlib.resources.files(FOLDER) / f"{name}{suffix}")

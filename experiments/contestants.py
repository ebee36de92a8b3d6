"""The forecasters that are scored, each under a name of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..forecast import Forecaster, LearnedForecaster
from ..models import forecaster_names, load_forecaster, make_forecaster
from .errors import OptionError
from .measures import REFERENCE_FORECASTER as HOLD
from .results import FILE_NAME, read_result
from .runs import RecordedRun
from .score.verdicts import CLOSED, CONTROL, LEARNED

SAVED = "forecaster.safetensors"  # what `fit` writes into its folder


@dataclass(frozen=True)
class Contestant:
    """A forecaster that is scored.

    Attributes:
        name: what it is called in tables; those of files differ from the registry's where both are scored.
        forecaster: the forecaster.
        source: the file it came from; empty for a name of the registry.
        is_control: whether it stands for a simple rule.
    """

    name: str
    forecaster: Forecaster
    source: str
    is_control: bool

    @property
    def needs_fit(self) -> bool:
        """Whether it has to be fitted in the run."""
        return not self.forecaster.fitted

    @property
    def num_numbers(self) -> int:
        """How many numbers it has learned; 0 for a formula."""
        forecaster = self.forecaster
        state = forecaster.state_dict() if isinstance(forecaster, LearnedForecaster) else {}
        return sum(value.numel() for value in state.values())

    @property
    def family(self) -> str:
        """`closed` for a formula, also one in a wrapper that learned nothing; else `control` or `learned`."""
        if self.is_control:
            return CONTROL
        return CLOSED if not self.needs_fit and self.num_numbers == 0 else LEARNED


def find_contestants(forecasters: Sequence[str], controls: Sequence[str], fit_in_run: bool) -> list[Contestant]:
    """The forecasters to score, each under a name of its own; `hold` first.

    A file's forecaster goes by its own name. Where that is taken, what tells the file apart is added: its stem, or
    its folder's name if `fit` chose the stem.

    Args:
        forecasters: names, and files or folders of saved ones.
        controls: the same.
        fit_in_run: whether those that are not fitted are let through.

    Raises:
        OptionError: if one is neither a name nor a file, or has to be fitted and may not.
        ModelError: if a file is no forecaster.
    """
    asked = [(item, False) for item in forecasters if item != HOLD] + [(item, True) for item in controls]
    found = [(make_forecaster(HOLD), "", False)]
    for item, is_control in asked:
        if item in forecaster_names():
            found.append((make_forecaster(item), "", is_control))
        else:
            path = _file(item)
            found.append((load_forecaster(path), str(path), is_control))
    contestants: list[Contestant] = []
    names = [forecaster.name for forecaster, _, _ in found]
    for forecaster, source, is_control in found:
        name = forecaster.name
        if source and names.count(name) > 1:
            path = Path(source)
            name = f"{name} ({path.parent.name if path.name == SAVED else path.stem})"
        taken = {item.name for item in contestants}
        number, unique = 1, name
        while unique in taken:
            number += 1
            unique = f"{name} {number}"
        contestants.append(Contestant(unique, forecaster, source, is_control))
    needy = [item.name for item in contestants if item.needs_fit]
    if needy and not fit_in_run:
        raise OptionError(
            f"{needy[0]!r} has to be fitted first. Name a file that `deadreckon fit` wrote, or set `fit_in_run`."
        )
    return contestants


def known_to(contestant: Contestant, runs: Sequence[RecordedRun]) -> tuple[int, list[str]]:
    """How many of the runs a forecaster was fitted to or chosen by, and of which of their tasks it has seen any run.

    What it was fitted to is told by the result that `fit` wrote beside it; nothing is known about other files.

    Raises:
        ResultError: if that result is damaged.
    """
    place = Path(contestant.source).parent / FILE_NAME
    if not contestant.source or not place.is_file():
        return 0, []
    result = read_result(place)
    if result.kind != "fit":
        return 0, []
    seen = {Path(run["folder"]).resolve() for run in result.data["runs"]}
    tasks = {run["task"] for run in result.data["runs"]}
    return sum(run.folder.resolve() in seen for run in runs), sorted(tasks & {run.task for run in runs})


def _file(item: str) -> Path:
    path = Path(item)
    if path.is_dir():
        path = path / SAVED
    if not path.is_file():
        raise OptionError(
            f"`forecasters` must be names or files, got {item!r}. There is no such file; the names are "
            f"{', '.join(forecaster_names())}."
        )
    return path

"""The authors' NiNo in the race: found where the user says, since the package does not come with it."""

import os
from collections.abc import Iterable
from pathlib import Path

from ...models import ReleasedNiNo, load_released_nino
from ..errors import OptionError
from .methods import RELEASED, Method

VARIABLE = "DEADRECKON_NINO"


def released_checkpoint() -> Path:
    """The file that `DEADRECKON_NINO` names.

    Raises:
        OptionError: if the variable is not set or names no file.
    """
    named = os.environ.get(VARIABLE, "")
    if not named or not Path(named).is_file():
        found = f"it names {named!r}, which is no file" if named else "it is not set"
        raise OptionError(
            f"`*_nino_released` need the authors' checkpoint in the variable {VARIABLE}, but {found}. Set it to "
            "checkpoints/nino_no_posw.pt of github.com/SamsungSAILMontreal/nino, or leave these methods out."
        )
    return Path(named)


def require_released(methods: Iterable[Method]) -> None:
    """Refuse to begin a grid that would stop for want of the checkpoint once its baselines are tuned.

    Raises:
        OptionError: if a method needs the checkpoint and it is not there.
    """
    if any(method.jumps is not None and method.jumps.forecaster == RELEASED for method in methods):
        released_checkpoint()


def race_nino(row_every: int) -> ReleasedNiNo:
    """The authors' NiNo, computed as their code does, on rows `row_every` optimiser steps apart.

    It was trained on rows 200 steps apart, of runs at a constant rate; a run of the race has 1200 steps at most,
    of which five rows 200 steps apart would be most. So in the race it works outside of what it was trained for.

    Raises:
        OptionError: see `released_checkpoint`.
        ModelFileError: if the file is something else.
    """
    return load_released_nino(released_checkpoint(), row_every, "released")

"""Checks that the options of several commands have in common."""

import math
from collections.abc import Collection

from .errors import OptionError


def require_at_least(name: str, value: float, least: float) -> None:
    """Refuse a number below `least`, and what is no finite number.

    Raises:
        OptionError: naming the option.
    """
    if not (math.isfinite(value) and value >= least):
        raise OptionError(f"`{name}` must be at least {least}, got {value}.")


def require_above(name: str, value: float, limit: float) -> None:
    """Refuse a number that is not above `limit`, and what is no finite number.

    Raises:
        OptionError: naming the option.
    """
    if not (math.isfinite(value) and value > limit):
        raise OptionError(f"`{name}` must be above {limit}, got {value}.")


def require_some(name: str, values: Collection[object]) -> None:
    """Refuse an empty list, and one that names something twice.

    Raises:
        OptionError: naming the option.
    """
    if not values:
        raise OptionError(f"`{name}` must name at least one.")
    if len(set(values)) != len(values):
        raise OptionError(f"`{name}` must not repeat itself, got {', '.join(map(str, values))}.")


def require_folder(name: str, value: str) -> None:
    """Refuse an empty path.

    Raises:
        OptionError: naming the option.
    """
    if not value:
        raise OptionError(f"`{name}` must name a folder, got nothing.")


def require_horizons(horizons: Collection[int]) -> None:
    """Refuse anything but different whole numbers of steps, each at least 1.

    Raises:
        OptionError: saying what is wrong.
    """
    require_some("horizons", horizons)
    for horizon in horizons:
        require_at_least("horizons", horizon, 1)

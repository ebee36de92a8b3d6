"""Checks of constructor options, which may come from configuration files."""

from collections.abc import Sequence
from typing import TypeVar

from .errors import ModelError

Choice = TypeVar("Choice", bound=str)


def require_integer(name: str, value: object, at_least: int) -> int:
    """`value`, if it is a whole number not below `at_least`.

    Raises:
        ModelError: if it is not.
    """
    if type(value) is not int or value < at_least:
        raise ModelError(f"`{name}` must be a whole number of at least {at_least}, got {value!r}.")
    return value


def require_positive(name: str, value: object) -> float:
    """`value`, if it is a finite number above 0.

    Raises:
        ModelError: if it is not.
    """
    if type(value) not in (int, float) or not 0 < value < float("inf"):  # type: ignore[operator]
        raise ModelError(f"`{name}` must be a finite number above 0, got {value!r}.")
    return float(value)  # type: ignore[arg-type]


def require_not_negative(name: str, value: object) -> float:
    """`value`, if it is a finite number of at least 0.

    Raises:
        ModelError: if it is not.
    """
    if type(value) not in (int, float) or not 0 <= value < float("inf"):  # type: ignore[operator]
        raise ModelError(f"`{name}` must be a finite number of at least 0, got {value!r}.")
    return float(value)  # type: ignore[arg-type]


def require_share(name: str, value: object) -> float:
    """`value`, if it is a number from 0 to 1.

    Raises:
        ModelError: if it is not.
    """
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
        raise ModelError(f"`{name}` must be a number from 0 to 1, got {value!r}.")
    return float(value)  # type: ignore[arg-type]


def require_flag(name: str, value: object) -> bool:
    """`value`, if it is true or false.

    Raises:
        ModelError: if it is not.
    """
    if type(value) is not bool:
        raise ModelError(f"`{name}` must be true or false, got {value!r}.")
    return value


def require_choice(name: str, value: Choice, choices: Sequence[Choice]) -> Choice:
    """`value`, if it is one of `choices`.

    Raises:
        ModelError: if it is not.
    """
    if value not in choices:
        raise ModelError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
    return value

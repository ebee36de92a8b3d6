"""Reads numbers, texts and lists from untrusted plain data."""

MAX_WHOLE = 2**40


def whole(value: object) -> int:
    """A whole number of reasonable size.

    Raises:
        TypeError: if it is something else.
    """
    if type(value) is not int or abs(value) > MAX_WHOLE:
        raise TypeError(f"{value!r} is not a whole number of reasonable size")
    return value


def maybe(value: object) -> int | None:
    """A whole number or nothing.

    Raises:
        TypeError: if it is something else.
    """
    return None if value is None else whole(value)


def wholes(values: object) -> tuple[int, ...]:
    """A list of whole numbers.

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(values, list | tuple):
        raise TypeError(f"{values!r} is not a list of whole numbers")
    return tuple(whole(value) for value in values)


def text(value: object) -> str:
    """A text.

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def flag(value: object) -> bool:
    """True or false.

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value

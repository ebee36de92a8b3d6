"""What plain data must look like, and checking that it does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ResultError

MAX_TEXT = 10_000  # characters in any one text of a result file


@dataclass(frozen=True)
class Scalar:
    """A single value.

    Attributes:
        types: Python types that JSON may give for it; `bool` never counts as a number.
        optional: whether null will do; it also stands for numbers that are not finite.
    """

    types: tuple[type, ...]
    optional: bool = False


@dataclass(frozen=True)
class Items:
    """A list of equals."""

    item: "Spec"


@dataclass(frozen=True)
class Row:
    """A list of fixed length: a point of a curve."""

    items: tuple["Spec", ...]


@dataclass(frozen=True)
class Named:
    """Values by free name."""

    value: "Spec"


@dataclass(frozen=True)
class Record:
    """Values by fixed name. Further names are let through, so that files may grow without a new version.

    Attributes:
        required: must be there.
        defaults: may be absent; the value that stands in then.
        optional: whether null will do.
    """

    required: Mapping[str, "Spec"]
    defaults: Mapping[str, tuple["Spec", Any]] = field(default_factory=dict)
    optional: bool = False


Spec = Scalar | Items | Row | Named | Record


def check(value: Any, spec: Spec, place: str) -> Any:
    """A value with absent optional entries filled in.

    Args:
        value: parsed JSON.
        spec: what it must look like.
        place: where it lies, for messages.

    Raises:
        ResultError: naming the first place that does not fit.
    """
    if isinstance(spec, Scalar):
        return _check_scalar(value, spec, place)
    if isinstance(spec, Items | Row):
        if not isinstance(value, list):
            raise ResultError(f"`{place}` must be a list, got {type(value).__name__}.")
        if isinstance(spec, Row) and len(value) != len(spec.items):
            raise ResultError(f"`{place}` must have {len(spec.items)} entries, got {len(value)}.")
        specs = spec.items if isinstance(spec, Row) else [spec.item] * len(value)
        pairs = enumerate(zip(value, specs, strict=True))
        return [check(item, own, f"{place}[{index}]") for index, (item, own) in pairs]
    if isinstance(spec, Record) and spec.optional and value is None:
        return None
    if not isinstance(value, dict):
        raise ResultError(f"`{place}` must be a mapping, got {type(value).__name__}.")
    if isinstance(spec, Named):
        return {name: check(item, spec.value, f"{place}.{name}") for name, item in value.items()}
    result = dict(value)
    for name, own in spec.required.items():
        if name not in value:
            raise ResultError(f"`{place}` must have an entry {name!r}.")
        result[name] = check(value[name], own, f"{place}.{name}")
    for name, (own, default) in spec.defaults.items():
        result[name] = check(value.get(name, default), own, f"{place}.{name}")
    return result


def _check_scalar(value: Any, spec: Scalar, place: str) -> Any:
    if value is None and spec.optional:
        return None
    if not isinstance(value, spec.types) or (isinstance(value, bool) and bool not in spec.types):
        names = " or ".join(kind.__name__ for kind in spec.types) + (" or null" if spec.optional else "")
        raise ResultError(f"`{place}` must be {names}, got {type(value).__name__}.")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise ResultError(f"`{place}` must have at most {MAX_TEXT} characters, got {len(value)}.")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ResultError(f"`{place}` must fit into 64 bits.")
    return value

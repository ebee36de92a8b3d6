"""Machine-readable results of experiments: result.json."""

import json
import math
import numbers
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .errors import OptionError, ResultError
from .files import write_whole
from .schema import ENVIRONMENT, KINDS
from .spec import check

FORMAT = "deadreckon-result"
VERSION = 1
FILE_NAME = "result.json"
MAX_BYTES = 64 * 2**20
MAX_DEPTH = 32
PACKAGES = ("deadreckon", "torch", "lightning", "numpy", "constriction", "zarr", "torchdiffeq", "wandb")


@dataclass(frozen=True)
class Result:
    """A result that was read and checked.

    Attributes:
        kind: one of `deadreckon.experiments.schema.KINDS`, named after the command.
        data: as `deadreckon.experiments.schema` describes that kind.
        environment: where it was made.
        path: the file.
    """

    kind: str
    data: dict[str, Any]
    environment: dict[str, Any]
    path: Path


def require_new(path: Path) -> None:
    """Check that nothing is there yet, before work is done whose result could not be kept.

    Raises:
        OptionError: if something is.
    """
    if path.exists():
        raise OptionError(f"{path} exists already, and nothing is overwritten. Choose another `--out`, or remove it.")


def write_result(folder: str | Path, kind: str, data: Mapping[str, Any]) -> Path:
    """Write `folder/result.json`, whole or not at all.

    JSON has no infinities: a number that is not finite is stored as null.

    Args:
        folder: made if need be.
        kind: one of `deadreckon.experiments.schema.KINDS`, named after the command.
        data: plain values (also NumPy's scalars), as `deadreckon.experiments.schema` describes this kind.

    Returns:
        The file.

    Raises:
        ResultError: if the data are not plain or not as described.
    """
    if kind not in KINDS:
        raise ResultError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "environment": environment(),
        "data": check(_plain(data, "data"), KINDS[kind], "data"),
    }
    text = json.dumps(content, allow_nan=False, indent=1)
    if len(text) > MAX_BYTES:
        raise ResultError(f"A result may have {MAX_BYTES} bytes, got {len(text)}. Thin out its curves.")
    path = Path(folder) / FILE_NAME
    write_whole(path, text)
    return path


def read_result(path: str | Path) -> Result:
    """Read a result file, or the one in a folder, trusting nothing in it.

    Raises:
        FileNotFoundError: if there is none.
        ResultError: if it is too large, not JSON, of another format or version, or not as described.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
    if len(text) > MAX_BYTES:
        raise ResultError(f"{path} is larger than {MAX_BYTES} bytes, too large for a result.")
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:  # also for wrong UTF-8 and endless digits
        raise ResultError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultError(f"{path} is not a {FORMAT} file.")
    if content.get("version") != VERSION:
        raise ResultError(f"{path} must have version {VERSION}, got {content.get('version')!r}.")
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ResultError(f"{path}: `kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
    try:
        content = _plain(content, "result")  # bounds the depth, also of entries that nobody knows
        data = check(content.get("data"), KINDS[kind], "data")
        made_in = check(content.get("environment"), ENVIRONMENT, "environment")
    except ResultError as error:
        raise ResultError(f"{path}: {error}") from None
    return Result(kind, data, made_in, path)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _plain(value: Any, place: str, depth: int = 0) -> Any:
    """The same value made of what JSON has."""
    if depth > MAX_DEPTH:
        raise ResultError(f"`{place}` is nested more than {MAX_DEPTH} deep.")
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else None
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ResultError(f"Names in `{place}` must be text, got {name!r}.")
        return {name: _plain(item, f"{place}.{name}", depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
    raise ResultError(f"`{place}` must be made of plain values, got {type(value).__name__}.")


def environment() -> dict[str, Any]:
    """Where and with what a result is made; nothing that tells who made it."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")  # not imported for this: whoever made a result without it used no thread of it
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads() if torch is not None else None,
        "packages": found,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }

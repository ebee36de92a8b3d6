"""Reading files of JSON that say what they are: a format, its version and data of a known shape."""

import json
from pathlib import Path
from typing import Any

from .errors import ResultError
from .spec import Spec, check


def read_labelled(path: Path, label: tuple[str, int], spec: Spec, max_bytes: int, remedy: str) -> Any:
    """The data of such a file, trusting nothing in it.

    Args:
        path: the file.
        label: its format and version.
        spec: what its data must look like.
        max_bytes: what it may take.
        remedy: what to do where it is damaged; ends the error's text.

    Raises:
        FileNotFoundError: if there is none.
        ResultError: if it is damaged.
    """
    format_name, version = label
    with path.open("rb") as file:
        text = file.read(max_bytes + 1)
    try:
        if len(text) > max_bytes:
            raise ResultError(f"it is larger than {max_bytes} bytes")
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != format_name:
            raise ResultError(f"it is not a {format_name} file")
        if content.get("version") != version:
            raise ResultError(f"it must have version {version}, got {content.get('version')!r:.80}")
        return check(content.get("data"), spec, "data")
    except (ValueError, RecursionError) as error:  # ResultError is a ValueError, too
        raise ResultError(f"{path} cannot be read: {error}. {remedy}") from error

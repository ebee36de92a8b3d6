"""Writing model files so that nobody ever reads half of one."""

import os
from pathlib import Path

from .errors import ModelFileError


def write_whole(path: str | os.PathLike[str], content: bytes, what: str) -> None:
    """Write a file that appears under its name complete or not at all; one that was there is replaced.

    Args:
        path: the file. Its folder must exist.
        content: all of it.
        what: it is, for the error.

    Raises:
        ModelFileError: if it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ModelFileError(f"Cannot write the {what} {path}: {error.strerror}.") from error

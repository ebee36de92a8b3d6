"""Finding data files on this machine, or fetching them."""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError

DATA_VARIABLE = "DEADRECKON_DATA"
SYSTEM_FOLDER = Path("/usr/share/datasets")  # where Debian's dataset packages put theirs
TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set and how to tell that it is the right one.

    Attributes:
        name: file name.
        num_bytes: its length.
        sha256: its digest, in hexadecimal; empty where it is never fetched.
        source: what it is called where it is fetched from, if something else.
    """

    name: str
    num_bytes: int
    sha256: str = ""
    source: str = ""


def cache_folder() -> Path:
    """Where fetched data sets are kept: `deadreckon` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "deadreckon"


def find_files(
    data_set: str, files: Sequence[RemoteFile], data: str | None, base_url: str, is_fetched: bool = True
) -> Path:
    """A folder that holds all files of a data set, each of the right length; fetched as a last resort.

    Looked for in this order: `data`, the folder that `DEADRECKON_DATA` names, the system's folder, the cache. In the
    first two the files may lie in the folder itself or in a sub-folder called after the data set. The digest is
    checked for what is fetched; a file of the user's own is checked by length here and by shape when read.

    Args:
        data_set: its folder name, such as `fashion-mnist`.
        files: what is needed.
        data: a folder the user gave, which must then hold the files.
        base_url: where to fetch them from, ending in a slash.
        is_fetched: False for files that the user has to get; `base_url` then says where.

    Raises:
        DataError: if `data` lacks the files, or they are nowhere and cannot be fetched; it lists what was tried.
    """
    if data is not None:
        for folder in (Path(data), Path(data) / data_set):
            if _holds(folder, files):
                return folder
        raise DataError(f"{data} does not hold {data_set}: {_complaint(Path(data), files)}.")
    variable = os.environ.get(DATA_VARIABLE, "")
    candidates = [Path(variable), Path(variable) / data_set] if variable else []
    candidates += [SYSTEM_FOLDER / data_set, cache_folder() / data_set]
    for folder in candidates:
        if _holds(folder, files):
            return folder
    tried = ", ".join(map(str, candidates))
    names = ", ".join(file.name for file in files)
    if not is_fetched:
        raise DataError(
            f"{data_set} was not found in {tried}, and is not fetched. Get {names} from {base_url}, put them into a "
            f"folder and name it with --data or {DATA_VARIABLE}."
        )
    try:
        return _fetch_all(files, base_url, cache_folder() / data_set)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{data_set} was not found in {tried}, and could not be fetched from {base_url}: {error}. "
            f"Put {names} into a folder and name it with --data or {DATA_VARIABLE}."
        ) from error


def _holds(folder: Path, files: Sequence[RemoteFile]) -> bool:
    return all((folder / file.name).is_file() and _size(folder, file) == file.num_bytes for file in files)


def _size(folder: Path, file: RemoteFile) -> int:
    return (folder / file.name).stat().st_size


def _complaint(folder: Path, files: Sequence[RemoteFile]) -> str:
    if not folder.is_dir():
        return "there is no such folder"
    for file in files:
        if not (folder / file.name).is_file():
            return f"{file.name} is missing"
        if _size(folder, file) != file.num_bytes:
            return f"{file.name} must have {file.num_bytes} bytes, got {_size(folder, file)}"
    return "it changed while it was looked at"


def _fetch_all(files: Sequence[RemoteFile], base_url: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).is_file() or _size(folder, file) != file.num_bytes:
            _fetch(file, base_url + (file.source or file.name), folder)
    return folder


def _fetch(file: RemoteFile, url: str, folder: Path) -> None:
    """Fetch one file next to its place, check it, and only then move it there: it is right or absent."""
    descriptor, partial = tempfile.mkstemp(prefix=f".{file.name}.", dir=folder)
    try:
        digest, num_bytes = hashlib.sha256(), 0
        with os.fdopen(descriptor, "wb") as out, urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            while chunk := response.read(CHUNK_BYTES):
                num_bytes += len(chunk)
                if num_bytes > file.num_bytes:
                    raise DataError(f"{url} must have {file.num_bytes} bytes, got more")
                digest.update(chunk)
                out.write(chunk)
        if num_bytes != file.num_bytes:
            raise DataError(f"{url} must have {file.num_bytes} bytes, got {num_bytes}")
        if digest.hexdigest() != file.sha256:
            raise DataError(f"{url} must have SHA-256 {file.sha256}, got {digest.hexdigest()}")
        os.chmod(partial, 0o644)
        os.replace(partial, folder / file.name)
    except urllib.error.URLError as error:
        raise DataError(f"{url}: {error.reason}") from error
    finally:
        Path(partial).unlink(missing_ok=True)

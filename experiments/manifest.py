"""What was made from what: a manifest beside each run, which names everything by its digest."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..forecast import Trajectory, TrajectoryError
from .files import write_whole
from .labelled import read_labelled
from .results import FILE_NAME as RESULT
from .results import environment
from .runs import TRAJECTORY, is_run
from .schema import COUNT, OPTIONS, TEXT
from .spec import Items, Record, check

FILE_NAME = "lineage.json"
FORMAT, VERSION = "deadreckon-lineage", 1
FORECASTER_SUFFIX = ".safetensors"
MAX_BYTES = 2**24
_CHUNK = 2**20
_ITEM = Record({"kind": TEXT, "path": TEXT, "digest": TEXT, "num_bytes": COUNT})
_MANIFEST = Record({"command": TEXT, "inputs": Items(_ITEM), "outputs": Items(_ITEM), "options": OPTIONS})


@dataclass(frozen=True)
class Item:
    """Something that a command read or wrote.

    Attributes:
        kind: `trajectory`, `forecaster`, `result` or `file`.
        path: where it lies, relative to the manifest's folder, so that a tree of runs can be moved as a whole.
        digest: of a trajectory, `Trajectory.digest`; else the SHA-256 of the file, in hexadecimal.
        num_bytes: what it takes on disk.
    """

    kind: str
    path: str
    digest: str
    num_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What one call of a command read and wrote.

    Attributes:
        command: the subcommand.
        inputs: what it read.
        outputs: what it wrote, its result last.
        options: of the command.
        folder: where the manifest lies.
    """

    command: str
    inputs: tuple[Item, ...]
    outputs: tuple[Item, ...]
    options: Mapping[str, Any]
    folder: Path

    def path_of(self, item: Item) -> Path:
        """Where one of its items lies, seen from the working directory."""
        return Path(os.path.normpath(self.folder / item.path))


def write_manifest(
    folder: Path, command: str, inputs: Iterable[Path], outputs: Iterable[Path], options: Mapping[str, Any]
) -> Manifest:
    """Write `folder/lineage.json`, whole or not at all; what is named in it is read once, for its digest.

    Args:
        folder: of the run.
        command: the subcommand.
        inputs: what it read: files, trajectories, or folders of runs.
        outputs: what it wrote, likewise.
        options: of the command, plain values.

    Raises:
        FileNotFoundError: if something is not there.
        TrajectoryError: if a trajectory is damaged.
    """
    found, made = ([_described(path, folder) for path in paths] for paths in (inputs, outputs))
    plain = json.loads(json.dumps(dict(options)))
    data = {"inputs": [asdict(item) for item in found], "outputs": [asdict(item) for item in made]}
    data = check({"command": command, **data, "options": plain}, _MANIFEST, "lineage")
    content = {"format": FORMAT, "version": VERSION, "environment": environment(), "data": data}
    write_whole(folder / FILE_NAME, json.dumps(content, allow_nan=False, indent=1))
    return Manifest(command, tuple(found), tuple(made), plain, folder)


def read_manifest(folder: str | Path) -> Manifest:
    """Read a folder's manifest, trusting nothing in it.

    Raises:
        FileNotFoundError: if there is none.
        ResultError: if it is damaged.
    """
    data = read_labelled(Path(folder) / FILE_NAME, (FORMAT, VERSION), _MANIFEST, MAX_BYTES, "Run the command again.")
    inputs, outputs = (
        tuple(Item(*(item[name] for name in ("kind", "path", "digest", "num_bytes"))) for item in data[part])
        for part in ("inputs", "outputs")
    )
    return Manifest(data["command"], inputs, outputs, data["options"], Path(folder))


def changes(manifest: Manifest) -> list[str]:
    """One sentence for each thing named in a manifest that is gone, or no longer what it was; none if all is well."""
    found: list[str] = []
    for item in (*manifest.inputs, *manifest.outputs):
        path = manifest.path_of(item)
        try:
            now = _described(path, manifest.folder)
        except (OSError, TrajectoryError):
            found.append(f"{path} is gone or cannot be read.")
            continue
        if now.digest != item.digest:
            found.append(f"{path} has changed since {manifest.command} was run: {item.digest[:12]} before, ")
            found[-1] += f"{now.digest[:12]} now."
    return found


def ancestors(folder: str | Path, among: Sequence[str | Path]) -> list[Manifest]:
    """The manifests of everything that a run was made from, directly or not, nearest first.

    Inputs and outputs are joined by digest, not by path: a run that was moved is found all the same.

    Args:
        folder: of the run.
        among: folders of the runs that it may have been made from.

    Raises:
        FileNotFoundError: if a folder has no manifest.
        ResultError: if a manifest is damaged.
    """
    known = [read_manifest(item) for item in among]
    found: list[Manifest] = []
    waiting = [read_manifest(folder)]
    while waiting:
        wanted = {item.digest for item in waiting.pop(0).inputs}
        new = [item for item in known if item not in found and wanted & {made.digest for made in item.outputs}]
        found += new
        waiting += new
    return found


def outputs_in(folder: Path) -> list[Path]:
    """What commands leave in a run's folder that others may be made from: trajectories, forecasters, the result."""
    paths = [item for item in (folder / TRAJECTORY, *sorted(folder.glob(f"*/{TRAJECTORY}"))) if is_run(item)]
    paths += sorted(folder.glob(f"*{FORECASTER_SUFFIX}"))
    return [*paths, *(path for path in (folder / RESULT,) if path.is_file())]


def _described(path: Path, folder: Path) -> Item:
    """A file, or the trajectory in a folder."""
    place = path / TRAJECTORY if is_run(path / TRAJECTORY) else path
    relative = os.path.relpath(place, folder)
    if place.is_dir():
        with Trajectory.open(place) as trajectory:
            return Item("trajectory", relative, trajectory.digest, trajectory.num_bytes)
    digest = hashlib.sha256()
    with place.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    kind = "forecaster" if place.suffix == FORECASTER_SUFFIX else "result" if place.name == RESULT else "file"
    return Item(kind, relative, digest.hexdigest(), place.stat().st_size)

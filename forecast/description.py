"""What a trajectory store says about itself: its format, its streams and what their coordinates mean."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .commit_log import from_plain, to_plain
from .errors import LayoutError, TrajectoryError
from .layout import Layout
from .selection import Selection
from .stream import require_float32, require_stream_names
from .tiers import Coding, Tier, coding_of
from .zarr_metadata import create_array, create_group, create_index, row_chunks

FORMAT = "deadreckon-trajectory"
FORMAT_VERSION = 2
READABLE = (1, 2)
INDEX = "coordinates"  # the array with the coordinates of a sample; no stream may be named so
_INDEX_TYPE = np.dtype("<i8")


@dataclass(frozen=True)
class StreamSpec:
    """One stream of a store.

    Attributes:
        name: its name, which is its folder's.
        layout: what its coordinates mean.
        coding: how its numbers are stored.
    """

    name: str
    layout: Layout
    coding: Coding


@dataclass(frozen=True)
class Description:
    """Everything about a store but its rows.

    Attributes:
        version: of the format.
        uuid: tells the store from every other one.
        layout: what the coordinates of streams mean that have no layout of their own.
        streams: by name.
        metadata: what the maker of the run noted.
        selection: what of the network is recorded; None if all of it.
    """

    version: int
    uuid: str
    layout: Layout
    streams: Mapping[str, StreamSpec]
    metadata: dict[str, Any]
    selection: Selection | None

    @classmethod
    def new(
        cls,
        layout: Layout,
        streams: Sequence[str],
        metadata: Mapping[str, Any],
        tiers: Mapping[str, str],
        layouts: Mapping[str, Layout],
        selection: Selection | None,
    ) -> "Description":
        """The description of a new store.

        Raises:
            TrajectoryError: if a name, a tier or the metadata is impossible.
            LayoutError: if a layout is empty or has a float64 tensor.
        """
        names = require_stream_names(streams)
        unknown = sorted({*tiers, *layouts} - set(names))
        if unknown:
            raise TrajectoryError(f"No stream named {unknown[0]!r}. There are: {', '.join(names)}.")
        specs = {
            name: StreamSpec(name, layouts.get(name, layout), coding_of(tiers.get(name, "float32"))) for name in names
        }
        for each in (layout, *layouts.values()):
            require_float32(each)
        if selection is not None and selection.layout.digest != layout.digest:
            raise LayoutError("The selection must be one of the layout's coordinates.")
        plain = from_plain(to_plain(metadata, "`metadata`"))
        return cls(FORMAT_VERSION, str(uuid.uuid4()), layout, specs, plain, selection)

    @property
    def header(self) -> dict[str, Any]:
        """The first line of the commit log, which ties it to its store."""
        return {
            "format": FORMAT,
            "format_version": self.version,
            "uuid": self.uuid,
            "layout": self.layout.digest,
        }

    def to_attributes(self) -> dict[str, Any]:
        """Plain data for the group's attributes; `from_attributes` is the way back."""
        own = {
            name: spec.layout.to_dict()
            for name, spec in self.streams.items()
            if spec.layout.digest != self.layout.digest
        }
        data: dict[str, Any] = {
            "format": FORMAT,
            "format_version": self.version,
            "uuid": self.uuid,
            "layout": self.layout.to_dict(),
            "streams": list(self.streams),
            "metadata": to_plain(self.metadata, "`metadata`"),
        }
        if self.version > 1:
            data["tiers"] = {name: spec.coding.name for name, spec in self.streams.items()}
            data["layouts"] = own
            data["selection"] = self.selection.to_dict() if self.selection is not None else None
        return data

    @classmethod
    def from_attributes(cls, path: Path, attributes: Any) -> "Description":
        """The description of the store at `path`, from attributes that are not trusted.

        Raises:
            TrajectoryError: if it is no store, of another version, or damaged.
            LayoutError: if a layout is damaged.
        """
        if type(attributes) is not dict or attributes.get("format") != FORMAT:
            raise TrajectoryError(f"{path} is not a trajectory store: its `format` is not {FORMAT!r}. Check the path.")
        version = attributes.get("format_version")
        if type(version) is not int or version not in READABLE:
            raise TrajectoryError(
                f"{path} has format version {version!r:.80}, this release reads "
                f"{', '.join(map(str, READABLE))}. Use the release it was made with."
            )
        layout = Layout.from_dict(attributes.get("layout") or {})
        require_float32(layout)
        names = require_stream_names(attributes.get("streams"))
        metadata, identity = attributes.get("metadata"), attributes.get("uuid")
        if type(metadata) is not dict or type(identity) is not str:
            raise TrajectoryError(f"{path} lacks its metadata or uuid. Restore its zarr.json from a copy.")
        try:
            metadata = from_plain(metadata)
        except (TypeError, ValueError, RecursionError) as error:
            raise TrajectoryError(f"The metadata of {path} is damaged: {error}. Restore it from a copy.") from error
        tiers: Any = attributes.get("tiers", {}) if version > 1 else {}
        layouts: Any = attributes.get("layouts", {}) if version > 1 else {}
        if type(tiers) is not dict or type(layouts) is not dict or not {*tiers, *layouts} <= set(names):
            raise TrajectoryError(f"{path} has damaged `tiers` or `layouts`. Restore its zarr.json from a copy.")
        specs: dict[str, StreamSpec] = {}
        for name in names:
            own = Layout.from_dict(layouts[name]) if name in layouts else layout
            require_float32(own)
            specs[name] = StreamSpec(name, own, coding_of(tiers.get(name, "float32")))
        selection = _selection(path, attributes.get("selection") if version > 1 else None, layout)
        return cls(version, identity, layout, specs, metadata, selection)


def _selection(path: Path, data: Any, layout: Layout) -> Selection | None:
    if data is None:
        return None
    try:
        network = Layout.from_dict(data["network"])
        patterns, seed = tuple(str(item) for item in data["patterns"]), int(data["seed"])
        if data["sampled"]:
            found = Selection.from_coordinates(network, read_index(path / INDEX, layout.size), patterns, seed)
        else:
            found = Selection.choose(network, patterns, None, seed)
    except (KeyError, TypeError, ValueError) as error:
        raise TrajectoryError(f"The selection of {path} is damaged: {error}. Restore it from a copy.") from error
    if found.layout.digest != layout.digest:
        raise TrajectoryError(f"The selection of {path} does not give its layout. Restore zarr.json from a copy.")
    return found


def read_index(folder: Path, size: int) -> NDArray[np.int64]:
    """The coordinates of a sample, `[param]`.

    Raises:
        TrajectoryError: if there are not as many as the layout says.
    """
    path = folder / "c" / "0"
    found = path.stat().st_size if path.is_file() else None
    if found != size * _INDEX_TYPE.itemsize:
        raise TrajectoryError(
            f"{path} must have {size * _INDEX_TYPE.itemsize} bytes, got {'no file' if found is None else found}. "
            "Restore it from a copy."
        )
    return np.fromfile(path, _INDEX_TYPE).astype(np.int64)


def create_store(folder: Path, about: Description) -> None:
    """Make the group and the arrays of a store, empty."""
    create_group(folder, about.to_attributes())
    if about.selection is not None and about.selection.coordinates is not None:
        path = create_index(folder / INDEX, about.layout.size)
        about.selection.coordinates.astype(_INDEX_TYPE).tofile(path)
    for name, spec in about.streams.items():
        create_array(folder / name, spec.layout.size, spec.coding, row_chunks(spec.layout.size))


def num_row_bytes(size: int, tier: Tier) -> int:
    """Bytes that a row of so many coordinates takes on disk, padding included; before compression."""
    chunk = row_chunks(size).coordinates
    return math.ceil(size / chunk) * chunk * coding_of(tier).dtype.itemsize

"""One recorded vector over time, and what may enter it."""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import LayoutError, TrajectoryError
from .layout import Layout
from .records import Series
from .tiers import Tier
from .zarr_rows import RowFiles

MAX_STREAMS = 64
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
Rows = slice | Sequence[int] | NDArray[np.integer]


class Stream:
    """One recorded vector over time; a view that grows with its trajectory. Made by `Trajectory.stream`.

    `stream[3]` is a row, `[param]`; `stream[2:5]` and `stream[[0, 7]]` are rows, `[time, param]`; float32, fresh
    memory. Lengths of files are checked on every read, their content by `Trajectory.verify` only.

    Attributes:
        name: its name.
        layout: what its coordinates mean.
        tier: how its numbers are stored; in `bfloat16`, what is read is what rounding left.
    """

    def __init__(self, name: str, series: Series, files: RowFiles, layout: Layout, tier: Tier = "float32") -> None:
        self.name = name
        self.layout = layout
        self.tier: Tier = tier
        self._series = series
        self._files = files
        self._size = layout.size

    def __len__(self) -> int:
        return len(self._series)

    @property
    def steps(self) -> NDArray[np.int64]:
        """The optimiser step after which each row was taken, `[time]`.

        They increase; one repeats only where a breaking event lies between.
        """
        return np.array(self._series.steps, dtype=np.int64)

    @property
    def segments(self) -> list[slice]:
        """Maximal runs of rows with no breaking event between them, in the order in which things were appended.

        So a row that was appended after the event belongs to the next segment even if it is of the same step.
        """
        return self._series.segments

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, rows: "int | np.integer | Rows") -> NDArray[np.float32]:
        return self.read(rows, 0, self._size)

    def read(self, rows: "int | np.integer | Rows", start: int, stop: int) -> NDArray[np.float32]:
        """A range of coordinates of one row, `[param]`, or of several, `[time, param]`; only those are read.

        Args:
            rows: an int, a slice, or a sequence of ints; negative ones count from the end.
            start: the first coordinate.
            stop: one past the last coordinate.

        Raises:
            TrajectoryError: if there is no such row or range, or a file is missing or of the wrong length.
        """
        if not 0 <= start <= stop <= self._size:
            raise TrajectoryError(f"Coordinates must lie within 0 and {self._size}, got {start} to {stop}.")
        if isinstance(rows, slice):
            numbers: Sequence[int] = range(len(self))[rows]
        else:
            asked = np.asarray(rows)
            if asked.ndim > 1 or (asked.dtype.kind not in "iu" and asked.size):
                raise TrajectoryError(
                    f"Rows must be an int, a slice or a sequence of ints, got {asked.dtype} of shape {asked.shape}."
                )
            numbers = [self._row(int(row)) for row in asked.reshape(-1)]
            if asked.ndim == 0:
                return self._files.read(numbers, start, stop)[0]
        return self._files.read(numbers, start, stop)

    def _row(self, row: int) -> int:
        if not -len(self) <= row < len(self):
            raise TrajectoryError(f"Stream {self.name!r} has {len(self)} rows, row {row} was asked for.")
        return row % len(self)


def to_row(vector: Any, name: str, layout: Layout) -> NDArray[np.float32]:
    """A vector as contiguous little-endian float32 of numpy, without a copy where it is that already."""
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported it
    if torch is not None and isinstance(vector, torch.Tensor):
        dtype = str(vector.dtype).removeprefix("torch.")
    elif isinstance(vector, np.ndarray):
        dtype = vector.dtype.name
    else:
        raise LayoutError(f"Stream {name!r} takes a vector of numpy or torch, got {type(vector).__name__}.")
    if tuple(vector.shape) != (layout.size,) or dtype != "float32":
        raise LayoutError(
            f"Stream {name!r} takes vectors of shape ({layout.size},) and type float32, got {tuple(vector.shape)} "
            f"and {dtype}."
        )
    if not isinstance(vector, np.ndarray):
        vector = vector.detach().cpu().numpy()
    return np.ascontiguousarray(vector, dtype="<f4")


def require_float32(layout: Layout) -> None:
    """Check that rows of a layout are float32 and not empty."""
    wide = [spec.name for spec in layout if spec.dtype == "float64"]
    if wide:
        raise LayoutError(f"Trajectories hold float32, got float64 for {wide[0]!r}. Use `module.float()`.")
    if layout.size < 1:
        raise LayoutError("The layout must have at least one coordinate.")


def require_stream_names(streams: Any) -> tuple[str, ...]:
    """Names of streams, checked: they become names of folders."""
    if isinstance(streams, str) or not isinstance(streams, Sequence) or not 1 <= len(streams) <= MAX_STREAMS:
        raise TrajectoryError(f"`streams` must be a sequence of 1 to {MAX_STREAMS} names, got {streams!r:.80}.")
    for name in streams:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise TrajectoryError(
                f"Streams must be named by small letters, digits and underscores, a letter first, got {name!r:.80}."
            )
        if name == "coordinates":
            raise TrajectoryError("No stream may be named 'coordinates': the store keeps those of a sample there.")
    if len(set(streams)) != len(streams):
        raise TrajectoryError(f"Streams must differ in name, got {list(streams)}.")
    return tuple(streams)

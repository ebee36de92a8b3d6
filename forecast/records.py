"""What happened when: the steps of every row, the scalars and the events of a run, in the order of their commits."""

import operator
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from .commit_log import from_plain, to_plain
from .errors import TrajectoryError

MAX_NAME = 256


@dataclass(frozen=True)
class Event:
    """Something that happened to a run at an optimiser step: a jump, a resume, a changed schedule.

    Attributes:
        kind: what it was.
        step: the optimiser step after which it happened.
        breaks: whether it tore the curve, so that no window may span it.
        details: plain JSON values.
    """

    kind: str
    step: int
    breaks: bool
    details: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Scalars:
    """One recorded number over time.

    Attributes:
        steps: optimiser steps, `[time]`, int64. They increase; one repeats only where a breaking event lies between.
        values: `[time]`, float64.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype) if copy else np.asarray(self.values, dtype=dtype)


@dataclass(frozen=True)
class Commit:
    """One `append`: the rows and scalars that were committed together.

    Attributes:
        step: optimiser step.
        rows: by stream, the CRC-32 of the row's bytes.
        scalars: by name.
    """

    step: int
    rows: Mapping[str, int]
    scalars: Mapping[str, float]


@dataclass
class Series:
    """Steps and values of one stream (values: CRC-32 of the row) or one scalar."""

    values: "array[Any]"
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    breaks: list[int] = field(default_factory=list)  # a breaking event lies before the entry of each of these numbers

    def __len__(self) -> int:
        return len(self.steps)

    def require_later(self, step: int, what: str) -> None:
        """Check that an entry at `step` may come next.

        Raises:
            TrajectoryError: if not.
        """
        if not self.steps or step > self.steps[-1]:
            return
        if step == self.steps[-1] and self.breaks and self.breaks[-1] == len(self):
            return  # a jump at step 100, then the jumped weights, also of step 100
        raise TrajectoryError(
            f"Steps of {what} must increase, got {step} after {self.steps[-1]}. To go back, use `Trajectory.resume`."
        )

    def append(self, step: int, value: float) -> None:
        """Take in an entry that `require_later` let pass."""
        self.steps.append(step)
        self.values.append(value)

    def note_break(self) -> None:
        """Let a breaking event lie before the next entry."""
        if not self.breaks or self.breaks[-1] != len(self):
            self.breaks.append(len(self))

    @property
    def segments(self) -> list[slice]:
        """Maximal runs of entries with no breaking event between them."""
        ends = [*self.breaks, len(self)]
        starts = [0, *self.breaks]
        return [slice(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


class ScalarTable(Mapping[str, Scalars]):
    """Scalars by name, as they are at the time of the look-up."""

    def __init__(self, series: Mapping[str, Series]) -> None:
        self._series = series

    @override
    def __getitem__(self, name: str) -> Scalars:
        if name not in self._series:
            raise KeyError(f"No scalar named {name!r}. There are: {', '.join(self._series) or 'none'}.")
        series = self._series[name]
        return Scalars(np.array(series.steps, dtype=np.int64), np.array(series.values, dtype=np.float64))

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    @override
    def __len__(self) -> int:
        return len(self._series)


class Records:
    """The state that a commit log adds up to.

    Args:
        streams: names of the streams.
    """

    def __init__(self, streams: Sequence[str]) -> None:
        self.streams = {name: Series(array("Q")) for name in streams}
        self.scalars: dict[str, Series] = {}
        self.events: list[Event] = []
        self.last_step = 0

    def clear(self) -> None:
        """Forget everything, in place, so that streams handed out earlier see what is read next."""
        for series in self.streams.values():
            del series.steps[:], series.values[:], series.breaks[:]
        self.scalars.clear()
        self.events.clear()
        self.last_step = 0

    def require_fits(self, record: Commit | Event) -> None:
        """Check that a record may come next.

        Raises:
            TrajectoryError: if its step lies before the last one, or does not increase within a stream or scalar, or
                a stream is unknown, or a name is impossible.
        """
        if record.step < self.last_step:
            raise TrajectoryError(
                f"Steps must not decrease, got {record.step} after {self.last_step}. "
                "To go back, use `Trajectory.resume`."
            )
        if isinstance(record, Event):
            _require_name(record.kind, "The kind of an event")
            return
        if not record.rows and not record.scalars:
            raise TrajectoryError(f"Nothing to append at step {record.step}: give streams, scalars, or both.")
        for name in record.rows:
            if name not in self.streams:
                raise TrajectoryError(f"No stream named {name!r}. There are: {', '.join(self.streams)}.")
            self.streams[name].require_later(record.step, f"stream {name!r}")
        for name in record.scalars:
            _require_name(name, "The name of a scalar")
            if name in self.scalars:
                self.scalars[name].require_later(record.step, f"scalar {name!r}")

    def add(self, record: Commit | Event) -> None:
        """Take in a record that fits."""
        self.last_step = record.step
        if isinstance(record, Event):
            self.events.append(record)
            if record.breaks:
                for series in (*self.streams.values(), *self.scalars.values()):
                    series.note_break()
            return
        for name, crc in record.rows.items():
            self.streams[name].append(record.step, crc)
        for name, value in record.scalars.items():
            self.scalars.setdefault(name, Series(array("d"))).append(record.step, value)

    def to_payload(self, record: Commit | Event) -> dict[str, Any]:
        """A record that fits next, as a line of the log; `from_payload` is the way back."""
        if isinstance(record, Event):
            details = to_plain(record.details, "Details of an event")
            return {"step": record.step, "event": record.kind, "breaks": record.breaks, "details": details}
        rows = {name: [len(self.streams[name]), crc] for name, crc in record.rows.items()}
        return {"step": record.step, "rows": rows, "scalars": to_plain(record.scalars, "Scalars")}

    def from_payload(self, payload: Any) -> Commit | Event:
        """The record of one line of the log, treated as untrusted.

        Raises:
            TrajectoryError: if it is none, or cannot come next.
        """
        try:
            record = self._parse(payload)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise TrajectoryError(f"Not a record: {error}.") from error
        self.require_fits(record)
        return record

    def _parse(self, payload: Any) -> Commit | Event:
        payload = _require_dict(payload)
        step = require_step(payload["step"])
        if "event" in payload:
            if type(payload["breaks"]) is not bool:
                raise TypeError("`breaks` must be true or false")
            return Event(payload["event"], step, payload["breaks"], from_plain(_require_dict(payload["details"])))
        rows: dict[str, int] = {}
        for name, entry in _require_dict(payload["rows"]).items():
            row, crc = entry
            if type(crc) is not int or not 0 <= crc < 2**32:
                raise ValueError(f"impossible CRC {crc!r}")
            if name in self.streams and row != len(self.streams[name]):
                raise ValueError(f"row {row!r} of stream {name!r} where {len(self.streams[name])} must follow")
            rows[name] = crc
        scalars = _require_dict(payload["scalars"])
        return Commit(step, rows, {name: require_scalar(from_plain(x), name) for name, x in scalars.items()})


def _require_dict(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise TypeError(f"a dictionary was expected, got {type(value).__name__}")
    return value


def require_step(step: object) -> int:
    """An optimiser step as an int.

    Raises:
        TrajectoryError: if it is not a whole number of at least 0.
    """
    if isinstance(step, bool) or not isinstance(step, int | np.integer) or not 0 <= step < 2**63:
        raise TrajectoryError(f"`step` must be a whole number of at least 0, got {step!r}.")
    return operator.index(step)


def require_scalar(value: object, name: str) -> float:
    """A scalar as a float; NaN and infinities are facts and stay.

    Raises:
        TrajectoryError: if it is not a number that a float can hold.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TrajectoryError(
            f"Scalar {name!r} must be a float or int, got {type(value).__name__}. Tensors: use `.item()`."
        )
    try:
        return float(value)
    except OverflowError:
        raise TrajectoryError(f"Scalar {name!r} is too large for a float.") from None


def _require_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME:
        raise TrajectoryError(f"{what} must be a string of 1 to {MAX_NAME} characters, got {name!r:.80}.")

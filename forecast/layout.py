"""What the numbers in a flat parameter vector mean."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from .errors import LayoutError

Kind = Literal["weight", "convolution", "bias", "norm", "embedding", "other"]
DTYPES = ("float32", "bfloat16", "float16", "float64")
MAX_SIZE = 2**40  # coordinates; a layout that claims more is damaged or hostile, never real


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a layout.

    Attributes:
        name: the parameter's name in its module, without `torch.compile`'s prefix.
        shape: its shape; `()` for a scalar.
        dtype: its own type, as in `torch.float32` without the `torch.`.
        offset: where its first element lies in the flat vector.
        kind: what it is for, as far as the module that owns it tells.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    kind: Kind

    @property
    def numel(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)

    @property
    def span(self) -> slice:
        """The coordinates of the flat vector that belong to this tensor."""
        return slice(self.offset, self.offset + self.numel)


@dataclass(frozen=True)
class Layout:
    """Ordered description of all trainable tensors of a network, tied parameters once.

    Two layouts with the same names, shapes and types in the same order have the same `digest`; it is stored with every
    trajectory, checkpoint and packet, and compared on load. `kind` is a remark for people and for per-kind models and
    is not part of the digest.

    Raises:
        LayoutError: if names repeat, offsets leave gaps, or a shape, type or kind is impossible.
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        offset = 0
        for spec in self.tensors:
            if spec.name in seen:
                raise LayoutError(f"Tensor names must differ, got {spec.name!r} twice.")
            if any(extent < 0 for extent in spec.shape):
                raise LayoutError(f"Extents must be at least 0, got {spec.shape} for {spec.name!r}.")
            if spec.dtype not in DTYPES:
                raise LayoutError(f"`dtype` must be one of {DTYPES}, got {spec.dtype!r} for {spec.name!r}.")
            if spec.kind not in get_args(Kind):
                raise LayoutError(f"`kind` must be one of {get_args(Kind)}, got {spec.kind!r} for {spec.name!r}.")
            if spec.offset != offset:
                raise LayoutError(f"`offset` of {spec.name!r} must be {offset}, got {spec.offset}.")
            seen.add(spec.name)
            offset += spec.numel
            if offset > MAX_SIZE:
                raise LayoutError(f"A layout holds at most {MAX_SIZE} coordinates, got at least {offset}.")

    def __iter__(self) -> Iterator[TensorSpec]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, name: str) -> TensorSpec:
        try:
            return self._by_name[name]
        except KeyError:
            raise LayoutError(f"No tensor named {name!r}. There are: {', '.join(self._by_name)}.") from None

    @cached_property
    def _by_name(self) -> dict[str, TensorSpec]:
        return {spec.name: spec for spec in self.tensors}

    @cached_property
    def size(self) -> int:
        """Number of coordinates of the flat vector."""
        return sum(spec.numel for spec in self.tensors)

    @property
    def names(self) -> tuple[str, ...]:
        """Tensor names in order."""
        return tuple(spec.name for spec in self.tensors)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of names, shapes and types in order."""
        text = json.dumps([[spec.name, list(spec.shape), spec.dtype] for spec in self.tensors], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def slice(self, start: int, stop: int) -> "Layout":
        """The layout of the coordinates `start` to `stop`: whole tensors stay, cut ones become flat pieces.

        A piece is named `name[first:last]`, with the positions inside its tensor. Used for shards.

        Raises:
            LayoutError: if the range does not lie inside the layout.
        """
        if not 0 <= start <= stop <= self.size:
            raise LayoutError(f"Range must lie within 0 and {self.size}, got {start} to {stop}.")
        pieces: list[TensorSpec] = []
        for spec in self.tensors:
            first, last = max(start, spec.offset), min(stop, spec.offset + spec.numel)
            if first >= last:
                continue
            whole = last - first == spec.numel
            name = spec.name if whole else f"{spec.name}[{first - spec.offset}:{last - spec.offset}]"
            shape = spec.shape if whole else (last - first,)
            pieces.append(TensorSpec(name, shape, spec.dtype, first - start, spec.kind))
        return Layout(tuple(pieces))

    def require_same(self, other: "Layout", what: str) -> None:
        """Check that `other` describes the same vector.

        Args:
            other: the layout that was found.
            what: what carries it, for the message, e.g. `"the trajectory"`.

        Raises:
            LayoutError: naming the first tensor that differs.
        """
        if self.digest == other.digest:
            return
        for mine, theirs in zip(self.tensors, other.tensors, strict=False):
            if (mine.name, mine.shape, mine.dtype) != (theirs.name, theirs.shape, theirs.dtype):
                raise LayoutError(
                    f"The layout of {what} differs: expected {mine.name!r} {mine.shape} {mine.dtype}, "
                    f"got {theirs.name!r} {theirs.shape} {theirs.dtype}. Use the network it was made with."
                )
        raise LayoutError(f"The layout of {what} differs: expected {len(self)} tensors, got {len(other)}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is the way back."""
        return {
            "digest": self.digest,
            "tensors": [
                {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype, "kind": spec.kind}
                for spec in self.tensors
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Layout":
        """Rebuild a layout from `to_dict`'s result, treating it as untrusted.

        Raises:
            LayoutError: if it is not such a result or its digest does not fit.
        """
        specs: list[TensorSpec] = []
        offset = 0
        try:
            for entry in data["tensors"]:
                shape = tuple(entry["shape"])
                if not all(type(extent) is int for extent in shape):
                    raise TypeError("extents must be whole numbers")
                spec = TensorSpec(str(entry["name"]), shape, entry["dtype"], offset, entry["kind"])
                specs.append(spec)
                offset += spec.numel
            digest = data["digest"]
        except (KeyError, TypeError) as error:
            raise LayoutError(f"Not a stored layout: {error}.") from error
        layout = cls(tuple(specs))
        if layout.digest != digest:
            raise LayoutError(f"The stored layout is damaged: its digest is {layout.digest}, it says {digest}.")
        return layout

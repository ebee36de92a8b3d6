"""How exactly and how tightly a stream's numbers are stored: as they are, compressed without loss, or in bfloat16."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from .errors import TrajectoryError

Tier = Literal["float32", "lossless", "bfloat16"]
MAX_OVERHEAD = 16  # bytes that Blosc adds to data that it cannot compress
ROUNDING_LIMIT = 0.1  # of an update's norm; what rounding may take of it before a warning is due


class Coding(ABC):
    """Between a row of float32 and the chunks that hold it.

    Attributes:
        name: the tier's.
        data_type: of the stored numbers, in Zarr's words; little-endian.
        compressed: whether a chunk is compressed, so that it can be read as a whole only.
        fill: what Zarr shows where there is no chunk: a NaN.
    """

    name: ClassVar[Tier]
    data_type: ClassVar[str]
    compressed: ClassVar[bool] = False
    fill: ClassVar[float | int] = float("nan")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the stored numbers."""
        return np.dtype(self.data_type).newbyteorder("<")

    @abstractmethod
    def to_stored(self, vector: NDArray[np.float32]) -> NDArray[Any]:
        """The numbers to store, `[param]`; rounded where the tier rounds."""

    @abstractmethod
    def from_stored(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """The float32 that stored numbers stand for, in any shape."""

    def compress(self, values: NDArray[Any]) -> bytes | memoryview:
        """The bytes of a chunk."""
        return values.view(np.uint8).data

    def decompress(self, data: bytes, out: NDArray[Any]) -> None:
        """Fill `out`, one chunk's numbers, from the bytes of a compressed chunk, which are not trusted.

        Raises:
            TrajectoryError: if they are no such chunk.
        """
        raise TrajectoryError(f"The tier {self.name!r} is not compressed.")


@final
class Float32(Coding):
    """Numbers as they are: exact, and the fastest to write and to read in part."""

    name = "float32"
    data_type = "float32"

    @override
    def to_stored(self, vector: NDArray[np.float32]) -> NDArray[Any]:
        return vector

    @override
    def from_stored(self, values: NDArray[Any]) -> NDArray[np.float32]:
        return values.astype(np.float32, copy=False)


@final
class Lossless(Coding):
    """Exact and compressed: Blosc with bit shuffling and zstd, level 1.

    Weights and gradients become about a tenth smaller; zeros, as of frozen or unused parameters, nearly vanish. Costs
    several times the processor time of writing as it is, and a read of a few coordinates reads whole chunks.
    """

    name = "lossless"
    data_type = "float32"
    compressed = True

    @override
    def to_stored(self, vector: NDArray[np.float32]) -> NDArray[Any]:
        return vector

    @override
    def from_stored(self, values: NDArray[Any]) -> NDArray[np.float32]:
        return values.astype(np.float32, copy=False)

    @override
    def compress(self, values: NDArray[Any]) -> bytes:
        from numcodecs import Blosc  # comes with zarr; readers of other tiers do without

        return bytes(Blosc(cname="zstd", clevel=1, shuffle=Blosc.BITSHUFFLE).encode(values))

    @override
    def decompress(self, data: bytes, out: NDArray[Any]) -> None:
        from numcodecs import Blosc

        # Blosc's header says how long the content is; believed only if it is what fits.
        told = (int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little"))
        if len(data) < MAX_OVERHEAD or told != (out.nbytes, len(data)):
            raise TrajectoryError(f"it says that it unpacks to {told[0]} bytes, {out.nbytes} belong there")
        try:
            Blosc().decode(data, out)
        except (RuntimeError, ValueError) as error:
            raise TrajectoryError(f"it cannot be unpacked ({error})") from error


@final
class Bfloat16(Coding):
    """Rounded to bfloat16, the nearest and on ties the even one: half the bytes, a relative error up to 2^-9.

    Stored as the upper 16 bits in uint16, since zarr-python has no such type. Not for weights whose differences matter:
    rounding took 20 to 33 % of a one-step update and 3 to 5 % of a ten-step one, measured on a multilayer perceptron
    of 0.67 million parameters; see `lost_to_rounding`.
    """

    name = "bfloat16"
    data_type = "uint16"
    fill = 0x7FC0

    @override
    def to_stored(self, vector: NDArray[np.float32]) -> NDArray[Any]:
        bits = np.ascontiguousarray(vector, dtype="<f4").view("<u4")
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        # A NaN must not be rounded into an infinity, nor wrap around.
        is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        rounded = np.where(is_nan, bits | np.uint32(0x00400000), rounded)
        return (rounded >> np.uint32(16)).astype("<u2")

    @override
    def from_stored(self, values: NDArray[Any]) -> NDArray[np.float32]:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)


CODINGS: dict[str, Coding] = {coding.name: coding for coding in (Float32(), Lossless(), Bfloat16())}


def coding_of(tier: object) -> Coding:
    """The coding of a tier.

    Raises:
        TrajectoryError: if there is none of that name.
    """
    if not isinstance(tier, str) or tier not in CODINGS:
        raise TrajectoryError(f"`tier` must be one of {tuple(CODINGS)}, got {tier!r:.80}.")
    return CODINGS[tier]


def lost_to_rounding(coding: Coding, before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """How much of the step from one row to the next the tier's rounding takes: ||stored - after|| / ||after - before||.

    0 where the step is zero or nothing is rounded.
    """
    error = np.linalg.norm(coding.from_stored(coding.to_stored(after)) - after)
    moved = np.linalg.norm(after - before)
    return float(error / moved) if np.isfinite(error) and moved > 0 else 0.0

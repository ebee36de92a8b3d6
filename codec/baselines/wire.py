"""How baselines write their packets: floats, fields of a few bits, and entropy-coded symbols with their tables."""

from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from ..errors import EncodeError, PacketError
from ..varint import read_varint, write_varint

_stream = constriction.stream  # pyright: ignore[reportAttributeAccessIssue]  # a submodule without a stub

_TABLE_BITS = 14  # finer costs more for the table than it saves; a symbol that occurs gets at least 2^-14

# Whole numbers of magnitude up to 14 are symbols by themselves. Beyond, x = |v| - 14 has a symbol for its sign and for
# b = floor(log2 x), and its b lower bits follow as they are, at most 16 at a time.
_MAX_DIRECT = 14
_NUM_DIRECT = 2 * _MAX_DIRECT + 1
_NUM_BUCKETS = 31
_PIECE_BITS = 16


def write_floats(values: npt.ArrayLike) -> bytes:
    """Numbers as little-endian float32.

    Raises:
        EncodeError: if one is beyond float32.
    """
    with np.errstate(over="ignore"):
        narrow = np.asarray(values).astype("<f4")
    if not np.isfinite(narrow).all():
        raise EncodeError("The vector is so large that float32 cannot hold a number of its packet. Skip this step.")
    return narrow.tobytes()


def read_floats(data: bytes, start: int, count: int) -> tuple[npt.NDArray[np.float32], int]:
    """`count` numbers that `write_floats` wrote at `start`, and where the next part begins.

    Raises:
        PacketError: if the data end too early or a number is not finite.
    """
    stop = start + 4 * count
    values = np.frombuffer(take(data, start, stop), "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise PacketError("The packet is damaged: it holds NaN or infinity.")
    return values, stop


def take(data: bytes, start: int, stop: int) -> bytes:
    """`data[start:stop]`.

    Raises:
        PacketError: if the data end before `stop`.
    """
    if stop > len(data):
        raise PacketError(f"The packet is damaged: it has {len(data)} bytes, {stop} are due.")
    return data[start:stop]


def require_end(data: bytes, stop: int) -> None:
    """Check that nothing follows the last part.

    Raises:
        PacketError: if something does.
    """
    if len(data) != stop:
        raise PacketError(f"The packet is damaged: it has {len(data)} bytes, {stop} are due.")


def with_length(data: bytes) -> bytes:
    """The last part of a packet after its length: of many symbols, an ANS stream that lost a word may look whole."""
    return write_varint(len(data)) + data


def require_length(data: bytes, start: int) -> int:
    """Where the last part begins, which `with_length` made and wrote at `start`.

    Raises:
        PacketError: if the data do not end with it.
    """
    length, start = read_varint(data, start)
    require_end(data, start + length)
    return start


def write_fields(values: npt.NDArray[np.integer | np.bool_], width: int) -> bytes:
    """Whole numbers below 2^width, 1 to 8 bits each, highest bit first, padded with zeros to whole bytes."""
    bits = np.unpackbits(values.astype(np.uint8)[:, None], axis=1)[:, 8 - width :]
    return np.packbits(bits.reshape(-1)).tobytes()


def read_fields(data: bytes, start: int, count: int, width: int) -> tuple[npt.NDArray[np.uint8], int]:
    """`count` numbers that `write_fields` wrote at `start`, and where the next part begins.

    Raises:
        PacketError: if the data end too early or the padding is not zero.
    """
    stop = start + (count * width + 7) // 8
    bits = np.unpackbits(np.frombuffer(take(data, start, stop), np.uint8))
    if bits[count * width :].any():
        raise PacketError("The packet is damaged: its padding is not zero.")
    padded = np.zeros((count, 8), np.uint8)
    padded[:, 8 - width :] = bits[: count * width].reshape(count, width)
    return np.packbits(padded, axis=1).reshape(-1), stop


class SymbolWriter:
    """Collects runs of symbols, each with a table of its own, and writes them as one ANS stream after the tables.

    A table is the run's own frequencies in units of 2^-14: the first symbol that occurs, how many follow up to the last
    one, then the share of each but the last. Empty runs and raw bits have none.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[npt.NDArray[np.int32], Any]] = []
        self._tables = bytearray()

    def add(self, symbols: npt.NDArray[np.int32], num_symbols: int) -> None:
        """One more run: symbols from 0 to below `num_symbols`, which is at least 2."""
        if not len(symbols):
            return
        counts = np.bincount(symbols, minlength=num_symbols)
        shares = _shares(counts)
        present = np.flatnonzero(shares)
        first, last = int(present[0]), int(present[-1])
        for number in (first, last - first, *shares[first:last].tolist()):
            self._tables += write_varint(number)
        self._runs.append((np.ascontiguousarray(symbols, np.int32), _model(shares)))

    def add_integers(self, values: npt.NDArray[np.int64]) -> None:
        """One more run: whole numbers of magnitude below 2^31."""
        excess = np.abs(values) - _MAX_DIRECT
        large = np.flatnonzero(excess > 0)
        symbols = values + _MAX_DIRECT
        excess = excess[large]
        # The exponent of a float64, which holds every such integer: exact, unlike a logarithm.
        bucket = np.frexp(excess.astype(np.float64))[1].astype(np.int64) - 1
        symbols[large] = _NUM_DIRECT + 2 * bucket + (values[large] < 0)
        self.add(symbols.astype(np.int32), _NUM_DIRECT + 2 * _NUM_BUCKETS)
        for num_bits in np.unique(bucket).tolist():
            members = excess[bucket == num_bits]  # the pieces leave out its leading one
            for start, width in _pieces(num_bits):
                piece = (members >> start) & ((1 << width) - 1)
                self._runs.append((piece.astype(np.int32), _stream.model.Uniform(1 << width)))

    def finish(self) -> bytes:
        """All runs: the tables' length, the tables, the words."""
        coder = _stream.stack.AnsCoder()
        for symbols, model in reversed(self._runs):
            coder.encode_reverse(symbols, model)
        words = coder.get_compressed().astype("<u4").tobytes()
        return write_varint(len(self._tables)) + bytes(self._tables) + words


class SymbolReader:
    """Reads what `SymbolWriter` wrote, run by run, from `start` to the end of the data.

    Raises:
        PacketError: if the data are none of a `SymbolWriter`'s.
    """

    def __init__(self, data: bytes, start: int) -> None:
        length, start = read_varint(data, start)
        self._tables = take(data, start, start + length)
        self._place = 0
        words = data[start + length :]
        if len(words) % 4:
            raise PacketError("The packet is damaged: its entropy-coded part is not of whole words.")
        numbers = np.frombuffer(words, "<u4").astype(np.uint32)
        if len(numbers) and numbers[-1] == 0:
            raise PacketError("The packet is damaged: its entropy-coded part ends with an empty word.")
        self._coder = _stream.stack.AnsCoder(numbers)

    def read(self, count: int, num_symbols: int) -> npt.NDArray[np.int32]:
        """The next run, `[count]`; memory is bounded by `count` and the alphabet.

        Raises:
            PacketError: if its table is damaged.
        """
        if not count:
            return np.zeros(0, np.int32)
        first, stop = read_varint(self._tables, self._place)
        width, stop = read_varint(self._tables, stop)
        if first + width >= num_symbols:
            raise PacketError("The packet is damaged: a table names symbols that there are not.")
        shares = np.zeros(num_symbols, np.int64)
        left = 1 << _TABLE_BITS
        for symbol in range(first, first + width):
            share, stop = read_varint(self._tables, stop)
            left -= share
            if left < 1:
                raise PacketError("The packet is damaged: a table's shares do not add up.")
            shares[symbol] = share
        shares[first + width] = left
        self._place = stop
        return self._coder.decode(_model(shares), count)

    def read_integers(self, count: int) -> npt.NDArray[np.int64]:
        """The next run of `SymbolWriter.add_integers`, `[count]`.

        Raises:
            PacketError: if its table is damaged.
        """
        symbols = self.read(count, _NUM_DIRECT + 2 * _NUM_BUCKETS).astype(np.int64)
        values = symbols - _MAX_DIRECT
        bucket = (symbols - _NUM_DIRECT) >> 1
        for num_bits in np.unique(bucket[bucket >= 0]).tolist():
            places = np.flatnonzero(bucket == num_bits)
            magnitude = np.full(len(places), (1 << num_bits) + _MAX_DIRECT, np.int64)
            for start, width in _pieces(num_bits):
                model = _stream.model.Uniform(1 << width)
                magnitude += self._coder.decode(model, len(places)).astype(np.int64) << start
            values[places] = np.where((symbols[places] - _NUM_DIRECT) & 1, -magnitude, magnitude)
        return values

    def finish(self) -> None:
        """Check that all has been read.

        Raises:
            PacketError: if something is left.
        """
        if self._place != len(self._tables) or not self._coder.is_empty():
            raise PacketError("The packet is damaged: its entropy-coded part holds more than its symbols.")


def write_mask(mask: npt.NDArray[np.bool_], spans: tuple[slice, ...]) -> bytes:
    """Which coordinates are set: how many in each span, then one ANS stream of bits with that share in each.

    Takes n H(k / n) bits for k of n set, which no code of positions or gaps beats without knowing more.
    """
    counts = [int(np.count_nonzero(mask[span])) for span in spans]
    coder = _stream.stack.AnsCoder()
    for span, count in zip(reversed(spans), reversed(counts), strict=True):
        size = span.stop - span.start
        if 0 < count < size:
            coder.encode_reverse(mask[span].astype(np.int32), _bit_model(count, size))
    words = coder.get_compressed().astype("<u4").tobytes()
    return b"".join(map(write_varint, counts)) + write_varint(len(words) // 4) + words


def read_mask(data: bytes, start: int, size: int, spans: tuple[slice, ...]) -> tuple[npt.NDArray[np.bool_], int]:
    """The mask that `write_mask` wrote at `start`, `[size]`, and where the next part begins.

    Raises:
        PacketError: if it is none.
    """
    counts = []
    for span in spans:
        count, start = read_varint(data, start)
        if count > span.stop - span.start:
            raise PacketError("The packet is damaged: more coordinates are set than there are.")
        counts.append(count)
    num_words, start = read_varint(data, start)
    stop = start + 4 * num_words
    words = np.frombuffer(take(data, start, stop), "<u4").astype(np.uint32)
    if len(words) and words[-1] == 0:
        raise PacketError("The packet is damaged: its entropy-coded part ends with an empty word.")
    coder = _stream.stack.AnsCoder(words)
    mask = np.zeros(size, np.bool_)
    for span, count in zip(spans, counts, strict=True):
        length = span.stop - span.start
        if 0 < count < length:
            mask[span] = coder.decode(_bit_model(count, length), length) == 1
        else:
            mask[span] = count > 0
        if int(np.count_nonzero(mask[span])) != count:
            raise PacketError("The packet is damaged: its mask does not have as many coordinates as it says.")
    if not coder.is_empty():
        raise PacketError("The packet is damaged: its entropy-coded part holds more than its symbols.")
    return mask, stop


def _pieces(num_bits: int) -> list[tuple[int, int]]:
    """Start and width of each piece that so many bits are cut into."""
    return [(start, min(_PIECE_BITS, num_bits - start)) for start in range(0, num_bits, _PIECE_BITS)]


def _shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Frequencies in units of 2^-14, at least 1 for each symbol that occurs."""
    total = 1 << _TABLE_BITS
    present = counts > 0
    room = total - int(present.sum())
    shares = present + counts * room // int(counts.sum())
    shares[int(counts.argmax())] += total - int(shares.sum())
    return shares


def _model(shares: npt.NDArray[np.int64]) -> Any:
    return _stream.model.Categorical(shares / (1 << _TABLE_BITS), perfect=False)


def _bit_model(count: int, size: int) -> Any:
    return _stream.model.Categorical(np.array([size - count, count]) / size, perfect=False)

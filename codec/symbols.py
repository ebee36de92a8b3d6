"""Between quantised integers and the finite alphabet that is entropy-coded.

A value v with |v| <= 14 is a symbol by itself, v + 14. A larger one is an *escape*: with x = |v| - 14 >= 1 and
b = floor(log2 x), the symbol 29 + b, and b + 1 raw bits beside the entropy-coded stream: the sign (1 for negative),
then the b bits of x below its leading one, most significant first.
"""

import numpy as np
import numpy.typing as npt

from .errors import PacketError

MAX_DIRECT = 14
NUM_DIRECT = 2 * MAX_DIRECT + 1
NUM_BUCKETS = 31
NUM_SYMBOLS = NUM_DIRECT + NUM_BUCKETS
RAW_BITS = np.maximum(np.arange(NUM_SYMBOLS) - (NUM_DIRECT - 1), 0)  # that stand behind each symbol


def to_symbols(values: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Symbols of quantised values, and the values that are escapes, in order.

    Args:
        values: `[param]`, of magnitude below 2^31.

    Returns:
        `symbols`, `[param]`, and `escaped`, `[escape]`; `escape_bits` writes the latter.
    """
    places = np.flatnonzero(np.abs(values) > MAX_DIRECT)
    symbols = values + np.int32(MAX_DIRECT)  # may wrap for an escape, whose symbol is replaced below
    escaped = values[places].astype(np.int64)
    if len(places):
        symbols[places] = NUM_DIRECT + _bucket(np.abs(escaped) - MAX_DIRECT)
    return symbols, escaped


def escape_bits(escaped: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The raw bits of escapes, `[bit]`, each 0 or 1; `read_escapes` is the way back."""
    if not len(escaped):
        return np.zeros(0, np.uint8)
    excess = np.abs(escaped) - MAX_DIRECT
    bucket = _bucket(excess)
    word = (excess - (np.int64(1) << bucket)) | ((escaped < 0).astype(np.int64) << bucket)
    starts = np.cumsum(bucket + 1) - (bucket + 1)
    bits = np.empty(int((bucket + 1).sum()), np.uint8)
    for place in range(int(bucket.max()) + 1):
        here = bucket >= place
        bits[starts[here] + place] = (word[here] >> (bucket[here] - place)) & 1
    return bits


def num_escape_bits(symbols: npt.NDArray[np.int32]) -> int:
    """How many raw bits stand behind escape symbols, each at least `NUM_DIRECT`."""
    return int((symbols.astype(np.int64) - (NUM_DIRECT - 1)).sum())


def read_escapes(symbols: npt.NDArray[np.int32], data: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The escaped values behind symbols, in order.

    Args:
        symbols: escape symbols, `[escape]`, each at least `NUM_DIRECT`.
        data: exactly the packed bits of `escape_bits`, padded with zeros to whole bytes.

    Raises:
        PacketError: if the padding is not zero.
    """
    bucket = symbols.astype(np.int64) - NUM_DIRECT
    num_bits = num_escape_bits(symbols)
    bits = np.unpackbits(data)
    if bits[num_bits:].any():
        raise PacketError("The packet is damaged: the padding of its escape bits is not zero.")
    if not len(bucket):
        return np.zeros(0, np.int64)
    starts = np.cumsum(bucket + 1) - (bucket + 1)
    negative = bits[starts] == 1
    excess = np.ones(len(bucket), np.int64)
    for place in range(1, int(bucket.max()) + 1):
        here = bucket >= place
        excess[here] = (excess[here] << 1) | bits[starts[here] + place]
    magnitude = excess + MAX_DIRECT
    return np.where(negative, -magnitude, magnitude)


def _bucket(excess: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """floor(log2 excess), exactly: the exponent of a float64, which holds every such integer."""
    return np.frexp(excess.astype(np.float64))[1].astype(np.int64) - 1

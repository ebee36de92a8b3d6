"""Small whole numbers as bits: what a packet says beside its symbols."""

from .errors import PacketError

_MAX_PREFIX = 40  # zeros before a number's first one; no number in a packet is longer


class BitWriter:
    """Collects bits, first one in the top bit of the first byte."""

    def __init__(self) -> None:
        self._bits: list[int] = []

    def __len__(self) -> int:
        return len(self._bits)

    def write(self, value: int, width: int) -> None:
        """The low `width` bits of a number, highest first."""
        self._bits += [value >> place & 1 for place in reversed(range(width))]

    def write_number(self, value: int, order: int) -> None:
        """A whole number of either sign, most often within 2^order of 0.

        Exponential Golomb code (Teuhola 1978, Information Processing Letters 7:308) of the zigzag number: 2v, or
        -2v - 1 below zero.
        """
        coded = (2 * value if value >= 0 else -2 * value - 1) + (1 << order)
        length = coded.bit_length()
        self.write(0, length - order - 1)
        self.write(coded, length)

    def to_bytes(self) -> bytes:
        """All bits, padded with zeros to whole bytes."""
        padded = self._bits + [0] * (-len(self._bits) % 8)
        return bytes(
            sum(bit << 7 - place for place, bit in enumerate(padded[start : start + 8]))
            for start in range(0, len(padded), 8)
        )


class BitReader:
    """Reads what a `BitWriter` wrote.

    Args:
        data: bytes that begin with those bits.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def read(self, width: int) -> int:
        """The next `width` bits as a number.

        Raises:
            PacketError: if the data end first.
        """
        if self._place + width > 8 * len(self._data):
            raise PacketError("The packet is damaged: it ends within its parameters.")
        value = 0
        for place in range(self._place, self._place + width):
            value = value << 1 | self._data[place // 8] >> 7 - place % 8 & 1
        self._place += width
        return value

    def read_number(self, order: int) -> int:
        """The inverse of `BitWriter.write_number`.

        Raises:
            PacketError: if the data end first, or the number is longer than any in a packet.
        """
        prefix = 0
        while not self.read(1):
            prefix += 1
            if prefix > _MAX_PREFIX:
                raise PacketError("The packet is damaged: a number is too long.")
        coded = (1 << prefix + order | self.read(prefix + order)) - (1 << order)
        return -(coded + 1 >> 1) if coded & 1 else coded >> 1

    def finish(self) -> bytes:
        """The bytes after the last bit that was read.

        Raises:
            PacketError: if the bits between are not zero.
        """
        if self.read(-self._place % 8):
            raise PacketError("The packet is damaged: the padding of its parameters is not zero.")
        return self._data[self._place // 8 :]

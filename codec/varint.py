"""Whole numbers of variable length."""

from .errors import PacketError


def write_varint(value: int) -> bytes:
    """A whole number of at least 0 as LEB128: seven bits a byte, lowest first, the top bit set on all but the last."""
    parts = bytearray()
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """The number that `write_varint` wrote at `start`, below 2^63, and where the next part begins.

    Raises:
        PacketError: if the data end too early, or the number is too long or not in its shortest form.
    """
    value = 0
    for place in range(9):
        if start + place >= len(data):
            raise PacketError("The packet is damaged: it ends within a number.")
        byte = data[start + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            if byte == 0 and place:
                raise PacketError("The packet is damaged: a number is not in its shortest form.")
            return value, start + place + 1
    raise PacketError("The packet is damaged: a number is too long.")

"""The frame around a coded vector: header, checksum, message authentication. `docs/packet-format.md` describes it."""

import hashlib
import hmac
import importlib.metadata
import platform
import zlib
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from .errors import PacketError
from .varint import read_varint, write_varint

MAGIC = b"DR"
FORMAT_VERSION = 1
STATE_DIGEST_EVERY = 64  # packets; a digest costs a pass over the state, 8 ms for a million coordinates and two vectors

KEY_FRAME, RAW, NOT_FINITE, STATE_DIGEST, AUTHENTICATED = 1, 2, 4, 8, 16
ALL_FLAGS = KEY_FRAME | RAW | NOT_FINITE | STATE_DIGEST | AUTHENTICATED

_FIXED = 2 + 1 + 1 + 1 + 4 + 8 + 4 + 8
_CHECKSUM_BYTES = 4
_MAC_BYTES = 16
MAX_STEP = 2**62


class Link(NamedTuple):
    """What a packet must agree with besides the state: who codes what, and how.

    Attributes:
        coder: the coder's number, `LATTICE_CODERS`.
        config: digest of the configuration, 4 bytes.
        layout: digest of the layout, 8 bytes.
        stream: digest of the stream's name, 4 bytes.
    """

    coder: int
    config: bytes
    layout: bytes
    stream: bytes

    @property
    def identity(self) -> bytes:
        """All of it, 17 bytes; what saved states and peers are compared by."""
        return bytes([self.coder]) + self.config + self.layout + self.stream

    @property
    def chain(self) -> bytes:
        """What the chain of digests begins with, 16 bytes."""
        return hashlib.blake2b(MAGIC + bytes([FORMAT_VERSION]) + self.identity, digest_size=16).digest()


class Header(NamedTuple):
    """What a packet says about itself.

    Attributes:
        flags: sum of the flags above.
        step: the optimiser step of its vector.
        sequence: its number on this link.
        chain: the first 8 bytes of the state's chain before it.
        state: digest of the float state before it and the sender's fingerprint, where flagged.
    """

    flags: int
    step: int
    sequence: int
    chain: bytes
    state: tuple[bytes, bytes] | None = None


@cache
def fingerprint() -> bytes:
    """Digest of what floating-point results may depend on, 8 bytes: library versions, processor, device kind."""
    parts = [torch.__version__, np.__version__, importlib.metadata.version("constriction")]
    parts += [platform.machine(), platform.system(), "cpu"]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()


def write_packet(header: Header, body: bytes, link: Link, key: bytes | None) -> bytes:
    """A packet's bytes."""
    flags = header.flags | (STATE_DIGEST if header.state else 0) | (AUTHENTICATED if key is not None else 0)
    parts = [MAGIC, bytes([FORMAT_VERSION, flags, link.coder]), link.config, link.layout, link.stream, header.chain]
    parts += [write_varint(header.step), write_varint(header.sequence), write_varint(len(body))]
    parts += [*(header.state or ()), body]
    packet = b"".join(parts)
    if key is not None:
        packet += _mac(packet, key)
    return packet + zlib.crc32(packet).to_bytes(_CHECKSUM_BYTES, "little")


def read_packet(packet: bytes, link: Link, key: bytes | None) -> tuple[Header, bytes]:
    """Header and body of a packet, once everything that does not need the state has been checked.

    Raises:
        PacketError: naming what is wrong.
    """
    if len(packet) < _FIXED + 3 + _CHECKSUM_BYTES:
        raise PacketError(f"The packet is cut: {len(packet)} bytes cannot hold a header.")
    if packet[:2] != MAGIC:
        raise PacketError(f"Not a packet: it begins with {packet[:2].hex()}, not {MAGIC.hex()}.")
    if packet[2] != FORMAT_VERSION:
        raise PacketError(
            f"The packet has format version {packet[2]}, this codec reads {FORMAT_VERSION}. "
            "It is damaged, or the two ends run different versions: install the same one."
        )
    if zlib.crc32(packet[:-_CHECKSUM_BYTES]) != int.from_bytes(packet[-_CHECKSUM_BYTES:], "little"):
        raise PacketError("The packet is damaged: its checksum does not fit. Have it sent again.")
    flags, coder = packet[3], packet[4]
    if flags & ~ALL_FLAGS:
        raise PacketError(f"The packet has unknown flags {flags & ~ALL_FLAGS:#x}.")
    content = _authenticated(packet[:-_CHECKSUM_BYTES], flags, key)
    _compare("coder", bytes([coder]), bytes([link.coder]), "Use the same lattice on both ends.")
    _compare("configuration", content[5:9], link.config, "Use equal `CodecConfig`s on both ends.")
    _compare("layout", content[9:17], link.layout, "Both ends must code vectors of the same network.")
    _compare("stream", content[17:21], link.stream, "Use the same `stream` on both ends.")
    chain = content[21:29]
    step, place = read_varint(content, _FIXED)
    sequence, place = read_varint(content, place)
    length, place = read_varint(content, place)
    state = None
    if flags & STATE_DIGEST:
        state = content[place : place + 8], content[place + 8 : place + 16]
        place += 16
    if place + length != len(content):
        raise PacketError(
            f"The packet has {len(content) - place} bytes of body, its header says {length}. Cut or extended?"
        )
    if step > MAX_STEP or sequence >= 2**32:
        raise PacketError(f"The packet has step {step} and number {sequence}, which are out of range.")
    return Header(flags, step, sequence, chain, state), content[place:]


def _authenticated(content: bytes, flags: int, key: bytes | None) -> bytes:
    """The packet's content without its code, once that has been checked."""
    if (key is not None) != bool(flags & AUTHENTICATED):
        raise PacketError(
            "The packet is not authenticated, this codec has a key. Give the sender the key."
            if key is not None
            else "The packet is authenticated, this codec has no key. Make it with `key=`."
        )
    if key is None:
        return content
    content, code = content[:-_MAC_BYTES], content[-_MAC_BYTES:]
    if not hmac.compare_digest(code, _mac(content, key)):
        raise PacketError("The packet's authentication code does not fit: it is forged, or the keys differ.")
    return content


def _mac(content: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=_MAC_BYTES).digest()


def _compare(what: str, found: bytes, expected: bytes, advice: str) -> None:
    if found != expected:
        raise PacketError(f"The packet is of another {what}: {found.hex()}, expected {expected.hex()}. {advice}")

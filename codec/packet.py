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

from .errors import OutOfStepError, PacketError
from .varint import read_varint, write_varint

MAGIC = b"DR"
FORMAT_VERSION = 2
STATE_DIGEST_EVERY = 64  # packets; a digest costs a pass over the state, 1 ns a byte

KEY_FRAME, RAW, NOT_FINITE, STATE_DIGEST, AUTHENTICATED = 1, 2, 4, 8, 16
ALL_FLAGS = KEY_FRAME | RAW | NOT_FINITE | STATE_DIGEST | AUTHENTICATED

_FIXED = 2 + 1 + 1 + 1 + 4 + 8 + 4
_CHECKSUM_BYTES = 4
_DIGEST_BYTES = 8
_SHORT, _SHORT_MASK = FORMAT_VERSION << 5, 0b11100000  # of the first byte of a packet that is no key frame
_SHORTEST = 1 + 1 + 1 + _CHECKSUM_BYTES
HEAL = "Ask the sender for a key frame: `encode(..., key_frame=True)`."
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
        state: digest of the vectors before it and the sender's fingerprint, where flagged.
    """

    flags: int
    step: int
    sequence: int
    state: tuple[bytes, bytes] | None = None


class Due(NamedTuple):
    """What both ends know of the packet that comes next.

    Attributes:
        sequence: its number.
        last_step: the step of the packet before; -1 before any.
        chain: digest of all before it.
    """

    sequence: int
    last_step: int
    chain: bytes


@cache
def fingerprint() -> bytes:
    """Digest of what floating-point results may depend on, 8 bytes: library versions, processor, device kind."""
    parts = [torch.__version__, np.__version__, importlib.metadata.version("constriction")]
    parts += [platform.machine(), platform.system(), "cpu"]
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()


def write_packet(header: Header, body: bytes, link: Link, due: Due, key: bytes | None) -> bytes:
    """A packet's bytes: with everything a new receiver needs for a key frame, else with as little as possible."""
    flags = header.flags | (STATE_DIGEST if header.state else 0) | (AUTHENTICATED if key is not None else 0)
    if flags & KEY_FRAME:
        parts = [MAGIC, bytes([FORMAT_VERSION, flags, link.coder]), link.config, link.layout, link.stream]
        parts += [write_varint(header.step), write_varint(header.sequence), write_varint(len(body)), body]
        chain = b""
    else:
        parts = [bytes([_SHORT | flags, header.sequence & 255]), write_varint(header.step - due.last_step)]
        parts += [*(header.state or ()), body]
        chain = due.chain
    packet = b"".join(parts)
    if key is not None:
        packet += _mac(chain + packet, key)
    return packet + _checksum(chain + packet)


def read_packet(packet: bytes, link: Link, due: Due, key: bytes | None) -> tuple[Header, bytes]:
    """Header and body of a packet, once everything that does not need the vectors has been checked.

    Raises:
        PacketError: naming what is wrong.
        OutOfStepError: if it is not the packet that is due.
    """
    if len(packet) < _SHORTEST:
        raise PacketError(f"The packet is cut: {len(packet)} bytes cannot hold a header.")
    return _read_key_frame(packet, link, key) if packet[0] == MAGIC[0] else _read_short(packet, due, key)


def _read_key_frame(packet: bytes, link: Link, key: bytes | None) -> tuple[Header, bytes]:
    if packet[:2] != MAGIC:
        raise PacketError(f"Not a packet: it begins with {packet[:2].hex()}, not {MAGIC.hex()}.")
    if packet[2] != FORMAT_VERSION:
        raise PacketError(
            f"The packet has format version {packet[2]}, this codec reads {FORMAT_VERSION}. "
            "It is damaged, or the two ends run different versions: install the same one."
        )
    if _checksum(packet[:-_CHECKSUM_BYTES]) != packet[-_CHECKSUM_BYTES:]:
        raise PacketError("The packet is damaged: its checksum does not fit. Have it sent again.")
    if len(packet) < _FIXED + 3 + _CHECKSUM_BYTES:
        raise PacketError(f"The packet is cut: {len(packet)} bytes cannot hold a key frame's header.")
    flags = packet[3]
    if flags & ~ALL_FLAGS or not flags & KEY_FRAME or flags & STATE_DIGEST:
        raise PacketError(f"The packet has flags {flags:#x}, which no key frame has.")
    content = _authenticated(packet[:-_CHECKSUM_BYTES], b"", flags, key)
    _compare("coder", content[4:5], bytes([link.coder]), "Use the same lattice on both ends.")
    _compare("configuration", content[5:9], link.config, "Use equal `CodecConfig`s on both ends.")
    _compare("layout", content[9:17], link.layout, "Both ends must code vectors of the same network.")
    _compare("stream", content[17:21], link.stream, "Use the same `stream` on both ends.")
    step, place = read_varint(content, _FIXED)
    sequence, place = read_varint(content, place)
    length, place = read_varint(content, place)
    if place + length != len(content):
        raise PacketError(
            f"The packet has {len(content) - place} bytes of body, its header says {length}. Cut or extended?"
        )
    if step > MAX_STEP or sequence >= 2**32:
        raise PacketError(f"The packet has step {step} and number {sequence}, which are out of range.")
    return Header(flags, step, sequence), content[place:]


def _read_short(packet: bytes, due: Due, key: bytes | None) -> tuple[Header, bytes]:
    flags = packet[0] & ~_SHORT_MASK
    if packet[0] & _SHORT_MASK != _SHORT or flags & KEY_FRAME:
        raise PacketError(
            f"Not a packet of format version {FORMAT_VERSION}: it begins with {packet[0]:#x}. "
            "It is damaged, or the two ends run different versions: install the same one."
        )
    if due.last_step < 0:
        raise OutOfStepError(f"The first packet must be a key frame, got packet {packet[1]}. {HEAL}")
    if packet[1] != due.sequence & 255:
        raise OutOfStepError(
            f"Packet {due.sequence & 255} (modulo 256) is due, got packet {packet[1]}: packets were lost, repeated or "
            f"reordered. Drop it if it has been decoded. Otherwise: {HEAL}"
        )
    if _checksum(due.chain + packet[:-_CHECKSUM_BYTES]) != packet[-_CHECKSUM_BYTES:]:
        raise PacketError(
            f"Packet {due.sequence} is damaged, or was coded against another history than was decoded here: its "
            f"checksum does not fit. Have it sent again; if that does not help: {HEAL}"
        )
    content = _authenticated(packet[:-_CHECKSUM_BYTES], due.chain, flags, key)
    ahead, place = read_varint(content, 2)
    step = due.last_step + ahead
    if not ahead or step > MAX_STEP:
        raise PacketError(f"The packet is of step {step}, which is out of range.")
    state = None
    if flags & STATE_DIGEST:
        if len(content) < place + 2 * _DIGEST_BYTES:
            raise PacketError("The packet is damaged: it ends within its digest.")
        state = content[place : place + _DIGEST_BYTES], content[place + _DIGEST_BYTES : place + 2 * _DIGEST_BYTES]
        place += 2 * _DIGEST_BYTES
    return Header(flags, step, due.sequence, state), content[place:]


def _authenticated(content: bytes, chain: bytes, flags: int, key: bytes | None) -> bytes:
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
    if not hmac.compare_digest(code, _mac(chain + content, key)):
        raise PacketError("The packet's authentication code does not fit: it is forged, or the keys differ.")
    return content


def _mac(content: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=_MAC_BYTES).digest()


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "little")


def _compare(what: str, found: bytes, expected: bytes, advice: str) -> None:
    if found != expected:
        raise PacketError(f"The packet is of another {what}: {found.hex()}, expected {expected.hex()}. {advice}")

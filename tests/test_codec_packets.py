"""Packets as untrusted input: damage, forgery, foreign links, and the committed golden packets."""

import json
import random
import tracemalloc
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from
from reference_decoder import ReferenceDecoder
from torch import Tensor

from deadreckon.codec import Codec, CodecConfig, CodecError, Decoder, OutOfStepError, PacketError, lattice_names
from deadreckon.codec.bits import BitReader, BitWriter
from deadreckon.codec.config import ENTROPY_NAMES
from deadreckon.codec.lattice import WIDTHS_PER_OCTAVE
from deadreckon.codec.modes import Annulus, RateDistortion, Scalar
from deadreckon.codec.packet import FORMAT_VERSION, STATE_DIGEST_EVERY, fingerprint
from deadreckon.codec.varint import write_varint
from deadreckon.forecast import Layout

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]
GOLDEN = Path(__file__).with_name("golden_packets.json")
FIXED = 21  # bytes of a key frame before its step
KINDS = {entropy: CodecConfig(lattice="Z", entropy=entropy) for entropy in ENTROPY_NAMES}
KINDS |= {"adam": CodecConfig(lattice="Z", metric="adam")}
KINDS |= {lattice: CodecConfig(lattice=lattice) for lattice in lattice_names() if lattice != "Z"}


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def with_checksum(content: bytes, chain: bytes = b"") -> bytes:
    """A packet whose checksum fits whatever is in it; one that is no key frame needs the chain before it."""
    return content + zlib.crc32(chain + content).to_bytes(4, "little")


def chain_of(decoder: Decoder) -> bytes:
    return bytes(decoder.state_dict()["chain"].tolist())


def flip(packet: bytes, bit: int) -> bytes:
    damaged = bytearray(packet)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def error_of_flip(packet: bytes, bit: int) -> type[CodecError]:
    """What a flipped bit raises: the sequence number makes it another packet, the first byte another kind."""
    key_frame = packet[:2] == b"DR"
    if bit // 8 == int(not key_frame):
        return CodecError if key_frame else OutOfStepError
    return PacketError


# --- damage


@pytest.mark.parametrize("key", [None, b"secret"], ids=["plain", "keyed"])
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow) if kind in ("D4", "T8", "T64", "Leech") else kind for kind in KINDS],
)
def test_every_flipped_bit_is_noticed(kind, key):
    """Whichever bit is flipped, decode raises, the state is untouched, and the good packet still decodes."""
    layout = layout_from({"w": (9, 8), "b": (9,)})
    codec = Codec(layout, KINDS[kind], key=key)
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, row in enumerate(ar1_stream(layout, 4)):
        packet = encoder.encode(row, step, key_frame=step == 2)
        before = decoder.state_dict()
        for bit in range(8 * len(packet)):
            with pytest.raises(error_of_flip(packet, bit)):
                decoder.decode(flip(packet, bit))
        assert same_state(decoder.state_dict(), before)
        assert torch.equal(decoder.decode(packet), encoder.reconstruction)


def test_flipped_bits_of_large_packets_are_noticed():
    """The same for a sample of the bits of real gradients' packets, the ones of the header all included."""
    rows, layout = gradient_stream(4)
    codec = Codec(layout)
    encoder, decoder = codec.encoder(), codec.decoder()
    generator = np.random.default_rng(0)
    for step, row in enumerate(rows):
        packet = encoder.encode(row, step)
        before = decoder.state_dict()
        for bit in (*range(200), *generator.integers(200, 8 * len(packet), 300).tolist()):
            with pytest.raises(error_of_flip(packet, bit)):
                decoder.decode(flip(packet, bit))
        assert same_state(decoder.state_dict(), before)
        assert torch.equal(decoder.decode(packet), encoder.reconstruction)


def test_cut_and_extended_packets_are_noticed():
    """Every prefix of a packet, and a packet with bytes after it, is refused, key frame or not."""
    encoder, decoder = Codec(MIXED).encoder(), Codec(MIXED).decoder()
    for step, row in enumerate(ar1_stream(MIXED, 2)):
        packet = encoder.encode(row, step)
        for length in range(len(packet)):
            with pytest.raises(PacketError, match=r"cut|checksum"):
                decoder.decode(packet[:length])
        for rest in (b"\0", b"\0" * 8, packet):
            with pytest.raises(PacketError, match="checksum"):
                decoder.decode(packet + rest)
        chain = chain_of(decoder) if step else b""
        for message, content in (
            (r"bytes of body|empty byte", packet[:-4] + b"\0" * 4),
            (r"bytes of body|ends within its parameters", packet[: 3 if step else FIXED + 4]),
            (r"bytes of body|more than its symbols", packet[:-4] + b"\1" * 40),
        ):
            with pytest.raises(PacketError, match=message):
                decoder.decode(with_checksum(content, chain))
        decoder.decode(packet)
    with pytest.raises(PacketError, match="must be bytes, got str"):
        decoder.decode("packet")  # pyright: ignore[reportArgumentType]


# --- foreign links, contradictions, forgery


def test_packets_of_another_link_are_refused_by_name():
    """Another layout, configuration, lattice, stream, version or key: the message says which, and what to do."""
    row = ar1_stream(MIXED, 1)[0]
    packet = Codec(MIXED).encoder().encode(row, 0)
    other_layout = layout_from({"w": (MIXED.size,)})
    foreign = {
        "another layout.*same network": Codec(other_layout).decoder(),
        "another configuration.*equal `CodecConfig`s": Codec(MIXED, CodecConfig(nmse=0.2)).decoder(),
        "another coder.*same lattice": Codec(MIXED, CodecConfig(lattice="raw")).decoder(),
        "another stream.*same `stream`": Codec(MIXED, stream="updates").decoder(),
        "is not authenticated, this codec has a key": Codec(MIXED, key=b"k").decoder(),
    }
    for message, decoder in foreign.items():
        with pytest.raises(PacketError, match=message):
            decoder.decode(packet)
    decoder = Codec(MIXED).decoder()
    with pytest.raises(PacketError, match="format version 9, this codec reads.*same one"):
        decoder.decode(with_checksum(packet[:2] + b"\x09" + packet[3:-4]))
    with pytest.raises(PacketError, match="Not a packet: it begins with 4458"):
        decoder.decode(with_checksum(b"DX" + packet[2:-4]))
    for first in (0x00, 0x24, 0x41, 0x58 + 0x20, 0xFF):
        with pytest.raises(PacketError, match=f"Not a packet of format version 2: it begins with {first:#x}"):
            decoder.decode(with_checksum(bytes([first]) + packet[1:-4]))
    for flags in (0, 2, 1 | 8, 1 | 32, 1 | 128):
        with pytest.raises(PacketError, match=f"flags {flags:#x}, which no key frame has"):
            decoder.decode(with_checksum(packet[:3] + bytes([flags]) + packet[4:-4]))


def _forged(packet: bytes, place: int, *values: int, chain: bytes = b"") -> bytes:
    """A packet with bytes replaced, and a checksum that fits."""
    return with_checksum(packet[:place] + bytes(values) + packet[place + len(values) : -4], chain)


def _key_frame(packet: bytes, step: int, sequence: int, body: bytes, length: int | None = None) -> bytes:
    """A key frame with a fitting checksum and other contents."""
    numbers = write_varint(step) + write_varint(sequence) + write_varint(len(body) if length is None else length)
    return with_checksum(packet[:FIXED] + numbers + body)


def test_key_frames_that_contradict_themselves_are_refused():
    """Flags, numbers and sizes that no encoder writes raise, each with its own message; the state is untouched."""
    layout = LAYOUTS["one tensor"]
    codec, raw = Codec(layout), Codec(layout, CodecConfig(lattice="raw"))
    row = ar1_stream(layout, 1)[0]
    coded, exact = codec.encoder().encode(row, 0), raw.encoder().encode(row, 0)
    floats = exact[-4 - 4 * layout.size : -4]
    nan = b"\0\0\xc0\x7f"
    attempts = [
        (codec, _forged(coded, 3, 1 | 4), "only raw packets may hold NaN"),
        (codec, _forged(coded, 3, 1 | 2), "bytes of float32, the layout has 2000"),
        (codec, _key_frame(coded, 2**62 + 1, 0, b""), "which are out of range"),
        (codec, _key_frame(coded, 0, 2**32, b""), "which are out of range"),
        (codec, _key_frame(coded, 0, 0, b"", 2**62), "bytes of body, its header says"),
        (codec, _key_frame(coded, 0, 0, b"\1", 0), "bytes of body, its header says"),
        (codec, _key_frame(coded, 0, 0, b""), "ends within its parameters"),
        (codec, _key_frame(coded, 0, 0, b"\0" * 10), "a number is too long"),
        (codec, with_checksum(coded[:FIXED] + b"\x80\x00" + coded[FIXED + 1 : -4]), "not in its shortest form"),
        (codec, with_checksum(coded[:FIXED] + b"\xff" * 9), "a number is too long"),
        (codec, with_checksum(coded[: FIXED + 1] + b"\x80" * 3), "ends within a number"),
        (raw, _forged(exact, 3, 1), "the raw coder has raw packets only"),
        (raw, _forged(exact, 3, 1 | 2 | 4), "flag for NaN and infinity does not fit"),
        (raw, _key_frame(exact, 0, 0, nan + floats[4:]), "flag for NaN and infinity does not fit"),
        (raw, _key_frame(exact, 0, 0, floats[4:]), "bytes of float32, the layout has 2000"),
    ]
    for link, packet, message in attempts:
        decoder = link.decoder()
        before = decoder.state_dict()
        with pytest.raises(PacketError, match=message):
            decoder.decode(packet)
        assert same_state(decoder.state_dict(), before)


def test_short_frames_that_contradict_themselves_are_refused():
    """The same for packets that are no key frames: steps that stand still, wrong flags, cut digests."""
    layout = LAYOUTS["one tensor"]
    codec = Codec(layout)
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(layout, 2)
    decoder.decode(encoder.encode(rows[0], 5))
    packet, chain, before = encoder.encode(rows[1], 6), chain_of(decoder), decoder.state_dict()
    body = packet[3:-4]
    attempts = [
        (_forged(packet, 2, 0, chain=chain), "is of step 5, which is out of range"),
        (with_checksum(packet[:2] + write_varint(2**62) + body, chain), "which is out of range"),
        (with_checksum(packet[:2] + b"\xff" * 9 + body, chain), "a number is too long"),
        (with_checksum(packet[:2] + b"\x81\x00" + body, chain), "not in its shortest form"),
        (with_checksum(packet[:2] + b"\x80\x80", chain), "ends within a number"),
        (_forged(packet, 0, 0x40 | 2, chain=chain), "bytes of float32, the layout has 2000"),
        (_forged(packet, 0, 0x40 | 16, chain=chain), "is authenticated, this codec has no key"),
        (with_checksum(bytes([0x40 | 8]) + packet[1:3] + b"x" * 15, chain), "ends within its digest"),
        (with_checksum(packet[:-4], b"another history!"), "coded against another history.*key frame"),
    ]
    for wrong, message in attempts:
        with pytest.raises(PacketError, match=message):
            decoder.decode(wrong)
        assert same_state(decoder.state_dict(), before)
    assert torch.equal(decoder.decode(packet), encoder.reconstruction)


def test_values_beyond_float32_are_refused():
    """A packet whose cells are so wide that a value overflows raises, with levels and without."""
    layout = layout_from({"w": (30,)})
    codec = Codec(layout, CodecConfig("none", "Z", modes=Annulus(0.0, 2.0, adaptive=False, level=2)))
    row = torch.linspace(-1, 1, 30) * 3e38
    packet = codec.encoder().encode(row, 0)
    assert codec.decoder().decode(packet).isfinite().all()
    body = packet[FIXED + 1 + 1 + 1 : -4]
    bits, wider = BitReader(body), BitWriter()
    wider.write_number(bits.read_number(5) + WIDTHS_PER_OCTAVE, 5)
    for _ in range(3):
        wider.write_number(bits.read_number(2), 2)
    wider.write(bits.read(3), 3)  # that there are levels, and the level of the only matrix
    forged = _key_frame(packet, 0, 0, wider.to_bytes() + bits.finish())
    with pytest.raises(PacketError, match="flag for NaN and infinity does not fit"):
        codec.decoder().decode(forged)


def test_forged_packets_are_refused():
    """With a key, a packet changed by somebody without it is refused even when its checksum fits; so is another key."""
    codec = Codec(MIXED, key=b"secret")
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(MIXED, 2)
    for step, row in enumerate(rows):
        packet = encoder.encode(row, step)
        chain = chain_of(decoder) if step else b""
        for place in (2 + 20 * (step == 0), 60, len(packet) - 8):
            forged = flip(packet[:-4], 8 * place)
            with pytest.raises(PacketError, match="authentication code does not fit"):
                decoder.decode(with_checksum(forged, chain))
        if step == 0:
            with pytest.raises(PacketError, match="authentication code does not fit"):
                Codec(MIXED, key=b"other").decoder().decode(packet)
            with pytest.raises(PacketError, match="is authenticated, this codec has no key"):
                Codec(MIXED).decoder().decode(packet)
        decoder.decode(packet)


def test_the_code_covers_what_came_before():
    """A keyed packet that follows another past is refused even by who makes its checksum fit: it cannot be moved."""
    codec = Codec(MIXED, key=b"secret")
    rows = ar1_stream(MIXED, 3)
    one, other, decoder = codec.encoder(), codec.encoder(), codec.decoder()
    decoder.decode(one.encode(rows[0], 0))
    other.encode(rows[2], 0)
    moved = other.encode(rows[1], 1)
    with pytest.raises(PacketError, match="authentication code does not fit"):
        decoder.decode(with_checksum(moved[:-4], chain_of(decoder)))


# --- fuzz


class FuzzLink(NamedTuple):
    """A decoder that has decoded some packets, its state and chain, two packets that may follow, its tables' bytes."""

    decoder: Decoder
    before: dict[str, Tensor]
    chain: bytes
    packets: tuple[bytes, bytes]
    tables: int


def _links() -> list[FuzzLink]:
    layout = layout_from({"w": (8, 5), "b": (5,), "e": (0,), "s": ()})
    configs = (
        CodecConfig("fitted", "Z", nmse=0.3, modes=Annulus()),
        CodecConfig("fitted", "auto", nmse=0.05),
        CodecConfig("fitted", entropy="tensor_tables", nmse=1e-6),
        CodecConfig("linear", entropy="runs", nmse=0.3, metric="adam"),
        CodecConfig(lattice="raw"),
    )
    links = []
    for config in configs:
        codec = Codec(layout, config)
        encoder, decoder = codec.encoder(), codec.decoder()
        rows = ar1_stream(layout, 6)
        for step, row in enumerate(rows[:-1]):
            decoder.decode(encoder.encode(row, step))
        following = encoder.encode(rows[-1], 5)
        encoder.abort()
        packets = following, encoder.encode(rows[-1], 5, key_frame=True)
        # Tables of 34 classes, and where E8 may come of their contexts too, with copies.
        tables = 600_000 if len(config.lattices) == 1 else 4_000_000
        links.append(FuzzLink(decoder, decoder.state_dict(), chain_of(decoder), packets, tables))
    return links


def _mutated(packet: bytes, chain: bytes, fitting: float, generator: random.Random) -> bytes:
    """A packet with random damage and, by chance, a checksum that fits it."""
    content = bytearray(packet[:-4])
    behind = FIXED if packet[0] == 0x44 else 2  # mostly behind the digests, so that the damage gets further in
    fits = generator.random() < fitting
    for _ in range(generator.choice((1, 1, 2))):
        start = min(behind if fits and generator.random() < 0.9 else 0, len(content) - 1)
        kind, place = generator.randrange(5), generator.randrange(start, len(content))
        if kind == 0:
            content[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            content[place] = generator.randrange(256)
        elif kind == 2:
            del content[place : place + generator.randrange(1, 9)]
        elif kind == 3:
            content[place:place] = generator.randbytes(generator.randrange(1, 9))
        else:
            content[place : place + 8] = generator.randbytes(8)
        content = content or bytearray(1)
    if fits:
        return with_checksum(bytes(content), b"" if content[0] == 0x44 else chain)
    return bytes(content) + packet[-4:]


def _fuzz(number: int, seed: int, fitting: float) -> tuple[int, int]:
    """Decodes mutated packets; how many raised, and how many were taken for good."""
    generator = random.Random(seed)
    links = _links()
    refused = accepted = 0
    for attempt in range(number):
        decoder, before, chain, packets, _ = links[attempt % len(links)]
        packet = _mutated(packets[generator.random() < 0.3], chain, fitting, generator)
        try:
            decoded = decoder.decode(packet)
        except CodecError:
            refused += 1
            if refused % 100 == 0:
                assert same_state(decoder.state_dict(), before)
        else:
            accepted += 1
            assert decoded.shape == (decoder.layout.size,)
            decoder.load_state_dict(before)
    return refused, accepted


def test_mutated_packets_raise_nothing_else():
    """Damaged packets, half with a checksum that fits, raise `CodecError` or decode to a vector of the right size."""
    refused, accepted = _fuzz(2000, seed=0, fitting=0.5)
    assert refused + accepted == 2000
    assert accepted > 70  # the damage does reach the innermost parts


@pytest.mark.slow
def test_a_million_mutated_packets_raise_nothing_else():
    """The same, for a million packets of which a tenth has a checksum that fits."""
    refused, accepted = _fuzz(1_000_000, seed=1, fitting=0.1)
    assert refused + accepted == 1_000_000
    assert accepted > 10_000


def _peak(decoder: Decoder, packet: bytes) -> int:
    """Bytes that decoding takes at most, beyond what was there."""
    tracemalloc.start()
    try:
        decoder.decode(packet)
    except CodecError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_memory_is_bounded_by_the_layout_and_the_packet():
    """Damaged packets, lengths that are lies, and long ones take no more than a fixed multiple of what there is."""
    generator = random.Random(2)
    for decoder, before, chain, packets, tables in _links():
        assert _peak(decoder, packets[0]) < 4_000_000  # what one decoding takes at all, and may be made once
        decoder.load_state_dict(before)
        key_frame = packets[1]
        lies = [_key_frame(key_frame, 9, 0, b"", length) for length in (2**31, 2**62)]
        tails = [bytes(2**16), b"\xff" * 2**16, generator.randbytes(2**16)]
        lies += [_key_frame(key_frame, 9, 0, tail) for tail in tails]
        lies += [with_checksum(packets[0][:-4] + tail, chain) for tail in tails]
        mutated = [_mutated(packets[place % 2], chain, 1.0, generator) for place in range(100)]
        for packet in (*lies, *mutated):
            # Tables, state and their copies; what the packet says, some times over.
            assert _peak(decoder, packet) < tables + 2000 * decoder.layout.size + 20 * len(packet)
            decoder.load_state_dict(before)


def test_a_flood_of_escapes_is_bounded_by_the_layout():
    """Random words decode to escapes of any length: the values stay within 32 bits, memory within the layout's."""
    layout = layout_from({"w": (100, 50)})
    codec = Codec(layout, CodecConfig("none", nmse=1e-9, entropy="tensor_tables"))
    packet = codec.encoder().encode(ar1_stream(layout, 1)[0], 0)
    generator = random.Random(3)
    for _ in range(20):
        place = len(packet) - generator.randrange(2000, 8000)
        wrong = with_checksum(packet[:place] + generator.randbytes(len(packet) - 5 - place) + b"\1")
        assert _peak(codec.decoder(), wrong) < 300 * layout.size + 20 * len(packet)


# --- order of packets


def test_a_key_frame_may_not_go_back():
    """An old key frame that comes again is refused, so nobody can turn the decoder back with recorded packets."""
    codec = Codec(MIXED, key=b"secret")
    encoder, decoder = codec.encoder(), codec.decoder()
    packets = [encoder.encode(row, step, key_frame=True) for step, row in enumerate(ar1_stream(MIXED, 3))]
    for packet in packets:
        decoder.decode(packet)
    for packet in packets:
        with pytest.raises(OutOfStepError, match="repeated or late"):
            decoder.decode(packet)


def test_256_lost_packets_are_noticed():
    """The number in a short frame goes round after 256 packets; then the checksum, which covers the past, refuses."""
    codec = Codec(LAYOUTS["one element"], CodecConfig(lattice="raw"))
    encoder, decoder = codec.encoder(), codec.decoder()
    packets = [encoder.encode(row, step) for step, row in enumerate(ar1_stream(codec.layout, 300))]
    for packet in packets[:10]:
        decoder.decode(packet)
    before = decoder.state_dict()
    assert packets[266][1] == packets[10][1]
    with pytest.raises(PacketError, match="another history.*key frame"):
        decoder.decode(packets[266])
    assert same_state(decoder.state_dict(), before)
    decoder.decode(packets[10])


def test_numbers_go_round_after_two_to_the_32():
    """Both ends count up to 2^32 - 1, key frames say the whole number, and 0 follows."""
    codec = Codec(LAYOUTS["one element"], CodecConfig(lattice="raw"))
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(codec.layout, 4)
    decoder.decode(encoder.encode(rows[0], 0))
    for end in (encoder, decoder):
        state = end.state_dict()
        state["numbers"][4] = 2**32 - 2
        end.load_state_dict(state)
    key_frame = encoder.encode(rows[1], 1, key_frame=True)
    assert key_frame[FIXED + 1 :].startswith(write_varint(2**32 - 2))
    packets = [key_frame, encoder.encode(rows[2], 2), encoder.encode(rows[3], 3)]
    assert [packet[1] for packet in packets[1:]] == [255, 0]
    for packet, due in zip(packets, (2**32 - 1, 0, 1), strict=True):
        decoder.decode(packet)
        assert int(decoder.state_dict()["numbers"][4]) == due


def _diverged_at_digest(monkeypatch: pytest.MonkeyPatch, name: str, other_machine: bool) -> tuple[Decoder, bytes]:
    """A decoder whose state is off by one bit, and the first packet that carries a digest of it."""
    layout = layout_from({"w": (20, 10)})
    codec = Codec(layout, CodecConfig("fitted", "Z"))
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(layout, STATE_DIGEST_EVERY + 1)
    for step, row in enumerate(rows[:-1]):
        decoder.decode(encoder.encode(row, step))
    state = decoder.state_dict()
    state[name].view(-1).view(torch.int32)[3] ^= 1
    decoder.load_state_dict(state)
    packet = encoder.encode(rows[-1], STATE_DIGEST_EVERY)
    if other_machine:
        monkeypatch.setattr("deadreckon.codec.decoder.fingerprint", lambda: b"another!")
    return decoder, packet


@pytest.mark.parametrize("name", ["rows", "momentum", "activity"])
def test_a_diverged_state_is_noticed(monkeypatch, name):
    """One wrong bit of the state raises at the next digest, and a key frame is asked for."""
    decoder, packet = _diverged_at_digest(monkeypatch, name, other_machine=False)
    with pytest.raises(OutOfStepError, match="another state.*key frame"):
        decoder.decode(packet)


def test_states_of_unlike_machines_are_not_compared(monkeypatch):
    """Between unequal fingerprints a float state may drift by rounding, and that is no error."""
    decoder, packet = _diverged_at_digest(monkeypatch, "rows", other_machine=True)
    decoder.decode(packet)
    assert len(fingerprint()) == 8


# --- size


def test_a_short_frame_takes_seven_bytes():
    """All packets but key frames and those with a state digest have 7 bytes of frame, 23 with a key."""
    for key, length in ((None, 7), (b"secret", 23)):
        encoder = Codec(LAYOUTS["one element"], CodecConfig(lattice="Z"), key=key).encoder()
        for step, row in enumerate(ar1_stream(LAYOUTS["one element"], STATE_DIGEST_EVERY + 2), 10_000):
            encoder.encode(row, step)
            if step == 10_000:
                expected = FIXED + 2 + 1 + 1 + 4 + length - 7
            else:
                expected = length + 16 * (step == 10_000 + STATE_DIGEST_EVERY)
            assert encoder.last_report.header_bits == 8 * expected


# --- what is committed


def golden_rows() -> tuple[Layout, list[Tensor]]:
    """Vectors of whole 1/256ths, made by integer arithmetic only."""
    layout = layout_from({"weight": (12, 10), "empty": (0, 2), "bias": (12,), "scale": ()})
    value, rows = 12345, []
    state = [0] * layout.size
    for _ in range(5):
        for place in range(layout.size):
            value = (1103515245 * value + 12345) % 2**31
            state[place] = 15 * state[place] // 16 + (value >> 16) % 129 - 64
        rows.append(torch.tensor(state, dtype=torch.float32) / 256)
    return layout, rows


GOLDEN_LINKS: dict[str, tuple[CodecConfig, bytes | None]] = {
    "scale classes": (CodecConfig("none", nmse=0.05, lattice="Z"), None),
    "tensor tables": (CodecConfig("none", nmse=0.05, entropy="tensor_tables"), None),
    "runs": (CodecConfig("none", nmse=0.05, entropy="runs"), None),
    "runs, with escapes": (CodecConfig("previous", nmse=1e-6, entropy="runs"), None),
    "raw": (CodecConfig(lattice="raw"), None),
    "adam's metric": (CodecConfig("previous", metric="adam", metric_decay=0.5, lattice="Z"), None),
    "stochastic": (CodecConfig("previous", rounding="stochastic"), None),
    "previous, with escapes": (CodecConfig("previous", nmse=1e-6, lattice="Z"), None),
    "fitted, keyed": (CodecConfig(nmse=0.05, lattice="Z"), b"golden"),
    "momentum_norm": (CodecConfig("momentum_norm", nmse=0.05, lattice="Z"), None),
    "momentum_projected, annulus": (
        CodecConfig("momentum_projected", nmse=0.05, modes=Annulus(level=2), lattice="Z"),
        None,
    ),
    "momentum_projected, scalar": (CodecConfig("momentum_projected", nmse=0.3, modes=Scalar(), lattice="Z"), None),
    "adaptive_momentum": (CodecConfig("adaptive_momentum", nmse=0.05, entropy="tensor_tables"), None),
    "ef21": (CodecConfig("ef21", nmse=0.05, entropy="runs"), None),
    "combination": (CodecConfig(("second_last", "previous", "momentum"), nmse=0.05, lattice="Z"), None),
    "D4": (CodecConfig(nmse=0.05, lattice="D4"), None),
    "D4, annulus": (CodecConfig("momentum_projected", nmse=0.05, lattice="D4", modes=Annulus(level=2)), None),
    "D4, adam's metric, annulus": (
        CodecConfig("momentum_projected", lattice="D4", metric="adam", modes=Annulus()),
        None,
    ),
    "D4, with escapes": (CodecConfig("previous", nmse=1e-7, lattice="D4"), None),
    "E8": (CodecConfig(nmse=0.05, lattice="E8"), None),
    "E8, adam's metric, annulus": (
        CodecConfig("momentum_projected", lattice="E8", metric="adam", modes=Annulus()),
        None,
    ),
    "E8, rate_distortion": (CodecConfig("none", nmse=0.3, lattice="E8", metric="adam", modes=RateDistortion()), None),
    "E8, with escapes": (CodecConfig("previous", nmse=1e-7, lattice="E8"), None),
    "T8": (CodecConfig(nmse=0.05, lattice="T8"), None),
    "T8, adam's metric, annulus": (
        CodecConfig("momentum_projected", lattice="T8", metric="adam", modes=Annulus()),
        None,
    ),
    "T8, rate_distortion": (CodecConfig("none", nmse=0.3, lattice="T8", metric="adam", modes=RateDistortion()), None),
    "T8, with escapes": (CodecConfig("previous", nmse=1e-7, lattice="T8"), None),
    "T64": (CodecConfig(nmse=0.05, lattice="T64"), None),
    "A2": (CodecConfig(nmse=0.05, lattice="A2"), None),
    "A2, adam's metric, annulus": (
        CodecConfig("momentum_projected", lattice="A2", metric="adam", modes=Annulus()),
        None,
    ),
    "A2, rate_distortion": (CodecConfig("none", nmse=0.3, lattice="A2", metric="adam", modes=RateDistortion()), None),
    "A2, with escapes": (CodecConfig("previous", nmse=1e-7, lattice="A2"), None),
    "Leech": (CodecConfig(nmse=0.05, lattice="Leech"), None),
    "Leech, adam's metric, annulus": (
        CodecConfig("momentum_projected", lattice="Leech", metric="adam", modes=Annulus()),
        None,
    ),
    "Leech, rate_distortion": (
        CodecConfig("none", nmse=0.3, lattice="Leech", metric="adam", modes=RateDistortion()),
        None,
    ),
    "Leech, with escapes": (CodecConfig("previous", nmse=1e-7, lattice="Leech"), None),
    "auto": (CodecConfig(nmse=0.5, lattice="auto"), None),
    "auto, adam's metric": (CodecConfig("previous", nmse=0.3, lattice="auto", metric="adam"), b"golden"),
    "auto, with escapes": (CodecConfig("previous", nmse=1e-7, lattice="auto"), None),
    "linear": (CodecConfig("linear", nmse=0.05, entropy="tensor_tables"), None),
}
GOLDEN_KEY_FRAME = 3
LEVELS = {
    "momentum_projected, annulus": {0, 2},
    "momentum_projected, scalar": {0, 3},
    "D4, annulus": {0, 2},
    "D4, adam's metric, annulus": {0, 1},
    "E8, adam's metric, annulus": {0, 1},
    "E8, rate_distortion": {0, 1, 3},
    "T8, adam's metric, annulus": {0, 1},
    "T8, rate_distortion": {0, 3},
    "A2, adam's metric, annulus": {0, 1},
    "A2, rate_distortion": {0, 1, 2, 3},
    "Leech, adam's metric, annulus": {0, 1},
    "Leech, rate_distortion": {0, 2, 3},
}  # of matrices, where some are not 0


def golden_packets(name: str) -> list[bytes]:
    golden = json.loads(GOLDEN.read_text())
    assert golden["format_version"] == FORMAT_VERSION
    return [bytes.fromhex(packet) for packet in golden["packets"][name]]


@pytest.mark.parametrize("name", GOLDEN_LINKS)
def test_golden_packets(name):
    """Packets are byte for byte what they were. If this fails on purpose: raise FORMAT_VERSION, write the file anew."""
    config, key = GOLDEN_LINKS[name]
    layout, rows = golden_rows()
    codec = Codec(layout, config, key=key)
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, (row, packet) in enumerate(zip(rows, golden_packets(name), strict=True)):
        decoded = decoder.decode(packet)
        assert encoder.encode(row, step, key_frame=step == GOLDEN_KEY_FRAME) == packet
        assert torch.equal(decoded, encoder.reconstruction)


def write_golden_packets() -> None:
    """Writes the golden file anew: `python -c "import test_codec_packets as t; t.write_golden_packets()"` in tests/."""
    layout, rows = golden_rows()
    packets = {}
    for name, (config, key) in GOLDEN_LINKS.items():
        encoder = Codec(layout, config, key=key).encoder()
        packets[name] = [
            encoder.encode(row, step, key_frame=step == GOLDEN_KEY_FRAME).hex() for step, row in enumerate(rows)
        ]
    GOLDEN.write_text(json.dumps({"format_version": FORMAT_VERSION, "packets": packets}, indent=1) + "\n")


# --- the reference decoder, which knows the page and not the library


def reference_of(codec: Codec, key: bytes | None = None) -> ReferenceDecoder:
    config = codec.config
    members = config.predictor if isinstance(config.predictor, tuple) else (config.predictor,)
    return ReferenceDecoder(
        [spec.shape for spec in codec.layout],
        bytes.fromhex(codec.digest),
        tuple(member for member in members if isinstance(member, str)),
        config.entropy,
        config.momentum,
        config.metric_decay if config.metric == "adam" else None,
        key,
    )


def same_bits(values: list[float], vector: Tensor) -> bool:
    return torch.equal(torch.tensor(values, dtype=torch.float32).view(torch.int32), vector.view(torch.int32))


@pytest.mark.parametrize("name", [name for name in GOLDEN_LINKS if name != "linear"])
def test_the_reference_decodes_the_golden_packets(name):
    """A decoder written from the documentation gets the library's bits from the committed packets."""
    config, key = GOLDEN_LINKS[name]
    codec = Codec(golden_rows()[0], config, key=key)
    decoder, reference = codec.decoder(), reference_of(codec, key)
    levels, num_escapes = set(), 0
    for packet in golden_packets(name):
        assert same_bits(reference.decode(packet), decoder.decode(packet))
        levels |= set(reference.levels)
        num_escapes += reference.num_escapes
    if "escapes" in name:
        assert num_escapes > 50
    assert levels == LEVELS.get(name, {0} if name != "raw" else set())
    if len(config.lattices) == 1:
        assert set(reference.lattices) == set(config.lattices) - {"raw"}
    elif "escapes" not in name:
        assert set(reference.lattices) == {"Z", "E8"}


@pytest.mark.parametrize(
    "config",
    [
        CodecConfig("fitted", "Z", modes=Annulus()),
        CodecConfig("adaptive_momentum", "Z", nmse=0.01),
        CodecConfig("momentum", nmse=1e-4, entropy="tensor_tables"),
        CodecConfig("adaptive_momentum", entropy="runs", metric="adam"),
        pytest.param(CodecConfig("previous", "D4", modes=Annulus(), metric="adam"), marks=pytest.mark.slow),
        CodecConfig("fitted", lattice="E8", nmse=0.01, hold="mean_error"),
        CodecConfig("fitted", lattice="auto", nmse=0.5),
        pytest.param(CodecConfig("fitted", "T8", nmse=0.05, modes=RateDistortion()), marks=pytest.mark.slow),
        CodecConfig("fitted", lattice="A2", nmse=0.05, modes=RateDistortion()),
        pytest.param(CodecConfig("fitted", lattice="Leech", nmse=0.05, modes=RateDistortion()), marks=pytest.mark.slow),
        pytest.param(CodecConfig("previous", "T64", nmse=0.3), marks=pytest.mark.slow),
    ],
    ids=lambda config: f"{config.predictor}-{config.entropy}-{config.lattice}",
)
def test_the_reference_decodes_real_gradients(config):
    """The same for gradients of a small net, with a NaN and a zero vector, a wider step and a second key frame."""
    rows, layout = gradient_stream(8)
    rows[3] = rows[3] / 0
    rows[4] = torch.zeros(layout.size)
    codec = Codec(layout, config, key=b"key")
    encoder, reference = codec.encoder(), reference_of(codec, b"key")
    for number, row in enumerate(rows):
        packet = encoder.encode(row, number + 300 * (number > 1), key_frame=number == 6)
        assert same_bits(reference.decode(packet), encoder.reconstruction)


@pytest.mark.parametrize("metric", ["plain", "adam"])
def test_the_reference_follows_from_lattice_to_lattice(monkeypatch, metric):
    """Packets in Z and in E8 by turns, with a raw one between, decode to equal bits from the state they share."""
    monkeypatch.setattr("deadreckon.codec.encoder.chosen", lambda lead, number: (1, 0, 0, 1, 0, 1, 1)[number % 7])
    layout = layout_from({"w": (9, 13), "b": (9,), "s": ()})
    codec = Codec(layout, CodecConfig(lattice="auto", nmse=0.1, metric=metric))
    encoder, reference = codec.encoder(), reference_of(codec)
    for step, row in enumerate(ar1_stream(layout, 16)):
        packet = encoder.encode(row / 0 if step == 5 else row * 2.0 ** (step % 3), step)
        assert same_bits(reference.decode(packet), encoder.reconstruction)
    assert "".join(name[0] for name in reference.lattices) == "EZZEZEEEZZEZEEE"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entropy", "lattice"),
    [
        *((name, "Z") for name in ENTROPY_NAMES),
        *(("scale_classes", name) for name in ("A2", "D4", "E8", "Leech", "auto")),
    ],
)
def test_the_reference_follows_a_long_link(entropy, lattice):
    """Over 150 packets of changing scale, two of them with a state digest, both decoders hold equal bits."""
    layout = layout_from({"w": (20, 15), "b": (20,), "s": ()})
    metric = "adam" if entropy == "runs" else "plain"
    codec = Codec(layout, CodecConfig(entropy=entropy, nmse=0.05, metric=metric, lattice=lattice))
    encoder, reference = codec.encoder(), reference_of(codec)
    for step, row in enumerate(ar1_stream(layout, 150)):
        packet = encoder.encode(row * 10.0 ** (step % 7 - 3), step)
        assert same_bits(reference.decode(packet), encoder.reconstruction)

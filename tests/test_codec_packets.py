"""Packets as untrusted input: damage, forgery, foreign links, and the committed golden packets."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from
from torch import Tensor

from deadreckon.codec import Codec, CodecConfig, CodecError, Decoder, OutOfStepError, PacketError, lattice_names
from deadreckon.codec.packet import FORMAT_VERSION, STATE_DIGEST_EVERY, fingerprint
from deadreckon.codec.varint import write_varint

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]
GOLDEN = Path(__file__).with_name("golden_packets.json")


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def with_checksum(content: bytes) -> bytes:
    """A packet whose checksum fits whatever is in it."""
    return content + zlib.crc32(content).to_bytes(4, "little")


def flip(packet: bytes, bit: int) -> bytes:
    damaged = bytearray(packet)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize("key", [None, b"secret"], ids=["plain", "keyed"])
@pytest.mark.parametrize("lattice", lattice_names())
def test_every_flipped_bit_is_noticed(lattice, key):
    """Whichever bit is flipped, decode raises, the state is untouched, and the good packet still decodes."""
    layout = layout_from({"w": (9, 8), "b": (9,)})
    codec = Codec(layout, CodecConfig(lattice=lattice), key=key)
    encoder, decoder = codec.encoder(), codec.decoder()
    for step, row in enumerate(ar1_stream(layout, 3)):
        packet = encoder.encode(row, step)
        before = decoder.state_dict()
        for bit in range(8 * len(packet)):
            with pytest.raises(PacketError):
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
        for bit in (*range(400), *generator.integers(400, 8 * len(packet), 300).tolist()):
            with pytest.raises(PacketError):
                decoder.decode(flip(packet, bit))
        assert same_state(decoder.state_dict(), before)
        assert torch.equal(decoder.decode(packet), encoder.reconstruction)


def test_cut_and_extended_packets_are_noticed():
    """Every prefix of a packet, and a packet with bytes after it, is refused."""
    encoder = Codec(MIXED).encoder()
    packet = encoder.encode(ar1_stream(MIXED, 1)[0], 0)
    decoder = Codec(MIXED).decoder()
    for length in range(len(packet)):
        with pytest.raises(PacketError, match=r"cut|checksum"):
            decoder.decode(packet[:length])
    for rest in (b"\0", b"\0" * 8, packet):
        with pytest.raises(PacketError, match="checksum"):
            decoder.decode(packet + rest)
    with pytest.raises(PacketError, match="4 bytes of body|bytes of body"):
        decoder.decode(with_checksum(packet[:-4] + b"\0" * 4))
    with pytest.raises(PacketError, match="must be bytes, got str"):
        decoder.decode("packet")  # pyright: ignore[reportArgumentType]


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
    with pytest.raises(PacketError, match="Not a packet: it begins with 5858"):
        decoder.decode(with_checksum(b"XX" + packet[2:-4]))
    with pytest.raises(PacketError, match="unknown flags 0x80"):
        decoder.decode(with_checksum(packet[:3] + bytes([packet[3] | 128]) + packet[4:-4]))


def _forged(packet: bytes, place: int, *values: int) -> bytes:
    """A packet with bytes replaced, and a checksum that fits."""
    return with_checksum(packet[:place] + bytes(values) + packet[place + len(values) : -4])


def test_packets_that_contradict_themselves_are_refused():
    """Flags, numbers and sizes that no encoder writes raise, each with its own message; the state is untouched."""
    layout = LAYOUTS["one tensor"]
    codec, raw = Codec(layout), Codec(layout, CodecConfig(lattice="raw"))
    row = ar1_stream(layout, 1)[0]
    coded_packet, raw_packet = codec.encoder().encode(row, 0), raw.encoder().encode(row, 0)
    body = 29 + 1 + 1 + 2  # behind the fixed part, the step, the number and the length
    flags = 3
    beyond = with_checksum(coded_packet[:29] + write_varint(2**62 + 1) + coded_packet[30:-4])
    attempts = [
        (codec, _forged(coded_packet, flags, 1 | 4), "only raw packets may hold NaN"),
        (codec, _forged(coded_packet, flags, 1 | 2), "bytes of float32, the layout has 2000"),
        (codec, _forged(coded_packet, body, 0xFF, 0x95), "flag for NaN and infinity does not fit"),
        (codec, beyond, "which are out of range"),
        (raw, _forged(raw_packet, flags, 1), "the raw coder has raw packets only"),
        (raw, _forged(raw_packet, flags, 1 | 2 | 4), "flag for NaN and infinity does not fit"),
        (raw, _forged(raw_packet, body, 0, 0, 0xC0, 0x7F), "flag for NaN and infinity does not fit"),
    ]
    for link, packet, message in attempts:
        decoder = link.decoder()
        before = decoder.state_dict()
        with pytest.raises(PacketError, match=message):
            decoder.decode(packet)
        assert same_state(decoder.state_dict(), before)


def test_forged_packets_are_refused():
    """With a key, a packet changed by somebody without it is refused even when its checksum fits; so is another key."""
    row = ar1_stream(MIXED, 1)[0]
    packet = Codec(MIXED, key=b"secret").encoder().encode(row, 0)
    decoder = Codec(MIXED, key=b"secret").decoder()
    for place in (22, 60, len(packet) - 8):
        forged = flip(packet[:-4], 8 * place)
        with pytest.raises(PacketError, match="authentication code does not fit"):
            decoder.decode(with_checksum(forged))
    with pytest.raises(PacketError, match="authentication code does not fit"):
        Codec(MIXED, key=b"other").decoder().decode(packet)
    with pytest.raises(PacketError, match="is authenticated, this codec has no key"):
        Codec(MIXED).decoder().decode(packet)
    decoder.decode(packet)


def _mutated(packet: bytes, generator: np.random.Generator) -> bytes:
    """A packet with random damage and, mostly, a checksum that fits it."""
    content = bytearray(packet[:-4])
    start = 29 if generator.random() < 0.8 else 0  # mostly behind the digests, so that the damage gets further in
    kind = generator.integers(5)
    place = int(generator.integers(start, len(content)))
    if kind == 0:
        content[place] ^= 1 << int(generator.integers(8))
    elif kind == 1:
        content[place] = int(generator.integers(256))
    elif kind == 2:
        del content[place : place + int(generator.integers(1, 9))]
    elif kind == 3:
        content[place:place] = generator.bytes(int(generator.integers(1, 9)))
    else:
        content[place : place + 8] = generator.bytes(8)
    return with_checksum(bytes(content)) if generator.random() < 0.95 else bytes(content)


def _fuzz(number: int, seed: int) -> tuple[int, int]:
    """Decodes mutated packets; how many raised, and how many were taken for good."""
    generator = np.random.default_rng(seed)
    streams = []
    for config in (CodecConfig("fitted", nmse=0.3), CodecConfig("linear", nmse=1e-5), CodecConfig(lattice="raw")):
        codec = Codec(layout_from({"w": (30, 20), "b": (20,)}), config)
        encoder, decoder = codec.encoder(), codec.decoder()
        rows = ar1_stream(codec.layout, 6)
        packets = [encoder.encode(row, step) for step, row in enumerate(rows)]
        for packet in packets[:-1]:
            decoder.decode(packet)
        streams.append((decoder, decoder.state_dict(), packets))
    refused = accepted = 0
    for attempt in range(number):
        decoder, before, packets = streams[attempt % len(streams)]
        packet = packets[-1] if generator.random() < 0.8 else packets[0]
        try:
            decoded = decoder.decode(_mutated(packet, generator))
        except CodecError:
            refused += 1
            if attempt % 50 == 0:
                assert same_state(decoder.state_dict(), before)
        else:
            accepted += 1
            assert decoded.shape == (decoder.layout.size,)
            decoder.load_state_dict(before)
    return refused, accepted


def test_mutated_packets_raise_nothing_else():
    """Damaged packets, most with a checksum that fits, raise `CodecError` or decode to a vector of the right size."""
    refused, accepted = _fuzz(4000, seed=0)
    assert refused + accepted == 4000
    assert accepted > 100  # the damage does reach the innermost parts


@pytest.mark.slow
def test_many_mutated_packets_raise_nothing_else():
    """The same, for 100 000 packets."""
    assert sum(_fuzz(100_000, seed=1)) == 100_000


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


def _diverged_at_digest(monkeypatch: pytest.MonkeyPatch, other_machine: bool) -> tuple[Decoder, bytes]:
    """A decoder whose float state is off by one bit, and the first packet that carries a digest of it."""
    layout = layout_from({"w": (20, 10)})
    codec = Codec(layout, CodecConfig("previous"))
    encoder, decoder = codec.encoder(), codec.decoder()
    rows = ar1_stream(layout, STATE_DIGEST_EVERY + 1)
    for step, row in enumerate(rows[:-1]):
        decoder.decode(encoder.encode(row, step))
    state = decoder.state_dict()
    state["rows"].view(torch.int32)[0, 3] ^= 1
    decoder.load_state_dict(state)
    packet = encoder.encode(rows[-1], STATE_DIGEST_EVERY)
    if other_machine:
        monkeypatch.setattr("deadreckon.codec.decoder.fingerprint", lambda: b"another!")
    return decoder, packet


def test_a_diverged_float_state_is_noticed(monkeypatch):
    """One wrong bit of predictor state raises at the next digest, and a key frame is asked for."""
    decoder, packet = _diverged_at_digest(monkeypatch, other_machine=False)
    with pytest.raises(OutOfStepError, match="another float state.*key frame"):
        decoder.decode(packet)


def test_float_states_of_unlike_machines_are_not_compared(monkeypatch):
    """Between unequal fingerprints a float state may drift by rounding, and that is no error."""
    decoder, packet = _diverged_at_digest(monkeypatch, other_machine=True)
    decoder.decode(packet)
    assert len(fingerprint()) == 8


def test_the_header_is_small():
    """A frame takes at most 44 bytes, so that a packet of a well-predicted vector is small."""
    encoder = Codec(MIXED).encoder()
    for step, row in enumerate(ar1_stream(MIXED, 3), 10_000):
        encoder.encode(row, step)
        assert encoder.last_report.header_bits <= 8 * 44


def golden_stream() -> tuple[Codec, dict[str, list[Tensor]]]:
    """Vectors of whole 1/256ths, made by integer arithmetic only."""
    layout = layout_from({"weight": (12, 10), "bias": (12,), "scale": ()})
    value, rows = 12345, []
    state = [0] * layout.size
    for _ in range(4):
        for place in range(layout.size):
            value = (1103515245 * value + 12345) % 2**31
            state[place] = state[place] // 2 + (value >> 16) % 513 - 256
        rows.append(torch.tensor(state, dtype=torch.float32) / 256)
    return Codec(layout), {"rows": rows}


@pytest.mark.parametrize("predictor", ["none", "previous", "momentum_norm", "momentum_projected", "fitted", "linear"])
def test_golden_packets(predictor):
    """Packets are byte for byte what they were. If this fails on purpose: raise FORMAT_VERSION, write the file anew."""
    golden = json.loads(GOLDEN.read_text())
    assert golden["format_version"] == FORMAT_VERSION
    codec, stream = golden_stream()
    for lattice in lattice_names():
        codec = Codec(codec.layout, CodecConfig(predictor, lattice, nmse=0.05), key=b"golden")
        encoder, decoder = codec.encoder(), codec.decoder()
        for step, row in enumerate(stream["rows"]):
            packet = bytes.fromhex(golden["packets"][f"{predictor}-{lattice}"][step])
            decoded = decoder.decode(packet)
            assert encoder.encode(row, step) == packet
            assert torch.equal(decoded, encoder.reconstruction)


def write_golden_packets() -> None:
    """Writes the golden file anew: `python -c "import test_codec_packets as t; t.write_golden_packets()"` in tests/."""
    codec, stream = golden_stream()
    packets = {}
    for predictor in ("none", "previous", "momentum_norm", "momentum_projected", "fitted", "linear"):
        for lattice in lattice_names():
            config = CodecConfig(predictor, lattice, nmse=0.05)
            encoder = Codec(codec.layout, config, key=b"golden").encoder()
            packets[f"{predictor}-{lattice}"] = [
                encoder.encode(row, step).hex() for step, row in enumerate(stream["rows"])
            ]
    GOLDEN.write_text(json.dumps({"format_version": FORMAT_VERSION, "packets": packets}, indent=1) + "\n")

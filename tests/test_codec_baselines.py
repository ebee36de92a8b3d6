"""The suite that every baseline compressor passes, and the figures that each is known by."""

import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream, gradient_stream, layout_from
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from deadreckon.codec import Codec, CodecConfig, ConfigError, EncodeError, PacketError, StateError
from deadreckon.codec.baselines import Baseline, baseline_names, make_baseline
from deadreckon.codec.baselines.dithered import HexagonalLattice, IntegerLattice
from deadreckon.codec.baselines.eden import codebook, hadamard
from deadreckon.codec.baselines.wire import SymbolReader, SymbolWriter, read_mask, write_mask
from deadreckon.forecast import LayoutError

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]
LARGE = layout_from({"w": (512, 512)})
SMALL = layout_from({"w": (30, 20), "b": (40,)})
OPTIONS: dict[str, tuple[str, dict]] = {
    **{name: (name, {}) for name in baseline_names()},
    "sign-leaky": ("sign", {"feedback": "leaky", "feedback_decay": 0.5}),
    "topk-ef21": ("topk", {"feedback": "ef21"}),
    "powersgd-off": ("powersgd", {"feedback": "off"}),
    "qsgd-classic": ("qsgd", {"feedback": "classic"}),
    "eden-ef21": ("eden", {"feedback": "ef21"}),
    "qsgd-l2": ("qsgd", {"norm": "l2", "levels": 1, "bucket": 100}),
    "terngrad-packed": ("terngrad", {"coding": "packed", "clip": None}),
    "signsgd-fixed": ("signsgd", {"scale": 0.01, "feedback": "off"}),
    "topk-float16": ("topk", {"values": "float16", "fraction": 0.1}),
    "dgc-unmasked": ("dgc", {"factor_masking": False}),
    "powersgd-1": ("powersgd", {"rank": 1}),
    "eden-3-mse": ("eden", {"bits": 3, "scale": "mse", "chunk": 1024}),
    "dithered-A2": ("dithered", {"lattice": "A2", "nmse": 0.5}),
    "dithered-fine": ("dithered", {"lattice": "A2", "nmse": 1e-6}),
    "rotated-fine": ("rotated", {"nmse": 1e-5, "dead_zone": 0.2, "chunk": 256}),
    "companded-fine": ("companded", {"levels": 2000, "power": 0.75, "bucket": 100}),
    "dithered-wiener": ("dithered", {"wiener": True, "nmse": 0.5}),
}
every_baseline = pytest.mark.parametrize("name", OPTIONS)


def made(name: str) -> Baseline:
    kind, options = OPTIONS[name]
    return make_baseline(kind, **options)


def same_bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


def gaussian(size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def relative_error(vector: Tensor, decoded: Tensor) -> float:
    wide = vector.double()
    return float((wide - decoded.double()).square().sum() / wide.square().sum())


def coded(baseline: Baseline, vector: Tensor, layout=LARGE, step: int = 0) -> tuple[float, float, Tensor]:
    """Bits a coordinate, relative error, and what a first packet decodes to."""
    packet = baseline.encoder(layout).encode(vector, step)
    decoded = baseline.decoder(layout).decode(packet)
    return 8 * len(packet) / layout.size, relative_error(vector, decoded), decoded


def mean_decoded(name: str, vector: Tensor, layout, number: int, **options) -> Tensor:
    """The mean of what one vector decodes to with as many seeds."""
    total = torch.zeros(layout.size, dtype=torch.float64)
    for seed in range(number):
        total += coded(make_baseline(name, seed=seed, **options), vector, layout, step=seed % 3)[2]
    return (total / number).float()


# Every baseline


@every_baseline
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_decoder_returns_the_encoders_reconstruction(name, layout):
    """Over a stream with changing rates, zeros and a skipped step, a decoder made apart holds equal bits."""
    encoder = made(name).encoder(layout)
    decoder = pickle.loads(pickle.dumps(made(name))).decoder(layout)
    rows = ar1_stream(layout, 7)
    rows[3] = torch.zeros(layout.size)
    for number, row in enumerate(rows):
        packet = encoder.encode(row, number + 5 * (number > 4), 0.1 / (1 + number))
        assert same_bits(decoder.decode(packet), encoder.reconstruction)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name not in ("float16", "signsgd-fixed")])
def test_vectors_of_any_scale_are_coded(name):
    """Where the format has float32's range, any vector that leaves room for sums comes back, of its own scale."""
    for scale in (1e-36, 1e-20, 1e20, 1e35):
        vector = scale * gaussian(SMALL.size)
        encoder = made(name).encoder(SMALL)
        packet = encoder.encode(vector, 1)
        decoded = made(name).decoder(SMALL).decode(packet)
        assert relative_error(vector / scale, decoded / scale) < 8
    tiny = gaussian(SMALL.size) * 1e-43
    assert made(name).encoder(SMALL).encode(tiny, 1)


@every_baseline
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_refused_vector_leaves_no_trace(name, bad):
    """A vector that is not finite raises, and the encoder goes on as if it had never been asked."""
    rows = ar1_stream(SMALL, 5)
    encoder, other = made(name).encoder(SMALL), made(name).encoder(SMALL)
    for step, row in enumerate(rows):
        if step == 2:
            broken = row.clone()
            broken[7] = bad
            with pytest.raises(EncodeError, match="must be finite"):
                encoder.encode(broken, step)
        assert encoder.encode(row, step, 0.1) == other.encode(row, step, 0.1)


@every_baseline
def test_abort_takes_a_packet_back(name):
    """After an abort the next packets are those of an encoder that never made the aborted one; only one goes back."""
    rows = ar1_stream(SMALL, 6)
    encoder, other = made(name).encoder(SMALL), made(name).encoder(SMALL)
    with pytest.raises(EncodeError, match="no packet to take back"):
        encoder.abort()
    for step, row in enumerate(rows):
        if step == 3:
            encoder.encode(-2 * row, step)
            encoder.abort()
            with pytest.raises(EncodeError, match="no packet to take back"):
                encoder.abort()
        assert encoder.encode(row, step, 0.1) == other.encode(row, step, 0.1)


@every_baseline
def test_resumed_equals_uninterrupted(name):
    """Both ends, made anew and given their saved states, go on bit for bit."""
    rows = ar1_stream(SMALL, 8)
    encoder, decoder = made(name).encoder(SMALL), made(name).decoder(SMALL)
    for step, row in enumerate(rows[:4]):
        decoder.decode(encoder.encode(row, step, 0.1))
    resumed, receiver = made(name).encoder(SMALL), made(name).decoder(SMALL)
    resumed.load_state_dict(encoder.state_dict())
    receiver.load_state_dict(decoder.state_dict())
    for step, row in enumerate(rows[4:], 4):
        packet = encoder.encode(row, step, 0.1)
        assert resumed.encode(row, step, 0.1) == packet
        assert same_bits(receiver.decode(packet), decoder.decode(packet))


@every_baseline
def test_input_is_not_changed(name):
    """Neither the encoded vector nor a handed-out result is the ends' own memory."""
    rows = ar1_stream(SMALL, 3)
    encoder, decoder = made(name).encoder(SMALL), made(name).decoder(SMALL)
    other = made(name).decoder(SMALL)
    for step, row in enumerate(rows):
        kept = row.clone()
        packet = encoder.encode(row, step)
        assert torch.equal(row, kept)
        row.fill_(9)
        encoder.reconstruction.fill_(9)
        decoded = decoder.decode(packet)
        assert same_bits(decoded, encoder.reconstruction)
        decoded.fill_(9)
        assert same_bits(other.decode(packet), encoder.reconstruction)


@every_baseline
def test_cut_and_lengthened_packets_are_refused(name):
    """A packet of another length raises, and the decoder still takes the sound one after it."""
    encoder, decoder = made(name).encoder(SMALL), made(name).decoder(SMALL)
    packet = encoder.encode(gaussian(SMALL.size), 300)
    bad = [packet[:cut] for cut in {0, 1, 3, len(packet) // 2, len(packet) - 4, len(packet) - 1}]
    for data in (*bad, packet + b"\0", packet + b"\0\0\0\1", packet + packet):
        with pytest.raises(PacketError):
            decoder.decode(data)
    assert same_bits(decoder.decode(packet), encoder.reconstruction)


@every_baseline
@settings(max_examples=20)
@given(data=st.data())
def test_damaged_packets_raise_or_decode(name, data):
    """Any bytes give a finite vector of the right length or a `PacketError`, nothing else."""
    rows = ar1_stream(SMALL, 1)
    packet = bytearray(made(name).encoder(SMALL).encode(rows[0], 1))
    if data.draw(st.booleans()):
        packet = bytearray(data.draw(st.binary(max_size=80)))
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = made(name).decoder(SMALL).decode(bytes(packet))
    except PacketError:
        return
    assert decoded.shape == (SMALL.size,)
    assert bool(decoded.isfinite().all())


THREE = layout_from({"w": (3,)})


def floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def symbols_of(values: list[int], number: int) -> bytes:
    writer = SymbolWriter()
    writer.add(np.array(values, np.int32), number)
    return writer.finish()


TRITS = symbols_of([0, 1, 2], 3)
WORD = b"\1\0\0\0"


@pytest.mark.parametrize(
    ("name", "options", "packet", "message"),
    [
        ("float32", {}, floats(1, math.nan, 0), "holds NaN or infinity"),
        ("float16", {}, np.array([1, math.inf, 0], "<f2").tobytes(), "holds NaN or infinity"),
        ("int8", {}, floats(3e38) + b"\x7f\0\0", "decodes to NaN or infinity"),
        ("int8", {}, floats(1) + b"\x80\0\0", "none of the grid's"),
        ("int8", {}, floats(-1) + b"\x7f\0\0", "none of the grid's"),
        ("qsgd", {"levels": 1}, floats(-1) + TRITS, "norm is negative"),
        ("qsgd", {"levels": 1}, floats(1) + symbols_of([1, 1, 1], 3) + WORD, "more than its symbols"),
        ("qsgd", {"levels": 1}, floats(1) + TRITS + b"\1", "not of whole words"),
        ("qsgd", {"levels": 1}, floats(1) + TRITS + b"\0\0\0\0", "ends with an empty word"),
        ("qsgd", {"levels": 1}, floats(1) + b"\2\3\0", "names symbols that there are not"),
        ("qsgd", {"levels": 1}, floats(1) + b"\5\0\1\x80\x80\1", "shares do not add up"),
        ("qsgd", {"levels": 1}, floats(1) + b"\3\1\0\0", "more than its symbols"),
        ("terngrad", {}, floats(-1) + TRITS, "scale is negative"),
        ("terngrad", {"coding": "packed"}, floats(1) + bytes([243]), "five ternary digits"),
        ("terngrad", {"coding": "packed"}, floats(1) + bytes([13]), "five ternary digits"),
        ("sign", {}, floats(-1) + b"\x80", "scale is negative"),
        ("sign", {}, floats(1) + b"\x90", "padding is not zero"),
        ("signsgd", {}, floats(-1) + b"\x80", "scale is negative"),
        ("topk", {}, b"\4\0" + floats(1), "more coordinates are set"),
        ("topk", {}, b"\3\0" + floats(1, 1, 1), "1 coordinates are due, it has 3"),
        ("topk", {}, b"\0\1" + WORD, "more than its symbols"),
        ("topk", {}, b"\1\1\0\0\0\0" + floats(1), "ends with an empty word"),
        ("topk", {"fraction": 1.0, "values": "float16"}, b"\3\0" + floats(-1) + 6 * b"\0", "beyond the largest"),
        ("topk", {"fraction": 1.0, "values": "float16"}, b"\3\0" + floats(1) + 3 * b"\1\x3c", "beyond the largest"),
        ("eden", {}, b"\0" + floats(-1) + b"\x80", "scale is negative"),
        ("eden", {}, b"\x81" + 7 * b"\x80" + b"\x40" + floats(1) + b"\x80", "is of step"),
        ("dithered", {}, b"\0" + floats(-1) + b"\1\0", "with cells of -1"),
        ("dithered", {}, b"\0" + floats(1) + b"\3\0", "no contexts of fineness 3"),
        ("dithered", {}, b"\0" + floats(0) + b"\0", "5 are due"),
    ],
)
def test_each_kind_of_damage_is_named(name, options, packet, message):
    """Of a vector of three, each packet here has one fault, and the message says which."""
    with pytest.raises(PacketError, match=message):
        make_baseline(name, **options).decoder(THREE).decode(packet)


def test_a_mask_with_another_count_is_refused():
    """A mask whose bits are not as many as its count says is damage, though it decodes."""
    mask = np.zeros(64, np.bool_)
    mask[[3, 30]] = True
    packet = bytearray(write_mask(mask, (slice(0, 64),)))
    packet[0] = 3
    with pytest.raises(PacketError, match="as many coordinates as it says"):
        read_mask(bytes(packet), 0, 64, (slice(0, 64),))


@pytest.mark.parametrize("name", baseline_names())
def test_vectors_of_another_shape_or_type_are_refused(name):
    """Shape, type and step are checked, and named."""
    encoder = make_baseline(name).encoder(SMALL)
    with pytest.raises(LayoutError, match=r"must have shape \(640,\)"):
        encoder.encode(torch.zeros(SMALL.size + 1), 0)
    with pytest.raises(EncodeError, match="floating-point"):
        encoder.encode(torch.zeros(SMALL.size, dtype=torch.int64), 0)
    for step in (-1, True, 1.5, 2**63):
        with pytest.raises(EncodeError, match="`step` must be a whole number"):
            encoder.encode(torch.zeros(SMALL.size), step)  # pyright: ignore[reportArgumentType]
    with pytest.raises(EncodeError, match="Nothing has been encoded"):
        _ = encoder.reconstruction
    with pytest.raises(PacketError, match="must be bytes"):
        make_baseline(name).decoder(SMALL).decode("packet")  # pyright: ignore[reportArgumentType]


def test_what_float32_cannot_hold_is_refused():
    """A result beyond float32 raises at the sender instead of reaching the wire."""
    largest = torch.finfo(torch.float32).max
    for name in ("qsgd-l2", "powersgd", "eden-3-mse"):
        encoder = made(name).encoder(SMALL)
        with pytest.raises(EncodeError, match="float32 cannot hold"):
            encoder.encode(torch.full((SMALL.size,), largest), 1)
        assert encoder.encode(gaussian(SMALL.size), 1) == made(name).encoder(SMALL).encode(gaussian(SMALL.size), 1)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({}, "must have"),
        ({"memory.0": torch.zeros(3)}, "`memory.0` must be finite float32"),
        ({"residual": torch.zeros(3)}, "`residual` of error feedback"),
        ({"estimate": torch.full((0,), 1.0, dtype=torch.float64)}, "`estimate` must be finite float32"),
    ],
)
def test_unfit_states_are_refused(saved, message):
    """A state that lacks parts or is of another shape raises, and the old one stays."""
    encoder = make_baseline("dgc").encoder(SMALL)
    encoder.encode(gaussian(SMALL.size), 1, 0.1)
    before = encoder.state_dict()
    with pytest.raises(StateError, match=message):
        encoder.load_state_dict({**before, **saved} if saved else {})
    assert all(torch.equal(encoder.state_dict()[name], before[name]) for name in before)
    decoder = make_baseline("dgc").decoder(SMALL)
    with pytest.raises(StateError, match="must have"):
        decoder.load_state_dict({})
    with pytest.raises(StateError, match="`estimate` must be"):
        decoder.load_state_dict({"estimate": torch.zeros(3)})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nothing", {}, "name must be one of"),
        ("eden", {"bit": 2}, "Unknown options of 'eden': .'bit'."),
        ("eden", {"bits": 5}, "`bits` must be a whole number from 1 to 4, got 5"),
        ("eden", {"scale": "best"}, "`scale` must be one of"),
        ("eden", {"chunk": 1000}, "`chunk` must be one of .'a power of two'"),
        ("eden", {"seed": -1}, "`seed`"),
        ("qsgd", {"levels": 0}, "`levels`"),
        ("qsgd", {"bucket": True}, "`bucket`"),
        ("qsgd", {"norm": "l1"}, "`norm`"),
        ("terngrad", {"clip": 0.0}, "`clip`"),
        ("terngrad", {"coding": "gzip"}, "`coding`"),
        ("signsgd", {"scale": 0.0}, "`scale`"),
        ("topk", {"fraction": 1.5}, "`fraction`"),
        ("topk", {"values": "int8"}, "`values`"),
        ("topk", {"momentum": 1.0}, "`momentum`"),
        ("dgc", {"feedback": "off"}, "`feedback` must be 'classic' or 'leaky', got 'off'"),
        ("powersgd", {"rank": 0}, "`rank`"),
        ("int8", {"block": 0}, "`block`"),
        ("dithered", {"lattice": "E8"}, "`lattice`"),
        ("rotated", {"nmse": 1.0}, "`nmse`"),
        ("rotated", {"dead_zone": 0.5}, "`dead_zone`"),
        ("rotated", {"chunk": 1000}, "`chunk` must be one of .'a power of two'"),
        ("rotated", {"seed": -1}, "`seed`"),
        ("companded", {"levels": 0}, "`levels`"),
        ("companded", {"power": 0.0}, "`power`"),
        ("companded", {"bucket": 0}, "`bucket`"),
        ("dithered", {"nmse": 0.0}, "`nmse`"),
        ("dithered", {"nmse": 1.0, "wiener": True}, "`nmse`"),
        ("sign", {"feedback": "some"}, "`feedback` must be one of"),
        ("sign", {"feedback_decay": 0.0}, "`feedback_decay`"),
    ],
)
def test_impossible_options_are_refused(name, options, message):
    """Options are checked where they are given, and the message names them."""
    with pytest.raises(ConfigError, match=message):
        make_baseline(name, **options)


def test_layouts_beyond_a_packet_are_refused():
    """Neither end is made for more coordinates than a packet may hold."""
    huge = layout_from({"w": (2**15, 2**16)})
    for end in (make_baseline("float32").encoder, make_baseline("float32").decoder):
        with pytest.raises(ConfigError, match="holds at most"):
            end(huge)


# Error feedback in the ends


@pytest.mark.parametrize("name", ["sign", "signsgd", "topk", "powersgd"])
def test_feedback_loses_nothing(name):
    """What was decoded and what is owed add up to what was encoded, though each packet is coarse."""
    rows = torch.stack(ar1_stream(MIXED, 30))
    encoder = make_baseline(name).encoder(MIXED)
    total = torch.zeros(MIXED.size, dtype=torch.float64)
    for step, row in enumerate(rows):
        encoder.encode(row, step, 0.1)
        total += encoder.reconstruction
    owed = torch.from_numpy(encoder.feedback_state.residual)
    assert_close(total + owed, rows.double().sum(0), rtol=0, atol=1e-4)
    assert relative_error(rows.sum(0), total) < 0.6 * relative_error(
        rows[0], coded(make_baseline(name), rows[0], MIXED)[2]
    )


def test_ef21_settles_on_a_constant_vector():
    """The reconstruction converges to a vector that stays, where plain top-k stays as far away as it was."""
    vector = gaussian(SMALL.size)
    errors = {}
    for rule in ("ef21", "off"):
        baseline = make_baseline("topk", fraction=0.2, feedback=rule)
        encoder, decoder = baseline.encoder(SMALL), baseline.decoder(SMALL)
        decoded = [decoder.decode(encoder.encode(vector, step)) for step in range(6)]
        errors[rule] = relative_error(vector, decoded[-1])
    assert errors["ef21"] < 1e-12
    assert errors["off"] > 0.1


def test_unbiased_means_without_feedback():
    """Feedback of its own kind ends unbiasedness; EF21 around an unbiased coder keeps it."""
    assert make_baseline("eden").unbiased
    assert make_baseline("eden", feedback="ef21").unbiased
    assert not make_baseline("eden", feedback="classic").unbiased
    assert not make_baseline("eden", scale="mse").unbiased
    assert not make_baseline("terngrad").unbiased
    assert not make_baseline("dithered", wiener=True).unbiased
    assert not make_baseline("topk", feedback="off").unbiased


# Figures


@pytest.mark.parametrize(
    ("name", "options", "bits", "error"),
    [
        ("float32", {}, 32, 0),
        ("float16", {}, 16, 4.3e-8),
        ("bfloat16", {}, 16, 2.77e-6),
        ("int8", {}, 8.0313, 6.2e-5),
        ("sign", {"feedback": "off"}, 1.0002, 0.3634),
        ("signsgd", {"feedback": "off"}, 1.0002, 0.3634),
        ("qsgd", {"levels": 1}, 1.115, 1.61),
        ("qsgd", {"levels": 7}, 3.25, 0.037),
        ("qsgd", {"levels": 7, "norm": "l2"}, 1.12, 1.58),
        ("terngrad", {"coding": "packed"}, 1.6002, 1.0),
        ("terngrad", {"clip": None, "coding": "packed"}, 1.6002, 2.7),
        ("drive", {"scale": "mse"}, 1.0006, 0.3634),
        *[
            ("eden", {"bits": b, "scale": "mse"}, b, d)
            for b, d in zip((2, 3, 4), (0.1175, 0.03455, 0.0095), strict=True)
        ],
        *[("eden", {"bits": b}, b, d) for b, d in zip((1, 2, 3, 4), (0.571, 0.133, 0.0358, 0.00959), strict=True)],
        ("dithered", {"nmse": 0.1}, 1.987, 0.1),
        ("dithered", {"nmse": 0.1, "wiener": True}, 1.919, 0.1),
        ("dithered", {"nmse": 0.5, "wiener": True}, 0.755, 0.5),
        ("dithered", {"nmse": 0.1, "lattice": "A2"}, 1.975, 0.1),
        ("dithered", {"nmse": 0.01, "lattice": "A2"}, 3.567, 0.01),
        ("rotated", {"nmse": 0.5}, 0.7036, 0.496),
        ("rotated", {"nmse": 0.1}, 1.9237, 0.0991),
        ("companded", {"levels": 7}, 3.402, 0.0207),
        ("companded", {"levels": 7, "power": 1.0}, 2.965, 0.0247),
    ],
)
def test_figures_on_a_gaussian_vector(name, options, bits, error):
    """Bits a coordinate come within half a percent, and the error within 2 %, of the known figures."""
    found_bits, found_error, _ = coded(make_baseline(name, **options), gaussian(LARGE.size))
    assert abs(found_bits - bits) < max(0.005, 0.005 * bits)
    assert_close(found_error, float(error), rtol=0.02, atol=0)


def test_rotation_makes_vectors_alike():
    """EDEN's error on a peaky vector is the Gaussian one, where QSGD's doubles."""
    peaky = gaussian(LARGE.size) ** 3
    assert_close(coded(make_baseline("eden", bits=2), peaky)[1], 0.133, rtol=0.02, atol=0)
    assert coded(make_baseline("qsgd"), peaky)[1] > 4 * 0.037


def test_rotation_before_an_entropy_coder_forgoes_what_peaks_save():
    """A Laplacian behind a rotation takes the Gaussian's bits; entropy-coded Z without one takes 0.1 bit less."""
    peaky = torch.from_numpy(np.random.default_rng(0).laplace(size=LARGE.size).astype(np.float32))
    bits, error, _ = coded(make_baseline("rotated", nmse=0.05), peaky)
    assert_close(bits, coded(make_baseline("rotated", nmse=0.05), gaussian(LARGE.size))[0], rtol=0.01, atol=0)
    plain = Codec(LARGE, CodecConfig("none", entropy="tensor_tables", nmse=0.05)).encoder()
    assert 8 * len(plain.encode(peaky, 0)) / LARGE.size < bits - 0.08
    assert error <= 0.05


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_companded_cells_widen_with_the_magnitude(power):
    """A coordinate decodes to the level that is nearest once both are raised to the power."""
    vector = torch.linspace(-2, 2, 801)
    decoded = coded(make_baseline("companded", levels=5, power=power), vector, layout_from({"w": (801,)}))[2]
    levels = 2 * (torch.arange(6, dtype=torch.float64) / 5) ** (1 / power)
    nearest = (vector.double().abs()[:, None] ** power - levels**power).abs().argmin(1)
    inside = ((vector.double().abs() / 2) ** power * 5 % 1 - 0.5).abs() > 1e-6  # a tie may go either way
    assert int(inside.sum()) > 780
    assert_close(decoded.double()[inside], (vector.sign() * levels[nearest])[inside], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qsgd", {"levels": 1}),
        ("qsgd", {"levels": 3, "norm": "l2"}),
        ("terngrad", {"clip": None}),
        ("eden", {"bits": 1}),
        ("eden", {"bits": 3}),
        ("dithered", {"nmse": 0.5}),
        ("dithered", {"nmse": 0.5, "lattice": "A2"}),
    ],
)
def test_unbiased_coders_average_out(name, options):
    """The error of a mean over 100 seeds is a 100th of one packet's, so no bias is left that matters."""
    vector = torch.from_numpy(np.random.default_rng(1).laplace(size=SMALL.size).astype(np.float32))
    assert make_baseline(name, **options).unbiased
    single = np.mean([coded(make_baseline(name, seed=s, **options), vector, SMALL)[1] for s in range(20)])
    mean = relative_error(vector, mean_decoded(name, vector, SMALL, 100, **options))
    assert 0.7 < 100 * mean / single < 1.4


def test_clipping_and_shrinking_bias():
    """The same measure finds the bias of clipped TernGrad and of the Wiener factor."""
    vector = torch.from_numpy(np.random.default_rng(1).laplace(size=SMALL.size).astype(np.float32))
    for name, options in (("terngrad", {"clip": 1.0}), ("dithered", {"nmse": 0.5, "wiener": True})):
        mean = relative_error(vector, mean_decoded(name, vector, SMALL, 100, **options))
        assert mean > 0.1


def test_seed_and_step_change_the_error():
    """Different seeds or steps give independent errors, whose mean has half the energy."""
    vector = gaussian(LARGE.size)
    for name in ("qsgd", "terngrad", "eden", "dithered"):
        options = {"clip": None} if name == "terngrad" else {}
        first = coded(make_baseline(name, seed=1, **options), vector)
        for seed, step in ((2, 0), (1, 1)):
            other = coded(make_baseline(name, seed=seed, **options), vector, step=step)
            halved = relative_error(vector, (first[2] + other[2]) / 2)
            assert_close(halved, (first[1] + other[1]) / 4, rtol=0.05, atol=0)


# Single methods


@pytest.mark.parametrize(("lattice", "moment"), [("Z", 1 / 12), ("A2", 5 / 36 / math.sqrt(3))])
def test_dithered_error_is_the_cells_whatever_the_vector(lattice, moment):
    """Error energy is G V^(2/n), uncorrelated with the vector, for Gaussian, constant and sparse vectors."""
    baseline = make_baseline("dithered", lattice=lattice, nmse=0.3)
    sparse = torch.zeros(LARGE.size)
    sparse[::1000] = 5.0
    for vector in (gaussian(LARGE.size), torch.full((LARGE.size,), 0.7), sparse):
        packet = baseline.encoder(LARGE).encode(vector, 3)
        width = float(np.frombuffer(packet[1:5], "<f4")[0])
        volume = 1.0 if lattice == "Z" else math.sqrt(3) / 2
        error = (baseline.decoder(LARGE).decode(packet) - vector).double()
        assert_close(
            float(error.square().mean()), moment * (volume if lattice == "A2" else 1) * width**2, rtol=0.01, atol=0
        )
        assert_close(relative_error(vector, error + vector), 0.3, rtol=0.01, atol=0)
        assert abs(float((error * vector).sum() / error.norm() / vector.double().norm())) < 0.01


@pytest.mark.parametrize("lattice", [IntegerLattice(), HexagonalLattice()])
def test_nearest_points_are_nearest(lattice):
    """No lattice point around is nearer, points are their own nearest, and folding is negation, twice nothing."""
    points = np.random.default_rng(0).uniform(-4, 4, (2000, lattice.dimension))
    integers = lattice.nearest(points)
    found = np.square(points - lattice.point(integers)).sum(1)
    steps = np.stack(np.meshgrid(*[np.arange(-3, 4)] * lattice.dimension), -1).reshape(-1, lattice.dimension)
    for step in steps:
        assert (np.square(points - lattice.point(integers + step)).sum(1) >= found - 1e-12).all()
    assert np.array_equal(lattice.nearest(lattice.point(integers)), integers)
    signs = np.where(np.arange(2000) % 3, -1, 1)
    folded = lattice.folded(integers, signs)
    assert_close(lattice.point(folded), lattice.point(integers) * signs[:, None])
    assert np.array_equal(lattice.folded(folded, signs), integers)


def test_contexts_of_the_dither_save_bits():
    """At NMSE 0.5 the coded rate comes within 0.02 bit of H(Q | u), 0.2 bit below H(Q)."""
    vector = gaussian(LARGE.size).numpy().astype(np.float64)
    packet_bits, _, _ = coded(make_baseline("dithered", nmse=0.5), torch.from_numpy(vector).float())
    dither = np.random.default_rng(0).uniform(-0.5, 0.5, len(vector))
    counts = np.unique(np.rint(vector / vector.std() / math.sqrt(6) + dither), return_counts=True)[1] / len(vector)
    blind = -float(counts @ np.log2(counts))
    assert packet_bits < blind - 0.18


@given(st.lists(st.lists(st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-40, 40), max_size=60), max_size=3))
def test_integer_runs_round_trip(runs):
    """Runs of whole numbers of any magnitude below 2^31 come back."""
    writer = SymbolWriter()
    for values in runs:
        writer.add_integers(np.array(values, np.int64))
    reader = SymbolReader(writer.finish(), 0)
    for values in runs:
        assert reader.read_integers(len(values)).tolist() == values
    reader.finish()


def test_the_hadamard_transform_is_orthonormal():
    """It equals the product with Sylvester's matrix and is its own inverse."""
    matrix = np.ones((1, 1))
    for _ in range(6):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    values = np.random.default_rng(0).standard_normal(64)
    assert_close(hadamard(values), matrix @ values / 8)
    assert_close(hadamard(hadamard(values)), values)
    assert hadamard(np.array([3.0])) == [3.0]


@pytest.mark.parametrize(("bits", "distortion"), [(1, 1 - 2 / math.pi), (2, 0.117482), (3, 0.034548), (4, 0.009501)])
def test_codebooks_are_lloyd_and_maxs(bits, distortion):
    """Levels are the means of their cells and give the published distortion (Max 1960, table I)."""
    levels = codebook(bits).copy()
    grid = np.linspace(-9, 9, 400_001)
    weight = np.exp(-(grid**2) / 2)
    cell = np.searchsorted((levels[1:] + levels[:-1]) / 2, grid)
    mass = np.bincount(cell, weight)
    assert_close(levels, np.bincount(cell, weight * grid) / mass, rtol=0, atol=1e-4)
    assert_close(float((weight * (grid - levels[cell]) ** 2).sum() / weight.sum()), distortion, rtol=1e-3, atol=0)
    assert np.array_equal(levels, -levels[::-1])


@pytest.mark.parametrize(
    ("size", "num_chunks", "padded"),
    [(1, 1, 1), (5, 1, 8), (127, 1, 128), (128, 1, 128), (129, 2, 129), (5000, 5, 5000), (98_381, 3, 98_432)],
)
def test_eden_pads_the_last_chunk_alone(size, num_chunks, padded):
    """A packet is a step, a scale for each chunk, and the bits of coordinates padded in the last chunk only."""
    layout = layout_from({"w": (size,)})
    packet = make_baseline("eden", bits=2).encoder(layout).encode(gaussian(size), 0)
    assert len(packet) == 1 + 4 * num_chunks + math.ceil(2 * padded / 8)


def test_eden_is_exact_on_one_coordinate():
    """A vector with one entry that is not zero is rotated to equal magnitudes, which one bit codes exactly."""
    vector = torch.zeros(4096)
    vector[5] = 3.0
    assert_close(coded(make_baseline("drive"), vector, layout_from({"w": (4096,)}))[2], vector)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_powersgd_is_exact_on_matrices_of_its_rank(rank):
    """One packet reproduces a matrix of rank r; one of rank r + 1 needs more, and more packets do not lose it again."""
    layout = layout_from({"w": (40, 5, 6), "bias": (40,)})
    left, right = gaussian(40 * (rank + 1)).view(40, -1), gaussian(30 * (rank + 1), 1).view(-1, 30)
    bias = gaussian(40, 2)
    for extra in (0, 1):
        matrix = left[:, : rank + extra] @ right[: rank + extra]
        baseline = make_baseline("powersgd", rank=rank, feedback="off")
        error = coded(baseline, torch.cat([matrix.reshape(-1), bias]), layout)[1]
        assert (error < 1e-12) == (extra == 0)
    decoded = coded(baseline, torch.cat([matrix.reshape(-1), bias]), layout)[2]
    assert torch.equal(decoded[-40:], bias)


def test_powersgds_warm_start_finds_the_best_subspace():
    """On a constant matrix, packets approach the best approximation of rank r, also after a zero vector."""
    layout = layout_from({"w": (40, 30)})
    matrix = gaussian(1200).view(40, 30) + 2 * gaussian(40, 1)[:, None] * gaussian(30, 2)
    values = torch.linalg.svdvals(matrix)
    best = float(values[2:].square().sum() / values.square().sum())
    encoder = make_baseline("powersgd", rank=2, feedback="off").encoder(layout)
    errors = []
    for step in range(30):
        encoder.encode(torch.zeros(1200), step)
        encoder.encode(matrix.reshape(-1), step)
        errors.append(relative_error(matrix.reshape(-1), encoder.reconstruction))
    assert errors[0] > 1.02 * best
    assert_close(errors[-1], best, rtol=1e-3, atol=0)


@pytest.mark.parametrize("values", ["float32", "float16"])
def test_topk_keeps_the_largest(values):
    """The k largest magnitudes come back, exactly as float32, within float16's rounding else; the rest is zero."""
    vector = gaussian(MIXED.size) * torch.linspace(1e-6, 1, MIXED.size)
    baseline = make_baseline("topk", fraction=0.05, values=values, feedback="off")
    _, _, decoded = coded(baseline, vector, MIXED)
    count = math.ceil(0.05 * MIXED.size)
    kept = vector.abs().topk(count).indices
    expected = torch.zeros_like(vector)
    expected[kept] = vector[kept]
    assert_close(decoded, expected, rtol=0 if values == "float32" else 1e-3, atol=0)


def test_topk_counts_are_not_off_by_rounding():
    """A share of 0.07 of 100 coordinates is 7 of them, though the product is above 7 in floating point."""
    layout = layout_from({"w": (100,)})
    assert int(coded(make_baseline("topk", fraction=0.07), gaussian(100), layout)[2].count_nonzero()) == 7


def test_topk_positions_cost_their_entropy():
    """Positions take n H(k / n) bits to within 100, and less where tensors differ in density."""
    layout = layout_from({"a": (20_000,), "b": (20_000,)})
    vector = gaussian(40_000)
    share = 0.01
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    bits = 40_000 * coded(make_baseline("topk"), vector, layout)[0] - 32 * 400
    assert abs(bits - 40_000 * entropy) < 100
    vector[:20_000] *= 1e-3
    uneven = 40_000 * coded(make_baseline("topk"), vector, layout)[0] - 32 * 400
    assert uneven < bits - 300


def test_dgc_is_the_papers_recurrence():
    """Momentum, accumulation and masking follow the paper's algorithm, written out beside it."""
    layout = layout_from({"w": (50,)})
    for masking in (True, False):
        encoder = make_baseline("dgc", fraction=0.1, momentum=0.9, factor_masking=masking).encoder(layout)
        momentum, owed = torch.zeros(50), torch.zeros(50)
        for step in range(8):
            row = gaussian(50, step)
            momentum = 0.9 * momentum + row
            owed = owed + momentum
            sent = torch.zeros(50, dtype=torch.bool)
            sent[owed.abs().topk(5).indices] = True
            encoder.encode(row, step)
            assert_close(encoder.reconstruction, torch.where(sent, owed, 0))
            owed = torch.where(sent, 0, owed)
            if masking:
                momentum = torch.where(sent, 0, momentum)


def test_sign_scales_are_mean_magnitudes():
    """Each tensor's scale is its mean magnitude; one scale, or a fixed one, where that is asked for."""
    vector = torch.tensor([1.0, -3.0, 0.0, 10.0, -20.0])
    layout = layout_from({"a": (3,), "b": (2,)})
    scaled = coded(make_baseline("sign"), vector, layout)[2]
    assert_close(scaled, torch.tensor([4 / 3, -4 / 3, 4 / 3, 15, -15]))
    assert_close(coded(make_baseline("signsgd"), vector, layout)[2], 6.8 * torch.tensor([1.0, -1, 1, 1, -1]))
    packet = make_baseline("signsgd", scale=0.5).encoder(layout).encode(vector, 0)
    assert len(packet) == 1
    assert_close(
        make_baseline("signsgd", scale=0.5).decoder(layout).decode(packet), 0.5 * torch.tensor([1.0, -1, 1, 1, -1])
    )


def test_half_precision_saturates():
    """Beyond float16 and bfloat16 the largest finite number is sent, not infinity; float32 is exact."""
    layout = layout_from({"w": (3,)})
    vector = torch.tensor([1e5, -torch.finfo(torch.float32).max, 1 / 3])
    assert coded(make_baseline("float16"), vector, layout)[2][:2].tolist() == [65504.0, -65504.0]
    assert_close(coded(make_baseline("bfloat16"), vector, layout)[2], vector, rtol=0.01, atol=0)
    assert same_bits(coded(make_baseline("float32"), vector, layout)[2], vector)


def test_int8_error_is_half_a_step_at_most():
    """No coordinate is off by more than its block's largest magnitude over 254."""
    vector = ar1_stream(MIXED, 1)[0]
    decoded = coded(make_baseline("int8", block=100), vector, MIXED)[2]
    for block, values in zip((decoded - vector).split(100), vector.split(100), strict=True):
        assert float(block.abs().max()) <= float(values.abs().max()) / 254 * 1.001


def test_entropy_coding_shortens_ternary_packets():
    """The entropy-coded and the packed form of TernGrad decode alike, the former in fewer bits."""
    rows, layout = gradient_stream(1)
    coded_form = make_baseline("terngrad")
    packed_form = make_baseline("terngrad", coding="packed")
    first, second = coded(coded_form, rows[0], layout), coded(packed_form, rows[0], layout)
    assert same_bits(first[2], second[2])
    assert first[0] < 0.8 * second[0]


@given(st.data())
def test_symbol_runs_round_trip(data):
    """Any runs over any alphabets come back, and at a length near their entropy."""
    runs = data.draw(
        st.lists(
            st.integers(2, 70).flatmap(lambda k: st.tuples(st.just(k), st.lists(st.integers(0, k - 1)))), max_size=5
        )
    )
    writer = SymbolWriter()
    for number, symbols in runs:
        writer.add(np.array(symbols, np.int32), number)
    packet = writer.finish()
    reader = SymbolReader(b"ab" + packet, 2)
    for number, symbols in runs:
        assert reader.read(len(symbols), number).tolist() == symbols
    reader.finish()


@given(st.lists(st.integers(0, 40), max_size=5), st.integers(0, 2**32 - 1))
def test_masks_round_trip(sizes, seed):
    """Any mask over any spans comes back, and what follows it is found."""
    generator = np.random.default_rng(seed)
    edges = np.cumsum([0, *sizes])
    spans = tuple(slice(int(a), int(b)) for a, b in itertools.pairwise(edges))
    mask = np.concatenate([generator.random(size) < generator.choice([0, 0.1, 0.5, 1]) for size in [0, *sizes]])
    packet = write_mask(mask, spans)
    found, stop = read_mask(b"x" + packet + b"yz", 1, int(edges[-1]), spans)
    assert np.array_equal(found, mask)
    assert stop == 1 + len(packet)

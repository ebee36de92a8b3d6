"""The fast coding as machine code, beside numpy and constriction."""

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, gradient_stream, layout_from
from numba.core import caching

from deadreckon.codec import Codec, CodecConfig, Encoder, PacketError, endpoint, vector_kernels, vector_passes
from deadreckon.codec.coding import Search
from deadreckon.codec.compiled import machine_code
from deadreckon.codec.decoded import add_share
from deadreckon.codec.lattice import cell_index
from deadreckon.codec.run_coding import RunCoding, Runs
from deadreckon.codec.run_coding_compiled import CompiledRunCoding
from deadreckon.codec.symbol_coder import CoderState
from deadreckon.codec.symbols import NUM_SYMBOLS

MIXED = LAYOUTS["large, small, empty and 0-d tensors"]
CONFIGS = {
    "a rate": CodecConfig.fast(0.3),
    "a rate with a prediction": CodecConfig("previous", entropy="runs", hold="mean_rate", bits=1.0, feedback="classic"),
    "an error": CodecConfig("none", entropy="runs", hold="mean_error", nmse=0.2),
    "a bound": CodecConfig("none", entropy="runs", nmse=1e-4),
}


def encoder_of(layout, config, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    with monkeypatch.context() as patch:
        patch.setattr(endpoint, "COMPILED", compiled)
        encoder = Codec(layout, config).encoder()
    assert isinstance(encoder._codings[0], CompiledRunCoding if compiled else RunCoding)
    return encoder


def fresh(layout) -> CoderState:
    return CoderState(
        np.zeros((RunCoding(layout, None).num_tables, NUM_SYMBOLS), np.int64), np.zeros(0, np.int32), 0, 0
    )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_packets_are_the_same_bytes(config, monkeypatch):
    """On gradients, a leap, zeros and a key frame; each is decoded by the other's decoder."""
    rows, layout = gradient_stream(12)
    rows = [*rows[:10], rows[10] * 1e5, torch.zeros(layout.size), *rows[11:]]
    plain, compiled = (encoder_of(layout, config, which, monkeypatch) for which in (False, True))
    decoder = Codec(layout, config).decoder()
    for step, row in enumerate(rows):
        packet = compiled.encode(row, step, key_frame=step == 7)
        assert packet == plain.encode(row, step, key_frame=step == 7)
        assert torch.equal(decoder.decode(packet), plain.reconstruction)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 1.0])
def test_any_runs_are_the_same_bytes_and_come_back(layout, share):
    """Values of every size at any density, through three packets of adapting tables, whatever the tensors are."""
    generator = np.random.default_rng(3)
    plain, compiled = RunCoding(layout, None), CompiledRunCoding(layout, None)
    levels = np.zeros(len(layout), np.uint8)
    state = fresh(layout)
    for _ in range(3):
        places = np.flatnonzero(generator.random(layout.size) < share)
        values = generator.choice([-1, 1, 2, -14, 15, 16, 40, 1 - 2**31, 2**31 - 1], len(places)).astype(np.int32)
        data, after = plain.write(Runs(places, values), state, 100, levels)
        told, also_after = compiled.write(Runs(places, values), state, 100, levels)
        assert data == told
        back, then = compiled.read(data, state, 100, levels)
        expected = plain.read(data, state, 100, levels)[0]
        np.testing.assert_array_equal(back.places, expected.places)
        np.testing.assert_array_equal(back.values, expected.values)
        for other in (also_after, then):
            np.testing.assert_array_equal(other.counts, after.counts)
            assert other[2:] == after[2:]
        state = after


def test_distances_of_every_length_are_the_same_bytes():
    """Where octaves begin and end, up to the longest run that a packet of this size can have."""
    layout = layout_from({"w": (2**22 + 9,)})
    ends = sorted({edge + shift for octave in range(22) for edge in (2**octave, 3 * 2**octave) for shift in (-1, 0, 1)})
    places = np.cumsum([end for end in ends if end > 0 and end < 2**19])
    places = np.append(places[places < 2**21], 2**22 + 8)
    assert max(later - before for before, later in pairwise(places)) > 2**20
    runs = Runs(places, np.ones(len(places), np.int32))
    levels = np.zeros(1, np.uint8)
    data, _ = CompiledRunCoding(layout, None).write(runs, fresh(layout), 0, levels)
    assert data == RunCoding(layout, None).write(runs, fresh(layout), 0, levels)[0]
    back, _ = CompiledRunCoding(layout, None).read(data, fresh(layout), 0, levels)
    np.testing.assert_array_equal(back.places, places)


def test_what_is_damaged_is_refused_alike():
    """Of a thousand damaged streams both refuse the same ones for the same reason, and read the same in the others."""
    generator = np.random.default_rng(4)
    layout = layout_from({"w": (40, 30), "b": (5000,)})
    plain, compiled = RunCoding(layout, None), CompiledRunCoding(layout, None)
    places = np.flatnonzero(generator.random(layout.size) < 0.02)
    runs = Runs(places, generator.choice([-1, 1, 15, 900], len(places)).astype(np.int32))
    levels = np.zeros(2, np.uint8)
    good, _ = plain.write(runs, fresh(layout), 0, levels)
    reasons: dict[str, int] = {}
    for _ in range(1000):
        data = bytearray(good)
        for _ in range(generator.integers(1, 3)):
            data[generator.integers(len(data))] ^= 1 << generator.integers(8)
        data = bytes(data[: len(data) - generator.integers(0, 3) * generator.integers(0, 9)])
        found = []
        for coding in (plain, compiled):
            try:
                points, _ = coding.read(data, fresh(layout), 0, levels)
                found.append(("read", points.places.tolist(), points.values.tolist()))
            except PacketError as error:
                found.append((str(error),))
        assert found[0] == found[1]
        reasons[found[0][0]] = reasons.get(found[0][0], 0) + 1
    assert len(reasons) >= 4, reasons


@pytest.mark.parametrize("dead_zone", [0.0, 0.2, 0.45])
@pytest.mark.parametrize("width", [1e-9, 0.01, 0.3, 5.0])
def test_given_cells_are_the_same_integers(dead_zone, width):
    """Places, integers, centroids, and the error but for its last bits; nothing where 32 bits do not hold them."""
    layout = layout_from({"w": (50, 60)})
    generator = np.random.default_rng(5)
    residual = (generator.standard_t(2, layout.size)).astype(np.float32)
    search = Search(
        residual, float(residual @ residual), 0.0, cell_index(width), True, np.zeros(1, np.uint8), fresh(layout)
    )
    plain, compiled = (kind(layout, dead_zone).quantise(search) for kind in (RunCoding, CompiledRunCoding))
    if width < 1e-8:
        assert plain is compiled is None
        return
    assert plain is not None
    assert compiled is not None
    np.testing.assert_array_equal(plain.points.places, compiled.points.places)
    np.testing.assert_array_equal(plain.points.values, compiled.points.values)
    np.testing.assert_array_equal(plain.offsets, compiled.offsets)
    assert compiled.error == pytest.approx(plain.error, rel=1e-12, abs=1e-12 * search.energy)


def test_passes_equal_numpy(monkeypatch):
    """Sums bit for bit, energies up to rounding, and NaN and infinity are seen wherever they are."""
    generator = np.random.default_rng(6)
    first, second = generator.normal(size=(2, 1001)).astype(np.float32)
    for share, scale in [(1, 1), (0.9, 1), (1, 1.7), (0.9, 1.7)]:
        factors = np.float32(share), np.float32(scale)
        monkeypatch.setattr(vector_passes, "COMPILED", True)
        found = vector_passes.sum_and_energy(first, second, *factors)
        monkeypatch.setattr(vector_passes, "COMPILED", False)
        expected = vector_passes.sum_and_energy(first, second, *factors)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[0], first + factors[1] * (factors[0] * second))
        assert found[1] == pytest.approx(expected[1], rel=1e-12)
    places = generator.permutation(1001)[:300]
    one, other = first.copy(), first.copy()
    vector_kernels.add_at(one, places, second[:300])
    vector_passes.add_at(other, places, second[:300])
    np.testing.assert_array_equal(one, other)
    assert vector_kernels.all_finite(first)
    assert vector_passes.all_finite(first)
    for place, strange in [(0, np.nan), (1000, np.inf), (500, -np.inf)]:
        wrong = first.copy()
        wrong[place] = strange
        assert not vector_kernels.all_finite(wrong)
        assert not vector_passes.all_finite(wrong)
        assert not np.isfinite(vector_kernels.sum_and_energy(wrong, second, np.float32(1))[1])
    assert vector_kernels.all_finite(np.array([3.4e38, -1e-45, 0.0], np.float32))


def test_the_environment_variable_turns_it_off():
    """With DEADRECKON_COMPILED=0 numba is not even imported, and the packet is the same."""
    program = (
        "import sys, torch; from deadreckon.codec import Codec, CodecConfig; from deadreckon.forecast import pack;"
        "layout = pack(torch.nn.Linear(100, 60))[1]; encoder = Codec(layout, CodecConfig.fast(0.5)).encoder();"
        "rows = torch.randn(5, layout.size, generator=torch.Generator().manual_seed(0));"
        "packets = [encoder.encode(row, step).hex() for step, row in enumerate(rows)];"
        "print('numba' in sys.modules, packets[-1])"
    )
    found = {}
    for switch in ("0", "1"):
        environment = os.environ | {"DEADRECKON_COMPILED": switch}
        result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        imported, found[switch] = result.stdout.split()
        assert imported == str(switch == "1")
    assert found["0"] == found["1"]


def test_a_numba_that_does_not_work_is_told(tmp_path):
    """Installed, but of another numpy, say: the error has the reason and the way out."""
    (tmp_path / "numba.py").write_text('raise ImportError("Numba needs NumPy 2.2 or less")')
    program = "import deadreckon.codec.vector_kernels"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "DEADRECKON_COMPILED": "1"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    assert "Numba needs NumPy 2.2 or less Mend it, or set DEADRECKON_COMPILED=0" in result.stderr


def test_without_a_place_to_keep_machine_code_it_is_compiled_anew(monkeypatch):
    """Where neither the package's folder nor the user's can be written to, functions compile all the same."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    doubled = machine_code()(lambda value: 2 * value)
    assert doubled(3.5) == 7.0


def test_vectors_that_are_not_finite_add_up_without_a_warning():
    """Infinities of both signs, and sums beyond float32, are NaN and infinite, as torch has them."""
    total = np.array([np.inf, 3e38, 1.0], np.float32)
    add_share(total, np.array([-np.inf, 3e38, 2.0], np.float32), 1.0)
    np.testing.assert_array_equal(total, np.array([np.nan, np.inf, 3.0], np.float32))

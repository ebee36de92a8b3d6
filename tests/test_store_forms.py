"""Forms of the store: tiers, parts of a network, compacted copies, older versions, and reading without torch."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.forecast import (
    Layout,
    LayoutError,
    Selection,
    TensorSpec,
    Tier,
    Trajectory,
    TrajectoryError,
    TrajectoryWriter,
    compact,
    compacting,
    zarr_metadata,
)
from deadreckon.forecast.tiers import CODINGS, Bfloat16, Lossless, lost_to_rounding

OLD = Path(__file__).parent / "stores" / "version_1"
OLD_DIGEST = "3482b74ab769f2d7434e39738422d06a7b66436ff310d73cee83703728f73263"
TIERS: tuple[Tier, ...] = ("float32", "lossless", "bfloat16")
ODD = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38, 1.00390625, 1.01171875, 0.1], dtype=np.float32)


def make_layout(size: int) -> Layout:
    return Layout((TensorSpec("w", (size,), "float32", 0, "weight"),))


def make_rows(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(size).standard_normal((count, size)).astype(np.float32)


@pytest.fixture(name="small_chunks", autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_metadata, "MAX_CHUNK", 32)
    monkeypatch.setattr(compacting, "MAX_CHUNK", 32)
    monkeypatch.setattr(compacting, "MAX_BLOCK_ROWS", 4)
    monkeypatch.setattr(compacting, "_SPAN", 20)


def record(path: Path, rows: np.ndarray, tier: Tier = "float32") -> None:
    with Trajectory.create(path, make_layout(rows.shape[1]), tiers={"weights": tier}) as trajectory:
        for step, row in enumerate(rows):
            trajectory.append(step, {"weights": row}, {"loss": float(step)})


# Tiers


@given(bits=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_bfloat16_rounds_as_torch_does(bits: list[int]) -> None:
    """Every float32 becomes the bfloat16 that torch makes of it; NaN stays NaN."""
    import torch

    values = np.array(bits, dtype=np.uint32).view(np.float32)
    coding = Bfloat16()
    expected = torch.from_numpy(values.copy()).bfloat16().float().numpy()
    np.testing.assert_array_equal(coding.from_stored(coding.to_stored(values)), expected)


@pytest.mark.parametrize("tier", TIERS)
def test_rows_of_every_tier_come_back(tmp_path: Path, tier: Tier) -> None:
    """Rows come back bit for bit, or rounded to bfloat16, whole and in part; `verify` passes; Zarr reads the same."""
    rows = np.concatenate([make_rows(4, 70), np.resize(ODD, (1, 70))])
    record(tmp_path / "t", rows, tier)
    found = Trajectory.open(tmp_path / "t")
    found.verify()
    stream = found.stream("weights")
    assert stream.tier == tier
    coding = Bfloat16()
    expected = coding.from_stored(coding.to_stored(rows)) if tier == "bfloat16" else rows
    np.testing.assert_array_equal(stream[:].view(np.uint32), expected.view(np.uint32))
    np.testing.assert_array_equal(stream.read([3, 0], 20, 50), expected[[3, 0], 20:50])
    np.testing.assert_array_equal(stream.read([2, 2, 1], 33, 34), expected[[2, 2, 1], 33:34])
    array = zarr.open_group(str(tmp_path / "t"), mode="r")["weights"]
    assert isinstance(array, zarr.Array)
    values = np.asarray(array[:])
    if tier == "bfloat16":
        values = coding.from_stored(values)
        assert array.attrs["tier"] == "bfloat16"
    np.testing.assert_array_equal(values.view(np.uint32), expected.view(np.uint32))


def test_tensorstore_opens_every_tier(tmp_path: Path) -> None:
    """Tensorstore, where it is installed, reads the arrays of every tier, compacted or not."""
    tensorstore = pytest.importorskip("tensorstore", exc_type=ImportError)
    rows = make_rows(3, 70)
    for tier in TIERS:
        record(tmp_path / tier, rows, tier)
        compact(tmp_path / tier, tmp_path / f"{tier}_compact")
        for name in (tier, f"{tier}_compact"):
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / name / "weights")}}
            values = tensorstore.open(spec).result().read().result()
            values = Bfloat16().from_stored(values) if tier == "bfloat16" else values
            expected = Trajectory.open(tmp_path / tier).stream("weights")[:]
            np.testing.assert_array_equal(values, expected)


def test_rounding_is_measured_against_the_step() -> None:
    """What rounding takes is its error over the step's length; nothing where nothing is rounded or moved."""
    before, after = np.ones(4, np.float32), np.full(4, 1 + 2**-9, np.float32)
    assert lost_to_rounding(Bfloat16(), before, after) == 1.0
    assert lost_to_rounding(Lossless(), before, after) == 0.0
    assert lost_to_rounding(Bfloat16(), before, before) == 0.0


@pytest.mark.parametrize("harm", ["flip", "short", "bomb", "huge"])
def test_a_damaged_compressed_chunk_is_refused(tmp_path: Path, harm: str) -> None:
    """A compressed chunk that is altered, cut, or says that it unpacks to gigabytes is an error, not memory."""
    record(tmp_path / "t", make_rows(2, 70), "lossless")
    chunk = tmp_path / "t" / "weights" / "c" / "1" / "1"
    data = bytearray(chunk.read_bytes())
    if harm == "flip":
        data[-1] ^= 255
    elif harm == "short":
        data = data[:-5]
    elif harm == "bomb":
        data[4:8] = (2**31 - 1).to_bytes(4, "little")
    else:
        data += bytes(10_000)
    chunk.write_bytes(data)
    found = Trajectory.open(tmp_path / "t")
    with pytest.raises(TrajectoryError, match="Row 1 of stream 'weights'.* is damaged"):
        found.verify()
    found.stream("weights").read(1, 0, 10)


def test_impossible_tiers_and_layouts_are_refused(tmp_path: Path) -> None:
    """Tiers and layouts of streams that do not exist, and unknown tiers, are refused and leave nothing."""
    layout = make_layout(5)
    with pytest.raises(TrajectoryError, match=r"`tier` must be one of .* got 'int8'"):
        Trajectory.create(tmp_path / "t", layout, tiers={"weights": "int8"})  # pyright: ignore
    with pytest.raises(TrajectoryError, match="No stream named 'other'"):
        Trajectory.create(tmp_path / "t", layout, tiers={"other": "float32"})
    with pytest.raises(TrajectoryError, match="No stream may be named 'coordinates'"):
        Trajectory.create(tmp_path / "t", layout, ("coordinates",))
    with pytest.raises(LayoutError, match="selection must be one of the layout's"):
        Trajectory.create(tmp_path / "t", layout, selection=Selection.choose(make_layout(9), sample=3))
    assert list(tmp_path.iterdir()) == []


# Parts of a network


def network() -> Layout:
    return Layout(
        (
            TensorSpec("a.weight", (3, 4), "float32", 0, "weight"),
            TensorSpec("a.bias", (3,), "float32", 12, "bias"),
            TensorSpec("b.weight", (5,), "float32", 15, "weight"),
        )
    )


@given(sample=st.integers(1, 25), seed=st.integers(0, 99))
def test_a_sample_is_of_the_chosen_tensors_only(sample: int, seed: int) -> None:
    """A sample has as many different coordinates as asked for, all of chosen tensors, and its layout says so."""
    found = Selection.choose(network(), ["*.weight"], sample, seed)
    if sample >= 17:
        assert found.coordinates is None
        assert found.layout.names == ("a.weight", "b.weight")
        return
    assert found.coordinates is not None
    assert len(found.coordinates) == found.layout.size == sample
    for name in found.layout.names:
        places = found.places(name)
        assert places is not None
        assert name.endswith("weight")
        assert 0 <= places.min() <= places.max() < network()[name].numel
    again = Selection.choose(network(), ["*.weight"], sample, seed)
    np.testing.assert_array_equal(again.coordinates, found.coordinates)


def test_a_store_knows_its_sample(tmp_path: Path) -> None:
    """The sample comes back with the store, and coordinates that were altered are refused."""
    selection = Selection.choose(network(), ["*"], 7, 1)
    Trajectory.create(tmp_path / "t", selection.layout, selection=selection).close()
    found = Trajectory.open(tmp_path / "t").selection
    assert found is not None
    np.testing.assert_array_equal(found.coordinates, selection.coordinates)
    assert found.network == network()
    index = tmp_path / "t" / "coordinates" / "c" / "0"
    whole = index.read_bytes()
    for data, message in (
        (whole[:-8], "must have 56 bytes, got 48"),
        (whole[8:16] + whole[:8] + whole[16:], "Coordinates must increase"),
        (whole[:-8] + (99).to_bytes(8, "little"), "lie within 0 and 20"),
        (np.arange(7, dtype="<i8").tobytes(), "does not give its layout"),
    ):
        index.write_bytes(data)
        with pytest.raises((TrajectoryError, LayoutError), match=message):
            Trajectory.open(tmp_path / "t")


# Compacted


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("count", [0, 1, 4, 11])
def test_a_compacted_store_is_the_same_recording(tmp_path: Path, tier: Tier, count: int) -> None:
    """Digest, rows, parts of rows, scalars and checksums of the copy are those of the original; Zarr reads it."""
    record(tmp_path / "t", make_rows(count, 70), tier)
    compact(tmp_path / "t", tmp_path / "c")
    one, two = Trajectory.open(tmp_path / "t"), Trajectory.open(tmp_path / "c")
    two.verify()
    assert (one.digest, one.uuid) == (two.digest, two.uuid)
    first, second = one.stream("weights"), two.stream("weights")
    np.testing.assert_array_equal(first[:], second[:])
    for rows, start, stop in ((slice(None), 30, 34), (slice(1, 9, 3), 0, 70), ([-1, 0] if count else [], 69, 70)):
        np.testing.assert_array_equal(first.read(rows, start, stop), second.read(rows, start, stop))
    array = zarr.open_group(str(tmp_path / "c"), mode="r")["weights"]
    assert isinstance(array, zarr.Array)
    values = np.asarray(array[:])
    np.testing.assert_array_equal(Bfloat16().from_stored(values) if tier == "bfloat16" else values, first[:])
    if count:
        assert len(list((tmp_path / "c/weights/c").iterdir())) == -(-count // max(2, min(4, count)))


@pytest.mark.parametrize("tier", TIERS)
def test_compacted_stores_by_row_are_still_read(tmp_path: Path, tier: Tier) -> None:
    """Chunks of many rows that lie row by row, as `compact` once made them, read the same."""
    rows = make_rows(6, 70)
    record(tmp_path / "t", rows, tier)
    compact(tmp_path / "t", tmp_path / "c")
    expected = Trajectory.open(tmp_path / "t").stream("weights")[:]
    shutil.rmtree(tmp_path / "c/weights")
    coding = CODINGS[tier]
    zarr_metadata.create_array(tmp_path / "c/weights", 70, coding, zarr_metadata.Chunks(4, 8), 6)
    array = zarr.open_array(str(tmp_path / "c/weights"), mode="r+")
    array[:] = coding.to_stored(rows.reshape(-1)).reshape(rows.shape)
    found = Trajectory.open(tmp_path / "c")
    found.verify()
    np.testing.assert_array_equal(found.stream("weights")[:], expected)
    np.testing.assert_array_equal(found.stream("weights").read([5, 0, 0], 3, 12), expected[[5, 0, 0], 3:12])


def test_a_compacted_store_is_for_reading(tmp_path: Path) -> None:
    """Appending to it, and writing it over something or from a damaged store, is refused; nothing is left behind."""
    record(tmp_path / "t", make_rows(5, 70))
    compact(tmp_path / "t", tmp_path / "c")
    with pytest.raises(TrajectoryError, match="made by `compact`: it can be read and not appended to"):
        Trajectory.open(tmp_path / "c", "a")
    with pytest.raises(TrajectoryError, match="exists already"):
        compact(tmp_path / "t", tmp_path / "c")
    with Trajectory.open(tmp_path / "t", "a"), pytest.raises(TrajectoryError, match="open for writing already"):
        compact(tmp_path / "t", tmp_path / "d")
    (tmp_path / "t/weights/c/2/1").write_bytes(bytes(96))
    with pytest.raises(TrajectoryError, match="Row 2 of stream 'weights' .* is damaged"):
        compact(tmp_path / "t", tmp_path / "d")
    (tmp_path / "c/weights/c/0/1").write_bytes(bytes(5))
    with pytest.raises(TrajectoryError, match="Row 0 of stream 'weights' is damaged"):
        Trajectory.open(tmp_path / "c").stream("weights")[:]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["c", "t"]


# Older versions


def test_a_store_of_version_1_is_read(tmp_path: Path) -> None:
    """What the first format held is read as it was, and verifies."""
    found = Trajectory.open(OLD)
    found.verify()
    assert found.digest == OLD_DIGEST
    assert found.metadata == {"seed": 3, "clip": float("inf")}
    assert found.selection is None
    assert found.stream("gradients").steps.tolist() == [10, 30]
    expected = np.arange(8, dtype=np.float32) + np.arange(4, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(found.stream("weights")[:], expected)
    assert found.stream("weights").segments == [slice(0, 3), slice(3, 4)]
    np.testing.assert_array_equal(found.scalars["loss"].values, 1 / np.arange(1.0, 5))
    compact(_copy(tmp_path), tmp_path / "c")
    assert Trajectory.open(tmp_path / "c").digest == OLD_DIGEST


def _copy(folder: Path) -> Path:
    return Path(shutil.copytree(OLD, folder / "old"))


def test_a_run_of_version_1_goes_on_as_version_1(tmp_path: Path) -> None:
    """A resumed old store stays of its version, and its rows come back."""
    path = _copy(tmp_path)
    with Trajectory.resume(path, Trajectory.open(OLD).layout, 20) as trajectory:
        trajectory.append(25, {"weights": np.full(8, 9, np.float32)})
    assert json.loads((path / "zarr.json").read_text())["attributes"]["format_version"] == 1
    assert Trajectory.open(path).stream("weights").steps.tolist() == [0, 10, 20, 25]


def test_a_new_store_says_its_version(tmp_path: Path) -> None:
    """Stores are of version 2, and both the group and the log say so."""
    record(tmp_path / "t", make_rows(1, 5))
    assert json.loads((tmp_path / "t/zarr.json").read_text())["attributes"]["format_version"] == 2
    assert json.loads((tmp_path / "t/commit.log").read_text().splitlines()[0])[1]["format_version"] == 2


# Reading without torch


def test_stores_are_read_where_torch_and_lightning_are_not_installed(tmp_path: Path) -> None:
    """`from deadreckon.forecast import Trajectory` reads every tier where torch, Lightning and zarr are not."""
    rows = make_rows(2, 70)
    for tier in TIERS:
        record(tmp_path / tier, rows, tier)
    code = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'pytorch_lightning', 'zarr'): sys.modules[name] = None\n"
        "from deadreckon.forecast import Trajectory, Layout\n"
        f"for tier in {TIERS!r}:\n"
        f"    found = Trajectory.open({str(tmp_path)!r} + '/' + tier)\n"
        "    found.verify()\n"
        "    print(found.stream('weights').read(slice(None), 3, 60).shape)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert done.stdout == "(2, 57)\n" * 3


def test_the_names_of_the_package_are_what_they_say() -> None:
    """Every exported name is found, also after its module was imported, and others are no attributes."""
    import deadreckon.forecast as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    import deadreckon.forecast.case  # noqa: F401

    assert callable(package.cases)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


# The writer


def test_a_writer_is_asked_for_at_least_one_buffer(tmp_path: Path) -> None:
    """Without a buffer nothing could ever be written, so that is refused."""
    with Trajectory.create(tmp_path / "t", make_layout(5)) as trajectory:
        with pytest.raises(TrajectoryError, match="`depth` must be at least 1, got 0"):
            TrajectoryWriter(trajectory, 0)

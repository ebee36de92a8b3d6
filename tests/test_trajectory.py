"""The trajectory store: what goes in comes out, and what does not fit is refused in words."""

import json
import math
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given
from hypothesis import strategies as st

from deadreckon.forecast import commit_log, zarr_metadata, zarr_rows
from deadreckon.forecast.errors import LayoutError, TrajectoryError
from deadreckon.forecast.layout import Layout, TensorSpec
from deadreckon.forecast.records import Event
from deadreckon.forecast.trajectory import Durability, Trajectory


def make_layout(size: int = 7, dtype: str = "float32") -> Layout:
    return Layout((TensorSpec("weight", (size,), dtype, 0, "weight"),))


def make_vector(seed: int, size: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "first"


@pytest.fixture(name="small_chunks")
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zarr_metadata, "MAX_CHUNK", 3)


def recorded(path: Path, num_rows: int = 5, streams: tuple[str, ...] = ("weights",)) -> Trajectory:
    trajectory = Trajectory.create(path, make_layout(), streams)
    for row in range(num_rows):
        trajectory.append(10 * row, {name: make_vector(row) for name in streams}, {"loss": row / 8})
    return trajectory


# What goes in comes out


def test_streams_and_scalars_at_their_own_cadence_come_back(path: Path, small_chunks: None) -> None:
    """Each stream and scalar comes back with its own steps, in the open store and in one opened later."""
    with Trajectory.create(path, make_layout(), ("weights", "gradients"), {"seed": 3, "betas": (0.9, 0.999)}) as made:
        for step in range(1, 13):
            streams = {"gradients": make_vector(step)} if step % 3 == 0 else {}
            if step % 4 == 0:
                streams["weights"] = make_vector(-step + 100)
            made.append(step, streams, {"loss": 1 / step, "rate": step} if step % 2 else {"loss": 1 / step})
        for trajectory in (made, Trajectory.open(path)):
            gradients, weights = trajectory.stream("gradients"), trajectory.stream("weights")
            assert gradients.steps.tolist() == [3, 6, 9, 12]
            assert weights.steps.tolist() == [4, 8, 12]
            assert gradients.steps.dtype == np.int64
            assert (len(gradients), gradients.name) == (4, "gradients")
            np.testing.assert_array_equal(gradients[:], np.stack([make_vector(step) for step in (3, 6, 9, 12)]))
            np.testing.assert_array_equal(weights[1], make_vector(92))
            assert weights[:].dtype == np.float32
            assert trajectory.scalars["rate"].steps.tolist() == [1, 3, 5, 7, 9, 11]
            np.testing.assert_array_equal(np.asarray(trajectory.scalars["loss"]), 1 / np.arange(1, 13))
            assert len(trajectory.scalars["loss"]) == 12
            assert trajectory.scalars["loss"][1] == 0.5
            assert sorted(trajectory.scalars) == ["loss", "rate"]
            assert len(trajectory.scalars) == 2
            assert trajectory.metadata == {"seed": 3, "betas": [0.9, 0.999]}
            assert trajectory.streams == ("weights", "gradients")
            assert trajectory.layout == make_layout()
            assert trajectory.path == path.resolve()
            trajectory.verify()


def test_ways_of_asking_for_rows_agree(path: Path, small_chunks: None) -> None:
    """An int, a slice, a sequence, an array, an iteration and a range of coordinates give the same numbers."""
    with recorded(path) as trajectory:
        stream = trajectory.stream("weights")
        truth = np.stack([make_vector(row) for row in range(5)])
        np.testing.assert_array_equal(stream[-2], truth[-2])
        np.testing.assert_array_equal(stream[np.int64(2)], truth[2])
        np.testing.assert_array_equal(stream[4:0:-2], truth[4:0:-2])
        np.testing.assert_array_equal(stream[[3, -5, 3]], truth[[3, 0, 3]])
        np.testing.assert_array_equal(stream[np.array([1, 2])], truth[1:3])
        np.testing.assert_array_equal(np.stack(list(stream)), truth)
        assert stream[[]].shape == (0, 7)
        assert stream[9:].shape == (0, 7)
        for start in range(8):
            for stop in range(start, 8):
                np.testing.assert_array_equal(stream.read([4, 1], start, stop), truth[[4, 1], start:stop])
        np.testing.assert_array_equal(stream.read(2, 1, 4), truth[2, 1:4])


def test_rows_may_be_of_torch_or_strided_and_hold_anything(path: Path) -> None:
    """Tensors with a gradient, strided arrays, NaN, infinities, minus zero and denormals come back bit for bit."""
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38, 0.0], dtype=np.float32)
    odd.view(np.uint32)[0] |= 5  # a payload in the NaN
    with Trajectory.create(path, make_layout()) as trajectory:
        trajectory.append(1, {"weights": torch.from_numpy(odd).clone().requires_grad_()})
        trajectory.append(2, {"weights": np.repeat(odd, 2)[::2]})
        assert [row.tobytes() for row in trajectory.stream("weights")] == [odd.tobytes()] * 2


def test_scalars_that_json_cannot_say(path: Path) -> None:
    """NaN and infinite scalars, details and metadata come back, from a log of strict JSON."""
    with Trajectory.create(path, make_layout(), metadata={"clip": [math.inf]}) as trajectory:
        trajectory.append(1, scalars={"loss": math.nan, "norm": -math.inf, "rate": np.float32(0.1), "count": 3})  # pyright: ignore
        trajectory.add_event("jump", 1, False, margin=math.inf, inner={"a": (1, None, True, "x")})
    found = Trajectory.open(path)
    assert math.isnan(found.scalars["loss"][0])
    assert found.scalars["norm"][0] == -math.inf
    assert found.scalars["rate"][0] == float(np.float32(0.1))
    assert found.scalars["count"][0] == 3.0
    assert found.metadata == {"clip": [math.inf]}
    assert found.events == (Event("jump", 1, False, {"margin": math.inf, "inner": {"a": [1, None, True, "x"]}}),)
    assert found.events == trajectory.events

    def refuse(word: str) -> None:
        raise AssertionError(word)

    for line in (path / "commit.log").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_breaking_event_separates_what_was_appended_before_and_after(path: Path) -> None:
    """Segments follow the order of the calls, so the row after a jump may be of the jump's own step."""
    with Trajectory.create(path, make_layout(), ("weights", "gradients")) as trajectory:
        trajectory.add_event("start", 0, breaks=True)
        trajectory.append(10, {"weights": make_vector(10)}, {"loss": 1.0})
        trajectory.add_event("schedule", 10, breaks=False)
        trajectory.append(20, {"weights": make_vector(20)}, {"loss": 1.0})
        assert trajectory.stream("weights").segments == [slice(0, 2)]
        trajectory.add_event("jump", 20, breaks=True, horizon=50)
        trajectory.add_event("jump", 20, breaks=True, horizon=50)
        trajectory.append(20, {"weights": make_vector(21)}, {"loss": 0.5})
        with pytest.raises(TrajectoryError, match="Steps of stream 'weights' must increase, got 20 after 20"):
            trajectory.append(20, {"weights": make_vector(22)})
        trajectory.append(25, {"gradients": make_vector(25)})
        trajectory.append(30, {"weights": make_vector(30)})
        trajectory.add_event("jump", 30, breaks=True)
    found = Trajectory.open(path)
    assert found.stream("weights").segments == [slice(0, 2), slice(2, 4)]
    assert found.stream("weights").steps.tolist() == [10, 20, 20, 30]
    assert found.stream("gradients").segments == [slice(0, 1)]
    assert found.scalars["loss"].steps.tolist() == [10, 20, 20]
    assert [event.kind for event in found.events] == ["start", "schedule", "jump", "jump", "jump"]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"),
            st.integers(0, 2),
            st.sets(st.sampled_from(["weights", "gradients"])),
            st.dictionaries(st.sampled_from(["loss", "a/b", "é\ud800"]), st.floats(), max_size=2),
        ),
        st.tuples(st.just("event"), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("reopen"), st.booleans()),
        st.tuples(st.just("resume"), st.integers(0, 5)),
    ),
    max_size=25,
)


class Model:
    """The obvious store: a list of everything that was committed."""

    def __init__(self) -> None:
        self.records: list[tuple[int, str, Any]] = []

    def series(self, name: str) -> list[tuple[int, Any]]:
        return [(step, what[name]) for step, kind, what in self.records if kind == "append" and name in what]

    def segments(self, name: str) -> list[slice]:
        marks = "".join(
            "|" if kind == "event" and what else "x" if kind == "append" and name in what else ""
            for _, kind, what in self.records
        )
        found, start = [], 0
        for run in filter(None, marks.split("|")):
            found.append(slice(start, start + len(run)))
            start += len(run)
        return found

    def accepts(self, step: int, names: set[str]) -> bool:
        for name in names:
            last = [i for i, (_, kind, what) in enumerate(self.records) if kind == "append" and name in what]
            if last and self.records[last[-1]][0] == step:
                if not any(kind == "event" and what for _, kind, what in self.records[last[-1] :]):
                    return False
        return bool(names)


@given(operations=OPERATIONS)
def test_any_sequence_of_operations_equals_a_plain_list(
    operations: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Appends, events, reopening and resuming in any order leave what a plain list would hold."""
    path = tmp_path_factory.mktemp("any") / "run"
    trajectory = Trajectory.create(path, make_layout(), ("weights", "gradients"))
    model, step, count = Model(), 0, 0
    for kind, *rest in operations:
        if kind == "append":
            step, count = step + rest[0], count + 1
            streams = {name: make_vector(count) for name in rest[1]}
            if model.accepts(step, {*streams, *rest[2]}):
                trajectory.append(step, streams, rest[2])
                model.records.append((step, kind, {**streams, **rest[2]}))
            else:
                with pytest.raises(TrajectoryError, match=r"must increase|Nothing to append"):
                    trajectory.append(step, streams, rest[2])
        elif kind == "event":
            step += rest[0]
            trajectory.add_event("e", step, rest[1])
            model.records.append((step, kind, rest[1]))
        elif kind == "reopen":
            trajectory.close()
            trajectory = Trajectory.open(path, "a")
        else:
            trajectory.close()
            last_step = max(0, step - rest[0])
            trajectory = Trajectory.resume(path, make_layout(), last_step)
            model.records = [record for record in model.records if record[0] <= last_step]
            step = last_step
    for found in (trajectory, Trajectory.open(path)):
        for name in ("weights", "gradients"):
            stream, truth = found.stream(name), model.series(name)
            assert stream.steps.tolist() == [step for step, _ in truth]
            assert stream.segments == model.segments(name)
            np.testing.assert_array_equal(stream[:], np.array([row for _, row in truth]).reshape(-1, 7))
        names = {name for _, kind, what in model.records if kind == "append" for name in what}
        assert set(found.scalars) == names - {"weights", "gradients"}
        for name, scalars in found.scalars.items():
            assert scalars.steps.tolist() == [step for step, _ in model.series(name)]
            np.testing.assert_array_equal(scalars.values, [value for _, value in model.series(name)])
        assert [(event.step, "event", event.breaks) for event in found.events] == [
            record for record in model.records if record[1] == "event"
        ]
        assert found.digest == trajectory.digest
        found.verify()
    trajectory.close()


# Zarr


def test_zarr_reads_the_store(path: Path, small_chunks: None) -> None:
    """After closing, zarr-python reads every stream with equal values, shapes and names of axes, without a warning."""
    with recorded(path, streams=("weights", "exp_avg")) as trajectory:
        pass
    group = zarr.open_group(str(path), mode="r")
    assert group.attrs["format"] == "deadreckon-trajectory"
    for name in ("weights", "exp_avg"):
        array = group[name]
        assert isinstance(array, zarr.Array)
        assert (array.shape, array.chunks, array.dtype) == ((5, 7), (1, 3), np.dtype("float32"))
        np.testing.assert_array_equal(np.asarray(array[:]), trajectory.stream(name)[:])
    assert json.loads((path / "weights/zarr.json").read_text())["dimension_names"] == ["time", "param"]


def test_zarr_sees_what_a_resumed_run_kept(path: Path) -> None:
    """Cutting on resume and closing again leaves the arrays with the rows that count."""
    recorded(path).close()
    with Trajectory.resume(path, make_layout(), 25) as trajectory:
        assert zarr.open_group(str(path), mode="r")["weights"].shape == (3, 7)  # pyright: ignore
        trajectory.append(26, {"weights": make_vector(26)})
    array = zarr.open_group(str(path), mode="r")["weights"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(np.asarray(array[:]), np.stack([make_vector(seed) for seed in (0, 1, 2, 26)]))


def test_chunks_are_equal_and_few(path: Path) -> None:
    """A row just above the limit takes two chunks of about half its size rather than a full one and a padded one."""
    size = zarr_metadata.MAX_CHUNK + 3
    with Trajectory.create(path, make_layout(size)) as trajectory:
        trajectory.append(0, {"weights": make_vector(0, size)})
        files = sorted((path / "weights/c/0").iterdir())
        assert [file.stat().st_size for file in files] == [4 * math.ceil(size / 2 / 2048) * 2048] * 2
        assert trajectory.num_bytes == sum(file.stat().st_size for file in files) + (path / "commit.log").stat().st_size
        np.testing.assert_array_equal(trajectory.stream("weights")[0], make_vector(0, size))


# Opening, closing, resuming


def test_reading_goes_on_while_a_writer_writes(path: Path) -> None:
    """A reader keeps what was committed when it opened, and needs no lock."""
    trajectory = recorded(path, 2)
    found = Trajectory.open(path)
    trajectory.append(20, {"weights": make_vector(2)})
    assert len(found.stream("weights")) == 2
    assert len(Trajectory.open(path).stream("weights")) == 3
    np.testing.assert_array_equal(found.stream("weights")[1], make_vector(1))
    trajectory.close()
    trajectory.close()
    np.testing.assert_array_equal(trajectory.stream("weights")[2], make_vector(2))
    found.close()


def test_appending_later_equals_appending_at_once(path: Path, tmp_path: Path) -> None:
    """A store written in two sittings, or cut and written again, has the digest and the log of one written at once."""
    whole = recorded(path)
    recorded(tmp_path / "b", 2).close()
    with Trajectory.open(tmp_path / "b", "a") as again:
        for row in range(2, 5):
            again.append(10 * row, {"weights": make_vector(row)}, {"loss": row / 8})
        before = again.digest
    assert before == whole.digest
    assert before == Trajectory.open(tmp_path / "b").digest
    with Trajectory.resume(tmp_path / "b", make_layout(), 20) as again:
        assert again.digest != whole.digest
        for row in range(3, 5):
            again.append(10 * row, {"weights": make_vector(row)}, {"loss": row / 8})
    assert again.digest == whole.digest
    np.testing.assert_array_equal(again.stream("weights")[:], whole.stream("weights")[:])
    whole.close()


def test_resume_cuts_everything_later(path: Path) -> None:
    """Rows, scalars, events and files of later steps go; those of the step itself stay."""
    with recorded(path) as trajectory:
        trajectory.add_event("end", 45, True)
    with Trajectory.resume(path, make_layout(), 30) as trajectory:
        assert trajectory.stream("weights").steps.tolist() == [0, 10, 20, 30]
        assert trajectory.scalars["loss"].steps.tolist() == [0, 10, 20, 30]
        assert trajectory.events == ()
    assert sorted(entry.name for entry in (path / "weights/c").iterdir()) == ["0", "1", "2", "3"]
    with Trajectory.resume(path, make_layout(), 0) as trajectory:
        assert len(trajectory.stream("weights")) == 1


def test_resume_checks_the_layout_before_it_cuts(path: Path) -> None:
    """A run of another network is refused and the store stays as it was."""
    recorded(path).close()
    with pytest.raises(LayoutError, match=r"layout of the trajectory .* differs"):
        Trajectory.resume(path, make_layout(8), 0)
    assert len(Trajectory.open(path).stream("weights")) == 5


def test_only_our_leftovers_are_swept(path: Path, tmp_path: Path) -> None:
    """Opening for appending removes rows and pieces that were never committed; foreign files and link targets stay."""
    recorded(path, 2).close()
    rows = path / "weights" / "c"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keep").touch()
    for name in ("2", "17", ".2.tmp", "notes", "007", "9" * 30):
        (rows / name).mkdir()
    (rows / "3").symlink_to(elsewhere)
    Trajectory.open(path)
    assert (rows / "2").exists()
    with Trajectory.open(path, "a") as trajectory:
        assert sorted(entry.name for entry in rows.iterdir()) == ["0", "007", "1", "notes"]
        trajectory.append(50, {"weights": make_vector(5)})
    assert (elsewhere / "keep").exists()


def test_an_empty_folder_may_become_a_store(tmp_path: Path) -> None:
    """An empty folder is taken, and nothing is left beside it."""
    (tmp_path / "run").mkdir()
    Trajectory.create(tmp_path / "run", make_layout()).close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    assert repr(Trajectory.open(tmp_path / "run")).endswith("rows: {weights: 0}, 0 events)")
    assert Trajectory.open(tmp_path / "run").stream("weights").segments == []


def test_durability_row_syncs_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With durability `row` the chunk, both folders and the log are synced in that order; with `none`, nothing is."""
    synced: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    cases: dict[Durability, list[str]] = {"none": [], "row": ["0", ".0.tmp", "c", "commit.log"]}
    for durability, expected in cases.items():
        with Trajectory.create(path / durability, make_layout(), durability=durability) as trajectory:
            monkeypatch.setattr(os, "fsync", note)
            synced.clear()
            trajectory.append(1, {"weights": make_vector(1)}, {"loss": 1.0})
            assert synced == expected
            monkeypatch.setattr(os, "fsync", real)


# One writer


def test_two_writers_are_refused(path: Path) -> None:
    """A second writer gets an error until the first one closes."""
    first = recorded(path, 1)
    for attempt in (lambda: Trajectory.open(path, "a"), lambda: Trajectory.resume(path, make_layout(), 0)):
        with pytest.raises(TrajectoryError, match="open for writing already"):
            attempt()
    first.close()
    Trajectory.open(path, "a").close()


FORK = """
import os
trajectory = Trajectory.open(path, "a")
release, told = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(release[1])
    rows = len(trajectory.stream("weights")[:])
    try:
        trajectory.append(90, {}, {"loss": 9.0})
    except TrajectoryError as error:
        trajectory.close()
        os.write(told[1], f"{rows} {error}".encode())
    os.close(told[1])
    os.read(release[0], 1)
    os._exit(0)
os.close(told[1])
print(os.read(told[0], 1000).decode())
trajectory.append(20, {}, {"loss": 2.0})
trajectory.close()
with Trajectory.open(path, "a") as trajectory:  # the child lives on
    print(trajectory.scalars["loss"].steps.tolist())
"""


def run_without_torch(path: Path, code: str) -> str:
    """What a script prints that has the store's modules, but not the package's `__init__`, which imports torch."""
    source = Path(zarr_rows.__file__).parent
    begin = (
        "import sys, types\n"
        f"package = types.ModuleType('lean'); package.__path__ = [{str(source)!r}]; sys.modules['lean'] = package\n"
        "from lean.trajectory import Trajectory, TrajectoryError\n"
        f"path = {str(path)!r}\n"
    )
    command = [sys.executable, "-W", "error", "-c", begin + code]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def test_a_forked_child_may_read_but_not_write(path: Path) -> None:
    """A child made by fork cannot append, closes without harm, and does not keep the store locked."""
    recorded(path, 2).close()
    child, steps = run_without_torch(path, FORK).splitlines()
    assert child.startswith("2 ")
    assert child.endswith("was closed, or this process was forked from its writer.")
    assert steps == "[0, 10, 20]"


# The disk refuses


class limited_file_size:
    """Lets no file of this process grow beyond so many bytes, as a full disk would."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._num_bytes, self._before[1]))

    def __exit__(self, *error: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


@pytest.mark.parametrize("what", ["rows", "log"])
def test_a_full_disk_commits_nothing_and_the_store_goes_on(path: Path, what: str) -> None:
    """When a chunk or the log's line cannot be written whole, nothing is recorded and a later append works."""
    size = 70_000
    rows = {name: make_vector(1, size) for name in ("weights", "gradients")} if what == "rows" else {}
    with Trajectory.create(path, make_layout(size), ("weights", "gradients")) as trajectory:
        trajectory.append(1, {"weights": make_vector(0, size)}, {"loss": 1.0})
        digest = trajectory.digest
        limit = 100_000 if what == "rows" else (path / "commit.log").stat().st_size + 20
        with limited_file_size(limit), pytest.raises(TrajectoryError, match=r"Could not append step 2 .* free space"):
            trajectory.append(2, rows, {"loss": 0.5})
        assert trajectory.digest == Trajectory.open(path).digest == digest
        assert not (path / "weights/c/.1.tmp").exists()
        np.testing.assert_array_equal(trajectory.stream("weights")[:], make_vector(0, size)[None])
        trajectory.append(2, {"weights": make_vector(1, size)}, {"loss": 0.25})
    found = Trajectory.open(path)
    found.verify()
    assert found.scalars["loss"].values.tolist() == [1.0, 0.25]
    np.testing.assert_array_equal(found.stream("weights")[1], make_vector(1, size))


def test_a_commit_that_does_not_reach_the_disk_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the log's line is written but cannot be synced, `append` raises and no reader sees the line."""
    real = os.fsync

    def fail(descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("commit.log"):
            raise OSError(5, "Input/output error")
        real(descriptor)

    with Trajectory.create(path, make_layout(), durability="row") as trajectory:
        trajectory.append(1, scalars={"loss": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(TrajectoryError, match="Could not append step 2 .*Input/output error"):
                trajectory.append(2, {"weights": make_vector(2)}, {"loss": 0.5})
            assert Trajectory.open(path).digest == trajectory.digest
            assert not (path / "weights/c/0").exists()
        trajectory.append(2, scalars={"loss": 0.25})
    assert Trajectory.open(path).scalars["loss"].values.tolist() == [1.0, 0.25]


def test_a_store_that_cannot_be_made_whole_is_not_made(path: Path) -> None:
    """A full disk during `create` leaves nothing behind, not even beside the folder."""
    with limited_file_size(100), pytest.raises(TrajectoryError, match="Could not create"):
        Trajectory.create(path, make_layout())
    assert list(path.parent.iterdir()) == []


def test_a_failed_event_is_not_recorded(path: Path) -> None:
    """An event that the disk refuses leaves no trace."""
    with recorded(path) as trajectory:
        with (
            limited_file_size((path / "commit.log").stat().st_size + 20),
            pytest.raises(TrajectoryError, match="Could not add an event"),
        ):
            trajectory.add_event("jump", 100, True)
        assert trajectory.events == ()
    assert Trajectory.open(path).events == ()


@pytest.mark.parametrize("moment", ["write", "append", "add"])
def test_an_interrupt_leaves_all_or_nothing(path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C anywhere in a commit the next one starts from what the log says."""
    target = {"write": zarr_rows.RowFiles, "append": commit_log.CommitLog}.get(moment)
    trajectory = recorded(path, 2)
    owner = target or type(trajectory._records)
    real = getattr(owner, moment)

    def interrupted(self: Any, *arguments: Any) -> None:
        if moment != "add":
            real(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, interrupted)
        with pytest.raises(KeyboardInterrupt):
            trajectory.append(20, {"weights": make_vector(2)})
    trajectory.append(30, {"weights": make_vector(3)})
    steps = [0, 10, 30] if moment == "write" else [0, 10, 20, 30]
    assert trajectory.stream("weights").steps.tolist() == steps
    trajectory.verify()
    trajectory.close()
    Trajectory.open(path).verify()


def test_recovery_forgets_nothing_and_repeats_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, scalars, events and segments are the same before an interrupt and after the recovery from it."""
    with Trajectory.create(path, make_layout()) as trajectory:
        stream = trajectory.stream("weights")
        for step in range(3):
            trajectory.append(step, {"weights": make_vector(step)}, {"loss": float(step)})
            trajectory.add_event("jump", step, True)
        with monkeypatch.context() as patch:
            patch.setattr(commit_log.CommitLog, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                trajectory.append(3, {"weights": make_vector(3)})
        trajectory.append(4, {"weights": make_vector(4)})
        assert stream.steps.tolist() == [0, 1, 2, 4]
        assert stream.segments == [slice(row, row + 1) for row in range(4)]
        assert trajectory.scalars["loss"].steps.tolist() == [0, 1, 2]
        assert len(trajectory.events) == 3


def test_an_interrupted_store_recovers_when_it_closes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing right after an interrupt sweeps the row that was not committed."""
    trajectory = recorded(path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(commit_log.CommitLog, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            trajectory.append(20, {"weights": make_vector(2)})
    assert (path / "weights/c/2").exists()
    trajectory.close()
    assert not (path / "weights/c/2").exists()


# Damage


@pytest.mark.parametrize("where", [0, 13, 27])
def test_verify_finds_an_altered_row(path: Path, where: int, small_chunks: None) -> None:
    """One flipped bit anywhere in a row's coordinates is found by `verify`, which names the row."""
    recorded(path).close()
    chunk = path / "weights" / "c" / "3" / str(where // 12)
    data = bytearray(chunk.read_bytes())
    data[where % 12] ^= 16
    chunk.write_bytes(data)
    with pytest.raises(TrajectoryError, match=r"Row 3 of stream 'weights' \(step 30\) is damaged: its CRC-32"):
        Trajectory.open(path).verify()


@pytest.mark.parametrize("length", [0, 11, 13, None])
def test_a_chunk_of_the_wrong_length_is_refused(path: Path, length: int | None, small_chunks: None) -> None:
    """A chunk file that is missing, short or long is an error of reading and of `verify`; other rows stay readable."""
    recorded(path).close()
    chunk = path / "weights" / "c" / "3" / "1"
    chunk.unlink() if length is None else chunk.write_bytes(bytes(length))
    found = Trajectory.open(path)
    told = "no file" if length is None else length
    for attempt in (found.verify, lambda: found.stream("weights")[:], lambda: found.stream("weights").read(3, 3, 4)):
        with pytest.raises(TrajectoryError, match=f"Row 3 of stream 'weights' .* must have 12 bytes, got {told}"):
            attempt()
    assert found.stream("weights").read(3, 0, 3).shape == (3,)
    assert len(found.stream("weights")[:3]) == 3


def test_a_chunk_that_shrinks_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that loses its end between the check and the read is an error, not zeros."""
    recorded(path).close()
    monkeypatch.setattr(zarr_rows.RowFiles, "_require_length", lambda *_: None)
    (path / "weights/c/3/0").write_bytes(bytes(9))
    with pytest.raises(TrajectoryError, match="became shorter while it was read"):
        Trajectory.open(path).stream("weights")[3]


def test_a_torn_tail_is_ignored_and_then_cut(path: Path) -> None:
    """However much of the last line is there, a reader ignores it, and the next writer cuts it and goes on."""
    recorded(path, 3).close()
    log = path / "commit.log"
    whole = log.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start + 1, len(whole)):
        log.write_bytes(whole[:end])
        found = Trajectory.open(path)
        assert found.stream("weights").steps.tolist() == [0, 10]
        assert log.stat().st_size == end
    with Trajectory.open(path, "a") as trajectory:
        assert log.read_bytes() == whole[:start]
        assert not (path / "weights/c/2").exists()
        trajectory.append(20, {"weights": make_vector(2)}, {"loss": 2 / 8})
    assert log.read_bytes() == whole
    for tail in (bytes(5000), bytes(4096) + b"}]\n"):  # what a file system may leave after power failed
        log.write_bytes(whole + tail)
        assert len(Trajectory.open(path).stream("weights")) == 3


@pytest.mark.parametrize("line", [0, 1, 2, 3])
def test_a_damaged_line_is_refused(path: Path, line: int) -> None:
    """A flipped bit in any whole line, or a line that is gone before the last, is an error that names the line."""
    recorded(path, 3).close()
    log = path / "commit.log"
    lines = log.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    for at in range(len(lines[line]) - (line == 3)):  # without its newline, the last line is torn, not damaged
        flipped = bytearray(lines[line])
        flipped[at] ^= 1
        log.write_bytes(b"".join([*lines[:line], bytes(flipped), *lines[line + 1 :]]))
        with pytest.raises(TrajectoryError, match=rf"Line {line + 1} of .*log is damaged. .* keep the \d+ bytes"):
            Trajectory.open(path, "a")
    if line < 3:
        log.write_bytes(b"".join([*lines[:line], b"\0" * 30 + b"\n", *lines[line + 1 :]]))
        with pytest.raises(TrajectoryError, match=rf"Line {line + 1} of .*commit.log is damaged"):
            Trajectory.open(path)
        log.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
        with pytest.raises(TrajectoryError, match=rf"Line {line + 1} of .*commit.log is damaged"):
            Trajectory.open(path)


def rewrite_log(path: Path, *payloads: object) -> None:
    """A log with the true header and other records, all CRCs right."""
    log = path / "commit.log"
    header = log.read_bytes().splitlines(keepends=True)[0]
    crc = int(header[2:10], 16)
    lines = [header]
    for payload in payloads:
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        crc = commit_log.zlib.crc32(text, crc)
        lines.append(b'["%08x",%b]\n' % (crc, text))
    log.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ([], "dictionary was expected, got list"),
        ({"rows": {}}, "Not a record: 'step'"),
        ({"step": -1, "rows": {}, "scalars": {"a": 1}}, "`step` must be a whole number"),
        ({"step": 2**63, "rows": {}, "scalars": {"a": 1}}, "`step` must be a whole number"),
        ({"step": True, "rows": {}, "scalars": {"a": 1}}, "`step` must be a whole number"),
        ({"step": 1, "rows": {}, "scalars": {}}, "Nothing to append"),
        ({"step": 1, "rows": [], "scalars": {}}, "dictionary was expected, got list"),
        (
            {"step": 1, "rows": {"weights": [10**9, 1]}, "scalars": {}},
            "row 1000000000 of stream 'weights' where 0",
        ),
        ({"step": 1, "rows": {"weights": 3}, "scalars": {}}, "cannot unpack"),
        ({"step": 1, "rows": {"weights": [0, 2**32]}, "scalars": {}}, "impossible CRC 4294967296"),
        ({"step": 1, "rows": {"other": [0, 1]}, "scalars": {}}, "No stream named 'other'"),
        ({"step": 1, "rows": {}, "scalars": {"a": "1"}}, "Scalar 'a' must be a float"),
        ({"step": 1, "rows": {}, "scalars": {"a": 10**400}}, "Scalar 'a' is too large"),
        ({"step": 1, "rows": {}, "scalars": {"": 1.0}}, "name of a scalar must be a string of 1 to 256"),
        ({"step": 1, "event": "e", "breaks": 1, "details": {}}, "`breaks` must be true or false"),
        ({"step": 1, "event": 7, "breaks": True, "details": {}}, "kind of an event must be a string"),
        ({"step": 1, "event": "e", "breaks": True, "details": {"$float": "x"}}, "could not convert"),
        (b"{", "Line 2 of .* is not JSON"),
        (b"[" * 100_000, "Line 2 of .* is not JSON"),
        (b'{"step":1,"event":"e","breaks":true,"details":{"a":' + b"[" * 900 + b"]" * 900 + b"}}", "recursion"),
    ],
)
def test_a_log_of_nonsense_is_refused(path: Path, payload: object, message: str) -> None:
    """Records that no writer makes are refused in words, whatever their CRC says, and nothing is allocated for them."""
    Trajectory.create(path, make_layout()).close()
    rewrite_log(path, payload)
    with pytest.raises(TrajectoryError, match=message):
        Trajectory.open(path)


def test_steps_that_decrease_in_the_log_are_refused(path: Path) -> None:
    """The order that cutting relies on is checked when a log is read."""
    Trajectory.create(path, make_layout()).close()
    rewrite_log(path, *({"step": step, "rows": {}, "scalars": {"a": 1.0}} for step in (5, 4)))
    with pytest.raises(TrajectoryError, match=r"Record 2 of .* is damaged. Steps must not decrease, got 4 after 5"):
        Trajectory.open(path)


def test_a_line_without_end_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log whose line exceeds the limit is refused without reading it into memory."""
    recorded(path).close()
    monkeypatch.setattr(commit_log, "MAX_LINE", 4096)
    with open(path / "commit.log", "ab") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(TrajectoryError, match=r"Line 7 of .* is damaged"):
        Trajectory.open(path)


def test_a_log_that_is_gone_empty_or_foreign_is_refused(path: Path, tmp_path: Path) -> None:
    """Without its own log a store is not opened."""
    recorded(path).close()
    recorded(tmp_path / "other").close()
    log = path / "commit.log"
    log.write_bytes((tmp_path / "other/commit.log").read_bytes())
    with pytest.raises(TrajectoryError, match="belongs to another store"):
        Trajectory.open(path)
    log.write_bytes(b"")
    with pytest.raises(TrajectoryError, match=r"is empty. Restore"):
        Trajectory.open(path)
    log.unlink()
    with pytest.raises(TrajectoryError, match=r"is missing. Restore"):
        Trajectory.open(path)


def change_json(path: Path, *keys: str | int, value: object) -> None:
    data = json.loads(path.read_text())
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("attributes", "format"), "other", "not a trajectory store: its `format`"),
        (("attributes",), [], "not a trajectory store: its `format`"),
        (("attributes", "format_version"), 3, "has format version 3, this release reads 1, 2"),
        (("attributes", "layout", "tensors", 0, "shape"), [8], "stored layout is damaged"),
        (("attributes", "layout", "tensors", 0, "shape"), [2**50], "at most"),
        (("attributes", "layout"), None, "Not a stored layout"),
        (("attributes", "streams"), "weights", "`streams` must be a sequence"),
        (("attributes", "streams"), ["../weights"], "Streams must be named by small letters"),
        (("attributes", "streams"), ["weights", "gone"], "gone must be a folder"),
        (("attributes", "metadata"), None, "lacks its metadata or uuid"),
        (("attributes", "uuid"), None, "lacks its metadata or uuid"),
        (("attributes", "metadata"), {"a": {"$float": []}}, "metadata of .* is damaged"),
        (("zarr_format",), 2, "it is no Zarr v3 group"),
    ],
)
def test_a_damaged_description_is_refused(path: Path, keys: tuple[Any, ...], value: object, message: str) -> None:
    """A group that is no store of this version, or whose description does not fit, is refused in words."""
    recorded(path).close()
    change_json(path / "zarr.json", *keys, value=value)
    for mode in ("r", "a"):
        with pytest.raises((TrajectoryError, LayoutError), match=message):
            Trajectory.open(path, mode)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("shape",), [5, 8], r"must have shape \[time, 7\] .* got \[5, 8\]"),
        (("shape",), [2**62, 7], "with at most 1099511627776 rows, got"),
        (("shape",), [-1, 7], "must have shape"),
        (("shape",), ["5", 7], "must have shape"),
        (("shape",), [7], "is damaged: ValueError"),
        (("data_type",), "float64", "must have data_type 'float32', got 'float64'"),
        (("node_type",), "group", "must have node_type 'array'"),
        (("zarr_format",), 2, "must have zarr_format 3"),
        (("chunk_grid", "name"), "other", "must have chunk grid 'regular'"),
        (("chunk_grid", "configuration", "chunk_shape"), [1, 0], "must have chunks of 1 to"),
        (("chunk_grid", "configuration", "chunk_shape"), [1, 2**40], "must have chunks of 1 to"),
        (("chunk_key_encoding", "name"), "v2", "must have chunk keys 'default'"),
        (("chunk_key_encoding", "configuration", "separator"), ".", "must have separator '/'"),
        (("codecs", 0, "name"), "zstd", "must have codec 'bytes'"),
        (("codecs", 0, "configuration", "endian"), "big", "must have endian 'little'"),
        (("codecs",), [], "is damaged: ValueError"),
        (("codecs",), None, "is damaged: TypeError"),
    ],
)
def test_a_damaged_array_is_refused(path: Path, keys: tuple[Any, ...], value: object, message: str) -> None:
    """An array of another shape, type, chunking or coding than the library makes is refused in words."""
    recorded(path).close()
    change_json(path / "weights" / "zarr.json", *keys, value=value)
    with pytest.raises(TrajectoryError, match=message):
        Trajectory.open(path)


def test_metadata_that_is_no_json_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `zarr.json` that is gone, no JSON, no dictionary, too deep or too large is refused in words."""
    recorded(path).close()
    file = path / "weights" / "zarr.json"
    for text, message in (("{", "damaged: Expecting"), ("[]", "no dictionary"), ("[" * 10**5, "damaged: maximum")):
        file.write_text(text)
        with pytest.raises(TrajectoryError, match=message):
            Trajectory.open(path)
    monkeypatch.setattr(zarr_metadata, "MAX_JSON", 2000)
    file.write_bytes(bytes(2001))
    with pytest.raises(TrajectoryError, match="must be smaller than 2000 bytes"):
        Trajectory.open(path)
    file.unlink()
    with pytest.raises(TrajectoryError, match=r"it has no zarr.json"):
        Trajectory.open(path)


def test_a_link_in_place_of_a_folder_is_refused(path: Path, tmp_path: Path) -> None:
    """A store cannot make the sweep reach folders outside it."""
    recorded(path).close()
    outside = tmp_path / "outside"
    (path / "weights" / "c").rename(outside)
    (path / "weights" / "c").symlink_to(outside)
    with pytest.raises(TrajectoryError, match=r"c must be a folder. It is missing or a link"):
        Trajectory.open(path, "a")
    assert len(list(outside.iterdir())) == 5


# What does not fit


def test_appends_that_do_not_fit_are_refused_and_leave_nothing(path: Path) -> None:
    """Each wrong argument of `append` and `add_event` gets its message, and nothing is recorded."""
    good = make_vector(0)
    cases: list[tuple[str, tuple[Any, ...]]] = [
        ("`step` must be a whole number of at least 0, got -1", (-1, {"weights": good})),
        ("`step` must be a whole number of at least 0, got 1.0", (1.0, {"weights": good})),
        ("`step` must be a whole number of at least 0, got True", (True, {"weights": good})),
        ("Steps must not decrease, got 39 after 40", (39, {}, {"new": 1.0})),
        ("Steps of stream 'weights' must increase, got 40 after 40", (40, {"weights": good})),
        ("Steps of scalar 'loss' must increase, got 40 after 40", (40, {}, {"loss": 1.0})),
        ("Nothing to append at step 50", (50, {}, {})),
        ("No stream named 'weight'. There are: weights.", (50, {"weight": good})),
        (r"shape \(7,\) and type float32, got \(8,\) and float32", (50, {"weights": make_vector(0, 8)})),
        (r"shape \(7,\) and type float32, got \(1, 7\)", (50, {"weights": good[None]})),
        ("type float32, got .* and float64", (50, {"weights": good.astype(np.float64)})),
        ("type float32, got .* and bfloat16", (50, {"weights": torch.zeros(7, dtype=torch.bfloat16)})),
        ("takes a vector of numpy or torch, got list", (50, {"weights": [0.0] * 7})),
        ("Scalar 'loss' must be a float or int, got Tensor. Tensors: use", (50, {}, {"loss": torch.tensor(1.0)})),
        ("Scalar 'loss' must be a float or int, got bool", (50, {}, {"loss": True})),
        ("Scalar 'loss' must be a float or int, got str", (50, {"weights": good}, {"loss": "1"})),
        ("Scalar 'loss' is too large", (50, {"weights": good}, {"loss": 10**400})),
        ("name of a scalar must be a string of 1 to 256", (50, {"weights": good}, {"x" * 257: 1.0})),
        ("Keys in Scalars must be strings other than", (50, {"weights": good}, {"$float": 1.0})),
    ]
    with recorded(path) as trajectory:
        digest = trajectory.digest
        for message, arguments in cases:
            with pytest.raises((TrajectoryError, LayoutError), match=message):
                trajectory.append(*arguments)
        events: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("Steps must not decrease, got 39 after 40", ("jump", 39, True), {}),
            ("kind of an event must be a string of 1 to 256", ("", 40, True), {}),
            ("Details of an event must be plain JSON values, got Tensor", ("e", 40, True), {"a": torch.tensor(1)}),
            ("Keys in Details of an event must be strings", ("e", 40, True), {"a": {1: 2}}),
            ("must fit 64 bits, got one of 71 bits", ("e", 40, True), {"a": [2**70]}),
            ("`step` must be a whole number", ("e", None, True), {}),
            ("One commit may take 16777216 bytes", ("e", 40, True), {"a": "x" * 2**24}),
        ]
        for message, arguments, details in events:
            with pytest.raises(TrajectoryError, match=message):
                trajectory.add_event(*arguments, **details)
        assert trajectory.digest == digest
        trajectory.append(50, {"weights": good}, {"loss": 1.0})
    assert Trajectory.open(path).digest == trajectory.digest
    Trajectory.open(path).verify()


def test_a_vector_of_the_wrong_type_is_noticed_before_anything_is_written(path: Path) -> None:
    """When one of two streams does not fit, the other is not recorded either."""
    with recorded(path, 1, ("weights", "gradients")) as trajectory:
        with pytest.raises(LayoutError, match="Stream 'gradients' takes"):
            trajectory.append(10, {"weights": make_vector(0), "gradients": make_vector(0, 3)})
        assert len(trajectory.stream("weights")) == 1


def test_reads_that_do_not_fit_are_refused(path: Path) -> None:
    """Rows, coordinates and names that do not exist get an error that says what there is."""
    with recorded(path) as trajectory:
        stream = trajectory.stream("weights")
        for rows in (5, -6, [0, 5]):
            with pytest.raises(TrajectoryError, match=r"has 5 rows, row .* was asked for"):
                stream[rows]
        for rows in (1.0, [[1]], [True], "1"):
            with pytest.raises(TrajectoryError, match="Rows must be an int, a slice or a sequence"):
                stream[rows]  # pyright: ignore
        for start, stop in ((-1, 2), (3, 2), (0, 8)):
            with pytest.raises(TrajectoryError, match="Coordinates must lie within 0 and 7"):
                stream.read(0, start, stop)
        with pytest.raises(TrajectoryError, match=r"No stream named 'gradients'. There are: weights"):
            trajectory.stream("gradients")
        with pytest.raises(KeyError, match=r"No scalar named 'lr'. There are: loss"):
            trajectory.scalars["lr"]


def test_stores_that_cannot_be_made_are_refused(path: Path, tmp_path: Path) -> None:
    """Each wrong argument of `create` gets its message, and nothing is left on the disk."""
    with pytest.raises(LayoutError, match="hold float32, got float64 for 'weight'"):
        Trajectory.create(path, make_layout(dtype="float64"))
    with pytest.raises(LayoutError, match="at least one coordinate"):
        Trajectory.create(path, make_layout(0))
    for streams, message in (
        ((), "sequence of 1 to 64 names"),
        ("weights", "sequence of 1 to 64 names"),
        (("Weights",), "small letters"),
        (("..",), "small letters"),
        (("commit.log",), "small letters"),
        (("weights", "weights"), "must differ in name"),
    ):
        with pytest.raises(TrajectoryError, match=message):
            Trajectory.create(path, make_layout(), streams)
    with pytest.raises(TrajectoryError, match="`metadata` must be plain JSON values, got set"):
        Trajectory.create(path, make_layout(), metadata={"a": {1}})
    with pytest.raises(TrajectoryError, match=r"`durability` must be one of \('none', 'row'\), got 'all'"):
        Trajectory.create(path, make_layout(), durability="all")  # pyright: ignore
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for place, message in ((tmp_path, "exists already"), (tmp_path / "file", "exists already")):
        with pytest.raises(TrajectoryError, match=message):
            Trajectory.create(place, make_layout())
    with pytest.raises(TrajectoryError, match=r"Could not create .*File exists"):
        Trajectory.create(tmp_path / "file" / "run", make_layout())


def test_stores_that_cannot_be_opened_are_refused(path: Path, tmp_path: Path) -> None:
    """A path that leads nowhere, another folder, a wrong mode or durability: each has its message."""
    for mode in ("r", "a"):
        with pytest.raises(TrajectoryError, match="There is no folder"):
            Trajectory.open(path, mode)
        with pytest.raises(TrajectoryError, match=r"is not a trajectory store: it has no zarr.json"):
            Trajectory.open(tmp_path, mode)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrajectoryError, match="`mode` must be 'r' or 'a', got 'w'"):
        Trajectory.open(path, "w")  # pyright: ignore
    recorded(path).close()
    with pytest.raises(TrajectoryError, match="`durability` must be one of"):
        Trajectory.resume(path, make_layout(), 3, durability="all")  # pyright: ignore
    with pytest.raises(TrajectoryError, match="`step` must be a whole number"):
        Trajectory.resume(path, make_layout(), -3)
    (path / "writer.lock").unlink()
    (path / "writer.lock").mkdir()
    with pytest.raises(TrajectoryError, match=r"Could not open .* for appending: .*Is a directory"):
        Trajectory.open(path, "a")


def test_closed_stores_and_readers_do_not_append(path: Path) -> None:
    """A reader and a closed writer refuse to append, each for its own reason."""
    trajectory = recorded(path)
    trajectory.close()
    with pytest.raises(TrajectoryError, match="was closed"):
        trajectory.append(50, scalars={"loss": 1.0})
    with pytest.raises(TrajectoryError, match=r"open for reading. Open it with mode 'a'"):
        Trajectory.open(path).add_event("jump", 50, True)
    with pytest.raises(TrajectoryError, match="is not open for appending"):
        trajectory._log.cut()


def test_reading_needs_neither_torch_nor_lightning_nor_zarr(path: Path) -> None:
    """The store's modules read a trajectory in a process where torch, lightning and zarr are never imported."""
    recorded(path).close()
    code = (
        "trajectory = Trajectory.open(path); trajectory.verify()\n"
        "print(trajectory.stream('weights')[:].shape, sorted({'torch', 'lightning', 'zarr'} & set(sys.modules)))\n"
    )
    assert run_without_torch(path, code) == "(5, 7) []\n"

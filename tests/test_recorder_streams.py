"""What TrajectoryRecorder records: every stream, parts and samples, odd optimisation, failing disks, URLs."""

import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import zarr
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from small_runs import Crash, Digits, fit, weights
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from deadreckon.callbacks import ResumeError, TrajectoryRecorder, UnsupportedTrainerError
from deadreckon.forecast import Trajectory, TrajectoryError, download, layout_of, writer, zarr_rows

STEPS = 6


def record(path: Any, streams: Any = ("weights",), module: Any = None, steps: int = STEPS, **options: Any) -> Any:
    """Record a short run, every step, and give the module."""
    trainer_options = {
        name: options.pop(name) for name in ("gradient_clip_val", "plugins", "checkpoint") if name in options
    }
    return fit([TrajectoryRecorder(path, 1, streams, **options)], module, num_steps=steps, **trainer_options)


def rows(path: Path, stream: str = "weights") -> np.ndarray:
    """All rows of a stream."""
    with Trajectory.open(path) as trajectory:
        trajectory.verify()
        return trajectory.stream(stream)[:]


def flat(values: list[Tensor]) -> np.ndarray:
    return torch.cat([value.detach().reshape(-1) for value in values]).numpy()


@pytest.fixture(name="threaded")
def _threaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MIN_THREADED", 0)


def test_raw_gradients_are_those_before_clipping(tmp_path: Path) -> None:
    """A clipped gradient is its raw one, shortened to the limit."""
    record(tmp_path / "t", ("gradients", "raw_gradients"), gradient_clip_val=0.05)
    raw, used = rows(tmp_path / "t", "raw_gradients"), rows(tmp_path / "t", "gradients")
    lengths = np.linalg.norm(raw, axis=1, keepdims=True)
    assert (lengths > 0.1).all()
    np.testing.assert_allclose(used, raw * 0.05 / lengths, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_of_the_only_process_are_the_raw_ones(tmp_path: Path, accumulate: int) -> None:
    """Added up over an accumulation, what the backward passes gave one process is the gradient before clipping."""
    recorder = TrajectoryRecorder(tmp_path / "t", 2, ("rank_gradients", "raw_gradients"))
    fit([recorder], num_steps=STEPS, accumulate_grad_batches=accumulate, gradient_clip_val=0.05)
    own = rows(tmp_path / "t", "gradients_of_rank_0")
    np.testing.assert_allclose(own, rows(tmp_path / "t", "raw_gradients"), rtol=1e-5, atol=1e-7)
    assert len(own) == STEPS // 2


def test_buffers_have_a_stream_and_a_layout_of_their_own(tmp_path: Path) -> None:
    """The running mean and variance of BatchNorm are recorded after each step, and counters are not."""
    module = record(tmp_path / "t", ("weights", "buffers"))
    norm = module.network[2]
    np.testing.assert_array_equal(rows(tmp_path / "t", "buffers")[-1], flat([norm.running_mean, norm.running_var]))
    with Trajectory.open(tmp_path / "t") as trajectory:
        assert trajectory.stream("buffers").layout.names == ("network.2.running_mean", "network.2.running_var")
        assert trajectory.stream("weights").layout == trajectory.layout == layout_of(module)


class Without(Digits):
    """Has no buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def test_moments_are_what_the_optimiser_keeps(tmp_path: Path) -> None:
    """`moments` becomes a stream for each moment, equal to the optimiser's state; a missing one is refused by name."""
    module = record(tmp_path / "sgd", ("moments",), Without())
    (optimizer,) = module.trainer.optimizers
    kept = flat([optimizer.state[value]["momentum_buffer"] for value in module.parameters()])
    np.testing.assert_array_equal(rows(tmp_path / "sgd", "momentum_buffer")[-1], kept)
    recorder = TrajectoryRecorder(tmp_path / "adam", 1, ("moments",))
    fit([recorder], num_steps=STEPS)
    assert recorder.streams == ("exp_avg", "exp_avg_sq")
    assert recorder.every == {"exp_avg": 1, "exp_avg_sq": 1}
    for stream in ("moments", "exp_avg", "momentum_buffer"):
        with pytest.raises(UnsupportedTrainerError, match=f"'{stream}' needs an optimiser that keeps it, got SGD"):
            record(tmp_path / "no", (stream,), Digits("sgd"))
    with pytest.raises(UnsupportedTrainerError, match="'buffers' needs a module with buffers"):
        record(tmp_path / "no", ("buffers",), Without())


def test_parts_and_samples_are_columns_of_the_whole(tmp_path: Path) -> None:
    """Chosen tensors and sampled coordinates are recorded as the whole run has them, and the store says which."""
    module = record(tmp_path / "whole", ("weights", "gradients"))
    whole = {name: rows(tmp_path / "whole", name) for name in ("weights", "gradients")}
    record(tmp_path / "part", ("weights", "gradients"), parameters=["*.bias", "network.5.*"])
    record(tmp_path / "sample", ("weights", "gradients"), parameters="*.weight", sample=50, seed=3)
    network = layout_of(module)
    with Trajectory.open(tmp_path / "part") as part, Trajectory.open(tmp_path / "sample") as sample:
        assert part.layout.names == ("network.1.bias", "network.2.bias", "network.5.weight", "network.5.bias")
        columns = np.concatenate([np.arange(network.size)[network[name].span] for name in part.layout.names])
        assert sample.selection is not None
        assert sample.selection.coordinates is not None
        assert len(np.unique(sample.selection.coordinates)) == 50 == sample.layout.size
        assert all(name.endswith("weight") for name in sample.layout.names)
        for name, truth in whole.items():
            np.testing.assert_array_equal(part.stream(name)[:], truth[:, columns])
            np.testing.assert_array_equal(sample.stream(name)[:], truth[:, sample.selection.coordinates])
        first = sample.selection.coordinates
    record(tmp_path / "other", parameters="*.weight", sample=50, seed=4)
    with Trajectory.open(tmp_path / "other") as other:
        assert other.selection is not None
        assert other.selection.coordinates is not None
        assert not np.array_equal(other.selection.coordinates, first)
    with pytest.raises(ValueError, match="must match the name of a trainable tensor"):
        record(tmp_path / "none", parameters="nothing")


class Manual(Digits):
    """Steps two optimisers by hand, the second at every second batch only."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.automatic_optimization = False

    @override
    def configure_optimizers(self) -> Any:
        first, second = self.network[1].parameters(), self.network[5].parameters()
        return [torch.optim.SGD(first, lr=0.1), torch.optim.Adam(second, lr=0.01)]

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # pyright: ignore
        for optimizer in self.optimizers()[: 1 + batch_idx % 2]:  # pyright: ignore
            optimizer.zero_grad()
            self.manual_backward(functional.cross_entropy(self(batch[0]), batch[1]))
            optimizer.step()


def test_steps_by_hand_of_several_optimisers_are_rows_of_their_own(tmp_path: Path) -> None:
    """Each step of each optimiser is a row, says whose it is, and moves and has gradients of that one's alone."""
    recorded = record(tmp_path / "t", ("weights", "updates", "gradients", "exp_avg"), Manual())
    plain = fit([], Manual(), num_steps=STEPS)
    torch.testing.assert_close(weights(recorded), weights(plain), rtol=0, atol=0)
    with Trajectory.open(tmp_path / "t") as found:
        assert found.stream("weights").steps.tolist() == list(range(STEPS + 1))
        who = found.scalars["optimizer"].values.tolist()
        assert who == [0, 0, 1, 0, 0, 1]
        assert found.scalars["learning_rate"][-1] == 0.1
        assert found.scalars["learning_rate_1"][-1] == 0.01
        assert found.metadata["optimizers"] == ["SGD", "Adam"]
        last = found.layout["network.5.weight"].offset
        for name in ("updates", "gradients"):
            for row, number in zip(found.stream(name)[:], who, strict=True):
                assert row[:last].any() == (number == 0)
                assert row[last:].any() == (number == 1)
        np.testing.assert_allclose(np.diff(found.stream("weights")[:], axis=0), found.stream("updates")[:], atol=1e-6)
    with pytest.raises(UnsupportedTrainerError, match=r"'raw_gradients', 'rank_gradients'\) need automatic"):
        record(tmp_path / "no", ("raw_gradients", "rank_gradients"), Manual())


class Overflowing(Digits):
    """Has an infinite loss at its third batch."""

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (float("inf") if batch_idx == 2 else 1.0)


def test_a_step_that_the_scaler_skips_is_no_row(tmp_path: Path) -> None:
    """Where the gradient scaler skips a step nothing is recorded, and gradients are those without its scale."""
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=256.0))
    streams = ("weights", "gradients", "raw_gradients", "rank_gradients")
    record(tmp_path / "t", streams, Overflowing(), plugins=[plugin])
    with Trajectory.open(tmp_path / "t") as found:
        assert found.stream("weights").steps.tolist() == list(range(STEPS))
        assert np.isfinite(found.stream("raw_gradients")[:]).all()
        np.testing.assert_array_equal(found.stream("gradients")[:], found.stream("raw_gradients")[:])
        own = found.stream("gradients_of_rank_0")[:]
        np.testing.assert_allclose(own, found.stream("gradients")[:], rtol=1e-3, atol=1e-5)
        assert np.abs(np.diff(found.stream("weights")[:], axis=0)).max(axis=1).min() > 0

    class Fused(Digits):
        @override
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), fused=True)

    with pytest.raises(UnsupportedTrainerError, match=r"gradient scaler and Adam\(fused=True\)"):
        record(tmp_path / "no", ("gradients",), Fused(), plugins=[plugin])


class Odd(Digits):
    """Has tied, frozen, unused and perhaps compiled parts."""

    def __init__(self, compiling: bool) -> None:
        super().__init__()
        first, second = nn.Linear(16, 16), nn.Linear(16, 16)
        second.weight = first.weight
        inner = nn.Sequential(first, nn.Tanh(), second)
        compiled = torch.compile(inner, backend="aot_eager") if compiling else inner
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), compiled, nn.Linear(16, 10))  # pyright: ignore
        self.network[1].requires_grad_(False)
        self.unused = nn.Linear(3, 3)


@pytest.mark.parametrize("compiling", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_tied_frozen_unused_and_compiled_parameters(tmp_path: Path, compiling: bool) -> None:
    """Tied parameters come once, frozen ones not, unused ones without a gradient, compiled ones by plain names."""
    recorded = record(tmp_path / "t", ("weights", "gradients", "exp_avg"), Odd(compiling))
    torch.testing.assert_close(weights(recorded), weights(fit([], Odd(compiling), num_steps=STEPS)), rtol=0, atol=0)
    with Trajectory.open(tmp_path / "t") as found:
        inner = ["network.2.0.weight", "network.2.0.bias", "network.2.2.bias"]
        outer = ["network.3.weight", "network.3.bias", "unused.weight", "unused.bias"]
        assert sorted(found.layout.names) == sorted(inner + outer)
        span = slice(found.layout["unused.weight"].offset, found.layout.size)
        assert not found.stream("gradients")[:][:, span].any()
        assert found.stream("gradients")[:][:, : span.start].any(axis=0).mean() > 0.9
        np.testing.assert_array_equal(found.stream("weights")[-1], weights(recorded).numpy())


def test_scalars_have_a_cadence_and_count_samples(tmp_path: Path) -> None:
    """Loss, time and samples come at their own cadence; samples are those of all batches so far."""
    fit([TrajectoryRecorder(tmp_path / "t", {"weights": 2, "scalars": 3})], num_steps=7, accumulate_grad_batches=2)
    with Trajectory.open(tmp_path / "t") as found:
        assert found.scalars["loss"].steps.tolist() == [3, 6]
        assert found.scalars["samples"].values.tolist() == [192, 384]
        assert found.stream("weights").steps.tolist() == [0, 2, 4, 6]


# Before the run


def test_a_line_says_what_the_recording_takes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The forecast of rows and bytes is what is on the disk afterwards, but for the length of the log."""
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        recorder = TrajectoryRecorder(tmp_path / "t", {"weights": 2, "gradients": 3}, ("weights", "gradients"))
        fit([recorder], num_steps=20)
    (line,) = [item.message for item in caplog.records if "TrajectoryRecorder" in item.message]
    with Trajectory.open(tmp_path / "t") as found:
        count = sum(len(found.stream(name)) for name in found.streams)
        assert f"{count} rows of 2 streams, " in line
        told = float(line.split("streams, ")[1].split(" kB")[0]) * 1000
        assert told == pytest.approx(found.num_bytes, rel=0.1)
    assert "ms a step of the training thread" in line


def test_a_disk_that_is_too_small_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the recording would not fit, nothing is trained and nothing is made, and the message says how much."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20_000))
    with pytest.raises(TrajectoryError, match=r"will take 2\d.* kB and .* has 20 kB free. Record less often"):
        record(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []
    record(tmp_path / "t", sample=100)


# While it runs


def test_a_thread_writes_the_same_rows(tmp_path: Path, threaded: None) -> None:
    """With the writing thread rows, events and the run itself are what they are without."""
    streams = ("weights", "gradients", "updates")
    recorded = record(tmp_path / "t", streams, steps=30)
    torch.testing.assert_close(weights(recorded), weights(fit([], num_steps=30)), rtol=0, atol=0)
    assert rows(tmp_path / "t").shape[0] == 31
    np.testing.assert_array_equal(rows(tmp_path / "t")[-1], weights(recorded).numpy())
    np.testing.assert_allclose(np.diff(rows(tmp_path / "t"), axis=0), rows(tmp_path / "t", "updates"), atol=1e-6)


def test_a_slow_disk_is_waited_for_and_charged(tmp_path: Path, threaded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all buffers on their way to a slow disk the run waits; the ledger says so, and nothing more is allocated."""
    real = zarr_rows.RowFiles.write

    def slowly(self: Any, *arguments: Any) -> int:
        time.sleep(0.05)
        return real(self, *arguments)

    monkeypatch.setattr(zarr_rows.RowFiles, "write", slowly)
    recorder = TrajectoryRecorder(tmp_path / "t", 1, ("weights",), depth=2)
    seen: set[int] = set()

    class Watch(pl.Callback):
        @override
        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            assert recorder._store is not None
            free = recorder._store.writer._free["weights"]
            assert free.qsize() <= 2
            seen.add(free.qsize())
            assert recorder._store.writer.num_buffer_bytes == 2 * 4 * recorder.layout.size

    fit([recorder, Watch()], num_steps=10)
    waited = recorder.ledger.activities["waiting for the writer"]
    assert waited.wall_seconds > 0.2
    assert recorder.ledger.activities["recording"].wall_seconds >= 0
    assert min(seen) == 0
    assert len(rows(tmp_path / "t")) == 11


@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_a_disk_that_fails_stops_training_or_does_not(
    tmp_path: Path, on_error: Any, threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in mid-run ends training with an error or recording with a warning; committed rows stay exact."""
    monkeypatch.setattr(writer, "MIN_THREADED", 0 if threads else 2**30)
    real = zarr_rows.RowFiles.write

    def full(self: Any, row: int, *arguments: Any) -> int:
        if row == 4:
            raise OSError(28, "No space left on device")
        return real(self, row, *arguments)

    monkeypatch.setattr(zarr_rows.RowFiles, "write", full)
    recorder = TrajectoryRecorder(tmp_path / "t", 1, on_error=on_error)
    message = r"failed: Could not append step 4 .*No space left on device.* What was recorded before stays"
    if on_error == "stop":
        with pytest.raises(TrajectoryError, match=message):
            fit([recorder], num_steps=20)
    else:
        with pytest.warns(UserWarning, match=message):
            module = fit([recorder], num_steps=20)
        torch.testing.assert_close(weights(module), weights(fit([], num_steps=20)), rtol=0, atol=0)
        recorder.note_jump(weights(module))
    found = rows(tmp_path / "t")
    assert len(found) == 4
    monkeypatch.undo()
    record(tmp_path / "s", steps=20)
    np.testing.assert_array_equal(found, rows(tmp_path / "s")[:4])


class Careful(Digits):
    """Takes steps of a ten-thousandth."""

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-4)


def test_rounding_that_swallows_updates_is_warned_of(tmp_path: Path) -> None:
    """Weights at every step in bfloat16 bring a warning, with how much is lost, once; the rows are rounded weights."""
    with pytest.warns(UserWarning, match=r"Rounding to bfloat16 takes \d+% of what the weights move") as caught:
        module = fit([TrajectoryRecorder(tmp_path / "t", 1, tier={"weights": "bfloat16"})], Careful(), num_steps=9)
    assert sum("Rounding" in str(item.message) for item in caught) == 1
    rounded = weights(module).bfloat16().float().numpy()
    np.testing.assert_array_equal(rows(tmp_path / "t")[-1], rounded)


# At a URL


@pytest.fixture(name="url")
def _url() -> Iterator[str]:
    yield "memory://runs/first"
    fsspec.filesystem("memory").rm("/", recursive=True)


def test_a_run_recorded_to_a_url_is_the_same_run(tmp_path: Path, url: str) -> None:
    """What is at a URL after a run, or a crash and its resumption, is what a folder would hold; nothing stays local."""
    straight = record(tmp_path / "t", ("weights", "gradients"), Digits(dropout=0.0), steps=12)
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=5, save_top_k=-1)
    recorder = TrajectoryRecorder(url, 1, ("weights", "gradients"))
    with pytest.raises(SystemExit):
        fit([recorder, checkpoint, Crash(7)], Digits(dropout=0.0), num_steps=12, enable_checkpointing=True)
    (path,) = tmp_path.glob("*step=5.ckpt")
    resumed = record(url, ("weights", "gradients"), Digits(dropout=0.0), steps=12, checkpoint=path)
    torch.testing.assert_close(weights(resumed), weights(straight), rtol=0, atol=0)
    download(url, tmp_path / "copy")
    for name in ("weights", "gradients"):
        np.testing.assert_array_equal(rows(tmp_path / "copy", name), rows(tmp_path / "t", name))
    array = zarr.open_group(url, mode="r")["weights"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(np.asarray(array[:]), rows(tmp_path / "t"))
    assert recorder._store is not None
    assert not recorder._store.trajectory.path.exists()
    with pytest.raises(TrajectoryError, match="exists already"):
        record(url)
    with pytest.raises(TrajectoryError, match=r"is a URL. Copy it with"):
        Trajectory.open(url)
    with pytest.raises(TrajectoryError, match="exists already"):
        download(url, tmp_path / "copy")
    with pytest.raises(TrajectoryError, match="Could not download memory://nothing: FileNotFoundError"):
        download("memory://nothing", tmp_path / "nothing")


def test_two_runs_never_write_one_url(tmp_path: Path, url: str) -> None:
    """While somebody writes to a URL, or died while doing so, others are told who and how to go on."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/runs/first/writer.lock", b'{"host": "h1"}')
    with pytest.raises(TrajectoryError, match=r"open for writing already: .*h1.* If that process is dead, remove"):
        record(url)


def test_a_resume_says_what_it_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Going on from a checkpoint says in one line how many later rows were cut, and a wrong request is refused."""
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=5, save_top_k=-1)
    fit([TrajectoryRecorder(tmp_path / "t", 1), checkpoint], num_steps=12, enable_checkpointing=True)
    (path,) = tmp_path.glob("*step=5.ckpt")
    with pytest.raises(ResumeError, match=r"has the streams \('weights',\), asked for are \('gradients',\)"):
        record(tmp_path / "t", ("gradients",), steps=12, checkpoint=path)
    fit([TrajectoryRecorder(tmp_path / "t", 1)], num_steps=12, checkpoint=path)
    fit([TrajectoryRecorder(tmp_path / "t", 1)], num_steps=10, checkpoint=path)
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fit([TrajectoryRecorder(tmp_path / "t", 1)], num_steps=12, checkpoint=path)
    (line,) = [item.message for item in caplog.records if ": cut " in item.message]
    assert "cut 5 rows and " in line
    assert "after step 5" in line

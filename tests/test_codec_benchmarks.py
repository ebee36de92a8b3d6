"""The parts of the codec's benchmarks that a wrong table would come from."""

import importlib
import math
import multiprocessing
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from codec_streams import LAYOUTS, ar1_stream
from torch import Tensor

from deadreckon.codec import Codec, CodecConfig
from deadreckon.forecast import Layout

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("record_streams", "codec_rate", "codec_baselines", "codec_accuracy")
RAW = {"lattice": "raw"}
LAYOUT = LAYOUTS["large, small, empty and 0-d tensors"]


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The benchmark scripts as modules, under a name each; `sys.modules` is left as found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        before = {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
        loaded = SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
        for name in NAMES:
            del sys.modules[name]
        sys.modules.update(before)
    return loaded


@pytest.fixture
def tiny(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The recorder, with one small workload and short windows that overlap."""
    streams = scripts.record_streams
    workload = streams.Workload("teacher", "mlp", {"adam": 0.01, "sgd": 0.1})
    settings = {
        "WORKLOADS": {"small": workload},
        "ORDER": (("adam", 8),),
        "WITH_WORKERS": {("small", "adam", 8)},
        "STARTS": {"early": 1, "late": 4},
        "LENGTH": 4,
        "LOCAL_STEPS": 2,
        "NUM_ROUNDS": 3,
        "NUM_WORKERS": 3,
        "NUM_WORKER_STEPS": 2,
        "WIDTH": 0.25,
    }
    for name, value in settings.items():
        monkeypatch.setattr(streams, name, value)
    return streams


def record(streams: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["record_streams.py", str(folder)])
    streams.main()


class TestStreams:
    def test_windows_of_one_run_fit_together(self, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Updates add up to pseudo-gradients with the sign turned, and where windows overlap they hold the same."""
        record(tiny, tmp_path, monkeypatch)
        windows = {window.metadata.phase: window for window in tiny.recorded_windows(tmp_path)}
        early, late = windows["early"], windows["late"]
        updates, pseudo = early.load("updates"), early.load("pseudo_gradients")
        assert updates.shape == (4, early.layout.size)
        assert pseudo.shape == (3, early.layout.size)
        np.testing.assert_allclose(pseudo[0], -(updates[0] + updates[1]), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(pseudo[1], -(updates[2] + updates[3]), rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(early.load("gradients")[3], late.load("gradients")[0])
        assert not np.array_equal(late.load("gradients")[0], late.load("gradients")[1])

    def test_the_first_worker_is_the_one_that_trains(
        self, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The workers' gradients are of different batches, and the first one's is the recorded gradient."""
        record(tiny, tmp_path, monkeypatch)
        (window,) = tiny.recorded_windows(tmp_path, "late")
        workers = window.load("workers")
        assert workers.shape == (2, 3, window.layout.size)
        np.testing.assert_array_equal(workers[:, 0], window.load("gradients")[:2])
        assert not np.array_equal(workers[0, 1], workers[0, 2])

    def test_a_second_recording_makes_only_what_is_missing(
        self, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A window that exists is left alone, a missing one is made equal again, an unfinished one is not listed."""
        record(tiny, tmp_path, monkeypatch)
        early, late = tiny.recorded_windows(tmp_path)
        before, time = late.load("gradients"), (early.folder / "gradients.npy").stat().st_mtime_ns
        late.folder.rename(late.folder.with_name(f"{late.name}.part"))
        assert [window.name for window in tiny.recorded_windows(tmp_path)] == [early.name]
        record(tiny, tmp_path, monkeypatch)
        np.testing.assert_array_equal(tiny.recorded_windows(tmp_path)[1].load("gradients"), before)
        assert (early.folder / "gradients.npy").stat().st_mtime_ns == time


class Lying(NamedTuple):
    """A link whose decoder is off by one unit in the last place of one coordinate, in one packet."""

    codec: Codec

    def encoder(self) -> Any:
        return self.codec.encoder()

    def decoder(self) -> Any:
        decoder, packets = self.codec.decoder(), [0]

        def decode(packet: bytes) -> Tensor:
            vector = decoder.decode(packet)
            packets[0] += 1
            if packets[0] == 2:
                vector[7] = torch.nextafter(vector[7], torch.tensor(math.inf))
            return vector

        return SimpleNamespace(decode=decode)


def honest(layout: Layout, nmse: float) -> Any:
    return Codec(layout, CodecConfig(nmse=nmse))


def lying(layout: Layout, nmse: float) -> Any:
    return Lying(Codec(layout, CodecConfig(nmse=nmse)))


@pytest.fixture
def rate(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The replay, with the decoding process as a thread: the pipe is real, and starts at once."""
    started: list[tuple[threading.Thread, Connection]] = []

    def decoding_thread(lookup: Any) -> Connection:
        here, there = multiprocessing.Pipe()
        thread = threading.Thread(target=scripts.codec_rate.serve, args=(there, lookup))
        started.append((thread, here))
        thread.start()
        return here

    monkeypatch.setattr(scripts.codec_rate, "decoding_process", decoding_thread)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    yield scripts.codec_rate
    for thread, here in started:
        here.close()
        thread.join()


class TestReplay:
    def test_counts_the_bytes_that_were_sent(self, rate: Any) -> None:
        """Bits are those of the encoder's packets, key frame included, and the error is that of the reconstruction."""
        stream = ar1_stream(LAYOUT, 4)
        found = list(rate.replay([row.numpy() for row in stream], range(4), LAYOUT, "", 0.1, lambda name: honest))
        encoder = honest(LAYOUT, 0.1).encoder()
        for (packet, decoded), (step, row) in zip(found, enumerate(stream), strict=True):
            assert packet.num_bits == 8 * len(encoder.encode(row, step))
            torch.testing.assert_close(decoded, encoder.reconstruction, rtol=0, atol=0)
            assert packet.nmse == pytest.approx(encoder.last_report.nmse, rel=1e-5)

    def test_notices_one_wrong_bit(self, rate: Any) -> None:
        """A decoder that is off by one unit in the last place, once, ends the benchmark."""
        vectors = [row.numpy() for row in ar1_stream(LAYOUT, 3)]
        with pytest.raises(AssertionError, match="not the encoder's"):
            list(rate.replay(vectors, range(3), LAYOUT, "", 0.1, lambda name: lying))

    def test_notices_an_error_above_the_bound(
        self, rate: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A contestant that takes more error than it was allowed ends the benchmark."""
        record(tiny, tmp_path, monkeypatch)
        window = tiny.recorded_windows(tmp_path)[0]
        monkeypatch.setattr(rate, "CONTESTANTS", {"cheat": lambda layout, nmse: honest(layout, 2 * nmse)})
        with pytest.raises(AssertionError, match="cheat did not keep NMSE 0.1"):
            rate.measure(rate.Case(window, "gradients", "cheat", 0.1, 4))


class TestTable:
    def row(self, rate: Any, stream: str, contestant: str, bits: int, late_bits: int, batch: int = 32) -> Any:
        about = {"workload": "w", "optimizer": "adam", "batch": batch, "phase": "early", "kind": "gradients"}
        cost = {"size": 10, "packets": 12, "bits": bits, "late_bits": late_bits, "mean_nmse": 0.1, "worst_nmse": 0.1}
        return rate.Row(stream=stream, contestant=contestant, nmse=0.1, encode_seconds=0.0, **about, **cost)

    def test_ratios_are_to_the_reference_on_the_same_stream(self, scripts: Any) -> None:
        """Each stream's bits are divided by the reference's on that stream, and the means are geometric."""
        rate = scripts.codec_rate
        rows = [
            self.row(rate, "one", rate.REFERENCE, 100, 50),
            self.row(rate, "two", rate.REFERENCE, 1000, 500, batch=128),
            self.row(rate, "one", "mine", 50, 40),
            self.row(rate, "two", "mine", 2000, 100, batch=128),
        ]
        assert rate.Table(rows).ratios("mine", 0.1) == [0.5, 2.0]
        assert rate.Table(rows, late=True).ratios("mine", 0.1) == [0.8, 0.2]
        assert rate.Table(rows).ratios("mine", 0.1, batch=128) == [2.0]
        assert rate.geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
        assert any("mine" in line and "1.0000" in line and "2.0000" in line for line in rate.table_text(rows, [0.1]))


class TestBaselines:
    def test_bits_are_read_off_a_power_law_exactly(self, scripts: Any) -> None:
        """Between measured errors the curve is straight on logarithmic scales; outside nothing is made up."""
        baselines = scripts.codec_baselines
        curve = [baselines.Point(3 * error**-0.5, error, 1.0) for error in (0.9, 0.01, 0.1)]
        assert baselines.bits_at(curve, 0.04) == pytest.approx(3 * 0.04**-0.5)
        assert baselines.bits_at(curve, 0.5) == pytest.approx(3 * 0.5**-0.5)
        assert baselines.bits_at(curve, 1.1) is None
        assert baselines.bits_at(curve, 0.005) is None


class TestAccuracy:
    def train(
        self,
        scripts: Any,
        monkeypatch: pytest.MonkeyPatch,
        up: dict[str, Any] | None,
        down: dict[str, Any] | None,
        local_steps: int = 1,
    ) -> Any:
        accuracy = scripts.codec_accuracy
        problem = accuracy.Problem("teacher", "mlp", 0.5, "adam", 0.01, "cosine", 16, 12)
        monkeypatch.setattr(accuracy, "PROBLEMS", {"small": problem})
        scheme = accuracy.Scheme(up, down, False, local_steps) if up and down else None
        return accuracy.train(accuracy.Case("small", 3, 0, scheme))

    def test_uncompressed_vectors_change_nothing(self, scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """With raw packets the run is the float32 run, bit for bit, and costs a little more than float32."""
        plain = self.train(scripts, monkeypatch, None, None)
        raw = self.train(scripts, monkeypatch, RAW, RAW)
        assert (raw.loss, raw.accuracy) == (plain.loss, plain.accuracy)
        assert 0.9 < raw.ratio < 1

    @pytest.mark.parametrize(("up", "down"), [({"nmse": 0.5}, RAW), (RAW, {"nmse": 0.5})])
    def test_each_direction_reaches_the_optimiser(
        self, scripts: Any, monkeypatch: pytest.MonkeyPatch, up: dict[str, Any], down: dict[str, Any]
    ) -> None:
        """Coarse packets in one direction lead to other weights; bits and errors are counted in that direction."""
        plain = self.train(scripts, monkeypatch, None, None)
        run = self.train(scripts, monkeypatch, up, down)
        assert run.loss != plain.loss
        assert (run.up_ratio > 4, run.down_ratio > 4) == (up != RAW, down != RAW)
        assert (run.nmse_up > 0, run.nmse_down > 0) == (up != RAW, down != RAW)
        assert 2 / run.ratio == pytest.approx(1 / run.up_ratio + 1 / run.down_ratio)

    def test_local_steps_send_rarely(self, scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """With twelve steps and a packet every five, three packets go; uncompressed they cost a quarter of float32."""
        run = self.train(scripts, monkeypatch, RAW, RAW, local_steps=5)
        assert 3.4 < run.ratio < 4
        assert run.loss != self.train(scripts, monkeypatch, None, None).loss

    def test_a_channel_loses_nothing_with_classic_feedback(self, scripts: Any) -> None:
        """What arrived and what is owed add up to what was to be sent, and every packet's bits are counted."""
        channel = scripts.codec_accuracy.Channel(LAYOUT, {"nmse": 0.5, "feedback": "classic"})
        rows = ar1_stream(LAYOUT, 6)
        arrived = sum(channel.send(row, step, None) for step, row in enumerate(rows))
        owed = channel._encoder.state_dict()["feedback.residual"]
        torch.testing.assert_close(arrived + owed, torch.stack(rows).sum(0), rtol=1e-4, atol=1e-4)
        assert len(channel.errors) == 6
        assert channel.num_bits > 6 * 8 * 20

    def test_the_interval_resamples_within_tasks(self, scripts: Any) -> None:
        """Two tasks that each always give the same have no spread, however different they are; one task's has some."""
        interval = scripts.codec_accuracy.interval
        assert interval([np.full(5, -1.0), np.full(5, 3.0)]) == (1.0, 1.0)
        values = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
        low, high = interval([values])
        # The bootstrap's own deviation is std / sqrt(5) = 0.316.
        assert low == pytest.approx(-1.96 * 0.316, abs=0.08)
        assert high == pytest.approx(1.96 * 0.316, abs=0.08)

"""The parts of the codec's benchmarks that a wrong table would come from."""

import dataclasses
import importlib
import json
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
from deadreckon.forecast import Layout, layout_of

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = (
    "record_streams",
    "codec_replay",
    "codec_tables",
    "codec_rate",
    "codec_ladder",
    "codec_updates",
    "codec_baselines",
    "accuracy_table",
    "codec_gradients",
    "codec_accuracy",
)
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

    def test_weights_lie_at_the_ends_of_local_steps(
        self, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Weights move from row to row by the updates between, and there is one row more than of pseudo-gradients."""
        record(tiny, tmp_path, monkeypatch)
        (window,) = tiny.recorded_windows(tmp_path, "early")
        weights, updates = window.load("weights"), window.load("updates")
        assert len(weights) == len(window.load("pseudo_gradients")) + 1
        moves = updates[0] + updates[1], updates[2] + updates[3]
        np.testing.assert_allclose(np.diff(weights, axis=0)[:2], moves, rtol=1e-4, atol=1e-7)

    def test_costly_runs_are_cut_short(self, scripts: Any) -> None:
        """At the large batch a network without convolution or attention keeps whole windows, the others do not."""
        streams = scripts.record_streams
        lengths = {name: streams.Run(name, "adam", 1024).length for name in streams.WORKLOADS}
        assert lengths == {"mlp": 40, "conv": 20, "shakespeare": 20, "wikitext": 20}
        assert {streams.Run(name, "adam", 128).length for name in streams.WORKLOADS} == {40}

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
        thread = threading.Thread(target=scripts.codec_replay.serve, args=(there, lookup))
        started.append((thread, here))
        thread.start()
        return here

    monkeypatch.setattr(scripts.codec_replay, "decoding_process", decoding_thread)
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

    def test_learned_forecasters_reach_the_decoder_by_file(
        self, scripts: Any, rate: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A forecaster fitted to one window predicts another, on both ends, and the row has its name without the file.

        A window that it would be fitted to itself has no such rung.
        """
        ladder = scripts.codec_ladder
        monkeypatch.setattr(ladder, "FITTED_TO", "late")
        monkeypatch.setattr(ladder, "LEARNED", {"learned_linear": {"history": 2}})
        monkeypatch.setattr(tiny, "LENGTH", 12)
        record(tiny, tmp_path, monkeypatch)
        windows = tiny.recorded_windows(tmp_path)
        teachers = {window.name: window for window in windows}
        cases = ladder.cases_of(windows, teachers, "gradients", ["learned_linear"], [0.1], 6, tmp_path)
        (case,) = cases
        assert case.window.metadata.phase == "early"
        assert "late" in case.contestant
        row = rate.measure(case)
        assert row.contestant == "learned_linear"
        assert 0 < row.mean_nmse <= 0.1

    def test_what_is_fitted_is_one_packet_ahead(
        self, scripts: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each exercise is some rows of the stream and the row after them, at the spacing of the stream."""
        record(tiny, tmp_path, monkeypatch)
        (window,) = tiny.recorded_windows(tmp_path, "early")
        weights = torch.from_numpy(window.load("weights"))
        found = scripts.codec_ladder.exercises(window, "weights", 2, 4)
        assert len(found) == 2
        for index, exercise in enumerate(found):
            torch.testing.assert_close(exercise.window.values, weights[index : index + 2], rtol=0, atol=0)
            ((ahead, target),) = exercise.targets.items()
            assert exercise.window.steps.diff().tolist() == [ahead]
            torch.testing.assert_close(target, weights[index + 2], rtol=0, atol=0)


class TestErrors:
    def test_feedback_is_held_to_what_was_coded(
        self, scripts: Any, rate: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With feedback the coded vector keeps the bound, the one to be sent need not, and the sum is closer.

        What is owed is counted apart from the codec: with another share of it the bound would look broken.
        """
        monkeypatch.setattr(tiny, "LENGTH", 12)
        record(tiny, tmp_path, monkeypatch)
        window = tiny.recorded_windows(tmp_path)[0]
        row = rate.measure(rate.Case(window, "gradients", "feedback_classic", 0.5, 12))
        plain = rate.measure(rate.Case(window, "gradients", "fitted", 0.5, 12))
        assert row.worst_nmse <= 0.5 * (1 + 1e-5) < row.sent_nmse
        assert plain.sent_nmse == plain.mean_nmse
        assert row.sum_nmse < plain.sum_nmse
        monkeypatch.setattr(rate, "OWED", {"feedback_classic": 0.2})
        with pytest.raises(AssertionError, match="feedback_classic did not keep"):
            rate.measure(rate.Case(window, "gradients", "feedback_classic", 0.5, 12))

    def test_each_error_has_its_own_energy(self, scripts: Any) -> None:
        """The error is divided by the vector's energy, by that of its step from the last one, or by that of the sum."""
        errors = scripts.codec_rate.Errors()
        errors.add(np.array([1.0, 0.0]), np.array([1.0, 0.5]))
        errors.add(np.array([1.0, 2.0]), np.array([1.0, 1.5]))
        assert errors.sent == errors.coded == [0.25, 0.05]
        assert errors.motion == [0.0625]
        assert errors.of_sum == 0
        errors.add(np.array([0.0, 0.0]), np.array([2.0, 0.0]))
        assert errors.of_sum == pytest.approx(4 / 8)


class TestUpdates:
    def test_adam_from_a_recorded_state_gives_the_recorded_updates(
        self, scripts: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The recorded moments and gradients reproduce the recorded updates; with other moments they do not."""
        record(tiny, tmp_path, monkeypatch)
        updates = scripts.codec_updates
        for window in tiny.recorded_windows(tmp_path):
            updates.check(window, window.load("gradients"), window.load("updates"))
            moments = window.folder / "moments.npy"
            np.save(moments, np.load(moments) * np.float32(1.01) + np.float32(1e-6))
            with pytest.raises(AssertionError, match="not the recorded ones"):
                updates.check(window, window.load("gradients"), window.load("updates"))

    def rows(self, updates: Any, bits_of: dict[tuple[str, str], list[tuple[float, float, float]]]) -> list[Any]:
        return [
            updates.Row("one", sent, how, asked, 20, bits, nmse, nmse, nmse)
            for (sent, how), points in bits_of.items()
            for asked, bits, nmse in points
        ]

    def test_only_what_beats_gradients_is_credited(self, scripts: Any) -> None:
        """Bits of gradients are read off a power law exactly, the better metric counts, and the rest is credited."""
        updates = scripts.codec_updates
        plain = [(0.0, 0.3 * error**-0.5, error) for error in (0.9, 0.4, 0.02)]
        adam = [(0.0, 0.2 * error**-0.5, error) for error in (0.9, 0.04, 0.3)]
        table = {
            ("updates", "fitted"): [(0.1, 0.5, 0.1)],
            ("updates", "none"): [(0.1, 2.0, 0.1)],
            ("gradients", "plain"): plain,
            ("gradients", "adam"): adam,
        }
        found = updates.credit(self.rows(updates, table), 0.1)
        assert found.gradients == pytest.approx(0.2 * 0.1**-0.5)
        assert found.saved == pytest.approx(1.5)
        assert found.credited == pytest.approx(found.gradients - 0.5)
        assert found.same_bits == pytest.approx((0.2 / 0.5) ** 2)
        assert not found.is_bound
        coarse = {**table, ("gradients", "plain"): plain[:2], ("gradients", "adam"): adam[::2]}
        found = updates.credit(self.rows(updates, coarse), 0.1)
        assert found.is_bound
        assert found.gradients == pytest.approx(0.2 * 0.3**-0.5)

    def test_worse_and_dearer_points_do_not_count(self, scripts: Any) -> None:
        """Of points that cost more than another and err more, the curve keeps none."""
        updates = scripts.codec_updates
        points = [(0.0, 1.0, 0.5), (0.0, 2.0, 0.6), (0.0, 3.0, 0.1)]
        rows = self.rows(updates, {("gradients", "plain"): points})
        assert [row.bits for row in updates.envelope(rows)] == [1.0, 3.0]

    def test_receivers_run_adam_on_what_they_decode(
        self, scripts: Any, rate: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At 16 bits updates are nearly the recorded ones, but for the second moment after a coarse first packet."""
        monkeypatch.setattr(tiny, "LENGTH", 14)
        record(tiny, tmp_path, monkeypatch)
        (window,) = tiny.recorded_windows(tmp_path, "early")
        updates = scripts.codec_updates
        case = updates.Case(window, 14)
        gradients, wanted = window.load("gradients"), window.load("updates")
        fine, coarse = (updates.send_gradients(case, gradients, wanted, "plain", bits) for bits in (16.0, 1.0))
        assert fine.true_v_nmse < 1e-6 < fine.nmse < coarse.nmse
        assert coarse.true_v_nmse > 0.01
        assert fine.bits > 4 * coarse.bits


class TestTable:
    def row(self, rate: Any, stream: str, contestant: str, bits: int, late_bits: int, batch: int = 32) -> Any:
        about = {"workload": "w", "optimizer": "adam", "batch": batch, "phase": "early", "kind": "gradients"}
        cost = {"size": 10, "packets": 12, "bits": bits, "late_bits": late_bits, "mean_nmse": 0.1, "worst_nmse": 0.1}
        return rate.Row(stream=stream, contestant=contestant, nmse=0.1, encode_seconds=0.0, **about, **cost)

    def test_ratios_are_to_the_reference_on_the_same_stream(self, scripts: Any) -> None:
        """Each stream's bits are divided by the reference's on that stream, and the means are geometric."""
        rate = scripts.codec_tables
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

    def test_the_ladder_shows_bits_saved(self, scripts: Any) -> None:
        """A rung's saving is in bits a coordinate, an arithmetic mean over streams, beside the ratio."""
        tables = scripts.codec_tables
        rows = [
            self.row(tables, "one", tables.REFERENCE, 240, 0),
            self.row(tables, "two", tables.REFERENCE, 2400, 0),
            self.row(tables, "one", "mine", 60, 0),
            self.row(tables, "two", "mine", 600, 0),
        ]
        (line,) = (line for line in scripts.codec_ladder.ladder_text(rows, [0.1]) if line.startswith("mine"))
        ratio, _, saved = line.split()[1:4]
        assert (ratio, saved) == ("0.2500", "8.2500")  # (180 + 1800) / 120 / 2


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
        **local: Any,
    ) -> Any:
        accuracy = scripts.codec_accuracy
        problem = accuracy.Problem("teacher", "mlp", 0.5, "adam", 0.01, "cosine", 16, 12)
        monkeypatch.setattr(accuracy, "PROBLEMS", {"small": problem})
        return accuracy.train(accuracy.Case("small", 3, 0, accuracy.Scheme(up, down, **local)))

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

    def test_local_float32_steps_are_an_arm_of_their_own(self, scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Local steps with float32 vectors equal those with raw packets, bit for bit; three of twelve are sent."""
        local = {"local_steps": 5, "outer_learning_rate": 0.7, "outer_momentum": 0.5}
        plain = self.train(scripts, monkeypatch, None, None, **local)
        raw = self.train(scripts, monkeypatch, RAW, RAW, **local)
        assert (plain.arm, raw.arm) == ("local", "compressed")
        assert plain.loss == raw.loss
        assert plain.ratio == 4
        assert plain.loss != self.train(scripts, monkeypatch, None, None, **{**local, "outer_momentum": 0.0}).loss

    def test_more_steps_cost_more_bits(self, scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Twice the steps at twice the distance between packets send as much as the float32 run is compared with."""
        run = self.train(scripts, monkeypatch, None, None, local_steps=6, stretch=2)
        assert (run.num_steps, run.ratio) == (24, 3)
        assert self.train(scripts, monkeypatch, RAW, RAW, local_steps=6, stretch=2).ratio == pytest.approx(3, rel=0.1)

    def test_more_float32_steps_are_an_arm_of_their_own(self, scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Twice the steps with every gradient sent in float32 are named apart from the float32 run and cost twice."""
        run = self.train(scripts, monkeypatch, None, None, stretch=2)
        assert (run.arm, run.num_steps, run.ratio) == ("longer", 24, 0.5)
        assert self.train(scripts, monkeypatch, None, None).arm == "float32"

    def test_differences_are_of_equal_seeds(self, scripts: Any) -> None:
        """Runs in any order are paired by seed, and a run without its partner counts nowhere, its bits neither."""
        table = scripts.accuracy_table
        runs = [
            table.Run("small", seed, arm, 10, 12, accuracy, 0.3, ratio=ratio)
            for seed, arm, accuracy, ratio in [
                (1, "float32", 80.0, 1.0),
                (0, "float32", 90.0, 1.0),
                (0, "compressed", 91.0, 400.0),
                (1, "compressed", 82.0, 400.0),
                (2, "compressed", 10.0, 4.0),
            ]
        ]
        assert table.differences_of(runs, "small", "compressed", "float32").tolist() == [1.0, 2.0]
        text = "\n".join(table.table_text(runs))
        assert "85.00      86.50      +1.50" in text
        assert "least ratio 400.0, reached over all tasks, reached on each by itself" in text

    def test_one_bad_task_is_not_hidden_by_a_good_one(self, scripts: Any) -> None:
        """A task that loses is told even where the mean over tasks gains."""
        table = scripts.accuracy_table
        runs = [
            table.Run(name, seed, arm, 10, 12, 90.0 + gain, 0.3, ratio=1.0 if arm == "float32" else 400.0)
            for name, gains in (("good", (0.0, 3.0)), ("bad", (0.0, -1.0)))
            for seed in (0, 1)
            for arm, gain in zip(("float32", "compressed"), gains, strict=True)
        ]
        assert "reached over all tasks, not reached on each by itself" in "\n".join(table.table_text(runs))

    @pytest.mark.parametrize("with_text", [False, True])
    @pytest.mark.parametrize("shared", [False, True])
    def test_stacked_gradients_are_the_plain_ones(self, scripts: Any, with_text: bool, shared: bool) -> None:
        """Batched matrix products give each worker the gradient that `vmap` gives, with and without an embedding."""
        nn, gradients = torch.nn, scripts.codec_gradients
        generator = torch.Generator().manual_seed(0)
        first = [nn.Embedding(5, 3), nn.Flatten()] if with_text else [nn.Flatten()]
        network = nn.Sequential(*first, nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
        layout = layout_of(network)
        weights = torch.randn(layout.size if shared else (3, layout.size), generator=generator)
        batches = [
            (
                torch.randint(5, (6, 4), generator=generator)
                if with_text
                else torch.randn(6, 3, 4, generator=generator),
                torch.randint(4, (6,), generator=generator),
            )
            for _ in range(3)
        ]
        found = gradients.gradients_of(network, layout, weights, batches)
        inputs, labels = (torch.stack(parts) for parts in zip(*batches, strict=True))
        plain = gradients.plain(network, gradients.by_worker(weights.expand(3, -1), layout), inputs, labels)
        torch.testing.assert_close(found, torch.cat([plain[spec.name].flatten(1) for spec in layout], 1))
        assert not torch.equal(found[0], found[1])

    def test_other_networks_go_the_plain_way(self, scripts: Any) -> None:
        """A network with a layer that the fast way does not know, or that is no plain stack, is not taken for one."""
        nn, is_stack = torch.nn, scripts.codec_gradients.is_stack
        assert is_stack(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
        assert not is_stack(nn.Sequential(nn.Linear(2, 2), nn.GELU()))
        assert not is_stack(nn.Linear(2, 2))

    def test_runs_are_taken_up_where_they_were_left(self, scripts: Any, tmp_path: Path) -> None:
        """Runs in a file come back as they were; those of another scheme are refused."""
        accuracy, path = scripts.codec_accuracy, tmp_path / "runs.json"
        scheme = accuracy.Scheme(up={"nmse": 0.5}, down={"nmse": 0.5})
        assert accuracy.runs_before(path, scheme) == []
        run = scripts.accuracy_table.Run("small", 3, "compressed", 10, 12, 90.0, 0.3, ratio=3.5)
        path.write_text(json.dumps({"scheme": scheme._asdict(), "runs": [dataclasses.asdict(run)]}))
        assert accuracy.runs_before(path, scheme) == [run]
        with pytest.raises(ValueError, match="another scheme"):
            accuracy.runs_before(path, scheme._replace(local_steps=2))

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
        interval = scripts.accuracy_table.interval
        assert interval([np.full(5, -1.0), np.full(5, 3.0)]) == (1.0, 1.0)
        values = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
        low, high = interval([values])
        # The bootstrap's own deviation is std / sqrt(5) = 0.316.
        assert low == pytest.approx(-1.96 * 0.316, abs=0.08)
        assert high == pytest.approx(1.96 * 0.316, abs=0.08)

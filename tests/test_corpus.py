"""The corpus of recorded runs: what is in it, what a second call does, and what is never left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import result_samples as samples
import torch
from interrupts import hear_interrupts
from test_workers import wait_until
from typing_extensions import override

from deadreckon.experiments import record, verdicts
from deadreckon.experiments.corpus import command as corpus
from deadreckon.experiments.corpus import run as corpus_run
from deadreckon.experiments.corpus.plan import learning_rate_for, plan, run_name
from deadreckon.experiments.corpus.run import CorpusJob, partial_folder
from deadreckon.experiments.errors import DataError, OptionError, ResultError
from deadreckon.experiments.options import CorpusOptions, RecordOptions, ReportOptions
from deadreckon.experiments.report import command as report
from deadreckon.experiments.results import read_result, write_result
from deadreckon.experiments.runs import RunSummary, find_runs, open_run, read_run, read_summary
from deadreckon.experiments.schema import KINDS
from deadreckon.experiments.spec import check
from deadreckon.experiments.tasks import load_task
from deadreckon.experiments.training import TrainingClock, make_classifier, train
from deadreckon.experiments.workers import Failure
from deadreckon.forecast import Ledger, Trajectory, TrajectoryError
from deadreckon.forecast.commit_log import WriterLock

SMALL = CorpusOptions(
    tasks=("digits", "teacher"), networks=("mlp",), runs=1, steps=20, workers=1, progress=False, widths=(0.5,)
)


class Inline:
    """Does jobs in this process, as `Workers` does them in others."""

    done: list[CorpusJob]

    def __init__(self, work: Callable[[CorpusJob], RunSummary], num_workers: int) -> None:
        self._work = work

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def results(self, jobs: Sequence[CorpusJob]) -> Iterator[tuple[CorpusJob, RunSummary | Failure]]:
        for job in jobs:
            Inline.done.append(job)
            try:
                yield job, self._work(job)
            except ValueError as error:
                yield job, Failure(str(error))


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> list[CorpusJob]:
    """Runs are made in this process; the list holds those that were."""
    Inline.done = []
    monkeypatch.setattr(corpus, "Workers", Inline)
    return Inline.done


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of two runs of 20 steps, made by a worker process."""
    out = tmp_path_factory.mktemp("corpus") / "out"
    assert corpus.run(replace(SMALL, out=str(out))) == 0
    return out


@pytest.fixture
def copied(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it that may be spoiled."""
    return Path(shutil.copytree(recorded, tmp_path / "corpus"))


def folders(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_dir())


# The plan


def test_the_plan_is_the_same_every_time_and_goes_on() -> None:
    """Equal options give equal runs; with more runs, those of fewer come first; another seed or task gives others."""
    options = CorpusOptions(runs=40)
    runs = plan(options, "digits", options.networks)
    assert runs == plan(options, "digits", options.networks)
    assert runs[:7] == plan(replace(options, runs=7), "digits", options.networks)
    others = [plan(replace(options, seed=1), "digits", options.networks), plan(options, "teacher", options.networks)]
    for other in others:
        assert [replace(run, task="", seed=0) for run in other] != [replace(run, task="", seed=0) for run in runs]
    # Golden: a change of the plan would make every corpus anew.
    assert [run_name(run) for run in runs[:2]] == GOLDEN
    assert len({run_name(run) for run in runs}) == 40
    assert not {run.seed for run in runs} & {run.seed for run in others[0]}


GOLDEN = ["digits_transformer_w2_adamw_lr0.01_cosine_b128_s0", "digits_conv_w1_adam_lr0.001_linear_b64_s1"]


def test_every_value_of_a_list_comes_equally_often() -> None:
    """Within any number of runs the values of a list differ by at most one in how often they come."""
    options = CorpusOptions(runs=31, optimizers=("adam",))
    runs = plan(options, "digits", options.networks)
    for name, values in (("network", options.networks), ("width", options.widths), ("schedule", options.schedules)):
        counts = Counter(getattr(run, name) for run in runs)
        assert set(counts) == set(values)
        assert max(counts.values()) - min(counts.values()) <= 1
    # Lists are dealt independently: values of two lists do not always come in the same pairs.
    assert len({(run.width, run.schedule) for run in runs}) > 6
    assert {run.learning_rate for run in runs} == set(options.learning_rates)


def test_sgd_takes_larger_steps() -> None:
    """Where Adam takes a learning rate, SGD with momentum takes ten times it, without digits of rounding."""
    assert learning_rate_for("adam", 0.003) == learning_rate_for("adamw", 0.003) == 0.003
    assert learning_rate_for("sgd", 0.003) == 0.03
    runs = plan(CorpusOptions(optimizers=("sgd",), learning_rates=(0.001,)), "digits", ("mlp",))
    assert {run.learning_rate for run in runs} == {0.01}


# What is recorded


def test_a_corpus_holds_what_its_result_says(recorded: Path) -> None:
    """Runs, facts, losses and costs of the result are those of the folders; nothing else is left there."""
    data = read_result(recorded).data
    names = [row["name"] for row in data["runs"]]
    assert folders(recorded) == sorted(names)
    assert {path.name for path in recorded.iterdir()} == {*names, "result.json", "lineage.json", ".lock"}
    assert [row["task"] for row in data["runs"]] == ["digits", "teacher"]
    assert data["failures"] == []
    for row in data["runs"]:
        run, summary = read_run(recorded / row["name"]), read_summary(recorded / row["name"])
        assert summary is not None
        assert row.items() >= asdict(summary).items()
        assert row["name"] == run_name(run)
        with open_run(run) as trajectory:
            assert trajectory.streams == ("weights",)
            assert trajectory.stream("weights").steps.tolist() == [0, 10, 20]
            losses = trajectory.scalars["loss"].values
            assert summary.train_loss == pytest.approx(float(losses[-2:].mean()))
            assert summary.trajectory_digest == trajectory.digest
            trajectory.verify()
        assert 0 < run.seconds_per_step < summary.cpu_seconds / 20
        assert 0 < row["test_loss"] < 3
    assert data["cpu_seconds"] == pytest.approx(sum(row["cpu_seconds"] for row in data["runs"]))
    assert "CC BY" in data["attribution"]


def test_a_run_in_a_worker_equals_one_at_home(recorded: Path) -> None:
    """The weights that a worker recorded are those of the same training in this process, bit for bit."""
    run = find_runs([recorded])[0]
    task = load_task(run.task)
    module = make_classifier(
        task, run.network, run.optimizer, run.learning_rate, run.schedule, run.steps, run.seed, run.width
    )
    train(module, task, run.batch_size, run.steps, run.seed, [])
    weights = torch.nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    with open_run(run) as trajectory:
        np.testing.assert_array_equal(trajectory.stream("weights")[-1], weights)


def test_a_second_call_makes_what_is_missing_only(copied: Path, inline: list[CorpusJob]) -> None:
    """Complete runs are kept as they are; damaged, half-written and further ones are made; the result lists all."""
    before = {run.folder.name: read_summary(run.folder) for run in find_runs([copied])}
    options = replace(SMALL, out=str(copied))
    assert corpus.run(options) == 0
    assert inline == []
    digits, teacher = folders(copied)
    (copied / digits / "run.json").unlink()
    partial = partial_folder(copied / teacher)
    shutil.copytree(copied / teacher, partial)
    assert corpus.run(replace(options, runs=2)) == 0
    assert sorted(job.folder.name for job in inline) == sorted({digits, *folders(copied)} - {teacher})
    assert not partial.exists()
    assert len(folders(copied)) == len(read_result(copied).data["runs"]) == 4
    assert read_summary(copied / teacher) == before[teacher]
    assert read_summary(copied / digits) != before[digits]  # made anew: other seconds


@pytest.mark.parametrize("damage", ["digest", "facts", "store"])
def test_a_run_that_does_not_fit_is_made_anew(copied: Path, inline: list[CorpusJob], damage: str) -> None:
    """A summary of another trajectory, facts of another run and a damaged store do not count as complete."""
    digits, teacher = folders(copied)
    if damage == "digest":
        shutil.copy(copied / teacher / "run.json", copied / digits / "run.json")
    elif damage == "facts":
        shutil.rmtree(copied / digits)
        shutil.copytree(copied / teacher, copied / digits)
    else:
        (copied / digits / "trajectory" / "zarr.json").write_text("{")
    assert corpus.run(replace(SMALL, out=str(copied))) == 0
    assert [job.folder.name for job in inline] == [digits]
    assert [run.task for run in find_runs([copied])] == ["digits", "teacher"]


def test_only_contradicting_options_are_refused(copied: Path, inline: list[CorpusJob]) -> None:
    """Other steps or cadences do not go into one corpus; other lists do."""
    with pytest.raises(OptionError, match="holds runs of 20 steps, recorded every 10: .* got 30 and 10"):
        corpus.run(replace(SMALL, out=str(copied), steps=30))
    with pytest.raises(OptionError, match="got 20 and 5"):
        corpus.run(replace(SMALL, out=str(copied), every=5))
    assert inline == []
    assert corpus.run(replace(SMALL, out=str(copied), tasks=("digits",), widths=(0.25,))) == 0
    assert len(folders(copied)) == 3


def test_one_call_at_a_time(copied: Path, inline: list[CorpusJob]) -> None:
    """Two processes in one folder would take each other's half-written runs for leftovers."""
    lock = WriterLock(copied / corpus.LOCK)
    try:
        with pytest.raises(TrajectoryError, match="is open for writing already"):
            corpus.run(replace(SMALL, out=str(copied)))
    finally:
        lock.release()
    assert inline == []


def test_an_interrupted_run_leaves_nothing(
    tmp_path: Path, inline: list[CorpusJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C or a failure in the middle of a run removes what was written of it."""
    monkeypatch.setattr(corpus_run, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        corpus.run(replace(SMALL, out=str(tmp_path)))
    assert len(inline) == 1
    with pytest.raises(KeyboardInterrupt):
        corpus_run.record_run(inline[0])  # by itself, too
    assert [path.name for path in tmp_path.iterdir()] == [corpus.LOCK]

    def end_suddenly(job: CorpusJob) -> None:  # as a process that is terminated does, which removes nothing
        partial_folder(job.folder).mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "record_run", end_suddenly)
    with pytest.raises(KeyboardInterrupt):
        corpus.run(replace(SMALL, out=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == [corpus.LOCK]


def test_failures_are_listed_and_only_a_corpus_of_nothing_fails(
    tmp_path: Path, inline: list[CorpusJob], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that cannot be made does not stop the others; the exit code says whether there is any."""
    make = corpus_run.make_classifier

    def break_teacher(task: Any, *options: Any) -> Any:
        if task.name == "teacher":
            raise ValueError("no chalk")
        return make(task, *options)

    monkeypatch.setattr(corpus_run, "make_classifier", break_teacher)
    assert corpus.run(replace(SMALL, out=str(tmp_path / "a"))) == 0
    assert "failed: no chalk" in capsys.readouterr().out
    data = read_result(tmp_path / "a").data
    assert [row["task"] for row in data["runs"]] == ["digits"]
    assert [(row["name"][:7], row["reason"]) for row in data["failures"]] == [("teacher", "no chalk")]
    assert corpus.run(replace(SMALL, out=str(tmp_path / "b"), tasks=("teacher",))) == 1
    assert read_result(tmp_path / "b").data["runs"] == []
    assert folders(tmp_path / "b") == []


def test_a_run_that_diverged_is_marked_and_left_out(
    tmp_path: Path, inline: list[CorpusJob], capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that are not finite, or a loss above that of the start, mark a run; it is found on request only."""
    for name, rate in (("wild", 1e8), ("poor", 0.3)):
        options = replace(
            SMALL, tasks=("digits",), optimizers=("sgd",), learning_rates=(rate,), out=str(tmp_path / name)
        )
        assert corpus.run(options) == 0
        assert "diverged and will be left out" in capsys.readouterr().out
        (run,) = find_runs([tmp_path / name], diverged=True)
        assert run.diverged
        assert find_runs([tmp_path / name]) == []
        summary = read_summary(run.folder)
        assert summary is not None
        assert (summary.train_loss is None) == (name == "wild")


def test_what_cannot_be_done_is_refused_before_any_work(tmp_path: Path, inline: list[CorpusJob]) -> None:
    """Batches larger than a task and networks that fit none of it are refused, and no folder is made."""
    out = str(tmp_path / "out")
    with pytest.raises(OptionError, match="`batch_sizes` must be at most 997, the samples of digits, got 1000"):
        corpus.run(replace(SMALL, out=out, batch_sizes=(10, 1000)))
    with pytest.raises(
        OptionError, match="`networks` must name one of mlp, mlp_norm, transformer for the task teacher"
    ):
        corpus.run(replace(SMALL, out=out, networks=("conv", "conv_norm")))
    with pytest.raises(DataError, match="does not hold tinyshakespeare"):
        corpus.run(replace(SMALL, out=out, tasks=("shakespeare",), data=str(tmp_path)))
    assert not Path(out).exists()
    assert inline == []


# Finding runs


def test_runs_are_found_by_corpus_run_and_trajectory(recorded: Path) -> None:
    """A folder of runs, a run's folder and a trajectory lead to the same runs, each once, in order."""
    both = find_runs([recorded])
    assert [run.task for run in both] == ["digits", "teacher"]
    assert find_runs([both[1].folder, recorded, str(both[0].folder)]) == both
    (bare,) = find_runs([both[0].folder / "trajectory"])
    assert replace(bare, folder=both[0].folder, seconds_per_step=0.0) == replace(both[0], seconds_per_step=0.0)
    assert bare.seconds_per_step > 0  # of the wall clock, as `run.json` lies outside
    with open_run(bare) as trajectory:
        assert len(trajectory.stream("weights")) == 3


def test_a_single_recorded_run_is_found(tmp_path: Path) -> None:
    """`record` tells as much of its run as `corpus` does."""
    options = RecordOptions(
        out=str(tmp_path / "run"), steps=20, width=0.5, forecasters=(), schedule="cosine", logger="none", progress=False
    )
    record.run(options)
    (run,) = find_runs([tmp_path / "run"])
    chosen = {name: value for name, value in asdict(options).items() if hasattr(run, name)}
    assert {name: getattr(run, name) for name in chosen} == chosen
    data = read_result(tmp_path / "run").data
    assert 0 < run.seconds_per_step * 20 < data["wall_seconds"] + 1
    assert data["num_parameters"] == 2778


def test_older_and_foreign_folders_are_refused(tmp_path: Path, recorded: Path) -> None:
    """A trajectory without a fact, a folder without runs and no folder are errors that name it."""
    source = find_runs([recorded])[0]
    with open_run(source) as trajectory:
        facts, layout = dict(trajectory.metadata), trajectory.layout
    del facts["width"]
    Trajectory.create(tmp_path / "old", layout, metadata=facts).close()
    with pytest.raises(DataError, match=r"The trajectory in .*old does not tell its `width`: .* Record it again"):
        find_runs([tmp_path / "old"])
    Trajectory.create(tmp_path / "odd", layout, metadata=facts | {"width": "wide"}).close()
    with pytest.raises(DataError, match="`width` must be int or float, got str"):
        find_runs([tmp_path / "odd"])
    shutil.copytree(source.folder, tmp_path / "empty" / ".hidden")
    with pytest.raises(DataError, match="empty holds no recorded run"):
        find_runs([tmp_path / "empty"])
    with pytest.raises(DataError, match="There is no folder .*nowhere"):
        find_runs([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "cannot be read: "),
        ("[1]", "is not a deadreckon-run file"),
        ('{"format": "deadreckon-run", "version": 2}', "must have version 1, got 2"),
        ('{"format": "deadreckon-run", "version": 1, "data": {}}', "must have an entry 'trajectory_digest'"),
        (" " * (2**20 + 1), "is larger than 1048576 bytes"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_damaged_summaries_are_refused(copied: Path, text: str, message: str) -> None:
    """A run.json that is no such file is an error that names it and says what to do."""
    run = find_runs([copied])[0]
    (run.folder / "run.json").write_text(text)
    with pytest.raises(ResultError, match=rf"run\.json .*{message}"):
        find_runs([copied])


def test_a_summary_of_another_run_is_refused(copied: Path) -> None:
    """A run.json and the trajectory beside it belong together."""
    digits, teacher = folders(copied)
    shutil.copy(copied / teacher / "run.json", copied / digits / "run.json")
    with pytest.raises(ResultError, match="belongs to another trajectory"):
        find_runs([copied])


# Costs


def test_the_clock_counts_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step's seconds are those between start and end of training, less what others charge meanwhile."""
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])

    class Spender(pl.Callback):
        ledger = Ledger()

        def spend(self, charged: float, free: float) -> None:
            with self.ledger.charge("recording"):
                now[0] += charged
            now[0] += free

        @override
        def on_fit_start(self, *args: Any, **kwargs: Any) -> None:
            self.spend(64.0, 32.0)

        @override
        def on_train_start(self, *args: Any, **kwargs: Any) -> None:
            self.spend(8.0, 0.0)

        @override
        def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
            self.spend(2.0, 0.25)

        @override
        def on_fit_end(self, *args: Any, **kwargs: Any) -> None:
            self.spend(16.0, 4.0)

    spender = Spender()
    clock = TrainingClock([spender])
    assert np.isnan(clock.seconds_per_step)
    task = load_task("digits")
    train(make_classifier(task, "mlp", "adam", 0.01, "constant", 4, 0), task, 8, 4, 0, [clock, spender])
    assert clock.seconds_per_step == 0.25


# Together


def test_a_corpus_can_be_reported(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page about a corpus lists its runs, whose data they are and how to make them again."""
    report.run(ReportOptions(runs=(str(recorded),), out=str(tmp_path)))
    page = (tmp_path / "report.html").read_text()
    for text in (*folders(recorded), "CC BY", "deadreckon corpus"):
        assert text in page
    assert "2 runs (1 of digits and 1 of teacher)" in capsys.readouterr().out


def test_what_is_said_of_a_corpus_follows_from_its_runs() -> None:
    """Diverged and failed runs are named only where there are any; a corpus of nothing says so."""
    data = check(samples.corpus(), KINDS["corpus"], "data")
    assert verdicts.corpus(data) == [
        "3 runs (2 of digits and 1 of teacher), a row of weights every 10 steps, 8.0 MB, 13.5 s of CPU time.",
        "1 run diverged and will be left out: digits_mlp_w1_sgd_lr300_cosine_b64_s1.",
        "teacher_mlp_w64_adam_lr0.01_linear_b32_s1 failed: OSError: no space left",
    ]
    well = data | {"runs": [run for run in data["runs"] if not run["diverged"]], "failures": []}
    assert verdicts.corpus(well) == [
        "2 runs (1 of digits and 1 of teacher), a row of weights every 10 steps, 8.0 MB, 13.5 s of CPU time."
    ]
    assert verdicts.corpus(data | {"runs": []})[0] == "No run could be recorded."


def test_the_page_shows_what_went_wrong(tmp_path: Path) -> None:
    """Diverged and failed runs are in the tables of the page."""
    write_result(tmp_path / "run", "corpus", samples.corpus())
    report.run(ReportOptions(runs=(str(tmp_path / "run"),), out=str(tmp_path)))
    page = (tmp_path / "report.html").read_text()
    table = page[page.index("<h2>Corpus</h2>") : page.index("<h2>How to recompute</h2>")]
    assert '<td class="text">digits_mlp_w1_sgd_lr300_cosine_b64_s1</td><td class="text">diverged</td>' in table
    assert "no space left" in table


@pytest.mark.slow
def test_a_corpus_that_was_killed_goes_on(tmp_path: Path) -> None:
    """Killed or interrupted in mid-run, the command leaves whole runs or what the next call removes, and finishes."""
    out = tmp_path / "out"
    arguments = ["--tasks=[digits]", "--networks=[mlp]", "--runs=2", "--workers=1", "--steps=600"]
    command = [sys.executable, "-m", "deadreckon.experiments.cli", "corpus", *arguments, f"--out={out}"]
    for how in (signal.SIGKILL, signal.SIGINT):
        running = subprocess.Popen(
            command, start_new_session=True, preexec_fn=hear_interrupts, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            wait_until(lambda: any(out.glob(".*.partial/trajectory/weights/c/5")), 120)
            os.kill(running.pid, how) if how == signal.SIGKILL else os.killpg(running.pid, how)
            running.communicate(timeout=60)
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
        assert running.returncode == (130 if how == signal.SIGINT else -how)
        left = list(out.glob(".*.partial"))
        assert folders(out) == [path.name for path in left]
        assert len(left) == (how == signal.SIGKILL)
        for partial in left:  # so that the next wait is for a run of the next call
            (partial / "trajectory").rename(partial / "leftover")
    done = subprocess.run([*command, "--progress=false"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("2 runs (2 of digits)")
    assert done.stderr == ""
    assert len(find_runs([out], diverged=True)) == len(folders(out)) == 2

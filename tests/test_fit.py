"""`deadreckon fit`: splits, Lightning training around a forecaster's parts, resume, and what it writes."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from recorded_runs import Gains, write_corpus, write_run
from small_runs import Crash

from deadreckon.experiments import cli
from deadreckon.experiments.cli import main
from deadreckon.experiments.errors import OptionError
from deadreckon.experiments.fit import command as fit
from deadreckon.experiments.fit.data import RunsData
from deadreckon.experiments.fit.options import FitOptions
from deadreckon.experiments.fit.split import split_runs
from deadreckon.experiments.fit.training import Trained, train_forecaster
from deadreckon.experiments.results import read_result
from deadreckon.experiments.run_cases import CaseRequest, evenly, read_cases
from deadreckon.experiments.runs import RecordedRun, find_runs
from deadreckon.models import Budget, fit_forecaster, load_forecaster, make_forecaster, registry

QUIET: dict[str, Any] = {"logger": "none", "progress": False}
HORIZONS = (10, 50)
SWEEP = Path(__file__).parents[1] / "configs" / "sweeps" / "fit.yaml"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of each of two tasks."""
    return write_corpus(tmp_path_factory.mktemp("fit") / "corpus", per_task=3)


@pytest.fixture
def gains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the test's own forecaster known by name."""
    monkeypatch.setattr(registry, "LEARNED", (*registry.LEARNED, Gains))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare tests the drawing that they are not about."""
    for name in ("fit_curve", "skill_by_task"):
        monkeypatch.setattr(fit, name, lambda data, path: path)


def some_runs(*tasks: str) -> list[RecordedRun]:
    return [
        RecordedRun(
            folder=Path(f"{task}_{number}"),
            task=task,
            network="mlp",
            width=1.0,
            optimizer="adam",
            learning_rate=0.003,
            schedule="constant",
            batch_size=64,
            seed=number,
            steps=400,
            seconds_per_step=0.002,
        )
        for number, task in enumerate(tasks)
    ]


def data_for(corpus: Path, forecaster: Gains, num_iterations: int = 32, seed: int = 3) -> RunsData:
    runs = find_runs([corpus])
    split = split_runs(runs, 0.25, (), (), None, seed=0)
    request = CaseRequest.of([forecaster], runs, HORIZONS, None, 12)
    data = RunsData(forecaster, split, request, seed, num_iterations)
    data.setup("fit")
    return data


def train(
    corpus: Path, out: Path, num_iterations: int = 32, seed: int = 3, decay: float = 0.0, **options: Any
) -> tuple[Gains, Trained]:
    forecaster = Gains(decay=decay)
    data = data_for(corpus, forecaster, num_iterations, seed)
    return forecaster, train_forecaster(forecaster, data, num_iterations, out, **options)


# Splits


def test_validation_runs_are_drawn_from_every_task() -> None:
    """The share of each task's runs validates, rounded, at least one; a task's draw does not depend on other tasks."""
    runs = some_runs(*["digits"] * 10, *["teacher"] * 3, "single")
    split = split_runs(runs, 0.3, (), (), None, seed=1)
    assert Counter(run.task for run in split.validation) == {"digits": 3, "teacher": 1}
    assert Counter(run.task for run in split.training) == {"digits": 7, "teacher": 2, "single": 1}
    assert not {run.folder for run in split.training} & {run.folder for run in split.validation}
    alone = split_runs(runs[:10], 0.3, (), (), None, seed=1)
    assert alone.validation == [run for run in split.validation if run.task == "digits"]
    others = [split_runs(runs, 0.3, (), (), None, seed=seed).validation for seed in range(5)]
    assert any(other != split.validation for other in others)


def test_tasks_can_be_kept_apart_altogether() -> None:
    """Validation tasks only validate; excluded ones appear on neither side."""
    runs = some_runs(*["digits"] * 4, *["teacher"] * 4, *["secret"] * 4)
    split = split_runs(runs, 0.0, ("teacher",), ("secret",), None, seed=0)
    assert {run.task for run in split.training} == {"digits"}
    assert len(split.training) == 4
    assert [run.task for run in split.validation] == ["teacher"] * 4


def test_a_limit_takes_equally_many_runs_of_each_task() -> None:
    """Of ten and two runs, six are taken as four and two."""
    runs = some_runs(*["digits"] * 10, *["teacher"] * 2)
    split = split_runs(runs, 0.5, (), (), 6, seed=0)
    assert Counter(run.task for run in [*split.training, *split.validation]) == {"digits": 4, "teacher": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_tasks": ("chess",)}, r"`validation_tasks` must name tasks of the runs \(digits\), got 'chess'"),
        ({"exclude_tasks": ("chess",)}, r"`exclude_tasks` must name tasks of the runs \(digits\), got 'chess'"),
        ({"exclude_tasks": ("digits",)}, "No run is left of 2"),
        ({"validation_tasks": ("digits",)}, "Of 2 runs none is left for training"),
        ({"validation_share": 0.0}, "Of 2 runs none is left for validation"),
        ({"validation_tasks": ("digits",), "exclude_tasks": ("digits",)}, "cannot validate and be excluded at once"),
    ],
)
def test_impossible_splits_are_refused(options: dict[str, Any], message: str) -> None:
    """A task that no run has, and sides without runs, are named."""
    chosen: dict[str, Any] = {"validation_share": 0.5, "validation_tasks": (), "exclude_tasks": (), **options}
    with pytest.raises(OptionError, match=message):
        split_runs(some_runs("digits", "digits"), max_runs=None, seed=0, **chosen)


# Cases


def test_cases_are_spread_over_the_whole_run(corpus: Path) -> None:
    """The first and the last possible case are among few, the others evenly between them, in all thirds of the run."""
    run = find_runs([corpus])[0]
    every = read_cases(run, CaseRequest("weights", 3, HORIZONS, 10, None, False))
    few = read_cases(run, CaseRequest("weights", 3, HORIZONS, 10, 5, False))
    steps = [case.window.last_step for case in few.cases]
    assert (steps[0], steps[-1]) == (every.cases[0].window.last_step, every.cases[-1].window.last_step)
    assert steps == [20, 100, 180, 270, 350]
    assert [few.phase(step) for step in steps] == ["early", "early", "middle", "late", "late"]
    assert few.phase(400) == "late"
    for case in few.cases:
        whole = next(other for other in every.cases if other.window.last_step == case.window.last_step)
        torch.testing.assert_close(case.window.values, whole.window.values, rtol=0, atol=0)
        torch.testing.assert_close(case.targets[50], whole.targets[50], rtol=0, atol=0)
    assert evenly(4, 9) == [0, 1, 2, 3]
    assert evenly(9, 1) == [4]


# Training under Lightning


def test_lightning_gives_what_plain_fitting_gives(corpus: Path, tmp_path: Path) -> None:
    """Equal examples and seed give equal bits, errors and iterations, whether Lightning trains or `fit_forecaster`."""
    # Fewer iterations than there are between looks; a gradient that has to be clipped; a last look at an odd iteration.
    for num_iterations, decay in ((3, 0.0), (26, 6.0), (26, 0.0)):
        forecaster, trained = train(corpus, tmp_path / f"{num_iterations}_{decay}", num_iterations, decay=decay)
        data = data_for(corpus, Gains())
        plain = Gains(decay=decay)
        report = fit_forecaster(
            plain,
            data.training_cases,
            Budget(num_iterations),
            torch.Generator().manual_seed(3),
            data.validation_cases,
        )
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(forecaster.state_dict()[name], value, rtol=0, atol=0)
        assert trained.result == (
            report.iterations,
            report.training_error,
            report.validation_error,
            report.stopped,
        )
    assert trained.result.validation_error < 0.7 * trained.curve[0][2]
    other, _ = train(corpus, tmp_path / "other", seed=4)
    assert not torch.equal(other.state_dict()["gains"], forecaster.state_dict()["gains"])


def test_interrupted_and_resumed_is_as_uninterrupted(corpus: Path, tmp_path: Path) -> None:
    """A training that was killed between two looks and goes on from its checkpoint ends with the same bits."""
    whole, expected = train(corpus, tmp_path / "whole")
    for crash in (8, 19):  # at a look, and between two
        out = tmp_path / str(crash)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(corpus, out, callbacks=[Crash(crash)])
        resumed, found = train(corpus, out, resume=True)
        torch.testing.assert_close(resumed.state_dict()["gains"], whole.state_dict()["gains"], rtol=0, atol=0)
        assert found.result == expected.result
        assert found.curve[1:] == expected.curve[1:]


def test_training_stops_when_nothing_gets_better(corpus: Path, tmp_path: Path) -> None:
    """After so many looks without improvement training ends; resuming it then changes nothing."""
    forecaster, trained = train(corpus, tmp_path, 600)
    assert trained.result.stopped == "converged"
    assert trained.result.iterations < 600
    best = min(trained.curve, key=lambda row: row[2])
    assert trained.result.iterations - best[0] == Gains.patience * Gains.check_every
    assert trained.result.validation_error == best[2]
    resumed, again = train(corpus, tmp_path, 600, resume=True)
    assert again.result == trained.result
    assert again.curve[1:] == trained.curve[1:]
    torch.testing.assert_close(resumed.state_dict()["gains"], forecaster.state_dict()["gains"], rtol=0, atol=0)


def test_a_longer_training_may_resume_a_shorter_one(corpus: Path, tmp_path: Path) -> None:
    """Iterations may be added later: 11 and then more up to 32 are as good as 32 at once, also when done already."""
    whole, expected = train(corpus, tmp_path / "whole")
    train(corpus, tmp_path / "parts", 11)
    for _ in range(2):
        resumed, found = train(corpus, tmp_path / "parts", resume=True)
        torch.testing.assert_close(resumed.state_dict()["gains"], whole.state_dict()["gains"], rtol=0, atol=0)
        assert found.result == expected.result


def test_a_penalty_holds_the_network_back(corpus: Path, tmp_path: Path) -> None:
    """What a forecaster adds to the error in training takes effect, and is not part of the errors told."""
    free, trained = train(corpus, tmp_path / "free")
    held = Gains(decay=10.0)
    result = train_forecaster(held, data_for(corpus, held), 32, tmp_path / "held")
    assert float(held.state_dict()["gains"].norm()) < 0.5 * float(free.state_dict()["gains"].norm())
    assert result.curve[0][2] == trained.curve[0][2]


def test_checkpoints_of_something_else_are_refused(corpus: Path, tmp_path: Path) -> None:
    """Resuming with another seed, without a checkpoint, or from a damaged one is refused with what to do."""
    with pytest.raises(OptionError, match=r"nothing to resume: no .*last\.ckpt"):
        train(corpus, tmp_path, resume=True)
    train(corpus, tmp_path, 10)
    with pytest.raises(OptionError, match="made with other runs, forecaster, seed or training options"):
        train(corpus, tmp_path, seed=5, resume=True)
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"nonsense")
    with pytest.raises(OptionError, match=r"last\.ckpt cannot be read"):
        train(corpus, tmp_path, resume=True)


# The command


@pytest.mark.usefixtures("gains")
def test_a_fit_leaves_a_forecaster_and_its_errors_by_task(corpus: Path, tmp_path: Path) -> None:
    """The saved forecaster is the one the result speaks of; it needs no checkpoint; options of training take effect."""
    options: dict[str, Any] = {
        "runs": (str(corpus),),
        "forecaster": "gains",
        "forecaster_options": {"decay": 0.001},
        "horizons": HORIZONS,
        "iterations": 20,
        "batch_size": 16,
        "learning_rate": 0.05,
        "check_every": 10,
        "cases_per_run": 10,
        **QUIET,
    }
    fit.run(FitOptions(out=str(tmp_path / "a"), **options))
    data = read_result(tmp_path / "a").data
    forecaster = load_forecaster(tmp_path / "a" / data["file"])
    assert isinstance(forecaster, Gains)
    assert forecaster.decay == 0.001
    assert [row[0] for row in data["curve"]] == [0, 10, 20]
    assert {(row["task"], row["role"]) for row in data["skill"]} == {
        (task, role) for task in ("digits", "teacher") for role in ("training", "validation")
    }
    assert data["validation_error"] < 1
    run = next(run for run in data["runs"] if run["role"] == "validation" and run["task"] == "digits")
    (recorded,) = find_runs([run["folder"]])
    cases = read_cases(recorded, CaseRequest("weights", 2, HORIZONS, 10, 10, False)).cases
    error = moved = 0.0
    for case in cases:
        (forecast,) = forecaster.forecast(case.window, [50])
        error += float((forecast.mean - case.targets[50]).double().square().sum())
        moved += float((case.window.last - case.targets[50]).double().square().sum())
    (row,) = [
        row for row in data["skill"] if (row["task"], row["role"], row["horizon"]) == ("digits", "validation", 50)
    ]
    assert row["error"] == pytest.approx(error / moved, rel=1e-6)
    assert row["skill"] == pytest.approx(1 - error / moved, rel=1e-6)
    for figure in ("fit_curve", "skill_by_task"):
        assert (tmp_path / "a" / f"{figure}.png").is_file()
    with pytest.raises(OptionError, match="exists already, and nothing is overwritten"):
        fit.run(FitOptions(out=str(tmp_path / "a"), **options))


@pytest.mark.usefixtures("gains", "undrawn")
def test_the_command_goes_on_where_it_was_interrupted(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit interrupted by the user is not overwritten, and with `resume` ends as one that was not interrupted."""
    options: dict[str, Any] = {"runs": (str(corpus),), "forecaster": "gains", "horizons": HORIZONS, "iterations": 20}
    options |= {"cases_per_run": 5, **QUIET}
    fit.run(FitOptions(out=str(tmp_path / "whole"), **options))
    monkeypatch.setattr(fit, "train_forecaster", partial(train_forecaster, callbacks=[Crash(13)]))
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit.run(FitOptions(out=str(tmp_path / "out"), **options))
    monkeypatch.undo()
    monkeypatch.setattr(registry, "LEARNED", (*registry.LEARNED, Gains))
    with pytest.raises(OptionError, match="holds a fit that was interrupted"):
        fit.run(FitOptions(out=str(tmp_path / "out"), **options))
    fit.run(FitOptions(out=str(tmp_path / "out"), resume=True, **options))
    saved = [(tmp_path / name / "forecaster.safetensors").read_bytes() for name in ("whole", "out")]
    assert saved[0] == saved[1]
    with pytest.raises(OptionError, match=r"result\.json exists already"):
        fit.run(FitOptions(out=str(tmp_path / "out"), resume=True, **options))


@pytest.mark.usefixtures("gains", "undrawn")
def test_options_of_training_take_effect(corpus: Path, tmp_path: Path) -> None:
    """Another batch size, learning rate, patience or seed makes another training; looks come as often as asked."""
    options: dict[str, Any] = {"runs": (str(corpus / "digits_0"), str(corpus / "digits_1")), "forecaster": "gains"}
    options |= {"horizons": HORIZONS, "iterations": 8, "cases_per_run": 5}
    changes: list[dict[str, Any]] = [{}, {"batch_size": 8}, {"learning_rate": 0.01}, {"seed": 1}, {"check_every": 2}]
    curves = []
    for number, change in enumerate(changes):
        fit.run(FitOptions(out=str(tmp_path / str(number)), **options, **change, **QUIET))
        curves.append(read_result(tmp_path / str(number)).data["curve"])
    assert len({json.dumps(curve[-1]) for curve in curves[:-1]}) == 4
    assert [row[0] for row in curves[-1]] == [0, 2, 4, 6, 8]
    assert curves[-1][-1][2] == curves[0][-1][2]
    hopeless = {"learning_rate": 1000.0, "check_every": 1, "patience": 2}
    fit.run(FitOptions(out=str(tmp_path / "p"), **options | hopeless, **QUIET))
    assert len(read_result(tmp_path / "p").data["curve"]) == 1 + 2


@pytest.mark.usefixtures("undrawn")
def test_forecasters_solved_in_closed_form_are_fitted_to_many_runs(corpus: Path, tmp_path: Path) -> None:
    """Their fit is that of `fit_forecaster` with the kept runs for validation; an excluded task is not read."""
    options: dict[str, Any] = {
        "forecaster": "learned_linear",
        "forecaster_options": {"per": "kind", "history": 3},
        "horizons": HORIZONS,
        **QUIET,
    }
    fit.run(FitOptions(runs=(str(corpus),), out=str(tmp_path / "a"), exclude_tasks=("teacher",), **options))
    data = read_result(tmp_path / "a").data
    assert data["stopped"] == "solved"
    assert {run["task"] for run in data["runs"]} == {"digits"}
    expected = make_forecaster("learned_linear", per="kind", history=3)
    request = CaseRequest("weights", 3, HORIZONS, 10, 40, False)
    parts: dict[str, list[Any]] = {"training": [], "validation": []}
    for run in data["runs"]:
        (recorded,) = find_runs([run["folder"]])
        parts[run["role"]] += read_cases(recorded, request).cases
    report = fit_forecaster(
        expected, parts["training"], Budget(), torch.Generator().manual_seed(0), parts["validation"]
    )
    saved = load_forecaster(tmp_path / "a" / "forecaster.safetensors")
    for name, value in expected.state_dict().items():  # type: ignore[union-attr]
        torch.testing.assert_close(saved.state_dict()[name], value, rtol=0, atol=0)  # type: ignore[union-attr]
    assert data["validation_error"] == report.validation_error


@pytest.mark.usefixtures("undrawn")
def test_broken_values_are_left_out_and_counted(tmp_path: Path) -> None:
    """Cases that hold NaN train nothing and spoil nothing; the result says how many there were."""
    write_corpus(tmp_path / "corpus", ("digits",), 3)
    write_run(tmp_path / "corpus" / "broken", seed=9, broken_from=250)
    options = FitOptions((str(tmp_path / "corpus"),), str(tmp_path / "out"), horizons=HORIZONS, **QUIET)
    fit.run(options)
    left_out = {Path(run["folder"]).name: run["left_out"] for run in read_result(tmp_path / "out").data["runs"]}
    assert left_out["broken"] > 5
    assert sum(left_out.values()) == left_out["broken"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", '["{tmp}/absent"]'], "There is no folder"),
        (["--runs", '["{tmp}"]'], "holds no recorded run"),
        (["--forecaster", "crystal_ball"], "There is no forecaster 'crystal_ball'"),
        (["--forecaster", "linear"], "'linear' has nothing to fit"),
        (["--forecaster_options", '{"colour": 1}'], "has no option 'colour'"),
        (["--exclude_tasks", "[chess]"], "`exclude_tasks` must name tasks of the runs (digits, teacher), got 'chess'"),
        (["--horizons", "[15]"], "was recorded every 10 steps, so nothing is known 15 steps ahead"),
        (["--horizons", "[10,1000]"], "is too short: 5 rows 10 steps apart and 1000 steps ahead need 1040 steps"),
        (["--spacing", "25"], "was recorded every 10 steps, of which `spacing` 25 is no multiple"),
        (["--batch_size", "8"], "`batch_size` has no effect on 'tuned_line'"),
        (["--resume", "true"], "There is nothing to resume: 'tuned_line' is not trained in batches"),
        (["--validation_share", "1"], "`validation_share` must be at least 0 and below 1, got 1.0"),
        (["--max_runs", "1"], "`max_runs` must be at least 2, got 1"),
        (["--forecaster_options", '{"stream": "gradients"}'], "holds no stream 'gradients'; it has weights"),
    ],
)
def test_wrong_options_are_one_line(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """What cannot be done ends in one line and exit code 2, and nothing is written."""
    given = [text.replace("{tmp}", str(tmp_path)) for text in arguments]
    line = ["fit", "--runs", json.dumps([str(corpus)]), "--out", str(tmp_path / "out"), "--logger", "none"]
    assert main([*line, "--progress", "false", *given]) == 2
    (text,) = capsys.readouterr().err.strip().splitlines()
    assert message in text
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_runs_that_do_not_fit_together_are_refused(corpus: Path, tmp_path: Path) -> None:
    """Another spacing, and another network where a forecaster is bound to one, are refused naming the run."""
    write_run(tmp_path / "slow", every=20)
    options: dict[str, Any] = {"out": str(tmp_path / "out"), "horizons": (20,), **QUIET}
    with pytest.raises(OptionError, match=r"slow was recorded every 20 steps and .*digits_0 every 10.*one `spacing`"):
        fit.run(FitOptions(runs=(str(corpus), str(tmp_path / "slow")), **options))
    fit.run(FitOptions(runs=(str(corpus), str(tmp_path / "slow")), spacing=20, **options))
    write_run(tmp_path / "wide", shapes={"first.weight": (9, 9)})
    with pytest.raises(Exception, match=r"another layout than the first.*\(Case \d+ is of .*wide\.\)"):
        fit.run(
            FitOptions(
                runs=(str(corpus), str(tmp_path / "wide")),
                out=str(tmp_path / "bound"),
                forecaster="learned_linear",
                horizons=HORIZONS,
                validation_share=0.2,
                **QUIET,
            )
        )


@pytest.mark.usefixtures("gains", "undrawn")
def test_a_fit_is_logged_for_wandb(corpus: Path, tmp_path: Path) -> None:
    """Training and validation errors arrive at the logger, under the names that the sweep asks for."""
    options = FitOptions(
        (str(corpus),), str(tmp_path), "gains", horizons=HORIZONS, iterations=20, logger="csv", progress=False
    )
    fit.run(options)
    head = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/error", "validation/error"} <= set(head)


def test_the_sweep_asks_for_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each parameter of the sweep is an option of `fit`, each value is accepted, and the metric is logged."""
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    sweep = yaml.safe_load(SWEEP.read_text())
    assert sweep["metric"] == {"name": "result/validation_error", "goal": "minimize"}
    assert sweep["command"] == ["${env}", "${program}", "fit", "${args}"]
    choices = {
        name: parameter.get("values", [parameter[key] for key in ("value", "min", "max") if key in parameter])
        for name, parameter in sweep["parameters"].items()
    }
    for number in range(max(map(len, choices.values()))):
        chosen = {name: values[number % len(values)] for name, values in choices.items()}
        command, options = cli.parse(["fit", *(f"--{name}={value}" for name, value in chosen.items())])
        assert command.name == "fit"
        for name, value in chosen.items():
            read = getattr(options, name)
            expected = yaml.safe_load(str(value).replace("$WANDB_RUN_ID", "abc"))
            assert read == (tuple(expected) if isinstance(expected, list) else expected)
    assert "fit" in cli.preset_names()
    assert "sweeps" not in cli.preset_names()

"""Sweep files: what is read, what is refused, what is run, and what is said about it."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deadreckon.experiments import cli
from deadreckon.experiments.errors import OptionError
from deadreckon.experiments.manifest import read_manifest
from deadreckon.experiments.results import read_result, write_result
from deadreckon.experiments.sweep import cells as sweep_cells
from deadreckon.experiments.sweep import command as sweep_command
from deadreckon.experiments.sweep.options import SweepOptions
from deadreckon.experiments.sweep.parameters import read_parameter
from deadreckon.experiments.sweep.plan import OWN, cells, read_sweep, sweep_names
from deadreckon.experiments.sweep.verdicts import settings, swept
from deadreckon.experiments.workers import Failure

SMALL: dict[str, Any] = {
    "program": "deadreckon",
    "command": ["${env}", "${program}", "record", "--forecasters=[]", "${args}"],
    "method": "grid",
    "metric": {"name": "result/final/test_loss", "goal": "minimize"},
    "parameters": {
        "learning_rate": {"values": [0.001, 0.003, 0.01]},
        "seed": {"values": [0, 1]},
        "steps": {"value": 20},
        "streams": {"value": "[weights]"},
        "out": {"value": "runs/agent/$WANDB_RUN_ID"},
        "progress": {"value": False},
    },
}


def _file(folder: Path, **changes: Any) -> str:
    content = {name: value for name, value in {**SMALL, **changes}.items() if value is not None}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def _with(**parameters: Any) -> dict[str, Any]:
    return {"parameters": {**SMALL["parameters"], **parameters}}


def test_a_grid_has_every_setting_once(tmp_path: Path) -> None:
    """Each pair of values is one run; the words are those that `wandb agent` would write, but for a run's own."""
    found = cells(read_sweep(_file(tmp_path)), SweepOptions())
    assert [tuple(cell.values.values()) for cell in found] == [
        (rate, seed) for rate in (0.001, 0.003, 0.01) for seed in (0, 1)
    ]
    assert found[0].words == (
        "--forecasters=[]",
        "--learning_rate=0.001",
        "--seed=0",
        "--steps=20",
        "--streams=[weights]",
    )
    assert len({cell.name for cell in found}) == 6
    assert all(cell.name.startswith("record-") for cell in found)
    first = cells(read_sweep(_file(tmp_path)), SweepOptions(count=2))
    assert first == found[:2]
    capped = cells(read_sweep(_file(tmp_path, run_cap=3)), SweepOptions(count=5))
    assert capped == found[:3]


def test_a_run_is_named_after_its_options(tmp_path: Path) -> None:
    """Equal options have equal names however they are written; other options have others."""
    (one,) = cells(read_sweep(_file(tmp_path, parameters={"steps": {"value": 20}})), SweepOptions())
    (two,) = cells(
        read_sweep(_file(tmp_path, parameters={"steps": {"values": [20]}, "seed": {"value": 0}})), SweepOptions()
    )
    (three,) = cells(read_sweep(_file(tmp_path, parameters={"steps": {"value": 21}})), SweepOptions())
    assert one.name == two.name != three.name


def test_random_settings_can_be_continued(tmp_path: Path) -> None:
    """The first settings stay what they were when more are asked for; another seed gives others; all are in range."""
    rate = {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1}
    sweep = read_sweep(_file(tmp_path, method="random", **_with(learning_rate=rate, seed={"value": 0})))
    few, many = (cells(sweep, SweepOptions(count=count)) for count in (3, 6))
    assert many[:3] == few
    assert len({cell.name for cell in many}) == 6
    assert all(0.001 <= cell.values["learning_rate"] <= 0.1 for cell in many)
    assert cells(sweep, SweepOptions(count=3, seed=1)) != few


def test_a_random_sweep_of_few_settings_ends(tmp_path: Path) -> None:
    """Where there are only six settings, no more than six runs come of a hundred draws."""
    found = cells(read_sweep(_file(tmp_path, method="random", run_cap=50)), SweepOptions())
    assert len(found) == 6


@pytest.mark.parametrize(
    ("content", "check"),
    [
        ({"min": 1, "max": 3}, lambda x: type(x) is int and 1 <= x <= 3),
        ({"min": 1.0, "max": 3}, lambda x: type(x) is float and 1 <= x <= 3),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, lambda x: x in (0, 0.25, 0.5, 0.75, 1)),
        ({"distribution": "q_uniform", "min": 1, "max": 9, "q": 2}, lambda x: type(x) is int and x % 2 == 0),
        ({"distribution": "log_uniform", "min": 0, "max": 1}, lambda x: 1 <= x <= 2.7183),
        ({"distribution": "q_log_uniform_values", "min": 10, "max": 99}, lambda x: type(x) is int and 10 <= x <= 99),
        ({"distribution": "normal", "mu": 5.0, "sigma": 0.0}, lambda x: x == 5),
        ({"distribution": "log_normal", "mu": 0.0, "sigma": 0.0}, lambda x: x == 1),
        ({"values": ["a", "b"], "probabilities": [1.0, 0.0]}, lambda x: x == "a"),
        ({"value": [1, 2]}, lambda x: x == [1, 2]),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
def test_values_are_drawn_as_the_distribution_says(content: Any, check: Callable[[Any], bool]) -> None:
    """Every draw is of the distribution's kind and within its bounds."""
    parameter = read_parameter("steps", content)
    generator = random.Random(3)
    assert all(check(parameter.draw(generator)) for _ in range(200))


def test_both_ends_of_a_whole_range_are_drawn_and_in_the_grid() -> None:
    """Of 1 to 3, each comes up; a grid of them is 1, 2, 3; one in steps leaves out its maximum, as wandb's does."""
    parameter = read_parameter("steps", {"min": 1, "max": 3})
    generator = random.Random(3)
    assert {parameter.draw(generator) for _ in range(60)} == {1, 2, 3}
    assert parameter.grid() == (1, 2, 3)
    stepped = read_parameter("steps", {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25})
    assert stepped.grid() == (0.0, 0.25, 0.5, 0.75)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "bayes"}, "`method` must be grid or random to run here, got 'bayes'"),
        ({"method": None}, "`method` must be grid or random to run here, got None"),
        ({"early_terminate": {"type": "hyperband"}}, "'early_terminate' is nothing that runs here. Run the file with"),
        ({"stepz": 1}, "'stepz' is nothing that runs here. Leave it out"),
        ({"metric": None}, "`metric` must have a name"),
        ({"metric": {"name": "loss"}}, "`metric.name` must be one of result/final/test_accuracy, .* got 'loss'"),
        ({"metric": {**SMALL["metric"], "goal": "up"}}, "`metric.goal` must be minimize or maximize, got 'up'"),
        ({"metric": {**SMALL["metric"], "target": 1}}, "`metric.target` does not run here"),
        ({"program": "train.py"}, "`program` must be deadreckon"),
        ({"command": ["${env}", "${program}", "${args}"]}, "`command` must be .*COMMAND"),
        ({"command": ["${program}", "report", "${args}"]}, "`command` must run one of record, .* got 'report'"),
        ({"command": ["${program}", "record", "--steps", "3", "${args}"]}, "as --name=value, got '--steps'"),
        ({"command": ["${program}", "record", "--out=x", "${args}"]}, "`command`: set out under `parameters`"),
        ({"parameters": {}}, "`parameters` must name at least one option"),
        (_with(stepz={"value": 1}), "`parameters` names 'stepz', which is no option of record. It has batch_size, "),
        (_with(steps={"value": "many"}), "--steps: Expected int. Got value: many"),
        (_with(steps={"value": 0}), "`steps` must be at least 1, got 0"),
        (_with(steps=3), "`parameters.steps` must be a mapping"),
        (_with(steps={}), "`parameters.steps` must have value, values, or min and max, got none"),
        (_with(steps={"values": []}), "`parameters.steps`: `values` must be a list with something in it"),
        (
            _with(steps={"values": [1], "min": 1}),
            "`parameters.steps` must have values for categorical, got min, values",
        ),
        (_with(steps={"distribution": "beta"}), "has the distribution 'beta', which does not run here. Take one of"),
        (_with(steps={"parameters": {}}), "`parameters.steps` must not hold parameters itself"),
        (_with(steps={"min": 3, "max": 1}), "`min` must be below `max`, got 3 and 1"),
        (_with(steps={"min": "1e-3", "max": 1}), "'min' must be a finite number, got '1e-3'. YAML takes 1e-3 for text"),
        (_with(steps={"distribution": "log_uniform_values", "min": 0, "max": 1}), "`min` must be above 0"),
        (_with(steps={"distribution": "int_uniform", "min": 0.5, "max": 2}), "must be whole numbers"),
        (_with(steps={"distribution": "uniform", "min": 0, "max": 1, "q": 1}), "uniform takes min, max, got 'q'"),
        (_with(steps={"distribution": "normal", "sigma": -1}), "`sigma` at least 0"),
        (_with(steps={"distribution": "uniform", "min": 0}), "must have 'max' for uniform"),
        (_with(steps={"values": [1, 2], "probabilities": [0.5]}), "one for each value and sum up to 1"),
        (_with(steps={"values": [1], "probabilities": ["x"]}), "must be numbers of at least 0"),
        (_with(out={"values": ["a", "b"]}), "`parameters.out` cannot be swept"),
        (_with(learning_rate={"min": 0.1, "max": 1.0}), "`parameters.learning_rate` must have values, int_uniform"),
        (_with(steps={"min": 1, "max": 10**15}), "`parameters.steps` has more than 1000 values"),
        (
            {"method": "random", "run_cap": 2}
            | _with(learning_rate={"distribution": "log_uniform", "min": 900, "max": 999}),
            "`parameters.learning_rate` gives values that are too large: log_uniform takes exponents",
        ),
        (_with(steps={"min": 1, "max": 900}), "The grid has 5400 settings, more than 1000"),
        ({"method": "random"}, "A random sweep has no end: give `--count`, or `run_cap`"),
        ({"run_cap": 0}, "`run_cap` must be a whole number of at least 1, got 0"),
    ],
)
def test_what_does_not_run_here_is_refused_in_one_line(
    changes: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown names, wrong types, and methods and distributions of wandb's server are named, with what to do."""
    path = _file(tmp_path, **changes)
    with pytest.raises(OptionError, match=message):
        cells(read_sweep(path), SweepOptions(file=path))
    assert cli.main(["sweep", path, "--out", str(tmp_path / "out"), "--progress", "false"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"), [("[", "it is not YAML"), ("- 1", "it must be a mapping"), (None, "no such")]
)
def test_what_is_no_sweep_file_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    """A file that is absent, not YAML, or no mapping is named with its path."""
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(OptionError, match=f"mine.yaml: .*{message}"):
        read_sweep(str(path))
    with pytest.raises(OptionError, match="`file` must be a file or one of digits, fit, got 'absent'"):
        read_sweep("absent")


def test_the_first_word_is_the_file() -> None:
    """`deadreckon sweep fit` means `--file fit`."""
    _, options = cli.parse(["sweep", "fit", "--count", "2"])
    assert options == SweepOptions(file="fit", count=2)


@pytest.mark.parametrize("name", sweep_names())
def test_packaged_sweeps_run_here_and_under_an_agent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file has settings, all of whose options the command takes; an agent's runs have a folder of their own."""
    sweep = read_sweep(name)
    assert len(cells(sweep, SweepOptions())) > 1
    values = {parameter.name: parameter.values[0] for parameter in sweep.parameters if parameter.name in OWN}
    words = [sweep.command.name, *(f"--{key}={value}" for key, value in values.items())]
    with pytest.raises(OptionError, match=r"`out` has \$WANDB_RUN_ID in it, which only `wandb agent` sets"):
        cli.parse(words)
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    _, options = cli.parse(words)
    assert getattr(options, "out", None) == "runs/agent/abc123"
    assert getattr(options, "wandb_mode", None) == "online"


@pytest.mark.slow
@pytest.mark.parametrize("name", sweep_names())
def test_packaged_sweeps_fit_the_schema_of_wandb(name: str) -> None:
    """wandb's own description of sweep files takes each of ours as it is."""
    schema = pytest.importorskip("sweeps.config.schema", reason="needs the package sweeps, and jsonschema")
    path = Path(__file__).parents[1] / "configs" / "sweeps" / f"{name}.yaml"
    assert list(schema.validator.iter_errors(yaml.safe_load(path.read_text()))) == []


class Inline:
    """Does jobs in this process, as `Workers` does them in others."""

    def __init__(self, work: Callable[[Any], Any], num_workers: int) -> None:
        self.work = work

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def results(self, jobs: list[Any]) -> Any:
        for job in jobs:
            try:
                yield job, self.work(job)
            except Exception as error:
                yield job, Failure(f"{type(error).__name__}: {error}")


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs of `record` whose loss is (learning rate - 0.004)^2 + seed / 10^6, and which fail at 0.01 with seed 1."""
    asked: list[str] = []

    def run(options: Any) -> None:
        print("learning at", options.learning_rate)
        asked.append(options.out)
        if options.learning_rate == 0.01 and options.seed == 1:
            raise RuntimeError("no luck")
        loss = (options.learning_rate - 0.004) ** 2 + options.seed / 1e6
        data: dict[str, Any] = {"task": "digits", "network": "mlp", "num_parameters": 1, "steps": 1, "seed": 0}
        data |= {"streams": {}, "loss_curve": [], "wall_seconds": 1.0, "ledger": {}, "attribution": ""}
        write_result(options.out, "record", {**data, "final": {"test_loss": loss}})

    monkeypatch.setattr(sweep_command, "Workers", Inline)
    monkeypatch.setattr(sweep_command, "sweep_panels", lambda *_: None)
    monkeypatch.setattr("deadreckon.experiments.record.run", run)
    return asked


def test_a_sweep_is_resumed_sorted_and_counts_failures(
    pretended: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Complete runs are not made again, failed ones are; all are in one table, best first, failures apart and named."""
    arguments = ["sweep", _file(tmp_path), "--out", str(tmp_path / "out"), "--progress", "false"]
    assert cli.main([*arguments, "--count", "2"]) == 0
    assert len(pretended) == 2
    assert cli.main(arguments) == 0
    assert len(pretended) == 6
    text = capsys.readouterr().out
    assert "2 of these were complete before." in text
    data = read_result(tmp_path / "out").data
    tried = [(row["values"]["learning_rate"], row["values"]["seed"]) for row in data["cells"]]
    assert tried == [(0.003, 0), (0.003, 1), (0.001, 0), (0.001, 1), (0.01, 0)]
    (failure,) = data["failures"]
    assert failure["values"] == {"learning_rate": 0.01, "seed": 1}
    assert failure["reason"] == "RuntimeError: no luck"
    assert f"{failure['name']} failed: RuntimeError: no luck" in text
    assert (tmp_path / "out" / failure["name"] / "log.txt").read_text() == "learning at 0.01\n"
    table = (tmp_path / "out" / "sweep.md").read_text()
    assert table.index(data["cells"][0]["name"]) < table.index(data["cells"][1]["name"]) < table.index("## Failed")
    inputs = {item.path for item in read_manifest(tmp_path / "out").inputs}
    assert inputs == {f"{row['name']}/result.json" for row in data["cells"]}
    assert cli.main(arguments) == 0
    assert len(pretended) == 7  # the failed one again


@pytest.mark.slow
def test_a_damaged_or_foreign_run_is_made_again(pretended: list[str], tmp_path: Path) -> None:
    """A run counts as complete only by a whole file of its own, with its result beside it."""
    arguments = ["sweep", _file(tmp_path), "--out", str(tmp_path / "out"), "--progress", "false", "--count", "3"]
    assert cli.main(arguments) == 0
    folders = [Path(folder) for folder in pretended]
    (folders[0] / "cell.json").write_text("{")
    content = json.loads((folders[1] / "cell.json").read_text())
    content["data"]["cell"] = "another"
    (folders[1] / "cell.json").write_text(json.dumps(content))
    (folders[2] / "result.json").unlink()
    assert cli.main(arguments) == 0
    assert pretended[3:] == pretended[:3]
    (folders[0] / "cell.json").write_bytes(b" " * (sweep_cells.MAX_BYTES + 1))
    assert cli.main(arguments) == 0
    assert len(pretended) == 7


def test_a_sweep_without_a_complete_run_says_so(
    pretended: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When all fail the exit code is 1; a result without the metric counts as a failure that says what there is."""
    path = _file(tmp_path, metric={"name": "result/final/test_accuracy", "goal": "maximize"})
    assert cli.main(["sweep", path, "--out", str(tmp_path / "out"), "--count", "1", "--progress", "false"]) == 1
    text = capsys.readouterr().out
    assert "its result has no number result/final/test_accuracy; it has result/final/test_loss" in text
    assert "No run was completed, so nothing can be said about settings." in text


def _result(rows: list[tuple[dict[str, Any], float]], goal: str = "minimize") -> dict[str, Any]:
    cells = [
        {"name": f"run{i}", "values": own, "metric": value, "wall_seconds": 1.0} for i, (own, value) in enumerate(rows)
    ]
    metric = {"name": "result/x", "goal": goal}
    return {"name": "mine", "command": "fit", "metric": metric, "cells": cells, "failures": []}


def test_sentences_follow_the_numbers() -> None:
    """Best, next, overlap, edge and failures are told from the numbers, and turn when these do."""
    rows = [({"a": a, "seed": seed}, a + 0.1 * seed) for a in (1, 2, 3) for seed in (0, 1)]
    text = " ".join(swept(_result(rows)))
    assert "The lowest result/x is 1.05, the mean of 2 runs, at a 1." in text
    assert "Next comes a 2 at 2.05; the ranges of their runs do not overlap." in text
    assert "That is the smallest a that was tried: look further." in text
    text = " ".join(swept(_result(rows, "maximize")))
    assert "The highest result/x is 3.05, the mean of 2 runs, at a 3." in text
    assert "That is the largest a that was tried" in text
    near = [({"a": a, "seed": seed}, abs(a - 2) * 0.05 + 0.1 * seed) for a in (1, 2, 3) for seed in (0, 1)]
    text = " ".join(swept(_result(near)))
    assert "the ranges of their runs overlap" in text
    assert "look further" not in text
    single = " ".join(swept(_result([({"a": "x"}, 1.0), ({"a": "y"}, 2.0)])))
    assert "with one run each, nothing says whether the difference is more than noise" in single
    assert "failed" not in single
    data = _result(rows)
    data["failures"] = [{"name": f"f{i}", "values": {}, "reason": "x"} for i in range(5)]
    assert "5 runs failed: f0, f1 and f2 and 2 others." in " ".join(swept(data))


def test_settings_are_means_over_seeds() -> None:
    """Runs that differ by their seed only are one setting, with their mean, extremes and number."""
    data = _result([({"a": 1, "seed": 0}, 3.0), ({"a": 1, "seed": 1}, 5.0), ({"a": 2, "seed": 0}, 1.0)])
    first, second = settings(data["cells"], "minimize")
    assert first["values"] == {"a": 2}
    assert (second["mean"], second["low"], second["high"], second["num_runs"]) == (4.0, 3.0, 5.0, 2)


@pytest.mark.slow
def test_a_real_sweep_runs_in_two_processes_and_is_reported(tmp_path: Path) -> None:
    """Six small trainings end as a table in the report, whose page names the best setting."""
    out = tmp_path / "out"
    arguments = ["sweep", _file(tmp_path), "--out", str(out), "--workers", "2", "--progress", "false"]
    assert cli.main(arguments) == 0
    data = read_result(out).data
    assert len(data["cells"]) == 6
    losses = [row["metric"] for row in data["cells"]]
    assert losses == sorted(losses)
    own = read_result(out / data["cells"][0]["name"]).data
    assert own["final"]["test_loss"] == losses[0]
    assert own["options"]["learning_rate"] == data["cells"][0]["values"]["learning_rate"]
    assert cli.main(["report", "--runs", f"[{out}]", "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Which setting is best" in page
    assert swept(data)[1] in page
    assert (out / "sweep.svg").is_file()

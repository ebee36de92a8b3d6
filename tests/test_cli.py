import dataclasses
import json
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deadreckon.experiments import cli
from deadreckon.experiments.errors import DataError, OptionError
from deadreckon.experiments.options import (
    CompareOptions,
    CorpusOptions,
    QuickstartOptions,
    RaceOptions,
    RecordOptions,
    ReportOptions,
)
from deadreckon.forecast.errors import TrajectoryError

HEAVY = ("torch", "lightning", "numpy", "wandb", "matplotlib", "zarr", "rich")


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], None]:
    """Put a function in the place of a subcommand's work."""

    def replace(work: Callable[[Any], Any]) -> None:
        for command in cli.COMMANDS:
            module = types.ModuleType(command.module)
            monkeypatch.setattr(module, "run", work, raising=False)
            monkeypatch.setitem(sys.modules, f"deadreckon.experiments.{command.module}", module)

    return replace


@pytest.mark.parametrize("arguments", [["--help"], ["record", "--help"], ["--version"], ["race", "--steps", "0"]])
def test_nothing_heavy_is_imported_before_there_is_work(arguments: list[str]) -> None:
    """Help, version and wrong options come without torch, Lightning, wandb or matplotlib, and soon."""
    code = (
        "import sys\nfrom deadreckon.experiments.cli import main\n"
        f"try:\n    code = main({arguments!r})\nexcept SystemExit as error:\n    code = error.code\n"
        f"import json\nprint(json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begin
    code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded == []
    assert code == (2 if "--steps" in arguments else 0)
    assert seconds < 10  # 0.4 s on an idle machine; this only notices a heavy import that is not in the list


def test_help_explains_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """Each option's sentence from the docstring, and the names of the presets, are in the help."""
    with pytest.raises(SystemExit, match="0"):
        cli.main(["record", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(RecordOptions):
        assert f"--{field.name}" in text
    assert "optimiser steps between recorded rows of weights" in text
    assert "record_fashion_mnist" in text


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the name and the version of the distribution."""
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out.startswith("deadreckon 0.")


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_presets_list_every_option_with_its_default(command: cli.Command) -> None:
    """Each subcommand has a preset that names all of its options, and nothing changes by using it."""
    import yaml

    preset = yaml.safe_load(Path(cli.preset_path(command.name)).read_text())
    assert list(preset) == [field.name for field in dataclasses.fields(command.options)]
    assert cli.parse([command.name]) == (command, command.options())


@pytest.mark.parametrize(
    "name", sorted(set(cli.preset_names()) - {command.name for command in cli.COMMANDS}), ids=lambda name: name
)
def test_further_presets_fit_their_subcommand(name: str) -> None:
    """A preset named after its subcommand and what is special about it parses and differs from the default."""
    command, options = cli.parse([name.partition("_")[0], "--config", name])
    assert getattr(options, "task", "fashion_mnist") == "fashion_mnist"
    assert options != command.options()


def test_options_after_a_configuration_win(tmp_path: Path) -> None:
    """The preset is overridden by a file, and the file by what follows it on the line."""
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 50\nstreams: [weights]\nlearning_rate: 0.1\n")
    _, options = cli.parse(["record", "--config", str(path), "--steps", "60", "--horizons", "[1,2]"])
    assert options == RecordOptions(steps=60, streams=("weights",), learning_rate=0.1, horizons=(1, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], 'expected "command" to be one of {quickstart,record,corpus,'),
        (["fly"], "invalid choice: 'fly'"),
        (["record", "--stepz", "3"], "unrecognized arguments: --stepz 3"),
        (["record", "--steps", "many"], "--steps: Expected int. Got value: many"),
        (
            ["record", "--task", "mnist"],
            "--task: Expected a one of digits, fashion_mnist, teacher, shakespeare, stdlib, cifar10. Got value: mnist",
        ),
        (["record", "--horizons", "1,2"], "--horizons: Expected a list such as [1,2]. Got value: 1,2"),
        (["record", "--steps", "0"], "`steps` must be at least 1, got 0."),
        (["record", "--config", "absent"], "'absent' is neither a file nor one of characterize, "),
        (["record", "--config", "absent.yaml"], "there is no file 'absent.yaml'"),
    ],
)
def test_wrong_command_lines_give_one_clear_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be understood is told in one line on the error stream, with exit code 2 and no traceback."""
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("deadreckon: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "does not accept option 'stepz'"),
        ("steps: many", "--steps: Expected int. Got value: many"),
        ("- 1", "must hold options by name, got list"),
        ("steps: [", "is not YAML: while parsing"),
        ("a: \udcff", "is not YAML: "),
        ("# " + "x" * cli.MAX_CONFIG_BYTES, "is larger than"),
    ],
)
def test_wrong_configurations_give_one_clear_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A configuration file with an unknown key, a wrong value or no mapping is refused in one line."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert cli.main(["record", "--config", str(path)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        OptionError("first\n  second"),
        DataError("first second"),
        TrajectoryError("first second"),
        FileNotFoundError(2, "second", "first"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_expected_errors_are_one_line(
    error: Exception, running: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors about what the user gave end in one line and code 2; the traceback is shown on request only."""

    def fail(options: Any) -> None:
        raise error

    running(fail)
    assert cli.main(["record"]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "first" in text
    assert "second" in text
    assert cli.main(["--debug", "record"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("DEADRECKON_DEBUG", "1")
    assert cli.main(["record"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_defects_keep_their_traceback(running: Any) -> None:
    """An error that nobody expected is not dressed up as the user's."""

    def fail(options: Any) -> None:
        raise RuntimeError("a defect")

    running(fail)
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main(["record"])


def test_interrupt_and_results_become_exit_codes(running: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C gives 130; a subcommand's own code is passed on; no code means success; it gets its options."""
    seen: list[Any] = []

    def interrupt(options: Any) -> None:
        raise KeyboardInterrupt

    running(interrupt)
    assert cli.main(["record"]) == 130
    assert capsys.readouterr().err == "deadreckon: interrupted\n"
    running(lambda options: 3)
    assert cli.main(["compare"]) == 3
    running(seen.append)
    assert cli.main(["race", "--seeds", "[7]"]) == 0
    assert seen == [RaceOptions(seeds=(7,))]


def test_a_missing_trajectory_and_a_missing_result_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`compare` and `report` without what `record` writes fail in one line that names the path."""
    monkeypatch.chdir(tmp_path)
    for command, path in (("compare", "runs/record/trajectory"), ("report", "runs/record")):
        assert cli.main([command]) == 2
        text = capsys.readouterr().err
        assert path in text
        assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RecordOptions(out=""), "`out` must name a folder"),
        (lambda: RecordOptions(learning_rate=0.0), r"`learning_rate` must be above 0, got 0\.0"),
        (lambda: RecordOptions(learning_rate=float("nan")), "`learning_rate` must be above 0, got nan"),
        (lambda: RecordOptions(streams=()), "`streams` must name at least one"),
        (lambda: RecordOptions(streams=("weights", "weights")), "`streams` must not repeat itself"),
        (lambda: RecordOptions(horizons=(0,)), "`horizons` must be at least 1, got 0"),
        (lambda: RecordOptions(seed=-1), "`seed` must be at least 0, got -1"),
        (lambda: CompareOptions(nmse=(1.5,)), r"`nmse` must lie between 0 and 1, got 1\.5"),
        (lambda: CompareOptions(packets=0), "`packets` must be at least 1, got 0"),
        (lambda: RaceOptions(target=95.0), r"`target` must be a share of at most 1 for accuracy, got 95\.0"),
        (lambda: ReportOptions(runs=()), "`runs` must name at least one"),
        (lambda: RecordOptions(width=0.0), r"`width` must be above 0, got 0\.0"),
        (lambda: CorpusOptions(tasks=()), "`tasks` must name at least one"),
        (lambda: CorpusOptions(widths=(1.0, 0.0)), r"`widths` must be above 0, got 0\.0"),
        (lambda: CorpusOptions(learning_rates=(-1.0,)), r"`learning_rates` must be above 0, got -1\.0"),
        (lambda: CorpusOptions(batch_sizes=(0,)), "`batch_sizes` must be at least 1, got 0"),
        (lambda: CorpusOptions(runs=1001), "`runs` must be at most 1000, got 1001"),
        (lambda: CorpusOptions(steps=9), "`every` must be at most `steps` 9, got 10"),
        (lambda: CorpusOptions(workers=0), "`workers` must be at least 1, got 0"),
        (lambda: QuickstartOptions(steps=0), "`steps` must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_refused(make: Callable[[], Any], message: str) -> None:
    """Values that cannot work are refused when the options are made, before any work."""
    with pytest.raises(OptionError, match=message):
        make()

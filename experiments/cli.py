"""The `deadreckon` command. Everything heavy is imported once it is known what to do."""

import argparse
import glob
import importlib
import importlib.resources
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import (
    ActionConfigFile,  # pyright: ignore[reportPrivateImportUsage]  # documented, but not in __all__
    ArgumentParser,
    Namespace,
)
from typing_extensions import override

from .characterize.options import CharacterizeOptions
from .errors import ExperimentError, OptionError
from .fit.options import FitOptions, ScoreOptions
from .graph.options import GraphOptions
from .options import (
    CompareOptions,
    CorpusOptions,
    Options,
    QuickstartOptions,
    RaceOptions,
    RecordOptions,
    ReportOptions,
)
from .sweep.options import SweepOptions

PROGRAM = "deadreckon"
DEBUG_VARIABLE = "DEADRECKON_DEBUG"
DESCRIPTION = (
    "Forecast the weights and gradients of a training run, spend the forecast on fewer bits and fewer steps, and "
    "account for every cost. Start with `deadreckon quickstart`."
)
EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130
MAX_CONFIG_BYTES = 1 << 20
RUN_ID = "$WANDB_RUN_ID"  # in `out`, so that every run of a sweep has a folder of its own

AnyOptions = Options | FitOptions | ScoreOptions | GraphOptions | CharacterizeOptions | SweepOptions


@dataclass(frozen=True)
class Command:
    """A subcommand: its options, and the module beside this one whose `run(options)` does the work.

    `first` is the option that a word right after the subcommand stands for.
    """

    name: str
    options: type[AnyOptions]
    module: str
    first: str | None = None


COMMANDS = (
    Command("quickstart", QuickstartOptions, "quickstart"),
    Command("record", RecordOptions, "record"),
    Command("corpus", CorpusOptions, "corpus.command"),
    Command("fit", FitOptions, "fit.command"),
    Command("score", ScoreOptions, "score.command"),
    Command("compare", CompareOptions, "compare"),
    Command("race", RaceOptions, "race.command"),
    Command("characterize", CharacterizeOptions, "characterize.command", first="trajectory"),
    Command("sweep", SweepOptions, "sweep.command", first="file"),
    Command("graph", GraphOptions, "graph.command", first="module"),
    Command("report", ReportOptions, "report.command"),
)


def preset_names() -> tuple[str, ...]:
    """Names of the presets that come with the package."""
    folder = importlib.resources.files("deadreckon.configs")
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def preset_path(name: str) -> str:
    """The file of a packaged preset. The package is installed unpacked, as setuptools always does."""
    return str(importlib.resources.files("deadreckon.configs") / f"{name}.yaml")


class PresetOrFile(ActionConfigFile):
    """`--config` with the name of a packaged preset or the path of a YAML file."""

    @override
    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        path = Path(values)
        if path.suffix == "" and not path.is_file():
            if values not in preset_names():
                raise TypeError(f"{values!r} is neither a file nor one of {', '.join(preset_names())}")
            path = Path(preset_path(values))
        _check_config(path)
        super().__call__(parser, cfg, str(path), option_string)


def _check_config(path: Path) -> None:
    """Refuse what is no plain mapping before the parser sees it, with a message that names the file."""
    if not path.is_file():
        raise TypeError(f"there is no file {str(path)!r}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise TypeError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TypeError(f"{path} is not YAML: {error}") from error
    if not isinstance(data, dict):
        raise TypeError(f"{path} must hold options by name, got {type(data).__name__}")


def make_parser(commands: Sequence[Command] = COMMANDS) -> ArgumentParser:
    """The parser of the whole command, or of some of its subcommands only, which is made sooner."""
    parser = ArgumentParser(prog=PROGRAM, description=DESCRIPTION, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version('deadreckon')}")
    parser.add_argument(
        "--debug", action="store_true", help=f"show tracebacks of expected errors too, as {DEBUG_VARIABLE}=1 does"
    )
    subcommands = parser.add_subcommands(required=True, dest="command")
    for command in commands:
        summary = (command.options.__doc__ or "").partition("\n")[0]
        subparser = ArgumentParser(
            description=summary,
            exit_on_error=False,
            allow_abbrev=False,
            default_config_files=[glob.escape(preset_path(command.name))],
        )
        subparser.add_argument(
            "--config",
            action=PresetOrFile,
            help=f"YAML file or preset ({', '.join(preset_names())}); options given after it win",
        )
        subparser.add_class_arguments(command.options, None, as_group=False)
        subcommands.add_subcommand(command.name, subparser, help=summary)
    return parser


def parse(argv: Sequence[str] | None = None, commands: Sequence[Command] = COMMANDS) -> tuple[Command, AnyOptions]:
    """What a command line asks for.

    Args:
        argv: arguments, by default those of the process.
        commands: the subcommands that there are.

    Raises:
        OptionError: if it cannot be understood, in one line.
        SystemExit: after `--help`, `--version` and `--print_config`.
    """
    try:
        parsed = make_parser(commands).parse_args(_with_first(sys.argv[1:] if argv is None else argv))
    except argparse.ArgumentError as error:
        raise OptionError(_plain_message(str(error))) from error
    command = next(command for command in COMMANDS if command.name == parsed.command)
    chosen: Namespace = parsed[command.name]
    values = {field.name: chosen[field.name] for field in fields(command.options)}
    if isinstance(values.get("out"), str):
        values["out"] = _with_run_id(values["out"])
    return command, command.options(**values)


def _with_run_id(folder: str) -> str:
    """A folder with the id of the run that `wandb agent` has begun, where its name asks for it."""
    if RUN_ID not in folder:
        return folder
    if not os.environ.get(RUN_ID[1:]):
        raise OptionError(f"`out` has {RUN_ID} in it, which only `wandb agent` sets. Name a folder.")
    return folder.replace(RUN_ID, os.environ[RUN_ID[1:]])


def _with_first(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the name of the option that a word right after the subcommand stands for."""
    given = list(arguments)
    firsts = {command.name: command.first for command in COMMANDS if command.first is not None}
    for place, word in enumerate(given[:-1]):
        if not word.startswith("-"):
            if word in firsts and not given[place + 1].startswith("-"):
                given.insert(place + 1, f"--{firsts[word]}")
            break
    return given


def _plain_message(message: str) -> str:
    """A parser's message as a user would put it: option names, no Python types, one line."""
    message = one_line(message)
    message = re.sub(r"^Parser key \"([\w.]+)\":\s*", lambda match: f"--{match[1].split('.')[-1]}: ", message)
    message = message.replace("<class 'tuple'>", "list such as [1,2]")
    message = re.sub(r"Expected a <class '(\w+)'>", r"Expected \1", message)
    return re.sub(r"typing\.Literal\[(.*?)\]", lambda match: "one of " + match[1].replace("'", ""), message)


def one_line(text: str) -> str:
    """A text with every run of white space turned into one blank."""
    return " ".join(text.split())


def is_expected(error: Exception) -> bool:
    """Whether an error is about what the user gave, so that one line says it all; anything else is a defect."""
    if isinstance(
        error, ExperimentError | FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError
    ):
        return True
    # Only once something went wrong, and these modules are loaded by then: importing them takes torch along.
    bases = [
        getattr(sys.modules[name], base)
        for name, base in (
            ("deadreckon.forecast.errors", "ForecastError"),
            ("deadreckon.codec.errors", "CodecError"),
            ("deadreckon.callbacks.errors", "CallbackError"),
        )
        if name in sys.modules
    ]
    return isinstance(error, tuple(bases))


def explain(error: Exception) -> str:
    """One line about an expected error."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line(str(error)) or type(error).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments, by default those of the process.

    Returns:
        0, or what the subcommand returned; 2 after an expected error, told in one line on the error stream; 130 after
        an interrupt. Unexpected errors keep their traceback.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    debug = "--debug" in arguments or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    try:
        command, options = parse(arguments)
        module = importlib.import_module(f".{command.module}", __package__)
        return module.run(options) or 0
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if not is_expected(error):
            raise
        if debug:
            traceback.print_exc()
        print(f"{PROGRAM}: error: {explain(error)}", file=sys.stderr)
        return EXIT_WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())

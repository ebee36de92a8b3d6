"""Reading a sweep file as wandb knows it, and which settings it asks for."""

import hashlib
import importlib.resources
import itertools
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from ..cli import COMMANDS, PROGRAM, Command, parse
from ..errors import OptionError
from ..result_metrics import NAMES as METRICS
from ..result_metrics import PREFIX, may_have
from .options import MAX_CELLS, SweepOptions
from .parameters import Parameter, read_parameter

MAX_FILE_BYTES = 2**20
MINIMIZE, MAXIMIZE = "minimize", "maximize"
GRID, RANDOM = "grid", "random"
# What the sweep decides itself, for each run; a file may set these for `wandb agent`.
OWN = {"out", "logger", "wandb_mode", "progress"}
_KEYS = {"program", "command", "method", "metric", "parameters", "name", "description", "project", "entity", "run_cap"}
_KEYS |= {"apiVersion", "kind", "controller"}
_COMMAND = "[${env}, ${program}, COMMAND, ${args}]"
_REPEATS = 100  # draws in a row that were drawn before, after which there is nothing new to draw


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says.

    Attributes:
        name: its own, or the file's.
        command: the subcommand of every run.
        fixed: words of every run's command line beside its parameters.
        method: `grid` or `random`.
        metric: the number that runs are compared by, as in `deadreckon.experiments.result_metrics`.
        goal: `minimize` or `maximize`.
        parameters: what is set, and to what.
        run_cap: runs at most; None for no limit.
    """

    name: str
    command: Command
    fixed: tuple[str, ...]
    method: str
    metric: str
    goal: str
    parameters: tuple[Parameter, ...]
    run_cap: int | None

    @property
    def varied(self) -> list[str]:
        """The parameters that can take more than one value."""
        return [parameter.name for parameter in self.parameters if parameter.varies]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: of its folder: the command, and the digest of its options.
        values: of the parameters that vary.
        command: the subcommand.
        words: what follows it on the command line, but for what the sweep decides itself.
    """

    name: str
    values: Mapping[str, Any]
    command: str
    words: tuple[str, ...]


def sweep_names() -> tuple[str, ...]:
    """Names of the sweep files that come with the package."""
    folder = importlib.resources.files("deadreckon.configs") / "sweeps"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def read_sweep(file: str) -> Sweep:
    """Read a sweep file, and refuse what would not run here.

    Args:
        file: its path, or the name of one that comes with the package.

    Raises:
        OptionError: saying what is wrong and what to do.
    """
    path = Path(file)
    if path.suffix == "" and not path.is_file():
        if file not in sweep_names():
            raise OptionError(f"`file` must be a file or one of {', '.join(sweep_names())}, got {file!r}.")
        path = Path(str(importlib.resources.files("deadreckon.configs") / "sweeps" / f"{file}.yaml"))
    try:
        content = _load(path)
        return _sweep(content, path.stem)
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error.__cause__


def cells(sweep: Sweep, options: SweepOptions) -> list[Cell]:
    """The runs that a sweep asks for, each setting once, all of them checked to be options of the command.

    Settings of a random sweep depend on the seed, their number and the parameters' names only: with a higher `count`
    the first ones stay what they were.

    Args:
        sweep: what the file says.
        options: of the command.

    Raises:
        OptionError: if there are too many, or none; if one has a value that its option cannot take.
    """
    limits = [limit for limit in (options.count, sweep.run_cap) if limit is not None]
    if sweep.method == GRID:
        lists = [parameter.grid() for parameter in sweep.parameters]
        number = math.prod(map(len, lists))
        if min([number, *limits]) > MAX_CELLS:
            raise OptionError(f"The grid has {number} settings, more than {MAX_CELLS}. Give fewer values, or `count`.")
        settings = list(itertools.islice(itertools.product(*lists), min([number, *limits])))
    else:
        if not limits:
            raise OptionError("A random sweep has no end: give `--count`, or `run_cap` in the file.")
        settings = _drawn(sweep, min([*limits, MAX_CELLS]), options.seed)
    return list({cell.name: cell for cell in (_cell(sweep, values) for values in settings)}.values())


def _drawn(sweep: Sweep, count: int, seed: int) -> list[tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    repeats = 0
    for number in itertools.count():
        values = tuple(parameter.draw(_generator(seed, number, parameter.name)) for parameter in sweep.parameters)
        key = json.dumps(values, default=str)
        repeats = repeats + 1 if key in found else 0
        found.setdefault(key, values)
        if len(found) == count or repeats == _REPEATS:
            break
    return list(found.values())


def _generator(seed: int, number: int, name: str) -> random.Random:
    digest = hashlib.sha256(f"{seed} {number} {name}".encode()).digest()
    return random.Random(int.from_bytes(digest[:8], "little"))


def _cell(sweep: Sweep, values: Sequence[Any]) -> Cell:
    chosen = {parameter.name: value for parameter, value in zip(sweep.parameters, values, strict=True)}
    # As `wandb agent` writes them, so that a file means the same to both.
    words = [*sweep.fixed, *(f"--{name}={value}" for name, value in chosen.items() if name not in OWN)]
    _, options = parse([sweep.command.name, *words], [sweep.command])
    told = {name: value for name, value in asdict(options).items() if name not in OWN}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
    varied = {name: chosen[name] for name in sweep.varied}
    return Cell(f"{sweep.command.name}-{digest[:10]}", varied, sweep.command.name, tuple(words))


def _load(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise OptionError("there is no such file.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise OptionError(f"it is larger than {MAX_FILE_BYTES} bytes.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f"it is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise OptionError(f"it must be a mapping with method, metric, command and parameters, got {content!r:.40}.")
    return content


def _sweep(content: Mapping[str, Any], stem: str) -> Sweep:
    for key in content:
        if key not in _KEYS:
            advice = "Run the file with `wandb sweep`, or leave it out" if key in _ELSEWHERE else "Leave it out"
            raise OptionError(f"{key!r} is nothing that runs here. {advice}.")
    method = content.get("method")
    if method not in (GRID, RANDOM):
        raise OptionError(
            f"`method` must be grid or random to run here, got {method!r:.40}. Set one of these, or run the file with "
            "`wandb sweep`."
        )
    command, fixed = _command(content)
    metric, goal = _metric(content.get("metric"), command)
    entries = content.get("parameters")
    if not isinstance(entries, dict) or not entries:
        raise OptionError("`parameters` must name at least one option and its values.")
    known = {field.name for field in fields(command.options)}
    for name in entries:
        if name not in known:
            raise OptionError(
                f"`parameters` names {name!r}, which is no option of {command.name}. It has {', '.join(sorted(known))}."
            )
    parameters = tuple(read_parameter(name, entry) for name, entry in entries.items())
    for parameter in parameters:
        if parameter.varies and parameter.name in OWN:
            raise OptionError(f"`parameters.{parameter.name}` cannot be swept: it is not what a run is judged by.")
    cap = content.get("run_cap")
    if cap is not None and not (type(cap) is int and cap >= 1):
        raise OptionError(f"`run_cap` must be a whole number of at least 1, got {cap!r:.40}.")
    return Sweep(str(content.get("name", stem)), command, fixed, method, metric, goal, parameters, cap)


_ELSEWHERE = ("early_terminate", "scheduler", "metrics", "job", "image_uri")


def _command(content: Mapping[str, Any]) -> tuple[Command, tuple[str, ...]]:
    """The subcommand that `command` runs, and the words it has beside the parameters."""
    words = content.get("command")
    if content.get("program") != PROGRAM or not isinstance(words, list):
        raise OptionError(f"`program` must be {PROGRAM} and `command` {_COMMAND} to run here.")
    rest = [str(word) for word in words if word != "${env}"]
    if len(rest) < 3 or rest[0] not in ("${program}", PROGRAM) or rest[-1] != "${args}":
        raise OptionError(f"`command` must be {_COMMAND} to run here, got {words!r:.120}.")
    fixed = tuple(rest[2:-1])
    sweepable = {command.name: command for command in COMMANDS if command.name in METRICS}
    if rest[1] not in sweepable:
        raise OptionError(f"`command` must run one of {', '.join(sweepable)}, got {rest[1]!r:.40}.")
    for word in fixed:
        if not word.startswith("--") or "=" not in word:
            raise OptionError(f"`command`: write further options as --name=value, got {word!r:.80}.")
        if word[2:].partition("=")[0] in OWN:
            raise OptionError(f"`command`: set {word[2:].partition('=')[0]} under `parameters`.")
    return sweepable[rest[1]], fixed


def _metric(content: Any, command: Command) -> tuple[str, str]:
    if not isinstance(content, dict) or not isinstance(content.get("name"), str):
        raise OptionError("`metric` must have a name, and a goal: minimize or maximize.")
    name, goal = content["name"], content.get("goal", MINIMIZE)
    if goal not in (MINIMIZE, MAXIMIZE):
        raise OptionError(f"`metric.goal` must be minimize or maximize, got {goal!r:.40}.")
    unknown = sorted(set(content) - {"name", "goal"})
    if unknown:
        raise OptionError(f"`metric.{unknown[0]}` does not run here. Leave it out, or run the file with `wandb sweep`.")
    if not may_have(command.name, name):
        names = ", ".join(PREFIX + known for known in METRICS[command.name])
        raise OptionError(f"`metric.name` must be one of {names} for {command.name}, got {name!r:.80}.")
    return name, goal

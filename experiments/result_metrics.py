"""The few numbers of a result that runs are told apart by, under the names that loggers and sweeps use."""

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

PREFIX = "result/"
# Of each command that can be swept. What stands for a star depends on the options.
NAMES: Mapping[str, tuple[str, ...]] = {
    "record": (
        "final/test_accuracy",
        "final/test_loss",
        "final/train_loss",
        "wall_seconds",
        "compression/bits_per_coordinate",
    ),
    "fit": ("validation_error", "training_error", "cpu_seconds", "wall_seconds"),
    "score": ("skill/*/*",),
    "compare": ("bits/*/*", "nmse/*/*", "skill/*/*"),
    "race": ("reached/*", "cpu_seconds/*", "steps/*"),
}
_EVERYTHING = "all"  # of tasks, kinds of tensors and phases, in the result of `score`


def result_metrics(kind: str, data: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a checked result by name, those that are known and finite.

    Names begin with `result/`. Of `record` and `fit` they are entries of the result file. `result/skill/NAME/HORIZON`
    is a forecaster's skill, over all tasks; `result/bits/NAME/NMSE` and `result/nmse/NAME/NMSE` are bits a coordinate
    and error of a front-end at an error asked for. Of a race `result/reached/ARM` is the share of seeds that reached
    the target; `result/cpu_seconds/ARM` and `result/steps/ARM` are means over seeds, absent unless all reached it.

    Args:
        kind: the command.
        data: its result, as `deadreckon.experiments.schema` describes it.
    """
    found: dict[str, Any] = {}
    if kind in ("record", "fit"):
        found = {name: _entry(data, name) for name in NAMES[kind]}
    elif kind == "score":
        rows = [row for row in data["skill"] if {row["task"], row["kind"], row["phase"]} == {_EVERYTHING}]
        found = {f"skill/{row['forecaster']}/{row['horizon']}": row["skill"] for row in rows}
    elif kind == "compare":
        rows = [row for row in data["rows"] if row["nmse_target"] is not None]
        found = {f"bits/{row['predictor']}/{row['nmse_target']:g}": row["bits_per_coordinate"] for row in rows}
        found |= {f"nmse/{row['predictor']}/{row['nmse_target']:g}": row["nmse"] for row in rows}
        found |= {f"skill/{row['forecaster']}/{row['horizon']}": row["skill"] for row in data["skill"]}
    elif kind == "race":
        for name in dict.fromkeys(arm["name"] for arm in data["arms"]):
            arms = [arm for arm in data["arms"] if arm["name"] == name]
            found[f"reached/{name}"] = _mean([float(arm["reached"]) for arm in arms])
            found[f"cpu_seconds/{name}"] = _mean([arm["cpu_seconds_to_target"] for arm in arms])
            found[f"steps/{name}"] = _mean([arm["steps_to_target"] for arm in arms])
    return {PREFIX + name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def may_have(kind: str, metric: str) -> bool:
    """Whether a result of that kind can have a number of that name."""
    return any(fnmatchcase(metric, PREFIX + name) for name in NAMES.get(kind, ()))


def _entry(data: Mapping[str, Any], name: str) -> Any:
    value: Any = data
    for part in name.split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None

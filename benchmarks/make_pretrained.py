"""Ship forecasters: copy what `deadreckon fit` wrote into the package, each with a card made from fit and score.

    deadreckon corpus --config corpus_all --tasks '[digits,teacher,shakespeare]' --out runs/corpus_train
    deadreckon corpus --config corpus_all --tasks '[fashion_mnist]' --out runs/corpus_held_out
    deadreckon fit --runs '[runs/corpus_train]' --forecaster NAME --horizons '[10,20,50,100,200]' --out runs/fits/NAME
    deadreckon score --runs '[runs/corpus_held_out]' --forecasters '[linear,...,runs/fits/NAME]' --out runs/score
    python benchmarks/make_pretrained.py runs/score runs/fits/NAME ...

The forecasters that are shipped must have been scored on tasks that they were not fitted to; the script refuses others.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from deadreckon.experiments.runs import find_runs
from deadreckon.forecast import Forecaster
from deadreckon.models import load_forecaster, save_forecaster

WEIGHTS = Path(__file__).parents[1] / "models" / "weights"
LIMIT_BYTES = 5_000_000


def read(folder: Path, kind: str) -> Mapping[str, Any]:
    """The checked content of a result file."""
    content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if content.get("kind") != kind:
        raise SystemExit(f"{folder} holds a result of kind {content.get('kind')!r}, not {kind!r}.")
    return content


def corpus_table(folders: Sequence[str]) -> list[str]:
    """What the runs of a corpus were, and what recording them cost."""
    runs = [run for run in find_runs(sorted({str(Path(folder).parent) for folder in folders}))]
    used = {Path(folder).resolve() for folder in folders}
    runs = [run for run in runs if run.folder.resolve() in used]
    lines = ["| task | runs | networks | widths | optimisers | rates | schedules | batches | steps |", "|" + "---|" * 9]
    for task in sorted({run.task for run in runs}):
        own = [run for run in runs if run.task == task]

        def values(name: str, own: list = own) -> str:
            return ", ".join(
                f"{value:g}" if isinstance(value, float | int) else value
                for value in sorted({getattr(r, name) for r in own})
            )

        columns = ("network", "width", "optimizer", "learning_rate", "schedule", "batch_size", "steps")
        lines.append(f"| {task} | {len(own)} | " + " | ".join(values(name) for name in columns) + " |")
    seconds = sum(run.seconds_per_step * run.steps for run in runs)
    return [*lines, "", f"Training these runs took {seconds / 3600:.2f} CPU hours."]


def card(name: str, fit: Mapping[str, Any], score: Mapping[str, Any], folder: Path) -> str:
    """The model card, in Markdown."""
    data, held_out = fit["data"], score["data"]
    tasks = sorted({run["task"] for run in data["runs"]})
    unseen = sorted({run["task"] for run in held_out["runs"]})
    if set(tasks) & set(unseen):
        raise SystemExit(f"{name} was fitted to {tasks} and scored on {unseen}. Score it on tasks it has not seen.")
    forecaster = load_forecaster(folder / data["file"])
    scored = next(item["name"] for item in held_out["forecasters"] if item["name"].split("/")[-1] == name)
    families = {item["name"]: item["family"] for item in held_out["forecasters"]}
    rows = [row for row in held_out["skill"] if (row["task"], row["kind"], row["phase"]) == ("all", "all", "all")]
    against = {(row["forecaster"], row["reference"], row["horizon"]): row for row in held_out["against"]}
    lines = [
        f"# {name}",
        "",
        f"The forecaster `{forecaster.name}` for the weights of any network, recorded every {data['spacing']} steps.",
        f"Options: `{json.dumps(forecaster.options)}`. {data['num_numbers']:,} learned numbers.",
        "",
        f'`deadreckon.models.load_pretrained("{name}")`',
        "",
        "## Data",
        "",
        *corpus_table([run["folder"] for run in data["runs"]]),
        f"Of these {sum(run['role'] == 'training' for run in data['runs'])} trained it and "
        f"{sum(run['role'] != 'training' for run in data['runs'])} were kept apart to choose by. "
        f"Fitting took {data['cpu_seconds'] / 3600:.3f} CPU hours.",
        "",
        f"## Skill on {', '.join(unseen)}, which it has not seen",
        "",
        f"{len(held_out['runs'])} runs; 1 - geometric mean over runs of squared error over that of standing still, "
        "with 95 % bootstrap intervals over runs. 'Against': ratio of squared errors, run by run; below 1 is better.",
        "",
        "| steps ahead | skill | worst run | within one scale | best closed form | against it | against `tuned_line` |",
        "|" + "---|" * 7,
    ]
    for horizon in held_out["horizons"]:
        own = next(row for row in rows if row["forecaster"] == scored and row["horizon"] == horizon)
        closed = max(
            (row for row in rows if families[row["forecaster"]] == "closed" and row["horizon"] == horizon),
            key=lambda row: row["skill"],
        )

        def ratio(reference: str, horizon: int = horizon) -> str:
            row = against.get((scored, reference, horizon))
            return "" if row is None else f"{row['ratio']:.3f} ({row['low']:.3f} to {row['high']:.3f})"

        line = next((item for item in families if item.split("/")[-1] == "tuned_line" and item != scored), "")
        lines.append(
            f"| {horizon} | {own['skill']:.3f} ({own['low']:.3f} to {own['high']:.3f}) | {own['worst']:.3f} | "
            f"{own['within_one']:.0%} | {closed['forecaster']} {closed['skill']:.3f} | {ratio(closed['forecaster'])} | "
            f"{ratio(line)} |"
        )
    lines += [
        "",
        "## Limits",
        "",
        f"* Rows {data['spacing']} steps apart, horizons up to {max(data['options']['horizons'])} steps.",
        "* Small networks (up to a few hundred thousand parameters), the first steps of training as above; Adam,",
        "  AdamW and SGD with momentum. Nothing is known about large networks, long runs, or other optimisers.",
        "* Skill in squared error of the weights. Whether a jump to the forecast lowers a loss is another question;",
        "  `SkipAhead` answers it before it keeps one.",
        *graph_limits(forecaster, held_out, scored),
        f"* Made with torch {torch.__version__.split('+')[0]}.",
        "",
    ]
    return "\n".join(lines)


def graph_limits(forecaster: Forecaster, held_out: Mapping[str, Any], scored: str) -> list[str]:
    """What is to be known of one that needs a neural graph."""
    if not forecaster.needs_graph:
        return []
    costs = [row["step_equivalents"] for row in held_out["cost"] if row["forecaster"] == scored]
    num_cases = sum(run["num_cases"] for run in held_out["runs"])
    return [
        "* Windows must carry the network's neural graph (docs/nino.md). A forecast costs as much CPU time as",
        f"  {max(costs):.0f} optimiser steps (median over these runs).",
        f"* Fit and score are one seed each; the score is of {num_cases} cases.",
    ]


def main(arguments: Sequence[str]) -> None:
    if len(arguments) < 2:
        raise SystemExit(__doc__)
    score = read(Path(arguments[0]), "score")
    WEIGHTS.mkdir(exist_ok=True)
    for place in arguments[1:]:
        folder = Path(place)
        fit = read(folder, "fit")
        text = card(folder.name, fit, score, folder)
        save_forecaster(load_forecaster(folder / fit["data"]["file"]), WEIGHTS / f"{folder.name}.safetensors")
        (WEIGHTS / f"{folder.name}.md").write_text(text, encoding="utf-8")
        print(folder.name, (WEIGHTS / f"{folder.name}.safetensors").stat().st_size, "bytes")
    total = sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors"))
    if total > LIMIT_BYTES:
        raise SystemExit(f"{total} bytes are more than the {LIMIT_BYTES} that the package may carry.")


if __name__ == "__main__":
    main(sys.argv[1:])

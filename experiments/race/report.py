"""What the race's grid says: leaderboard, safety, gate and tables, as Markdown and as a page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import markdown
from ..bootstrap import Estimate
from ..files import write_whole
from ..options import RaceOptions
from ..report import html as report_html
from ..results import environment
from .grid import Grid, work
from .grid_figures import grid_curves
from .methods import METHODS
from .run import MEASUREMENTS
from .scores import AXES, PENALTY, SLACK, TARGETS, break_even
from .standings import Safety, Standing, Standings, gate, meta_seconds, overall, safety, standings

MOONSHOT, GATE, SAFE = 1.3, 1.1, 1.05
Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
DEFINITIONS = (
    f"CPU seconds are evened out: a fixed piece of work was timed at each of the {MEASUREMENTS} measurements of a run, "
    "and the seconds between two of them are divided by what it took there and multiplied by its median over all runs. "
    "`raw_cpu` is what the clock said. Measuring on the test set is charged to nobody; making the weights that are "
    "evaluated is.",
    f"Targets are losses of the tuned decay: what it had after a quarter and six tenths of its run, and {SLACK} times "
    f"its final one (`best`). A run that never gets to a target counts as {PENALTY:g} whole runs of the decay.",
    "Ratios are geometric means over problems of those over paired seeds, the decay's cost being 1; in brackets the "
    "percentile bootstrap's 95 % interval, seeds resampled within problems. With few seeds it is too narrow.",
)


def run_grid(options: RaceOptions) -> None:
    """Go on with the grid and write what it says so far to `options.out`: leaderboard.md, .html, figures, rows.jsonl.

    Raises:
        OptionError: if a problem or a method does not exist, or those that give the targets are missing.
    """
    grid, done = work(options)
    out = Path(options.out)
    write_report(grid, out)
    print((out / "leaderboard.md").read_text(encoding="utf-8"))
    print("All runs are done." if done else "Runs are left; the same command goes on with them.")


def write_report(grid: Grid, out: Path) -> None:
    """Write the leaderboard, the figures and the rows of what has been run."""
    rows = grid.rows()
    write_whole(out / "rows.jsonl", "".join(f"{compact(row)}\n" for row in rows))
    found = all_standings(grid, rows)
    sections = [("Race", sentences(found)), *((title, table) for title, *table in tables(found))]
    write_whole(out / "leaderboard.md", as_markdown(sections))
    pictures: list[tuple[Path, str]] = []
    for item in found:
        own = [row for row in rows if row["problem"] == item.problem]
        order = [own.method for own in _by_cost(item)]
        named = [item.decay, *(name for name in order if name != item.decay)]
        path = grid_curves(item.problem, own, item.targets["best"], out / f"curves_{item.problem}", named)
        pictures.append((path.with_suffix(".svg"), f"{item.problem}: test loss over four ways of counting."))
    write_whole(out / "leaderboard.html", as_page(sections, pictures))


def compact(row: Mapping[str, Any]) -> str:
    """A run in one line."""
    numbers = [[None if value != value else value for value in point] for point in row["curve"]]
    return json.dumps({**row, "curve": numbers}, separators=(",", ":"), allow_nan=False)


def all_standings(grid: Grid, rows: Sequence[Mapping[str, Any]]) -> list[Standings]:
    """Those of every problem that has been tuned and begun."""
    found: list[Standings] = []
    for problem in grid.problems:
        own = [row for row in rows if row["problem"] == problem.name]
        if own:
            item = standings(problem.name, grid.tuned(problem)["decay"], own)
            found += [item] if item is not None else []
    return found


def interval(estimate: Estimate | None, form: str = ".3f") -> str:
    """A ratio with its interval; a dash where there is none."""
    if estimate is None:
        return report_html.DASH
    if estimate.low is None or estimate.high is None:
        return format(estimate.value, form)
    return f"{estimate.value:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def names_of(found: Sequence[Standings]) -> list[str]:
    """All methods, the quickest to the hardest target first."""
    names = dict.fromkeys(name for item in found for name in item.methods)

    def cost(name: str) -> float:
        ratio = overall(found, name, "best")
        return ratio.value if ratio is not None else float("inf")

    return sorted(names, key=cost)


def tables(found: Sequence[Standings]) -> list[Table]:
    """The leaderboard, the safety, and one table a problem."""
    result = [_leaderboard(found), _axes(found)]
    if measured := safety(found):
        result.append(_safety(measured))
    return [*result, *(_problem(item) for item in found)]


def _leaderboard(found: Sequence[Standings]) -> Table:
    columns = ("method", "problems", "seeds", *(f"to {target}" for target in TARGETS), "reached best", "against best")
    rows: list[list[str]] = []
    for name in names_of(found):
        own = [item for item in found if name in item.methods]
        runs = [len(item.methods[name].seeds) for item in own]
        reached = sum(item.methods[name].times["best"].reached for item in own)
        ratios = [interval(overall(found, name, target)) for target in TARGETS]
        speed = gate(own, name)
        rows.append([name, str(len(own)), str(min(runs)), *ratios, f"{reached} of {sum(runs)}", interval(speed)])
    title = (
        "Leaderboard: CPU seconds to a target over those of the tuned decay; last, times sooner than the best baseline"
    )
    return title, columns, rows


def _axes(found: Sequence[Standings]) -> Table:
    rows = [[name, *(interval(overall(found, name, "best", axis)) for axis in AXES)] for name in names_of(found)]
    return "To the hardest target, in every way of counting", ("method", *AXES), rows


def _safety(measured: Sequence[Safety]) -> Table:
    columns = ("problem", "method", "seeds", "whole run", "to best", "by the ledger", "diverged", f"at most {SAFE}")
    rows = [
        [
            item.problem,
            item.method,
            str(item.seeds),
            interval(item.whole),
            interval(item.to_target),
            report_html.DASH if item.ledger_share is None else f"{item.ledger_share:.1%}",
            str(item.diverged),
            _safe(item),
        ]
        for item in measured
    ]
    return "Safety: CPU seconds with jumps over those without, problem by problem", columns, rows


def _safe(item: Safety) -> str:
    """Whether the upper ends of both intervals keep to the limit, and no run diverged."""
    ends = [estimate.high for estimate in (item.whole, item.to_target)]
    if item.diverged or any(end is not None and end > SAFE for end in ends):
        return "no"
    return "too few seeds" if None in ends else "yes"


def _problem(item: Standings) -> Table:
    columns = ("method", "seeds", *(f"s to {target}" for target in TARGETS), "reached", "loss", "accuracy", "jumps")
    order = _by_cost(item)
    rows = [
        [
            own.method,
            str(len(own.seeds)),
            *(f"{_median(own.times[target].costs['cpu']):.2f}" for target in TARGETS),
            f"{own.times['best'].reached}",
            f"{own.final_loss:.4f}",
            f"{own.final_accuracy:.4f}",
            ", ".join(f"{name} {count}" for name, count in own.outcomes.items()) or report_html.DASH,
        ]
        for own in order
    ]
    targets = ", ".join(f"{name} {value:.4f}" for name, value in item.targets.items())
    return f"{item.problem}: medians; decay {item.decay}; losses to reach: {targets}", columns, rows


def _by_cost(item: Standings) -> list[Standing]:
    """Methods on a problem, the one that is soonest at the hardest target first."""
    return sorted(item.methods.values(), key=lambda own: sum(own.times["best"].costs["cpu"].values()) / len(own.seeds))


def _median(costs: Mapping[int, float]) -> float:
    values = sorted(costs.values())
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2


def sentences(found: Sequence[Standings]) -> list[str]:
    """What was measured, the gate, and what it takes to win back the training of forecasters."""
    if not found:
        return ["Nothing has been raced yet."]
    result = [f"{environment()['date']}, {len(found)} of the problems: {', '.join(item.problem for item in found)}."]
    result += DEFINITIONS
    baselines = ", ".join(f"{item.best_baseline()} on {item.problem}" for item in found)
    result.append(f"Best tuned baseline to the hardest target: {baselines}.")
    jumping = [name for name in names_of(found) if METHODS[name].jumps is not None and "control" not in name]
    speeds = {name: speed for name in jumping if (speed := gate(found, name)) is not None}
    if speeds:
        best = max(speeds, key=lambda name: speeds[name].value)
        speed = speeds[best]
        passed = speed.value >= GATE and (speed.low or 0.0) > 1
        verdict = "passed" if passed else "not passed"
        result.append(
            f"Gate (at least {GATE} times sooner than the best tuned baseline, interval above 1): {verdict}. The best "
            f"of what jumps is {best} with {interval(speed)}; the moonshot is {MOONSHOT}."
        )
        if not any(item.methods[best].outcomes.get("kept") for item in found):
            result.append(
                f"{best} kept no jump: its runs are those of its baseline, and the ratio is the clock's noise."
            )
    for name in jumping:
        seconds = meta_seconds(name)
        if seconds is not None:
            result.append(f"{name}: {_won_back(found, name, seconds)}")
    return result


def _won_back(found: Sequence[Standings], name: str, seconds: float) -> str:
    """What a run saves against the baseline that it took over, and what the forecaster took to train."""
    saved: list[float] = []
    for item in found:
        own = item.methods.get(name)
        base = item.methods.get(own.base or "") if own is not None else None
        if own is not None and base is not None:
            saved.append(_median(base.times["best"].costs["cpu"]) - _median(own.times["best"].costs["cpu"]))
    mean = sum(saved) / len(saved) if saved else 0.0
    runs = break_even(seconds, mean)
    trained = f"its forecaster took {seconds / 3600:.2f} CPU hours to train"
    if runs is None:
        return f"{trained}; a run saves nothing against its baseline, so they are never won back."
    return f"{trained}; a run saves {mean:.2f} s against its baseline, so that {runs:.0f} runs win them back."


def as_markdown(sections: Sequence[tuple[str, Any]]) -> str:
    """Sentences and tables as Markdown."""
    parts: list[str] = []
    for title, content in sections:
        parts.append(f"## {title}\n")
        if isinstance(content, list) and content and isinstance(content[0], str):
            parts += [f"* {sentence}" for sentence in content]
        else:
            columns, rows = content
            parts.append(markdown.table(columns, rows))
        parts.append("")
    return "\n".join(parts)


def as_page(sections: Sequence[tuple[str, Any]], pictures: Sequence[tuple[Path, str]]) -> str:
    """Sentences, tables and pictures as one page without outside parts."""
    parts: list[str] = []
    for title, content in sections:
        parts.append(f"<h2>{report_html.escape(title)}</h2>")
        if isinstance(content, list) and content and isinstance(content[0], str):
            parts.append(report_html.paragraphs(content))
        else:
            columns, rows = content
            parts.append(report_html.table(columns, rows))
    return report_html.page("Race", [*parts, report_html.figures(pictures)])

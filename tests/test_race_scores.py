"""Times, ratios and verdicts of the race's grid, on made-up curves."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deadreckon.experiments.race.grid_figures import grid_curves, limits
from deadreckon.experiments.race.report import as_markdown, as_page, sentences, tables
from deadreckon.experiments.race.scores import (
    PENALTY,
    SLACK,
    axis,
    break_even,
    median_gauge,
    penalised,
    stratified_ratio,
    targets_of,
    time_to,
)
from deadreckon.experiments.race.standings import gate, meta_seconds, safety, standings

SEEDS = (0, 1, 2, 3, 4)


def curve(losses: Sequence[float], seconds: float = 1.0, slowness: Sequence[float] | None = None) -> list[list[float]]:
    """A run measured every 10 steps of `seconds` each; `slowness` of the machine from row to row."""
    slow = list(slowness) if slowness is not None else [1.0] * len(losses)
    rows, cpu = [], 0.0
    for index, loss in enumerate(losses):
        if index:
            cpu += 10 * seconds * (slow[index - 1] + slow[index]) / 2
        rows.append([10.0 * index, cpu, 2 * cpu, 10.0 * index, 0.01 * slow[index], loss, 1 - loss])
    return rows


def row(method: str, seed: int, losses: Sequence[float], **options: Any) -> dict[str, Any]:
    """A run as the grid keeps it."""
    return {
        "problem": "made_up",
        "method": method,
        "base": "adamw_linear" if method.startswith(("verified", "blind")) else None,
        "seed": seed,
        "diverged": any(math.isnan(loss) for loss in losses),
        "curve": curve(losses, **options),
        "jumps": {"outcomes": {"kept": 2} if "_" in method and not method.startswith("adamw") else {}},
        "ledger": {"verifying": {"wall_seconds": 9.0, "cpu_seconds": 0.6, "count": 1, "gradient_equivalents": 2.0}}
        if method == "verified_nino"
        else {},
    }


def test_a_busy_machine_does_not_change_the_evened_out_seconds() -> None:
    """CPU seconds divided by the gauge are the same whether or not the machine was twice as slow for a while."""
    calm, busy = curve([1, 0.8, 0.6, 0.4]), curve([1, 0.8, 0.6, 0.4], slowness=[1, 2, 3, 2])
    assert axis(busy, "cpu", 0.01) == pytest.approx(axis(calm, "cpu", 0.01))
    assert axis(busy, "raw_cpu", 0.01)[-1] > 1.9 * axis(calm, "raw_cpu", 0.01)[-1]
    assert axis(calm, "steps", 0.01) == [0, 10, 20, 30]
    assert axis(calm, "wall", 0.01) == [0, 20, 40, 60]
    assert axis(calm, "cpu", 0.02) == pytest.approx([0, 20, 40, 60])


def test_a_target_is_reached_between_two_measurements() -> None:
    """The cost of a target is taken from the line between the rows around the first passage; NaN reaches nothing."""
    made = curve([1.0, 0.5, 0.7, 0.3])
    costs = axis(made, "steps", 0.01)
    assert time_to(made, costs, 0.75) == pytest.approx(5)
    assert time_to(made, costs, 0.5) == pytest.approx(10)
    assert time_to(made, costs, 0.4) == pytest.approx(27.5)
    assert time_to(made, costs, 1.0) == 0
    assert time_to(made, costs, 0.2) is None
    assert time_to(curve([1.0, math.nan, math.nan]), costs, 0.9) is None
    assert penalised(made, "steps", 0.2, 0.01, 30) == (PENALTY * 30, False)
    assert penalised(made, "steps", 0.5, 0.01, 30) == (pytest.approx(10), True)


def test_targets_come_from_the_decay() -> None:
    """Early, late and best are medians over its runs after a quarter, six tenths and all of the run."""
    found = targets_of([curve([10 * scale - index * scale for index in range(11)]) for scale in (1, 2, 3)])
    assert found["early"] == pytest.approx(2 * 8)
    assert found["late"] == pytest.approx(2 * 4)
    assert found["best"] == pytest.approx(SLACK * 0)
    assert targets_of([curve([3, 2, 1])])["best"] == pytest.approx(SLACK)
    assert median_gauge([curve([1, 1], slowness=[1, 3]), curve([1], slowness=[2])]) == pytest.approx(0.02)


def test_every_problem_counts_alike_in_a_ratio() -> None:
    """The ratio is the geometric mean over problems of those over seeds, and its interval holds it."""
    found = stratified_ratio({"a": {0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0}, "b": {0: 0.5, 1: 0.5, 2: 0.5}})
    assert found == pytest.approx((1.0, 1.0, 1.0))
    assert stratified_ratio({"a": {0: 2.0, 1: 2.0, 2: 2.0}, "b": {0: 0.5, 1: 0.5}}).low is None
    spread = stratified_ratio({"a": {seed: 1.0 + 0.1 * seed for seed in range(5)}})
    assert spread.low is not None
    assert spread.high is not None
    assert 1.0 < spread.low < spread.value < spread.high < 1.4
    assert break_even(100, 2) == 50
    assert break_even(100, -1) is None


def made_up() -> list[dict[str, Any]]:
    """A decay, a quicker baseline, a jump that is quicker still, one that costs time, and one that diverges."""
    slow, middle, quick = [1.0, 0.8, 0.6, 0.4, 0.2], [1.0, 0.7, 0.4, 0.2, 0.1], [1.0, 0.4, 0.2, 0.1, 0.1]
    rows: list[dict[str, Any]] = []
    for seed in SEEDS:
        rows.append(row("adamw_linear", seed, slow))
        rows.append(row("snoo", seed, middle))
        rows.append(row("verified_linear", seed, quick))
        rows.append(row("verified_nino", seed, slow, seconds=1.2))
        rows.append(row("blind_linear", seed, [1.0, 0.9, math.nan, math.nan, math.nan]))
    return rows


def test_safety_and_gate_say_what_the_curves_say() -> None:
    """Costly and diverging jumps are found unsafe; the gate compares with the best baseline, not with the decay."""
    found = standings("made_up", "adamw_linear", made_up())
    assert found is not None
    measured = {item.method: item for item in safety([found])}
    assert measured["verified_linear"].whole.value == pytest.approx(1.0)
    assert measured["verified_nino"].whole.value == pytest.approx(1.2)
    assert measured["verified_nino"].to_target.value == pytest.approx(1.2)
    assert measured["verified_nino"].ledger_share == pytest.approx(0.6 / 48)  # four times ten steps of 1.2 seconds
    assert measured["verified_linear"].ledger_share is None
    assert measured["blind_linear"].diverged == len(SEEDS)
    assert measured["blind_linear"].to_target.value > 1.9
    assert found.best_baseline() == "snoo"
    target = found.targets["best"]
    baseline, jumping = (
        time_to(curve(losses), [0, 10, 20, 30, 40], target) for losses in ([1, 0.7, 0.4, 0.2], [1, 0.4, 0.2])
    )
    assert baseline is not None
    assert jumping is not None
    speed = gate([found], "verified_linear")
    assert speed is not None
    assert speed.value == pytest.approx(baseline / jumping)
    assert gate([found], "verified_adaptive_linear") is None
    assert standings("made_up", "adamw_cosine", made_up()) is None


def test_what_is_written_names_winners_and_failures() -> None:
    """The report passes the gate where it is passed, and shows failures; the page holds the same tables, escaped."""
    found = standings("made_up", "adamw_linear", made_up())
    assert found is not None
    said = sentences([found])
    assert any("Gate" in line and ": passed" in line and "verified_linear" in line for line in said)
    sections = [("Race <1>", said), *((title, table) for title, *table in tables([found]))]
    text = " ".join(as_markdown(sections).split())
    assert "| blind_linear | 1 | 5 |" in text
    assert "0 of 5" in text
    page = as_page(sections, [])
    assert "Race &lt;1&gt;" in page
    assert "verified_nino" in page
    slower = [item for item in made_up() if item["method"] != "verified_linear"]
    rest = standings("made_up", "adamw_linear", slower)
    assert rest is not None
    assert any(": not passed" in line for line in sentences([rest]))
    idle = [{**item, "jumps": {"outcomes": {"not_better": 3}}} for item in made_up()]
    waiting = standings("made_up", "adamw_linear", idle)
    assert waiting is not None
    assert any("verified_linear kept no jump" in line for line in sentences([waiting]))
    assert not any("kept no jump" in line for line in said)
    few = standings("made_up", "adamw_linear", [item for item in made_up() if item["seed"] < 2])
    assert few is not None
    assert "too few seeds" in as_markdown([(title, table) for title, *table in tables([few])])
    assert sentences([]) == ["Nothing has been raced yet."]


def test_training_a_forecaster_is_not_forgotten() -> None:
    """The CPU hours of a pretrained forecaster's card are known; closed forms took none."""
    seconds = meta_seconds("verified_nino")
    assert seconds is not None
    assert seconds > 60
    assert meta_seconds("verified_linear") is None
    assert meta_seconds("adamw_linear") is None


@pytest.mark.slow
def test_many_methods_fit_into_one_figure(tmp_path: Path) -> None:
    """The figure takes more methods than there are colours, and runs that diverged; without runs it says so."""
    losses = [1.0, 0.5, math.nan]
    rows = [
        row(f"method{index}", seed, losses if index % 2 else [1.0, 0.5, 0.4]) for index in range(30) for seed in (0, 1)
    ]
    path = grid_curves("made_up", rows, 0.5, tmp_path / "many")
    assert path.stat().st_size > 0
    text = path.with_suffix(".svg").read_text()
    assert "method29" in text or text.count("<path") > 100
    assert grid_curves("made_up", [], None, tmp_path / "none").exists()


def test_the_target_is_in_the_picture() -> None:
    """Where the best methods end far below the target, the line and those that just reach it are shown all the same."""
    losses = [2.3, 1.0, 0.8, 0.6, 0.5, 0.45, 0.42, 0.41, 0.4]
    low, high = limits(losses, 0.75)
    assert low < 0.4
    assert high > 1.1 * 0.75
    assert limits(losses, None)[1] < 0.75

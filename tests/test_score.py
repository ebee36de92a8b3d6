"""`deadreckon score`: tables against hand computation, verdicts both ways, figures, and what is refused."""

import copy
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import result_samples as samples
import torch
from matplotlib.figure import Figure
from recorded_runs import Gains, write_corpus, write_run

from deadreckon.experiments import plotting
from deadreckon.experiments.bootstrap import MIN_RUNS
from deadreckon.experiments.cli import main
from deadreckon.experiments.contestants import find_contestants
from deadreckon.experiments.errors import OptionError
from deadreckon.experiments.fit import command as fit
from deadreckon.experiments.fit.options import FitOptions, ScoreOptions
from deadreckon.experiments.options import ReportOptions
from deadreckon.experiments.report import command as report
from deadreckon.experiments.report import forecasters as report_forecasters
from deadreckon.experiments.results import read_result, write_result
from deadreckon.experiments.run_cases import CaseRequest, read_cases
from deadreckon.experiments.runs import find_runs
from deadreckon.experiments.schema import KINDS
from deadreckon.experiments.score import command as score
from deadreckon.experiments.score import figures as score_figures
from deadreckon.experiments.score.tables import Cell, Tallies, add, against_rows, skill_rows
from deadreckon.experiments.score.text import as_text, skill_table
from deadreckon.experiments.score.verdicts import headline, scored, standings
from deadreckon.experiments.spec import check
from deadreckon.forecast.tally import Sums
from deadreckon.models import Budget, fit_forecaster, make_forecaster, registry, save_forecaster

QUIET: dict[str, Any] = {"logger": "none", "progress": False}
HORIZONS = (10, 50)
FIELD = samples.FIELD


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs, three of each of two tasks."""
    return write_corpus(tmp_path_factory.mktemp("score") / "corpus", per_task=3)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare tests the drawing that they are not about."""
    monkeypatch.setattr(score, "score_figures", lambda data, folder: [])


def some_score(field: dict[str, Any] = FIELD, num_runs: int = 8) -> dict[str, Any]:
    return check(samples.score(field, num_runs), KINDS["score"], "data")


def some_tallies(errors: dict[str, list[float]]) -> Tallies:
    """Squared errors by forecaster and run, against a squared motion of 4 in each; at one horizon."""
    tallies: Tallies = {}
    for name, values in errors.items():
        for run, error in enumerate(values):
            for phase, share in (("early", 0.75), ("late", 0.25)):
                sums = Sums(share * error, share * 4.0, 1, 2, 4)
                add(tallies, Cell(run, name, 10, "weight", phase), sums)
    return tallies


# Tables


def test_skill_is_averaged_over_runs_as_ratios() -> None:
    """Skill, worst run and share of runs with skill are those worked out by hand; a run counts once."""
    tallies = some_tallies({"hold": [4.0, 4.0, 4.0], "wild": [1.0, 2.0, 16.0], "even": [2.0, 2.0, 2.0]})
    rows = skill_rows(tallies, ["digits"] * 3, ["a", "b", "c"], 100, seed=0)
    overall = {row["forecaster"]: row for row in rows if (row["kind"], row["phase"]) == ("all", "all")}
    assert overall["hold"]["skill"] == 0
    assert overall["even"]["skill"] == pytest.approx(0.5)
    # ratios 1/4, 1/2 and 4: their geometric mean is (1/2) ** (1/3)
    assert overall["wild"]["skill"] == pytest.approx(1 - 0.5 ** (1 / 3))
    assert overall["wild"]["worst"] == pytest.approx(-3.0)
    assert overall["wild"]["worst_run"] == "c"
    assert overall["wild"]["share_above_zero"] == pytest.approx(2 / 3)
    assert (overall["wild"]["within_one"], overall["wild"]["within_two"]) == (0.25, 0.5)
    assert overall["wild"]["low"] is None
    assert {(row["task"], row["kind"], row["phase"]) for row in rows} == {
        ("all", "all", "all"),
        ("all", "weight", "all"),
        ("all", "all", "early"),
        ("all", "all", "late"),
    }


def test_comparisons_are_paired_run_by_run() -> None:
    """A forecaster better by a tenth in every run beats one whose own error differs tenfold between runs."""
    hard = [4 * 10.0 ** (number - 2.5) for number in range(6)]
    tallies = some_tallies({"hold": [4.0] * 6, "one": hard, "other": [0.9 * error for error in hard]})
    rows = {(row["forecaster"], row["reference"]): row for row in against_rows(tallies, 6, 500, seed=0)}
    row = rows["other", "one"]
    assert (row["ratio"], row["low"], row["high"]) == (pytest.approx(0.9),) * 3
    assert rows["one", "other"]["ratio"] == pytest.approx(1 / 0.9)
    assert rows["one", "hold"]["low"] < 1 < rows["one", "hold"]["high"]
    assert len(rows) == 6


def test_runs_in_which_nothing_moves_count_for_nobody() -> None:
    """A run without motion is left out for all forecasters, also where one of them moved."""
    tallies = some_tallies({"hold": [4.0, 4.0], "one": [2.0, 2.0]})
    for name, error in (("hold", 0.0), ("one", 1.0)):
        add(tallies, Cell(2, name, 10, "weight", "early"), Sums(error, 0.0, 0, 0, 0))
    rows = skill_rows(tallies, ["digits"] * 3, ["a", "b", "c"], 100, seed=0)
    assert {row["num_runs"] for row in rows} == {2}
    assert rows[1]["skill"] == pytest.approx(0.5)


def test_an_explosion_is_bounded_and_told() -> None:
    """A forecast that is not finite in one run of eight leaves numbers, and that run as the worst."""
    tallies = some_tallies({"hold": [4.0] * 8, "one": [1.0] * 7 + [math.nan]})
    row = skill_rows(tallies, ["digits"] * 8, list("abcdefgh"), 100, seed=0)[1]
    assert row["worst_run"] == "h"
    assert row["worst"] == pytest.approx(1 - 1e12)
    assert row["share_above_zero"] == 0.875
    assert math.isfinite(row["low"])


# Verdicts


def test_a_learned_forecaster_that_beats_every_closed_form_is_named() -> None:
    """The headline names winners by horizon, the horizons without, and counts a control as neither side."""
    data = some_score()
    assert [item.winners for item in standings(data)] == [[], ["learned_linear"], ["learned_linear"]]
    assert headline(data) == (
        "At 2 of 3 horizons a learned forecaster beats every closed form outside the 95 % interval: learned_linear "
        "50 steps ahead; learned_linear 200 steps ahead. None does 10 steps ahead."
    )
    assert as_text(data).splitlines()[2] == headline(data)
    assert [item.best_closed for item in standings(data)] == ["exponential", "exponential", "exponential"]
    told = " ".join(scored(data))
    assert "6 forecasters on 8 runs of digits, the same 160 cases for each" in told
    assert "0.670 (0.607 to 0.741) times that of exponential" in told
    assert "times that of tuned_line" in told
    assert "as much CPU time as 0.38 optimiser steps" in told


def test_when_none_beats_the_closed_forms_it_is_said() -> None:
    """With one closed form inside the interval at every horizon the headline says that none wins."""
    field: dict[str, Any] = copy.deepcopy(FIELD)
    field["exponential"] = ("closed", tuple(log + 0.05 for log in FIELD["learned_linear"][1]))
    assert headline(some_score(field)) == (
        "No learned forecaster beats every closed form outside the 95 % interval at any horizon (10, 50 and 200 steps)."
    )


def test_every_closed_form_has_to_be_beaten_outside_the_interval() -> None:
    """It is not enough to beat the one with the best mean: another may vary more."""
    data = some_score()
    assert standings(data)[1].winners == ["learned_linear"]
    for row in data["against"]:
        if (row["forecaster"], row["reference"], row["horizon"]) == ("learned_linear", "linear", 50):
            row["high"] = 1.01
    assert standings(data)[1].winners == []


def test_what_was_fitted_to_the_scored_runs_beats_nothing() -> None:
    """A forecaster that knows some of the runs is no winner, and it is said; knowing the task only is said, too."""
    data = some_score()
    (winner,) = {name for standing in standings(data) for name in standing.winners}
    entry = next(item for item in data["forecasters"] if item["name"] == winner)
    entry |= {"known_runs": 0, "known_tasks": ["digits"]}
    assert standings(data)[1].winners == [winner]
    assert any(f"{winner} was fitted to other runs of digits: no task" in line for line in scored(data))
    entry["known_runs"] = 2
    assert not any(standing.winners for standing in standings(data))
    assert any(f"{winner} was fitted to, or chosen by, 2 of these" in line for line in scored(data))
    for item in data["forecasters"]:
        item["known_runs"] = 1 if item["family"] == "learned" else 0
    assert headline(data).startswith("Nothing is said about what beats what: every learned forecaster was fitted to")


def test_too_little_is_no_verdict() -> None:
    """Few runs, no learned forecaster, and no interval lead to no claim."""
    assert headline(some_score(num_runs=MIN_RUNS - 1)).startswith("Nothing is said about what beats what: 5 runs")
    closed = {name: entry for name, entry in FIELD.items() if entry[0] == "closed"}
    assert headline(some_score(closed)).startswith("No learned forecaster was scored")
    data = some_score()
    for row in data["against"]:
        row["high"] = None
    assert headline(data).startswith("No learned forecaster beats")


def test_tables_are_sorted_and_starred() -> None:
    """The most skilled comes first, winners have a star, the reference has ratio 1; the text is a Markdown table."""
    columns, rows = skill_table(some_score(), 50)
    assert columns[:5] == ["forecaster", "family", "skill", "error / exponential", "error / tuned_line"]
    assert [row[0] for row in rows][:3] == ["learned_linear *", "tuned_line", "exponential"]
    assert rows[2][3] == "1"
    assert rows[0][1:4] == ["learned", "0.593 [0.531, 0.647]", "0.670 [0.607, 0.741]"]
    lines = [line for line in as_text(some_score()).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(columns) + 1}


# The command


@pytest.mark.usefixtures("undrawn")
def test_what_score_says_can_be_made_again(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Skill by run, coverage and cost follow from the trajectories by the library's own calls; files say the same."""
    saved = make_forecaster("tuned_line", history=3)
    runs = find_runs([corpus])
    request = CaseRequest("weights", 5, HORIZONS, 10, 6, False)
    cases = {str(run.folder): read_cases(run, request).cases for run in runs}
    training = [case for own in cases.values() for case in own]
    fit_forecaster(saved, training, Budget(), torch.Generator().manual_seed(0))
    (tmp_path / "fitted").mkdir()
    save_forecaster(saved, tmp_path / "fitted" / "forecaster.safetensors")
    options = ScoreOptions(
        runs=(str(corpus),),
        out=str(tmp_path / "out"),
        forecasters=("linear",),
        controls=(str(tmp_path / "fitted"),),
        horizons=HORIZONS,
        cases_per_run=6,
        resamples=200,
        **QUIET,
    )
    score.run(options)
    data = read_result(tmp_path / "out").data
    assert [(item["name"], item["family"]) for item in data["forecasters"]] == [
        ("hold", "closed"),
        ("linear", "closed"),
        ("tuned_line", "control"),
    ]
    for name, forecaster in (("linear", make_forecaster("linear")), ("tuned_line", saved)):
        logs = []
        for own in cases.values():
            error = moved = 0.0
            for case in own:
                (forecast,) = forecaster.forecast(case.window, [50])
                error += float((forecast.mean - case.targets[50]).double().square().sum())
                moved += float((case.window.last - case.targets[50]).double().square().sum())
            logs.append(math.log(error / moved))
        rows = [row for row in data["skill"] if (row["forecaster"], row["horizon"]) == (name, 50)]
        (row,) = [row for row in rows if (row["task"], row["kind"], row["phase"]) == ("all",) * 3]
        assert row["skill"] == pytest.approx(1 - math.exp(np.mean(logs)), rel=1e-6)
        assert row["worst"] == pytest.approx(1 - math.exp(max(logs)), rel=1e-6)
        assert row["low"] < row["skill"] < row["high"]
        assert {row["task"] for row in rows} == {"all", "digits", "teacher"}
        assert {row["kind"] for row in rows} == {"all", "weight", "bias"}
        assert {row["phase"] for row in rows} == {"all", "early", "middle", "late"}
    cost = [row for row in data["cost"] if row["forecaster"] == "linear"]
    assert [row["horizon"] for row in cost] == list(HORIZONS)
    for row in cost:
        assert 0 < row["cpu_seconds"] < 1
        assert row["step_equivalents"] == pytest.approx(row["cpu_seconds"] / 0.002, rel=0.5)
    with (tmp_path / "out" / "tallies.csv").open() as file:
        lines = list(csv.DictReader(file))
    total = sum(float(line["persistence"]) for line in lines if line["forecaster"] == "hold")
    exact = sum(
        float((case.window.last - case.targets[horizon]).double().square().sum())
        for case in training
        for horizon in HORIZONS
    )
    assert total == pytest.approx(exact, rel=1e-6)
    text = (tmp_path / "out" / "score.md").read_text()
    assert headline(data) in text
    assert headline(data) in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_fitting_in_the_run_scores_on_what_comes_after(corpus: Path, tmp_path: Path) -> None:
    """With `fit_in_run` the first part of each run is fitted to and only the rest scored on, by all forecasters."""
    options: dict[str, Any] = {
        "runs": (str(corpus),),
        "forecasters": ("linear", "learned_linear"),
        "horizons": (10,),
        "resamples": 100,
        **QUIET,
    }
    with pytest.raises(OptionError, match=r"'learned_linear' has to be fitted first.*`fit_in_run`"):
        score.run(ScoreOptions(out=str(tmp_path / "a"), **options))
    score.run(ScoreOptions(out=str(tmp_path / "b"), fit_in_run=True, only_tasks=("digits",), **options))
    data = read_result(tmp_path / "b").data
    assert {run["task"] for run in data["runs"]} == {"digits"}
    # 401 steps, of which those after 240 are scored: windows of five rows from 250 on, 10 steps ahead.
    assert [run["num_cases"] for run in data["runs"]] == [11] * 3
    assert {row["phase"] for row in data["skill"]} == {"all", "late"}
    (run,) = [item for item in find_runs([corpus]) if item.folder.name == "digits_0"]
    learned = make_forecaster("learned_linear")
    request = CaseRequest("weights", 5, (10,), 10, 20, False)
    training = read_cases(run, request, last_step=240).cases
    fit_forecaster(learned, training, Budget(), torch.Generator().manual_seed(0))
    error = moved = 0.0
    for case in read_cases(run, request, first_step=241).cases:
        (forecast,) = learned.forecast(case.window, [10])
        error += float((forecast.mean - case.targets[10]).double().square().sum())
        moved += float((case.window.last - case.targets[10]).double().square().sum())
    with (tmp_path / "b" / "tallies.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["forecaster"] == "learned_linear"]
    own = [line for line in lines if line["run"].endswith("digits_0")]
    assert sum(float(line["squared_error"]) for line in own) == pytest.approx(error, rel=1e-6)
    assert {item["name"]: item["family"] for item in data["forecasters"]}["learned_linear"] == "learned"


@pytest.mark.slow
def test_runs_that_a_fit_has_seen_are_recognised(corpus: Path, tmp_path: Path) -> None:
    """`score` reads beside a fitted forecaster which runs it knows, whether it learned from them or chose by them."""
    fit_options: dict[str, Any] = {"horizons": HORIZONS, **QUIET}
    fit.run(FitOptions(runs=(str(corpus),), out=str(tmp_path / "fit"), forecaster="tuned_line", **fit_options))
    chosen = ScoreOptions(
        runs=(str(corpus),), forecasters=(str(tmp_path / "fit"),), out=str(tmp_path / "score"), **fit_options
    )
    score.run(chosen)
    data = read_result(tmp_path / "score").data
    entry = next(item for item in data["forecasters"] if item["name"] == "tuned_line")
    assert entry["known_runs"] == len(data["runs"])
    assert entry["known_tasks"] == sorted({run["task"] for run in data["runs"]})
    assert next(item for item in data["forecasters"] if item["name"] == "hold")["known_runs"] == 0


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    """A file whose forecaster's name is taken gets its stem, or the folder that `fit` wrote it into; others do not."""
    for path in ("first/forecaster.safetensors", "second/forecaster.safetensors", "mine.safetensors"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        save_forecaster(make_forecaster("linear"), tmp_path / path)
    save_forecaster(make_forecaster("quadratic"), tmp_path / "other.safetensors")
    paths = [str(tmp_path / name) for name in ("first", "second", "mine.safetensors", "other.safetensors")]
    found = find_contestants(["linear", *paths], [], False)
    names = [item.name for item in found]
    assert names == ["hold", "linear", "linear (first)", "linear (second)", "linear (mine)", "quadratic"]
    twice = find_contestants([paths[0], f"{paths[0]}/forecaster.safetensors"], [], False)
    assert [item.name for item in twice] == ["hold", "linear (first)", "linear (first) 2"]


@pytest.mark.usefixtures("undrawn")
def test_diverged_ends_are_left_out(tmp_path: Path) -> None:
    """Cases with NaN are dropped and counted; runs with nothing else cannot be scored."""
    write_run(tmp_path / "runs" / "good")
    write_run(tmp_path / "runs" / "broken", seed=1, broken_from=200)
    options: dict[str, Any] = {"forecasters": ("linear",), "horizons": HORIZONS, "resamples": 100, **QUIET}
    score.run(ScoreOptions(runs=(str(tmp_path / "runs"),), out=str(tmp_path / "out"), **options))
    left_out = {Path(run["folder"]).name: run["left_out"] for run in read_result(tmp_path / "out").data["runs"]}
    assert left_out["good"] == 0
    assert left_out["broken"] > 5
    write_run(tmp_path / "none", broken_from=0)
    with pytest.raises(OptionError, match="Of 1 runs none has a case whose values are finite"):
        score.run(ScoreOptions(runs=(str(tmp_path / "none"),), out=str(tmp_path / "other"), **options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", '["{tmp}/absent"]'], "There is no folder"),
        (["--forecasters", "[crystal_ball]"], "`forecasters` must be names or files, got 'crystal_ball'"),
        (["--forecasters", '["{tmp}/bad.safetensors"]'], "is not a saved forecaster"),
        (["--forecasters", "[optimizer_moments]"], "lacks the streams exp_avg and exp_avg_sq"),
        (["--only_tasks", "[chess]"], "`only_tasks` must name tasks of the runs (digits, teacher), got 'chess'"),
        (["--only_tasks", "[digits]", "--exclude_tasks", "[digits]"], "No run is left of 6"),
        (["--horizons", "[1000]"], "is too short"),
        (["--spacing", "15"], "was recorded every 10 steps, of which `spacing` 15 is no multiple"),
        (["--controls", "[linear]"], "`controls` must not repeat `forecasters`, got 'linear' in both"),
        (["--resamples", "10"], "`resamples` must be at least 100, got 10"),
        (["--forecasters", '["{tmp}/gradients.safetensors"]'], "All forecasters must forecast one stream"),
    ],
)
def test_wrong_options_are_one_line(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """What cannot be done ends in one line and exit code 2, and nothing is written."""
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    save_forecaster(make_forecaster("linear", stream="gradients"), tmp_path / "gradients.safetensors")
    given = [text.replace("{tmp}", str(tmp_path)) for text in arguments]
    line = ["score", "--runs", json.dumps([str(corpus)]), "--out", str(tmp_path / "out"), "--logger", "none"]
    assert main([*line, "--forecasters", "[linear]", "--progress", "false", *given]) == 2
    (text,) = capsys.readouterr().err.strip().splitlines()
    assert message in text
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_forecaster_that_does_not_fit_a_run_is_named(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was fitted to shorter horizons is refused with the run's name, before anything is claimed."""
    saved = make_forecaster("learned_linear", per="kind")
    cases = read_cases(find_runs([corpus])[0], CaseRequest("weights", 5, (10,), 10, None, False)).cases
    fit_forecaster(saved, cases, Budget(), torch.Generator())
    save_forecaster(saved, tmp_path / "short.safetensors")
    options = ScoreOptions(
        (str(corpus),), str(tmp_path / "out"), (str(tmp_path / "short.safetensors"),), horizons=HORIZONS, **QUIET
    )
    with pytest.raises(OptionError, match=r"'learned_linear' cannot forecast .*digits_0: .*horizon 10, got 50"):
        score.run(options)
    assert not (tmp_path / "out" / "result.json").exists()
    monkeypatch.setattr(registry, "LEARNED", (*registry.LEARNED, Gains))
    short = ScoreOptions((str(corpus),), str(tmp_path / "out"), ("gains",), horizons=(150,), fit_in_run=True, **QUIET)
    with pytest.raises(OptionError, match="is too short"):
        score.run(short)


# Figures and report


def test_hostile_names_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mark-up in the names of forecasters, tasks and runs reaches neither the page nor the table as mark-up."""
    evil = "</script><img src=x onerror=alert(1)>|$x_{$\n"
    monkeypatch.setattr(report_forecasters, "score_figures", lambda data, folder: [])
    data = samples.score({name + (evil if name != "hold" else ""): entry for name, entry in FIELD.items()})
    for run in data["runs"]:
        run |= {"task": evil, "folder": evil}
    fitted = samples.fit() | {"forecaster": evil, "excluded_tasks": [evil]}
    for row in (*fitted["skill"], *fitted["runs"]):
        row["task"] = evil
    write_result(tmp_path / "score", "score", data)
    write_result(tmp_path / "fit", "fit", fitted)
    report.run(ReportOptions((str(tmp_path / "fit"), str(tmp_path / "score")), str(tmp_path / "out")))
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<script") == page.count("</script>") == 1
    assert "<img src=x" not in page
    lines = [line for line in as_text(check(data, KINDS["score"], "data")).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved during a test."""
    seen: list[Figure] = []

    def save(figure: Figure, path: str | Path) -> Path:
        seen.append(figure)
        return plotting.save(figure, path)

    monkeypatch.setattr(score_figures, "save", save)
    return seen


@pytest.mark.slow
def test_figures_hold_thirty_forecasters(tmp_path: Path, drawn: list[Figure]) -> None:
    """With thirty forecasters of three families nothing is cut off, everything is labelled, and all rows are there."""
    families = ("closed", "learned", "control")
    field: dict[str, Any] = {"hold": ("closed", (0.0, 0.0, 0.0))}
    field |= {f"forecaster_{n:02}": (families[n % 3], (0.1 * n - 1, 0.2 * n - 1, 0.4 * n - 1)) for n in range(29)}
    made = score_figures.score_figures(some_score(field), tmp_path)
    assert [path.stem for path, _ in made] == [
        "skill_by_horizon",
        "skill_ranked",
        "cost_against_skill",
        "skill_by_kind",
        "skill_by_phase",
    ]
    for figure, (path, caption) in zip(drawn, made, strict=True):
        assert caption
        assert path.with_suffix(".svg").is_file()
        box = figure.get_tightbbox()
        assert box.x0 >= -0.02
        assert box.y0 >= -0.02
        assert box.x1 <= figure.get_figwidth() + 0.02
        assert box.y1 <= figure.get_figheight() + 0.02
    ranked = drawn[1].axes[0]
    assert len(ranked.get_yticks()) == 29
    assert ranked.get_yticklabels()[0].get_text() == "forecaster_00"


def test_figures_show_their_numbers(tmp_path: Path, drawn: list[Figure]) -> None:
    """Lines and marks are the given skills, those below the floor at the floor; winners are filled, others hollow."""
    data = some_score()
    score_figures.skill_lines(data, tmp_path / "lines")
    lines = {str(line.get_label()): np.asarray(line.get_ydata()) for line in drawn[0].axes[0].get_lines()}
    np.testing.assert_allclose(lines["learned_linear (learned)"], 1 - np.exp(FIELD["learned_linear"][1]), rtol=1e-9)
    assert lines["linear (closed form)"][2] == score_figures.FLOOR
    score_figures.skill_ranked(data, tmp_path / "ranked")
    marks = {
        (panel, float(np.asarray(line.get_xdata())[0])): line.get_markerfacecolor()
        for panel, axes in enumerate(drawn[1].axes)
        for line in axes.get_lines()
        if len(np.asarray(line.get_xdata())) == 1
    }
    faces = [
        next(face for (at, value), face in marks.items() if at == panel and math.isclose(value, 1 - math.exp(log)))
        for panel, log in enumerate(FIELD["learned_linear"][1])
    ]
    assert [face == "white" for face in faces] == [True, False, False]


def test_figures_bear_gaps_and_emptiness(tmp_path: Path) -> None:
    """Without numbers, and with nobody scored, there is a figure all the same."""
    data = some_score()
    for row in data["skill"]:
        row |= {"skill": None, "low": None, "high": None}
    for row in data["cost"]:
        row |= {"cpu_seconds": None, "step_equivalents": None}
    for path, _ in score_figures.score_figures(data, tmp_path / "gaps"):
        assert path.is_file()
    empty = data | {"forecasters": [], "skill": [], "cost": [], "against": [], "runs": []}
    for path, _ in score_figures.score_figures(empty, tmp_path / "empty"):
        assert path.is_file()
    assert headline(empty).startswith("No learned forecaster was scored")


def test_the_report_begins_with_what_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's first sentence and the terminal's last are the headline; tables and figures are there."""
    ranked = score_figures.skill_ranked

    def drawn(data: Any, folder: Path) -> list[tuple[Path, str]]:
        return [(ranked(data, folder / "skill_ranked"), "One figure of five, to save time.")]

    monkeypatch.setattr(report_forecasters, "score_figures", drawn)
    write_result(tmp_path / "fit", "fit", samples.fit())
    write_result(tmp_path / "score", "score", samples.score())
    report.run(ReportOptions((str(tmp_path / "fit"), str(tmp_path / "score")), str(tmp_path / "out")))
    page = (tmp_path / "out" / "report.html").read_text()
    expected = headline(some_score())
    assert f'<p class="verdict">{expected}</p>' in page
    assert expected in " ".join(capsys.readouterr().out.split())
    assert "Whether anything pays was not measured" not in page
    assert page.count("<img ") == 3
    assert "learned_linear *" in page
    assert "Not seen at all: shakespeare." in page
    assert "On teacher, 10, 50 and 200 steps ahead, its squared error is 0.75, 0.85 and 1.15 times" in page

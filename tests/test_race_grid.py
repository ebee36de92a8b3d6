"""The race's grid: its queue, its order, its recipes, and real runs of a few steps."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import golden_folder
from torch import nn

from deadreckon.experiments.errors import OptionError, ResultError
from deadreckon.experiments.options import MAX_TRIALS, RaceOptions
from deadreckon.experiments.race import grid as race_grid
from deadreckon.experiments.race.averages import ExponentialAverage, LatestAverage, OuterStep, holding, trained
from deadreckon.experiments.race.clock import COLUMNS, Gauge, RaceClock, spread
from deadreckon.experiments.race.controls import CONTROLS, Controlled
from deadreckon.experiments.race.methods import BASELINES, METHODS, PRETRAINED, RELEASED, Method, find_method
from deadreckon.experiments.race.optimizers import make_race_optimizer, rate_factor
from deadreckon.experiments.race.problems import CORE, PROBLEMS, Problem, find_problem
from deadreckon.experiments.race.queue import RunQueue
from deadreckon.experiments.race.released import VARIABLE
from deadreckon.experiments.race.run import Entry, blind_period, blind_schedule, run_entry
from deadreckon.experiments.tasks import load_task, make_network
from deadreckon.forecast import Forecast, Window, pack
from deadreckon.models import (
    ReleasedNiNo,
    closed_form_names,
    load_released_nino,
    make_forecaster,
    pretrained_names,
)

TINY = Problem("tiny", "digits", "mlp", 32, 60, 100)
HOLDER = """
import sys, time
from pathlib import Path
from deadreckon.experiments.race.queue import RunQueue
with RunQueue(Path(sys.argv[1])).claimed("run") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def options(out: Path, **chosen: Any) -> RaceOptions:
    """A grid of little."""
    given: dict[str, Any] = {
        "methods": ("adamw_linear", "adamw_cosine", "snoo", "verified_linear", "best_verified_linear"),
        "problems": ("digits", "tiny"),
        "seeds": (0, 1),
        "trials": 4,
        "progress": False,
    }
    return RaceOptions(out=str(out), **(given | chosen))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """Runs that take no time: the loss is lowest at a rate of 0.004, and falls in a straight line over the steps."""
    ran: list[Entry] = []

    def pretend(entry: Entry, task: object) -> dict[str, Any]:
        ran.append(entry)
        last = 0.1 + abs(math.log(entry.settings["rate"] / 0.004)) + 0.01 * (entry.method.schedule == "cosine")
        quick = 2.0 if entry.method.name == "snoo" else 1.0
        count = entry.num_steps
        curve = [
            [count * part / 10, count * part / 10, 1.0, 1.0, 0.01, max(last, 3 - (3 - last) * quick * part / 10), 0.5]
            for part in range(11)
        ]
        return {
            "problem": entry.problem.name,
            "method": entry.method.name,
            "base": entry.method.base,
            "seed": entry.seed,
            "settings": dict(entry.settings),
            "on": entry.on,
            "curve": curve,
            "diverged": False,
            "jumps": {"outcomes": {}},
        }

    monkeypatch.setattr(race_grid, "run_entry", pretend)
    monkeypatch.setattr("deadreckon.experiments.race.problems.PROBLEMS", {**PROBLEMS, "tiny": TINY})
    return ran


def test_baselines_are_tuned_before_anything_jumps(tmp_path: Path, pretended: list[Entry]) -> None:
    """All tuning comes first, on other seeds and another set; jumps take over what the decay was tuned to."""
    _, done = race_grid.work(options(tmp_path))
    assert done
    tuning = [entry for entry in pretended if entry.on == "tune"]
    racing = pretended[len(tuning) :]
    assert [entry.on for entry in racing] == ["test"] * len(racing)
    assert {entry.method.name for entry in tuning} == {"adamw_linear", "adamw_cosine", "snoo"}
    assert {entry.seed for entry in tuning}.isdisjoint({entry.seed for entry in racing})
    for problem in ("digits", "tiny"):
        for method in ("adamw_linear", "snoo"):
            own = [entry for entry in tuning if (entry.problem.name, entry.method.name) == (problem, method)]
            different = {(tuple(sorted(entry.settings.items()))) for entry in own}
            assert 4 < len(own) <= 12 + 6
            assert len(different) <= 12
            # What was chosen runs on six more seeds, which say together with the first which baseline is best.
            more = [entry for entry in own if entry.seed != race_grid.TUNING_SEED]
            assert sorted(entry.seed for entry in more) == list(range(1001, 1007))
        tuned = json.loads((tmp_path / "tuned" / f"{problem}.json").read_text())
        assert (tuned["decay"], tuned["best"]) == ("adamw_linear", "snoo")
        assert tuned["settings"]["adamw_linear"]["rate"] == 0.004
        # It is twice as quick, so that the shortest horizon gets there soonest; of 60 steps both are the 30 at least.
        assert tuned["settings"]["snoo"]["horizon"] == (0.2 if problem == "digits" else 0.35)
    jumping = [entry for entry in racing if entry.method.name == "verified_linear"]
    assert len(jumping) == 4
    assert all(entry.settings["rate"] == 0.004 and entry.method.base == "adamw_linear" for entry in jumping)
    best = [entry for entry in racing if entry.method.name == "best_verified_linear"]
    assert all(entry.method.base == entry.method.outer == "snoo" for entry in best)
    # Seed by seed, so that whenever it stops every method has had as many runs.
    assert [entry.seed for entry in racing] == sorted(entry.seed for entry in racing)


def test_a_baseline_that_was_lucky_once_is_not_the_best(
    tmp_path: Path, pretended: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that is soonest on the seed it was tuned with, and slow on others, is not the best."""
    pretend = race_grid.run_entry

    def lucky(entry: Entry, task: object) -> dict[str, Any]:
        run = pretend(entry, task)  # type: ignore[arg-type]
        if entry.method.name == "snoo" and entry.seed != race_grid.TUNING_SEED:
            run["curve"] = [[row[0], 10 * row[1], *row[2:5], 3.0, row[6]] for row in run["curve"]]
        return run

    monkeypatch.setattr(race_grid, "run_entry", lucky)
    methods = ("adamw_linear", "adamw_cosine", "snoo", "best_verified_linear")
    grid, done = race_grid.work(options(tmp_path, methods=methods, problems=("digits",), seeds=(0,)))
    assert done
    assert grid.tuned(PROBLEMS["digits"])["best"] == "adamw_linear"


@pytest.mark.slow
def test_rates_beyond_those_given_are_tried_where_the_edge_is_best(
    tmp_path: Path, pretended: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate is doubled or halved until that is no better, and no method has more than twelve settings."""
    pretend = race_grid.run_entry
    for factor, found in ((16, 0.064), (1 / 64, 0.0000625)):

        def moved(entry: Entry, task: object, factor: float = factor) -> dict[str, Any]:
            settings = {**entry.settings, "rate": entry.settings["rate"] / factor}
            return {**pretend(replace(entry, settings=settings), task), "settings": dict(entry.settings)}  # type: ignore[arg-type]

        monkeypatch.setattr(race_grid, "run_entry", moved)
        out = tmp_path / str(found)
        given = options(out, methods=("adamw_linear", "adamw_cosine", "snoo"), seeds=(0,), trials=6)
        grid, _ = race_grid.work(given)
        tuned = grid.tuned(PROBLEMS["digits"])["settings"]
        assert tuned["adamw_linear"]["rate"] == tuned["adamw_cosine"]["rate"] == found
        for name in ("adamw_linear", "snoo"):
            files = (out / "runs").glob(f"tune_digits_600_{name}_*.json")
            entries = [tuple(sorted(json.loads(path.read_text())["settings"].items())) for path in files]
            different = {tuple(item for item in entry if item != ("horizon", 1.0)) for entry in entries}
            assert len(different) <= race_grid.MAX_SETTINGS


def test_a_grid_that_is_called_again_goes_on(tmp_path: Path, pretended: list[Entry]) -> None:
    """No run is done twice, one whose file was lost is done again, and the digest of what was tuned is kept."""
    given = options(tmp_path, work_seconds=1e-9)
    grid, done = race_grid.work(given)
    assert (len(pretended), done) == (0, False)
    with pytest.raises(ResultError, match="baselines of digits are not tuned yet"):
        grid.tuned(PROBLEMS["digits"])
    race_grid.work(options(tmp_path))
    count = len(pretended)
    race_grid.work(options(tmp_path))
    assert len(pretended) == count
    lost = next((tmp_path / "runs").glob("race_tiny_60_verified_linear_1.json"))
    assert len(json.loads(lost.read_text())["tuned_digest"]) == 16
    lost.write_text("half a fi")
    with pytest.raises(ResultError, match="is no result of a race.*Delete it"):
        race_grid.work(options(tmp_path))[0].rows()
    lost.unlink()
    grid, done = race_grid.work(options(tmp_path))
    assert done
    assert len(pretended) == count + 1
    assert len(grid.rows()) == 2 * 2 * 5


def test_a_method_that_was_not_tuned_is_refused_and_what_was_run_is_kept(
    tmp_path: Path, pretended: list[Entry]
) -> None:
    """A baseline added later says what to do; until then the report has the others."""
    race_grid.work(options(tmp_path, problems=("digits",), methods=("adamw_linear", "adamw_cosine")))
    more = options(tmp_path, problems=("digits",), methods=("adamw_linear", "adamw_cosine", "snoo", "verified_linear"))
    with pytest.raises(ResultError, match="snoo was not among the methods when those of digits were tuned. Delete"):
        race_grid.work(more)
    assert len(race_grid.Grid(more, RunQueue(tmp_path)).rows()) == 4
    (tmp_path / "tuned" / "digits.json").unlink()
    count = len([entry for entry in pretended if entry.method.name == "adamw_linear"])
    assert len(race_grid.work(more)[0].rows()) == 8
    assert len([entry for entry in pretended if entry.method.name == "adamw_linear"]) == count


def test_two_workers_share_a_queue_and_a_killed_one_leaves_its_run(tmp_path: Path) -> None:
    """While a process has a run nobody else gets it; killed at once, it leaves the run open and no result."""
    queue = RunQueue(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with queue.claimed("run") as mine, queue.claimed("another") as free:
            assert (mine, free) == (False, True)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with queue.claimed("run") as mine:
        assert mine
        assert not queue.done("run")
        queue.write("run", {"value": 1})
    with queue.claimed("run") as mine:
        assert not mine
    assert queue.read("run") == {"value": 1}


def test_what_the_grid_cannot_do_is_refused() -> None:
    """Unknown names, missing decays and too many trials are named."""
    with pytest.raises(OptionError, match="`methods` must be of adamw_constant, .* got 'adam'"):
        find_method("adam")
    with pytest.raises(OptionError, match="`problems` must be of fm16, .* got 'mnist'"):
        find_problem("mnist")
    with pytest.raises(OptionError, match="add adamw_cosine"):
        race_grid.Grid(RaceOptions(methods=("adamw_linear",)), RunQueue(Path(os.devnull).parent / "shm"))
    with pytest.raises(OptionError, match=f"`trials` must lie within 1 and {MAX_TRIALS}, got 40"):
        RaceOptions(trials=40)
    with pytest.raises(OptionError, match="`optimizer` must be one of adam, .* got 'lion'"):
        make_race_optimizer("lion", nn.Linear(1, 1), {"rate": 0.1}, 10)


def test_every_recipe_is_whole() -> None:
    """Names are their own keys, no method has more trials than allowed, the core is five problems."""
    assert all(name == method.name for name, method in METHODS.items())
    assert all(METHODS[name].base is None for name in BASELINES)
    assert all(1 <= len(METHODS[name].trials(0, MAX_TRIALS)) <= MAX_TRIALS for name in METHODS)
    assert len(CORE) == 5
    for problem in PROBLEMS.values():
        assert problem.steps >= 100
    snoo = METHODS["snoo"].trials(0, 6)
    assert sorted(trial["outer_every"] for trial in snoo) == [10, 10, 20, 20, 50, 50]


def test_rates_of_one_cycle_rise_and_fall() -> None:
    """One cycle begins at 4 %, is at its height after three tenths of the run and ends at zero."""
    assert rate_factor("one_cycle", 0, 100) == pytest.approx(0.04)
    assert rate_factor("one_cycle", 30, 100) == pytest.approx(1)
    assert rate_factor("one_cycle", 100, 100) == pytest.approx(0)
    assert rate_factor("linear", 50, 100) == 0.5


def test_blind_jumps_follow_the_published_schedule() -> None:
    """Over 10,000 steps with rows 200 apart they are those published for NiNo, without the one at the very end."""
    period = blind_period(10_000, 200, 5)
    assert period == 1000
    at = blind_schedule(10_000, period, 200, 10**6)
    found = {step: at(step) for step in range(10_001) if at(step) is not None}
    assert found == {1000 * (i + 1): 200 * k for i, k in enumerate((40, 33, 26, 21, 16, 11, 8, 5, 3))}
    assert blind_schedule(10_000, period, 200)(1000) == 200
    assert blind_period(500, 10, 10) == 100  # a history of ten rows does not fit into a tenth of the run
    # WNN's: at the end of every fifth epoch, five epochs ahead, the last epoch left out.
    assert blind_period(30 * 49, 49, 5, "wnn") == 5 * 49
    at = blind_schedule(30 * 49, 5 * 49, 49, 10**6, "wnn")
    assert {step: at(step) for step in range(30 * 49 + 1) if at(step) is not None} == dict.fromkeys(
        range(5 * 49, 30 * 49, 5 * 49), 5 * 49
    )


def test_every_forecaster_that_needs_no_fitting_jumps_blind_and_verified() -> None:
    """Each that comes with the package has both methods, and its own published schedule where it has one."""
    names = {*closed_form_names(), *pretrained_names()} - {"hold"}
    assert {f"{kind}_{name}" for kind in ("blind", "verified") for name in names} <= METHODS.keys()
    for name in names:
        jumps = METHODS[f"blind_{name}"].jumps
        assert jumps is not None
        assert jumps.published == ("wnn" if name.startswith("wnn") else "nino")
        assert jumps.forecaster.removeprefix(PRETRAINED) == name


def step_with(module: nn.Module, callback: Any, step: int) -> None:
    """As if a Trainer had just finished a step."""
    trainer: Any = type("Trainer", (), {"global_step": step})()
    callback.on_train_batch_end(trainer, module, None, None, 0)


def linear(value: float) -> nn.Linear:
    """One weight."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def test_averages_are_those_of_the_formulas() -> None:
    """The exponential and the latest average of a walk equal the sums by hand, and leave the walk alone."""
    module = linear(0.0)
    ema, lawa = ExponentialAverage(0.5), LatestAverage(2, 2)
    expected = 1.0
    for step in range(1, 7):
        nn.init.constant_(module.weight, float(step))
        step_with(module, ema, step)
        step_with(module, lawa, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    values = (ema.value(), lawa.value())
    assert values[0] is not None
    assert values[1] is not None
    assert float(values[0][0]) == pytest.approx(expected)
    assert float(values[1][0]) == pytest.approx((4 + 6) / 2)
    with pytest.raises(ZeroDivisionError), holding(module, values[1]):
        assert module.weight.item() == 5
        raise ZeroDivisionError
    assert module.weight.item() == 6


def test_slow_steps_are_those_of_the_formulas() -> None:
    """Without momentum a slow step is Lookahead's; with it the buffer of SNOO pushes further."""
    for momentum in (0.0, 0.5):
        module, slow, buffer = linear(0.0), 0.0, 0.0
        outer = OuterStep(2, 0.8, momentum)
        outer.on_train_start(None, module)  # type: ignore[arg-type]
        for step in range(1, 9):
            nn.init.constant_(module.weight, float(module.weight.detach()) + step)
            fast = float(module.weight.detach())
            step_with(module, outer, step)
            if step % 2 == 0:
                change = slow - fast
                buffer = momentum * buffer + change
                slow -= 0.8 * (momentum * buffer + change)
                fast = slow
            assert module.weight.item() == pytest.approx(fast)


@pytest.mark.parametrize("control", CONTROLS)
def test_controls_spoil_the_forecast_and_nothing_else(control: str) -> None:
    """Random and momentum jumps are as long as the forecast in every tensor; a shuffled history ends where it did."""
    network = make_network("mlp", load_task("digits"), 0)
    vector, layout = pack(network)
    walk = torch.randn(6, layout.size, generator=torch.Generator().manual_seed(1)).cumsum(0) + vector
    window = Window(walk, torch.arange(6) * 10, layout)
    plain = next(iter(make_forecaster("linear").forecast(window, [20])))
    spoiled = next(iter(Controlled(make_forecaster("linear", history=6), control, 3).forecast(window, [20])))
    again = next(iter(Controlled(make_forecaster("linear", history=6), control, 3).forecast(window, [20])))
    assert torch.equal(spoiled.mean, again.mean)
    assert not torch.allclose(spoiled.mean, plain.mean)
    member = next(iter(make_forecaster("linear", history=6).forecast(window, [20])))
    if control == "shuffled":
        assert not torch.allclose(spoiled.mean, member.mean)
        return
    for spec in layout:
        span = slice(spec.offset, spec.offset + spec.numel)
        lengths = [(item.mean[span] - window.last[span]).norm() for item in (member, spoiled)]
        torch.testing.assert_close(lengths[0], lengths[1])
    if control == "momentum":
        span = slice(0, next(iter(layout)).numel)
        cosine = torch.cosine_similarity(
            spoiled.mean[span] - window.last[span], window.last[span] - window.values[-2][span], dim=0
        )
        assert float(cosine) == pytest.approx(1.0, abs=1e-4)


def ran(name: str, change: Callable[[dict[str, float]], None] | None = None) -> dict[str, Any]:
    """A real run of 60 steps on the digits."""
    method = METHODS[name]
    settings = {"rate": 0.01, **(method.trials(0, 1)[0] if method.choices else {}), **method.fixed}
    if change is not None:
        change(settings)
    return run_entry(Entry(TINY, method, settings, 0), load_task("digits"))


def test_runs_give_curves_in_every_way_of_counting() -> None:
    """A run learns, is measured at its begin and end, and everything but the loss only grows."""
    result = ran("adamw_linear", lambda settings: settings.update(rate=0.01))
    curve = result["curve"]
    assert [len(row) for row in curve] == [len(COLUMNS)] * len(curve)
    assert (curve[0][0], curve[-1][0]) == (0, 60)
    for column in range(4):
        values = [row[column] for row in curve]
        assert values == sorted(values)
    assert curve[-1][5] < 0.5 * curve[0][5]
    assert all(row[4] > 0 for row in curve)
    assert not result["diverged"]
    # Of the first part of a run only the last measurement counts, so that there are fewer.
    part = Entry(PROBLEMS["fm16"], METHODS["adamw_linear"], {"rate": 0.01}, 0, share=0.2)
    assert (part.num_steps, part.eval_every) == (100, 16)
    again = ran("adamw_linear", lambda settings: settings.update(rate=0.01))
    assert [row[5] for row in again["curve"]] == [row[5] for row in curve]
    wild = ran("sgd_one_cycle", lambda settings: settings.update(rate=1e6))
    assert wild["diverged"]


@pytest.mark.parametrize("name", ["ema", "verified_linear", "blind_linear", "control_oracle"])
def test_methods_run(name: str) -> None:
    """Averages, jumps and the oracle run, and those that jump say how their jumps ended."""
    result = ran(name, lambda settings: settings.update(rate=0.01))
    # A jump far along a noisy line hurts, and nothing stops it where it is blind.
    assert result["curve"][-1][5] < result["curve"][0][5] * (10 if name == "blind_linear" else 1)
    assert bool(result["jumps"]["outcomes"]) == (name in ("verified_linear", "blind_linear"))


def test_the_authors_network_is_asked_for_by_name_before_anything_is_tuned(
    tmp_path: Path, pretended: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the checkpoint the grid and a single run name the variable, and not a single baseline is tuned."""
    methods = ("adamw_linear", "adamw_cosine", "verified_nino_released")
    for value, told in ((None, "it is not set"), (str(tmp_path / "lost.pt"), "it names '.*lost.pt', which is no file")):
        if value is None:
            monkeypatch.delenv(VARIABLE, raising=False)
        else:
            monkeypatch.setenv(VARIABLE, value)
        with pytest.raises(OptionError, match=f"in the variable {VARIABLE}, but {told}.*leave these methods out"):
            race_grid.work(options(tmp_path, methods=methods))
        with pytest.raises(OptionError, match=f"in the variable {VARIABLE}, but {told}"):
            ran("blind_nino_released")
    assert not pretended
    assert race_grid.work(options(tmp_path, methods=methods[:2]))[1]


@pytest.mark.golden
def test_the_authors_network_jumps_to_its_own_forecasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blind jumps of a run go where the checkpoint's forecast of the five latest rows says, as far as it knows."""
    checkpoint = Path(golden_folder("nino_no_posw.pt")) / "nino_no_posw.pt"
    monkeypatch.setenv(VARIABLE, str(checkpoint))
    seen: list[tuple[Window, Forecast]] = []
    forecasts = ReleasedNiNo._forecast

    def watched(self: ReleasedNiNo, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for forecast in forecasts(self, window, horizons):
            seen.append((window, forecast))
            yield forecast

    monkeypatch.setattr(ReleasedNiNo, "_forecast", watched)
    problem = replace(TINY, steps=500)
    method = replace(METHODS["blind_nino_released"], base="adamw_linear")
    result = run_entry(Entry(problem, method, {"rate": 0.004}, 0), load_task("digits"))
    assert [forecast.horizon for _, forecast in seen] == [400, 330, 260, 210, 160, 110, 80, 50, 30]
    assert result["jumps"] == {"outcomes": {"kept": 9}, "ahead": 1630}
    monkeypatch.setattr(ReleasedNiNo, "_forecast", forecasts)
    own = load_released_nino(checkpoint, 10, "released")
    for window, forecast in seen:
        assert window.steps.tolist() == [window.last_step - 10 * back for back in range(4, -1, -1)]
        torch.testing.assert_close(forecast.mean, next(iter(own.forecast(window, [forecast.horizon]))).mean)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["verified_nino_released", "best_verified_nino_released"])
def test_the_authors_network_is_verified_like_any_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jumps are proposed and tested, and what they cost is in the ledger."""
    monkeypatch.setenv(VARIABLE, str(Path(golden_folder("nino_no_posw.pt")) / "nino_no_posw.pt"))
    problem = replace(TINY, steps=300)
    result = run_entry(Entry(problem, METHODS[name], {"rate": 0.004}, 0), load_task("digits"))
    assert sum(result["jumps"]["outcomes"].values()) > 0
    assert {"forecasting", "tracing"} <= result["ledger"].keys()


@pytest.mark.slow
def test_a_schedule_that_advances_with_the_jumps_ends_sooner() -> None:
    """The oracle's five jumps of 50 steps take a linear decay to its end well before the run's, where nothing moves."""
    task = load_task("digits")
    ends: dict[str, list[float]] = {}
    for name in ("control_oracle", "control_oracle_advancing"):
        method = Method(name, base="adamw_linear", jumps=METHODS[name].jumps)
        curve = run_entry(Entry(PROBLEMS["digits"], method, {"rate": 0.004}, 0), task)["curve"]
        ends[name] = [row[5] for row in curve[-8:]]
    assert len(set(ends["control_oracle_advancing"])) == 1
    assert len(set(ends["control_oracle"])) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(METHODS))
def test_all_methods_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe trains the digits for 60 steps without an error."""
    if METHODS[name].optimizer == "schedule_free":
        pytest.importorskip("schedulefree")
    if METHODS[name].optimizer in ("adan", "adamp"):
        pytest.importorskip("pytorch_optimizer")
    jumps = METHODS[name].jumps
    if jumps is not None and jumps.forecaster == RELEASED:
        monkeypatch.setenv(VARIABLE, str(Path(golden_folder("nino_no_posw.pt")) / "nino_no_posw.pt"))
    assert math.isfinite(ran(name)["curve"][-1][5])


def test_an_average_is_evaluated_and_training_goes_on_from_the_weights() -> None:
    """With an average the training trajectory is that without it; only what is measured differs, and it is charged."""
    plain = ran("adamw_constant", lambda settings: settings.update(rate=0.01))
    averaged = ran("ema", lambda settings: settings.update(rate=0.01, decay=0.0))
    assert [row[5] for row in averaged["curve"]] == pytest.approx([row[5] for row in plain["curve"]], rel=1e-4)
    smooth = ran("ema", lambda settings: settings.update(rate=0.01, decay=0.9))
    assert [row[5] for row in smooth["curve"][2:]] != [row[5] for row in plain["curve"][2:]]


def test_a_gauge_changes_nothing() -> None:
    """The gauge works on a copy: the network keeps its weights and gets no gradients."""
    task = load_task("digits")
    network = make_network("mlp", task, 0)
    before = [value.clone() for value in trained(network)]
    assert Gauge(network, (task.train.inputs[:8], task.train.labels[:8]))() > 0
    assert all(torch.equal(own, other) for own, other in zip(trained(network), before, strict=True))
    assert all(value.grad is None for value in network.parameters())
    assert len(spread(task.test, 30).labels) == 30
    assert len(spread(task.test, 10_000).labels) == 400
    assert RaceClock.__doc__ is not None

"""The parts of NiNo's comparison that a wrong table would come from."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nino_graphs import plain_graph
from problems import drifting_rows, small_layout

from deadreckon.experiments.runs import RunFacts, open_run, read_run
from deadreckon.forecast import Window
from deadreckon.models import NiNo, load_forecaster, make_forecaster

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("nino_compare", "nino_fit", "nino_runs", "nino_tables")
LAYOUT = small_layout({"a.weight": (4, 3), "a.bias": (4,), "b.weight": (2, 4), "b.bias": (2,)})
FACTS = RunFacts(
    task="digits",
    network="mlp",
    width=0.125,
    optimizer="adam",
    learning_rate=0.003,
    schedule="linear",
    batch_size=32,
    seed=5,
    steps=80,
)


@pytest.fixture(scope="module")
def scripts() -> Any:
    """The scripts as modules; `sys.modules` is left as found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        loaded = SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
        for name in NAMES:
            del sys.modules[name]
    return loaded


@pytest.fixture
def compare(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The comparison, for runs of 80 steps."""
    settings = {"HORIZONS": (10, 20), "MOMENTS": (40, 50), "CURVE_FROM": 10, "CURVE_EVERY": 10, "SAMPLES": 50}
    for name, value in settings.items():
        monkeypatch.setattr(scripts.nino_compare, name, value)
    return scripts.nino_compare


@pytest.fixture
def tables(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tables, for a forecaster of another name."""
    monkeypatch.setattr(scripts.nino_tables, "OURS", "ours")
    return scripts.nino_tables


def test_the_runs_of_the_two_sets_are_different_ones(scripts: Any) -> None:
    """No run has the seed of another, and no task that is compared on for being unseen is trained on."""
    runs = scripts.nino_runs
    held_out, training = (runs.plans(text, runs.STEPS) for text in (runs.HELD_OUT, runs.TRAINING))
    seeds = [facts.seed for facts in (*held_out, *training)]
    assert len(set(seeds)) == len(seeds) == len(held_out) + len(training)
    assert "fashion_mnist" in {facts.task for facts in held_out} - {facts.task for facts in training}


def test_a_non_increasing_sequence_is_the_nearest_one(compare: Any) -> None:
    """What is in order stays, neighbours out of order are averaged, and no small change comes nearer."""
    np.testing.assert_allclose(compare.non_increasing(np.array([3.0, 2.0, 1.0])), [3, 2, 1])
    np.testing.assert_allclose(compare.non_increasing(np.array([1.0, 3.0, 2.0, 0.0, 1.0])), [2, 2, 2, 0.5, 0.5])
    generator = np.random.default_rng(0)
    values = generator.normal(size=12)
    found = compare.non_increasing(values)
    assert (np.diff(found) <= 0).all()
    for _ in range(50):
        other = np.sort(found + 0.1 * generator.normal(size=12))[::-1]
        assert ((found - values) ** 2).sum() <= ((other - values) ** 2).sum()


def test_a_loss_is_credited_with_the_step_at_which_the_run_had_it(compare: Any) -> None:
    """Linear between recorded steps, the middle of a plateau on it, the run's ends beyond what it reached."""
    steps, losses = np.array([0.0, 10.0, 20.0, 30.0]), np.array([4.0, 2.0, 1.0, 1.0])
    assert compare.step_of(3.0, steps, losses) == 5.0
    assert compare.step_of(1.0, steps, losses) == 25.0
    assert compare.step_of(0.5, steps, losses) == 25.0
    assert compare.step_of(9.0, steps, losses) == 0.0
    assert compare.step_of(float("nan"), steps, losses) == 0.0


def test_shuffled_edges_carry_the_scalars_of_their_own_block(compare: Any) -> None:
    """A permutation that follows the seed, moves most scalars, and none out of its tensor."""
    graph = plain_graph(LAYOUT)
    order = compare.shuffled(graph, LAYOUT, 0)
    assert sorted(order.tolist()) == list(range(LAYOUT.size))
    assert all(spec.span.start <= int(at) < spec.span.stop for spec in LAYOUT for at in order[spec.span])
    assert float((order != torch.arange(LAYOUT.size)).float().mean()) > 0.5
    assert torch.equal(order, compare.shuffled(graph, LAYOUT, 0))
    assert not torch.equal(order, compare.shuffled(graph, LAYOUT, 1))


def test_shuffled_edges_do_not_matter_to_who_does_not_look_at_them(compare: Any) -> None:
    """Forecasts of shuffled scalars are put back to their places: those of a line are the same as without."""
    rows = drifting_rows(2, LAYOUT.size, torch.Generator().manual_seed(0))
    window = Window(rows, 10 * torch.arange(2), LAYOUT, graph=plain_graph(LAYOUT))
    plain = compare.Contestant("linear", make_forecaster("linear"), 10)
    for one, other in zip(
        compare.means(plain, window, [10, 20]),
        compare.means(plain._replace(shuffled=True), window, [10, 20]),
        strict=True,
    ):
        assert one[0] == other[0]
        torch.testing.assert_close(one[1], other[1])


def test_an_interval_says_what_it_says(tables: Any) -> None:
    """Better below 1, non-inferior below 1.05, worse above; nothing where runs are too few."""
    cases = {(0.8, 0.99): "better", (0.9, 1.05): "non-inferior", (0.9, 1.06): "open", (1.01, 1.2): "worse"}
    for ends, expected in cases.items():
        assert tables.verdict(*ends) == expected
    assert tables.verdict(1.06, 1.2) == "worse by more than 5 %"
    assert tables.verdict(None, None) == "too few runs"


def some_measurement(network: str, share: float) -> dict[str, Any]:
    """Where ours makes `share` of the error of standing still, and the other forecaster twice that."""
    numbers = {"ours": share, "theirs": 2 * share}

    def table(value: Any) -> dict[str, dict[str, list[float]]]:
        return {name: {"10": [value(one), value(one)]} for name, one in numbers.items()}

    return {
        "task": "fashion_mnist",
        "network": network,
        "persistence": {"10": [1.0, 3.0]},
        "errors": {name: {"10": [one, 3 * one]} for name, one in numbers.items()},
        "losses": table(lambda one: 0.5 + one),
        "credits": table(lambda one: 10 / one),
        "still": [1.0, 1.0],
        "later": {"10": [0.9, 0.9]},
        "steps": {"ours": 4.0, "theirs": 1.0},
    }


def test_tables_tell_what_was_measured(tables: Any) -> None:
    """Skill, ratio, credit, net of the cost and ratio of losses of a made-up measurement, by groups of networks."""
    measured = [some_measurement("conv", 0.25)] * 6
    first, second = tables.skill_table(measured, ["theirs", "ours", "absent"], 10)
    assert first.split() == ["ours", "0.750", "[0.750,", "0.750]"]
    assert second.split() == ["theirs", "0.500", "[0.500,", "0.500]", "0.500", "[0.500,", "0.500]", "better"]
    ours, theirs, run = tables.jump_table(measured, ["theirs", "ours"], 10)
    assert ours.split() == ["ours", "40", "[40,", "40]", "36", "[36,", "36]", "0.750", "[0.750,", "0.750]"]
    assert theirs.split()[1:] == "20 [20, 20] 19 [19, 19] 1.000 [1.000, 1.000] 20 [20, 20]".split()
    assert "0.900 [0.900, 0.900]" in run
    groups = tables.groups_of([*measured[:1], some_measurement("mlp", 0.5), some_measurement("conv_norm", 0.5)])
    assert groups == {"fashion_mnist conv nets": [0, 2], "fashion_mnist mlp": [1]}
    assert "## 10 steps ahead, all runs, 6 runs" in tables.report(measured, ["ours", "theirs"], [10])


def test_a_run_is_recorded_and_measured(scripts: Any, compare: Any, tmp_path: Path) -> None:
    """Rows are those of the run; standing still gains nothing, a line is measured once, and a file keeps it all."""
    run = read_run(_recorded(scripts, tmp_path))
    with open_run(run) as trajectory:
        assert trajectory.stream("weights").steps.tolist() == [0, *range(10, 81, 10)]
        assert trajectory.scalars["learning_rate"].values[-1] == pytest.approx(0.003 / 80, rel=1e-6)
    field = [compare.Contestant(name, make_forecaster(name), 10) for name in ("hold", "linear")]
    found = compare.measure(run, field[:1], None)
    assert found["errors"]["hold"] == found["persistence"]
    assert found["credits"]["hold"] == {"10": [0.0, 0.0], "20": [0.0, 0.0]}
    assert found["losses"]["hold"]["10"] == found["still"]
    kept = json.loads(json.dumps(found))
    more = compare.measure(run, field, None, kept)
    assert more["errors"]["hold"] == found["errors"]["hold"]
    assert len(more["errors"]["linear"]["20"]) == 2
    assert more["later"]["10"][0] == found["curve"][1][4]


def _recorded(scripts: Any, folder: Path) -> Path:
    scripts.nino_runs.record(FACTS, folder / "run", None)
    return folder / "run"


@pytest.mark.slow
def test_weights_are_fitted_in_pieces(scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn, trained twice and finished, they make a forecaster for what they were fitted to, better at each piece on
    the runs kept apart, and no run kept apart is trained on."""
    fit = scripts.nino_fit
    for name, value in {"HORIZONS": (10, 20), "EVERY": 10, "KEPT_APART": {6}, "LOOK_EVERY": 2}.items():
        monkeypatch.setattr(fit, name, value)
    for seed in (5, 6):
        scripts.nino_runs.record(replace(FACTS, seed=seed), tmp_path / "runs" / str(seed), None)
    options = ["--work", str(tmp_path / "work"), "--history", "4", "--width", "4"]
    for part, wanted in (("training", 5), ("validation", 6)):
        (found,) = fit.found_cases(tmp_path / "runs", 4, None, [part], 10)
        with open_run(read_run(tmp_path / "runs" / str(wanted))) as trajectory:
            last = torch.from_numpy(np.array(trajectory.stream("weights")[-1]))
        assert torch.equal(found[-1].targets[20], last)
    assert fit.main(["draw", str(tmp_path / "runs"), *options]) == 0
    forecaster, errors = NiNo(width=4, history=4), []
    for rate in (None, "0.01", "0.003"):
        if rate is not None:
            assert fit.main(["train", *options, "--rate", rate, "--iterations", "20"]) == 0
        network, items = fit.network_in(tmp_path / "work", 4, 4), fit.items_in(tmp_path / "work", "validation")
        errors.append(float(fit.log_ratios(forecaster, network, items).mean()))
    assert errors[0] > errors[1] >= errors[2]
    out = tmp_path / "nino.safetensors"
    assert fit.main(["finish", str(tmp_path / "runs"), *options, "--out", str(out)]) == 0
    saved = load_forecaster(out)
    assert isinstance(saved, NiNo)
    assert (saved.history, saved.width) == (4, 4)
    state = saved.state_dict()
    assert state["horizons"].tolist() == [10, 20]
    assert not torch.equal(state["calibration"], torch.ones(2, dtype=torch.float64))
    with pytest.raises(SystemExit):
        fit.main(["draw", *options])

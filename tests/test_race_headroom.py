"""The parts of the bound on free jumps that a wrong table would come from."""

import importlib
import math
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from deadreckon.experiments.race.problems import find_problem
from deadreckon.experiments.tasks import load_task

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("headroom_runs", "race_headroom")
SETTINGS = {"rate": 0.02, "adam_rate": 0.01, "decay": 0.9}
SEED = 3


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
def trials(scripts: Any) -> Any:
    """Runs of 45 steps on the digits with two opportunities, with an optimiser inside the optimiser and an average."""
    problem = replace(find_problem("digits"), steps=45)
    given = Namespace(verify=100, measurements=3, hindsight=True, seeds=1, every=0.5)
    return scripts.race_headroom.Trials(load_task("digits"), problem, "muon_ema", SETTINGS, given)


def straight(trials: Any, taken: tuple[bool, ...]) -> float:
    """The end of a run that takes some jumps, without ever going back."""
    run, every = trials.start(SEED, "line")
    for number, take in enumerate(taken, start=1):
        run.advance(number * every)
        vector = run.look("line").vector
        if take:
            run.jump_to(vector)
    run.advance(run.steps)
    return run.loss()


def test_every_end_is_that_of_a_run_that_never_went_back(trials: Any) -> None:
    """Branching gives, bit for bit, what each sequence of jumps gives by itself."""
    ends = trials.tree(SEED, "line").ends
    assert ends == {taken: straight(trials, taken) for taken in ends}
    assert len(set(ends.values())) == len(ends) == 4


def test_the_end_without_jumps_is_that_of_the_plain_run(trials: Any) -> None:
    """What jumps are compared with is the baseline itself."""
    assert trials.tree(SEED, "random").ends[False, False] == trials.curve(SEED, None)[0][-1][5]


def test_a_jump_is_taken_only_where_it_is_better(trials: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A greedy run counts its jumps, and one whose candidates are all worse than staying is the plain run."""
    plain, _ = trials.curve(SEED, None)
    start = trials.start

    def far(seed: int, family: str | None) -> Any:
        run, every = start(seed, family)
        monkeypatch.setattr(run._families, "_line", lambda: iter([run._families.rows[-1] + 100.0]))
        return run, every

    curve, jumps = trials.curve(SEED, "line")
    assert jumps > 0
    assert curve != plain
    monkeypatch.setattr(trials, "start", far)
    assert trials.curve(SEED, "line") == (plain, 0)


def test_comparing_candidates_leaves_batch_normalisation_alone(scripts: Any) -> None:
    """Running statistics are those of training, however many candidates the verification set has seen."""
    problem = replace(find_problem("fm_batch_norm"), task="digits", steps=20, batch_size=16)
    run = scripts.headroom_runs.Run(load_task("digits"), problem, "adamw_linear", {"rate": 0.01}, SEED, 1, 50, 50)
    run.advance(12)
    before = {name: value.clone() for name, value in run.network.named_buffers()}
    assert any(name.endswith("running_mean") for name in before)
    vector = run.look("line").vector
    torch.testing.assert_close(dict(run.network.named_buffers()), before, rtol=0, atol=0)
    run.jump_to(vector)
    moved = dict(run.network.named_buffers())
    assert all(not torch.equal(moved[name], before[name]) for name in before if name.endswith("running_mean"))


def test_a_learned_rule_takes_the_jumps_that_pay_in_other_runs(scripts: Any) -> None:
    """From trees whose gain is a function of one feature the rule finds its sign, in a tree that it has not seen."""
    tree_of = scripts.race_headroom.Tree
    generator = np.random.default_rng(0)

    def grown() -> Any:
        prefixes: list[tuple[bool, ...]] = [(), (False,), (True,)]
        features = {taken: list(generator.normal(size=len(scripts.headroom_runs.FEATURES))) for taken in prefixes}
        ends = {
            (first, second): math.exp(0.01 * ((features[()][0] - 0.5) * first + (features[(first,)][0] - 0.5) * second))
            for first in (False, True)
            for second in (False, True)
        }
        return tree_of(ends, features)

    *others, unseen = [grown() for _ in range(40)]
    rule = scripts.race_headroom.learned(others)
    assert [rule(values) for values in ([-2.0, 0, 0, 0, 0, 0], [3.0, 0, 0, 0, 0, 0])] == [True, False]
    assert unseen.ends[unseen.walk(rule)] == pytest.approx(min(unseen.ends.values()), rel=0.005)
    assert len(unseen.gains()[1]) == 3


def test_what_is_known_of_a_candidate_is_that_of_the_candidate(trials: Any) -> None:
    """A jump along the latest way has its direction, its length, and the run's place; and the held-out losses agree."""
    run, every = trials.start(SEED, "line")
    run.advance(every)
    run._families._line = lambda: iter(
        [run._families.rows[-1] + 2.0 * (run._families.rows[-1] - run._families.rows[-3])]
    )
    vector, better, (change, errors, share, length, along, _) = run.look("line")
    assert share == pytest.approx(every / run.steps)
    assert length == pytest.approx(math.log(2.0), abs=1e-2)
    assert along == pytest.approx(1.0, abs=1e-4)
    assert better == (change < 0) == (errors < 0)
    with torch.no_grad():
        here = run._families.rows[-1]
        assert change == pytest.approx((run._loss_of(vector) / run._loss_of(here)).log().item(), abs=1e-5)

"""The parts of the bound on free jumps that a wrong table would come from."""

import importlib
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
        vector, _ = run.best("line")
        if take:
            run.jump_to(vector)
    run.advance(run.steps)
    return run.loss()


def test_every_end_is_that_of_a_run_that_never_went_back(trials: Any) -> None:
    """Branching gives, bit for bit, what each sequence of jumps gives by itself."""
    ends = trials.ends(SEED, "line")
    assert ends == {taken: straight(trials, taken) for taken in ends}
    assert len(set(ends.values())) == len(ends) == 4


def test_the_end_without_jumps_is_that_of_the_plain_run(trials: Any) -> None:
    """What jumps are compared with is the baseline itself."""
    assert trials.ends(SEED, "random")[False, False] == trials.curve(SEED, None)[0][-1][5]


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
    vector, _ = run.best("line")
    torch.testing.assert_close(dict(run.network.named_buffers()), before, rtol=0, atol=0)
    run.jump_to(vector)
    moved = dict(run.network.named_buffers())
    assert all(not torch.equal(moved[name], before[name]) for name in before if name.endswith("running_mean"))

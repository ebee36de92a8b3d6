"""The race's fine-tuning: what is trained, what is not, and where it begins."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import data_folder
from torch import nn
from torch.nn import functional

from deadreckon.experiments.race import run as race_run
from deadreckon.experiments.race.fine_tuning import base_network, race_network
from deadreckon.experiments.race.matrix_optimizers import MuonAndAdamW
from deadreckon.experiments.race.methods import METHODS
from deadreckon.experiments.race.problems import PROBLEMS, FineTuning
from deadreckon.experiments.race.run import Entry, run_entry
from deadreckon.experiments.tasks import TaskData, load_task
from deadreckon.experiments.tasks.shakespeare import load_shakespeare, load_shakespeare_bytes
from deadreckon.forecast import layout_of
from deadreckon.forecast.graph import trace_graph
from deadreckon.models.coordinates import ReducedModule

pytestmark = pytest.mark.data
SHORT = FineTuning(rank=4, base_steps=40, base_rate=0.004)
PROBLEM = replace(PROBLEMS["lora"], width=1.0, steps=60, test_samples=100, fine_tuning=SHORT)


@pytest.fixture(autouse=True)
def text() -> Iterator[None]:
    """The base's text is there, and no base of another test is left."""
    data_folder("tinyshakespeare.txt")
    yield
    base_network.cache_clear()


@pytest.fixture(scope="module")
def task() -> TaskData:
    """What the race fine-tunes to."""
    return load_task("stdlib")


def factors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def settings_of(name: str, rate: float) -> dict[str, float]:
    """The first settings that are tried, at some rate."""
    method = METHODS[name]
    return {**(method.trials(0, 1)[0] if method.choices else {}), **method.fixed, "rate": rate}


def test_only_factors_are_trainable(task: TaskData) -> None:
    """Layouts, jumps and optimisers see two factors of rank 4 for each matrix of the base, and nothing else."""
    reduced = race_network(PROBLEM, task, 0)
    assert isinstance(reduced, ReducedModule)
    base = base_network("transformer", 1.0, SHORT)
    expected: list[tuple[int, ...]] = []
    for value in base.parameters():
        if value.ndim >= 2:
            expected += [(value.shape[0], 4), (4, value.shape[1])]
    assert [spec.shape for spec in layout_of(reduced)] == expected
    left = {name: value for name, value in reduced.named_parameters() if not value.requires_grad}
    assert sum(value.numel() for value in left.values()) == sum(v.numel() for v in base.parameters() if v.ndim < 2)
    large = PROBLEMS["lora"].fine_tuning
    assert large is not None
    assert large.rank == 4


def test_training_begins_at_the_base_for_every_seed(task: TaskData) -> None:
    """Before the first step the loss is that of the base to the last bit, though random factors differ by seed."""
    inputs, labels = task.verify.inputs[:64], task.verify.labels[:64]
    base = base_network("transformer", 1.0, SHORT)
    told = functional.cross_entropy(base(inputs), labels)
    ones = [race_network(PROBLEM, task, seed) for seed in (0, 1)]
    for reduced in ones:
        assert functional.cross_entropy(reduced(inputs), labels).item() == told.item()
    first, second = (factors_of(reduced) for reduced in ones)
    assert first.keys() == second.keys()
    assert not torch.equal(next(iter(first.values())), next(iter(second.values())))


def test_the_base_is_the_same_every_time_and_has_learned(task: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made once, comes out alike when made again whatever the global generator did, and knows its text."""
    first = base_network("transformer", 1.0, SHORT)
    assert base_network("transformer", 1.0, SHORT) is first
    kept = {name: value.clone() for name, value in first.state_dict().items()}
    base_network.cache_clear()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = base_network("transformer", 1.0, SHORT)
    assert torch.equal(torch.get_rng_state(), state)
    assert again is not first
    for name, value in again.state_dict().items():
        assert torch.equal(value, kept[name])
    text = load_shakespeare_bytes().verify
    with torch.no_grad():
        own = functional.cross_entropy(again(text.inputs[:256]), text.labels[:256])
        other = functional.cross_entropy(again(task.verify.inputs[:256]), task.verify.labels[:256])
    assert own < other
    assert own < 4.0  # of log 256 = 5.5


@pytest.mark.parametrize("name", ["adamw_linear", "muon", "schedule_free", "verified_adaptive_linear", "verified_lawa"])
def test_training_moves_factors_and_leaves_the_base(name: str, task: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run learns; biases, norms and the base's own matrices are as they were, and so is the cached base."""
    if name == "schedule_free":
        pytest.importorskip("schedulefree")
    made: list[nn.Module] = []

    def watched(*arguments: Any) -> nn.Module:
        made.append(race_network(*arguments))
        return made[-1]

    monkeypatch.setattr(race_run, "race_network", watched)
    before = {key: value.clone() for key, value in base_network("transformer", 1.0, SHORT).state_dict().items()}
    result = run_entry(Entry(PROBLEM, METHODS[name], settings_of(name, 0.008), 3), task)
    assert result["curve"][-1][5] < 0.96 * result["curve"][0][5]
    (reduced,) = made
    assert isinstance(reduced, ReducedModule)
    for key, value in base_network("transformer", 1.0, SHORT).state_dict().items():
        assert torch.equal(value, before[key])
    frozen = {key: value for key, value in reduced.module.state_dict().items() if value is not None}
    assert frozen
    for key, value in frozen.items():
        assert torch.equal(value, before[key])
    started = reduced.coordinates.split(reduced.coordinates.initial(3))
    assert all(not torch.equal(own, old) for own, old in zip(factors_of(reduced).values(), started, strict=True))
    reduced.set_vector(reduced.coordinates.initial(3))
    for key, value in reduced.plain_module().state_dict().items():
        assert torch.equal(value, before[key])


def test_rates_are_in_units_of_the_problem(task: TaskData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both rates of Muon are multiplied, what is written down is what was tuned, and other problems have no unit."""
    seen: list[dict[str, float]] = []
    make = race_run.make_race_optimizer

    def watched(name: str, network: nn.Module, settings: dict[str, float], num_steps: int) -> torch.optim.Optimizer:
        seen.append(dict(settings))
        return make(name, network, settings, num_steps)

    monkeypatch.setattr(race_run, "make_race_optimizer", watched)
    chosen = {"rate": 0.004, "adam_rate": 0.002}
    result = run_entry(Entry(PROBLEM, METHODS["muon"], chosen, 0), task)
    assert seen == [{"rate": 0.032, "adam_rate": 0.016}]
    assert result["settings"] == chosen
    assert {problem.rate_unit for name, problem in PROBLEMS.items() if name != "lora"} == {1.0}


def test_muon_takes_the_factors_as_matrices(task: TaskData) -> None:
    """All but the last factor are Muon's; steps are near semi-orthogonal, and none where the gradient is zero."""
    reduced = race_network(PROBLEM, task, 0)
    optimizer = MuonAndAdamW(reduced, 0.1, 0.01)
    matrices, rest = (group["params"] for group in optimizer.param_groups)
    assert [value.shape for value in rest] == [(4, 32)]
    assert len(matrices) + 1 == len(factors_of(reduced))
    before = [value.detach().clone() for value in matrices]
    functional.cross_entropy(reduced(task.train.inputs[:32]), task.train.labels[:32]).backward()
    optimizer.step()
    for value, old in zip(matrices, before, strict=True):
        if value.shape[0] == 4:  # the right factor; the left one's gradient is zero while the right one is
            singular = torch.linalg.svdvals((value.detach() - old) / (0.1 * 0.2 * max(value.shape) ** 0.5))
            assert singular.max() < 1.3
            assert singular.max() > 0.6
        else:
            assert torch.equal(value, old)


def test_factors_have_a_graph_without_edges(task: TaskData) -> None:
    """NiNo forecasts each number of a factor by itself: no edge of the network is a factor, and that is no error."""
    reduced = race_network(PROBLEM, task, 0)
    graph = trace_graph(reduced, (task.train.inputs[:2],))
    assert (graph.num_edges, graph.layout_digest) == (0, layout_of(reduced).digest)
    longer = replace(PROBLEM, steps=150)
    result = run_entry(Entry(longer, METHODS["blind_nino"], {"rate": 0.004}, 0), task)
    assert result["jumps"]["outcomes"] == {"kept": 1}


def test_bytes_and_characters_are_the_same_text() -> None:
    """The bytes of Shakespeare numbered in their order are the characters of the task."""
    plain, own = load_shakespeare(), load_shakespeare_bytes()
    assert (own.num_symbols, own.num_classes) == (256, 256)
    alphabet = own.train.labels.unique()
    assert len(alphabet) == plain.num_symbols
    for name in ("train", "verify", "tune", "test"):
        split, other = getattr(own, name), getattr(plain, name)
        assert torch.equal(torch.searchsorted(alphabet, split.labels.contiguous()), other.labels)
        numbers = torch.searchsorted(alphabet, split.inputs[:1000].contiguous())
        assert torch.equal(numbers, other.inputs[:1000])

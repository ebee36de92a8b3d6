"""Forecasters that need a neural graph, in the codec, in callbacks and in the commands."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import cases_of, drifting_rows, window_of
from recorded_runs import write_run
from small_runs import Digits, fit, held_out, probe
from torch import Tensor
from typing_extensions import override

from deadreckon.callbacks import (
    CallbackOptionError,
    OnlineForecaster,
    SkipAhead,
    TrajectoryRecorder,
    UnsupportedTrainerError,
)
from deadreckon.codec import Codec, CodecConfig, ConfigError
from deadreckon.experiments import compare, run_graphs
from deadreckon.experiments.classifier import Classifier
from deadreckon.experiments.errors import OptionError
from deadreckon.experiments.fit import command as fit_command
from deadreckon.experiments.fit.data import RunsData
from deadreckon.experiments.fit.options import FitOptions, ScoreOptions
from deadreckon.experiments.fit.split import Split
from deadreckon.experiments.options import CompareOptions
from deadreckon.experiments.results import read_result
from deadreckon.experiments.run_cases import CaseRequest, read_cases
from deadreckon.experiments.runs import find_runs
from deadreckon.experiments.score import command as score_command
from deadreckon.experiments.tasks import load_task, make_network
from deadreckon.forecast import Case, Forecast, Forecaster, Layout, Trajectory, Window, WindowError, layout_of
from deadreckon.forecast.graph import NeuralGraph, trace_graph
from deadreckon.forecast.jump import JumpPolicy, Outcome
from deadreckon.models import (
    Budget,
    Damped,
    FittingError,
    Hold,
    InvertedOptimizer,
    Linear,
    ModelError,
    ModelFileError,
    NiNo,
    PerKind,
    WithGraph,
    fit_forecaster,
    load_forecaster,
    make_forecaster,
    save_forecaster,
)
from deadreckon.models.inverted_optimizer import SGD

WIDTH = 1 / 16  # of the task networks here
SMALL: dict[str, Any] = {"width": 4, "samples": 32, "nodes": 4}
HORIZONS = (10, 40)


@cache
def network() -> tuple[Layout, NeuralGraph]:
    """A small network's layout and graph."""
    module = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    return layout_of(module), trace_graph(module, torch.zeros(2, 5))


def some_cases(stream: str = "weights", bare: bool = True) -> list[Case]:
    layout, graph = network()
    rows = drifting_rows(30, layout.size, torch.Generator().manual_seed(0))
    found = cases_of(rows, range(0, 300, 10), NiNo.history, HORIZONS, layout, stream)
    return [Case(replace(case.window, graph=None if bare else graph), case.targets) for case in found]


@cache
def fitted(stream: str = "weights") -> NiNo:
    forecaster = NiNo(**SMALL, stream=stream)
    fit_forecaster(forecaster, some_cases(stream, bare=False), Budget(iterations=4), torch.Generator().manual_seed(0))
    return forecaster


def bound(stream: str = "weights") -> WithGraph:
    return WithGraph(fitted(stream), network()[1])


def pairs(forecaster: Forecaster, window: Window) -> list[Tensor]:
    return [part for item in forecaster.forecast(window, [3, 40]) for part in (item.mean, item.scale)]


# --- bound to a graph


def test_bound_forecasts_are_the_members(tmp_path: Path) -> None:
    """Without a graph in the window the forecast is the member's with it, also saved and loaded, bit for bit."""
    window = some_cases()[7].window
    expected = pairs(fitted(), replace(window, graph=network()[1]))
    save_forecaster(bound(), tmp_path / "bound.safetensors")
    for forecaster in (bound(), load_forecaster(tmp_path / "bound.safetensors"), Damped(bound(), factor=1.0)):
        torch.testing.assert_close(pairs(forecaster, window), expected, rtol=0, atol=0)
    moving = replace(window, values=window.values + window.values[:1])
    assert not torch.equal(pairs(bound(), moving)[0], expected[0])


def test_fitting_a_bound_forecaster_fits_the_member() -> None:
    """Fitted to windows without a graph it is what the member is, fitted to windows with it."""
    forecaster = WithGraph(NiNo(**SMALL), network()[1])
    assert not forecaster.fitted
    report = fit_forecaster(forecaster, some_cases(), Budget(iterations=4), torch.Generator().manual_seed(0))
    torch.testing.assert_close(forecaster.members[0].state_dict(), fitted().state_dict(), rtol=0, atol=0)  # type: ignore
    assert report.validation_error < 2
    other = WithGraph(NiNo(**SMALL), trace_graph(torch.nn.Linear(3, 2), torch.zeros(2, 3)))
    with pytest.raises(FittingError, match="Case 0 is of another network than the graph of 'with_graph'"):
        fit_forecaster(other, some_cases(), Budget(iterations=4), torch.Generator())


def test_what_cannot_be_bound_is_refused(tmp_path: Path) -> None:
    """Members that need no graph, what is no graph, missing options and windows of another network are named."""
    with pytest.raises(ModelError, match="`member` must be a forecaster that needs a neural graph.*Linear"):
        WithGraph(Linear(), network()[1])
    with pytest.raises(ModelError, match="is no stored neural graph: Not a stored"):
        make_forecaster("with_graph", member="nino", graph={"format": 1})
    with pytest.raises(ModelError, match="`graph` must be a NeuralGraph, as from `trace_graph`, got str"):
        make_forecaster("with_graph", member="nino", graph="graph.json")
    with pytest.raises(ModelError, match="'with_graph' needs `graph`. It takes: member, graph, stream"):
        make_forecaster("with_graph", member="nino")
    with pytest.raises(WindowError, match="`graph` does not fit: .* belongs to another layout"):
        next(iter(bound().forecast(window_of(torch.rand(5, 30), range(0, 50, 10)), [10])))
    save_forecaster(bound(), tmp_path / "f.safetensors")
    content = (tmp_path / "f.safetensors").read_bytes()
    digest = network()[1].digest.encode()
    (tmp_path / "f.safetensors").write_bytes(content.replace(digest, b"0" * 64))
    with pytest.raises(ModelFileError, match="The stored graph is damaged"):
        load_forecaster(tmp_path / "f.safetensors")


def test_parts_of_a_network_have_no_graph() -> None:
    """A wrapper that cuts windows to kinds of tensors drops the graph, and refuses members that need it."""
    layout, graph = network()
    window = window_of(drifting_rows(8, layout.size, torch.Generator()), layout=layout)
    forecaster = PerKind({"bias": Hold()})
    torch.testing.assert_close(pairs(forecaster, replace(window, graph=graph)), pairs(forecaster, window))
    for member in (NiNo(), bound(), Damped(bound())):
        with pytest.raises(ModelError, match=f"'{member.name}' needs the graph of all tensors"):
            PerKind({"bias": Hold()}, member)


def test_an_inverted_optimizer_hands_the_graph_on() -> None:
    """Gradients forecast through weights are those of the member that is bound to the graph."""
    layout, graph = network()
    rows = drifting_rows(5, layout.size, torch.Generator().manual_seed(1))
    window = window_of(rows, range(0, 50, 10), layout, "gradients")
    free, tied = (InvertedOptimizer(item, SGD(0.1)) for item in (fitted(), bound()))
    assert free.needs_graph
    assert not tied.needs_graph
    with_graph, without = (
        [next(iter(item.forecast(given, [10]))).mean for item, given in pair]
        for pair in ([(free, replace(window, graph=graph))], [(tied, window)])
    )
    torch.testing.assert_close(with_graph, without, rtol=0, atol=0)
    with pytest.raises(ConfigError, match="bound to the neural graph of another network"):
        Codec(layout_of(torch.nn.Linear(2, 2)), CodecConfig(tied))


# --- codec


@pytest.mark.parametrize("stream", ["weights", "pseudo_gradients"])
def test_the_codec_predicts_by_a_bound_forecaster(stream: str) -> None:
    """Once there are rows enough the forecaster predicts, before that the last row; both ends stay equal."""
    layout, _ = network()
    codec = Codec(layout, CodecConfig(bound(stream), nmse=1e-6), stream=stream)
    plain = Codec(layout, CodecConfig("previous", nmse=1e-6), stream=stream)
    encoder, decoder, other = codec.encoder(), codec.decoder(), plain.encoder()
    rows = drifting_rows(9, layout.size, torch.Generator().manual_seed(2))
    ratios = []
    for number, row in enumerate(rows):
        received = decoder.decode(encoder.encode(row, 10 * number))
        other.encode(row, 10 * number)
        assert torch.equal(received, encoder.reconstruction)
        ratios.append((encoder.last_report.residual_ratio, other.last_report.residual_ratio))
    assert [mine == theirs for mine, theirs in ratios] == [True] * 5 + [False] * 4


def test_the_codec_asks_for_a_bound_forecaster() -> None:
    """A forecaster without its graph, and one bound to another network's, are refused with what to do instead."""
    layout, graph = network()
    with pytest.raises(ConfigError, match=r"needs the network's neural graph.*`WithGraph\(forecaster, graph\)`"):
        Codec(layout, CodecConfig(fitted()), stream="weights")
    with pytest.raises(ConfigError, match="'damped' is bound to the neural graph of another network"):
        Codec(layout_of(torch.nn.Linear(2, 2)), CodecConfig(Damped(bound())), stream="weights")
    pinned = replace(graph, axes=tuple(replace(axis, pinned=True) for axis in graph.axes))
    configs = [CodecConfig(WithGraph(fitted(), item)) for item in (graph, pinned)]
    assert configs[0].digest != configs[1].digest
    assert configs[0].digest == CodecConfig(bound()).digest


# --- callbacks


class AwayByGraph(Forecaster):
    """Forecasts weights far off, and keeps the graphs it was given."""

    name = "away_by_graph"
    needs_graph = True

    def __init__(self) -> None:
        super().__init__()
        self.graphs: list[NeuralGraph | None] = []

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        self.graphs.append(window.graph)
        for horizon in horizons:
            yield Forecast(horizon, window.last + 5.0, torch.zeros_like(window.last))


def test_jumps_are_given_the_traced_graph(tmp_path: Path) -> None:
    """SkipAhead traces the module once, at its first batch, without changing the run; a given graph is used instead."""
    example = load_task("digits").train.inputs[:2]
    expected = trace_graph(Digits(), example)
    plain = fit([TrajectoryRecorder(tmp_path / "plain", 2)], num_steps=12)
    for number, given in enumerate((None, expected)):
        forecaster = AwayByGraph()
        recorder = TrajectoryRecorder(tmp_path / str(number), 2)
        skip_ahead = SkipAhead(forecaster, 2, (2,), probe, held_out(), cool_down=0, graph=given, cost_share=None)
        module = fit([recorder, skip_ahead], num_steps=12)
        assert forecaster.graphs
        assert all(graph is not None and graph.digest == expected.digest for graph in forecaster.graphs)
        assert Outcome.NOT_BETTER in [jump.outcome for jump in skip_ahead.jumps]
        costs = skip_ahead.ledger.activities
        assert costs["tracing"].count == 1 if given is None else "tracing" not in costs
        torch.testing.assert_close(module.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_nino_is_trained_and_jumps_during_the_run(tmp_path: Path) -> None:
    """OnlineForecaster traces once and fits and scores `nino`; SkipAhead takes graph and forecasts from there."""
    policy = JumpPolicy(num_standard_errors=0.0, max_relative_scale=1e9)
    online = OnlineForecaster([NiNo(**SMALL)], (1, 2), every=15, share=None, iterations=20, window_rows=40)
    skip_ahead = SkipAhead("online", 3, (1, 2), probe, held_out(), policy=policy, cost_share=None)
    fit([TrajectoryRecorder(tmp_path / "t", 1), online, skip_ahead], Digits(dropout=0.0), num_steps=45)
    assert {item.step for item in online.scores} >= {30, 45}
    assert online.ledger.activities["tracing"].count == 1
    assert online.graph is not None
    outcomes = {jump.outcome for jump in skip_ahead.jumps}
    assert outcomes & {Outcome.KEPT, Outcome.NOT_BETTER, Outcome.UNTRUSTED, Outcome.NO_FORECASTER}


def test_graphs_that_do_not_fit_the_run_are_refused(tmp_path: Path) -> None:
    """A graph of another network, one that cannot be traced, and one given to the wrong callback are named."""
    away, graph = AwayByGraph(), network()[1]

    def jumps(forecaster: Forecaster, **options: Any) -> SkipAhead:
        return SkipAhead(forecaster, 2, (2,), probe, held_out(), **options)

    recorder = TrajectoryRecorder(tmp_path / "t", 2)
    with pytest.raises(UnsupportedTrainerError, match="SkipAhead was given the neural graph of another network"):
        fit([recorder, jumps(away, graph=graph)], num_steps=4)
    with pytest.raises(UnsupportedTrainerError, match="SkipAhead was given the neural graph of another network"):
        fit([recorder, jumps(bound())], num_steps=4)
    with pytest.raises(UnsupportedTrainerError, match="OnlineForecaster was given the neural graph of another"):
        fit([recorder, OnlineForecaster(["nino"], (2,), graph=graph)], num_steps=4)

    class Bare(Digits):
        """Without a `forward` that takes inputs."""

        @override
        def forward(self, images: Tensor, scale: float) -> Tensor:  # type: ignore[override]
            return scale * self.network(images)

        @override
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            return self(batch[0], 1.0).square().mean()

    with pytest.raises(UnsupportedTrainerError, match=r"the first batch did not give it.*pass `SkipAhead\(graph="):
        fit([TrajectoryRecorder(tmp_path / "u", 2), jumps(away)], Bare(), num_steps=4)
    with pytest.raises(CallbackOptionError, match="give `graph` to the OnlineForecaster instead"):
        SkipAhead("online", 2, (2,), probe, held_out(), graph=graph)


# --- commands


def task_run(folder: Path, seed: int = 0, task: str = "digits", **changes: Any) -> Path:
    """A made-up run of a real network's layout."""
    layout = layout_of(Classifier(make_network("mlp", load_task(task), 0, WIDTH)))
    shapes = {spec.name: spec.shape for spec in layout}
    return write_run(folder, seed, task, shapes=shapes, facts={"width": WIDTH} | changes)


def request(history: int = 5) -> CaseRequest:
    return CaseRequest("weights", history, HORIZONS, 10, 4, False, True)


def test_recorded_runs_are_traced_once_a_network(tmp_path: Path) -> None:
    """Cases of runs of one network carry one graph, that of the network as the recorder saw it."""
    run_graphs.task_graph.cache_clear()
    runs = find_runs([task_run(tmp_path / "a"), task_run(tmp_path / "b", 1)])
    found = [case.window for run in runs for case in read_cases(run, request()).cases]
    assert len({id(window.graph) for window in found}) == 1
    assert run_graphs.task_graph.cache_info().misses == 1
    assert found[0].graph is not None
    assert found[0].graph.layout_digest == found[0].layout.digest
    assert not found[0].graph.unexplained
    assert read_cases(runs[0], replace(request(), with_graph=False)).cases[0].window.graph is None


def test_a_graph_beside_the_trajectory_comes_first(tmp_path: Path) -> None:
    """`graph.json` in the run's folder is used, is part of the data's digest, and is refused where it is wrong."""
    folder = task_run(tmp_path / "a", network="mine")
    (run,) = find_runs([folder])
    with pytest.raises(OptionError, match=r"The network of .*/a cannot be traced: `network` must be.*put the graph"):
        read_cases(run, request())
    layout = read_cases(run, replace(request(), with_graph=False)).cases[0].window.layout
    graph = run_graphs.task_graph("digits", "mlp", WIDTH)
    (folder / "graph.json").write_text(json.dumps(graph.to_dict()))
    assert read_cases(run, request()).cases[0].window.graph == graph
    pinned = replace(graph, axes=tuple(replace(axis, pinned=True) for axis in graph.axes))
    digests = set()
    for item in (graph, pinned):
        (folder / "graph.json").write_text(json.dumps(item.to_dict()))
        data = RunsData(NiNo(), Split([run], []), request(), 0, 1)
        data.setup("fit")
        digests.add(data.digest)
    assert len(digests) == 2  # another graph is other data, which a fit must not be resumed with
    assert graph.layout_digest == layout.digest
    (folder / "graph.json").write_text(json.dumps(network()[1].to_dict()))
    with pytest.raises(OptionError, match=r"recorded in .*/a is another than that of .*graph\.json"):
        read_cases(run, request())
    (folder / "graph.json").write_text("[]")
    with pytest.raises(OptionError, match=r"graph\.json is no stored neural graph"):
        read_cases(run, request())


def test_networks_that_are_no_more_are_named(tmp_path: Path) -> None:
    """A network that cannot be made for its task, and one of another shape, are errors that name the run."""
    (run,) = find_runs([task_run(tmp_path / "conv", task="teacher", network="conv")])
    with pytest.raises(OptionError, match=r"The network of .*/conv cannot be traced: .* Leave the run out"):
        read_cases(run, request())
    (run,) = find_runs([task_run(tmp_path / "wide", width=1.0)])
    with pytest.raises(OptionError, match=r"recorded in .*/wide is another than that of 'mlp' of width 1 for"):
        read_cases(run, request())


@pytest.mark.slow
def test_nino_is_fitted_scored_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fit`, `score` and `compare` trace the networks of runs for a forecaster that needs it, and skip no run."""
    monkeypatch.setattr(compare, "FIT_ITERATIONS", 4)
    monkeypatch.setattr(score_command, "score_figures", lambda *_: [])
    monkeypatch.setattr(fit_command, "skill_by_task", lambda _, path: path)
    monkeypatch.setattr(fit_command, "fit_curve", lambda _, path: path)
    for number in range(5):
        task_run(tmp_path / "runs" / str(number), number)
    quiet: dict[str, Any] = {"logger": "none", "progress": False, "horizons": HORIZONS}
    runs = (str(tmp_path / "runs"),)
    fit_command.run(
        FitOptions(
            runs,
            str(tmp_path / "fit"),
            "nino",
            SMALL,
            iterations=20,
            check_every=10,
            cases_per_run=6,
            **quiet,
        )
    )
    score_command.run(
        ScoreOptions(
            runs,
            str(tmp_path / "score"),
            ("linear", str(tmp_path / "fit")),
            cases_per_run=3,
            resamples=100,
            **quiet,
        )
    )
    rows = read_result(tmp_path / "score" / "result.json").data["skill"]
    assert {row["num_runs"] for row in rows if row["forecaster"] == "nino"} == {5}
    options = CompareOptions(str(tmp_path / "runs" / "0"), forecasters=("linear", "nino"), horizons=HORIZONS)
    with Trajectory.open(tmp_path / "runs" / "0" / "trajectory") as trajectory:
        skill, _ = compare._skill_rows(trajectory, replace(options, progress=False))
    assert [row["forecaster"] for row in skill] == ["linear", "linear", "nino", "nino"]
    assert all(row["skill"] == row["skill"] for row in skill)

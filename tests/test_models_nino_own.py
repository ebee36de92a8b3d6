"""Our NiNo: a graph network that is odd, follows the unit, leaves rest at rest and is the same on tiles as on edges."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from nino_graphs import chain
from problems import drifting_rows, small_layout, some_moments
from test_models_nino import depth_wise, language, mlp
from torch import Tensor

from deadreckon.forecast import Layout, Window, WindowError
from deadreckon.forecast.case import Case
from deadreckon.forecast.errors import NotFittedError
from deadreckon.forecast.graph import NeuralGraph
from deadreckon.models import Budget, FittingError, ModelError, NiNo, fit_forecaster
from deadreckon.models.nino_items import Part, padded, part_of
from deadreckon.models.nino_neurons import NeuronNetwork, split
from deadreckon.models.nino_pass import NeuronPass
from deadreckon.models.nino_signals import drift_of, facts_of, features_of, signals_of
from deadreckon.models.nino_start import STEP, least_squares
from deadreckon.models.nino_stretches import SINGLE, condensed, gaps, stretches

Made = Callable[[], tuple[NeuralGraph, Layout]]
every_graph = pytest.mark.parametrize("make", [mlp, depth_wise, language])
HORIZONS = (2, 8)


def some_network(num_horizons: int = 3, seed: int = 0, history: int = 5) -> NeuronNetwork:
    """Random values, large enough that every part matters."""
    network = NeuronNetwork(6, num_horizons, history)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(std=0.4, generator=generator)
        for value in network.buffers():
            value.normal_(std=0.2, generator=generator)
    return network.requires_grad_(False)


def window_on(graph: NeuralGraph, layout: Layout, moments: bool = False, num_rows: int = 5) -> Window:
    generator = torch.Generator().manual_seed(1)
    rows = drifting_rows(num_rows, layout.size, generator)
    rates = torch.linspace(2e-3, 1e-3, num_rows, dtype=torch.float64)
    own = some_moments(layout.size, generator) if moments else None
    return Window(rows, 2 * torch.arange(num_rows), layout, "weights", rates, own, graph)


def on_tiles(network: NeuronNetwork, window: Window) -> tuple[Tensor, Tensor]:
    """Change and log scale of each scalar, in the unit of its tensor."""
    count = network.num_horizons
    run = NeuronPass(network, window)
    mean, scale = run.forecasts(torch.ones(count), torch.ones(count, dtype=torch.float64), torch.eye(count))
    unit = torch.cat([run.facts.unit[i].float().expand(spec.numel) for i, spec in enumerate(window.layout)])
    return (mean - window.last) / unit, (scale / unit).log()


def on_edges(network: NeuronNetwork, part: Part, size: int) -> tuple[Tensor, Tensor]:
    found = split(network(part.edges), part.edges.basis)
    change, log_scale = (torch.zeros(network.num_horizons, size) for _ in range(2))
    kept = part.at >= 0
    for into, values in zip((change, log_scale), found, strict=True):
        into[:, part.at[kept]] = values[0, kept].T
    return change, log_scale


def learned(width: int = 6, history: int = 5) -> NiNo:
    """With random values, for rows 2 steps apart."""
    forecaster = NiNo(width=width, history=history)
    network = some_network(len(HORIZONS), history=history)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    facts = {
        "horizons": torch.tensor(HORIZONS),
        "spacings": torch.tensor([1, 4]),
        "calibration": torch.ones(2).double(),
    }
    forecaster.load_state_dict(facts | state)
    return forecaster


@every_graph
@pytest.mark.parametrize(("moments", "num_rows"), [(False, 5), (True, 5), (True, 8), (True, 19)])
def test_tiles_equal_the_list_of_edges(make: Made, moments: bool, num_rows: int) -> None:
    """Change and scale of every scalar agree within 1e-5 with the plain network on an explicit list of edges."""
    graph, layout = make()
    window, network = window_on(graph, layout, moments, num_rows), some_network(history=num_rows)
    part = part_of(window)
    assert sorted(part.at[part.at >= 0].tolist()) == list(range(layout.size))
    for found, expected in zip(on_tiles(network, window), on_edges(network, part, layout.size), strict=True):
        assert float((found - expected).norm() / expected.norm()) < 1e-5
        assert bool((expected.abs().amax(dim=0) > 0).all())


def test_threads_and_pieces_do_not_matter(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same to the last bit with two threads, and but for rounding in other pieces."""
    graph, layout = depth_wise()
    window, network = window_on(graph, layout), some_network()
    with_two, _ = on_tiles(network, window)
    torch.set_num_threads(1)
    with_one, _ = on_tiles(network, window)
    torch.set_num_threads(2)
    assert torch.equal(with_two, with_one)
    monkeypatch.setattr("deadreckon.models.nino_pass.EDGES", 7)
    monkeypatch.setattr("deadreckon.models.graph_tiles.TARGETS", 3)
    cut, _ = on_tiles(network, window)
    torch.testing.assert_close(cut, with_two, rtol=1e-4, atol=1e-4)


@every_graph
@pytest.mark.parametrize("num_rows", [5, 19])
def test_it_is_odd_and_follows_the_unit(make: Made, num_rows: int) -> None:
    """Mirrored windows have mirrored steps, those times a power of two steps times it; scales follow the unit."""
    graph, layout = make()
    window, forecaster = window_on(graph, layout, num_rows=num_rows), learned(history=num_rows)
    for factor in (-1.0, 2.0**40, -(2.0**-30)):
        other = replace(window, values=window.values * factor)
        for plain, changed in zip(forecaster.forecast(window, [2, 5]), forecaster.forecast(other, [2, 5]), strict=True):
            step, moved = plain.mean - window.last, (changed.mean - other.last) / factor
            torch.testing.assert_close(moved, step, rtol=1e-3, atol=1e-5)
            assert float(step.norm()) > 0.1
            torch.testing.assert_close(changed.scale / abs(factor), plain.scale, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("num_rows", [5, 19])
def test_what_stands_still_is_held(num_rows: int) -> None:
    """A scalar that did not move in the window is held at a scale of zero, beside others that move."""
    graph, layout = mlp()
    window = window_on(graph, layout, num_rows=num_rows)
    window.values[:, 3:6] = 0.3
    (found,) = learned(history=num_rows).forecast(window, [8])
    assert torch.equal(found.mean[3:6], window.last[3:6])
    assert bool((found.scale[3:6] == 0).all())
    assert bool((found.mean[6:] != window.last[6:]).all())


def test_neurons_in_another_order_have_forecasts_in_that_order() -> None:
    """Hidden neurons permuted in every tensor that touches them, forecasts are permuted alike."""
    graph, layout = mlp()
    window, forecaster = window_on(graph, layout), learned()
    order = torch.tensor([2, 0, 3, 1])
    at = {spec.name: torch.arange(layout.size)[spec.span].view(spec.shape) for spec in layout}
    places = torch.cat(
        [
            at["first.weight"][order].flatten(),
            at["first.bias"][order],
            at["second.weight"][:, order].flatten(),
            at["second.bias"],
        ]
    )
    permuted = replace(window, values=window.values[:, places])
    (plain,), (other,) = forecaster.forecast(window, [8]), forecaster.forecast(permuted, [8])
    torch.testing.assert_close(other.mean, plain.mean[places], rtol=1e-4, atol=1e-5)
    assert float((other.mean - plain.mean).norm()) > 0.1


@pytest.mark.parametrize("num_rows", [5, 19])
def test_wider_values_have_the_same_forecasts(num_rows: int) -> None:
    """A window in float64 gives what it gives in float32, in float64, and is left as it was."""
    graph, layout = mlp()
    window, forecaster = window_on(graph, layout, num_rows=num_rows), learned(history=num_rows)
    wide = replace(window, values=window.values.double())
    (plain,), (found,) = forecaster.forecast(window, [8]), forecaster.forecast(wide, [8])
    assert found.mean.dtype == torch.float64
    torch.testing.assert_close(found.mean.float(), plain.mean, rtol=1e-4, atol=1e-4)
    assert torch.equal(wide.values.float(), window.values)


def test_neighbours_matter() -> None:
    """A step of one scalar changes the forecasts of scalars two layers away, which per-scalar forecasters never do."""
    graph, layout = mlp()
    window, forecaster = window_on(graph, layout), learned()
    other = replace(window, values=window.values.clone())
    other.values[-2, 0] += 0.5
    (plain,), (changed,) = forecaster.forecast(window, [8]), forecaster.forecast(other, [8])
    assert bool((plain.mean[layout["second.weight"].span] != changed.mean[layout["second.weight"].span]).any())


def test_spacing_learning_rate_and_moments_are_seen() -> None:
    """Each of them changes forecasts; rows further apart than in training are refused, and so are long horizons."""
    graph, layout = mlp()
    window, forecaster = window_on(graph, layout), learned()
    rates = torch.tensor([1e-3] * 4 + [1e-4], dtype=torch.float64)
    moments = some_moments(layout.size, torch.Generator().manual_seed(9))
    (plain,) = forecaster.forecast(window, [8])
    for other in (
        replace(window, steps=torch.arange(5)),
        replace(window, learning_rates=rates),
        replace(window, moments=moments),
    ):
        (found,) = forecaster.forecast(other, [8])
        assert float((found.mean - plain.mean).norm() / (plain.mean - window.last).norm()) > 1e-3
    with pytest.raises(WindowError, match="Fitted to rows 1 to 4 steps apart, got 5"):
        forecaster.forecast(replace(window, steps=5 * torch.arange(5)), [2])
    with pytest.raises(WindowError, match="Fitted up to horizon 8, got 9"):
        forecaster.forecast(window, [9])


# -- parts to train on


def test_parts_stand_for_the_whole() -> None:
    """A part has no more edges than asked, of chosen nodes only, and its counts add up to all scalars."""
    graph, layout = language(vocabulary=40)
    window = window_on(graph, layout)
    generator = torch.Generator().manual_seed(3)
    part = part_of(window, 3, 60, generator)
    assert len(part.at) <= 60
    assert float(part.counts.sum()) == pytest.approx(layout.size)
    inward = torch.zeros(part.edges.statistics.shape[1])
    inward.index_add_(0, part.edges.ends[0, :, 1], part.edges.share[0, :, 0])
    assert bool((inward < 1 + 1e-5).all())
    whole = part_of(window)
    assert torch.equal(whole.counts[whole.at >= 0], torch.ones(layout.size, dtype=torch.float64))


def test_padding_changes_nothing() -> None:
    """Cases of different networks in one batch have the outputs that they have alone."""
    network = some_network()
    parts = [part_of(window_on(*make())).edges for make in (mlp, depth_wise, language)]
    together = network(padded(parts, 2000))
    for number, part in enumerate(parts):
        alone = network(part)
        torch.testing.assert_close(together[number, : alone.shape[1]], alone[0], rtol=1e-4, atol=1e-5)


# -- fitting


def relaxing_cases(sizes: tuple[int, ...] = (4, 6), num_rows: int = 16) -> list[Case]:
    """Two networks whose weights go straight, at speeds that differ between neurons."""
    found: list[Case] = []
    for seed, size in enumerate(sizes):
        layout = small_layout({"a.weight": (size, 3), "a.bias": (size,), "b.weight": (2, size), "b.bias": (2,)})
        graph = chain(layout)
        generator = torch.Generator().manual_seed(seed)
        start, speed = torch.randn(2, layout.size, generator=generator)
        rows = start + 0.05 * torch.arange(num_rows).unsqueeze(1) * speed
        for last in range(4, num_rows - 4):
            steps = 2 * torch.arange(last - 4, last + 1)
            window = Window(rows[last - 4 : last + 1], steps, layout, graph=graph)
            found.append(Case(window, {2: rows[last + 1], 8: rows[last + 4]}))
    return found


@pytest.mark.slow
def test_it_learns_to_go_on_straight() -> None:
    """Fitted to straight motion of two networks, it follows it in both, and expects small errors."""
    forecaster = NiNo(width=8, samples=64, nodes=4)
    cases = relaxing_cases()
    report = fit_forecaster(forecaster, cases, Budget(iterations=150), torch.Generator().manual_seed(0), cases[::4])
    assert report.validation_error < 0.05
    for case in (cases[0], cases[-1]):
        for found in forecaster.forecast(case.window, [2, 8]):
            moved = case.targets[found.horizon] - case.window.last
            assert float((found.mean - case.targets[found.horizon]).norm() / moved.norm()) < 0.3
            assert float(found.scale.norm() / moved.norm()) < 0.6


def test_equal_seeds_give_equal_fits() -> None:
    """Fitting is repeatable to the last bit, goes on from where it was, and follows the generator."""
    states: list[dict[str, Tensor]] = []
    for seed in (0, 0, 1):
        forecaster = NiNo(width=4, samples=32, nodes=3)
        generator = torch.Generator().manual_seed(seed)
        fit_forecaster(forecaster, relaxing_cases(), Budget(iterations=3), generator)
        states.append(forecaster.state_dict())
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_cases_without_a_graph_are_refused() -> None:
    """The message says which case lacks one and what to do; the forecaster is as before."""
    cases = relaxing_cases()
    cases[2] = Case(replace(cases[2].window, graph=None), cases[2].targets)
    forecaster = NiNo()
    with pytest.raises(FittingError, match="Case 2 has no neural graph. Trace its network with `trace_graph`"):
        fit_forecaster(forecaster, cases, Budget(iterations=1), torch.Generator())
    assert not forecaster.fitted


def test_no_fit_is_larger_than_what_can_be_loaded() -> None:
    """Widths and numbers of horizons that its own files may not have are refused before they are fitted."""
    with pytest.raises(ModelError, match="`width` must be at most 512, got 513"):
        NiNo(width=513)
    with pytest.raises(ModelError, match="`history` must be at most 128, got 129"):
        NiNo(history=129)
    horizons = range(1, 66)
    cases = [Case(case.window, dict.fromkeys(horizons, case.targets[2])) for case in relaxing_cases()]
    with pytest.raises(FittingError, match="at most 64 horizons, got 65"):
        fit_forecaster(NiNo(width=4), cases, Budget(iterations=1), torch.Generator())


def test_what_is_held_and_what_is_made_again_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network small enough to keep what is seen of its scalars has the forecasts that it has piece by piece."""
    graph, layout = language()
    window, network = window_on(graph, layout, moments=True), some_network()
    kept = on_tiles(network, window)
    monkeypatch.setattr("deadreckon.models.nino_pass.HELD", 0)
    monkeypatch.setattr("deadreckon.models.nino_pass.EDGES", 50)
    for one, other in zip(kept, on_tiles(network, window), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_impossible_options_and_states_are_refused() -> None:
    """Options out of range, and damaged tensors, are named."""
    for name in ("width", "samples", "nodes", "history"):
        with pytest.raises(ModelError, match=name):
            NiNo(**{name: 0})  # type: ignore[arg-type]
    state = learned().state_dict()
    for change, message in (
        ({"spacings": torch.tensor([4, 1])}, "positive and ascending"),
        ({"calibration": torch.tensor([1.0, -1.0]).double()}, "at least 0"),
        ({"horizons": torch.arange(1, 101)}, "at most 64 horizons"),
        ({"network.head.bias": torch.zeros(1)}, "network.head.bias"),
    ):
        with pytest.raises(NotFittedError, match=message):
            NiNo(width=6).load_state_dict(state | change)


def test_facts_of_a_tensor() -> None:
    """Unit is the root mean square step of what moved; straight motion has correlated steps; rest has none."""
    layout = small_layout({"a.weight": (2, 2), "a.bias": (2,)})
    rows = torch.zeros(5, 6)
    rows[:, 0] = 3.0 * torch.arange(5)
    facts = facts_of(condensed(Window(rows, torch.arange(0, 50, 10), layout)))
    torch.testing.assert_close(facts.unit, torch.tensor([3.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(facts.context[0, 1:10], torch.tensor([1.0] * 6 + [0.0] * 3))
    torch.testing.assert_close(facts.context[1, :10], torch.zeros(10))
    assert float(facts.context[0, 11]) == pytest.approx(0.5)


# -- long windows


def test_stretches_add_up_and_grow_with_age() -> None:
    """They stand for every row once; the newest stand for themselves, older ones for at least as many as younger ones,
    but for the oldest, which takes what is left."""
    for history in range(3, 129):
        lengths = stretches(history)
        assert sum(lengths) == history
        assert lengths[-min(SINGLE, history) :] == (1,) * min(SINGLE, history)
        assert list(lengths[1:]) == sorted(lengths[1:], reverse=True)
    assert stretches(70) == (16, 16, 8, 8, 4, 4, 2, 2, *(1,) * 10)


def test_long_windows_are_condensed_to_means() -> None:
    """Rows are the means of their stretches, rates too; what stands still does to the last bit; short ones stay."""
    layout = small_layout({"a.weight": (3, 2)})
    rows = drifting_rows(17, 6, torch.Generator().manual_seed(0))
    rows[:, 2] = 0.3
    rates = torch.linspace(1.0, 2.0, 17, dtype=torch.float64)
    window = Window(rows, 10 * torch.arange(17), layout, learning_rates=rates)
    found = condensed(window)
    assert (found.spacing, found.gaps[:3], len(found.window)) == (10, (2.5, 2.0, 1.5), 13)
    expected = torch.stack([rows[:3].mean(dim=0), rows[3:5].mean(dim=0), rows[5:7].mean(dim=0)])
    torch.testing.assert_close(found.window.values[:3, [0, 1, 3, 4, 5]], expected[:, [0, 1, 3, 4, 5]])
    assert torch.equal(found.window.values[3:], rows[7:])
    assert bool((found.window.values[:, 2] == rows[-1, 2]).all())
    still = torch.rand(500, generator=torch.Generator().manual_seed(1)).expand(17, 500)
    rest = condensed(Window(still, 10 * torch.arange(17), small_layout({"a.weight": (500,)})))
    assert torch.equal(rest.window.values, still[:13])
    assert found.window.learning_rates is not None
    assert float(found.window.learning_rates[0]) == pytest.approx(float(rates[:3].mean()))
    short = condensed(window.tail(SINGLE))
    assert short.window.values.data_ptr() == rows[-SINGLE:].data_ptr()
    with pytest.raises(WindowError, match="evenly spaced"):
        condensed(Window(rows[:3], torch.tensor([0, 1, 3]), layout))


def test_straight_motion_has_equal_steps_in_long_windows() -> None:
    """Steps between stretches are per row: on a line all are one unit, drift too, and old and new go the same way."""
    layout = small_layout({"a.weight": (4,)})
    speed = torch.tensor([1.0, -1.0, 1.0, 1.0])
    seen = condensed(Window(torch.arange(30.0).unsqueeze(1) * speed, torch.arange(30), layout))
    facts, steps = facts_of(seen), len(seen.gaps)
    torch.testing.assert_close(facts.context[0, 1 + steps * (steps - 1) // 2 :][: steps - 1], torch.zeros(steps - 1))
    signals = signals_of(seen.window.values, None, facts, 0, seen.gaps)
    torch.testing.assert_close(signals[: len(seen.gaps)], speed.expand(len(seen.gaps), 4))
    torch.testing.assert_close(drift_of(signals, seen.gaps), speed)
    features = features_of(signals, gaps(30))
    torch.testing.assert_close(features[[8, 10]], torch.ones(2, 4))


def test_old_rows_matter_in_long_windows() -> None:
    """What moved only before the newest rows changes forecasts of what moves now."""
    graph, layout = mlp()
    window, forecaster = window_on(graph, layout, num_rows=19), learned(history=19)
    other = replace(window, values=window.values.clone())
    other.values[:4, :3] += 0.5
    (plain,), (changed,) = forecaster.forecast(window, [8]), forecaster.forecast(other, [8])
    assert float((plain.mean - changed.mean).norm() / (plain.mean - window.last).norm()) > 1e-2


def test_training_begins_at_least_squares() -> None:
    """Cases that follow one combination give its coefficients; one along any direction costs the same error."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(20, 50, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.2])
    wanted = torch.tensor([[0.5, -0.1, 2.0], [1.0, 0.0, 0.0]])
    target, weight = basis @ wanted.T, torch.rand(20, 50, generator=generator)
    usual, directions = least_squares(basis, target, weight)
    torch.testing.assert_close(usual, wanted, rtol=1e-2, atol=1e-2)
    still = (weight.unsqueeze(2) * target.square()).sum(dim=1)
    for horizon in range(2):
        moved = (basis @ directions[horizon]).square()
        costs = (weight.unsqueeze(2) * moved).sum(dim=1) / still[:, horizon : horizon + 1]
        torch.testing.assert_close(costs.mean(dim=0), torch.full((3,), STEP**2), rtol=1e-3, atol=1e-5)

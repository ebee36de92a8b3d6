"""Networks that forecast every scalar on its own: what they share, Introspection, and LFD-2."""

from collections.abc import Callable

import pytest
import torch
from problems import cases_of, drifting_rows, fitted, flat_layout, relaxing_rows, small_layout, window_of
from torch import Tensor, nn

from deadreckon.forecast import Case, Layout, score
from deadreckon.forecast.errors import NotFittedError, WindowError
from deadreckon.models import (
    LFD2,
    WNN,
    Budget,
    FittingError,
    Introspection,
    ModelError,
    WNNPlus,
    fit_forecaster,
)
from deadreckon.models.coordinate_network import CoordinateNetwork
from deadreckon.models.coordinate_pieces import for_each
from deadreckon.models.coordinate_sampling import sample_coordinates
from deadreckon.models.fitting import Examples
from deadreckon.models.lfd2 import LinearMap
from deadreckon.models.motion import random_walk
from deadreckon.models.rows import chunks

MAKERS: dict[str, Callable[[], CoordinateNetwork]] = {
    "introspection": Introspection,
    "wnn": WNN,
    "wnn_plus": WNNPlus,
    "wnn_plus_values": lambda: WNNPlus(scaling="values"),
    "lfd2": LFD2,
}
every_network = pytest.mark.parametrize("name", MAKERS)
LAYOUT = small_layout({"a.weight": (6, 5), "a.bias": (6,), "b.convolution": (2, 3, 3), "b.norm": (3,)})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def examples_for(forecaster: CoordinateNetwork, layout: Layout = LAYOUT, seed: int = 0) -> Examples:
    rows = drifting_rows(40, layout.size, seeded(seed))
    return Examples.of(cases_of(rows, range(0, 80, 2), forecaster.history, [2, 12], layout), forecaster)


def ready(name: str) -> CoordinateNetwork:
    """Fitted for a few iterations and then shaken, so that every parameter has an effect that shows."""
    forecaster = fitted(MAKERS[name](), LAYOUT)
    assert isinstance(forecaster, CoordinateNetwork)
    generator, state = seeded(9), forecaster.state_dict()
    for key, value in state.items():
        if key.startswith("network.") and value.is_floating_point():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    forecaster.load_state_dict(state)
    return forecaster


def rows_for(forecaster: CoordinateNetwork, seed: int = 3) -> Tensor:
    return drifting_rows(forecaster.history, LAYOUT.size, seeded(seed))


def mean_of(forecaster: CoordinateNetwork, rows: Tensor, horizon: int = 12) -> Tensor:
    (found,) = forecaster.forecast(window_of(rows, range(0, 2 * len(rows), 2), LAYOUT), [horizon])
    return found.mean


# --- which coordinates are drawn


def test_small_kinds_are_drawn_whole_and_large_ones_get_a_share() -> None:
    """Each kind has the same share; one with fewer coordinates than that is taken whole, once each."""
    layout = small_layout({"a.weight": (50, 50), "a.bias": (5,), "c.weight": (10, 50), "b.norm": (7,)})
    window = window_of(drifting_rows(4, layout.size, seeded()), layout=layout)
    sample = sample_coordinates(window, 600, seeded(1))
    spans_of = {spec.name: spec.span for spec in layout}
    for name in ("a.bias", "b.norm"):
        span = spans_of[name]
        inside = (sample.positions >= span.start) & (sample.positions < span.stop)
        assert sorted(sample.positions[inside].tolist()) == list(range(span.start, span.stop))
        assert torch.equal(sample.counts[inside], torch.ones(layout[name].numel, dtype=torch.float64))
    assert len(sample.positions) == 5 + 7 + 200
    for name, share in (("a.weight", 2500 / 3000), ("c.weight", 500 / 3000)):
        span = spans_of[name]
        inside = (sample.positions >= span.start) & (sample.positions < span.stop)
        assert int(inside.sum()) == pytest.approx(200 * share, abs=25)


def test_what_stands_still_is_not_drawn() -> None:
    """Coordinates that did not move are never drawn, however many are asked for."""
    rows = drifting_rows(4, 300, seeded())
    rows[:, ::3] = 1.5
    for count in (30, 1000):
        sample = sample_coordinates(window_of(rows), count, seeded(1))
        assert bool((sample.positions % 3 != 0).all())
        assert len(sample.positions) == min(count, 200)


def test_samples_estimate_sums_without_bias() -> None:
    """Sums over drawn coordinates, times what each stands for, are on average the sums over all."""
    layout = small_layout({"a.weight": (40, 10), "a.bias": (4,)})
    window = window_of(drifting_rows(4, layout.size, seeded()) * torch.logspace(-2, 0, layout.size), layout=layout)
    motion = random_walk(window).double()
    samples = [sample_coordinates(window, 40, seeded(seed)) for seed in range(300)]
    for power, whole in ((1, samples[0].length), (2, samples[0].energy)):
        sums = [float((sample.counts * sample.motion**power).sum()) for sample in samples]
        assert whole == pytest.approx(float((motion**power).sum()))
        assert sum(sums) / len(sums) == pytest.approx(whole, rel=0.05)
    assert torch.equal(samples[0].motion, motion[samples[0].positions])


def test_half_of_a_share_is_drawn_evenly() -> None:
    """A coordinate that moves a thousand times as much as the others takes half of the draws, and no more."""
    rows = drifting_rows(4, 300, seeded())
    rows[:, 7] = torch.tensor([0.0, 1.0, 3.0, -1.0]) * 1000
    drawn = sample_coordinates(window_of(rows), 200, seeded(1)).positions
    assert int((drawn == 7).sum()) == pytest.approx(100, abs=20)


# --- what the networks share


@every_network
def test_permuted_coordinates_have_permuted_forecasts(name: str) -> None:
    """The order of the coordinates within a tensor plays no part."""
    forecaster = ready(name)
    rows = rows_for(forecaster)
    order = torch.arange(LAYOUT.size)
    for spec in LAYOUT:
        order[spec.span] = spec.offset + torch.randperm(spec.numel, generator=seeded(1))
    torch.testing.assert_close(mean_of(forecaster, rows[:, order]), mean_of(forecaster, rows)[order])


@every_network
def test_chunks_and_threads_do_not_show(name: str, monkeypatch: pytest.MonkeyPatch, two_threads: None) -> None:
    """Small stretches, worked on by two threads, give what one large stretch gives; also in inference mode."""
    forecaster = ready(name)
    rows = rows_for(forecaster)
    whole = mean_of(forecaster, rows)
    monkeypatch.setattr(type(forecaster), "chunk", 4)
    torch.testing.assert_close(mean_of(forecaster, rows), whole)
    with torch.inference_mode():
        torch.testing.assert_close(mean_of(forecaster, rows.clone()), whole)


def test_no_pieces_are_no_work() -> None:
    """Nothing to do is done, and not an error: a network without parameters has none."""
    done: list[int] = []
    for_each(done.append, [], torch.device("cpu"))
    assert not done


def test_an_error_in_a_thread_is_raised(two_threads: None) -> None:
    """What goes wrong with one piece is not lost."""

    def work(piece: int) -> None:
        assert not torch.is_grad_enabled()
        if piece == 3:
            raise FittingError("third")

    with pytest.raises(FittingError, match="third"):
        for_each(work, range(5), torch.device("cpu"))


def test_stretches_cover_each_tensor() -> None:
    """Stretches lie within one tensor each, are no longer than asked, and cover everything once."""
    covered = torch.zeros(LAYOUT.size, dtype=torch.int64)
    for index, span in chunks(LAYOUT, 7):
        spec = LAYOUT.tensors[index]
        assert spec.offset <= span.start < span.stop <= min(span.start + 7, spec.offset + spec.numel)
        covered[span] += 1
    assert torch.equal(covered, torch.ones_like(covered))


@every_network
def test_coordinates_that_stand_still_are_held(name: str) -> None:
    """A coordinate that did not move is forecast where it is, bit for bit, whatever the others do."""
    forecaster = ready(name)
    rows = rows_for(forecaster)
    rows[:, 1::4] = torch.linspace(-3, 5, len(range(1, LAYOUT.size, 4)))
    window = window_of(rows, range(0, 2 * len(rows), 2), LAYOUT)
    (found,) = forecaster.forecast(window, [7])
    assert torch.equal(found.mean[1::4], rows[-1, 1::4])
    assert bool((found.scale[1::4] == 0).all())
    assert bool((found.mean[::4] != rows[-1, ::4]).any())


@every_network
@pytest.mark.parametrize("loss", ["squared", "absolute"])
def test_training_begins_at_persistence(name: str, loss: str) -> None:
    """A new network forecasts no change, and the error of that is 1 at every horizon, for both losses."""
    forecaster = MAKERS[name]()
    forecaster.loss = "squared" if loss == "squared" else "absolute"
    examples = examples_for(forecaster)
    network = forecaster.network(examples, seeded())
    for part in (examples.training, examples.validation):
        items = forecaster.items(examples, part, seeded(1))
        assert float(forecaster.mean_error(network, items)) == pytest.approx(1.0, abs=1e-6)
        errors = forecaster.squared_errors(network, items.items)
        torch.testing.assert_close((items.share * errors).mean(dim=0), torch.ones(2, dtype=torch.float64))


def test_losses_differ() -> None:
    """Errors are squared, or their size is taken."""
    squared, absolute = Introspection(), Introspection(loss="absolute")
    examples = examples_for(squared)
    network = squared.network(examples, seeded())
    items = squared.items(examples, examples.training, seeded()).items
    torch.testing.assert_close(squared.squared_errors(network, items), items[2].square())
    torch.testing.assert_close(absolute.squared_errors(network, items), items[2].abs())


@pytest.mark.parametrize("power", [1, 2])
def test_each_items_share_is_its_part_of_the_error(power: int) -> None:
    """Where all coordinates are drawn, shares times errors sum to the errors in the values' own unit, case by case.

    Cases count as the examples say; for absolute errors by the root of that, their motion summed instead of its square.
    """
    loss = "absolute" if power == 1 else "squared"
    forecaster = Introspection(history=5, samples=10_000, augment=False, loss=loss)
    examples = examples_for(forecaster)
    items = forecaster.items(examples, examples.training, seeded())
    wrong = 0.3  # of its range, for each coordinate
    total, persistence = 0.0, 0.0
    for case, weight in zip(examples.cases[examples.training], examples.weights.tolist(), strict=False):
        rows, motion = case.window.values.double(), random_walk(case.window).double()
        weight = weight if power == 2 else (weight * float(motion.square().sum())) ** 0.5 / float(motion.sum())
        total += weight * float(((wrong * (rows.amax(dim=0) - rows.amin(dim=0))) ** power).sum())
        persistence += weight * float(((case.targets[12] - case.window.last).double().abs() ** power).sum())
    assert float((items.share[:, 1] * wrong**power).mean()) == pytest.approx(total / persistence, rel=1e-5)


@every_network
def test_augmentation_mirrors_training_items(name: str) -> None:
    """Half of the training items are mirrored, features and targets alike; validation items are as they are."""
    forecaster = MAKERS[name]()
    examples = examples_for(forecaster)
    forecaster.samples = 10_000  # all of them, so that both draw the same coordinates
    mirrored = forecaster.items(examples, examples.training, seeded()).items
    forecaster.augment = False
    plain = forecaster.items(examples, examples.training, seeded()).items
    sign = (mirrored[2] / plain[2])[:, :1]
    assert 0.4 < float((sign < 0).double().mean()) < 0.6
    torch.testing.assert_close(mirrored[0], plain[0] * sign)
    torch.testing.assert_close(mirrored[2], plain[2] * sign)
    validation = forecaster.items(examples, examples.validation, seeded()).items
    forecaster.augment = True
    for first, second in zip(validation, forecaster.items(examples, examples.validation, seeded()).items, strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("maker", [WNN, lambda **options: WNNPlus(scaling="values", **options)])
def test_augmentation_by_scale_where_there_is_an_epsilon(maker: Callable[..., CoordinateNetwork]) -> None:
    """With an epsilon items are also scaled: features are those of values times 1/8 to 8; without one they are not."""
    sizes: dict[float, Tensor] = {}
    for epsilon in (0.0, 0.05):
        forecaster = maker(epsilon=epsilon, samples=10_000)
        examples = examples_for(forecaster)
        augmented = forecaster.items(examples, examples.training, seeded()).items[0][:, 4].abs()
        forecaster.augment = False
        ratio = augmented / forecaster.items(examples, examples.training, seeded()).items[0][:, 4].abs()
        sizes[epsilon] = ratio[torch.isfinite(ratio)]
    torch.testing.assert_close(sizes[0.0], torch.ones_like(sizes[0.0]))
    assert 0.125 <= float(sizes[0.05].min()) < 0.95
    assert 1.02 < float(sizes[0.05].max()) <= 8.0


@pytest.mark.parametrize("name", ["introspection", pytest.param("wnn", marks=pytest.mark.slow), "wnn_plus", "lfd2"])
def test_they_learn_how_motion_slows_down(name: str) -> None:
    """Fitted to motion under friction they are much better than persistence, on rows they have not seen."""
    forecaster = MAKERS[name]()
    layout = flat_layout(120)
    rows = relaxing_rows(60, 120, 3, seeded(7))
    every = cases_of(rows, range(0, 120, 2), forecaster.history, [2, 20], layout)
    fit_forecaster(forecaster, every[:30], Budget(iterations=150), seeded(1))
    skills = [entry.skill for entry in score(forecaster, every[30:])]
    assert min(skills) > 0.5


@every_network
def test_between_horizons_changes_are_linear(name: str) -> None:
    """Between trained horizons, and down to 0, the forecast change is linear in the horizon."""
    forecaster = ready(name)
    rows = rows_for(forecaster)
    near, middle, far = (mean_of(forecaster, rows, horizon) for horizon in (2, 7, 12))
    torch.testing.assert_close(middle, (near + far) / 2)
    torch.testing.assert_close(mean_of(forecaster, rows, 1), (near + rows[-1]) / 2)


@every_network
def test_other_spacings_and_farther_horizons_are_refused(name: str) -> None:
    """Rows spaced otherwise than in training, and horizons beyond the longest, are errors at the call."""
    forecaster = ready(name)
    rows = rows_for(forecaster)
    with pytest.raises(WindowError, match="Fitted to rows 2 steps apart, got 3 steps"):
        forecaster.forecast(window_of(rows, range(0, 3 * len(rows), 3), LAYOUT), [2])
    with pytest.raises(WindowError, match="Fitted up to horizon 12, got 13"):
        forecaster.forecast(window_of(rows, range(0, 2 * len(rows), 2), LAYOUT), [2, 13])


def test_runs_of_unlike_networks_train_one() -> None:
    """Cases of several layouts make one fit; rows that are spaced unevenly do not."""
    forecaster = WNN()
    other = small_layout({"c.weight": (9, 4), "c.bias": (9,)})
    cases: list[Case] = []
    for layout in (LAYOUT, other):
        cases += cases_of(drifting_rows(20, layout.size, seeded()), range(0, 40, 2), 5, [2, 12], layout)
    fit_forecaster(forecaster, cases, Budget(iterations=3), seeded(), validation=cases[:3])
    for layout in (LAYOUT, other):
        window = window_of(drifting_rows(5, layout.size, seeded(2)), range(0, 10, 2), layout)
        (found,) = forecaster.forecast(window, [2])
        assert bool((found.mean != window.last).any())
    uneven = cases_of(drifting_rows(20, LAYOUT.size, seeded()), range(0, 60, 3), 5, [3, 12], LAYOUT)
    with pytest.raises(FittingError, match="Case 0 has horizons|horizons"):
        fit_forecaster(WNN(), [*cases, *uneven], Budget(iterations=3), seeded())
    wider = [Case(case.window, {6: case.targets[3]}) for case in uneven]
    closer = [Case(case.window, {6: case.targets[2]}) for case in cases[:5]]
    with pytest.raises(FittingError, match="equally far apart"):
        fit_forecaster(WNN(), [*wider, *closer], Budget(iterations=3), seeded())


@every_network
def test_a_second_fit_goes_on_from_the_first(name: str) -> None:
    """With equal horizons training starts from what was learned; with others from nothing."""
    forecaster = ready(name)
    examples = examples_for(forecaster)
    known = {key: value for key, value in forecaster.state_dict().items() if key.startswith("network.")}
    before = forecaster.network(examples, seeded())
    for key, value in before.state_dict().items():
        assert torch.equal(value, known[f"network.{key}"])
    with torch.no_grad():
        for value in before.parameters():
            value.add_(1.0)  # training it does not touch the forecaster
    assert all(torch.equal(value, forecaster.state_dict()[key]) for key, value in known.items())
    rows = drifting_rows(40, LAYOUT.size, seeded())
    others = Examples.of(cases_of(rows, range(0, 80, 2), forecaster.history, [2, 6, 12], LAYOUT), forecaster)
    assert float(forecaster.mean_error(forecaster.network(others, seeded()), items_of(forecaster, others))) == (
        pytest.approx(1.0, abs=1e-6)
    )


def items_of(forecaster: CoordinateNetwork, examples: Examples):
    return forecaster.items(examples, examples.validation, seeded())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": torch.tensor(0)}, "'spacing' of 'introspection' must be at least 1, got 0"),
        ({"horizons": torch.tensor([12, 2])}, "'horizons' must be positive and ascending"),
        ({"horizons": torch.arange(1, 2000)}, "has at most 1024 horizons, got 1999"),
        ({"horizons": torch.tensor([2, 7, 12])}, "'network.outer.weight' of 'introspection' must be"),
        ({"network.inner.weight": torch.zeros(40, 5)}, "'network.inner.weight' of 'introspection' must be"),
        ({"network.inner.weight": torch.full((40, 4), float("nan"))}, "holds values that are not finite"),
        ({"network.more": torch.zeros(1)}, "has the tensors"),
        ({"scale.variance": torch.full((2, 5), -1.0, dtype=torch.float64)}, "must be at least 0"),
    ],
)
def test_damaged_states_are_refused(change: dict[str, Tensor], message: str) -> None:
    """Tensors of other names, shapes or values than this forecaster's are refused, and it stays as it was."""
    state = ready("introspection").state_dict()
    forecaster = Introspection()
    with pytest.raises(NotFittedError, match=message):
        forecaster.load_state_dict({**state, **change})
    assert not forecaster.fitted


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Introspection(history=1), "`history` must be a whole number of at least 2, got 1"),
        (lambda: WNN(samples=0), "`samples` must be a whole number of at least 1, got 0"),
        (lambda: LFD2(augment=1), "`augment` must be true or false, got 1"),  # type: ignore[arg-type]
        (lambda: WNNPlus(loss="l1"), "`loss` must be one of 'squared', 'absolute', got 'l1'"),  # type: ignore[arg-type]
        (lambda: LFD2(growth=-1.0), "`growth` must be a finite number of at least 0, got -1.0"),
        (lambda: WNN(epsilon=float("nan")), "`epsilon` must be a finite number of at least 0, got nan"),
    ],
)
def test_options_are_checked(make: Callable[[], object], message: str) -> None:
    """Options out of range are errors that name them."""
    with pytest.raises(ModelError, match=message):
        make()


# --- Introspection


def test_introspection_reads_four_moments_of_the_window() -> None:
    """The inputs are the values at 0, 0.4, 0.7 and 1 of the span, minus the mean, over the range."""
    rows = drifting_rows(11, 6, seeded())
    seen = Introspection(history=11).inputs(rows, torch.empty(0), 0.0)
    extent = rows.amax(dim=0) - rows.amin(dim=0)
    expected = (rows[[0, 4, 7, 10]] - rows.mean(dim=0)) / extent
    torch.testing.assert_close(seen.features, expected.T)
    torch.testing.assert_close(seen.unit, extent)


def test_introspection_reads_between_rows() -> None:
    """With other numbers of rows, values are interpolated: exactly, on a line."""
    rows = torch.linspace(0, 1, 5).unsqueeze(1) * torch.tensor([[2.0, -0.5]]) + 3.0
    seen = Introspection(history=5).inputs(rows, torch.empty(0), 0.0)
    expected = torch.tensor([0.0, 0.4, 0.7, 1.0]) - 0.5
    torch.testing.assert_close(seen.features, torch.stack((expected, -expected)))


def test_introspection_has_the_papers_size() -> None:
    """4-40-1 has 241 parameters, each further horizon 41 more."""
    for num_horizons in (1, 3):
        network = Introspection().build(torch.arange(1, num_horizons + 1), 1)
        assert sum(value.numel() for value in network.parameters()) == 200 + 41 * num_horizons


# --- LFD-2


def straight_cases(share_of_outliers: float = 0.0) -> list[Case]:
    """w_h = w_n + a_h (w_n - w_0) with a = 0.5 and 0.8; some targets far off."""
    generator = seeded(3)
    layout = flat_layout(60)
    found: list[Case] = []
    for _ in range(20):
        rows = drifting_rows(5, 60, generator)
        targets: dict[int, Tensor] = {}
        for horizon, factor in ((4, 0.5), (16, 0.8)):
            off = (torch.rand(60, generator=generator) < share_of_outliers) * 3.0
            targets[horizon] = rows[-1] + factor * (rows[-1] - rows[0]) + off
        found.append(Case(window_of(rows, range(0, 10, 2), layout), targets))
    return found


def weights_of(forecaster: LFD2) -> tuple[Tensor, Tensor]:
    state = forecaster.state_dict()
    return state["network.layer.weight"], state["network.layer.bias"]


def test_lfd2_finds_the_law_despite_outliers() -> None:
    """Absolute errors find the coefficients where one target in ten is far off; squared errors are drawn away."""
    found: dict[str, Tensor] = {}
    for loss in ("absolute", "squared"):
        forecaster = LFD2(growth=0.0, loss="absolute" if loss == "absolute" else "squared", augment=False)
        fit_forecaster(forecaster, straight_cases(0.1), Budget(iterations=300), seeded(1))
        weight, bias = weights_of(forecaster)
        found[loss] = torch.cat((weight[:, 0] - torch.tensor([0.5, 0.8]), weight[:, 1], bias)).abs().max()
    assert float(found["absolute"]) < 0.05
    assert float(found["squared"]) > 0.3


def test_lfd2_growth_is_the_excess_of_longer_steps() -> None:
    """Steps per unit of time are compared in turn, the window's own first; only growth counts."""
    network = LinearMap(torch.tensor([1.0, 2.0, 4.0]))
    with torch.no_grad():
        # Changes of 0.5, 1.5 and 3.9 of the window's: steps of 0.5, 1.0 and 1.2 a span, after the window's 1.
        network.layer.weight.copy_(torch.tensor([[0.5, 0.0], [1.5, 0.0], [3.9, 0.0]]))
        network.layer.bias.zero_()
    network.probes = torch.tensor([[1.0, 9.0], [-3.0, 1.0]])
    network.probe_weights = torch.tensor([2.0, 0.5])
    assert float(network.growth().detach()) == pytest.approx(0.7)


def test_lfd2_regulariser_shortens_later_steps() -> None:
    """A large weight of the regulariser keeps a forecast from speeding up as the data do."""
    speeds: list[float] = []
    cases = [
        Case(case.window, {4: case.targets[4], 16: 4 * case.targets[16] - 3 * case.window.last})
        for case in straight_cases()
    ]
    for growth in (0.0, 10.0):
        forecaster = LFD2(growth=growth)
        fit_forecaster(forecaster, cases, Budget(iterations=300), seeded(1))
        slopes = weights_of(forecaster)[0][:, 0]
        speeds.append(float((slopes[1] - slopes[0]) / (12 / 8)))
    assert speeds[0] == pytest.approx((3.2 - 0.5) / 1.5, rel=0.1)
    assert speeds[1] < 1.1


def test_lfd2_features_are_those_of_the_first_and_last_row() -> None:
    """Change over the tensor's change, value over the tensor's size; the unit is the tensor's change."""
    rows = drifting_rows(5, LAYOUT.size, seeded())
    forecaster = LFD2()
    context = forecaster.context(window_of(rows, layout=LAYOUT))
    spec = LAYOUT["a.bias"]
    change, size = (rows[-1] - rows[0])[spec.span], rows[-1, spec.span]
    seen = forecaster.inputs(rows[:, spec.span], context[1], 0.0)
    u, v = change.square().mean().sqrt(), size.square().mean().sqrt()
    torch.testing.assert_close(seen.features, torch.stack((change / u, size / v), dim=1))
    torch.testing.assert_close(seen.unit, u.expand(6))


def test_networks_are_made_without_the_global_generator() -> None:
    """Building and initialising a network leaves the global random state alone."""
    state = torch.random.get_rng_state()
    for make in MAKERS.values():
        forecaster = make()
        network = forecaster.build(torch.tensor([2, 12]), 2)
        assert isinstance(network, nn.Module)
        with torch.no_grad():
            forecaster.initialise(network, seeded())
        assert all(bool(torch.isfinite(value).all()) for value in network.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)

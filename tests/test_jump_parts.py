"""The parts of a jump: rules, sequential test, progress, moments, regimes, candidates, statistics, history."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from deadreckon.forecast import Forecast, Forecaster, JumpError, Window, layout_of, pack
from deadreckon.forecast.jump import (
    Alone,
    Candidate,
    CandidateScreen,
    Jump,
    JumpPolicy,
    Outcome,
    Progress,
    Regime,
    RegimeTracker,
    RowKeeper,
    SequentialTest,
    moment_rule,
    nino_schedule,
    propose,
    reestimate_statistics,
    upper_boundary,
    weight_signals,
)
from deadreckon.forecast.jump.batches import batch_length
from deadreckon.forecast.jump.progress import credit
from deadreckon.forecast.jump.regime import captured_features
from deadreckon.forecast.jump.rules import Standing


def test_the_boundary_is_the_published_one() -> None:
    """Five looks at a one-sided 0.025 give the boundary that Lan and DeMets' spending function is known for."""
    published = [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]
    np.testing.assert_allclose(upper_boundary(5, 1.959964), published, atol=0.002)
    assert upper_boundary(1, 0.7) == (0.7,)
    assert upper_boundary(500, 1.0)[-2:] == (math.inf, 1.0)


@pytest.mark.parametrize(("num_looks", "threshold"), [(5, 1.0), (4, 0.0), (10, 2.0)])
def test_looking_often_accepts_no_more_often_by_chance(num_looks: int, threshold: float) -> None:
    """Without any gain the test accepts as often as one look with its threshold would, and not more with giving up."""
    alpha = 0.5 * math.erfc(threshold / math.sqrt(2))
    generator = np.random.default_rng(0)
    count = 20_000
    walks = generator.standard_normal((count, num_looks)).cumsum(axis=1)
    scores = walks / np.sqrt(np.arange(1, num_looks + 1))
    crossed = (scores >= np.array(upper_boundary(num_looks, threshold))).any(axis=1).mean()
    assert abs(crossed - alpha) < 4 * math.sqrt(alpha / count) + 0.002
    test = SequentialTest(num_looks, threshold, futility=0.1, min_samples=1)
    accepted, looks = 0, 0
    for row in scores[:4000]:
        for look, score in enumerate(row, start=1):
            looks += 1
            decided = test.decide(look, 100, float(score), 1.0)
            if decided is not None:
                accepted += decided
                break
    assert accepted / 4000 <= alpha + 4 * math.sqrt(alpha / 4000)
    assert looks < 0.8 * 4000 * num_looks


def test_a_test_stops_as_soon_as_it_can_tell() -> None:
    """Clear gains and clear losses end early, doubtful ones go on, the last look always decides."""
    test = SequentialTest(4, 1.0)
    assert test.decide(1, 100, 5.0, 1.0) is True
    assert test.decide(1, 100, -1.0, 1.0) is False
    assert test.decide(1, 100, 0.7, 1.0) is None
    assert test.decide(1, 15, 5.0, 1.0) is None  # too few samples for a normal approximation
    assert test.decide(2, 100, 0.0, 0.0) is None
    assert test.decide(4, 100, 1.1, 1.0) is False
    assert test.decide(4, 100, 1.2, 1.0) is True
    assert SequentialTest(4, 1.0, futility=0.0).decide(1, 100, -5.0, 1.0) is None
    assert test.chance(3, 1.0) > test.chance(3, 0.5) > test.chance(3, -1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_looks": 0}, "at least one look"),
        ({"num_looks": 2, "num_standard_errors": math.nan}, "threshold of at least 0"),
        ({"num_looks": 2, "futility": 0.5}, "`futility`"),
        ({"num_looks": 2, "min_samples": 0}, "`min_samples`"),
    ],
)
def test_impossible_tests_are_refused(options: dict, message: str) -> None:
    """A test needs looks, a threshold and sensible limits."""
    with pytest.raises(JumpError, match=message):
        SequentialTest(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "hope"}, "`rule` must be strict"),
        ({"tolerance": -0.1}, "`tolerance`"),
        ({"max_looks": 0}, "`max_looks`"),
        ({"futility": 0.7}, "`futility`"),
        ({"trust_radius": 0.0}, "`trust_radius`"),
    ],
)
def test_impossible_policies_are_refused(options: dict, message: str) -> None:
    """Every option of a policy is checked."""
    with pytest.raises(JumpError, match=message):
        JumpPolicy(**options)


def test_rules_ask_what_they_say() -> None:
    """Strict asks any fall, proximity lets a share rise, worth it asks what the cost would give in ordinary steps."""
    standing = Standing(loss_before=2.0, fall_per_step=0.01, cost_steps=7.0)
    asked = {rule: JumpPolicy(rule).acceptance.required_gain(standing) for rule in ("strict", "always")}
    assert asked == {"strict": 0.0, "always": -math.inf}
    assert JumpPolicy("proximity", tolerance=0.05).acceptance.required_gain(standing) == pytest.approx(-0.1)
    worth = JumpPolicy("worth_it").acceptance
    assert worth.required_gain(standing) == pytest.approx(0.07)
    assert worth.required_gain(Standing(2.0, -0.5, 7.0)) == 0
    assert worth.required_gain(Standing(2.0, math.nan, 7.0)) == 0
    assert [JumpPolicy(rule).acceptance.verifies for rule in ("strict", "always")] == [True, False]


def test_a_jump_is_credited_what_it_replaced_in_the_end() -> None:
    """The credit is the fall that lasted until the next verification, in ordinary steps, less those that were made."""
    progress = Progress()
    assert math.isnan(progress.fall_per_step)
    progress.observe(10, [2.0, 4.0])
    progress.went_on(10, [2.0, 4.0])
    progress.observe(20, [1.9, 3.9])  # 0.01 a step
    assert progress.fall_per_step == pytest.approx(0.01)
    assert progress.jumped(20, [1.9, 3.9], [1.7, 3.7], 5) == pytest.approx(20)
    assert progress.credits == {5: pytest.approx(20)}
    progress.observe(30, [1.75])  # on the first batch the jump gave 0.2, and 0.05 was lost again in ten steps
    assert progress.credits == {5: pytest.approx((1.9 - 1.75) / 0.01 - 10)}
    assert progress.fall_per_step == pytest.approx((0.1 - 0.05) / 20)  # what follows a jump counts as ordinary


def test_a_late_verification_credits_nothing_anew() -> None:
    """Long after a jump, by more than twice the stretches of the rate, what was credited at the jump stays."""
    for later, expected in ((40, (1.9 - 1.75) / 0.01 - 20), (41, 20)):
        progress = Progress()
        progress.went_on(10, [2.0])
        progress.observe(20, [1.9])
        progress.jumped(20, [1.9], [1.7], 0)
        progress.observe(later, [1.75])
        assert progress.credits[0] == pytest.approx(expected)


def test_progress_without_progress_credits_nothing() -> None:
    """Where the loss rises by itself the credit is unknown; never is more credited than the run's own steps."""
    assert math.isnan(credit(1.0, -0.1, 100))
    assert math.isnan(credit(math.nan, 0.1, 100))
    assert credit(1000.0, 0.1, 100) == 100
    assert credit(-1000.0, 0.1, 100) == -100
    progress = Progress()
    progress.went_on(10, [1.0])
    progress.forget()
    progress.observe(20, [5.0])
    assert math.isnan(progress.fall_per_step)


def test_progress_survives_a_checkpoint() -> None:
    """A progress that was saved and loaded says what the original says, also about a jump still to be credited."""
    progress = Progress(memory=2)
    for step, loss in ((1, 3.0), (2, 2.5), (3, 2.2), (4, 2.0)):
        progress.observe(step, [loss])
        progress.went_on(step, [loss])
    assert progress.fall_per_step == pytest.approx(0.25)
    progress.jumped(4, [2.0], [1.5], 3)
    copy = Progress(memory=2)
    copy.load_state_dict(progress.state_dict())
    for each in (progress, copy):
        each.observe(6, [1.4])
    assert copy.credits == progress.credits == {3: pytest.approx(0.6 / 0.25 - 2)}
    assert copy.fall_per_step == progress.fall_per_step


def _moved(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> Tensor:
    """By how much one more step with a zero gradient moves the parameter."""
    before = parameter.detach().clone()
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return parameter.detach() - before


def _stepped(make: Any) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.randn(5, generator=generator))
    optimizer = make([parameter])
    for _ in range(3):
        parameter.grad = torch.randn(5, generator=generator)
        optimizer.step()
    return parameter, optimizer


ADAM = lambda parameters: torch.optim.Adam(parameters, lr=0.1)  # noqa: E731
SGD = lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9)  # noqa: E731


@pytest.mark.parametrize("make", [ADAM, SGD], ids=["adam", "sgd"])
def test_moment_rules_do_what_they_say(make: Any) -> None:
    """Kept moments stay, reset ones are gone, rescaled ones are aged by the horizon, transported ones go on."""
    for name in ("keep", "reset", "rescale", "transport"):
        parameter, optimizer = _stepped(make)
        key = "exp_avg" if "exp_avg" in optimizer.state[parameter] else "momentum_buffer"
        before = {
            name: value.clone() for name, value in optimizer.state[parameter].items() if isinstance(value, Tensor)
        }
        step = torch.full((5,), -0.02)
        rule = moment_rule(name)
        rule.check(optimizer)
        rule.apply(optimizer, {parameter: step}, 4)
        state = optimizer.state[parameter]
        if name == "keep":
            torch.testing.assert_close(state[key], before[key], rtol=0, atol=0)
        if name == "reset":
            assert not state
        if name == "rescale":
            torch.testing.assert_close(state[key], before[key] * 0.9**4)
        if name in ("rescale", "transport"):
            for other in before:
                if other != key:
                    torch.testing.assert_close(state[other], before[other], rtol=0, atol=0)
        if name == "transport":
            # A step of SGD with a zero gradient is 0.9 of the speed; Adam's bias and second moment age by a step, too.
            moved = _moved(optimizer, parameter)
            factor = 0.9 if key == "momentum_buffer" else 0.9 * (1 - 0.9**3) / (1 - 0.9**4)
            if key == "exp_avg":
                old, new = before["exp_avg_sq"] / (1 - 0.999**3), 0.999 * before["exp_avg_sq"] / (1 - 0.999**4)
                factor = factor * (old.sqrt() + 1e-8) / (new.sqrt() + 1e-8)
            torch.testing.assert_close(moved, step / 4 * factor, rtol=1e-4, atol=1e-7)


def test_moments_that_cannot_be_changed_are_refused() -> None:
    """An optimiser without the moments that a rule changes is named before training; so is an unknown rule."""
    weight = [nn.Parameter(torch.ones(1))]
    for optimizer in (
        torch.optim.SGD(weight, lr=0.1),
        torch.optim.SGD(weight, lr=0.1, momentum=0.9, nesterov=True),
        torch.optim.Adam(weight, amsgrad=True),
        torch.optim.Adagrad(weight),
    ):
        with pytest.raises(JumpError, match="'transport' needs torch's Adam"):
            moment_rule("transport").check(optimizer)
    with pytest.raises(JumpError, match="`moments` must be one of keep, reset, rescale, transport, got 'hope'"):
        moment_rule("hope")


def _window(rows: list[list[float]], spacing: int = 2) -> Window:
    values = torch.tensor(rows)
    layout = layout_of(nn.Linear(values.shape[1], 1, bias=False))
    return Window(values, torch.arange(1, len(rows) + 1) * spacing, layout)


def test_weight_signals_tell_lines_from_swings() -> None:
    """Straight paths turn nowhere and have no noise, swings turn back, and drift is what cosines say."""
    straight = weight_signals(_window([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]]))
    assert straight.turn == pytest.approx(1, abs=1e-5)
    assert straight.noise == pytest.approx(0, abs=1e-5)
    assert straight.straightness == pytest.approx(1)
    assert straight.curvature == pytest.approx(0, abs=1e-5)
    cosine = float(nn.functional.cosine_similarity(torch.tensor([1.0, 0.1]), torch.tensor([1.0, 0.2]), dim=0))
    assert straight.drift == pytest.approx((1 - cosine) / 2, rel=1e-4)
    swing = weight_signals(_window([[1.0, 0.0], [1.0, 0.1], [1.0, 0.0]]))
    assert swing.turn == pytest.approx(-1)
    assert (swing.noise, swing.straightness, swing.curvature) == (math.inf, 0, pytest.approx(2))
    assert math.isnan(weight_signals(_window([[1.0, 0.0]])).drift)
    assert math.isnan(weight_signals(_window([[1.0, 0.0], [1.0, 0.1]])).turn)


def test_drift_keeps_its_digits_in_float32() -> None:
    """A relative move of 1e-4, whose cosine is 1 in float32, still has the drift that float64 finds."""
    generator = torch.Generator().manual_seed(0)
    row = torch.randn(1000, generator=generator)
    move = 1e-4 * torch.randn(1000, generator=generator)
    layout = layout_of(nn.Linear(1000, 1, bias=False))
    signals = weight_signals(Window(torch.stack([row, row + move]), torch.tensor([1, 2]), layout))
    first, second = row.double(), (row + move).double()
    exact = float(1 - nn.functional.cosine_similarity(first, second, dim=0))
    assert signals.drift == pytest.approx(exact, rel=0.02)


def test_regimes_follow_the_runs_own_beginning() -> None:
    """Rates near the first ones are chaotic, far smaller ones stable; activations outvote weights once calibrated."""
    tracker = RegimeTracker(calibration=2)
    features = torch.eye(2, dtype=torch.float64)
    step = 0

    def turn(by: float) -> None:
        nonlocal features, step
        step += 10
        angle = math.acos(1 - 10 * by)
        turned = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        features = features @ turned.double()
        tracker.see_features(step, features, Alone())

    tracker.see_features(0, features, Alone())
    assert tracker.regime is None
    turn(1e-3)
    assert tracker.regime is None
    turn(1e-3)
    assert tracker.regime is Regime.CHAOTIC
    turn(2e-4)
    assert tracker.regime is Regime.TRANSITION
    turn(2e-5)
    assert tracker.regime is Regime.STABLE
    assert tracker.similarity_rate == pytest.approx(2e-5, rel=1e-2)
    tracker.see_features(step + 1, torch.eye(3), Alone())  # other data: compared with nothing
    assert tracker.similarity_rate == pytest.approx(2e-5, rel=1e-2)
    copy = RegimeTracker(calibration=2)
    copy.load_state_dict(tracker.state_dict())
    assert copy.regime is Regime.STABLE
    weights = RegimeTracker(calibration=1)
    signals = weight_signals(_window([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]]))
    weights.see_weights(signals)
    assert weights.regime is Regime.CHAOTIC
    weights.see_weights(signals._replace(drift=signals.drift / 100))
    assert weights.regime is Regime.STABLE


def test_features_are_what_goes_into_the_last_layer() -> None:
    """Captured features are the last layer's inputs, averaged over what lies between samples and features."""
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    inputs = torch.randn(6, 5, 3)
    with captured_features(network) as features:
        network(inputs)
    torch.testing.assert_close(features[0], network[1](network[0](inputs)).mean(dim=1).detach())
    network(inputs)
    assert len(features) == 1
    with captured_features(nn.ReLU()) as none:
        pass
    assert none == []


class Ahead(Forecaster):
    """Goes one unit a step in every coordinate, with a scale of its own for each tensor."""

    name = "ahead"

    def __init__(self, scales: Sequence[float]) -> None:
        super().__init__()
        self.scales = scales

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            scale = torch.ones_like(window.last)
            for spec, value in zip(window.layout, self.scales, strict=True):
                scale[spec.span] = value
            yield Forecast(horizon, window.last + horizon, scale)


def _present() -> Window:
    vector, layout = pack(nn.Linear(3, 2))
    return Window(vector[None], torch.tensor([7]), layout)


def test_candidates_are_all_horizons_times_all_scales() -> None:
    """Each horizon and step scale gives last + scale (forecast - last); a scale of 1 is the forecast itself."""
    window = _present()
    found = propose(Ahead((0.1, 0.1)), window, (2, 4), (1.0, 0.5), JumpPolicy(), Alone())
    assert isinstance(found, list)
    assert [(item.horizon, item.step_scale) for item in found] == [(2, 1.0), (2, 0.5), (4, 1.0), (4, 0.5)]
    for item in found:
        torch.testing.assert_close(item.weights, window.last + item.horizon * item.step_scale)


def test_untrusted_horizons_are_left_out_and_steps_cut() -> None:
    """Horizons whose error dwarfs their move go; with a trust radius each tensor's step is cut by its own error."""
    window = _present()
    policy = JumpPolicy(max_relative_scale=1.5)
    found = propose(Ahead((5.0, 5.0)), window, (2, 4), (1.0,), policy, Alone())
    assert isinstance(found, list)
    assert [item.horizon for item in found] == [4]
    assert propose(Ahead((50.0, 5.0)), window, (2, 4), (1.0,), policy, Alone()) is Outcome.UNTRUSTED
    assert propose(Ahead((math.nan, 1.0)), window, (2,), (1.0,), policy, Alone()) is Outcome.UNTRUSTED
    cut = propose(Ahead((8.0, 1.0)), window, (4,), (1.0,), JumpPolicy(trust_radius=1.0), Alone())
    assert isinstance(cut, list)
    step = cut[0].weights - window.last
    torch.testing.assert_close(step[window.layout["weight"].span], torch.full((6,), 2.0))
    torch.testing.assert_close(step[window.layout["bias"].span], torch.full((2,), 4.0))
    away = Window(window.values * math.nan, window.steps, window.layout)
    assert propose(Ahead((1.0, 1.0)), away, (2,), (1.0,), JumpPolicy(), Alone()) is Outcome.NOT_FINITE


def _probe(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    inputs, targets = batch
    return (module(inputs) - targets).square().mean(dim=1)


def _screened(module: nn.Module, probe: Any, batch: Any) -> tuple[CandidateScreen, Tensor, Tensor]:
    """What a screen says, and what loading each candidate says."""
    vector, layout = pack(module)
    module.eval()
    candidates = [Candidate(1, scale, vector * scale) for scale in (0.5, 1.0, 2.0)]

    def load(candidate: Candidate) -> None:
        nn.utils.vector_to_parameters(candidate.weights, module.parameters())

    screen = CandidateScreen()
    losses = screen.losses(module, probe, batch, candidates, layout, load)
    expected = []
    for candidate in candidates:
        load(candidate)
        expected.append(probe(module, batch).double().mean().detach())
    load(candidates[1])
    return screen, losses, torch.stack(expected)


def test_batched_candidates_equal_those_taken_one_by_one() -> None:
    """One batched pass gives each candidate's loss, with tied weights and batch normalisation too; nothing is moved."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(), nn.Linear(4, 4))
    module[4].weight = module[0].weight
    before = {name: value.clone() for name, value in module.state_dict().items()}
    screen, losses, expected = _screened(module, _probe, (torch.randn(8, 4), torch.randn(8, 4)))
    assert screen.one_by_one == ""
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(module.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["convolution", "item", "compiled"])
def test_what_cannot_be_batched_is_taken_one_by_one_and_says_why(kind: str) -> None:
    """Convolutions, probes that read numbers and compiled modules fall back, with the reason, to the same losses."""
    torch.manual_seed(0)
    module: nn.Module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    batch = (torch.randn(8, 4), torch.randn(8, 4))
    probe: Any = _probe
    if kind == "convolution":
        module = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 1, 1), nn.Flatten())
    if kind == "item":
        probe = lambda module, batch: _probe(module, batch) * float(module[0].weight.detach().sum().sign())  # noqa: E731
    if kind == "compiled":
        compiled: Any = torch.compile(nn.Linear(4, 4), backend="eager")
        module = nn.Sequential(compiled)
    screen, losses, expected = _screened(module, probe, batch)
    reason = {"convolution": "Conv1d", "item": "RuntimeError", "compiled": "compiled modules"}[kind]
    assert reason in screen.one_by_one
    torch.testing.assert_close(losses, expected)


def test_statistics_are_those_of_the_batches_given() -> None:
    """Re-estimated statistics are plain averages over the batches; modes, momenta, counts and dropout stay."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.3), nn.BatchNorm1d(3, track_running_stats=False)
    )
    module(torch.randn(4, 3))
    module[0].eval()
    batches = [(torch.randn(16, 3) * 2 + 1, None) for _ in range(3)]
    state = torch.get_rng_state()
    assert reestimate_statistics(module, batches) == 48
    torch.testing.assert_close(torch.get_rng_state(), state, rtol=0, atol=0)
    norm: Any = module[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([batch.mean(dim=0) for batch, _ in batches]).mean(dim=0))
    torch.testing.assert_close(norm.running_var, torch.stack([batch.var(dim=0) for batch, _ in batches]).mean(dim=0))
    assert (norm.momentum, int(norm.num_batches_tracked)) == (0.3, 1)
    assert [part.training for part in module] == [False, True, True]
    with pytest.raises(JumpError, match="`batch_norm_batches` must hold at least one batch"):
        reestimate_statistics(module, [])
    assert (batch_length({"inputs": torch.zeros(5)}), batch_length([(torch.zeros(3), 1)])) == (5, 3)


def test_only_rows_that_are_needed_are_kept() -> None:
    """Rows are due at the spacing before each opportunity; the window holds them, and none before a jump."""
    keeper = RowKeeper(history=3, spacing=2, every=10, start=15)
    assert [step for step in range(31) if keeper.due(step)] == [16, 18, 20, 26, 28, 30]
    layout = layout_of(nn.Linear(1, 1))
    for step in (16, 18, 20):
        keeper.add(step, torch.full((2,), float(step)))
    assert keeper.window(18, layout) is None
    window = keeper.window(20, layout)
    assert window is not None
    assert (window.steps.tolist(), window.values[:, 0].tolist()) == ([16, 18, 20], [16.0, 18.0, 20.0])
    copy = RowKeeper(3, 2, 10, 15)
    copy.load_state_dict(keeper.state_dict())
    torch.testing.assert_close(copy.window(20, layout).values, window.values, rtol=0, atol=0)  # pyright: ignore
    keeper.jumped(20, torch.zeros(2))
    assert keeper.window(20, layout) is None
    longer = RowKeeper(history=5, spacing=5, every=10)
    assert [step for step in range(21) if longer.due(step)] == [0, 5, 10, 15, 20]
    with pytest.raises(JumpError, match="`spacing` must be a divisor of `every`"):
        RowKeeper(history=5, spacing=3, every=10)
    with pytest.raises(JumpError, match="must be at least 1"):
        RowKeeper(history=0, spacing=3, every=10)


def test_the_published_schedule_is_nino_s() -> None:
    """Horizons in rows are those of the released code, for two lengths of a run; too short a run is refused."""
    for num_steps, rows in (
        (14_300, [40, 35, 30, 26, 22, 18, 15, 12, 9, 7, 5, 3, 2, 1]),
        (7080, [40, 30, 21, 13, 8, 4, 1]),
    ):
        at = nino_schedule(num_steps)
        assert [(at(step) or 0) // 200 for step in range(1000, num_steps + 1, 1000)] == rows
        assert at(999) is None
        assert at(100_000) is None
    with pytest.raises(JumpError, match="at least `every` steps"):
        nino_schedule(999)


def test_records_survive_a_round_trip() -> None:
    """A record as plain values gives the same record back."""
    jump = Jump(3, 5, Outcome.KEPT, 0.1, 1.0, 0.9, 0.2, "stable", 0.5, 12.5, 64, 3, {"verifying": 0.1})
    assert Jump.from_dict(jump.to_dict()) == jump

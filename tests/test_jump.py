"""Jumps: controller, verification, transaction and the whole attempt."""

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typing_extensions import override

from deadreckon.forecast import Forecast, Forecaster, JumpError, Ledger, Window, pack
from deadreckon.forecast.jump import (
    ControllerState,
    HorizonController,
    Jump,
    JumpPolicy,
    JumpSetting,
    Outcome,
    Transaction,
    attempt_jump,
    compare_losses,
    probe_losses,
)


class To(Forecaster):
    """Forecasts a given vector with a given scale, whatever came before."""

    name = "to"

    def __init__(self, target: Tensor, scale: float = 0.0) -> None:
        super().__init__()
        self.target = target
        self.scale = scale

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            yield Forecast(horizon, self.target, torch.full_like(self.target, self.scale))


class Counter:
    """Other state that a trial may change."""

    value = 3

    def state_dict(self) -> dict[str, int]:
        """The state."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Put it back."""
        self.value = state["value"]


def _setting() -> tuple[nn.Module, torch.optim.Optimizer, Window, list[tuple[Tensor, Tensor]]]:
    """A network with batch norm and dropout after two Adam steps, a window at its weights, and held-out batches."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    batches = [(torch.randn(16, 3), torch.randn(16, 1)) for _ in range(2)]
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x), y).backward()
        optimizer.step()
    vector, layout = pack(module)
    return module, optimizer, Window(vector[None].clone(), torch.tensor([2]), layout), batches


def _probe(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    # Draws from the global generators on purpose: the transaction must put them back.
    _ = torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
    x, y = batch
    return (module(x) - y).square().mean(dim=1)


def _attempt(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    forecaster: Forecaster,
    window: Window,
    horizon: int,
    probe: Any,
    batches: Any,
    policy: JumpPolicy,
    ledger: Ledger,
    **options: Any,
) -> Jump:
    """One attempt in a setting of its own."""
    setting = JumpSetting(module, (optimizer,), probe, batches, policy, ledger, **options)
    return attempt_jump(setting, forecaster, window, horizon)


def _everything(module: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All state that a run continues from, random generators included, as tensors."""
    state = [value.clone() for value in module.state_dict().values()]
    state += [value.clone() for entry in optimizer.state.values() for value in entry.values()]
    state.append(torch.get_rng_state())
    state.append(torch.tensor([part.training for part in module.modules()]))
    state.append(torch.tensor(np.random.get_state()[1].astype(np.int64)))  # noqa: NPY002 # pyright: ignore
    state.append(torch.tensor([hash(random.getstate())]))
    return state


def _better(module: nn.Module, window: Window, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Weights with a lower held-out loss: a few plain gradient steps further in eval mode."""
    trial = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)).eval()
    trial.load_state_dict(module.state_dict())
    optimizer = torch.optim.SGD(trial.parameters(), lr=0.05)
    for _ in range(30):
        optimizer.zero_grad()
        sum(nn.functional.mse_loss(trial(x), y) for x, y in batches).backward()  # pyright: ignore
        optimizer.step()
    return pack(trial)[0]


@pytest.mark.parametrize("target", ["worse", "nan", "untrusted"])
def test_a_rejected_jump_leaves_everything_bit_equal(target: str) -> None:
    """Weights, buffers, optimiser state, modes and random generators are untouched by a jump that is not kept."""
    module, optimizer, window, batches = _setting()
    weights = window.last + 10
    if target == "nan":
        weights = weights * float("nan")
    scale = 1e6 if target == "untrusted" else 0.0
    before = _everything(module, optimizer)
    ledger = Ledger()
    jump = _attempt(
        module,
        optimizer,
        To(weights, scale),
        window,
        5,
        _probe,
        batches,
        JumpPolicy(max_looks=1),
        ledger,
        batch_size=16,
    )
    expected = {"worse": Outcome.NOT_BETTER, "nan": Outcome.NOT_FINITE, "untrusted": Outcome.UNTRUSTED}[target]
    assert jump.outcome is expected
    assert jump.outcome.rejected
    torch.testing.assert_close(_everything(module, optimizer), before, rtol=0, atol=0)
    if target == "worse":
        assert jump.margin < 0 < jump.loss_after - jump.loss_before
        assert set(ledger.activities) == {"forecasting", "loading", "copying", "verifying", "rolling back"}
        # Two passes over two batches of 16, a forward pass being a third of a gradient evaluation of 16.
        assert ledger.total.gradient_equivalents == pytest.approx(4 / 3)


def test_a_kept_jump_changes_the_weights_and_nothing_else() -> None:
    """After a kept jump the weights are the forecast ones; buffers, optimiser, modes and generators are as before."""
    module, optimizer, window, batches = _setting()
    target = _better(module, window, batches)
    before = _everything(module, optimizer)
    jump = _attempt(module, optimizer, To(target), window, 5, _probe, batches, JumpPolicy(), Ledger())
    assert jump.outcome is Outcome.KEPT
    assert jump.margin > 0
    assert jump.loss_after < jump.loss_before
    torch.testing.assert_close(pack(module)[0], target, rtol=0, atol=0)
    after = _everything(module, optimizer)
    names = list(module.state_dict())
    parameters = {names.index(name) for name, _ in module.named_parameters()}
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if index not in parameters:
            torch.testing.assert_close(new, old, rtol=0, atol=0)


def test_an_exception_in_the_probe_restores_everything() -> None:
    """A probe that fails at the jumped weights goes through as it is, after the weights are back."""
    module, optimizer, window, batches = _setting()
    before = _everything(module, optimizer)
    calls = []

    def failing(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(1)
        if len(calls) == 2:  # the first call is with the present weights
            assert not torch.equal(pack(module)[0], window.last)
            raise KeyError("data went away")
        return _probe(module, batch)

    with pytest.raises(KeyError, match="data went away"):
        _attempt(module, optimizer, To(window.last + 1), window, 5, failing, batches, JumpPolicy(), Ledger())
    torch.testing.assert_close(_everything(module, optimizer), before, rtol=0, atol=0)


def test_a_window_that_ends_elsewhere_is_refused() -> None:
    """Jumping from a history that does not end at the present weights is an error."""
    module, optimizer, window, batches = _setting()
    stale = Window(window.values + 1, window.steps, window.layout)
    with pytest.raises(JumpError, match="must end at the present weights"):
        _attempt(module, optimizer, To(window.last), stale, 5, _probe, batches, JumpPolicy(), Ledger())


def test_a_transaction_takes_back_what_was_added_to_the_optimiser() -> None:
    """New optimiser entries, changed ones and other state are put back on an exception."""
    module, optimizer, _, _ = _setting()

    counter = Counter()
    before = _everything(module, optimizer)
    parameter = next(iter(module.parameters()))
    with pytest.raises(RuntimeError, match="stop"), Transaction(module, optimizer, Ledger(), [counter]):
        optimizer.state[parameter]["extra"] = torch.zeros(1)
        optimizer.state[parameter]["exp_avg"].add_(1)
        optimizer.state[nn.Parameter(torch.zeros(1))] = {"step": torch.tensor(1.0)}
        counter.value = 4
        for buffer in module.buffers():
            buffer.add_(1)
        raise RuntimeError("stop")
    torch.testing.assert_close(_everything(module, optimizer), before, rtol=0, atol=0)
    assert counter.value == 3


def test_verification_asks_for_more_than_noise() -> None:
    """A fall of the mean loss is kept when it exceeds k paired standard errors, and its margin says by how much."""
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(100, generator=generator, dtype=torch.float64)
    noise = 0.2 * torch.randn(100, generator=generator, dtype=torch.float64)
    after = before - 0.05 + noise - noise.mean()
    error = float((before - after).std() / 10)
    for k, kept in ((0.0, True), (1.0, True), (3.0, False)):
        verdict = compare_losses(before, after, k)
        assert verdict.outcome is (Outcome.KEPT if kept else Outcome.NOT_BETTER)
        assert verdict.margin == pytest.approx(0.05 - k * error)
    assert compare_losses(before, before, 0.0).outcome is Outcome.NOT_BETTER
    assert compare_losses(before, after * float("nan"), 0.0).outcome is Outcome.NOT_FINITE


def test_probes_see_eval_mode_without_gradients() -> None:
    """A probe runs in eval mode without gradients; modes are put back, also those of submodules."""
    module = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
    module[1].eval()
    seen: list[tuple[bool, bool]] = []

    def probe(module: nn.Module, batch: Tensor) -> Tensor:
        seen.append((module.training, torch.is_grad_enabled()))
        return batch.mean()

    losses = probe_losses(module, probe, [torch.ones(2), torch.zeros(2)])
    assert losses.tolist() == [1.0, 0.0]
    assert seen == [(False, False)] * 2
    assert [part.training for part in module.modules()] == [True, True, False]


def test_one_loss_alone_is_no_evidence() -> None:
    """A single loss has no standard error: it is refused where one is asked for, and taken at its word where not."""
    before, after = torch.tensor([1.0]), torch.tensor([0.5])
    with pytest.raises(JumpError, match="has no standard error"):
        compare_losses(before, after, 1.0)
    assert compare_losses(before, after, 0.0).outcome is Outcome.KEPT


def test_what_is_not_finite_is_never_kept() -> None:
    """Weights that diverged end an opportunity, not the run; a forecast that cannot tell its error is not trusted."""
    module, optimizer, window, batches = _setting()
    target = _better(module, window, batches)
    options = (window, 5, _probe, batches, JumpPolicy(), Ledger())
    assert _attempt(module, optimizer, To(target, float("nan")), *options).outcome is Outcome.UNTRUSTED
    with torch.no_grad():
        next(module.parameters()).fill_(float("nan"))
    assert _attempt(module, optimizer, To(target), *options).outcome is Outcome.NOT_FINITE


def test_every_part_of_an_attempt_is_charged_its_time() -> None:
    """Slow loaders and slow probes are found in the ledger under their names, and other state is put back."""
    module, optimizer, window, batches = _setting()
    ledger = Ledger()

    counter = Counter()

    def slow(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        counter.value += 1
        time.sleep(0.01)
        return _probe(module, batch)

    class Loader:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in batches:
                time.sleep(0.02)
                yield batch

    _attempt(
        module,
        optimizer,
        To(window.last + 1),
        window,
        5,
        slow,
        Loader(),
        JumpPolicy(max_looks=1),
        ledger,
        others=[counter],
    )
    assert ledger.activities["verifying"].wall_seconds >= 0.04
    assert 0.04 <= ledger.activities["loading"].wall_seconds < ledger.total.wall_seconds
    assert ledger.activities["forecasting"].count == 1
    assert counter.value == 3


@pytest.mark.parametrize(
    ("probe", "batches", "message"),
    [
        (_probe, [], "at least one held-out batch"),
        (lambda module, batch: 3.0, [1], "must give a tensor of losses, .* got float"),
        (lambda module, batch: torch.zeros(2, 2), [1], r"got \(2, 2\)"),
    ],
)
def test_unusable_probes_are_refused(probe, batches: list, message: str) -> None:
    """No batch, or a probe that gives something else than losses, is an error."""
    with pytest.raises(JumpError, match=message):
        probe_losses(nn.Linear(1, 1), probe, batches)


def test_the_controller_grows_shrinks_and_rests() -> None:
    """Horizons grow when kept, shrink when rejected, and pauses double until a jump is kept."""
    controller = HorizonController([1, 2, 4], patience=2, cool_down=1)
    state = ControllerState()
    tried: list[int | None] = []
    outcomes = [Outcome.KEPT] * 3 + [Outcome.NOT_BETTER] * 8
    for outcome in outcomes:
        horizon, state = controller.propose(state)
        tried.append(horizon)
        state = controller.update(state, outcome if horizon is not None else Outcome.COOLING_DOWN)
    assert tried == [1, 2, 4, 4, 2, None, 1, 1, None, None, 1]
    assert controller.update(state, Outcome.KEPT) == ControllerState(position=1)
    assert controller.update(state, Outcome.NO_HISTORY) == state
    assert controller.nearby(ControllerState(position=1)) == (2, 1, 4)
    assert controller.at(state, 4) == state._replace(position=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizons": []}, "increasing numbers"),
        ({"horizons": [0, 1]}, "at least 1"),
        ({"horizons": [2, 1]}, "increasing"),
        ({"horizons": [1], "patience": 0}, "`patience`"),
        ({"horizons": [1], "cool_down": -1}, "`cool_down`"),
    ],
)
def test_impossible_controllers_are_refused(options: dict, message: str) -> None:
    """A controller needs increasing positive horizons and sensible counts."""
    with pytest.raises(JumpError, match=message):
        HorizonController(**options)


def test_impossible_policies_are_refused() -> None:
    """Thresholds out of range are refused, NaN included."""
    with pytest.raises(JumpError, match="`num_standard_errors`"):
        JumpPolicy(num_standard_errors=-1)
    with pytest.raises(JumpError, match="`max_relative_scale`"):
        JumpPolicy(max_relative_scale=float("nan"))


def test_batches_must_show_their_length() -> None:
    """A held-out batch without a tensor in front cannot be accounted for, and says so; dictionaries can."""
    module, optimizer, window, batches = _setting()

    def attempt(held_out: list) -> None:
        _attempt(
            module,
            optimizer,
            To(window.last + 1),
            window,
            5,
            lambda module, batch: torch.zeros(2),
            held_out,
            JumpPolicy(num_standard_errors=0),
            Ledger(),
            batch_size=16,
        )

    attempt([{"x": batches[0][0]}])
    attempt([batches[0][0]])
    with pytest.raises(JumpError, match="must hold a tensor first, got str"):
        attempt(["text"])

"""SkipAhead: what a jump leaves behind, under every setting it supports, and what it refuses."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
    TQDMProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from small_runs import NUM_STEPS, Away, Crash, Digits, fit, held_out, probe, weights
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from deadreckon.callbacks import GradientCompression, SkipAhead, TrajectoryRecorder, UnsupportedTrainerError
from deadreckon.callbacks.jump_budget import JumpBudget
from deadreckon.callbacks.jump_log import log_jump_table
from deadreckon.codec import CodecConfig
from deadreckon.experiments.tasks import load_task
from deadreckon.experiments.training import quiet_lightning
from deadreckon.forecast import Cost, Forecast, Forecaster, JumpError, Ledger, Window
from deadreckon.forecast.jump import Jump, JumpPolicy, Outcome
from deadreckon.models import make_forecaster

KEEN = JumpPolicy(num_standard_errors=0.0, max_relative_scale=1e9)


class Nearby(Forecaster):
    """Shrinks all weights a little, which is neither good nor bad."""

    name = "nearby"

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        for horizon in horizons:
            yield Forecast(horizon, window.last * (1 - 0.001 * horizon), torch.zeros_like(window.last))


def line() -> Forecaster:
    """The line through three rows, so that the first opportunity has a history."""
    return make_forecaster("linear", history=3)


def jumps(forecaster: str | Forecaster | None = None, every: int = 6, **options: Any) -> SkipAhead:
    """Jumps that follow the step alone, with several held-out batches."""
    (images, labels) = held_out()[0]
    batches = list(zip(images.split(64), labels.split(64), strict=True))[:4]
    given = {"horizons": (2, 4), "probe": probe, "batches": batches, "cost_share": None, "spacing": 2, **options}
    return SkipAhead(forecaster if forecaster is not None else line(), every, **given)


def blind(forecaster: str | Forecaster | None = None, **options: Any) -> SkipAhead:
    """Jumps that are all kept."""
    return jumps(forecaster, policy=JumpPolicy("always", max_relative_scale=1e9), patience=100, **options)


def kept(skip_ahead: SkipAhead) -> list[int]:
    """Steps of the jumps that were kept."""
    return [jump.step for jump in skip_ahead.jumps if jump.outcome.kept]


class Watch(pl.Callback):
    """Keeps the weights after each batch, as the callbacks after SkipAhead see them."""

    def __init__(self) -> None:
        self.seen: dict[int, Tensor] = {}

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        self.seen[trainer.global_step] = weights(pl_module).clone()


class TwoOptimizers(Digits):
    """Manual optimisation with one optimiser for each layer."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.automatic_optimization = False

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = functional.cross_entropy(self(images), labels)
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        return loss

    @override
    def configure_optimizers(self) -> Any:
        first, rest = self.network[1].parameters(), [*self.network[2].parameters(), *self.network[5].parameters()]
        return [torch.optim.Adam(first, lr=0.01), torch.optim.SGD(rest, lr=0.1, momentum=0.9)]


class Compiled(Digits):
    """A network of which `torch.compile` made a part."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        compiled: Any = torch.compile(self.network[5], backend="eager")
        self.network[5] = compiled


SETTINGS: dict[str, tuple[Callable[[], pl.LightningModule], dict[str, Any]]] = {
    "plain": (Digits, {}),
    "accumulation": (Digits, {"accumulate_grad_batches": 2}),
    "clipping": (Digits, {"gradient_clip_val": 0.1}),
    "bf16-mixed": (Digits, {"precision": "bf16-mixed"}),
    "bf16-true": (lambda: Digits(dropout=0.0), {"precision": "bf16-true"}),
    "64-true": (lambda: Digits(dropout=0.0), {"precision": "64-true"}),
    "several optimisers": (TwoOptimizers, {}),
    "compiled": (Compiled, {}),
}


def _steps(name: str) -> int:
    return 24 * (2 if name == "several optimisers" else 1)  # which Lightning counts twice a batch


# What torch.compile says of itself to a layer inside a network.
@pytest.mark.filterwarnings("ignore:.*non-leaf Tensor:UserWarning")
@pytest.mark.parametrize(
    "name", [name if name == "bf16-mixed" else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS]
)
def test_under_every_setting_rejected_jumps_change_nothing_and_kept_ones_are_gone_on_from(name: str) -> None:
    """Rejected jumps leave the run bit-equal to one without; a kept one is what the next step starts from."""
    make, options = SETTINGS[name]
    plain = fit([], make(), _steps(name), **options)
    away = jumps(Away(), cool_down=0)
    tried = fit([away], make(), _steps(name), **options)
    assert [jump.step for jump in away.jumps] == [6, 12, 18, 24]
    assert {jump.outcome for jump in away.jumps if jump.step > 6} == {Outcome.NOT_BETTER}
    torch.testing.assert_close(tried.state_dict(), plain.state_dict(), rtol=0, atol=0)
    taken, watch = blind(Nearby()), Watch()
    fit([taken, watch], make(), _steps(name), **options)
    assert kept(taken)[-1] == 24
    per_batch = _steps(name) // 24
    before, after = watch.seen[23 * per_batch].double(), watch.seen[24 * per_batch].double()
    # From the jumped weights, which are 0.2 or 0.4 % shorter than those that the last step came to.
    assert float((after - before).norm()) > 0


class Stop(BaseException):
    """What ends a run and is no `Exception`."""


@pytest.mark.parametrize(
    "where", ["interrupt", *(pytest.param(name, marks=pytest.mark.slow) for name in ("probe", "loader", "schedule"))]
)
def test_a_crash_inside_a_jump_restores_everything(tmp_path: Path, where: str) -> None:
    """Whatever ends a run inside a jump leaves weights, buffers, optimiser, codec and generators as before it."""
    error: type[BaseException] = {"probe": ValueError, "interrupt": Stop}.get(where, RuntimeError)
    states: list[Any] = []

    def everything(compression: GradientCompression, module: pl.LightningModule) -> Any:
        encoder, decoder = compression.stateful
        optimizer = module.trainer.optimizers[0]
        state = [value.clone() for value in module.state_dict().values()]
        state += [value.clone() for entry in optimizer.state.values() for value in entry.values()]
        state += [torch.tensor(optimizer.param_groups[0]["lr"]), torch.get_rng_state()]
        return state, encoder.state_dict(), decoder.state_dict()

    class Before(pl.Callback):
        @override
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
        ) -> None:
            if trainer.global_step == 6:
                states.append(everything(compression, pl_module))

    class Failing:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[Any]:
            torch.rand(1)
            yield held_out()[0]
            raise RuntimeError("stop")

    calls: list[int] = []

    def failing(module: torch.nn.Module, batch: Any) -> Tensor:
        calls.append(1)
        encoder, _ = compression.stateful
        encoder.encode(torch.ones(encoder.layout.size), encoder.last_step + 1)
        if len(calls) == 2:
            raise error("stop")
        return probe(module, batch)

    compression = GradientCompression(CodecConfig("fitted", "Z", nmse=0.1, feedback="classic"))
    recorder = TrajectoryRecorder(tmp_path / "t", 1)
    options: dict[str, Any] = {"spacing": None, "policy": replace(KEEN, max_looks=1)}
    if where in ("probe", "interrupt"):
        options["probe"] = failing
    if where == "loader":
        options["batches"] = Failing()
    if where == "schedule":
        options |= {"policy": JumpPolicy("always", max_relative_scale=1e9), "moments": "reset", "schedule": "advances"}
    skip_ahead = jumps(**options)
    module = Halved()
    if where == "schedule":
        module.fail_at = 8
    with pytest.raises(error, match="stop"):
        fit([recorder, compression, Before(), skip_ahead], module, 12)
    assert len(states) == 1
    now = everything(compression, module)
    torch.testing.assert_close(now[0], states[0][0], rtol=0, atol=0)
    torch.testing.assert_close(now[1:], states[0][1:], rtol=0, atol=0, equal_nan=True)
    assert skip_ahead.jumps == []


class Halved(Digits):
    """Digits with a schedule by the step, which may be made to fail."""

    fail_at = -1

    @override
    def configure_optimizers(self) -> Any:
        def factor(step: int) -> float:
            if step == self.fail_at:
                raise RuntimeError("stop")
            return 0.5**step

        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def test_a_schedule_advances_by_the_horizon_or_stays() -> None:
    """After a kept jump the learning rate is that of so many steps later, or of the step itself."""
    for schedule, factor in (("stays", 6), ("advances", 8)):
        module = Halved()
        skip_ahead = blind(schedule=schedule, horizons=(2,))
        fit([skip_ahead], module, 6)
        assert kept(skip_ahead) == [6]
        assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.5**factor)
    with pytest.raises(UnsupportedTrainerError, match="needs a learning-rate schedule with the interval 'step'"):
        fit([blind(schedule="advances")], Digits(), 6)


def test_a_one_cycle_schedule_ends_at_its_end() -> None:
    """A schedule that knows its end is not stepped beyond it."""

    class Cycle(Digits):
        @override
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=9)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    module = Cycle()
    skip_ahead = blind(schedule="advances", horizons=(4,))
    fit([skip_ahead], module, 6)
    assert kept(skip_ahead) == [6]
    assert module.trainer.lr_scheduler_configs[0].scheduler.last_epoch == 8


@pytest.mark.slow
@pytest.mark.parametrize("with_recorder", [True, False], ids=["recorder", "rows"])
def test_resumed_in_a_cool_down_equals_uninterrupted(tmp_path: Path, with_recorder: bool) -> None:
    """Crashed and resumed while waiting after rejections, a run equals an uninterrupted one, its jumps too."""

    def callbacks(folder: Path) -> tuple[list[pl.Callback], SkipAhead]:
        compression = GradientCompression(CodecConfig("fitted", "Z", nmse=0.1, feedback="classic"))
        skip_ahead = jumps(
            Sometimes(), 2, patience=1, cool_down=3, policy=KEEN, spacing=None if with_recorder else 1, moments="reset"
        )
        recorder = [TrajectoryRecorder(folder, 1)] if with_recorder else []
        return [*recorder, compression, skip_ahead], skip_ahead

    straight, first = callbacks(tmp_path / "a")
    expected = fit(straight, Digits(dropout=0.0))
    assert {jump.outcome for jump in first.jumps if 18 <= jump.step <= 28} == {Outcome.COOLING_DOWN}
    assert kept(first)
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=21, save_top_k=-1)
    broken, _ = callbacks(tmp_path / "b")
    with pytest.raises(SystemExit):
        fit([*broken, checkpoint, Crash(24)], Digits(dropout=0.0), enable_checkpointing=True)
    (path,) = tmp_path.glob("*step=21.ckpt")
    state = torch.load(path, weights_only=True)["callbacks"]["SkipAhead"]
    assert state["controller"][2] > 0  # still waiting
    again, second = callbacks(tmp_path / "b")
    resumed = fit(again, Digits(dropout=0.0), checkpoint=path)
    torch.testing.assert_close(resumed.state_dict(), expected.state_dict(), rtol=0, atol=0)

    def story(skip_ahead: SkipAhead) -> list[tuple]:
        return [
            (jump.step, jump.horizon, jump.outcome, repr(jump.margin), repr(jump.credited), jump.regime)
            for jump in skip_ahead.jumps
        ]

    assert story(second) == story(first)
    assert second.effective_step == first.effective_step
    counts = [{name: cost.count for name, cost in each.ledger.activities.items()} for each in (first, second)]
    assert counts[0] == counts[1]


class Sometimes(Forecaster):
    """The line through the last rows, and at every second step something far away."""

    name = "sometimes"
    history = 2

    @override
    def _forecast(self, window: Window, horizons: Sequence[int]) -> Iterator[Forecast]:
        away = 5.0 if window.last_step % 8 == 0 else 0.0
        for horizon in horizons:
            mean = window.last + 0.5 * (window.last - window.values[0]) + away
            yield Forecast(horizon, mean, torch.zeros_like(window.last))


@pytest.mark.slow
def test_own_rows_jump_as_the_recorder_does(tmp_path: Path) -> None:
    """With the same spacing, jumps from rows in memory equal jumps from the recorder, bit for bit."""
    # Four rows reach back to the last jump, so that the jumped weights are in the history.
    from_recorder = blind(make_forecaster("linear", history=4), spacing=None)
    from_rows = blind(make_forecaster("linear", history=4), spacing=2)
    one = fit([TrajectoryRecorder(tmp_path / "t", 2), from_recorder])
    two = fit([from_rows])
    assert kept(from_recorder) == kept(from_rows) != []
    torch.testing.assert_close(two.state_dict(), one.state_dict(), rtol=0, atol=0)


def test_a_blind_jump_measures_nothing() -> None:
    """The rule `always` never calls the probe, keeps every trusted jump, and credits it with nothing known."""

    def forbidden(module: torch.nn.Module, batch: Any) -> Tensor:
        raise AssertionError("called")

    skip_ahead = blind(probe=forbidden)
    fit([skip_ahead], num_steps=24)
    assert len(kept(skip_ahead)) == 4
    assert "verifying" not in skip_ahead.ledger.activities
    assert all(math.isnan(jump.credited) and math.isnan(jump.margin) for jump in skip_ahead.jumps)
    assert skip_ahead.effective_step == 24


def test_a_published_schedule_is_followed() -> None:
    """A function of the step decides where and how far to jump, from the first step on that is allowed."""
    skip_ahead = blind(horizons=lambda step: 3 if step % 12 == 0 else None, every=6, start=20)
    fit([skip_ahead], num_steps=48)
    assert [(jump.step, jump.horizon, jump.outcome) for jump in skip_ahead.jumps] == [
        (24, 3, Outcome.KEPT),
        (36, 3, Outcome.KEPT),
        (48, 3, Outcome.KEPT),
    ]


@pytest.mark.slow
def test_credits_make_the_effective_step() -> None:
    """Kept jumps are credited by measurement; the effective step adds what is known of them to the real steps."""
    skip_ahead = jumps(every=4, policy=KEEN, cool_down=0, batch_size=32)
    fit([skip_ahead])
    credited = [jump.credited for jump in skip_ahead.jumps if jump.outcome.kept]
    assert any(math.isfinite(value) and value != 0 for value in credited)
    known = sum(value for value in credited if math.isfinite(value))
    assert skip_ahead.effective_step == pytest.approx(NUM_STEPS + known)
    assert all(jump.credited == 0 for jump in skip_ahead.jumps if not jump.outcome.kept)


@pytest.mark.slow
def test_worth_it_rejects_what_ordinary_steps_would_give() -> None:
    """Where verification costs many ordinary steps, jumps that lower the loss by less are rejected for that reason."""
    outcomes = {}
    for batch_size in (1, 10**6):
        policy = JumpPolicy("worth_it", num_standard_errors=0.0, max_relative_scale=1e9)
        skip_ahead = jumps(every=4, policy=policy, cool_down=0, batch_size=batch_size)
        fit([skip_ahead])
        outcomes[batch_size] = [jump.outcome for jump in skip_ahead.jumps]
    assert Outcome.NOT_WORTH_IT in outcomes[1]  # where a step sees one sample, 256 samples cost 170 steps
    assert outcomes[10**6].count(Outcome.KEPT) > outcomes[1].count(Outcome.KEPT)
    assert Outcome.NOT_WORTH_IT not in outcomes[10**6]


@pytest.mark.slow
def test_several_scales_and_horizons_are_screened() -> None:
    """The candidate that is best on the first batch goes into the test, and the record says how many there were."""
    skip_ahead = jumps(step_scales=(0.5, 1.0, 50.0), num_horizons=2, policy=KEEN, cool_down=0)
    fit([skip_ahead])
    proposed = [jump for jump in skip_ahead.jumps if jump.outcome.proposed]
    assert {jump.num_candidates for jump in proposed} == {6}
    assert 50.0 not in {jump.step_scale for jump in proposed if jump.outcome.kept}
    assert {jump.step_scale for jump in proposed if jump.outcome.kept} <= {0.5, 1.0}
    assert skip_ahead.ledger.activities["screening"].count == len(proposed)
    with pytest.raises(JumpError, match="Several candidates need at least two held-out batches"):
        fit([jumps(step_scales=(0.5, 1.0), batches=held_out())], num_steps=12)


def test_statistics_are_re_estimated_charged_and_put_back() -> None:
    """Batch normalisation is measured at the jumped weights; after a rejection it is what it was, bit for bit."""
    images = load_task("digits").train.inputs[:64]
    skip_ahead = blind(Nearby(), horizons=(2,), batch_norm_batches=[(images, None)], batch_size=32)
    module = fit([skip_ahead], Digits(dropout=0.0), 6)
    assert kept(skip_ahead) == [6]
    assert skip_ahead.ledger.activities["re-estimating"].count == 1
    assert skip_ahead.ledger.total.gradient_equivalents == pytest.approx(64 / 96)
    network: Any = module.network
    inputs = network[1](images.flatten(1)).detach()
    torch.testing.assert_close(network[2].running_mean, inputs.mean(dim=0))
    torch.testing.assert_close(network[2].running_var, inputs.var(dim=0))
    away = jumps(Away(), batch_norm_batches=[(images, None)])
    rejected = fit([away], num_steps=12)
    assert away.ledger.activities["re-estimating"].count == 2
    torch.testing.assert_close(rejected.state_dict(), fit([], num_steps=12).state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_averaging_callbacks_see_whole_jumps_only() -> None:
    """EMA averages the weights that the run went on from, by its own formula; rejected jumps do not touch it."""
    for order in (1, -1):
        watch, average = Watch(), EMAWeightAveraging(decay=0.8)
        skip_ahead = blind()
        module = fit([skip_ahead, average, watch][::order], Digits(dropout=0.0), 12)
        assert kept(skip_ahead) == [6, 12]
        if order == 1:
            # The average starts from the first weights that it sees.
            expected = watch.seen[1].double()
            for step in range(2, 13):
                expected = 0.8 * expected + 0.2 * watch.seen[step].double()
            torch.testing.assert_close(weights(module), expected.float(), rtol=1e-4, atol=1e-6)
    runs = []
    for extra in ([], [jumps(Away(), cool_down=0)]):
        average = EMAWeightAveraging(decay=0.8)
        fit([*extra, average], num_steps=12)
        runs.append(average._average_model)
    torch.testing.assert_close(runs[1].state_dict(), runs[0].state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_swa_goes_with_rejected_jumps_and_kept_ones(tmp_path: Path) -> None:
    """With SWA, whose last epoch makes no steps, rejected jumps leave the average bit-equal; kept ones run through."""
    results = []
    for skip_ahead in (None, jumps(Away(), cool_down=0), blind()):
        average = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2)
        callbacks: list[pl.Callback] = [average] if skip_ahead is None else [skip_ahead, average]
        loader = _loader(10)
        results.append(_epochs(callbacks, Digits(), loader, 4))
        if skip_ahead is not None:
            assert max(jump.step for jump in skip_ahead.jumps) == 36
    torch.testing.assert_close(results[1].state_dict(), results[0].state_dict(), rtol=0, atol=0)
    assert not torch.equal(weights(results[2]), weights(results[0]))


def _loader(num_batches: int) -> torch.utils.data.DataLoader[Any]:
    """The same batches in every epoch."""
    images, labels, *_ = load_task("digits").train
    data = torch.utils.data.TensorDataset(images[: 32 * num_batches], labels[: 32 * num_batches])
    return torch.utils.data.DataLoader(data, batch_size=32)


def _epochs(callbacks: list[pl.Callback], module: pl.LightningModule, loader: Any, epochs: int, **options: Any) -> Any:
    torch.manual_seed(2)
    given: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, **options}
    images = torch.zeros(2, 1, 8, 8)
    validation = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.zeros(2).long()))
    with quiet_lightning():
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=epochs, callbacks=callbacks, enable_model_summary=False, **given
        )
        trainer.fit(module, loader, validation if isinstance(module, Validated) else None)
    return module


class Validated(Digits):
    """Digits that validate, and remember the weights they validated."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.validated: dict[int, Tensor] = {}

    @override
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated[self.global_step] = weights(self).clone()
        self.log("score", -float(self.global_step))


def test_validation_checkpoints_and_early_stopping_see_the_jumped_weights(tmp_path: Path) -> None:
    """What is validated, watched and saved at a step with a kept jump are the weights after it."""
    watch, skip_ahead = Watch(), blind()
    checkpoint = ModelCheckpoint(tmp_path, monitor="score", mode="min", save_top_k=-1, filename="{step}")
    stopping = EarlyStopping("score", mode="max", patience=1)
    module = Validated()
    loader = _loader(12)
    # The checkpoint before SkipAhead in the list: Lightning itself puts it last.
    _epochs([checkpoint, stopping, skip_ahead, watch], module, loader, 10, enable_checkpointing=True)
    assert kept(skip_ahead) == [6, 12, 18, 24]
    assert sorted(module.validated) == [0, 12, 24]  # early stopping ended the run in the second epoch
    for step in (12, 24):
        torch.testing.assert_close(module.validated[step], watch.seen[step], rtol=0, atol=0)
        state = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)
        other = Validated()
        other.load_state_dict(state["state_dict"])
        torch.testing.assert_close(weights(other), watch.seen[step], rtol=0, atol=0)
        assert state["callbacks"]["SkipAhead"]["jumps"][-1]["step"] == step


def test_the_budget_holds_the_share() -> None:
    """An attempt is affordable only where the ledger with it stays within the share; its state can be saved."""
    ledger = Ledger()
    budget = JumpBudget(0.1, ledger)
    budget.load_state_dict({"seconds": 100.0, "newest": [], "first_step": 0})
    budget.start(50)
    budget.now_at(100)
    assert budget.step_seconds() == pytest.approx(1.0, rel=1e-2)
    assert budget.affordable()
    ledger.add("verifying", Cost(cpu_seconds=7.0))
    assert budget.share == pytest.approx(0.07, rel=1e-2)
    budget.attempted(7.0)
    assert not budget.affordable()
    for _ in range(3):
        budget.attempted(1.0)
    assert budget.affordable()
    assert budget.state_dict()["newest"] == [1.0, 1.0, 1.0]
    free = JumpBudget(None, ledger)
    assert free.affordable()
    assert math.isnan(free.step_seconds())


def test_opportunities_beyond_the_budget_are_let_pass() -> None:
    """With a tiny share one attempt at most is made, and the others are on record as over the budget."""
    skip_ahead = jumps(cost_share=1e-6)
    fit([skip_ahead], num_steps=24)
    assert [jump.outcome for jump in skip_ahead.jumps] == [Outcome.OVER_BUDGET] * 4


def test_metrics_progress_bar_and_table_tell_of_the_jumps(tmp_path: Path) -> None:
    """Loggers get every proposed jump with its regime, and the progress bar the counts and the share."""
    logger = CSVLogger(tmp_path, name="", version="csv")
    skip_ahead = blind()
    loader = _loader(24)
    bar = TQDMProgressBar(refresh_rate=0)
    module = _epochs([skip_ahead, bar], Digits(), loader, 1, logger=logger, enable_progress_bar=True)
    metrics = module.trainer.progress_bar_metrics
    assert (metrics["jumps_kept"], metrics["jumps_tried"]) == (4, 4)
    assert 0 < metrics["jump_cost"] < 1
    logger.save()
    text = (tmp_path / "csv" / "metrics.csv").read_text()
    header = text.splitlines()[0].split(",")
    assert {"jump/regime", "jump/turn", "jump/effective_step", "jump/cost_share", "jump/credited"} <= set(header)


def test_wandb_gets_a_table_of_all_opportunities() -> None:
    """At the end wandb loggers are given one row an opportunity, under named columns; others are left alone."""
    tables: list[dict[str, Any]] = []

    class Fake(WandbLogger):
        def __init__(self) -> None:
            return None

        @override
        def log_table(self, key: str, *args: Any, **kwargs: Any) -> None:
            tables.append({"key": key, **kwargs})

    seen = [Jump(4, 2, Outcome.KEPT, costs={"verifying": 0.5, "copying": 0.25}), Jump(8, 0, Outcome.COOLING_DOWN)]
    trainer: Any = SimpleNamespace(loggers=[Fake(), CSVLogger("nowhere")], is_global_zero=True)
    log_jump_table(trainer, seen)
    (table,) = tables
    assert table["key"] == "jump/all"
    first = dict(zip(table["columns"], table["data"][0], strict=True))
    assert (first["step"], first["outcome"], first["cpu_seconds"]) == (4, "kept", 0.75)
    assert len(table["data"]) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jumps(schedule="hurries"), "`schedule` must be stays or advances"),
        (lambda: jumps(step_scales=(0.0,)), "`step_scales` must be numbers above 0"),
        (lambda: jumps(num_horizons=0), "`num_horizons` must be at least 1"),
        (lambda: jumps(cost_share=0.0), "`cost_share` must be above 0"),
        (lambda: jumps(start=-1), "`start` must be at least 0"),
        (lambda: jumps(spacing=0), "`spacing` at least 1"),
        (lambda: jumps(moments="hope"), "`moments` must be one of"),
        (lambda: jumps(batch_norm_batches=iter([])), "`batch_norm_batches` .* must not be an iterator"),
    ],
)
def test_impossible_options_are_refused(make: Any, message: str) -> None:
    """Options that cannot work are refused when the callback is made."""
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_not_supported_is_refused_by_name() -> None:
    """Half precision with a scaler, LBFGS, moments of several optimisers and unknown strategies are named."""
    from lightning.pytorch.plugins import DoublePrecision
    from lightning.pytorch.strategies import SingleDeviceStrategy

    class Half(DoublePrecision):
        precision = "16-mixed"  # pyright: ignore

    with pytest.raises(UnsupportedTrainerError, match="SkipAhead supports precision .*, got '16-mixed'"):
        fit([jumps()], plugins=[Half()])

    class Sharded(SingleDeviceStrategy):
        pass

    with pytest.raises(UnsupportedTrainerError, match="several with DDPStrategy; this Trainer has Sharded"):
        fit([jumps()], strategy=Sharded(torch.device("cpu")))

    class Closure(Digits):
        @override
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(UnsupportedTrainerError, match="does not support LBFGS"):
        fit([jumps()], Closure())
    with pytest.raises(UnsupportedTrainerError, match="needs torch's Adam or AdamW .*, got Adam, SGD"):
        fit([jumps("optimizer_moments")], TwoOptimizers())
    with pytest.raises(JumpError, match="'transport' needs torch's Adam"):
        fit([jumps(moments="transport")], Digits("sgd"))

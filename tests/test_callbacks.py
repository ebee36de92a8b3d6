"""OnlineForecaster, SkipAhead and GradientCompression, alone and all together."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from small_runs import NUM_STEPS, Away, Crash, Digits, fit, held_out, probe, weights
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from deadreckon.callbacks import (
    GradientCompression,
    OnlineForecaster,
    ResumeError,
    SkipAhead,
    TrajectoryRecorder,
    UnsupportedTrainerError,
)
from deadreckon.callbacks.support import plain_learning_rate
from deadreckon.codec import CodecConfig
from deadreckon.experiments.tasks import load_task
from deadreckon.forecast import Forecaster, Trajectory
from deadreckon.forecast.jump import JumpPolicy, Outcome
from deadreckon.models import make_forecaster

ALL = ("hold", "linear", "learned_linear", "neural_ode")
CONFIG = CodecConfig("fitted", "Z", nmse=0.1)
OWING = CodecConfig("fitted", nmse=0.5, entropy="runs", hold="mean_rate", bits=0.7, feedback="classic")


def everything(
    folder: Path,
    forecaster: str | Forecaster | None = "online",
    policy: JumpPolicy | None = None,
    forecasters: tuple[str, ...] = ALL,
    config: CodecConfig = CONFIG,
) -> dict[str, Any]:
    """All callbacks, with a schedule that follows the step alone."""
    short = {  # fitted, and jumping, before half of the run
        "neural_ode": {"coordinates": "pca", "history": 5},
        "nino": {"width": 4, "samples": 32, "nodes": 4},
    }
    trained = [make_forecaster(name, **short.get(name, {})) for name in forecasters]
    made: dict[str, Any] = {
        "recorder": TrajectoryRecorder(folder, {"weights": 1, "gradients": 2}, ("weights", "gradients")),
        "online": OnlineForecaster(
            trained,
            horizons=(1, 2, 4),
            every=10,
            share=None,
            iterations=5,
            window_rows=40,
        ),
        "compression": GradientCompression(config),
    }
    if forecaster is not None:
        made["skip_ahead"] = SkipAhead(
            forecaster,
            every=3,
            horizons=(1, 2, 4),
            probe=probe,
            batches=held_out(),
            policy=policy,
            batch_size=32,
            cost_share=None,
        )
    return made


def _streams(path: Path) -> dict[str, tuple[list[int], np.ndarray]]:
    with Trajectory.open(path) as trajectory:
        return {
            name: (trajectory.stream(name).steps.tolist(), trajectory.stream(name)[:]) for name in trajectory.streams
        }


def _same_streams(first: Path, second: Path) -> None:
    one, two = _streams(first), _streams(second)
    for name in one:
        assert one[name][0] == two[name][0]
        np.testing.assert_array_equal(one[name][1], two[name][1])


@pytest.mark.parametrize("config", [CONFIG, pytest.param(OWING, marks=pytest.mark.slow)], ids=["bound", "owing"])
def test_a_rejected_jump_leaves_the_run_as_it_was(tmp_path: Path, config: CodecConfig) -> None:
    """With all callbacks on, a run whose jumps are all rejected equals one without jumps, bit for bit."""
    few = ("linear", "learned_linear")
    jumping = everything(tmp_path / "a", Away(), forecasters=few, config=config)
    plain = everything(tmp_path / "b", None, forecasters=few, config=config)
    # A loader that draws from the global generator, and a probe that moves the codec's state: both are put back.
    verify = load_task("digits").verify
    jumping["skip_ahead"].batches = DataLoader(TensorDataset(*verify), batch_size=64, shuffle=True)

    def meddling(module: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        encoder, _ = jumping["compression"].stateful
        encoder.encode(torch.ones(encoder.layout.size), encoder.last_step + 1)
        return probe(module, batch)

    jumping["skip_ahead"].probe = meddling
    with_jumps = fit(list(jumping.values()))
    without = fit(list(plain.values()))
    outcomes = [jump.outcome for jump in jumping["skip_ahead"].jumps]
    assert outcomes.count(Outcome.NOT_BETTER) >= 3
    assert not any(outcome.kept for outcome in outcomes)
    torch.testing.assert_close(with_jumps.state_dict(), without.state_dict(), rtol=0, atol=0)
    _same_streams(tmp_path / "a", tmp_path / "b")
    assert jumping["compression"].num_bytes == plain["compression"].num_bytes


@pytest.mark.parametrize(
    ("forecasters", "config"),
    [
        (ALL, CONFIG),
        pytest.param(("learned_linear",), CONFIG, marks=pytest.mark.slow),
        pytest.param(("neural_ode",), CONFIG, marks=pytest.mark.slow),
        pytest.param(("nino",), CONFIG, marks=pytest.mark.slow),
        pytest.param(("linear",), OWING, marks=pytest.mark.slow),
    ],
    ids=["all", "learned_linear", "neural_ode", "nino", "owing"],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    tmp_path: Path, forecasters: tuple[str, ...], config: CodecConfig
) -> None:
    """With all callbacks on and jumps kept, a crashed and resumed run equals one that never stopped, bit for bit."""
    policy = JumpPolicy(num_standard_errors=0.0, max_relative_scale=1e9)
    straight = everything(tmp_path / "a", policy=policy, forecasters=forecasters, config=config)
    # Without dropout: Lightning's checkpoints do not hold the global random generators.
    expected = fit(list(straight.values()), Digits(dropout=0.0))
    kept = [jump.step for jump in straight["skip_ahead"].jumps if jump.outcome.kept]
    assert kept[0] < 41 < kept[-1]
    # Between the checkpoint at step 41 and the next fit at 50, what was learned before must still be there.
    assert any(jump.outcome.proposed and 41 < jump.step < 50 for jump in straight["skip_ahead"].jumps)

    first = everything(tmp_path / "b", policy=policy, forecasters=forecasters, config=config)
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=41, save_top_k=-1)
    with pytest.raises(SystemExit):
        fit([*first.values(), checkpoint, Crash(45)], Digits(dropout=0.0), enable_checkpointing=True)
    (path,) = tmp_path.glob("*step=41.ckpt")
    # What a process that died leaves behind: rows after the checkpoint, to be cut on resume.
    assert _streams(tmp_path / "b")["weights"][0][-1] == 45

    second = everything(tmp_path / "b", policy=policy, forecasters=forecasters, config=config)
    resumed = fit(list(second.values()), Digits(dropout=0.0), checkpoint=path)
    torch.testing.assert_close(resumed.state_dict(), expected.state_dict(), rtol=0, atol=0)
    _same_streams(tmp_path / "a", tmp_path / "b")
    assert second["compression"].num_bytes == straight["compression"].num_bytes
    assert second["compression"].num_packets == NUM_STEPS
    assert second["compression"].nmse == straight["compression"].nmse
    states = [each["compression"].state_dict()["encoder"] for each in (second, straight)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0, equal_nan=True)
    if config is OWING:
        assert states[0]["feedback.residual"].norm() > 0

    def story(skip_ahead: SkipAhead) -> list[tuple]:
        return [(jump.step, jump.horizon, jump.outcome, repr(jump.margin)) for jump in skip_ahead.jumps]

    assert story(second["skip_ahead"]) == story(straight["skip_ahead"])
    scores = [
        [(item.step, item.forecaster, item.horizon, item.skill) for item in each.scores]
        for each in (second["online"], straight["online"])
    ]
    assert scores[0] == scores[1]
    for name in ("recorder", "online", "compression", "skip_ahead"):
        counts = [
            {key: cost.count for key, cost in each[name].ledger.activities.items() if key != "tracing"}
            for each in (second, straight)
        ]
        if name != "recorder":  # which opened its store once more, as a graph is traced once more
            assert counts[0] == counts[1]


def test_a_kept_jump_is_an_event_that_no_window_spans(tmp_path: Path) -> None:
    """After a kept jump the trajectory has a breaking event and the jumped weights, from which the run goes on."""
    recorder = TrajectoryRecorder(tmp_path / "t", 1)
    policy = JumpPolicy(num_standard_errors=0.0, max_relative_scale=1e9)
    skip_ahead = SkipAhead("linear", 8, (2,), probe, held_out(), policy=policy, patience=100, cost_share=None)
    lengths: dict[int, int] = {}

    class Count(pl.Callback):
        @override
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
        ) -> None:
            lengths[trainer.global_step] = sum(recorder.window(count) is not None for count in range(1, 50))
            torch.testing.assert_close(recorder.window(1).last, weights(pl_module), rtol=0, atol=0)  # pyright: ignore

    fit([recorder, skip_ahead, Count()])
    kept = [jump.step for jump in skip_ahead.jumps if jump.outcome.kept]
    assert kept
    with Trajectory.open(tmp_path / "t") as trajectory:
        assert [event.step for event in trajectory.events if event.kind == "jump"] == kept
        assert all(event.breaks for event in trajectory.events)
        assert len(trajectory.stream("weights").segments) == len(kept) + 1
        steps = trajectory.stream("weights").steps.tolist()
        assert [steps.count(step) for step in kept] == [2] * len(kept)
    for step in kept:
        assert lengths[step] == 1
        assert lengths[step + 1] == 2
    first = skip_ahead.jumps[0]
    assert (first.step, first.outcome.proposed) == (8, True)
    spent = skip_ahead.ledger.total
    assert 0 < spent.wall_seconds
    assert sum(jump.wall_seconds for jump in skip_ahead.jumps) >= spent.wall_seconds * 0.5


def test_jumps_wait_for_history_and_for_a_fitted_forecaster(tmp_path: Path) -> None:
    """An opportunity without enough rows, or before the first fit, is recorded as such and changes nothing."""
    online = OnlineForecaster(("learned_linear",), (2,), every=20, share=None)
    skip_ahead = SkipAhead("online", 4, (2,), probe, held_out(), cost_share=None)
    fit([TrajectoryRecorder(tmp_path / "a", 2), online, skip_ahead], num_steps=16)
    assert {jump.outcome for jump in skip_ahead.jumps} == {Outcome.NO_FORECASTER}
    skip_ahead = SkipAhead(make_forecaster("linear", history=5), 4, (2,), probe, held_out(), cost_share=None)
    fit([TrajectoryRecorder(tmp_path / "b", 4), skip_ahead], num_steps=12)
    assert {jump.outcome for jump in skip_ahead.jumps} == {Outcome.NO_HISTORY}


def test_a_horizon_without_skill_does_not_stall_the_run(tmp_path: Path) -> None:
    """Where the longer horizon that a kept jump leads to has no forecaster with skill, shorter ones are tried on."""
    online = OnlineForecaster(("linear",), (2, 4), every=20, share=None)
    linear = online.forecasters["linear"]
    online.best = lambda horizon: linear if horizon == 2 else None
    policy = JumpPolicy(num_standard_errors=0.0, max_relative_scale=1e9)
    skip_ahead = SkipAhead("online", 12, (2, 4), probe, held_out(), policy=policy, patience=100, cost_share=None)
    fit([TrajectoryRecorder(tmp_path / "t", 2), online, skip_ahead])
    assert any(jump.outcome.kept for jump in skip_ahead.jumps[:-1])
    assert {jump.horizon for jump in skip_ahead.jumps} == {2}


def test_callbacks_start_afresh_in_a_second_run(tmp_path: Path) -> None:
    """Counters, scores, jumps and costs of one run do not enter those of the next."""
    compression = GradientCompression(CodecConfig("none", lattice="raw"))
    online = OnlineForecaster(("linear",), (1,), every=20, share=None)
    skip_ahead = SkipAhead("linear", 12, (2,), probe, held_out(), cost_share=None)
    for number, digits in enumerate((Digits(), Digits())):
        digits.network.append(torch.nn.Linear(10, 10 * (number + 1)))
        fit([TrajectoryRecorder(tmp_path / str(number), 1), compression, online, skip_ahead], digits, num_steps=24)
    assert compression.num_packets == 24
    assert 32 <= compression.bits_per_coordinate < 34
    assert [item.step for item in online.scores] == [20]
    assert [jump.step for jump in skip_ahead.jumps] == [12, 24]
    assert compression.ledger.activities["encoding"].count == 24


def test_compression_needs_no_logging_and_outlives_fit(tmp_path: Path) -> None:
    """Logging may be off, and a checkpoint may be saved by a Trainer that only validated."""
    compression = GradientCompression()
    assert compression.state_dict() == {}
    compression.load_state_dict({})
    module = fit([compression], num_steps=3, log_every_n_steps=0)
    module.trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert compression.state_dict()["num_packets"] == 3


def test_a_checkpoint_of_other_horizons_is_refused() -> None:
    """A controller that stood at a horizon which is no longer there is an error that says so."""
    longer = SkipAhead("linear", 2, (1, 2, 4), probe, held_out())
    state = longer.state_dict() | {"controller": [2, 0, 0, 0]}
    with pytest.raises(ResumeError, match="horizon number 3, SkipAhead has 2 horizons now"):
        SkipAhead("linear", 2, (1, 2), probe, held_out()).load_state_dict(state)


def test_forecasters_from_moments_can_jump(tmp_path: Path) -> None:
    """A forecaster that needs the optimiser's moments is given them."""
    skip_ahead = SkipAhead("optimizer_moments", 4, (2,), probe, held_out(), cost_share=None)
    fit([TrajectoryRecorder(tmp_path / "t", 4), skip_ahead], num_steps=12)
    assert all(jump.outcome.proposed or jump.outcome is Outcome.COOLING_DOWN for jump in skip_ahead.jumps)
    with pytest.raises(UnsupportedTrainerError, match="needs torch's Adam or AdamW .*, got SGD"):
        # An online forecaster beside it, which needs no moments, does not change what was asked for.
        skip_ahead = SkipAhead("optimizer_moments", 4, (2,), probe, held_out(), cost_share=None)
        fit([TrajectoryRecorder(tmp_path / "s", 4), OnlineForecaster(horizons=(4,)), skip_ahead], Digits("sgd"))


def test_a_blend_of_moments_is_trained_during_the_run(tmp_path: Path) -> None:
    """A wrapper around a forecaster that needs moments is given them for fitting, too."""
    blend = make_forecaster("blended", members=["optimizer_moments", "linear"])
    online = OnlineForecaster((blend,), (2,), every=30, share=None)
    fit([TrajectoryRecorder(tmp_path / "t", 2, ("weights", "exp_avg", "exp_avg_sq")), online])
    assert online.forecasters["blended"].fitted
    assert {item.step for item in online.scores} == {60}  # at 30 there are too few rows to score with


class Seen(pl.Callback):
    """Keeps the gradients as the backward pass left them and as the optimiser is given them."""

    def __init__(self) -> None:
        self.raw: list[Tensor] = []
        self.used: list[Tensor] = []

    @override
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.raw.append(self._gradient(pl_module))

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        self.used.append(self._gradient(pl_module))

    @staticmethod
    def _gradient(module: pl.LightningModule) -> Tensor:
        return torch.cat([value.grad.reshape(-1) for value in module.parameters() if value.grad is not None]).clone()


@pytest.mark.parametrize("clip", [None, 0.05])
def test_the_optimiser_works_with_what_a_receiver_would_have(clip: float | None) -> None:
    """The gradient is coded before clipping: what is used is the decoded one, within the asked error, then clipped."""
    seen, compression = Seen(), GradientCompression(CodecConfig("none", "Z", nmse=0.1))
    fit([compression, seen], gradient_clip_val=clip)
    for raw, used in zip(seen.raw, seen.used, strict=True):
        assert not torch.equal(raw, used)
        if clip is None:
            assert 0 < (used - raw).square().sum() <= 0.1 * raw.square().sum() * (1 + 1e-5)
        else:
            torch.testing.assert_close(used.norm(), torch.tensor(clip), rtol=1e-3, atol=0)
    assert compression.num_packets == NUM_STEPS
    assert 0 < compression.bits_per_coordinate < 8
    size = seen.raw[0].numel()
    assert compression.bits_per_coordinate == pytest.approx(8 * compression.num_bytes / NUM_STEPS / size)


class Stepped(Digits):
    """Digits with a learning rate that falls to a fifth in the middle of the run."""

    @override
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [NUM_STEPS // 2, NUM_STEPS - 1], gamma=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Rates(pl.Callback):
    """Keeps the learning rate of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.rates.append(float(optimizer.param_groups[0]["lr"]))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_the_optimiser_was_not_given_is_owed(optimizer: str) -> None:
    """What SGD was not given over a run, at its rates, is what is owed at the last one; for Adam no rate counts."""
    seen, rates, compression = Seen(), Rates(), GradientCompression(OWING)
    fit([compression, seen, rates], Stepped(optimizer))
    weight = rates.rates if optimizer == "sgd" else [1.0] * NUM_STEPS
    assert len(set(rates.rates)) == 3
    kept_back = sum(
        (rate * (raw - used).double() for rate, raw, used in zip(weight, seen.raw, seen.used, strict=True)),
        torch.zeros(1, dtype=torch.float64),
    )
    owed = weight[-1] * compression.stateful[0].state_dict()["feedback.residual"].double()
    assert owed.norm() > 0
    torch.testing.assert_close(kept_back, owed, rtol=0, atol=float(1e-5 * owed.norm()))


def test_one_rate_cannot_speak_for_several() -> None:
    """Where parameters differ in their rate, or steps are not proportional to gradients, the encoder is told none."""
    first, second = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    groups = [{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.2}]
    assert plain_learning_rate(torch.optim.SGD([first, second], lr=0.3, momentum=0.9)) == 0.3
    assert plain_learning_rate(torch.optim.SGD(groups)) is None
    assert plain_learning_rate(torch.optim.Adam([first, second], lr=0.3)) is None


def test_bits_and_error_are_logged(tmp_path: Path) -> None:
    """Both means over the run reach the logger, and the error is that of the packets."""
    seen, compression = Seen(), GradientCompression(CodecConfig(lattice="Z", nmse=0.1))
    logger = CSVLogger(tmp_path, name="", version="csv")
    fit([compression, seen], num_steps=10, logger=logger, log_every_n_steps=10)
    logger.save()
    (row,) = csv.DictReader((tmp_path / "csv" / "metrics.csv").read_text().splitlines())
    errors = [
        float((used - raw).square().sum() / raw.square().sum()) for raw, used in zip(seen.raw, seen.used, strict=True)
    ]
    assert float(row["codec/nmse"]) == pytest.approx(sum(errors) / 10, rel=1e-4)
    assert float(row["codec/bits_per_coordinate"]) == pytest.approx(compression.bits_per_coordinate)


def test_the_raw_codec_changes_nothing() -> None:
    """With the float32 codec a run equals one without compression, bit for bit, at little over 32 bits a coordinate."""
    compression = GradientCompression(CodecConfig("none", lattice="raw"))
    torch.testing.assert_close(weights(fit([compression])), weights(fit([])), rtol=0, atol=0)
    assert 32 <= compression.bits_per_coordinate < 34


def test_parameters_without_a_gradient_stay_without() -> None:
    """A parameter that took no part keeps no gradient, so that the optimiser goes on skipping it."""
    module = Digits()
    module.unused = torch.nn.Parameter(torch.ones(3))
    fit([GradientCompression(CodecConfig("fitted"))], module, num_steps=3)
    assert module.unused.grad is None
    torch.testing.assert_close(module.unused.detach(), torch.ones(3), rtol=0, atol=0)


def test_online_scores_are_of_rows_not_fitted_to(tmp_path: Path) -> None:
    """Each fit is followed by one score a forecaster and horizon; the best is the one with the highest latest skill."""
    online = OnlineForecaster(("hold", "linear", "learned_linear"), (2, 4), every=30, share=None, window_rows=40)
    fit([TrajectoryRecorder(tmp_path / "t", 1), online])
    assert {(item.step, item.forecaster, item.horizon) for item in online.scores} == {
        (step, name, horizon)
        for step in (30, 60)
        for name in ("hold", "linear", "learned_linear")
        for horizon in (2, 4)
    }
    assert all(item.skill == 0 for item in online.scores if item.forecaster == "hold")
    latest = {item.forecaster: item.skill for item in online.scores if item.step == 60 and item.horizon == 4}
    best = online.best(3)
    assert best is not None
    assert best.name == max(latest, key=lambda name: latest[name])
    assert online.best(5) is None
    online.scores = [replace(item, skill=min(item.skill, 0.0)) for item in online.scores]
    assert online.best(3) is None
    with Trajectory.open(tmp_path / "t") as trajectory:
        online._recorder = type("Fake", (), {"trajectory": trajectory})()  # pyright: ignore
        training, scoring = online._cases(online.forecasters["learned_linear"])
    last_fitted = max(case.window.last_step + max(case.targets) for case in training)
    assert last_fitted < min(int(case.window.steps[0]) for case in scoring)


def test_the_share_limits_fitting(tmp_path: Path) -> None:
    """With a tiny share of the time, fitting stops after it has overdrawn it once."""
    online = OnlineForecaster(("learned_linear",), (2,), every=5, share=1e-6, window_rows=20)
    fit([TrajectoryRecorder(tmp_path / "t", 1), online])
    assert online.ledger.activities["fitting"].count == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16-mixed"}, "precision '32-true', got 'bf16-mixed'"),
        ({"accumulate_grad_batches": 2}, "`accumulate_grad_batches=1`, got 2"),
    ],
)
@pytest.mark.parametrize("which", ["online", "compression"])
def test_unsupported_trainers_are_refused_by_name(
    tmp_path: Path, which: str, options: dict[str, Any], message: str
) -> None:
    """Other precisions and accumulation are refused in `setup`, naming callback and setting."""
    made = everything(tmp_path / "t")
    name = type(made[which]).__name__
    # Without the recorder, which supports these settings and would be set up first.
    with pytest.raises(UnsupportedTrainerError, match=f"{name} supports {message}"):
        fit([made[which]], **options)


def test_missing_and_odd_partners_are_named(tmp_path: Path) -> None:
    """A recorder or an online forecaster that is missing, and cadences that do not fit, are named."""
    recorder = TrajectoryRecorder(tmp_path / "t", 2)

    def jumps(forecaster: str, every: int = 4) -> SkipAhead:
        return SkipAhead(forecaster, every, (2,), probe, held_out())

    longer = SkipAhead("online", 4, (2, 8), probe, held_out())
    for callbacks, message in (
        ([OnlineForecaster(horizons=(2,))], "OnlineForecaster needs a TrajectoryRecorder"),
        ([recorder, jumps("online")], "needs an OnlineForecaster"),
        ([recorder, OnlineForecaster(horizons=(2,)), longer], r"must not exceed OnlineForecaster's longest, 2, got 8"),
        ([recorder, jumps("linear", 3)], "multiple of the recorder's cadence 2, got 3"),
        ([recorder, OnlineForecaster(("optimizer_moments",), horizons=(2,))], "records 'exp_avg' and 'exp_avg_sq'"),
        ([recorder, OnlineForecaster(horizons=(2, 3))], r"multiples of the recorder's cadence 2, got \[3\]"),
    ):
        with pytest.raises(UnsupportedTrainerError, match=message):
            fit(callbacks, num_steps=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OnlineForecaster(every=0), "`every` must be at least 1"),
        (lambda: OnlineForecaster(share=2.0), "`share` must be"),
        (lambda: OnlineForecaster(horizons=()), "`horizons` must be"),
        (lambda: OnlineForecaster(forecasters=()), "`forecasters` must be different"),
        (lambda: OnlineForecaster((make_forecaster("hold", stream="gradients"),)), "forecast another"),
        (lambda: SkipAhead("linear", 1, (1,), probe, iter([])), "must not be an iterator"),
        (lambda: SkipAhead("linear", 0, (1,), probe, []), "`every` must be at least 1"),
        (lambda: SkipAhead("learned_linear", 1, (1,), probe, []), "has not been fitted"),
        (lambda: SkipAhead(make_forecaster("hold", stream="gradients"), 1, (1,), probe, []), "needs a forecaster of"),
    ],
)
def test_impossible_options_are_refused(make: Any, message: str) -> None:
    """Options that cannot work are refused when a callback is made."""
    with pytest.raises(ValueError, match=message):
        make()

"""TrajectoryRecorder."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from small_runs import NUM_STEPS, Crash, Digits, fit, weights
from torch import Tensor
from torch.nn import functional
from typing_extensions import override

from deadreckon.callbacks import GradientCompression, ResumeError, TrajectoryRecorder, UnsupportedTrainerError
from deadreckon.callbacks.support import require_single_process
from deadreckon.experiments.tasks import Batches, load_task
from deadreckon.forecast import Trajectory, TrajectoryError, pack

ALL = ("weights", "gradients", "updates", "exp_avg", "exp_avg_sq")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.1},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-true"},
    ],
    ids=["plain", "accumulation", "clipping", "bf16-mixed", "bf16-true"],
)
def test_a_recorded_run_equals_one_that_is_not(tmp_path: Path, options: dict[str, Any]) -> None:
    """The weights after a run with the recorder equal those of the same run without it, bit for bit."""
    recorded = fit([TrajectoryRecorder(tmp_path / "t", 3, ALL)], **options)
    torch.testing.assert_close(weights(recorded), weights(fit([], **options)), rtol=0, atol=0)
    with Trajectory.open(tmp_path / "t") as trajectory:
        assert trajectory.stream("weights").steps.tolist() == list(range(0, NUM_STEPS + 1, 3))
        assert trajectory.stream("gradients").steps.tolist() == list(range(3, NUM_STEPS + 1, 3))
        assert len(trajectory.scalars["loss"]) == NUM_STEPS
        np.testing.assert_array_equal(trajectory.stream("weights")[-1], weights(recorded).numpy())
        trajectory.verify()


def _by_hand(accumulate: int, clip: float | None) -> tuple[list[dict[str, Tensor]], list[float]]:
    """The same run as a plain loop: what each stream should hold after each step, and the losses."""
    module = Digits()
    torch.manual_seed(2)
    optimizer = module.configure_optimizers()
    batches = iter(Batches(load_task("digits").train, 32, NUM_STEPS * accumulate, seed=0))
    rows, losses = [], []
    for _ in range(NUM_STEPS):
        before = weights(module)
        optimizer.zero_grad()
        loss = 0.0
        for _ in range(accumulate):
            images, labels = next(batches)
            part = functional.cross_entropy(module(images), labels) / accumulate
            part.backward()
            loss += float(part.detach())
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()

        def state(name: str, optimizer: torch.optim.Optimizer = optimizer, module: Digits = module) -> Tensor:
            return torch.cat([optimizer.state[value][name].reshape(-1) for value in module.parameters()])

        rows.append(
            {
                "weights": weights(module),
                "gradients": torch.cat([value.grad.reshape(-1) for value in module.parameters()]),  # pyright: ignore
                "updates": weights(module) - before,
                "exp_avg": state("exp_avg"),
                "exp_avg_sq": state("exp_avg_sq"),
            }
        )
        losses.append(loss)
    return rows, losses


@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (2, None), (1, 0.5)])
def test_rows_equal_a_plain_training_loop(tmp_path: Path, accumulate: int, clip: float | None) -> None:
    """Every stream holds, step by step, what a training loop written by hand has in its hands then."""
    every = {"weights": 1, "gradients": 2, "updates": 3, "exp_avg": 4, "exp_avg_sq": 5}
    fit([TrajectoryRecorder(tmp_path / "t", every, ALL)], accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    expected, losses = _by_hand(accumulate, clip)
    with Trajectory.open(tmp_path / "t") as trajectory:
        np.testing.assert_array_equal(trajectory.stream("weights")[0], pack(Digits())[0].numpy())
        for name, cadence in every.items():
            stream = trajectory.stream(name)
            recorded = [(int(step), stream[row]) for row, step in enumerate(stream.steps) if step > 0]
            assert [step for step, _ in recorded] == list(range(cadence, NUM_STEPS + 1, cadence))
            for step, row in recorded:
                torch.testing.assert_close(torch.from_numpy(row), expected[step - 1][name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(trajectory.scalars["loss"].values, losses, rtol=1e-5)
        np.testing.assert_allclose(trajectory.scalars["learning_rate"].values, 0.01)
        assert trajectory.metadata["adam"] == {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        assert np.all(np.diff(trajectory.scalars["wall_seconds"].values) >= 0)


def test_windows_are_the_newest_rows(tmp_path: Path) -> None:
    """A window taken during the run has the newest rows at the asked spacing, or is none while there are too few."""
    recorder = TrajectoryRecorder(tmp_path / "t", 2)
    seen: dict[int, Any] = {}

    class Look(pl.Callback):
        @override
        def on_train_batch_end(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
        ) -> None:
            optimizer = trainer.optimizers[0]
            seen[trainer.global_step] = recorder.window(3, spacing=4, moments_of=(optimizer, pl_module))
            if trainer.global_step == 10:
                torch.testing.assert_close(seen[10].last, weights(pl_module), rtol=0, atol=0)
                assert seen[10].moments.num_updates == 10
                with pytest.raises(ValueError, match="multiple of the cadence 2, got 3"):
                    recorder.window(3, spacing=3)
                with pytest.raises(ValueError, match="'gradients' is not recorded"):
                    recorder.window(3, "gradients")

    fit([recorder, Look()], num_steps=12)
    assert seen[7] is None
    assert seen[8].steps.tolist() == [0, 4, 8]
    assert seen[11].steps.tolist() == [2, 6, 10]
    with pytest.raises(RuntimeError, match="during `fit` only"):
        _ = recorder.trajectory


def test_a_store_is_never_overwritten(tmp_path: Path) -> None:
    """A fresh run into an existing store is refused before anything is trained, and the store stays as it is."""
    fit([TrajectoryRecorder(tmp_path / "t")], num_steps=10)
    with Trajectory.open(tmp_path / "t") as trajectory:
        digest = trajectory.digest
    with pytest.raises(TrajectoryError, match="exists"):
        fit([TrajectoryRecorder(tmp_path / "t")], num_steps=10)
    with Trajectory.open(tmp_path / "t") as trajectory:
        assert trajectory.digest == digest


def test_a_checkpoint_goes_on_in_its_own_store_only(tmp_path: Path) -> None:
    """Resuming into a store that is gone, or of another run, is refused by name."""
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=10, save_top_k=-1)
    fit([TrajectoryRecorder(tmp_path / "t"), checkpoint], num_steps=20, enable_checkpointing=True)
    (path,) = tmp_path.glob("*step=10.ckpt")
    with pytest.raises(ResumeError, match="cannot be continued"):
        fit([TrajectoryRecorder(tmp_path / "gone")], checkpoint=path)
    fit([TrajectoryRecorder(tmp_path / "other")], num_steps=20)
    with pytest.raises(ResumeError, match="is of another run"):
        fit([TrajectoryRecorder(tmp_path / "other")], checkpoint=path)


@pytest.mark.parametrize("way", ["after the end", "on an exception"])
def test_checkpoints_of_a_run_that_ended_can_be_resumed(tmp_path: Path, way: str) -> None:
    """A checkpoint saved after `fit`, or because of an exception, continues the same store at the right row."""
    path = tmp_path / "last.ckpt"
    if way == "after the end":
        module = fit([TrajectoryRecorder(tmp_path / "t", 2)], Digits(dropout=0.0), num_steps=21)
        module.trainer.save_checkpoint(path)
    else:
        saving = OnExceptionCheckpoint(tmp_path, "last")
        with pytest.raises(SystemExit):
            fit(
                [TrajectoryRecorder(tmp_path / "t", 2), saving, Crash(21)],
                Digits(dropout=0.0),
                enable_checkpointing=True,
            )
    resumed = fit([TrajectoryRecorder(tmp_path / "t", 2)], Digits(dropout=0.0), checkpoint=path)
    straight = fit([TrajectoryRecorder(tmp_path / "s", 2)], Digits(dropout=0.0))
    with Trajectory.open(tmp_path / "t") as first, Trajectory.open(tmp_path / "s") as second:
        assert first.stream("weights").steps.tolist() == second.stream("weights").steps.tolist()
        assert first.scalars["loss"].steps.tolist() == second.scalars["loss"].steps.tolist()
        if way == "after the end":  # the batch that an exception broke off has been drawn and does not come again
            torch.testing.assert_close(weights(resumed), weights(straight), rtol=0, atol=0)
            np.testing.assert_array_equal(first.stream("weights")[:], second.stream("weights")[:])
        assert [(event.kind, event.step, event.breaks) for event in first.events] == [("resume", 21, False)]


class Grouped(Digits):
    """Decays weights and not biases, as is customary."""

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        matrices = [value for value in self.parameters() if value.ndim > 1]
        vectors = [value for value in self.parameters() if value.ndim < 2]
        return torch.optim.AdamW([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}], lr=0.01)


def test_moments_of_unlike_groups_are_recorded(tmp_path: Path) -> None:
    """Moments are recorded whatever the groups decay by; what cannot be said of all of them is not noted."""
    module = fit([TrajectoryRecorder(tmp_path / "t", 2, ("weights", "exp_avg"))], Grouped(), num_steps=4)
    (optimizer,) = module.trainer.optimizers
    expected = torch.cat([optimizer.state[value]["exp_avg"].reshape(-1) for value in module.parameters()])
    with Trajectory.open(tmp_path / "t") as trajectory:
        np.testing.assert_array_equal(trajectory.stream("exp_avg")[-1], expected.numpy())
        assert "adam" not in trajectory.metadata


class Skipping(Digits):
    """Skips every third batch."""

    @override
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Any:
        return None if batch_idx % 3 == 0 else super().training_step(batch, batch_idx)


def test_a_skipped_batch_has_no_loss(tmp_path: Path) -> None:
    """Where `training_step` gives nothing, no loss is recorded, least of all zero."""
    fit([TrajectoryRecorder(tmp_path / "t", 2)], Skipping(), num_steps=9)
    with Trajectory.open(tmp_path / "t") as trajectory:
        assert len(trajectory.scalars["loss"]) == 6
        assert (trajectory.scalars["loss"].values > 0).all()


class Freezing(pl.Callback):
    """Freezes a layer in the middle of a run."""

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        if trainer.global_step == 5:
            next(pl_module.parameters()).requires_grad_(False)


def test_freezing_in_mid_run_is_refused_by_name(tmp_path: Path) -> None:
    """A layout that changes during a run would make rows mean something else, so it is refused, naming a parameter."""
    with pytest.raises(UnsupportedTrainerError, match=r"'network.1.weight' was frozen or unfrozen"):
        fit([TrajectoryRecorder(tmp_path / "t", 2), Freezing()])
    with pytest.raises(UnsupportedTrainerError, match=r"'network.1.weight' was frozen or unfrozen"):
        fit([GradientCompression(), Freezing()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"streams": ()}, "`streams` must be"),
        ({"streams": ("moods",)}, "`streams` must be"),
        ({"streams": ("weights", "weights")}, "`streams` must be"),
        ({"every": 0}, "`every` must be"),
        ({"every": {"weights": 1, "gradients": 1}}, "`every` must be"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Unknown streams and impossible cadences are refused when the callback is made."""
    with pytest.raises(ValueError, match=message):
        TrajectoryRecorder(tmp_path / "t", **options)


class Closure(Digits):
    """Uses LBFGS."""

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters())


def test_unsupported_trainers_are_refused_by_name(tmp_path: Path) -> None:
    """Manual optimisation, LBFGS, moments of SGD and several processes are refused by name."""
    with pytest.raises(UnsupportedTrainerError, match="LBFGS"):
        fit([TrajectoryRecorder(tmp_path / "b")], Closure())
    with pytest.raises(UnsupportedTrainerError, match="'exp_avg' needs an optimiser that keeps it, got SGD"):
        fit([TrajectoryRecorder(tmp_path / "c", streams=("exp_avg",))], Digits("sgd"))
    with pytest.raises(UnsupportedTrainerError, match="this Trainer has 2"):
        require_single_process(SimpleNamespace(world_size=2, strategy=None), "X")  # pyright: ignore
    assert not list(tmp_path.iterdir())

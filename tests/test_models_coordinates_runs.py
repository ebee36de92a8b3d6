"""Recorder, forecasters, jumps and codec in reduced coordinates, unchanged."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from small_runs import Crash, Digits, fit, held_out, probe, weights
from torch import Tensor, nn

from deadreckon.callbacks import GradientCompression, SkipAhead, TrajectoryRecorder
from deadreckon.codec import Codec, CodecConfig, CodecError
from deadreckon.forecast import LayoutError, Trajectory, cases, layout_of, pack, score
from deadreckon.forecast.jump import JumpPolicy, Outcome
from deadreckon.models import Budget, NeuralODE, fit_forecaster, make_forecaster
from deadreckon.models.coordinates import (
    MCNC,
    NOLA,
    PRANC,
    LoRA,
    ReducedModule,
    SeededCoordinates,
    Supermasks,
    choose_layout,
)

MADE: dict[str, Callable[[nn.Module], SeededCoordinates]] = {
    "pranc": lambda module: PRANC(choose_layout(module, num_axes=2), 40, seed=1),
    "lora": lambda module: LoRA(choose_layout(module, num_axes=2), 2),
    "nola": lambda module: NOLA(choose_layout(module, num_axes=2), 10, rank=3),
    "mcnc": lambda module: MCNC(choose_layout(module, num_axes=2), 3, chunk=100, width=16),
}


class ReducedDigits(Digits):
    """The digits' network, with dropout and batch norm, in reduced coordinates."""

    def __init__(self, kind: str = "pranc", seed: int | None = None, dropout: float = 0.2) -> None:
        super().__init__(dropout=dropout)
        coordinates = MADE[kind](self.network)
        if seed is not None:
            coordinates = PRANC(coordinates.layout, 40, seed=seed)
        self.network = ReducedModule(self.network, coordinates)

    @property
    def reduced(self) -> ReducedModule:
        assert isinstance(self.network, ReducedModule)
        return self.network


class MaskedDigits(Digits):
    """The digits' network with fixed random weights under a mask."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__(dropout=dropout)
        self.network = Supermasks(self.network, choose_layout(self.network, num_axes=2))


def make_digits(kind: str) -> Digits:
    """Without dropout, in coordinates or under a mask."""
    return MaskedDigits(dropout=0.0) if kind == "supermasks" else ReducedDigits(kind, dropout=0.0)


@pytest.mark.parametrize(
    "kind", ["pranc", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("lora", "nola", "mcnc"))]
)
def test_coordinates_are_recorded_and_forecast(kind: str, tmp_path: Path) -> None:
    """The recorder keeps the trained numbers alone; a forecast of them makes a network, and standing still skill 0."""
    module = ReducedDigits(kind)
    fit([TrajectoryRecorder(tmp_path / "t", 3, ("weights", "gradients"))], module)
    reduced = module.reduced
    with Trajectory.open(tmp_path / "t") as trajectory:
        assert trajectory.layout.size == reduced.coordinates.size + 12 * 3 + 10 < 64 * 12 + 120 + 12 * 3 + 10
        assert any(reduced.coordinates.digest[:12] in name for name in trajectory.layout.names)
        last = torch.from_numpy(trajectory.stream("weights")[-1].copy())
        torch.testing.assert_close(last, weights(module), rtol=0, atol=0)
        made = reduced.coordinates.to_parameters(last[: reduced.coordinates.size])
        plain = reduced.plain_module()
        torch.testing.assert_close(made[: 64 * 12], pack(plain)[0][: 64 * 12], rtol=0, atol=0)
        found = score(make_forecaster("hold"), cases(trajectory, "weights", 2, horizons=[6]))
        assert found[0].skill == 0
        line = make_forecaster("linear", history=3)
        assert score(line, cases(trajectory, "weights", 3, horizons=[3]))[0].skill > -5


def test_scores_of_masks_are_recorded(tmp_path: Path) -> None:
    """The recorder keeps the scores alone; a row of them makes the mask that was; standing still has skill 0."""
    module = MaskedDigits()
    fit([TrajectoryRecorder(tmp_path / "t", 3)], module, num_steps=30)
    masks = module.network
    assert isinstance(masks, Supermasks)
    with Trajectory.open(tmp_path / "t") as trajectory:
        assert trajectory.layout.names == (f"network.scores_{masks.digest[:12]}",)
        rows = torch.from_numpy(trajectory.stream("weights")[:].copy())
        assert score(make_forecaster("hold"), cases(trajectory, "weights", 2, horizons=[6]))[0].skill == 0
    mask = masks.mask().detach()
    torch.testing.assert_close(_mask_of(masks, rows[-1]), mask, rtol=0, atol=0)
    assert float((_mask_of(masks, rows[0]) - mask).abs().sum()) > 0.05 * len(mask)


def _mask_of(masks: Supermasks, scores: Tensor) -> Tensor:
    """The mask that scores make."""
    twin = copy.deepcopy(masks)
    with torch.no_grad():
        twin.scores.copy_(scores)
    return twin.mask().detach()


@pytest.mark.slow
def test_an_equation_of_motion_is_fitted_to_coordinates(tmp_path: Path) -> None:
    """A neural differential equation is fitted to recorded coordinates as to any weights."""
    fit([TrajectoryRecorder(tmp_path / "t", 2, ("weights",))], ReducedDigits())
    with Trajectory.open(tmp_path / "t") as trajectory:
        given = list(cases(trajectory, "weights", 4, horizons=[4]))
        forecaster = NeuralODE("pca", rank=2, history=4, width=8)
        generator = torch.Generator().manual_seed(0)
        fit_forecaster(forecaster, given[:14], Budget(iterations=20), generator, given[10:14])
        assert score(forecaster, given[14:])[0].skill > -5


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*MADE, "supermasks"])
def test_a_run_in_coordinates_is_as_repeatable_as_any(kind: str, tmp_path: Path) -> None:
    """A run that crashed and was resumed, with recorder, codec and jumps, equals one that never was, bit for bit."""

    def callbacks(name: str) -> Sequence[pl.Callback]:
        (images, labels) = held_out()[0]
        batches = list(zip(images.split(64), labels.split(64), strict=True))[:4]
        policy = JumpPolicy(num_standard_errors=0.0, max_relative_scale=1e9)
        line = make_forecaster("linear", history=3)
        return [
            TrajectoryRecorder(tmp_path / name, 2),
            SkipAhead(line, 6, (2, 4), probe, batches, policy=policy, cost_share=None, spacing=2),
            GradientCompression(CodecConfig("momentum", nmse=0.2)),
            ModelCheckpoint(tmp_path / f"{name}-checkpoints", every_n_train_steps=10, save_top_k=-1, filename="{step}"),
        ]

    whole = callbacks("whole")
    straight = fit(whole, make_digits(kind), enable_checkpointing=True)
    with pytest.raises(SystemExit):
        fit([*callbacks("torn"), Crash(33)], make_digits(kind), enable_checkpointing=True)
    checkpoint = tmp_path / "torn-checkpoints" / "step=30.ckpt"
    resumed = fit(callbacks("torn"), make_digits(kind), checkpoint=checkpoint, enable_checkpointing=True)
    torch.testing.assert_close(weights(resumed), weights(straight), rtol=0, atol=0)
    jumps, compression = whole[1], whole[2]
    assert isinstance(jumps, SkipAhead)
    assert isinstance(compression, GradientCompression)
    assert {jump.outcome for jump in jumps.jumps} & {Outcome.KEPT, Outcome.NOT_BETTER}
    assert 0.5 < compression.bits_per_coordinate < 32


def test_what_belongs_to_other_coordinates_is_refused() -> None:
    """Checkpoints, layouts and packets of another seed are refused, though all numbers are as many."""
    mine, other = ReducedDigits(seed=1), ReducedDigits(seed=2)
    with pytest.raises(LayoutError, match="The layout of the packet's network differs"):
        layout_of(mine).require_same(layout_of(other), "the packet's network")
    with pytest.raises(RuntimeError, match=mine.reduced.coordinates.digest[:12]):
        other.load_state_dict(mine.state_dict())
    packet = Codec(layout_of(mine)).encoder().encode(torch.ones(layout_of(mine).size), 0)
    with pytest.raises(CodecError, match="layout"):
        Codec(layout_of(other)).decoder().decode(packet)

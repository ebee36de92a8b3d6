"""What a run shows of its jumps: metrics, a word in the progress bar, a table at the end."""

import math
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import WandbLogger

from ..forecast.jump import Jump, Regime, WeightSignals

REGIME_NUMBERS = {regime.value: float(number) for number, regime in enumerate(Regime)}
COLUMNS = (
    "step",
    "horizon",
    "step_scale",
    "outcome",
    "meaning",
    "margin",
    "loss_before",
    "loss_after",
    "credited",
    "regime",
    "num_samples",
    "num_candidates",
    "wall_seconds",
    "cpu_seconds",
)


def jump_metrics(
    jumps: Sequence[Jump], signals: WeightSignals | None, effective_step: float, share: float
) -> dict[str, float]:
    """What is logged after a jump was proposed: about the newest one, and the sums so far.

    `jump/regime` is 0 for chaotic, 1 for transition, 2 for stable, and absent while it is not known.
    """
    jump = jumps[-1]
    metrics = {
        "jump/index": float(sum(item.outcome.proposed for item in jumps)),
        "jump/horizon": float(jump.horizon),
        "jump/kept": float(jump.outcome.kept),
        "jump/margin": jump.margin,
        "jump/step_scale": jump.step_scale,
        "jump/num_kept": float(sum(item.outcome.kept for item in jumps)),
        "jump/credited": jump.credited,
        "jump/effective_step": effective_step,
        "jump/cost_share": share,
    }
    if jump.regime:
        metrics["jump/regime"] = REGIME_NUMBERS[jump.regime]
    if signals is not None:
        parts = {"turn": signals.turn, "straightness": signals.straightness, "noise": signals.noise}
        metrics |= {f"jump/{name}": value for name, value in parts.items() if math.isfinite(value)}
    return metrics


def log_metrics(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
    """Send metrics to all loggers of the Trainer."""
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)


def show_in_progress_bar(trainer: pl.Trainer, module: pl.LightningModule, jumps: Sequence[Jump], share: float) -> None:
    """Show, where the Trainer has a progress bar: jumps kept, those proposed, the last margin and the cost so far."""
    if trainer.progress_bar_callback is None:
        return
    proposed = [jump for jump in jumps if jump.outcome.proposed]
    values = {
        "jumps_kept": float(sum(jump.outcome.kept for jump in proposed)),
        "jumps_tried": float(len(proposed)),
        "jump_margin": proposed[-1].margin if proposed else math.nan,
        "jump_cost": share,
    }
    for name, value in values.items():
        module.log(name, value, prog_bar=True, logger=False, on_step=True, on_epoch=False, batch_size=1)


def table_rows(jumps: Sequence[Jump]) -> list[list[Any]]:
    """One row an opportunity, in the order of `COLUMNS`."""
    return [
        [
            jump.step,
            jump.horizon,
            jump.step_scale,
            jump.outcome.name.lower(),
            jump.outcome.value,
            jump.margin,
            jump.loss_before,
            jump.loss_after,
            jump.credited,
            jump.regime,
            jump.num_samples,
            jump.num_candidates,
            jump.wall_seconds,
            sum(jump.costs.values()),
        ]
        for jump in jumps
    ]


def log_jump_table(trainer: pl.Trainer, jumps: Sequence[Jump]) -> None:
    """Send the table of all opportunities to the Trainer's wandb loggers, if it has any."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and trainer.is_global_zero and jumps:
            logger.log_table("jump/all", columns=list(COLUMNS), data=table_rows(jumps))

"""Training of a forecaster's network under Lightning's Trainer, resumable, with early stopping."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from ...models.fitting import FitResult, Stopped
from ...models.trainable import TrainableForecaster
from ..errors import OptionError
from ..progress import TrainingProgress
from ..run_logger import RunLogger
from ..training import quiet_lightning
from .data import RunsData
from .module import VALIDATION_ERROR, ForecasterModule

CHECKPOINT = Path("checkpoints") / "last.ckpt"
CLIPPED_NORM = 1.0  # of the gradient, as in `deadreckon.models.training`


class Trained(NamedTuple):
    """What training gave: the numbers of its report, and `[iteration, training error, validation error]` on the way."""

    result: FitResult
    curve: list[list[float]]


def train_forecaster(
    forecaster: TrainableForecaster,
    data: RunsData,
    num_iterations: int,
    out: Path,
    *,
    resume: bool = False,
    logger: RunLogger = False,
    progress: bool = False,
    callbacks: Sequence[pl.Callback] = (),
) -> Trained:
    """Fit a forecaster; with equal examples and seed it gives what `fit_forecaster` gives, bit for bit.

    The network with the least validation error is kept, the untrained one among them. At every look at the validation
    items Lightning's checkpoint is written to `out/checkpoints/last.ckpt`, which holds the best network so far, too; it
    serves to resume and for nothing else.

    Args:
        forecaster: fitted in place at the end; untouched until then.
        data: examples, set up.
        num_iterations: at most.
        out: a folder.
        resume: go on from the checkpoint: a training that was interrupted ends as one that was not.
        logger: where errors go on the way.
        progress: whether to show a bar.
        callbacks: further ones.

    Raises:
        OptionError: if there is nothing to resume, or it was made with other data or options.
        FittingError: if training diverges.
    """
    start = data.start
    module = ForecasterModule(forecaster, start.network, data.digest)
    # The untrained network is the first look, so patience counts from it.
    stopping = EarlyStopping(VALIDATION_ERROR, patience=forecaster.patience, check_on_train_epoch_end=False)
    stopping.best_score = module.look(start.validation, 0)
    path = out / CHECKPOINT
    stored = _read(path) if resume else None
    if stored is not None and stored["callbacks"][stopping.state_key]["wait_count"] >= forecaster.patience:
        module.on_load_checkpoint(stored)  # there is nothing left to do
        iterations, converged = int(stored["global_step"]), True
    else:
        # Said explicitly: Lightning takes looks at every single iteration for looks at the end of an epoch.
        keeping = ModelCheckpoint(
            path.parent, path.stem, save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=False
        )
        bar = [TrainingProgress(num_iterations)] if progress else []
        with quiet_lightning():
            trainer = pl.Trainer(
                accelerator="cpu",
                devices=1,
                max_steps=num_iterations,
                val_check_interval=min(forecaster.check_every, num_iterations),
                num_sanity_val_steps=0,
                gradient_clip_val=CLIPPED_NORM,
                callbacks=[stopping, keeping, *bar, *callbacks],
                logger=logger,
                enable_model_summary=False,
                enable_progress_bar=False,
                inference_mode=False,  # what a network caches in validation must serve in training, too
                log_every_n_steps=10,
                default_root_dir=out,
            )
            trainer.fit(module, datamodule=data, ckpt_path=str(path) if resume else None, weights_only=True)
        iterations, converged = trainer.global_step, stopping.wait_count >= forecaster.patience
    if iterations > module.curve[-1][0]:  # no multiple of the iterations between looks
        module.look(start.validation, iterations)
    network = module.network
    network.load_state_dict(module.best_state)
    network.requires_grad_(False)
    network.eval()
    with torch.no_grad():
        training_error = float(forecaster.mean_error(network, start.training))
        forecaster.finish(network, start.examples)
    stopped: Stopped = "converged" if converged else "iterations"
    return Trained(FitResult(iterations, training_error, module.best_error, stopped), module.curve)


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint, without running anything in it."""
    if not path.is_file():
        raise OptionError(f"There is nothing to resume: no {path}. Fit without `resume`.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise OptionError(f"{path} cannot be read: {str(error)[:200]}. Remove it and fit anew.") from error
    if not isinstance(stored, dict) or not {"callbacks", "global_step", "state_dict"} <= stored.keys():
        raise OptionError(f"{path} is not a checkpoint of Lightning's. Remove it and fit anew.")
    return stored

"""A trainable forecaster's network in a LightningModule."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from typing_extensions import override

from ...models import FittingError
from ...models.trainable import TrainableForecaster, TrainingItems
from ..errors import OptionError

VALIDATION_ERROR = "validation/error"
TRAINING_ERROR = "train/error"
_KEY = "deadreckon_fit"  # of what is its own in Lightning's checkpoints


class ForecasterModule(LightningModule):
    """Trains a forecaster's network, as `deadreckon.models.training.train` does.

    Logs `train/error`, what the forecaster says that training reduces, and `validation/error`: squared error over that
    of persistence, 1 for standing still.

    Args:
        forecaster: says what the network gets wrong.
        network: what is trained.
        digest: of data and options; a checkpoint made with others is refused.

    Attributes:
        curve: `[iteration, training error, validation error]` at each look at the validation items; the training error
            is the mean over the batches since the look before.
        best_error: the least validation error so far.
        best_state: the network's parameters then.
    """

    def __init__(self, forecaster: TrainableForecaster, network: nn.Module, digest: str) -> None:
        super().__init__()
        self.network = network
        self.curve: list[list[float]] = []
        self.best_error = math.inf
        self.best_state: dict[str, Tensor] = {}
        self._forecaster = forecaster
        self._digest = digest
        self._sum, self._count = 0.0, 0

    def look(self, validation: TrainingItems, iteration: int) -> Tensor:
        """The validation error, 0-d float64; the network is remembered if it is the best so far.

        Raises:
            FittingError: if the error is not finite.
        """
        error = self._forecaster.mean_error(self.network, validation)
        value = float(error)
        if not math.isfinite(value):
            raise FittingError(f"Training diverged: the error is {value} in iteration {iteration}.")
        self.curve.append([iteration, self._sum / self._count if self._count else math.nan, value])
        self._sum, self._count = 0.0, 0
        if value < self.best_error:
            self.best_error = value
            self.best_state = {name: part.clone() for name, part in self.network.state_dict().items()}
        return error

    @override
    def transfer_batch_to_device(
        self, batch: TrainingItems, device: torch.device, dataloader_idx: int
    ) -> TrainingItems:
        return batch  # Lightning would take the frozen dataclass apart; training runs on the CPU

    @override
    def training_step(self, batch: TrainingItems, batch_idx: int) -> Tensor:
        error = self._forecaster.training_error(self.network, batch)
        self._sum, self._count = self._sum + float(error.detach()), self._count + 1
        self.log(TRAINING_ERROR, error.detach(), batch_size=1)
        return error

    @override
    def validation_step(self, batch: TrainingItems, batch_idx: int) -> None:
        self.log(VALIDATION_ERROR, self.look(batch, self.global_step), batch_size=1)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=self._forecaster.learning_rate)

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        best = {"best_error": self.best_error, "best_state": self.best_state}
        checkpoint[_KEY] = {"digest": self._digest, "curve": self.curve, **best}

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stored = checkpoint.get(_KEY, {})
        if stored.get("digest") != self._digest:
            raise OptionError(
                "The checkpoint was made with other runs, forecaster, seed or training options. Give the same ones, or "
                "fit anew into another `out`."
            )
        self.curve = [list(row) for row in stored["curve"]]
        self.best_error, self.best_state = stored["best_error"], stored["best_state"]

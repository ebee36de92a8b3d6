"""Ranks that train by themselves and exchange, through the codec, only every so many steps."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from ..codec import Codec, CodecConfig
from ..codec.distributed import ExchangeConfig, GroupWire
from ..codec.distributed.outer import PSEUDO_GRADIENTS, LocalRounds, OuterNesterov
from ..forecast import layout_of, load_vector, pack
from .compression import GradientCompression, traffic_metrics
from .errors import CallbackOptionError, ResumeError, UnsupportedTrainerError
from .rank_states import gather_states, state_of_rank
from .support import find_callback, require_ddp_training, sole_optimizer, wrapped_model


class LocalSteps(pl.Callback):
    """Local steps under DDP, as in DiLoCo: a hook keeps DDP from averaging gradients, and rounds average differences.

    Each rank takes `every` optimiser steps of its own from common weights. Then the mean of how far all came goes
    through the codec, an outer Nesterov step is taken, and all go on from there; see
    `deadreckon.codec.distributed.outer`. The inner optimiser's state never travels. Exchanges are rare, so that a slow
    codec with a good predictor is worth its time here. The last round ends with training.

    Between rounds, ranks have different weights: validate, checkpoint and stop at the end of rounds, where they are
    equal. A checkpoint holds every rank's weights and optimiser state, so that a run that is resumed with as many ranks
    goes on as if it had never stopped. With another number of ranks all begin a round at the common weights, with rank
    0's optimiser; what was owed is divided, and a warning says so.

    Needs DDP, one optimiser and automatic optimisation; `GradientCompression` beside it is refused. BatchNorm's buffers
    are rank 0's, which DDP sends in every step: set `broadcast_buffers=False`, or better, use another norm.

    Args:
        every: optimiser steps of a round.
        config: of the codec; settings that differ from its defaults by name, as in YAML, or a `CodecConfig`.
        exchange: how ranks exchange; `check_every` and `on_difference="heal"` of parameters are not for rounds.
        outer_learning_rate: see `OuterNesterov`.
        outer_momentum: see `OuterNesterov`.

    Attributes:
        rounds: the rounds of a run; None before it begins.

    Raises:
        CallbackOptionError: if `every` is below 1.
    """

    def __init__(
        self,
        every: int = 50,
        config: CodecConfig | dict[str, Any] | None = None,
        exchange: ExchangeConfig | None = None,
        outer_learning_rate: float = 0.7,
        outer_momentum: float = 0.9,
    ) -> None:
        if every < 1:
            raise CallbackOptionError(f"`every` must be at least 1, got {every}.")
        self.every = every
        self.config = config if isinstance(config, CodecConfig) else CodecConfig.from_dict(config or {})
        self.exchange = exchange if exchange is not None else ExchangeConfig()
        self.outer = OuterNesterov(outer_learning_rate, outer_momentum)
        self.rounds: LocalRounds | None = None
        self._finished_at = 0
        self._resumed: dict[str, Any] | None = None
        self._local: tuple[pl.Trainer, pl.LightningModule] | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        require_ddp_training(trainer, pl_module, type(self).__name__)
        if find_callback(trainer, GradientCompression) is not None:
            raise UnsupportedTrainerError("LocalSteps exchanges no gradients; leave `GradientCompression` out.")

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        who = type(self).__name__
        strategy = require_ddp_training(trainer, pl_module, who)
        sole_optimizer(trainer, who)
        wire = GroupWire(timeout=self.exchange.timeout)
        codec = Codec(layout_of(pl_module), self.config, PSEUDO_GRADIENTS)
        wrapped_model(strategy, who).register_comm_hook(None, local_hook)
        self.rounds = LocalRounds(self.exchange.make(codec, wire), self.outer, pack(pl_module)[0])
        self._finished_at = trainer.global_step
        self._local = trainer, pl_module

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning has restored optimisers by now, each rank's from rank 0's.
        if self._resumed is None:
            self._finished_at = trainer.global_step
            return
        saved, self._resumed = self._resumed, None
        rounds = self._rounds()
        aggregation = rounds.aggregation
        rank = aggregation.wire.rank
        as_before = (saved["kind"], saved["num_ranks"]) == (aggregation.name, aggregation.num_ranks)
        own = state_of_rank(saved["ranks"], rank if as_before else 0)
        rounds.load_common_state(own["common"])
        if as_before:
            aggregation.load_state_dict(own["aggregation"])
            trainer.optimizers[0].load_state_dict(own["optimizer"])
            load_vector(pl_module, own["local"], aggregation.layout)
            self._finished_at = int(own["finished_at"])
            return
        owed = saved["owed"]
        if tuple(owed.shape) != (aggregation.layout.size,):
            raise ResumeError("What the checkpoint says is owed is of another network.")
        aggregation.owe(owed)
        load_vector(pl_module, rounds.weights, aggregation.layout)
        self._finished_at = trainer.global_step
        rank_zero_warn(
            f"Local steps were saved by {saved['num_ranks']} ranks by {saved['kind']}, and go on with "
            f"{aggregation.num_ranks} by {aggregation.name}: all begin a round at the last common weights with rank "
            "0's optimiser, packets begin with key frames, and what was owed is divided among the ranks."
        )

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step - self._finished_at >= self.every:
            self._finish(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > self._finished_at:
            self._finish(trainer, pl_module)

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rounds = self._rounds()
        layout = rounds.aggregation.layout
        load_vector(pl_module, rounds.finish(pack(pl_module)[0]), layout)
        self._finished_at = trainer.global_step
        aggregation = rounds.aggregation
        metrics = {
            "codec/step": trainer.global_step,
            "codec/rounds": rounds.num_rounds,
            "codec/nmse": aggregation.last_nmse,
        }
        for logger in trainer.loggers:
            figures = metrics | traffic_metrics(aggregation.traffic, aggregation.last_traffic)
            logger.log_metrics(figures, step=trainer.global_step)

    def _rounds(self) -> LocalRounds:
        if self.rounds is None:
            raise RuntimeError("LocalSteps works inside `Trainer.fit` only.")
        return self.rounds

    @override
    def state_dict(self) -> dict[str, Any]:
        if self.rounds is None or self._local is None:
            return {}
        trainer, module = self._local
        aggregation = self.rounds.aggregation
        own = {
            "common": self.rounds.common_state(),
            "aggregation": aggregation.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "local": pack(module)[0],
            "finished_at": self._finished_at,
        }
        return {
            "ranks": gather_states(aggregation.wire, own),
            "owed": aggregation.wire.total(aggregation.owed()),
            "kind": aggregation.name,
            "num_ranks": aggregation.num_ranks,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = state_dict or None


def local_hook(state, bucket):
    """Gradients stay this rank's own."""
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future

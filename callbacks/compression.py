"""Send every gradient through the codec: between the ranks of DDP, or in one process as a link would."""

import dataclasses
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from typing_extensions import override

from ..codec import Codec, CodecConfig, Decoder, Encoder
from ..codec.distributed import (
    AggregationChoice,
    ExchangeConfig,
    GradientCodec,
    GroupWire,
    Traffic,
    choose_aggregation,
    register_gradient_codec,
    require_same_codecs,
)
from ..codec.tensor_bits import TensorBits
from ..forecast import Layout, Ledger, flatten, layout_of, trainable_parameters, unpack
from .errors import ResumeError
from .rank_states import gather_states, state_of_rank
from .support import (
    plain_learning_rate,
    require_ddp_training,
    require_plain_training,
    require_unchanged,
    sole_optimizer,
    wrapped_model,
)


class GradientCompression(pl.Callback):
    """Passes each gradient through the codec, and counts exact bytes.

    **Under DDP** (`strategy="ddp"` or `CompressedDDP`) a communication hook averages the gradients of all ranks through
    packets, as `ExchangeConfig` says. At the start it measures codec and link, and tells below which link speed
    compression pays. Parameters are equal bit for bit on all ranks after every step, and compared every
    `ExchangeConfig.check_every` steps. The hook sees local, accumulated, unclipped gradients; the scale of a loss
    scaler is undone. Buffers are synchronised by DDP itself, uncompressed.

    Checkpoints hold the state of every rank. A run that is resumed with as many ranks goes on as if it had never
    stopped. With another number of ranks, predictors and tables begin anew with key frames, and what all ranks owed is
    divided among the new ones so that nothing is lost; a warning says so. Saving a checkpoint gathers what each rank
    owes: as many bytes as the parameters, of every rank.

    **In one process** the gradient is taken after the backward pass and before clipping, coded into a packet, decoded
    by a decoder that saw only packets, and put back; the optimiser works with what a receiver would have had. Nothing
    is sent anywhere: this measures what a link would carry and what the error does to training.

    With error feedback (`CodecConfig.feedback`) the encoder is told the learning rate where the optimiser is
    `torch.optim.SGD` with one rate for all parameters: its steps are linear in the gradient, so what is owed has to be
    rescaled when the rate changes. All others get what is owed as it is: the steps of Adam do not grow with the
    gradient. What clipping takes away is not owed. What is owed is in the checkpoint.

    Supported: one optimiser, automatic optimisation, clipping, resume; 32-bit training in one process; 32-bit, bfloat16
    and mixed precision, accumulation, unused parameters and compiled submodules under DDP. Everything else is refused
    by name. Logs `codec/bits_per_coordinate` and `codec/nmse`, both means over the run so far, and under DDP the bytes
    that rank 0 sent and received, and their parts. The progress bar shows `compression`: float32's bytes over ours.

    Args:
        config: the codec's settings, or those that differ from its defaults by name, as in YAML.
        exchange: how ranks exchange, under DDP; its defaults when not given.
        log_tensors: whether to log, as `codec/bits/up/<tensor>` and `codec/bits/down/<tensor>`, what each tensor took
            of the packets that rank 0 made in the step that is logged, and what is left as `headers and tables`. They
            sum to the packets' bits exactly; the split is an estimate, see `codec.tensor_bits`. Costs about as much as
            coding the packet once more, in steps that are logged.

    Attributes:
        ledger: what `encoding` and `decoding` cost, or `exchanging` and `comparing` under DDP.
        num_packets: packets so far, one a step.
        num_bytes: their total length, on this rank.
        hook: the hook's state under DDP; None before, and in one process.
        choice: what was measured at the start under DDP; None in one process.
    """

    def __init__(
        self,
        config: CodecConfig | dict[str, Any] | None = None,
        exchange: ExchangeConfig | None = None,
        log_tensors: bool = False,
    ) -> None:
        self.config = config if isinstance(config, CodecConfig) else CodecConfig.from_dict(config or {})
        self.exchange = exchange if exchange is not None else ExchangeConfig()
        self.log_tensors = log_tensors
        self.ledger = Ledger()
        self.num_packets = 0
        self.num_bytes = 0
        self.hook: GradientCodec | None = None
        self.choice: AggregationChoice | None = None
        self._sum_nmse = 0.0
        self._has_packets = False  # since this process began
        self._encoder: Encoder | None = None
        self._decoder: Decoder | None = None
        self._layout: Layout | None = None
        self._resumed: dict[str, Any] | None = None

    @property
    def bits_per_coordinate(self) -> float:
        """Mean packet length so far, in bits for each gradient coordinate; NaN before the first packet."""
        if not self.num_packets or self._layout is None:
            return float("nan")
        return 8 * self.num_bytes / (self.num_packets * self._layout.size)

    @property
    def nmse(self) -> float:
        """Mean over packets of ||g - decoded||^2 / ||g||^2; NaN before the first packet.

        With error feedback, g is what was coded: the gradient and what was owed.
        """
        return self._sum_nmse / self.num_packets if self.num_packets else float("nan")

    @property
    def stateful(self) -> tuple[Encoder, Decoder]:
        """Encoder and decoder, whose state a trial such as a jump must put back when it fails."""
        encoder, decoder, _ = self._parts()
        return encoder, decoder

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        who = type(self).__name__
        ranks = isinstance(trainer.strategy, DDPStrategy)
        if ranks or trainer.world_size > 1:
            require_ddp_training(trainer, pl_module, who)
        else:
            require_plain_training(trainer, pl_module, who)
        self._layout = layout_of(pl_module)
        self.num_packets, self.num_bytes, self._sum_nmse, self.ledger = 0, 0, 0.0, Ledger()
        self.hook, self.choice, self._encoder, self._decoder = None, None, None, None
        self._has_packets = False
        if not ranks:
            codec = Codec(self._layout, self.config)
            self._encoder, self._decoder = codec.encoder(), codec.decoder()

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sole_optimizer(trainer, type(self).__name__)
        if isinstance(trainer.strategy, DDPStrategy):
            self._begin_ranks(trainer, pl_module)
            return
        encoder, decoder, _ = self._parts()
        if self._resumed is not None:
            if "encoder" not in self._resumed:
                raise ResumeError(
                    "The checkpoint holds the codec's state of several ranks; this run has one process without DDP. "
                    "Resume with `strategy='ddp'`."
                )
            encoder.load_state_dict(self._resumed["encoder"])
            decoder.load_state_dict(self._resumed["decoder"])
            self._resumed = None

    def _begin_ranks(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, tell, register the hook and take over what was saved."""
        who = type(self).__name__
        strategy = require_ddp_training(trainer, pl_module, who)
        model = wrapped_model(strategy, who)
        wire = GroupWire(timeout=self.exchange.timeout)
        codec = Codec(layout_of(pl_module), self.config)
        require_same_codecs(codec, wire)  # before anything is measured that depends on them
        self.choice = choose_aggregation(codec, wire, self.exchange.down, self.exchange.levels)
        name = self.choice.best if self.exchange.aggregation == "auto" else self.exchange.aggregation
        rank_zero_info(f"{who}: {self.choice.text(name)}")
        exchange = dataclasses.replace(self.exchange, aggregation=name)
        self.hook = register_gradient_codec(model, self.config, exchange=exchange)
        self.ledger = self.hook.ledger
        if self._resumed is not None:
            self._take_over(self._resumed, self.hook)
            self._resumed = None

    def _take_over(self, saved: dict[str, Any], hook: GradientCodec) -> None:
        aggregation = hook.aggregation
        if "ranks" not in saved:
            rank_zero_warn(
                "The checkpoint's codec state is of one process without DDP: ranks begin with key frames, and what "
                "that process owed is lost."
            )
            return
        old = (str(saved["kind"]), int(saved["num_ranks"]))
        if old == (aggregation.name, aggregation.num_ranks):
            hook.load_state_dict(state_of_rank(saved["ranks"], aggregation.wire.rank))
            return
        owed = saved["owed"]
        if not isinstance(owed, Tensor) or owed.shape != (aggregation.layout.size,) or not owed.isfinite().all():
            raise ResumeError("What the checkpoint says is owed is damaged, or of another network.")
        aggregation.owe(owed)
        rank_zero_warn(
            f"The codec's state was saved by {old[1]} ranks by {old[0]}, and goes on with {aggregation.num_ranks} by "
            f"{aggregation.name}: predictors and tables begin anew with key frames, and what all ranks owed is divided "
            "among the new ones. Byte counts begin at 0."
        )

    @override
    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if self.hook is None:
            return
        plugin = trainer.precision_plugin
        scaler = plugin.scaler if isinstance(plugin, MixedPrecision) else None
        self.hook.loss_scale = float(scaler.get_scale()) if scaler is not None else 1.0
        owing = self.config.feedback != "off" or self.hook.aggregation.name != "all_gather"
        self.hook.learning_rate = plain_learning_rate(trainer.optimizers[0]) if owing else None

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        parameters = trainable_parameters(pl_module)
        if self.hook is not None:
            require_unchanged(parameters, self.hook.aggregation.layout, type(self).__name__)
            self._count_step(self.hook)
            return
        encoder, decoder, layout = self._parts()
        require_unchanged(parameters, layout, type(self).__name__)
        with self.ledger.charge("encoding"):
            gradient = flatten({name: value.grad for name, value in parameters.items()}, layout)
            rate = plain_learning_rate(optimizer) if self.config.feedback != "off" else None
            packet = encoder.encode(gradient, trainer.global_step, learning_rate=rate)
        with self.ledger.charge("decoding"):
            received = unpack(decoder.decode(packet), layout)
            for name, value in parameters.items():
                # A parameter without a gradient stays without: an optimiser skips it, which is not a zero gradient.
                if value.grad is not None:
                    value.grad.copy_(received[name])
        self._has_packets = True
        self.num_packets += 1
        self.num_bytes += len(packet)
        self._sum_nmse += encoder.last_report.nmse

    def _count_step(self, hook: GradientCodec) -> None:
        """Count what the hook has exchanged since it was last looked at."""
        if hook.traffic.num_steps > self.num_packets:
            self._has_packets = True
            self.num_packets = hook.traffic.num_steps
            self.num_bytes = hook.traffic.packet_bits // 8
            self._sum_nmse += hook.aggregation.last_nmse

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.num_packets and self._layout is not None:
            whole = 4 * self._layout.size * self.num_packets
            ratio = whole / max(self.num_bytes, 1)
            pl_module.log("compression", ratio, prog_bar=True, logger=False, rank_zero_only=True)
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and trainer.global_step % every == 0:
            metrics: dict[str, float] = {
                "codec/step": trainer.global_step,
                "codec/bits_per_coordinate": self.bits_per_coordinate,
                "codec/nmse": self.nmse,
            }
            if self.hook is not None:
                metrics |= traffic_metrics(self.hook.traffic, self.hook.aggregation.last_traffic)
            if self.log_tensors and self._has_packets:
                metrics |= tensor_metrics(self._tensor_bits())
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)

    def _tensor_bits(self) -> dict[str, TensorBits]:
        """Of the last step, by way."""
        if self.hook is not None:
            return self.hook.aggregation.tensor_bits()
        encoder, _, _ = self._parts()
        return {"up": encoder.tensor_bits()}

    def _parts(self) -> tuple[Encoder, Decoder, Layout]:
        if self._encoder is None or self._decoder is None or self._layout is None:
            raise RuntimeError("GradientCompression works inside `Trainer.fit` only.")
        return self._encoder, self._decoder, self._layout

    @override
    def state_dict(self) -> dict[str, Any]:
        counts = {
            "num_packets": self.num_packets,
            "num_bytes": self.num_bytes,
            "sum_nmse": self._sum_nmse,
            "ledger": self.ledger.to_dict(),
        }
        if self.hook is not None:
            aggregation = self.hook.aggregation
            states = {
                "ranks": gather_states(aggregation.wire, self.hook.state_dict()),
                "owed": aggregation.wire.total(aggregation.owed()),
            }
            return {**states, "kind": aggregation.name, "num_ranks": aggregation.num_ranks, **counts}
        if self._encoder is None:
            return {}
        encoder, decoder, _ = self._parts()
        return {"encoder": encoder.state_dict(), "decoder": decoder.state_dict(), **counts}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Taken over in `on_fit_start`: Lightning calls this before the run is set up completely.
        if not state_dict:
            return
        self._resumed = state_dict
        self.num_packets = int(state_dict["num_packets"])
        self.num_bytes = int(state_dict["num_bytes"])
        self._sum_nmse = float(state_dict["sum_nmse"])
        self.ledger = Ledger.from_dict(state_dict["ledger"])


def tensor_metrics(ways: dict[str, TensorBits]) -> dict[str, float]:
    """Bits of the last step for loggers, by way and tensor."""
    return {f"codec/bits/{way}/{name}": bits for way, found in ways.items() for name, bits in found.to_dict().items()}


def traffic_metrics(whole: Traffic, last: Traffic) -> dict[str, float]:
    """Byte counts for loggers: of the run so far, and of the last step."""
    return {
        "codec/bytes_sent": whole.sent_bytes,
        "codec/bytes_received": whole.received_bytes,
        "codec/step_bytes_sent": last.sent_bytes,
        "codec/step_bytes_received": last.received_bytes,
        "codec/step_header_bits": last.header_bits,
        "codec/step_side_bits": last.side_bits,
        "codec/step_symbol_bits": last.symbol_bits,
        "codec/step_raw_bits": last.raw_bits,
    }

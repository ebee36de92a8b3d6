"""Send every gradient through the codec, as a link would."""

from typing import Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from ..codec import Codec, CodecConfig, Decoder, Encoder
from ..forecast import Layout, Ledger, flatten, layout_of, trainable_parameters, unpack
from .support import require_plain_training, require_unchanged, sole_optimizer


class GradientCompression(pl.Callback):
    """Passes each gradient through encoder and decoder, where a distributed hook would sit, and counts exact bytes.

    The gradient is taken after the backward pass and before clipping, coded into a packet, decoded by a decoder that
    saw only packets, and put back; the optimiser works with what a receiver would have had. Nothing is sent anywhere:
    this measures what a link would carry and what the error does to training. For two or more processes see
    `deadreckon.codec.distributed`.

    With error feedback (`CodecConfig.feedback`) the encoder is told the learning rate where the optimiser is
    `torch.optim.SGD` with one rate for all parameters: its steps are linear in the gradient, so what is owed has to be
    rescaled when the rate changes. All others get what is owed as it is: the steps of Adam do not grow with the
    gradient. What clipping takes away is not owed. What is owed is in the checkpoint.

    Supported: 32-bit training, one optimiser, automatic optimisation, clipping, resume. Everything else is refused by
    name in `setup`. Logs `codec/bits_per_coordinate` and `codec/nmse`, both means over the run so far.

    Args:
        config: the codec's settings; its defaults when not given.

    Attributes:
        ledger: what `encoding` and `decoding` cost.
        num_packets: packets so far.
        num_bytes: their total length.
    """

    def __init__(self, config: CodecConfig | None = None) -> None:
        self.config = config if config is not None else CodecConfig()
        self.ledger = Ledger()
        self.num_packets = 0
        self.num_bytes = 0
        self._sum_nmse = 0.0
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
        require_plain_training(trainer, pl_module, type(self).__name__)
        self._layout = layout_of(pl_module)
        codec = Codec(self._layout, self.config)
        self.num_packets, self.num_bytes, self._sum_nmse, self.ledger = 0, 0, 0.0, Ledger()
        self._encoder, self._decoder = codec.encoder(), codec.decoder()

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sole_optimizer(trainer, type(self).__name__)
        encoder, decoder, _ = self._parts()
        if self._resumed is not None:
            encoder.load_state_dict(self._resumed["encoder"])
            decoder.load_state_dict(self._resumed["decoder"])
            self._resumed = None

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        encoder, decoder, layout = self._parts()
        parameters = trainable_parameters(pl_module)
        require_unchanged(parameters, layout, type(self).__name__)
        with self.ledger.charge("encoding"):
            gradient = flatten({name: value.grad for name, value in parameters.items()}, layout)
            rate = _learning_rate(optimizer) if self.config.feedback != "off" else None
            packet = encoder.encode(gradient, trainer.global_step, learning_rate=rate)
        with self.ledger.charge("decoding"):
            received = unpack(decoder.decode(packet), layout)
            for name, value in parameters.items():
                # A parameter without a gradient stays without: an optimiser skips it, which is not a zero gradient.
                if value.grad is not None:
                    value.grad.copy_(received[name])
        self.num_packets += 1
        self.num_bytes += len(packet)
        self._sum_nmse += encoder.last_report.nmse

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if every and trainer.global_step % every == 0:
            for logger in trainer.loggers:
                metrics = {
                    "codec/step": trainer.global_step,
                    "codec/bits_per_coordinate": self.bits_per_coordinate,
                    "codec/nmse": self.nmse,
                }
                logger.log_metrics(metrics, step=trainer.global_step)

    def _parts(self) -> tuple[Encoder, Decoder, Layout]:
        if self._encoder is None or self._decoder is None or self._layout is None:
            raise RuntimeError("GradientCompression works inside `Trainer.fit` only.")
        return self._encoder, self._decoder, self._layout

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._encoder is None:
            return {}
        encoder, decoder, _ = self._parts()
        return {
            "encoder": encoder.state_dict(),
            "decoder": decoder.state_dict(),
            "num_packets": self.num_packets,
            "num_bytes": self.num_bytes,
            "sum_nmse": self._sum_nmse,
            "ledger": self.ledger.to_dict(),
        }

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


def _learning_rate(optimizer: torch.optim.Optimizer) -> float | None:
    """The rate that steps are proportional to; `None` where they are not, or parameters differ in it."""
    rates = {float(group["lr"]) for group in optimizer.param_groups}
    return rates.pop() if isinstance(optimizer, torch.optim.SGD) and len(rates) == 1 else None
